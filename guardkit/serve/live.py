"""The policy that is being served: loaded and proven before it judges anything."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from guardkit.errors import UsageError
from guardkit.plugins import Plugins, installed_plugins
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.serve.audit import Audit
from guardkit.serve.moderation_names import check_names
from guardkit.serve.settings import Settings
from guardkit.types import Decision, Row


@dataclass(frozen=True)
class Live:
    """A policy whose models are loaded and whose own tests pass."""

    router: PolicyRouter
    #: Names in the moderations API -> the policy's categories.
    names: Mapping[str, str]
    #: Each member's model, by its full hash.
    models: Mapping[str, str]
    since: float = field(default_factory=time.time)

    @property
    def enforced(self) -> bool:
        return self.router.policy.mode != "shadow"

    def judge(self, rows: Sequence[Row]) -> list[Judged]:
        """Decide rows; for one thread at a time."""
        return [Judged(decision, self) for decision in self.router.decide_rows(rows)]


class Judged(NamedTuple):
    """A decision and the policy it was made by, which may be another by now."""

    decision: Decision
    live: Live

    @property
    def passed(self) -> bool:
        """Whether the text may be called safe. An error or an unread end that ``on_error: open``
        let pass is not: who asks must be told in another way, or not be answered."""
        decision = self.decision
        if not self.live.enforced:
            return True
        return decision.action == "allow" and decision.error is None and not decision.truncated

    @property
    def unjudged(self) -> str | None:
        """Why the text can be called neither safe nor unsafe, None where it can."""
        decision = self.decision
        if self.passed or decision.action != "allow":
            return None
        return decision.error or "part of the text was not read"


def load_live(settings: Settings, plugins: Plugins | None = None) -> Live:
    """Return the policy of ``settings``, ready to judge.

    Every model is loaded and the policy's own tests are run. Raises PolicyError, ArtefactError or
    UsageError, which say what to do.
    """
    plugins = plugins or installed_plugins()
    if settings.audit_log is not None:
        audit = Audit(settings.audit_log, text_share=settings.audit_text_share)
        plugins = plugins.with_listener("guardkit-serve-audit", audit)
    router = load_policy(
        settings.policy,
        shadow=settings.shadow,
        device=settings.device,
        backend=settings.backend,
        plugins=plugins,
    )
    names = check_names(settings.openai_names, router.policy)
    models = _proven(router)
    if router.shadow is not None:
        _proven(router.shadow)
    return Live(router, names, models)


def _proven(router: PolicyRouter) -> Mapping[str, str]:
    """Load the models of a policy, run its tests, and return the models' hashes."""
    models = {member: router.model(member).hash for member in router.policy.members}
    results = router.run_tests()  # what is slow the first time is done with them
    if failed := [f"tests[{i}]" for i, result in enumerate(results) if not result.passed]:
        raise UsageError(
            f"{router.policy.path}: {', '.join(failed)}: the policy does not do what its own tests "
            f"say, and is not served; see `guardkit policy test {router.policy.path}`"
        )
    return models
