"""Exact bounds on rates, and a threshold chosen on some texts that keeps the rate of all.

Shape letters: N texts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardkit.errors import DataError

#: Another batch, thread count or backend may move a text's score by this much, in log-odds. The
#: threshold t is this much above the score it is chosen at, so that a text with that score stays
#: unflagged.
REPEATABLE = 1e-4

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """A threshold that keeps the promise; every higher one does too. -inf: every threshold does.

    ``bound`` is the upper bound of the rate for ``allowed`` false positives, not for those seen:
    the rank of the score that t is chosen at must not depend on them.
    """

    log_odds: float
    allowed: int
    bound: float


def choose_threshold(score_N: _Float64, max_fpr: float, confidence: float) -> ThresholdChoice:
    """Return the loosest threshold t that is sure to flag few benign texts.

    ``score_N`` are the log-odds of n benign texts: +inf for one that is flagged at any threshold,
    -inf for one that never is. A text is flagged where its score is above t.

    **The rule.** Let alpha = max_fpr, delta = 1 - confidence, and k the largest number with
    P(Bin(n, alpha) <= k) <= delta, which is the largest whose upper bound (Clopper and Pearson
    1934) is at most alpha. t is the (k + 1)-th largest score.

    **Why it holds**, for independent scores of one law, with atoms or without. Write S for a
    score, F(x) = P(S > x) for the true false-positive rate of threshold x, and q for the smallest
    x in [-inf, inf] with F(x) <= alpha, which is there as F falls and is right-continuous. So t
    fails, F(t) > alpha, just where t < q; and where the (k + 1)-th largest score is below q, at
    most k of the n scores are q or more. How many are is Bin(n, P(S >= q)), and P(S >= q) >= alpha:
    it is the limit of F(x) > alpha for x rising to q (for q = -inf it is 1). Hence

        P(F(t) > alpha) <= P(Bin(n, P(S >= q)) <= k) <= P(Bin(n, alpha) <= k) <= delta.

    k depends on n, alpha and delta alone. That is why t may be chosen on the very texts that
    vouch for it: trying thresholds until the bound of one happens to hold would be many tests on
    one sample. It is the one-sided tolerance limit of Wilks (1941), and fixed-sequence testing
    with exact p-values in Learn then Test (Angelopoulos et al. 2021).

    Texts that share the (k + 1)-th score stay unflagged: ties err on the safe side, and t stands
    ``REPEATABLE`` above them. A higher t flags no more, so moving t up keeps the promise; it may
    never be moved down. A refusal promises nothing, so delta is the risk that a threshold is
    given and fails.

    Raises DataError where n is below ``least_sample_size``, or more than k texts are flagged at
    any threshold.
    """
    n = len(score_N)
    allowed = allowed_false_positives(n, max_fpr, confidence)
    if allowed < 0:
        raise DataError(
            f"max_fpr {max_fpr:g} with confidence {confidence:g} takes "
            f"{least_sample_size(max_fpr, confidence):,} benign texts at least (one of each group "
            f"of near-duplicates counts); there are {n:,}"
        )
    at_rank = -float(np.partition(-score_N, allowed)[allowed])
    if at_rank == math.inf:
        always = np.count_nonzero(score_N == math.inf)
        raise DataError(
            f"{always:,} of {n:,} benign texts are flagged at any threshold (a pattern matches, or "
            "they cannot be judged and on_error is closed), where max_fpr "
            f"{max_fpr:g} with confidence {confidence:g} allows {allowed:,}"
        )
    return ThresholdChoice(at_rank + REPEATABLE, allowed, upper_bound(allowed, n, confidence))


def upper_bound(k: int, n: int, confidence: float) -> float:
    """Return the exact one-sided upper bound of a rate of which ``k`` of ``n`` were seen: the p
    with P(Bin(n, p) <= k) = 1 - confidence (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    return 1.0 if k == n else float(beta.ppf(confidence, k + 1, n - k))


def allowed_false_positives(n: int, max_fpr: float, confidence: float) -> int:
    """Return the largest k with P(Bin(n, max_fpr) <= k) <= 1 - confidence; -1 if there is none."""
    from scipy.stats import binom

    k = int(binom.ppf(1 - confidence, n, max_fpr)) if n else 0  # the least with >=
    return k if binom.cdf(k, n, max_fpr) <= 1 - confidence else k - 1


def least_sample_size(max_fpr: float, confidence: float) -> int:
    """Return the least n with (1 - max_fpr)^n <= 1 - confidence: 299 for 1% at 95%."""
    n = math.floor(math.log1p(-confidence) / math.log1p(-max_fpr))
    while allowed_false_positives(n, max_fpr, confidence) < 0:  # rounding: once, or not at all
        n += 1
    return n
