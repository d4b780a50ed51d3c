"""The nodes of a category's ``decide`` tree, each evaluated for many texts at once.

A node maps the texts it is given to intervals [lo, hi] of log-odds that the category's positive
labels hold. A classifier that answered gives lo = hi, one that failed (-inf, +inf), a pattern
that matched +inf; NaN means no opinion. A node without an opinion drops out: its cascade or
combine is evaluated as if it were not there. The category is flagged where lo > t, clear where
hi <= t or where no node has an opinion, and otherwise undecided (``guardkit.policy.category``).

Shape letters: N texts a node was given, P parts of a combine, C labels. ``index_N`` says which
texts of the batch they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from guardkit.errors import RunError
from guardkit.log_odds import logit
from guardkit.model.loaded import Model
from guardkit.policy.batch import PolicyBatch
from guardkit.policy.combiners import by_plugin, evidence_sum, failed, weighted_mean
from guardkit.policy.pattern import compile_pattern
from guardkit.policy.schema import (
    AnyNode,
    CascadeNode,
    Category,
    Combine,
    CombineNode,
    EscalateIf,
    MemberNode,
    PatternNode,
    node_name,
)
from guardkit.types import BoolArray, IntArray, RouteStep

#: What a node's route says where it has no value because of one of its parts.
PART_FAILED = "failed: a part it needs failed"
#: How it begins where a member that was down has no opinion by ``on_member_down: next``.
LEFT_OUT = "left out"

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Intervals:
    """What a node makes of N texts: intervals of log-odds, NaN where it has no opinion.

    ``decided_by_N`` says which node decided, as an index into the tree's ``node_names``; -1 means
    none. ``reasons`` says by position why a value is (-inf, +inf).
    """

    lo_N: _Float64
    hi_N: _Float64
    decided_by_N: IntArray
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def silent_N(self) -> BoolArray:
        return np.isnan(self.lo_N)

    @property
    def failed_N(self) -> BoolArray:
        return failed(self.lo_N, self.hi_N)


class CategoryTree:
    """The tree of one category, evaluated on one batch.

    ``node_names`` are those of the nodes evaluated so far; one evaluated twice is there twice.
    """

    def __init__(self, batch: PolicyBatch, name: str, category: Category) -> None:
        self.batch = batch
        self.name = name
        self.category = category
        self.node_names: list[str] = []
        #: Which texts of the batch a member that was asked has not read to their end.
        self.truncated_N = np.zeros(len(batch.texts), bool)
        #: Which texts are without the opinion of a member that was down.
        self.left_out_N = np.zeros(len(batch.texts), bool)

    def intervals(self, node: AnyNode) -> tuple[_Float64, _Float64]:
        """Return lo_N and hi_N of ``node`` for every text of the batch; NaN is no opinion."""
        value = self.evaluate(node, np.arange(len(self.batch.texts)))
        return value.lo_N, value.hi_N

    def part_ratios(self, combine: Combine) -> _Float64:
        """Return the log likelihood ratios ratio_PN that ``combine``'s parts give every text of
        the batch: log-odds less the part's prior, NaN where a part could not judge the text."""
        intervals = [self.intervals(part) for part in combine.of]
        x_PN = np.stack([np.where(lo_N == hi_N, lo_N, np.nan) for lo_N, hi_N in intervals])
        return x_PN - self._priors(combine)[:, None]

    def evaluate(self, node: AnyNode, index_N: IntArray) -> _Intervals:
        match node:
            case MemberNode():
                return self._member(node, index_N)
            case PatternNode():
                return self._pattern(node, index_N)
            case CascadeNode():
                return self._cascade(node, index_N)
            case CombineNode():
                return self._combine(node, index_N)

    def add_to_routes(
        self, node: AnyNode, index_N: IntArray, value: _Intervals, whys: list[str]
    ) -> None:
        """Add ``node`` to the route of every text it has an opinion on."""
        for i in value.failed_N.nonzero()[0].tolist():
            whys[i] = f"failed: {value.reasons[i]}" if i in value.reasons else PART_FAILED
        scores = self.batch.probabilities(value.lo_N, value.lo_N == value.hi_N)
        name, routes, silent_N = node_name(node), self.batch.routes, value.silent_N.tolist()
        for i, silent, score, why in zip(index_N.tolist(), silent_N, scores, whys, strict=True):
            if not silent:
                routes[i].append(RouteStep(self.name, name, score, why))

    def _member(self, node: MemberNode, index_N: IntArray) -> _Intervals:
        model = self.batch.model(node.member)
        scores = self.batch.scores(model, index_N)
        self.truncated_N[index_N] |= scores.truncated_N[index_N]
        with np.errstate(over="ignore", invalid="ignore"):  # not finite is a failure, below
            log_odds_N = model.calibrated().log_odds(
                scores.logits_NC[index_N],
                scores.tokens_N[index_N],
                self._positive(model),
                self.category.prevalence,
            )
        failed_N = ~np.isfinite(log_odds_N)
        reasons = {
            i: scores.reasons.get(int(index_N[i]), "its calibrated log-odds are not finite")
            for i in failed_N.nonzero()[0].tolist()
        }
        lo_N = np.where(failed_N, -np.inf, log_odds_N).astype(np.float64)
        hi_N = np.where(failed_N, np.inf, lo_N)
        left_out_N = self._left_out(node.member, index_N, scores.down_N[index_N], reasons)
        lo_N[left_out_N] = hi_N[left_out_N] = np.nan
        return _Intervals(lo_N, hi_N, self._decided_by(node, len(index_N)), reasons)

    def _left_out(
        self, member: str, index_N: IntArray, down_N: BoolArray, reasons: Mapping[int, str]
    ) -> BoolArray:
        """Return which texts go on without the member, which was down for those of ``down_N``.
        Raises RunError where that is to stop the run."""
        for i in down_N.nonzero()[0].tolist():
            self.batch.note_down(int(index_N[i]), member)
            match self.batch.on_member_down.get(member):
                case "stop":
                    raise RunError(
                        f"member {member!r}: {reasons[i]}; its `on_member_down: stop` ends the run"
                    )
                case "next":
                    step = RouteStep(self.name, member, None, f"{LEFT_OUT}: {reasons[i]}")
                    self.batch.routes[int(index_N[i])].append(step)
        if self.batch.on_member_down.get(member) != "next":
            return np.zeros(len(index_N), bool)
        self.left_out_N[index_N] |= down_N
        return down_N

    def _pattern(self, node: PatternNode, index_N: IntArray) -> _Intervals:
        search = compile_pattern(node.pattern.re2).search
        form = self.batch.canonical if node.pattern.on == "canonical" else self.batch.raw
        texts = (form(i).encode("utf-8", "replace") for i in index_N.tolist())
        matched_N = np.array([search(text) is not None for text in texts])
        value_N = np.where(matched_N, np.inf, np.nan)
        decided_by_N = np.where(matched_N, self._decided_by(node, len(index_N)), -1)
        return _Intervals(value_N, value_N, decided_by_N)

    def _cascade(self, node: CascadeNode, index_N: IntArray) -> _Intervals:
        n = len(index_N)
        lo_N, hi_N, decided_by_N = np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1)
        reasons: dict[int, str] = {}
        left = np.arange(n)
        for stage in node.cascade:
            value = self.evaluate(stage, index_N[left])
            # The latest opinion stands, a failure too. A later stage that is silent on a text
            # leaves it what it had: it drops out, and the stage before it was its last.
            speaks = ~value.silent_N
            heard = left[speaks]
            lo_N[heard], hi_N[heard] = value.lo_N[speaks], value.hi_N[speaks]
            decided_by_N[heard] = value.decided_by_N[speaks]
            reasons |= {int(left[i]): why for i, why in value.reasons.items()}
            settled, whys = _settled(stage, value, is_last=stage is node.cascade[-1])
            if isinstance(stage, MemberNode) and stage.escalate_if is not None:
                self._escalate(stage.member, stage.escalate_if, index_N[left], settled, whys)
            self.add_to_routes(stage, index_N[left], value, whys)
            left = left[~settled]
            if not left.size:
                break
        return _Intervals(lo_N, hi_N, decided_by_N, reasons)

    def _escalate(
        self,
        member: str,
        escalate_if: EscalateIf,
        index_N: IntArray,
        settled_N: BoolArray,
        whys: list[str],
    ) -> None:
        """Take back what was settled of the texts that are not known to be familiar."""
        p_N, reasons = self.batch.novelty_p(self.batch.model(member), index_N)
        strange_N = settled_N & ~(p_N > escalate_if.novelty_p_below)
        settled_N[strange_N] = False
        for i in strange_N.nonzero()[0].tolist():
            why = why_strange(p_N[i], escalate_if.novelty_p_below, reasons.get(i))
            whys[i] = f"passed on: {why}"

    def _combine(self, node: CombineNode, index_N: IntArray) -> _Intervals:
        combine = node.combine
        values = []
        for part in combine.of:
            values.append(self.evaluate(part, index_N))
            self.add_to_routes(part, index_N, values[-1], [f"part of {combine.how}"] * len(index_N))
        lo_PN = np.stack([value.lo_N for value in values])
        hi_PN = np.stack([value.hi_N for value in values])
        if combine.quorum is not None:
            failed_PN = failed(lo_PN, hi_PN)
            answered_N = (~failed_PN & ~np.isnan(lo_PN)).sum(axis=0)
            drop_PN = failed_PN & (answered_N >= combine.quorum)
            lo_PN[drop_PN] = hi_PN[drop_PN] = np.nan

        reasons: Mapping[int, str] = {}
        match combine.how:
            case "any":
                lo_N, hi_N = np.fmax.reduce(lo_PN), np.fmax.reduce(hi_PN)
            case "all":
                lo_N, hi_N = np.fmin.reduce(lo_PN), np.fmin.reduce(hi_PN)
            case "weighted":
                weights = combine.weights or [1.0] * len(values)
                lo_N, hi_N = weighted_mean(lo_PN, weights), weighted_mean(hi_PN, weights)
            case "product" | "stacked":
                prior_P, weights = self._priors(combine), combine.weights or [1.0] * len(values)
                bias = combine.bias or 0.0
                lo_N = evidence_sum(lo_PN, prior_P, weights, bias)
                hi_N = evidence_sum(hi_PN, prior_P, weights, bias)
            case how:
                combiner, prior_P = self.batch.combiners[how], self._priors(combine)
                lo_N, hi_N, reasons = by_plugin(combiner, lo_PN, hi_PN, prior_P)
        decided_by_N = np.where(np.isnan(lo_N), -1, self._decided_by(node, len(index_N)))
        return _Intervals(lo_N, hi_N, decided_by_N, reasons)

    def _priors(self, combine: Combine) -> _Float64:
        """Return each part's prior log-odds, prior_P."""
        return np.array([self._prior(part) for part in combine.of])

    def _prior(self, node: AnyNode) -> float:
        """Return a part's prior log-odds: a member's own, else the mean of its parts'.

        The mean is exact where all were calibrated at one prior or ``prevalence`` sets it.
        """
        if self.category.prevalence is not None:
            return logit(self.category.prevalence)
        match node:
            case MemberNode():
                model = self.batch.model(node.member)
                return model.calibrated().prior_log_odds(self._positive(model))
            case CascadeNode():
                parts = node.cascade
            case CombineNode():
                parts = node.combine.of
            case PatternNode():
                raise AssertionError("the policy check keeps patterns out of sums")
        return math.fsum(self._prior(part) for part in parts) / len(parts)

    def _positive(self, model: Model) -> list[int]:
        return [model.labels.index(label) for label in self.category.positive]

    def _decided_by(self, node: AnyNode, n: int) -> IntArray:
        self.node_names.append(node_name(node))
        return np.full(n, len(self.node_names) - 1)


