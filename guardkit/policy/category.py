"""A category's decision for every text of a batch: threshold, ``on_error``, ``abstain_if``.

Shape letters: N texts of the batch; ``index_N`` says which of them are meant.
"""

from __future__ import annotations

import numpy as np

from guardkit.policy.batch import PolicyBatch
from guardkit.policy.nodes import LEFT_OUT, PART_FAILED, CategoryTree, why_strange
from guardkit.policy.schema import AbstainIf, CascadeNode, Category
from guardkit.types import SEVERITY, Action, BoolArray, CategoryDecision, IntArray, RouteStep

#: What ``CategoryDecision.decided_by`` says where the text could not be judged.
ON_ERROR = "on_error"
#: What it says where a text that would be allowed is too strange for that.
ABSTAIN_IF = "abstain_if"
#: What it says where the text's role is none that the category judges.
ROLES = "roles"
#: What it says where a text that would be allowed was not read to its end.
ON_TRUNCATED = "on_truncated"


def on_error(category: Category) -> Action:
    """Return the action for a text that could not be judged."""
    return category.action if category.on_error == "closed" else "allow"


def decide_category(
    batch: PolicyBatch, name: str, category: Category
) -> tuple[list[CategoryDecision], IntArray]:
    """Return category ``name``'s decision for every text, and the severity of its action."""
    index_N = batch.judged_by(category)
    decisions, severity_N = _decide_those(batch, name, category, index_N)
    n = len(batch.texts)
    if len(index_N) == n:
        return decisions, severity_N
    p = batch.probability(category.threshold.probability)
    every = [CategoryDecision("allow", None, p, ROLES)] * n
    every_severity_N = np.zeros(n, np.int64)
    every_severity_N[index_N] = severity_N
    for i, decision in zip(index_N.tolist(), decisions, strict=True):
        every[i] = decision
    return every, every_severity_N


def _decide_those(
    batch: PolicyBatch, name: str, category: Category, index_N: IntArray
) -> tuple[list[CategoryDecision], IntArray]:
    """Return the decisions and severities of the texts at ``index_N``."""
    if not index_N.size:
        return [], index_N
    tree = CategoryTree(batch, name, category)
    value = tree.evaluate(category.decide, index_N)
    if not isinstance(category.decide, CascadeNode):  # whose stages are in the routes already
        tree.add_to_routes(category.decide, index_N, value, ["decides"] * len(index_N))

    threshold = category.threshold
    flagged_N = value.lo_N > threshold.log_odds
    undecided_N = ~flagged_N & (value.hi_N > threshold.log_odds)  # NaN: clear
    # but where the opinion that was to come is that of a member that was down
    undecided_N |= value.silent_N & tree.left_out_N[index_N]
    for i in index_N[undecided_N].tolist():
        batch.add_error(i, _why_undecided(batch, name, category, i))

    # the score is the end of the interval that decided: lo where flagged, hi where clear
    scores = batch.probabilities(np.where(flagged_N, value.lo_N, value.hi_N), ~undecided_N)
    # None stands last, where the -1 of decided_by_N finds it: no node had an opinion
    names = [*tree.node_names, ON_ERROR, ABSTAIN_IF, ON_TRUNCATED, None]
    decided_by_N = np.where(undecided_N, len(tree.node_names), value.decided_by_N)
    actions: tuple[Action, ...] = (
        "allow", category.action, on_error(category), "abstain", category.action,
    )  # fmt: skip
    action_N = flagged_N + 2 * undecided_N
    truncated_N = tree.truncated_N[index_N]
    if category.closed_where_truncated and truncated_N.any():
        unread_N = truncated_N & ~flagged_N & (~undecided_N | (on_error(category) == "allow"))
        action_N[unread_N], decided_by_N[unread_N] = 4, len(tree.node_names) + 2
        why = f"part of the text was not read: on_truncated gives {category.action}"
        for i in index_N[unread_N].tolist():
            batch.routes[i].append(RouteStep(name, ON_TRUNCATED, None, why))
    allowed_N = np.array([action == "allow" for action in actions])[action_N]
    if category.abstain_if is not None and allowed_N.any():
        at_N = allowed_N.nonzero()[0]
        abstains = at_N[_strange(batch, name, category.abstain_if, index_N[at_N])]
        action_N[abstains], decided_by_N[abstains] = 3, len(tree.node_names) + 1
    p = batch.probability(threshold.probability)
    decisions = [
        CategoryDecision(actions[action], score, p, names[node])
        for action, score, node in zip(
            action_N.tolist(), scores, decided_by_N.tolist(), strict=True
        )
    ]
    return decisions, np.array([SEVERITY.index(action) for action in actions])[action_N]


def _why_undecided(batch: PolicyBatch, name: str, category: Category, i: int) -> str:
    failed = [
        f"{step.member} {step.why}"
        for step in batch.routes[i]
        if step.category == name
        and step.why.startswith(("failed", LEFT_OUT))
        and step.why != PART_FAILED
    ]
    follows = f"on_error: {category.on_error} gives {on_error(category)}"
    return f"{name} could not be judged ({'; '.join(failed)}); {follows}"


def _strange(batch: PolicyBatch, name: str, abstain_if: AbstainIf, index_N: IntArray) -> BoolArray:
    """Return whether each of the texts is too strange to be allowed: not known to be familiar."""
    p_N, reasons = batch.novelty_p(batch.model(abstain_if.member), index_N)
    strange_N = ~(p_N > abstain_if.novelty_p_below)
    for i in strange_N.nonzero()[0].tolist():
        text = int(index_N[i])
        why = why_strange(p_N[i], abstain_if.novelty_p_below, reasons.get(i))
        batch.routes[text].append(RouteStep(name, abstain_if.member, None, f"abstains: {why}"))
        if i in reasons:
            batch.add_error(text, f"{name} abstains: {abstain_if.member}'s {why}")
    return strange_N
