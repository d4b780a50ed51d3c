"""A policy read one text at a time, written from the policy language alone.

The independent reference for the router: plain Python numbers, no batch, no sharing. A value
is (lo, hi, who) or None for no opinion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Value = tuple[float, float, str] | None
#: (log-odds of the positives, or None where the member fails; prior log-odds)
MemberLogOdds = tuple[float | None, float]
#: f(member, text) -> novelty p-value, or None where it is not known
Novelty = Callable[[str, str], float | None]
#: Each of f(values, priors) -> log-odds; raising or NaN is a failure.
Combiners = Mapping[str, Callable[[Sequence[float], Sequence[float]], float]]

SEVERITY = ["allow", "flag", "abstain", "block"]


@dataclass
class NaiveCategoryDecision:
    action: str
    score: float | None
    decided_by: str | None
    failed: bool  # what it asked for could not be answered


@dataclass
class NaiveDecision:
    action: str
    categories: dict[str, NaiveCategoryDecision]
    routes: dict[str, list[str]]


def decide(
    policy: Mapping[str, Any],
    text: str,
    ask: Callable[[str, Mapping[str, Any], str], MemberLogOdds],
    combiners: Combiners,
    novelty: Novelty,
) -> NaiveDecision:
    """Return what ``policy`` (as read from YAML) says of ``text``.

    ``ask(member, category, text)`` gives a member's log-odds.
    """
    readers = {
        name: _Reader(category, text, ask, combiners, novelty)
        for name, category in policy["categories"].items()
    }
    categories = {name: reader.decision() for name, reader in readers.items()}
    action = max((v.action for v in categories.values()), key=SEVERITY.index)
    if policy.get("mode") == "shadow":
        action = "allow"
    routes = {name: reader.route() for name, reader in readers.items()}
    return NaiveDecision(action, categories, routes)


def logit(p: float) -> float:
    if p == 0:
        return -math.inf
    return math.inf if p == 1 else math.log(p) - math.log1p(-p)


def sigmoid(x: float) -> float:
    if x < -700:
        return 0.0
    return 1 / (1 + math.exp(-x))


def name_of(node: Mapping[str, Any]) -> str:
    if "member" in node:
        return str(node["member"])
    if "pattern" in node:
        return f"pattern({node['pattern']['re2']})"
    how, parts = (
        ("cascade", node["cascade"])
        if "cascade" in node
        else (node["combine"]["how"], node["combine"]["of"])
    )
    return f"{how}({', '.join(name_of(part) for part in parts)})"


class _Reader:
    def __init__(
        self,
        category: Mapping[str, Any],
        text: str,
        ask: Any,
        combiners: Combiners,
        novelty: Novelty,
    ) -> None:
        self.category, self.text, self.ask, self.combiners = category, text, ask, combiners
        self.novelty = novelty

    def decision(self) -> NaiveCategoryDecision:
        """Return the tree's, unless it would allow what ``abstain_if`` finds strange."""
        decision, condition = self.judged(), self.category.get("abstain_if")
        if condition is None or decision.action != "allow" or not self.strange(condition):
            return decision
        unknown = self.novelty(condition["member"], self.text) is None
        return NaiveCategoryDecision(
            "abstain", decision.score, "abstain_if", decision.failed or unknown
        )

    def strange(self, condition: Mapping[str, Any]) -> bool:
        """A text whose novelty is not known cannot be called familiar."""
        p = self.novelty(condition["member"], self.text)
        return p is None or p <= condition["novelty_p_below"]

    def judged(self) -> NaiveCategoryDecision:
        category = self.category
        value = self.value(category["decide"])
        if value is None:
            return NaiveCategoryDecision("allow", None, None, False)
        lo, hi, who = value
        threshold = logit(category["flag_at"]["probability"])
        if lo > threshold:
            return NaiveCategoryDecision(category["action"], sigmoid(lo), who, False)
        if hi <= threshold:
            return NaiveCategoryDecision("allow", sigmoid(hi), who, False)
        closed = category.get("on_error", "closed") == "closed"
        return NaiveCategoryDecision(
            category["action"] if closed else "allow", None, "on_error", True
        )

    def route(self) -> list[str]:
        """Return the nodes that ran and had an opinion, in order, a whole cascade left out."""
        root = self.category["decide"]
        steps = self.within(root) + ([] if "cascade" in root else self.itself(root))
        if self.decision().action == "abstain":
            steps.append(self.category["abstain_if"]["member"])
        return steps

    def within(self, node: Mapping[str, Any]) -> list[str]:
        steps = []
        if "combine" in node:
            for part in node["combine"]["of"]:
                steps += self.within(part) + self.itself(part)
        for stage in node.get("cascade", []):
            steps += self.within(stage) + self.itself(stage)
            if self.settles(stage):
                break  # later stages see only what is left
        return steps

    def itself(self, node: Mapping[str, Any]) -> list[str]:
        return [] if self.value(node) is None else [name_of(node)]

    def settles(self, stage: Mapping[str, Any]) -> bool:
        value, bounds = self.value(stage), stage.get("settle", {"below": 0, "above": 1})
        if value is None:
            return False
        if "escalate_if" in stage and self.strange(
            {"member": stage["member"], **stage["escalate_if"]}
        ):
            return False
        return value[1] <= logit(bounds["below"]) or value[0] >= logit(bounds["above"])

    def value(self, node: Mapping[str, Any]) -> Value:
        if "member" in node:
            log_odds, _ = self.ask(node["member"], self.category, self.text)
            if log_odds is None:
                return -math.inf, math.inf, name_of(node)
            return log_odds, log_odds, name_of(node)
        if "pattern" in node:
            if node["pattern"]["re2"] in self.text:
                return math.inf, math.inf, name_of(node)
            return None
        if "cascade" in node:
            # stages with no opinion drop out; of the others the first that settles it, or the last
            speaking = [stage for stage in node["cascade"] if self.value(stage) is not None]
            settling = [stage for stage in speaking if self.settles(stage)]
            chosen = (settling or speaking[-1:] or [None])[0]
            return None if chosen is None else self.value(chosen)
        return self.combine(node)

    def combine(self, node: Mapping[str, Any]) -> Value:
        combine = node["combine"]
        how, n = combine["how"], len(combine["of"])
        parts = [
            (value, weight, self.prior(part))
            for part, weight in zip(combine["of"], combine.get("weights", [1] * n), strict=True)
            if (value := self.value(part)) is not None
        ]
        if not parts:
            return None
        failed = [part for part in parts if part[0][:2] == (-math.inf, math.inf)]
        while "quorum" in combine and failed and len(parts) > combine["quorum"]:
            parts.remove(failed.pop())
        lows, highs = [p[0][0] for p in parts], [p[0][1] for p in parts]
        weights, priors = [p[1] for p in parts], [p[2] for p in parts]
        if how == "any":
            lo, hi = max(lows), max(highs)
        elif how == "all":
            lo, hi = min(lows), min(highs)
        elif how == "weighted":
            lo = sum(w * x for w, x in zip(weights, lows, strict=True)) / sum(weights)
            hi = sum(w * x for w, x in zip(weights, highs, strict=True)) / sum(weights)
        elif how == "product":
            shared = sum(priors) / len(priors)
            lo = sum(x - p for x, p in zip(lows, priors, strict=True)) + shared
            hi = sum(x - p for x, p in zip(highs, priors, strict=True)) + shared
        elif how == "stacked":
            at = sum(priors) / len(priors) + combine.get("bias", 0)
            lo = at + sum(w * (x - p) for w, x, p in zip(weights, lows, priors, strict=True))
            hi = at + sum(w * (x - p) for w, x, p in zip(weights, highs, priors, strict=True))
        else:
            lo, hi = -math.inf, math.inf
            if lows == highs:
                try:
                    result = self.combiners[how](lows, priors)
                except ValueError:
                    result = math.nan
                if math.isfinite(result):
                    lo = hi = result
        return lo, hi, name_of(node)

    def prior(self, node: Mapping[str, Any]) -> float:
        if "member" in node:
            return float(self.ask(node["member"], self.category, self.text)[1])
        if "pattern" in node:
            return math.nan  # never asked for: patterns stand under no sum
        parts = node["cascade"] if "cascade" in node else node["combine"]["of"]
        return sum(self.prior(part) for part in parts) / len(parts)
