"""What a model saw in a text, piece by piece: worked out once, for the terminal and as a page.

Shape letters: R readings, T tokens, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guardkit.errors import OutputError, UsageError
from guardkit.evaluation.breakdown import visible
from guardkit.evaluation.report import environment
from guardkit.model.loaded import Model
from guardkit.types import FloatArray

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

    ``text`` is what was asked about ``as_it_stands``, or the one of its ``readings``, so many in
    all, that decides.
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

    @property
    def strongest(self) -> list[Piece]:
        return sorted(self.pieces, key=lambda piece: -abs(piece.value))[:STRONGEST]

    @property
    def largest(self) -> float:
        """The largest value there is, for or against; 1 where all are 0, so as to divide by."""
        return max((abs(piece.value) for piece in self.pieces), default=0.0) or 1.0


def explain(model: Model, text: str) -> Explanation:
    """Explain the label that ``model`` finds likeliest; of two, the one that is to be found. Of
    several readings of the text, explained is the one that decides.

    Raises UsageError where there is no text.
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
    calibrated_1C = model.calibrated().probabilities_NC(logits_1C, scored.tokens_N[:1])
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


def lead(values_TC: FloatArray, column: int) -> FloatArray:
    """Return what each token adds to one label's logit over the mean of the others'."""
    lead_T: FloatArray = values_TC[:, column] - np.delete(values_TC, column, axis=1).mean(axis=1)
    return lead_T


def pieces_of(spans: Sequence[tuple[int, int]], value_T: FloatArray) -> list[Piece]:
    """Return what can be seen, in order: tokens that share a character (its bytes) are one."""
    pieces: list[Piece] = []
    for (start, end), value in zip(spans, value_T.tolist(), strict=True):
        if pieces and start < pieces[-1].end:
            last = pieces.pop()
            start, end, value = last.start, max(end, last.end), value + last.value
        if start < end:
            pieces.append(Piece(start, end, value))
    return pieces


def write_page(path: Path, explanation: Explanation) -> None:
    """Write the explanation as a page, one file that needs nothing else. Raises OutputError."""
    try:
        path.write_text(render(explanation), "utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def render(explanation: Explanation) -> str:
    """Return the page; what lies between the pieces is shown without colour."""
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
            parts=[(visible(part), value) for part, value in parts if part],
            strongest=[(visible(text[p.start : p.end]), p.value) for p in explanation.strongest],
        )
    )
