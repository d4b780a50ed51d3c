"""Policy x classifiers -> decisions, batch by batch.

A router holds a checked policy and loads each model when a text first needs it;
``guardkit.tree`` does the arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from guardkit import artefact
from guardkit.errors import ClassifierError, GuardkitError, RunError
from guardkit.models import Model, find_model, load_model
from guardkit.plugins import Plugins, installed_plugins
from guardkit.policy import Policy, policies_dir
from guardkit.policyfile import FindModel, read_policy
from guardkit.tree import ON_ERROR, Batch, on_error
from guardkit.types import SEVERITY, Action, CategoryDecision, Decision, RouteStep, Row

DEFAULT_POLICY = "default.yaml"


def load_policy(
    path: str | Path | None = None,
    *,
    device: str = "auto",
    backend: str = "torch",
    plugins: Plugins | None = None,
) -> PolicyRouter:
    """Return a router for the policy at ``path`` (None: the default that comes with guardkit).

    Checks the whole file and loads no model: each loads when a text first needs it. Raises
    PolicyError with every mistake.
    """
    plugins = plugins or installed_plugins()
    policy = check_policy(path or policies_dir() / DEFAULT_POLICY, plugins)
    return PolicyRouter(policy, device=device, backend=backend, plugins=plugins)


def check_policy(
    path: str | Path, plugins: Plugins | None = None, *, unfitted: bool = False
) -> Policy:
    """Return the policy at ``path``, or raise PolicyError with every mistake in it.

    ``unfitted`` lets a ``stacked`` node be without weights.
    """
    path, plugins = Path(path), plugins or installed_plugins()
    return read_policy(path, plugins, _finder(path, plugins), unfitted=unfitted)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case of a policy's ``tests`` block: what each category was to do, and did."""

    text: str
    expected: Mapping[str, Action]
    got: Mapping[str, Action]
    error: str | None
    passed: bool  # the right action for want of a judgement does not pass


