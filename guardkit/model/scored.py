"""What a classifier said of texts, checked: every text has a score or the reason it has none.

Shape letters: N texts, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from guardkit.errors import ClassifierError
from guardkit.types import BoolArray, FloatArray, IntArray, RawScores

#: Characters of a reason that are kept: an exception may quote whole texts.
REASON = 500


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model made of N texts. Rows of ``logits_NC`` that failed are NaN, with the reason
    in ``errors`` by position; so are values of ``novelty_N`` (None where not asked for), with
    the reason in ``novelty_errors``. ``down`` are those of ``errors`` that are no text's fault: the
    classifier as a whole was down."""

    logits_NC: FloatArray
    tokens_N: IntArray
    windows_N: IntArray
    truncated_N: BoolArray
    errors: Mapping[int, str] = field(default_factory=dict)
    novelty_N: FloatArray | None = None
    novelty_errors: Mapping[int, str] = field(default_factory=dict)
    down: frozenset[int] = frozenset()


def joined(parts: Sequence[Scored]) -> Scored:
    """Return the scores of several batches as those of one; there must be at least one batch, and
    all or none of them have novelty."""
    starts = np.cumsum([0, *(len(part.tokens_N) for part in parts)]).tolist()

    def together(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])

    def reasons(name: str) -> dict[int, str]:
        errors = zip(starts, (getattr(part, name) for part in parts), strict=False)
        return {start + i: reason for start, own in errors for i, reason in own.items()}

    return Scored(
        together("logits_NC"),
        together("tokens_N"),
        together("windows_N"),
        together("truncated_N"),
        reasons("errors"),
        None if parts[0].novelty_N is None else together("novelty_N"),
        reasons("novelty_errors"),
        frozenset(start + i for start, part in zip(starts, parts, strict=False) for i in part.down),
    )


def checked(raw: RawScores, n: int, n_labels: int) -> Scored:
    """Refuse wrong shapes; turn non-finite rows into failures. A score is finite or no score, and
    a text with a reason has none, whatever its row holds."""
    logits_NC = np.array(raw.logits_NC, np.float32)  # a copy: a plugin may use its arrays again
    if logits_NC.shape != (n, n_labels):
        raise ClassifierError(f"logits of shape {logits_NC.shape}, expected {(n, n_labels)}")
    for name in ("tokens_N", "windows_N", "truncated_N"):
        if (shape := np.shape(getattr(raw, name))) != (n,):
            raise ClassifierError(f"{name} of shape {shape}, expected {(n,)}")
    if wrong := [i for i in raw.errors if not 0 <= i < n]:
        raise ClassifierError(f"errors: has {wrong[0]!r}, no position among {n} texts")
    bad_N = np.flatnonzero(~np.isfinite(logits_NC).all(axis=1))
    errors = {int(i): "the classifier returned a value that is not finite" for i in bad_N}
    errors |= {int(i): one_line(str(why)) for i, why in raw.errors.items()}
    logits_NC[list(errors)] = np.nan
    return Scored(
        logits_NC,
        np.array(raw.tokens_N, np.int64),
        np.array(raw.windows_N, np.int64),
        np.array(raw.truncated_N, bool),
        errors,
    )


def one_line(reason: str) -> str:
    """Return a reason as it is kept: in one line, and not whole texts."""
    return writable(" ".join(reason.split())[:REASON])


def writable(reason: str) -> str:
    """Return a plugin's words without half a character, which no output takes."""
    return reason.encode("utf-8", "replace").decode()


def spread(raw: RawScores, at: Sequence[int], errors: Mapping[int, str], n: int) -> RawScores:
    """Return ``raw``, the scores of the texts ``at`` these positions, as those of n texts, of
    which the others have ``errors``."""

    def over(values_N: Any, dtype: Any, other: Any) -> Any:
        values_N = np.asarray(values_N)
        if values_N.shape[:1] != (len(at),):
            raise ClassifierError(f"{values_N.shape[:1]} rows for {len(at)} texts")
        all_N = np.full((n, *values_N.shape[1:]), other, dtype)
        all_N[list(at)] = values_N
        return all_N

    return RawScores(
        over(raw.logits_NC, np.float32, np.nan),
        over(raw.tokens_N, np.int64, 0),
        over(raw.windows_N, np.int64, 0),
        over(raw.truncated_N, bool, False),
        None if raw.novelty_N is None else over(raw.novelty_N, np.float32, np.nan),
        errors={**errors, **{at[i]: why for i, why in raw.errors.items() if 0 <= i < len(at)}},
    )


def nothing(n_labels: int, *, novelty: bool) -> Scored:
    none = np.zeros(0, np.int64)
    scored = Scored(np.zeros((0, n_labels), np.float32), none, none, np.zeros(0, bool))
    return without_novelty(scored, {}) if novelty else scored


def failed(reason: str, n_labels: int) -> Scored:
    reason = writable(reason)
    nothing = np.zeros(1, np.int64)
    nan = np.full((1, n_labels), np.nan, np.float32)
    return Scored(nan, nothing, nothing, np.zeros(1, bool), {0: reason})


def without_novelty(scored: Scored, reasons: Mapping[int, str]) -> Scored:
    unknown_N = np.full(len(scored.tokens_N), np.nan, np.float32)
    return replace(scored, novelty_N=unknown_N, novelty_errors={**reasons, **scored.errors})
