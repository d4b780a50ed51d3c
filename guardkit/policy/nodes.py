"""A category's ``decide`` tree: one recursion over a whole batch.

Every node maps the texts it is handed to intervals [lo, hi] of log-odds that the category's
positive labels hold: a classifier that answered gives lo = hi, one that failed (-inf, +inf), a
pattern that matched +inf; NaN is no opinion. A part with no opinion drops out: its cascade or
combine is read as if it were not there. A category is flagged where lo > t, clear where
hi <= t or nothing is left, and otherwise undecided, which its ``on_error`` resolves.

Shape letters: N texts a node was handed, P parts of a combine, M those that answered, C labels.
``index_N`` says which texts of the batch they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardkit.model.loaded import Model, Shared
from guardkit.policy.combiners import by_plugin, evidence_sum, failed, weighted_mean
from guardkit.policy.member_scores import Scores
from guardkit.policy.schema import (
    AbstainIf,
    AnyNode,
    CascadeNode,
    Category,
    Combine,
    CombineNode,
    EscalateIf,
    MemberNode,
    PatternNode,
    compile_pattern,
    label,
    logit,
)
from guardkit.rounding import six_digits, six_digits_N
from guardkit.text.canonical import canonical
from guardkit.types import (
    SEVERITY,
    Action,
    BoolArray,
    CategoryDecision,
    Combiner,
    IntArray,
    RouteStep,
)

#: What ``CategoryDecision.decided_by`` says where the text could not be judged.
ON_ERROR = "on_error"
#: What it says where a text that would be allowed is too strange for that.
ABSTAIN_IF = "abstain_if"
_BY_PARTS = "failed: a part it needs failed"

_Float64 = npt.NDArray[np.float64]


def on_error(category: Category) -> Action:
    """Return the action for a text that could not be judged."""
    return category.action if category.on_error == "closed" else "allow"


class Batch:
    """A batch of texts on its way through a policy's categories.

    ``errors`` says by position what could not be judged, ``routes`` which nodes gave every text
    a value, children before parents, and what followed. ``novelty_of`` names the models whose
    novelty somebody will ask for: they give it with their scores, and read no text twice.
    ``rounded``: what is told of scores and thresholds has six digits; nothing is decided by it.
    """

    def __init__(
        self,
        texts: Sequence[str],
        model: Callable[[str], Model],
        combiners: Mapping[str, Combiner],
        novelty_of: Container[Path] = (),
        *,
        beside: Batch | None = None,
        rounded: bool = False,
    ) -> None:
        self.texts = texts
        self.rounded = rounded
        self.model = model
        self.combiners = combiners
        self.novelty_of = novelty_of
        self.errors: dict[int, str] = {}
        self.routes: list[list[RouteStep]] = [[] for _ in texts]
        self.truncated_N = np.zeros(len(texts), bool)
        self._scores: dict[Path, Scores] = {} if beside is None else beside._scores
        self._shared: Shared = {} if beside is None else beside._shared
        self._canonical: dict[int, str] = {}

    def raw(self, i: int) -> str:
        return self.texts[i]

    def canonical(self, i: int) -> str:
        """Return the canonical form of text ``i``, found once for all patterns."""
        if i not in self._canonical:
            self._canonical[i] = canonical(self.texts[i])
        return self._canonical[i]

    def judge(self, name: str, category: Category) -> tuple[list[CategoryDecision], IntArray]:
        """Return category ``name``'s decision for every text, and its action's severity."""
        tree = _Tree(self, name, category)
        everything = np.arange(len(self.texts))
        value = tree.evaluate(category.decide, everything)
        if not isinstance(category.decide, CascadeNode):  # whose stages say it already
            tree.record(category.decide, everything, value, ["decides"] * len(everything))

        threshold = category.threshold
        flagged_N = value.lo_N > threshold.log_odds
        undecided_N = ~flagged_N & (value.hi_N > threshold.log_odds)  # NaN: clear
        for i in undecided_N.nonzero()[0].tolist():
            why = tree.why_undecided(i)
            self.errors[i] = f"{self.errors[i]}; {why}" if i in self.errors else why

        # the bound that decided is the score: lo where flagged, hi where clear
        scores = self.told(np.where(flagged_N, value.lo_N, value.hi_N), ~undecided_N)
        # None: by_N is -1, no node had an opinion
        names = [*tree.labels, ON_ERROR, ABSTAIN_IF, None]
        by_N = np.where(undecided_N, len(tree.labels), value.by_N)
        actions: tuple[Action, ...] = ("allow", category.action, on_error(category), "abstain")
        action_N = flagged_N + 2 * undecided_N
        allowed_N = np.array([action == "allow" for action in actions])[action_N]
        if category.abstain_if is not None and allowed_N.any():
            abstains = self._abstaining(name, category.abstain_if, allowed_N.nonzero()[0])
            action_N[abstains], by_N[abstains] = 3, len(tree.labels) + 1
        p = six_digits(threshold.probability) if self.rounded else threshold.probability
        decisions = [
            CategoryDecision(actions[action], score, p, names[by])
            for action, score, by in zip(action_N.tolist(), scores, by_N.tolist(), strict=True)
        ]
        return decisions, np.array([SEVERITY.index(action) for action in actions])[action_N]

    def told(self, log_odds_N: _Float64, known_N: BoolArray) -> list[float | None]:
        """Return probabilities, None where not known or NaN."""
        known_N = known_N & ~np.isnan(log_odds_N)
        p_N = np.exp(-np.logaddexp(0.0, -np.where(known_N, log_odds_N, 0.0)))
        scores: list[float | None] = (six_digits_N(p_N) if self.rounded else p_N).tolist()
        for i in (~known_N).nonzero()[0].tolist():
            scores[i] = None
        return scores

    def _abstaining(self, name: str, abstain_if: AbstainIf, index_N: IntArray) -> IntArray:
        """Return which of the texts are too strange to be allowed: not known to be familiar."""
        p_N, reasons = self.novelty_p(self.model(abstain_if.member), index_N)
        strange_N = ~(p_N > abstain_if.novelty_p_below)
        for i in strange_N.nonzero()[0].tolist():
            text, why = int(index_N[i]), _strange(p_N[i], abstain_if.novelty_p_below, reasons, i)
            self.routes[text].append(RouteStep(name, abstain_if.member, None, f"abstains: {why}"))
            if i in reasons:
                unknown = f"{name} abstains: {abstain_if.member}'s {why}"
                self.errors[text] = "; ".join([*filter(None, [self.errors.get(text)]), unknown])
        return index_N[strange_N]

    def part_ratios(self, name: str, category: Category, combine: Combine) -> _Float64:
        """Return log likelihood ratios ratio_PN of every text, as ``combine``'s parts see them:
        log-odds less the part's prior, NaN where a part could not judge the text."""
        tree = _Tree(self, name, category)
        values = [tree.evaluate(part, np.arange(len(self.texts))) for part in combine.of]
        x_PN = np.stack([np.where(v.lo_N == v.hi_N, v.lo_N, np.nan) for v in values])
        return x_PN - tree.priors(combine)[:, None]

    def interval(self, name: str, category: Category, node: AnyNode) -> tuple[_Float64, _Float64]:
        """Return (lo_N, hi_N), what ``node`` makes of every text; NaN is no opinion."""
        value = _Tree(self, name, category).evaluate(node, np.arange(len(self.texts)))
        return value.lo_N, value.hi_N

    def novelty_p(self, model: Model, index_N: IntArray) -> tuple[_Float64, Mapping[int, str]]:
        """Return ``model``'s novelty p-values of the texts at ``index_N``, NaN where one is not
        known, with the reason by position."""
        scores = self.scores(model, index_N, novelty=True)
        p_N = scores.novelty_p_N[index_N]
        unknown = np.isnan(p_N).nonzero()[0].tolist()
        return p_N, {i: scores.novelty_reasons[int(index_N[i])] for i in unknown}

    def scores(self, model: Model, index_N: IntArray, *, novelty: bool = False) -> Scores:
        """Return ``model``'s scores, those of the texts at ``index_N`` among them.

        Each text is scored at most once, however many members, nodes and categories ask.
        """
        if model.path not in self._scores:
            self._scores[model.path] = Scores(len(self.texts), len(model.labels))
        scores = self._scores[model.path]
        scores.ask(
            model,
            self.texts,
            index_N,
            novelty=novelty,
            novelty_too=model.path in self.novelty_of,
            shared=self._shared,
        )
        self.truncated_N[index_N] |= scores.truncated_N[index_N]
        return scores


