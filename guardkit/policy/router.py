"""Decide texts by a policy, batch by batch.

A router holds a checked policy and loads each model when a text first needs it;
``guardkit.policy.category`` decides each category of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardkit.errors import ChangedError, RunError, UsageError
from guardkit.model.loaded import Model
from guardkit.model.scorers import Source
from guardkit.plugins import Plugins, installed_plugins
from guardkit.policy.batch import PolicyBatch
from guardkit.policy.category import ON_ERROR, decide_category, on_error
from guardkit.policy.check import read_policy
from guardkit.policy.decisions import is_plain, severity_and_score, step_from, with_shadow
from guardkit.policy.members import Members, finder, unrepeatable
from guardkit.policy.schema import Policy, policies_dir
from guardkit.types import (
    SEVERITY,
    Action,
    CategoryDecision,
    Decision,
    Origin,
    Role,
    RouteStep,
    Row,
)

DEFAULT_POLICY = "default.yaml"


def load_policy(
    path: str | Path | None = None,
    *,
    shadow: str | Path | None = None,
    device: str = "auto",
    backend: str = "torch",
    plugins: Plugins | None = None,
) -> PolicyRouter:
    """Return a router for the policy at ``path`` (None: the default that comes with guardkit).

    ``shadow`` is a second policy: what it would decide is recorded in ``Decision.shadow`` and
    changes nothing. Both files are checked whole. No model is loaded until a text needs it. Raises
    PolicyError with every mistake, UsageError where ``path`` itself has ``mode: shadow``.
    """
    plugins = plugins or installed_plugins()
    policy = check_policy(path or policies_dir() / DEFAULT_POLICY, plugins)
    router = PolicyRouter(policy, device=device, backend=backend, plugins=plugins)
    if shadow is not None:
        if policy.mode == "shadow":
            raise UsageError(
                f"{policy.path}: has `mode: shadow` and allows every text, so nothing can stand in "
                "its shadow; set `mode: enforce`, or compare the two with `guardkit policy diff`"
            )
        router.shadow_with(check_policy(shadow, plugins))
    return router


def check_policy(
    path: str | Path,
    plugins: Plugins | None = None,
    *,
    unfitted: bool = False,
    uncertified: bool = False,
) -> Policy:
    """Return the policy at ``path``, or raise PolicyError with every mistake in it.

    ``unfitted`` lets a ``stacked`` node be without weights, ``uncertified`` a ``max_fpr`` without
    a certificate that fits.
    """
    path, plugins = Path(path), plugins or installed_plugins()
    find = finder(path, plugins)
    return read_policy(path, plugins, find, unfitted=unfitted, uncertified=uncertified)


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case of a policy's ``tests`` block: what each category was to do, and did."""

    text: str
    expected: Mapping[str, Action]
    got: Mapping[str, Action]
    error: str | None
    passed: bool  # an action that ``on_error`` gave does not pass, even where it is the right one