def why_strange(p: float, bound: float, unknown: str | None) -> str:
    """Return why a text does not count as familiar; ``unknown`` is why ``p`` is NaN, if so."""
    if unknown is not None:
        return f"novelty is not known: {unknown}"
    return f"novelty p {p:.3g} not above {bound:g}"


def _settled(stage: AnyNode, value: _Intervals, *, is_last: bool) -> tuple[BoolArray, list[str]]:
    """Return which texts a stage settles, and why or why not."""
    n = len(value.lo_N)
    if is_last:
        return np.ones(n, bool), ["last stage"] * n
    # without bounds only a pattern's match settles: the policy check asks others for bounds
    below, above = (stage.settle.below, stage.settle.above) if stage.settle else (0.0, 1.0)
    low_N, high_N = value.hi_N <= logit(below), value.lo_N >= logit(above)
    words = np.array(
        [
            f"passed on: between {below} and {above}",
            f"settled: not above {below}",
            f"settled: not below {above}",
            "passed on: a part failed",
        ],
        object,
    )
    partial_N = ~low_N & ~high_N & (value.lo_N < value.hi_N)
    code_N = np.where(low_N, 1, np.where(high_N, 2, np.where(partial_N, 3, 0)))
    return low_N | high_N, words[code_N].tolist()
