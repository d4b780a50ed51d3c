"""What a policy's models say of a batch of texts, each text read at most once.

Shape letters: N texts of the batch, C labels; ``index_N`` says which of them are asked about.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from guardkit.model.loaded import Model, Shared
from guardkit.types import IntArray


class Scores:
    """What one model says of the whole batch, as far as it was asked: raw logits, the tokens they
    were read from, and novelty. NaN where it failed, with the reason by position."""

    def __init__(self, n: int, n_labels: int) -> None:
        self.logits_NC = np.full((n, n_labels), np.nan, np.float32)
        self.tokens_N = np.zeros(n, np.int64)
        self.done_N = np.zeros(n, bool)
        self.truncated_N = np.zeros(n, bool)
        self.reasons: dict[int, str] = {}
        self.novelty_p_N = np.full(n, np.nan)
        self.novelty_done_N = np.zeros(n, bool)
        self.novelty_reasons: dict[int, str] = {}

    def ask(
        self,
        model: Model,
        texts: Sequence[str],
        index_N: IntArray,
        *,
        novelty: bool,
        novelty_too: bool,
        shared: Shared,
    ) -> None:
        """Have ``model`` score those of the batch's ``texts`` at ``index_N`` that it has not.

        ``novelty`` is asked for now; ``novelty_too`` takes it along, as somebody will ask.
        ``shared`` is of this batch: what models leave there for each other.
        """
        new_N = index_N[~(self.novelty_done_N if novelty else self.done_N)[index_N]]
        if not new_N.size:
            return
        novelty = novelty or novelty_too
        own = [texts[i] for i in new_N.tolist()]
        scored = model.score(own, novelty=novelty, shared=shared)
        self.logits_NC[new_N] = scored.logits_NC
        self.tokens_N[new_N] = scored.tokens_N
        self.done_N[new_N] = True
        self.reasons |= {int(new_N[i]): why for i, why in scored.errors.items()}
        self.truncated_N[new_N] = scored.truncated_N
        if novelty:
            self.novelty_p_N[new_N] = model.novelty_p_values(scored)
            self.novelty_done_N[new_N] = True
            reasons = scored.novelty_errors.items()
            self.novelty_reasons |= {int(new_N[i]): why for i, why in reasons}
