"""How strange a text is to a model, as a p-value among held-out texts of like length.

A novelty score (larger is stranger) has no unit and depends on the length. Its p-value depends on
neither: it is the share of the calibration texts of about this length that are at least as strange.
A small p says that the text is unlike the training data: evidence about the model's competence on
the text, never about the text's class.

Shape letters: N texts to judge, n calibration texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardkit.data.hashes import text_hash
from guardkit.data.splits import group_names
from guardkit.errors import ArtefactError, DataError, first_mistake
from guardkit.model.artefact import NOVELTY
from guardkit.model.scorers import Source
from guardkit.types import Examples, FloatArray, IntArray

#: Texts that a bin holds at least, if there are as many: then bounds down to 1/101 can be used.
BIN_TEXTS = 100
#: More bins would follow length more closely and make the least p-value larger: four, each of a
#: quarter of the texts, leave a bound of 0.001 to 4,000 calibration texts.
MOST_BINS = 4

#: What is wrong with a model without a novelty record.
NO_NOVELTY = (
    f"has no {NOVELTY}, so it gives no novelty p-value; `guardkit calibrate` fits one on held-out "
    "text of all its labels, where the plugin gives a novelty"
)

_Float64 = npt.NDArray[np.float64]
_Tokens = Annotated[int, Field(ge=0)]
_Score = Annotated[float, Field(allow_inf_nan=False)]


class Novelty(BaseModel):
    """The novelty of n calibration texts of all labels, shortest first, one of
    each group of near-duplicates (several would be no independent draws)."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    format: Literal[1] = 1
    tokens: list[_Tokens] = Field(min_length=1, description="each text's length, ascending")
    scores: list[_Score] = Field(description="each text's novelty score")
    left_out: int = Field(description="texts whose novelty could not be computed")
    data: str = Field(description="SHA-256 of the calibration texts and labels")

    @model_validator(mode="after")
    def _consistent(self) -> Novelty:
        if len(self.scores) != len(self.tokens):
            raise ValueError(f"{len(self.scores)} scores for {len(self.tokens)} texts")
        if self.tokens != sorted(self.tokens):
            raise ValueError("tokens must ascend")
        return self

    @property
    def least_p(self) -> float:
        """The least bound that can be used: a text can have this p-value at any length."""
        return 1 / min(self._bin_size, len(self.tokens) + 1)

    def p_values(self, novelty_N: FloatArray, tokens_N: IntArray) -> _Float64:
        """Return p_N = (1 + #{scores of the text's bin >= its own}) / (texts of its bin + 1).

        NaN where the novelty is NaN. The chance of p <= a is at most a for a text drawn as the
        calibration texts were, over both draws (Vovk 2005, Mondrian conformal prediction): each
        of a bin's texts, this one among them, is as likely as any other to be the strangest.
        """
        tokens_n, scores_n = np.array(self.tokens), np.array(self.scores)
        p_N = np.full(len(novelty_N), np.nan)
        known_N = ~np.isnan(novelty_N)
        for tokens in np.unique(tokens_N[known_N]).tolist():
            own = np.flatnonzero(known_N & (tokens_N == tokens))
            bin_n = np.sort(scores_n[self._bin(tokens_n, tokens)])
            # in the precision that both were computed in, so that equal scores tie
            stranger = len(bin_n) - np.searchsorted(bin_n, novelty_N[own].astype(np.float64))
            p_N[own] = (1 + stranger) / (len(bin_n) + 1)
        return p_N

    @property
    def _bin_size(self) -> int:
        """Texts in a bin at least, the text to judge among them."""
        return max(BIN_TEXTS + 1, -(-(len(self.tokens) + 1) // MOST_BINS))

    def _bin(self, tokens_n: IntArray, tokens: int) -> slice:
        """Return which calibration texts are of like length with one of ``tokens`` tokens.

        Bins are drawn over the calibration texts and this one together: drawn over the
        calibration texts alone, a text on the edge of a bin would stand apart from the one to
        judge, and p would not quite be uniform. Equal lengths share a bin.
        """
        place = int(np.searchsorted(tokens_n, tokens, side="right"))
        together = np.insert(tokens_n, place, tokens)
        start, total = 0, len(together)
        while True:
            end = total
            if start + self._bin_size <= total:
                edge = together[start + self._bin_size - 1]
                end = int(np.searchsorted(together, edge, side="right"))
                if total - end < self._bin_size:  # too few left for a bin of their own
                    end = total
            if place < end:
                return slice(start, end - 1)  # less the text itself
            start = end


class NoveltyFile(Novelty):
    """``novelty.json``: that of the model's default scorer, and of its others that give one."""

    scorers: dict[str, Novelty] = Field(
        default_factory=dict, description="of scorers other than the default one, by name"
    )

    def of(self, scorer: str | None) -> Novelty | None:
        """Return a scorer's record, the default one's where ``scorer`` is None."""
        if scorer is not None:
            return self.scorers.get(scorer)
        return Novelty(**{name: getattr(self, name) for name in Novelty.model_fields})


def novelty_file(default: Novelty, others: Mapping[str, Novelty]) -> Novelty:
    """Return what ``novelty.json`` holds, ``scorers`` only where there are ``others``."""
    return NoveltyFile(**dict(default), scorers=dict(others)) if others else default


def fit_novelty(
    examples: Examples, novelty_N: FloatArray, tokens_N: IntArray, *, data: str
) -> Novelty:
    """Return the novelty of held-out ``examples``, whose scores and lengths are given.

    They must be of all labels (with benign texts alone every attack would be novel, known ones
    too) and none the model was trained on. Texts whose score is NaN are left out: what cannot
    be computed for a text to judge either never counts as familiar. Raises DataError where no
    text is left.
    """
    chosen: dict[str, tuple[bytes, int]] = {}
    for i, (group, text) in enumerate(zip(group_names(examples), examples.texts, strict=True)):
        if not np.isnan(novelty_N[i]):
            # by hash, so that neither the order of the data nor the score says which
            own = (text_hash(text), i)
            chosen[group] = min(chosen.get(group, own), own)
    if not chosen:
        raise DataError(f"not one of {len(examples):,} calibration texts has a novelty")
    kept = np.array([i for _, i in chosen.values()])
    kept = kept[np.lexsort([novelty_N[kept], tokens_N[kept]])]
    return Novelty(
        tokens=tokens_N[kept].tolist(),
        scores=novelty_N[kept].tolist(),
        left_out=int(np.isnan(novelty_N).sum()),
        data=data,
    )


def read_novelty(path: Path) -> NoveltyFile:
    try:
        return NoveltyFile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else error
        raise ArtefactError(f"{path}: not a record of novelty: {why}") from error


def why_unreachable(source: Source, bound: float) -> str | None:
    """Return why no text can have a p-value at or below ``bound`` under a model's scorer, and what
    to do about it; None where one can."""
    folder, scorer = source.folder, source.scorer
    if folder is None:
        return "it has no model, so it gives no novelty p-value"
    path = folder / NOVELTY
    if not path.is_file():
        return f"{folder}: {NO_NOVELTY}"
    try:
        novelty = read_novelty(path).of(scorer)
    except ArtefactError as error:
        return str(error)
    if novelty is None:
        return f"{folder}: its {NOVELTY} has none of scorer {scorer!r}; name another scorer"
    if bound >= novelty.least_p:
        return None
    least = math.ceil(1e5 * novelty.least_p - 1e-6) / 1e5  # not below it
    return (
        f"its p-value never falls to {bound:g}: {len(novelty.tokens):,} calibration texts let a "
        f"bound be {least:g} or more; one of {bound:g} takes {_least_texts(bound):,} texts "
        "(near-duplicates counted once)"
    )


def _least_texts(bound: float) -> int:
    """Return how many calibration texts let ``bound`` be used."""
    bin_size = math.ceil(1 / bound - 1e-9)
    return bin_size - 1 if bin_size <= BIN_TEXTS + 1 else MOST_BINS * (bin_size - 1)