@dataclass(frozen=True, slots=True)
class _Value:
    """What a node makes of N texts: intervals of log-odds, NaN where it has no opinion.

    ``by_N`` indexes the tree's labels: who settled it, -1 for nobody. ``reasons`` says by
    position why a value is (-inf, +inf).
    """

    lo_N: _Float64
    hi_N: _Float64
    by_N: IntArray
    reasons: Mapping[int, str] = field(default_factory=dict)

    @property
    def silent_N(self) -> BoolArray:
        return np.isnan(self.lo_N)

    @property
    def failed_N(self) -> BoolArray:
        return failed(self.lo_N, self.hi_N)


class _Tree:
    """One category's tree at work on one batch."""

    def __init__(self, batch: Batch, name: str, category: Category) -> None:
        self.batch = batch
        self.name = name
        self.category = category
        self.labels: list[str] = []

    def evaluate(self, node: AnyNode, index_N: IntArray) -> _Value:
        match node:
            case MemberNode():
                return self._member(node, index_N)
            case PatternNode():
                return self._pattern(node, index_N)
            case CascadeNode():
                return self._cascade(node, index_N)
            case CombineNode():
                return self._combine(node, index_N)

    def record(self, node: AnyNode, index_N: IntArray, value: _Value, whys: list[str]) -> None:
        """Add ``node`` to the route of every text it has an opinion on."""
        for i in value.failed_N.nonzero()[0].tolist():
            whys[i] = f"failed: {value.reasons[i]}" if i in value.reasons else _BY_PARTS
        scores = self.batch.told(value.lo_N, value.lo_N == value.hi_N)
        name, routes, silent_N = label(node), self.batch.routes, value.silent_N.tolist()
        for i, silent, score, why in zip(index_N.tolist(), silent_N, scores, whys, strict=True):
            if not silent:
                routes[i].append(RouteStep(self.name, name, score, why))

    def why_undecided(self, i: int) -> str:
        steps = [step for step in self.batch.routes[i] if step.category == self.name]
        failed = [
            f"{step.member} {step.why}"
            for step in steps
            if step.why.startswith("failed") and step.why != _BY_PARTS
        ]
        verdict = f"on_error: {self.category.on_error} gives {on_error(self.category)}"
        return f"{self.name} could not be judged ({'; '.join(failed)}); {verdict}"

    def _member(self, node: MemberNode, index_N: IntArray) -> _Value:
        model = self.batch.model(node.member)
        scores = self.batch.scores(model, index_N)
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
        return _Value(lo_N, hi_N, self._by(node, len(index_N)), reasons)

    def _pattern(self, node: PatternNode, index_N: IntArray) -> _Value:
        search = compile_pattern(node.pattern.re2).search
        form = self.batch.canonical if node.pattern.on == "canonical" else self.batch.raw
        texts = (form(i).encode("utf-8", "replace") for i in index_N.tolist())
        matched_N = np.array([search(text) is not None for text in texts])
        value_N = np.where(matched_N, np.inf, np.nan)
        return _Value(value_N, value_N, np.where(matched_N, self._by(node, len(index_N)), -1))

    def _cascade(self, node: CascadeNode, index_N: IntArray) -> _Value:
        n = len(index_N)
        lo_N, hi_N, by_N = np.full(n, np.nan), np.full(n, np.nan), np.full(n, -1)
        reasons: dict[int, str] = {}
        left = np.arange(n)
        for stage in node.cascade:
            value = self.evaluate(stage, index_N[left])
            # The latest opinion stands, a failure too. A later stage that is silent on a text
            # leaves it what it had: it drops out, and the stage before it was its last.
            speaks = ~value.silent_N
            heard = left[speaks]
            lo_N[heard], hi_N[heard] = value.lo_N[speaks], value.hi_N[speaks]
            by_N[heard] = value.by_N[speaks]
            reasons |= {int(left[i]): why for i, why in value.reasons.items()}
            settled, whys = _settle(stage, value, is_last=stage is node.cascade[-1])
            if isinstance(stage, MemberNode) and stage.escalate_if is not None:
                self._escalate(stage.member, stage.escalate_if, index_N[left], settled, whys)
            self.record(stage, index_N[left], value, whys)
            left = left[~settled]
            if not left.size:
                break
        return _Value(lo_N, hi_N, by_N, reasons)

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
            why = _strange(p_N[i], escalate_if.novelty_p_below, reasons, i)
            whys[i] = f"passed on: {why}"

    def _combine(self, node: CombineNode, index_N: IntArray) -> _Value:
        combine = node.combine
        values = []
        for part in combine.of:
            values.append(self.evaluate(part, index_N))
            self.record(part, index_N, values[-1], [f"part of {combine.how}"] * len(index_N))
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
                prior_P, weights = self.priors(combine), combine.weights or [1.0] * len(values)
                bias = combine.bias or 0.0
                lo_N = evidence_sum(lo_PN, prior_P, weights, bias)
                hi_N = evidence_sum(hi_PN, prior_P, weights, bias)
            case how:
                combiner, prior_P = self.batch.combiners[how], self.priors(combine)
                lo_N, hi_N, reasons = by_plugin(combiner, lo_PN, hi_PN, prior_P)
        by_N = np.where(np.isnan(lo_N), -1, self._by(node, len(index_N)))
        return _Value(lo_N, hi_N, by_N, reasons)

    def priors(self, combine: Combine) -> _Float64:
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
        return [model.labels.index(name) for name in self.category.positive]

    def _by(self, node: AnyNode, n: int) -> IntArray:
        self.labels.append(label(node))
        return np.full(n, len(self.labels) - 1)


def _strange(p: float, bound: float, reasons: Mapping[int, str], i: int) -> str:
    """Return why a text does not count as familiar."""
    if i in reasons:
        return f"novelty is not known: {reasons[i]}"
    return f"novelty p {p:.3g} not above {bound:g}"


def _settle(stage: AnyNode, value: _Value, *, is_last: bool) -> tuple[BoolArray, list[str]]:
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
