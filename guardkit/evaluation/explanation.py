"""What each piece of a text adds to a model's decision, for the terminal and as a page.

Shape letters: R readings, T tokens, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from guardkit.errors import ClassifierError, OutputError, UsageError
from guardkit.evaluation.report import environment
from guardkit.files import write_atomically
from guardkit.model.loaded import Model
from guardkit.text.visible import visible
from guardkit.types import FloatArray, Origin, Role, Row

STRONGEST = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """``text[start:end]`` and what it adds to the explained label's logit over the others'."""

    start: int
    end: int
    value: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Evidence for ``label`` in ``text``, under ``scorer``.

    ``text`` is the text that was asked about (``as_it_stands``), or that one of its ``readings``
    that decides; ``readings`` counts them all, the text itself included. Of a row with several
    texts, ``origin`` says which one it is, of ``texts`` that were judged.
    """

    text: str
    as_it_stands: bool
    readings: int
    label: str
    scorer: str
    pieces: Sequence[Piece]
    probabilities: dict[str, float]
    model: str
    model_hash: str
    origin: Origin | None = None
    texts: int = 1

    @property
    def strongest(self) -> list[Piece]:
        return sorted(self.pieces, key=lambda piece: -abs(piece.value))[:STRONGEST]

    @property
    def largest(self) -> float:
        """The largest absolute value, to scale by; 1 where all values are 0."""
        return max((abs(piece.value) for piece in self.pieces), default=0.0) or 1.0


def explain(model: Model, text: str) -> Explanation:
    """Explain the label that ``model`` finds likeliest or, of two labels, the positive one.

    Where the text has several readings, the one that decides is explained. Raises UsageError where
    the text is empty.
    """
    if not text:
        raise UsageError("the text is empty: nothing to explain; give one, or - to read it")
    neutral = model.config.neutral_index
    every, scored = model.read(text)
    logits_RC = scored.logits_NC
    if len(every) > 1:
        assert neutral is not None  # no other reading without one
        logits_RC = logits_RC - logits_RC[:, [neutral]]
    logits_1C = logits_RC.max(axis=0, keepdims=True)
    shown = replace(scored, logits_NC=logits_1C, tokens_N=scored.tokens_N[:1])
    calibrated_1C, unknown = model.probabilities_of(shown)
    for reason in unknown.values():
        raise ClassifierError(f"{model.path}: {reason}")
    probabilities_C = calibrated_1C[0].tolist()
    column = max(range(len(probabilities_C)), key=probabilities_C.__getitem__)
    if len(model.labels) == 2:
        column = 1 if neutral is None else 1 - neutral
    deciding = every[int(logits_RC[:, column].argmax())]
    evidence = model.explain(deciding)
    return Explanation(
        deciding, deciding == text, len(every), model.labels[column], evidence.scorer,
        pieces_of(evidence.spans, lead(evidence.values_TC, column)),
        dict(zip(model.labels, probabilities_C, strict=True)),
        str(model.path), model.hash,
    )  # fmt: skip


def explain_row(
    model: Model, row: Row, judges: Callable[[Role | None], bool] = lambda role: True
) -> Explanation:
    """Explain the text of ``row`` that decides: of those whose role somebody ``judges``, the one
    that ``model`` finds likeliest to be of another label than the neutral one.

    Raises UsageError where there is none, ClassifierError where one of them cannot be judged.
    """
    if not row.origins:  # one plain text
        return explain(model, *row.texts)
    said = zip(row.texts, row.origins, strict=True)
    judged = [(text, origin) for text, origin in said if text and judges(origin.role)]
    if not judged:
        roles = ", ".join(sorted({origin.role or "no role" for origin in row.origins}))
        raise UsageError(
            f"row {row.line}: none of its texts, which are those of {roles}, is judged: nothing "
            "to explain"
        )
    p_NC, unknown = model.probabilities_of(model.score([text for text, _ in judged]))
    for i, reason in unknown.items():
        raise ClassifierError(f"{model.path}: {judged[i][1].name()}: {reason}")
    neutral = model.config.neutral_index
    speaking = [c for c in range(len(model.labels)) if c != neutral]
    if neutral is None and len(speaking) == 2:
        speaking = [1]
    text, origin = judged[int(p_NC[:, speaking].max(axis=1).argmax())]
    return replace(explain(model, text), origin=origin, texts=len(judged))


def lead(values_TC: FloatArray, column: int) -> FloatArray:
    """Return what each token adds to one label's logit over the mean of the others'."""
    lead_T: FloatArray = values_TC[:, column] - np.delete(values_TC, column, axis=1).mean(axis=1)
    return lead_T


def pieces_of(spans: Sequence[tuple[int, int]], value_T: FloatArray) -> list[Piece]:
    """Return the visible pieces in order; tokens that are bytes of one character make one piece."""
    pieces: list[Piece] = []
    for (start, end), value in zip(spans, value_T.tolist(), strict=True):
        if pieces and start < pieces[-1].end:
            last = pieces.pop()
            start, end, value = last.start, max(end, last.end), value + last.value
        if start < end:
            pieces.append(Piece(start, end, value))
    return pieces


def write_page(path: Path, explanation: Explanation) -> None:
    """Write the explanation as one HTML file that needs no other. Raises OutputError."""
    try:
        write_atomically(path, render(explanation).encode())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def render(explanation: Explanation) -> str:
    """Return the HTML page; text between the pieces has no colour."""
    text, parts, at = explanation.text, [], 0
    for piece in explanation.pieces:
        parts += [(text[at : piece.start], None), (text[piece.start : piece.end], piece.value)]
        at = piece.end
    parts.append((text[at:], None))
    return (
        environment()
        .get_template("explanation.html")
        .render(
            explanation=explanation,
            origin=visible(explanation.origin.name()) if explanation.origin else None,
            parts=[(visible(part), value) for part, value in parts if part],
            strongest=[(visible(text[p.start : p.end]), p.value) for p in explanation.strongest],
        )
    )
