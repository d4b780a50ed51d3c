"""What changes from one policy to another on a corpus: which texts flip, which way and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from guardkit.classify.records import CHUNK_ROWS, decision_record
from guardkit.classify.rows import Rows, read_rows
from guardkit.data.spec import split_delimiter
from guardkit.errors import InputFileError
from guardkit.model.loaded import Model
from guardkit.model.score_cache import with_score_cache
from guardkit.model.scorers import Source
from guardkit.plugins import Plugins, installed_plugins
from guardkit.policy.router import PolicyRouter, check_policy
from guardkit.types import Action, Decision, Progress, Row

LABEL = "label"
#: (old action, new action)
Change = tuple[Action, Action]


@dataclass(frozen=True, slots=True)
class Flip:
    """A row that the two policies decide differently.

    ``verdicts`` {category: better | worse} where the label says which; ``category`` is in it only
    where both policies have it and disagree.
    """

    row: Row
    label: str | None
    old: Decision
    new: Decision
    changes: Mapping[str, Change]
    verdicts: Mapping[str, str]


@dataclass
class Comparison:
    """What two policies do with the same rows.

    Actions are those that would be taken: ``mode: shadow`` counts as what it would have done.
    ``only_old`` and ``only_new`` are categories that one of the policies lacks, with how many
    texts they did not allow. ``labelled`` counts the rows whose label a policy or member knows.
    """

    old: PolicyRouter
    new: PolicyRouter
    rows: int = 0
    labelled: int = 0
    actions: Counter[Change] = field(default_factory=Counter)
    categories: dict[str, Counter[Change]] = field(default_factory=dict)
    only_old: Counter[str] = field(default_factory=Counter)
    only_new: Counter[str] = field(default_factory=Counter)
    flips: list[Flip] = field(default_factory=list)

    def verdicts(self, category: str, change: Change | None = None) -> Counter[str]:
        """Return how many flips of ``category`` (of one kind) the labels call better, worse."""
        return Counter(
            flip.verdicts[category]
            for flip in self.flips
            if category in flip.verdicts and change in (None, flip.changes[category])
        )


def compare_policies(
    old: Path,
    new: Path,
    data: str,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    plugins: Plugins | None = None,
) -> Comparison:
    """Decide every row of ``data`` by both policies; models they share read each text once.

    ``data`` is what ``guardkit classify`` reads; a ``label`` column, if there is one, says which
    flips are for the better. Plugins' ``decided`` hooks are not called. Raises PolicyError or
    InputFileError.
    """
    plugins = plugins or installed_plugins()
    shared: dict[Source, Model] = {}
    routers = [
        _ModelSharingRouter(check_policy(path, plugins), shared, device=device, plugins=plugins)
        for path in (old, new)
    ]
    labels = _Labels(routers)
    result = Comparison(routers[0], routers[1])
    ours, theirs = (router.policy.categories for router in routers)
    both = [name for name in ours if name in theirs]
    result.categories = {name: Counter() for name in both}
    result.only_old = Counter({name: 0 for name in ours if name not in theirs})
    result.only_new = Counter({name: 0 for name in theirs if name not in ours})
    with closing(_open(data)) as rows:
        while chunk := list(islice(rows, CHUNK_ROWS)):
            decided = [router.decide_rows(chunk) for router in routers]
            for row, before, after in zip(chunk, *decided, strict=True):
                _add(result, labels, row, before, after)
            if progress:
                progress("compare", result.rows, 0)
    return result


def comparison_record(comparison: Comparison, data: str) -> dict[str, Any]:
    """Return everything ``comparison`` holds, for JSON."""

    def counted(changes: Mapping[Change, int]) -> dict[str, int]:
        return {f"{a} -> {b}": n for (a, b), n in sorted(changes.items())}

    return {
        "data": data,
        "rows": comparison.rows,
        "labelled": comparison.labelled,
        "old": _about(comparison.old),
        "new": _about(comparison.new),
        "actions": counted(comparison.actions),
        "categories": {
            name: {"actions": counted(changes), **comparison.verdicts(name)}
            for name, changes in comparison.categories.items()
        },
        "only_old": dict(comparison.only_old),
        "only_new": dict(comparison.only_new),
        "flips": [_flip_record(flip) for flip in comparison.flips],
    }


def would_be(decision: Decision) -> Action:
    """Return the action that is taken, or would be if the policy's mode were not shadow."""
    action: Action = decision.shadow["action"] if decision.shadow else decision.action
    return action


