"""Read a policy file, or report every mistake in it at once, each with its line.

Nothing here loads a model: members are checked against the plugins that are installed and
against each model's ``config.json``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from guardkit.data.examples import check_spec
from guardkit.errors import DataError, PolicyError, Problem
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.novelty import why_unreachable
from guardkit.model.scorers import Source
from guardkit.plugins import BUILTIN_COMBINERS, Plugins
from guardkit.policy.certificate import apply_certificates
from guardkit.policy.check_member import MemberCheck
from guardkit.policy.members import FindModel
from guardkit.policy.messages import schema_problems, unknown
from guardkit.policy.pattern import compile_pattern
from guardkit.policy.schema import Policy, kind_of
from guardkit.types import Action
from guardkit.yamlfile import MAX_BYTES, REFUSED, Place, dotted, read_yaml


def read_policy(
    path: Path,
    plugins: Plugins,
    find_model: FindModel,
    *,
    unfitted: bool = False,
    uncertified: bool = False,
) -> Policy:
    """Read and check ``path``; PolicyError carries every mistake in it.

    ``guardkit.policy.router.check_policy`` is the same with ``find_model`` filled in. ``unfitted``
    lets a ``stacked`` node be without weights, ``uncertified`` a ``max_fpr`` without a
    certificate that fits.
    """
    try:
        with path.open("rb") as file:  # one byte too many tells; a file of any size costs no more
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        reason = getattr(error, "strerror", None) or str(error)
        raise PolicyError(str(path), [Problem(0, "", f"cannot be read: {reason}")]) from error
    document = read_yaml(content)
    problems = list(document.problems)
    policy = None
    if document.data is not REFUSED:
        try:
            policy = Policy.model_validate(document.data)
        except ValidationError as error:
            problems += schema_problems(error, document)
        check = _Check(plugins, find_model, unfitted=unfitted)
        check.policy(document.data)
        problems += [
            Problem(document.line(place), dotted(place), message) for place, message in check.found
        ]
    if policy is None or problems:
        raise PolicyError(str(path), problems)
    policy._path, policy._hash = path.absolute(), hashlib.sha256(content).hexdigest()
    if not uncertified:  # looked at last: a certificate is about a policy without mistakes
        unfit = apply_certificates(policy, check.sources)
        problems = [Problem(document.line(place), dotted(place), why) for place, why in unfit]
    if problems:
        raise PolicyError(str(path), problems)
    return policy


@dataclass(frozen=True, slots=True)
class _Scope:
    """What the checks of a node need to know about its place in the policy."""

    category: Place
    positive: Sequence[str]
    threshold: float | None
    members: set[str]  # grows as the tree is walked
    sums_under: str | None = None  # ``how`` of the nearest combine that adds log-odds
    is_stage: bool = False
    is_last: bool = False  # of its cascade


class _Check:
    """Finds the mistakes that a schema cannot express.

    It works on the raw data, so that they are reported together with the schema's. What is
    malformed matches no case here: the schema reports it.
    """

    def __init__(self, plugins: Plugins, find_model: FindModel, *, unfitted: bool) -> None:
        self.plugins = plugins
        self.find_model = find_model
        self.unfitted = unfitted
        self.found: list[tuple[Place, str]] = []
        self.members: dict[str, ArtefactConfig | None] = {}
        self.sources: dict[str, Source] = {}
        self.used: set[str] = set()
        self.trees_are_whole = True

    def policy(self, data: Any) -> None:
        for index, name in enumerate(_list(data, "plugins")):
            self._plugin(name, ("plugins", index))
        members, categories = _mapping(data, "members"), _mapping(data, "categories")
        self.members = {name: self._member(m, name) for name, m in members.items()}
        for name, category in categories.items():
            self._category(category, ("categories", name))
        if categories and self.trees_are_whole:
            for name in members.keys() - self.used:
                self._add(("members", name), "no category uses this member; use it or remove it")
        for index, case in enumerate(_list(data, "tests")):
            for name, action in _mapping(case, "expect").items():
                self._expectation(name, action, categories, ("tests", index, "expect", name))

    def _plugin(self, name: Any, place: Place) -> None:
        if not isinstance(name, str):
            return
        plugin = self.plugins.plugins.get(name)
        if plugin is None:
            self._add(place, unknown(name, list(self.plugins.plugins), "plugin"))
        elif plugin.error is not None:
            self._add(place, f"plugin {name!r} cannot be used: {plugin.error}")
        elif "decided" not in plugin.hooks:
            self._add(
                place, f"plugin {name!r} has no `decided` hook, so there is nothing to enable"
            )

    def _member(self, member: Any, name: str) -> ArtefactConfig | None:
        checked = MemberCheck(member, name, self.plugins, self.find_model)
        self.found += checked.found
        if checked.source is not None:
            self.sources[name] = checked.source
        return checked.config

    def _category(self, category: Any, place: Place) -> None:
        if not isinstance(category, dict):
            self.trees_are_whole = False
            return
        positive = [
            label if isinstance(label, str) else "" for label in _list(category, "positive")
        ]
        for index, label in enumerate(positive):
            if label and label in positive[:index]:
                self._add((*place, "positive", index), f"label {label!r} is listed twice")
        roles = _list(category, "roles")
        for index, role in enumerate(roles):
            if role in roles[:index]:
                self._add((*place, "roles", index), f"role {role!r} is listed twice")
        flag_at = _mapping(category, "flag_at")
        self._data_spec(flag_at.get("calibrated_on"), (*place, "flag_at", "calibrated_on"))
        threshold = _probability(flag_at.get("probability"))
        scope = _Scope(place, positive, threshold, set())
        self._node(category.get("decide"), (*place, "decide"), scope)
        for name in sorted(scope.members):
            self._labels(name, scope)
        if scope.members and "positive" not in category:
            self._add((*place, "positive"), "required: the labels of its members that count")
        self.used |= scope.members
        match category.get("abstain_if"):
            case {"member": str(name), **rest}:
                self._known_member(name, (*place, "abstain_if", "member"))
                self._novelty(name, rest, (*place, "abstain_if"))
                self.used.add(name)

    def _data_spec(self, spec: Any, place: Place) -> None:
        try:
            if isinstance(spec, str) and spec:
                check_spec(spec)
        except DataError as error:
            self._add(place, str(error))

    def _node(self, node: Any, place: Place, scope: _Scope) -> bool:
        """Check a node; return whether it always has a value (a pattern may have no opinion)."""
        if isinstance(node, dict) and "settle" in node:
            self._settle(node["settle"], (*place, "settle"), scope)
        inner = replace(scope, is_stage=False, is_last=False)
        if kind_of(node) is None:
            self.trees_are_whole = False
            return False
        match node:
            case {"member": str(name)}:
                self._known_member(name, (*place, "member"))
                if node.get("escalate_if") is not None:
                    self._escalate(name, node["escalate_if"], (*place, "escalate_if"), scope)
                scope.members.add(name)
                return True
            case {"pattern": {"re2": str(pattern)}} if pattern:
                self._pattern(pattern, (*place, "pattern"), scope)
                return False
            case {"cascade": list(stages)} if stages:
                return self._cascade(stages, (*place, "cascade"), inner)
            case {"combine": dict(combine)}:
                return self._combine(combine, (*place, "combine"), inner)
        self.trees_are_whole = False
        return False

    def _settle(self, settle: Any, place: Place, scope: _Scope) -> None:
        if not scope.is_stage:
            self._add(place, "only a stage of a cascade settles; remove it")
        match settle:
            case {"below": low, "above": high}:
                below, above = _probability(low), _probability(high)
            case _:
                return
        if below is None or above is None:
            return
        if below > above:
            self._add(place, f"below ({below}) must not be above `above` ({above})")
        elif scope.threshold not in (None, 0, 1) and not below <= scope.threshold <= above:
            self._add(
                place,
                f"flag_at ({scope.threshold}) must lie between below ({below}) and above "
                f"({above}): a text settled here would pass a threshold that later stages were "
                "never asked about",
            )

    def _known_member(self, name: str, place: Place) -> None:
        if name not in self.members:
            self._add(place, unknown(name, list(self.members), "member"))

    def _escalate(self, name: str, escalate: Any, place: Place, scope: _Scope) -> None:
        if not scope.is_stage:
            self._add(place, "only a stage of a cascade hands texts on; remove it")
        elif scope.is_last:
            self._add(
                place,
                "the last stage has nobody to hand a text on to; remove it, or add a stage. "
                "`abstain_if` keeps a strange text from being allowed",
            )
        self._novelty(name, escalate, place)

    def _novelty(self, name: str, condition: Any, place: Place) -> None:
        """Check that member ``name`` has a novelty p-value that can reach the bound."""
        bound = _probability(_mapping({"": condition}, "").get("novelty_p_below"))
        # a member that is unknown or cannot be found is reported as that
        if bound and name in self.sources and (wrong := why_unreachable(self.sources[name], bound)):
            self._add((*place, "novelty_p_below"), f"member {name!r}: {wrong}")

    def _cascade(self, stages: Sequence[Any], place: Place, scope: _Scope) -> bool:
        scope, last = replace(scope, is_stage=True), len(stages) - 1
        answers = [
            self._node(stage, (*place, index), replace(scope, is_last=index == last))
            for index, stage in enumerate(stages)
        ]
        for index, stage in enumerate(stages[:-1]):
            if answers[index] and stage.get("settle") is None:
                self._add(
                    (*place, index + 1),
                    f"unreachable: stage [{index}] has no `settle`, so it settles every text; "
                    "give it bounds, or remove this stage",
                )
        return any(answers)

    def _combine(self, combine: Mapping[str, Any], place: Place, scope: _Scope) -> bool:
        how, parts = combine.get("how"), _list(combine, "of")
        known = [*BUILTIN_COMBINERS, *self.plugins.combiners]
        if isinstance(how, str) and how not in known:
            broken = [p.name for p in self.plugins.plugins.values() if p.error is not None]
            note = f" (plugins that could not be loaded: {', '.join(broken)})" if broken else ""
            self._add((*place, "how"), unknown(how, known, "combiner") + note)
        weights, quorum = combine.get("weights"), combine.get("quorum")
        if weights is not None and isinstance(how, str) and how not in ("weighted", "stacked"):
            message = f"only `how: weighted` and `stacked` have weights, not {how!r}"
            self._add((*place, "weights"), message)
        elif isinstance(weights, list) and parts and len(weights) != len(parts):
            self._add(
                (*place, "weights"), f"{len(weights)} weights for {len(parts)} parts; give one each"
            )
        if combine.get("bias") is not None and isinstance(how, str) and how != "stacked":
            self._add((*place, "bias"), f"only `how: stacked` has a bias, not {how!r}")
        if how == "stacked" and weights is None and not self.unfitted:
            self._add(
                (*place, "how"),
                "has no weights yet; `guardkit policy stack` fits them on labelled text",
            )
        if isinstance(quorum, int) and parts and quorum > len(parts):
            self._add(
                (*place, "quorum"), f"must be 1 to {len(parts)}, the number of parts, got {quorum}"
            )
        if how not in ("any", "all"):
            scope = replace(scope, sums_under=str(how))
        answers = [self._node(part, (*place, "of", i), scope) for i, part in enumerate(parts)]
        return any(answers)

    def _pattern(self, pattern: str, place: Place, scope: _Scope) -> None:
        if scope.sums_under is not None:
            self._add(
                place,
                f"a pattern cannot stand under `how: {scope.sums_under}`: it has no log-odds to "
                "add up; put it under a cascade, any or all",
            )
        try:
            compile_pattern(pattern)
        except ValueError as error:
            self._add((*place, "re2"), f"not a pattern re2 takes: {error}")

    def _labels(self, name: str, scope: _Scope) -> None:
        config = self.members.get(name)
        if config is None or not scope.positive:
            return
        labels, place = ", ".join(config.labels), (*scope.category, "positive")
        for index, given in enumerate(scope.positive):
            if given and given not in config.labels:
                message = f"member {name!r} has no label {given!r}; its labels: {labels}"
                self._add((*place, index), message)
        if config.task == "multiclass" and set(scope.positive) == set(config.labels):
            self._add(
                place,
                f"covers every label of member {name!r} ({labels}), so its probability is always "
                "1; leave out the labels that mean nothing was found",
            )

    def _expectation(
        self, name: str, action: Any, categories: Mapping[str, Any], place: Place
    ) -> None:
        if name not in categories:
            self._add(place, unknown(name, list(categories), "category"))
            return
        match categories[name]:
            case {"action": "flag" | "block" as own} as category if action in get_args(Action):
                given = ["allow", "abstain"] if category.get("abstain_if") else ["allow"]
                if action not in (*given, own):
                    gives = f"{', '.join(given)} or {own}"
                    self._add(place, f"category {name!r} gives {gives}, never {action}")

    def _add(self, place: Place, message: str) -> None:
        self.found.append((place, message))


def _mapping(data: Any, key: str) -> Mapping[str, Any]:
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, dict) else {}


def _list(data: Any, key: str) -> Sequence[Any]:
    value = data.get(key) if isinstance(data, dict) else None
    return value if isinstance(value, list) else ()


def _probability(value: Any) -> float | None:
    """Return ``value`` where it is a number in 0..1; anything else is the schema's to report."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)
