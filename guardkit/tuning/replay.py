"""Replay a cascade over log-odds that are already known: no model runs.

The router's own tree gives each stage's value for each text once. Any other choice of ``settle``
bounds is then a few array operations, and decides exactly as the router would.

Shape letters: N texts, S stages, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardkit.log_odds import logit
from guardkit.types import BoolArray

_Float64 = npt.NDArray[np.float64]

#: (below, above) of a stage, as probabilities.
Bounds = tuple[float, float]
NEVER: Bounds = (0.0, 1.0)


@dataclass(frozen=True)
class Stages:
    """What a cascade's stages say of N texts.

    ``lo_SN`` and ``hi_SN`` are intervals of log-odds, NaN for no opinion; ``strange_SN`` says where
    a stage's ``escalate_if`` holds; ``unread_SN`` where a stage does not read a text to its end and
    ``on_truncated`` has such texts flagged; ``asks_SM`` which models a stage runs, ``ms_MN`` what
    that costs per text, ``closed`` whether a text that could not be judged is flagged.
    """

    lo_SN: _Float64
    hi_SN: _Float64
    strange_SN: BoolArray
    unread_SN: BoolArray
    asks_SM: BoolArray
    ms_MN: _Float64
    closed: bool


@dataclass(frozen=True)
class Replay:
    """What a cascade makes of N texts under some bounds.

    A text is flagged where ``score_N``, in log-odds, is above the threshold's: its upper end where
    failures are flagged (``on_error: closed``), else the lower; -inf where nothing had an opinion,
    inf where ``on_truncated`` has it flagged whatever was read.
    """

    score_N: _Float64
    asked_MN: BoolArray
    ms_N: _Float64

    def flagged_N(self, threshold: float) -> BoolArray:
        """Return which texts are flagged above ``threshold``, a probability."""
        flagged_N: BoolArray = self.score_N > logit(threshold)
        return flagged_N


def replay(stages: Stages, bounds: Sequence[Bounds]) -> Replay:
    """Run the cascade with ``bounds`` for every stage; those of the last do not matter."""
    n = stages.lo_SN.shape[1]
    end_SN = stages.hi_SN if stages.closed else stages.lo_SN
    left_N, score_N = np.ones(n, bool), np.full(n, -np.inf)
    asked_MN, unread_N = np.zeros(stages.ms_MN.shape, bool), np.zeros(n, bool)
    for s, (below, above) in enumerate(bounds):
        unread_N |= stages.unread_SN[s] & left_N
        asked_MN |= stages.asks_SM[s][:, None] & left_N  # once, whatever stages ask it
        # the latest opinion stands, also where a later stage is silent
        heard_N = left_N & ~np.isnan(stages.lo_SN[s])
        score_N = np.where(heard_N, end_SN[s], score_N)
        settled_N = (stages.hi_SN[s] <= logit(below)) | (stages.lo_SN[s] >= logit(above))
        left_N = left_N & (~settled_N | stages.strange_SN[s])
    score_N = np.where(unread_N, np.inf, score_N)
    return Replay(score_N, asked_MN, np.where(asked_MN, stages.ms_MN, 0.0).sum(axis=0))