class _ModelSharingRouter(PolicyRouter):
    """A router that shares its models with another one and calls no plugin's hook."""

    def __init__(self, policy: Any, shared: dict[Source, Model], **options: Any) -> None:
        super().__init__(policy, backend="torch", **options)
        self._shared = shared

    def model(self, member: str) -> Model:
        source = self.sources[member]
        if source not in self._shared:
            self._shared[source] = with_score_cache(super().model(member))
        return self._shared[source]

    def labels(self) -> set[str]:
        """Return the labels of every member's model; loads none."""
        return {x for source in self.sources.values() for x in source.labels}

    def _decide_and_notify(
        self, texts: Sequence[str], ids: Sequence[Any], **how: Any
    ) -> tuple[list[Decision], list[Decision]]:
        return (self._decide(self.batch(texts, **how), ids) if texts else []), []


def _open(data: str) -> Rows:
    path, delimiter = split_delimiter(data)
    try:
        return read_rows(path, keep=[LABEL], delimiter=delimiter)
    except InputFileError:  # no such column; any other mistake is raised again here
        return read_rows(path, delimiter=delimiter)


def _add(result: Comparison, labels: _Labels, row: Row, old: Decision, new: Decision) -> None:
    label = _label(row.kept.get(LABEL))
    result.rows += 1
    result.labelled += label in labels.known
    result.actions[would_be(old), would_be(new)] += 1
    for name in result.only_old:
        result.only_old[name] += old.categories[name].action != "allow"
    for name in result.only_new:
        result.only_new[name] += new.categories[name].action != "allow"
    changes: dict[str, Change] = {}
    verdicts = {}
    for name, counter in result.categories.items():
        change = old.categories[name].action, new.categories[name].action
        counter[change] += 1
        if change[0] != change[1]:
            changes[name] = change
            if verdict := labels.verdict(name, label, change):
                verdicts[name] = verdict
    if changes or would_be(old) != would_be(new):
        result.flips.append(Flip(row, label, old, new, changes, verdicts))


class _Labels:
    """What labels mean to the two policies."""

    def __init__(self, routers: Sequence[_ModelSharingRouter]) -> None:
        self.positive: dict[str, set[str]] = {}
        for router in routers:
            for name, category in router.policy.categories.items():
                self.positive.setdefault(name, set()).update(category.positive)
        members = {label for router in routers for label in router.labels()}
        self.known = members.union(*self.positive.values())

    def verdict(self, category: str, label: str | None, change: Change) -> str | None:
        """Return whether ``change`` is for the better, None where the label does not say."""
        flagged_before, flagged = (action != "allow" for action in change)
        if label not in self.known or flagged_before == flagged:  # flag -> block: neither
            return None
        return "better" if flagged == (label in self.positive[category]) else "worse"


def _label(value: Any) -> str | None:
    if isinstance(value, msgspec.Raw):
        value = msgspec.json.decode(value)
    return None if value in (None, "", -1) else str(value)


def _about(router: PolicyRouter) -> dict[str, Any]:
    policy = router.policy
    return {"path": str(policy.path), "name": policy.name, "mode": policy.mode, "hash": policy.hash}


def _flip_record(flip: Flip) -> dict[str, Any]:
    def record(decision: Decision) -> dict[str, Any]:
        return {k: v for k, v in decision_record(decision).items() if k not in ("id", "policy")}

    identity = flip.row.id
    return {
        "line": flip.row.line,
        "id": msgspec.json.decode(identity) if isinstance(identity, msgspec.Raw) else identity,
        "label": flip.label,
        "texts": list(flip.row.texts),
        "verdicts": dict(flip.verdicts),
        "old": record(flip.old),
        "new": record(flip.new),
    }