class PolicyRouter:
    """Decides texts by a policy. Use it from one thread at a time, as its classifiers."""

    def __init__(self, policy: Policy, *, device: str, backend: str, plugins: Plugins) -> None:
        self.policy = policy
        self._plugins = plugins
        self._load = partial(load_model, device=device, backend=backend, plugins=plugins)
        find = _finder(policy.path, plugins)
        self._folders = {name: find(m.plugin, m.model) for name, m in policy.members.items()}
        self._models: dict[Path, Model] = {}

    @property
    def hash(self) -> str:
        """SHA-256 of the policy file; decisions carry its first 12 digits."""
        return self.policy.hash

    def model_hashes(self) -> dict[str, str]:
        """Return each member's model hash, its files verified; loads no model."""
        return {name: artefact.verify(folder) for name, folder in self._folders.items()}

    def model(self, member: str) -> Model:
        """Return the member's model, loading it on first need; members may share one."""
        folder = self._folders[member]
        if folder not in self._models:
            family = self.policy.members[member].plugin
            try:
                self._models[folder] = self._load(folder, family=family)
            except GuardkitError:
                raise
            except Exception as error:  # a plugin's own: say whose it is
                reason = f"{type(error).__name__}: {error}"
                message = f"{folder}: plugin {family!r} cannot load it: {reason}"
                raise ClassifierError(message) from error
        return self._models[folder]

    def batch(self, texts: Sequence[str]) -> Batch:
        """Return a batch to judge by this policy's categories, or by one of them."""
        novelty_of = {self._folders[member] for member in self.policy.novelty_members}
        return Batch(texts, self.model, self._plugins.combiners, novelty_of)

    def decide(self, texts: Sequence[str], ids: Sequence[Any] | None = None) -> list[Decision]:
        """Return one decision per text, in order; ids default to the texts' positions from 0.

        A text that a classifier fails on gets what ``on_error`` says, with ``error`` set.
        Raises UsageError where a model cannot be loaded, RunError where a ``decided`` hook
        fails.
        """
        if isinstance(texts, str):
            raise TypeError("decide takes a sequence of texts, not one text: decide([text])")
        texts = list(texts)
        ids = list(range(len(texts))) if ids is None else list(ids)
        if len(ids) != len(texts):
            raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
        if not texts:
            return []
        decisions = self._decide(texts, ids)
        try:
            self._plugins.notify_decided(texts, decisions, self.policy)
        except Exception as error:  # an audit that fails must not pass unseen
            reason = f"{type(error).__name__}: {error}"
            raise RunError(f"a plugin's `decided` hook failed: {reason}") from error
        return decisions

    def decide_rows(self, rows: Sequence[Row]) -> list[Decision]:
        """Return one decision per row, in order.

        Of a row with several texts every category takes its worst; a row without a text gets
        what each category's ``on_error`` says.
        """
        texts = [text for row in rows if row.error is None for text in row.texts]
        ids = [row.id for row in rows if row.error is None for _ in row.texts]
        decisions = iter(self.decide(texts, ids))
        result = []
        for row in rows:
            own = [next(decisions) for _ in row.texts] if row.error is None else []
            unjudged = row.error or "no text to judge"
            result.append(self._worst(own) if own else self._unjudged(row.id, unjudged))
        return result

    def run_tests(self) -> list[CaseResult]:
        """Decide the texts of the policy's ``tests`` block and compare.

        Under ``mode: shadow`` too, the actions compared are those that would have been taken. No
        plugin is told: nothing here was decided in earnest.
        """
        cases = self.policy.tests
        decisions = self._decide([c.text for c in cases], range(len(cases))) if cases else []
        results = []
        for case, decision in zip(cases, decisions, strict=True):
            got = {name: decision.categories[name].action for name in case.expect}
            passed = got == case.expect and decision.error is None
            results.append(CaseResult(case.text, case.expect, got, decision.error, passed))
        return results

    def _decide(self, texts: Sequence[str], ids: Sequence[Any]) -> list[Decision]:
        batch = self.batch(texts)
        names = list(self.policy.categories)
        judged = [batch.judge(name, category) for name, category in self.policy.categories.items()]
        columns = zip(*(decisions for decisions, _ in judged), strict=True)
        severity_N = np.max([severities_N for _, severities_N in judged], axis=0)
        errors = [batch.errors.get(i) for i in range(len(texts))]
        actions, shadows = self._actions([SEVERITY[s] for s in severity_N.tolist()])
        policy = self.hash[:12]
        return [
            Decision(id, action, dict(zip(names, row)), error, cut, route, policy, shadow)  # noqa: B905 - speed
            for id, action, row, error, cut, route, shadow in zip(
                ids,
                actions,
                columns,
                errors,
                batch.truncated_N.tolist(),
                batch.routes,
                shadows,
                strict=True,
            )
        ]

    def _actions(
        self, actions: list[Action]
    ) -> tuple[list[Action], Sequence[Mapping[str, Any] | None]]:
        """Return the actions to take and, under ``mode: shadow``, those that were not."""
        if self.policy.mode == "shadow":
            return ["allow"] * len(actions), [{"action": action} for action in actions]
        return actions, [None] * len(actions)

    def _worst(self, decisions: Sequence[Decision]) -> Decision:
        """Return one decision for several texts: each category's is that of its worst text."""
        if len(decisions) == 1:
            return decisions[0]
        worst = {
            name: max(decisions, key=partial(_badness, name)) for name in self.policy.categories
        }
        errors = dict.fromkeys(d.error for d in decisions if d.error is not None)
        return self._combined(
            decisions[0].id,
            {name: decision.categories[name] for name, decision in worst.items()},
            "; ".join(errors) or None,
            truncated=any(decision.truncated for decision in decisions),
            route=[s for name, d in worst.items() for s in d.route if s.category == name],
        )

    def _unjudged(self, id: Any, error: str) -> Decision:
        categories = {
            name: CategoryDecision(on_error(c), None, c.flag_at.probability, ON_ERROR)
            for name, c in self.policy.categories.items()
        }
        return self._combined(id, categories, error, truncated=False, route=[])

    def _combined(
        self,
        id: Any,
        categories: Mapping[str, CategoryDecision],
        error: str | None,
        *,
        truncated: bool,
        route: Sequence[RouteStep],
    ) -> Decision:
        most_severe = max((c.action for c in categories.values()), key=SEVERITY.index)
        (action,), (shadow,) = self._actions([most_severe])
        return Decision(id, action, categories, error, truncated, route, self.hash[:12], shadow)


def _finder(policy: Path, plugins: Plugins) -> FindModel:
    base = policy.absolute().parent
    return lambda plugin, ref: find_model(ref, family=plugin, base=base, plugins=plugins)


def _badness(category: str, decision: Decision) -> tuple[int, float]:
    own = decision.categories[category]
    return SEVERITY.index(own.action), -1.0 if own.score is None else own.score
