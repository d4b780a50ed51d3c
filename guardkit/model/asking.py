"""Ask a classifier about texts: a text that cannot be scored fails alone, and a classifier that is
down fails them all without being asked again at once.

Shape letters: N texts, C labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from guardkit.errors import MemberDown, TextError
from guardkit.model.scored import (
    Scored,
    checked,
    failed,
    joined,
    nothing,
    one_line,
    spread,
    without_novelty,
)
from guardkit.types import Classifier, FloatArray, RawScores, SupportsSharing

#: What models that read the same texts leave for each other (``guardkit.SupportsSharing``).
Shared = MutableMapping[Hashable, Any]
#: A classifier that is down is asked again after so many seconds.
REST_S = 30.0


@dataclass
class Circuit:
    """Whether a classifier that was down is to be asked again yet: it rests for ``REST_S``."""

    clock: Callable[[], float] = time.monotonic
    reason: str | None = None  # why it rests
    until: float = 0.0

    def opened(self, reason: str) -> None:
        """Note that the classifier is down."""
        self.reason, self.until = reason, self.clock() + REST_S

    def why_not(self) -> str | None:
        """Return why the classifier is not to be asked now, None where it is."""
        if self.reason is not None and self.clock() >= self.until:
            self.reason = None
        return self.reason


@dataclass(frozen=True)
class Asked:
    """A classifier to be asked, and what is known of it. ``n_labels`` are those it has."""

    classifier: Classifier
    family: str
    n_labels: int
    circuit: Circuit = field(default_factory=Circuit)

    def score(self, texts: Sequence[str], shared: Shared, *, novelty: bool) -> Scored:
        """Return what the classifier makes of the texts, with ``novelty`` if that is wanted."""
        if not texts:
            return nothing(self.n_labels, novelty=novelty)
        if why := self.circuit.why_not():
            return self._down(MemberDown(why), len(texts), novelty=novelty)
        try:
            raw = self._but_for_single_texts(texts, shared, novelty=novelty)
            scored = checked(raw, len(texts), self.n_labels)
            return self._with_novelty(scored, raw.novelty_N) if novelty else scored
        except KeyboardInterrupt:
            raise
        except MemberDown as error:
            self.circuit.opened(one_line(str(error)))
            return self._down(error, len(texts), novelty=novelty)
        # recorded per text below, never swallowed; a plugin that exits, or a library of Rust that
        # panics (a BaseException of pyo3's), must not end the run either
        except BaseException as error:
            if len(texts) == 1:
                reason = f"{type(error).__name__}: {error}"
                if not novelty:
                    return failed(reason, self.n_labels)
                return without_novelty(self.score(texts, shared, novelty=False), {0: reason})
        # an exception for the batch: find whose it is, so that neighbours do not suffer
        half = len(texts) // 2
        halves = (texts[:half], texts[half:])
        return joined([self.score(part, shared, novelty=novelty) for part in halves])

    def _but_for_single_texts(
        self, texts: Sequence[str], shared: Shared, *, novelty: bool
    ) -> RawScores:
        """Return the classifier's scores; texts that it says are at fault are left out of another
        call, and have their reason."""
        left, errors = list(range(len(texts))), dict[int, str]()
        asked = {"novelty": True} if novelty else {}
        while left:
            own = [texts[i] for i in left]  # a copy: what a plugin does to it, no neighbour suffers
            try:
                if isinstance(self.classifier, SupportsSharing):
                    raw = self.classifier.score_shared(own, shared, **asked)
                else:
                    raw = self.classifier.score(own, **asked)
            except TextError as error:
                if not 0 <= error.text < len(left):
                    raise
                errors[left.pop(error.text)] = str(error)
            else:
                return spread(raw, left, errors, len(texts)) if errors else raw
        scored = joined([failed(errors[i], self.n_labels) for i in range(len(texts))])
        return RawScores(
            scored.logits_NC, scored.tokens_N, scored.windows_N, scored.truncated_N, errors=errors
        )

    def _down(self, error: MemberDown, n: int, *, novelty: bool) -> Scored:
        """Return what was answered before the classifier went down; all else has its reason."""
        why = one_line(f"it is down: {error}")
        if error.answered is None:
            scored = joined([failed(why, self.n_labels)] * n)
            scored = replace(scored, down=frozenset(range(n)))
        else:
            scored = checked(error.answered, n, self.n_labels)
            lost = scored.errors.keys() - error.answered.errors.keys()
            errors = {**scored.errors, **dict.fromkeys(lost, why)}
            scored = replace(scored, errors=errors, down=frozenset(lost))
        return without_novelty(scored, dict.fromkeys(range(n), why)) if novelty else scored

    def _with_novelty(self, scored: Scored, novelty_N: FloatArray | None) -> Scored:
        """Add novelty to scores; a text that failed has none."""
        n = len(scored.tokens_N)
        if novelty_N is None:
            why = f"{self.family} gives no novelty"
            return without_novelty(scored, dict.fromkeys(range(n), why))
        if np.shape(novelty_N) != (n,):
            why = f"novelty_N of shape {np.shape(novelty_N)}, expected {(n,)}"
            return without_novelty(scored, dict.fromkeys(range(n), why))
        novelty_N = np.array(novelty_N, np.float32)
        bad = (~np.isfinite(novelty_N)).nonzero()[0].tolist()
        errors = dict.fromkeys(bad, "the classifier returned a novelty that is not finite")
        errors |= scored.errors
        novelty_N[list(errors)] = np.nan
        return replace(scored, novelty_N=novelty_N, novelty_errors=errors)
