"""Stopping early: how many draws of masks a text needs before its class is settled.

One draw (an H pair) is one independent observation of log p(x|c): its two halves are
correlated, and masks of one text say nothing new about its label. So the rule bounds how often
a decision differs from the one that all masks would give, not how often it is wrong, and Wald's
sequential test, whose bounds need independent observations of the label, does not apply.

Shapes: N texts, P draws so far, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
#: Draws from which a text's own spread is used; below, the pooled one.
OWN_SPREAD = 4


@dataclass(frozen=True)
class StoppingRule:
    """Stop text x at draw p < ``cap`` where its leading class is ahead of every rival by

        mean_p > z s / sqrt(p),   z = Phi^-1(1 - alpha / (2 cap))

    The mean and s are those of the lead over its draws; s is ``pooled_spread`` for p < 4. By the
    union bound over looks a text stops on another class than all masks would give with
    probability ``alpha`` at most, as far as leads are normal and s is known: a spread of four
    draws is a rough one, and a text that reaches ``cap`` carries no promise. Measure the flips.
    """

    alpha: float
    cap: int
    pooled_spread: float
    least: int = 1

    @property
    def z(self) -> float:
        return NormalDist().inv_cdf(1 - self.alpha / (2 * self.cap))

    def settled(self, draws_NPC: Float64) -> npt.NDArray[np.bool_]:
        """Return settled_N after P draws. For a decision boundary b other than a tie, add each
        class's offset to its draws."""
        P = draws_NPC.shape[1]
        if self.least > P:
            return np.zeros(len(draws_NPC), bool)
        lead_NPC, rival_NC = _leads(draws_NPC)
        spread_NC = np.full(rival_NC.shape, self.pooled_spread)
        if P >= OWN_SPREAD:
            spread_NC = lead_NPC.std(1, ddof=1)
        ahead_NC = lead_NPC.mean(1) > self.z * spread_NC / P**0.5
        settled_N: npt.NDArray[np.bool_] = (ahead_NC | ~rival_NC).all(1)
        return settled_N


@dataclass(frozen=True)
class Stopped:
    """Each text's mean over its draws, and how many it took."""

    estimate_NC: Float64
    draws_N: IntArray


def stop_early(
    rule: StoppingRule, n_texts: int, draw: Callable[[IntArray, int], Float64]
) -> Stopped:
    """Draw masks for texts that are not settled, up to ``rule.cap`` times.

    ``draw(rows, p)`` returns draw p of these texts, (len(rows), C): it runs the network for
    them alone.
    """
    open_n = np.arange(n_texts)
    draws_nPC = draw(open_n, 0)[:, None]
    estimate_NC = np.zeros((n_texts, draws_nPC.shape[2]))
    draws_N = np.zeros(n_texts, np.int64)
    for p in range(1, rule.cap + 1):
        if p > 1:
            draws_nPC = np.concatenate([draws_nPC, draw(open_n, p - 1)[:, None]], axis=1)
        done_n = rule.settled(draws_nPC) if p < rule.cap else np.ones(len(open_n), bool)
        estimate_NC[open_n[done_n]] = draws_nPC[done_n].mean(1)
        draws_N[open_n[done_n]] = p
        open_n, draws_nPC = open_n[~done_n], draws_nPC[~done_n]
        if not len(open_n):
            break
    return Stopped(estimate_NC, draws_N)


def flips(stopped: Stopped, full_NC: Float64, cap: int) -> tuple[float, float]:
    """Return (share of texts that stopped early, share of texts that stopped early on another
    class than ``full_NC``, the estimate from all draws, gives)."""
    early_N = stopped.draws_N < cap
    flipped_N = early_N & (stopped.estimate_NC.argmax(1) != full_NC.argmax(1))
    return float(early_N.mean()), float(flipped_N.mean())


def pooled_spread(draws_NPC: Float64) -> float:
    """Return s over texts not to be judged: the root of the mean variance, over draws, of the
    leading class's lead over its rivals. Needs two draws of a text at least."""
    lead_NPC, rival_NC = _leads(draws_NPC)
    return float(lead_NPC.var(1, ddof=1)[rival_NC].mean() ** 0.5)


def _leads(draws_NPC: Float64) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """Return each draw's lead of the leading class (by the mean) over each class, and which
    classes are rivals: all but the leader."""
    best_N = draws_NPC.mean(1).argmax(1)
    best_NP = np.take_along_axis(draws_NPC, best_N[:, None, None], 2)
    return best_NP - draws_NPC, np.arange(draws_NPC.shape[2]) != best_N[:, None]
