"""Policies of a specialist with a backup, and two models whose log-odds a test sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardkit.plugins import Plugins
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Decision
from tests.support.fake_models import FakeFamily, plugins_of, write_model

#: The novelty of a model's calibration texts: p-values are multiples of 1/20, so that they fall on
#: a policy's bounds too.
FAMILIAR = [float(i) for i in range(19)]
SPECIALIST_THEN_BACKUP = """
version: 1
name: test
members:
  specialist: {plugin: fake, model: specialist}
  backup: {plugin: fake, model: backup}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - member: specialist
          settle: {below: 0.02, above: 0.98}
        - member: backup
    flag_at: {probability: 0.5}
    action: block
"""
TWO_CATEGORIES = (
    SPECIALIST_THEN_BACKUP
    + """
  spam:
    positive: [injection]
    decide: {member: backup}
    flag_at: {probability: 0.5}
    action: flag
    on_error: open
"""
)


class SpecialistAndBackup:
    """Two models whose log-odds and novelty a test sets; an exception or NaN is a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_odds: dict[tuple[str, str], float | Exception] = {}
        self.novelty: dict[tuple[str, str], float | Exception] = {}
        self.family = FakeFamily(self.logits_of, novelty=self.novelty_of)
        for name in ("specialist", "backup"):
            write_model(folder / name, novelty=FAMILIAR)

    def logits_of(self, model: str, text: str) -> Sequence[float]:
        value = self.log_odds.get((model, text), -5.0)
        if isinstance(value, Exception):
            raise value
        return [0.0, value]

    def novelty_of(self, model: str, text: str) -> float:
        value = self.novelty.get((model, text), 0.0)
        if isinstance(value, Exception):
            raise value
        return value

    def set_log_odds(self, text: str, **log_odds: float | Exception) -> None:
        self.log_odds |= {(model, text): value for model, value in log_odds.items()}

    def router(self, policy: str, plugins: Plugins | None = None) -> PolicyRouter:
        path = self.folder / "policy.yaml"
        path.write_text(policy, "utf-8")
        return load_policy(path, plugins=plugins or plugins_of(self.family))

    def decide(self, decide: str, text: str, *, more: str = "") -> Decision:
        """Decide ``text`` by a policy whose tree is ``decide`` (YAML in one line)."""
        members = "".join(
            f"  {name}: {{plugin: fake, model: {name}}}\n"
            for name in ("specialist", "backup")
            if name in decide + more
        )
        policy = (
            f"version: 1\nname: test\nmembers:\n{members or '  {}'}\ncategories:\n  injection:\n"
            f"    positive: [injection]\n    decide: {decide}\n"
            f"    flag_at: {{probability: 0.5}}\n    action: block\n{more}"
        )
        return self.router(policy).decide([text])[0]