class PolicyRouter:
    """Decides texts by a policy. Like its classifiers, it may be used by one thread at a time."""

    def __init__(
        self,
        policy: Policy,
        *,
        device: str,
        backend: str,
        plugins: Plugins,
        beside: Members | None = None,
    ) -> None:
        self.policy = policy
        self._plugins = plugins
        self._device, self._backend = device, backend
        self._members = Members(
            policy, device=device, backend=backend, plugins=plugins, beside=beside
        )
        self._shadow: PolicyRouter | None = None

    def shadow_with(self, policy: Policy) -> None:
        """Decide every text by ``policy`` too, into ``Decision.shadow``; a model that both use
        is loaded once and reads a text once."""
        self._shadow = PolicyRouter(
            policy, device=self._device, backend=self._backend, plugins=self._plugins,
            beside=self._members,
        )  # fmt: skip

    @property
    def shadow(self) -> PolicyRouter | None:
        """The router of the policy in its shadow, if there is one."""
        return self._shadow

    @property
    def hash(self) -> str:
        """SHA-256 of the policy; decisions carry its first 12 digits."""
        return self.policy.hash

    @property
    def sources(self) -> Mapping[str, Source]:
        """Which model each member is, and by which scorer."""
        return self._members.sources

    def unrepeatable(self) -> Iterator[str]:
        """Yield a line for every member that may answer otherwise when it is asked again."""
        return unrepeatable(self.policy, self._plugins)

    def model_hashes(self) -> dict[str, str]:
        """Return each member's model hash, its files verified; loads no model."""
        return self._members.hashes()

    def hold_to(self, hashes: Mapping[str, str | None]) -> None:
        """Refuse, with ChangedError, members' models that do not have these hashes."""
        self._members.hold_to(hashes)

    def model(self, member: str) -> Model:
        """Return the member's model, loading it on first need; members may share one."""
        return self._members.model(member)

    @property
    def heard(self) -> bool:
        """Whether a plugin's ``decided`` hook is called for this policy."""
        return self._plugins.heard(self.policy)

    def batch(
        self,
        texts: Sequence[str],
        *,
        beside: PolicyBatch | None = None,
        rounded: bool = False,
        roles: Sequence[Role | None] | None = None,
    ) -> PolicyBatch:
        """Return a batch of ``texts`` under this policy.

        ``beside`` is another policy's batch of the same texts: a model that both ask then scores
        each text once. ``roles`` says whose words each text is.
        """
        novelty_of = {self.sources[member] for member in self.policy.novelty_members}
        return PolicyBatch(
            texts, self.model, self._plugins.combiners, novelty_of,
            beside=beside, rounded=rounded, roles=roles,
            max_characters=self.policy.max_characters,
            on_member_down={m: own.on_member_down for m, own in self.policy.members.items()},
        )  # fmt: skip

    def decide(self, texts: Sequence[str], ids: Sequence[Any] | None = None) -> list[Decision]:
        """Return one decision per text, in order; ids default to the texts' positions from 0.

        A text that a classifier fails on, or that is no string, gets what ``on_error`` says, with
        ``error`` set.
        Raises UsageError where a model cannot be loaded, RunError where a ``decided`` hook
        fails.
        """
        if isinstance(texts, str):
            raise TypeError("decide takes a sequence of texts, not one text: decide([text])")
        texts = list(texts)
        ids = list(range(len(texts))) if ids is None else list(ids)
        if len(ids) != len(texts):
            raise ValueError(f"{len(ids)} ids for {len(texts)} texts")
        if not all(isinstance(text, str) for text in texts):
            return self.decide_rows(
                [_row(i, *pair) for i, pair in enumerate(zip(ids, texts, strict=True))]
            )
        return self._decide_and_notify(texts, ids)[0]

    def decide_rows(self, rows: Sequence[Row], *, rounded: bool = False) -> list[Decision]:
        """Return one decision per row, in order.

        For a row with several texts, each category's decision is that of the worst text it
        judges, and the route says which that is; a row without a text, or whose texts no category
        judges, gets what each category's ``on_error`` says. ``rounded`` gives scores and
        thresholds with six digits, as they are written; every row must then be one plain text.
        """
        texts = [text for row in rows if row.error is None for text in row.texts]
        ids = [row.id for row in rows if row.error is None for _ in row.texts]
        roles: list[Role | None] = []
        for row in rows:
            if row.error is None:
                roles += [o.role for o in row.origins] or [None] * len(row.texts)
        live, shadows = self._decide_and_notify(
            texts, ids, rounded=rounded, roles=roles if any(roles) else None
        )
        result = self._of_rows(rows, live)
        if self._shadow is None:
            return result
        beside = self._shadow._of_rows(rows, shadows)
        return [with_shadow(d, s) for d, s in zip(result, beside, strict=True)]

    def run_tests(self) -> list[CaseResult]:
        """Decide the texts of the policy's ``tests`` block and compare.

        Under ``mode: shadow``, the actions compared are those that would have been taken. The
        ``decided`` hooks are not called: these texts are only tests.
        """
        cases = self.policy.tests
        texts = [case.text for case in cases]
        decisions = self._decide(self.batch(texts), range(len(cases))) if cases else []
        results = []
        for case, decision in zip(cases, decisions, strict=True):
            got = {name: decision.categories[name].action for name in case.expect}
            passed = got == case.expect and decision.error is None
            results.append(CaseResult(case.text, case.expect, got, decision.error, passed))
        return results

    def _decide_and_notify(
        self,
        texts: Sequence[str],
        ids: Sequence[Any],
        *,
        rounded: bool = False,
        roles: Sequence[Role | None] | None = None,
    ) -> tuple[list[Decision], list[Decision]]:
        """Return the decisions of this policy and those of its shadow policy, if it has one; call
        the ``decided`` hooks that this policy enables."""
        if not texts:
            return [], []
        batch = self.batch(texts, rounded=rounded, roles=roles)
        live, shadows = self._decide(batch, ids), []
        if self._shadow is not None:
            shadows = self._shadow._decide_in_shadow(batch, ids)
            live = [with_shadow(d, s) for d, s in zip(live, shadows, strict=True)]
        try:
            self._plugins.notify_decided(texts, live, self.policy)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # an audit that fails must not pass unseen
            reason = f"{type(error).__name__}: {error}"
            raise RunError(f"a plugin's `decided` hook failed: {reason}") from error
        return live, shadows

    def _decide_in_shadow(self, batch: PolicyBatch, ids: Sequence[Any]) -> list[Decision]:
        """Decide as the shadow of another policy, which no failure here may reach."""
        try:
            beside = self.batch(batch.texts, beside=batch, rounded=batch.rounded, roles=batch.roles)
            return self._decide(beside, ids)
        except (ChangedError, KeyboardInterrupt):  # of the whole run: an output never mixes two
            raise
        except BaseException as error:  # recorded in every decision; never swallowed
            reason = f"{type(error).__name__}: {error}"
            return [self._unjudged(id, reason) for id in ids]

    def _decide(self, batch: PolicyBatch, ids: Sequence[Any]) -> list[Decision]:
        names = list(self.policy.categories)
        decided = [decide_category(batch, name, c) for name, c in self.policy.categories.items()]
        columns = zip(*(decisions for decisions, _ in decided), strict=True)
        by_name = [dict(zip(names, row)) for row in columns]  # noqa: B905 - speed
        severity_N = np.max([severities_N for _, severities_N in decided], axis=0)
        errors = [batch.errors.get(i) for i in range(len(batch.texts))]
        actions, shadows = self._actions([SEVERITY[s] for s in severity_N.tolist()])
        policy = self.hash[:12]
        return [
            Decision(id, action, row, error, cut, route, policy, shadow, models, down)
            for id, action, row, error, cut, route, shadow, models, down in zip(
                ids,
                actions,
                by_name,
                errors,
                batch.truncated_N.tolist(),
                batch.routes,
                shadows,
                batch.read_by(self.sources),
                [batch.down.get(i, ()) for i in range(len(batch.texts))],
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

    def _of_rows(self, rows: Sequence[Row], decisions: Sequence[Decision]) -> list[Decision]:
        """Return a decision for each row; ``decisions`` are those of the readable rows' texts."""
        if len(decisions) == len(rows) and all(map(is_plain, rows)):
            return list(decisions)
        of_texts, result = iter(decisions), []
        for row in rows:
            own = [next(of_texts) for _ in row.texts] if row.error is None else []
            if why := row.error or self._why_nobody_judges(row):
                result.append(self._unjudged(row.id, why))
            else:
                result.append(own[0] if is_plain(row) else self._worst(own, row.origins))
        return result

    def _why_nobody_judges(self, row: Row) -> str | None:
        """Return why no category judges any text of ``row``, None where one does."""
        if not row.texts:
            return "no text to judge"
        categories = self.policy.categories.values()
        if not row.origins or any(c.judges(o.role) for c in categories for o in row.origins):
            return None
        roles = ", ".join(sorted({o.role for o in row.origins if o.role is not None}))
        return (
            f"no category judges any of its texts, which are those of {roles}; `roles` of a "
            "category says whose words it judges"
        )

    def _worst(self, decisions: Sequence[Decision], origins: Sequence[Origin]) -> Decision:
        """Return one decision for the texts of one row; each category takes that of the worst
        text it judges, and the route says which text that is."""
        categories: dict[str, CategoryDecision] = {}
        route: list[RouteStep] = []
        for name, category in self.policy.categories.items():
            judged = [
                i for i in range(len(decisions)) if not origins or category.judges(origins[i].role)
            ]
            worst = max(judged or [0], key=lambda i: severity_and_score(name, decisions[i]))
            categories[name] = decisions[worst].categories[name]
            steps = [step for step in decisions[worst].route if step.category == name]
            route += [step_from(step, origins[worst]) for step in steps] if origins else steps
        errors = dict.fromkeys(d.error for d in decisions if d.error is not None)
        return self._combined(
            decisions[0].id,
            categories,
            "; ".join(errors) or None,
            truncated=any(decision.truncated for decision in decisions),
            route=route,
            models={name: own for d in decisions for name, own in d.models.items()},
            down=tuple(dict.fromkeys(member for d in decisions for member in d.down)),
        )

    def _unjudged(self, id: Any, error: str) -> Decision:
        categories = {
            name: CategoryDecision(on_error(c), None, c.threshold.probability, ON_ERROR)
            for name, c in self.policy.categories.items()
        }
        return self._combined(id, categories, error, truncated=False, route=[], models={})

    def _combined(
        self,
        id: Any,
        categories: Mapping[str, CategoryDecision],
        error: str | None,
        *,
        truncated: bool,
        route: Sequence[RouteStep],
        models: Mapping[str, str],
        down: Sequence[str] = (),
    ) -> Decision:
        most_severe = max((c.action for c in categories.values()), key=SEVERITY.index)
        (action,), (shadow,) = self._actions([most_severe])
        policy = self.hash[:12]
        return Decision(
            id, action, categories, error, truncated, route, policy, shadow, models, down
        )


def _row(position: int, id_: Any, text: object) -> Row:
    """Return a text as a row; what is no string is a row that could not be read."""
    if isinstance(text, str):
        return Row(position + 1, id_, (text,))
    return Row(position + 1, id_, error=f"expected text, found {type(text).__name__}")
