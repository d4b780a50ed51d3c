"""Policies of a specialist with a backup, and texts that hold what both models say of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.plugins import Plugins
from guardkit.types import Examples
from tests.support.backup_policies import FAMILIAR
from tests.support.fake_models import FakeFamily, plugins_of, write_model

POLICY = """\
version: 1
name: test
max_characters: {max_characters}
members:
  specialist: {{plugin: fake, model: small}}
  backup: {{plugin: fake, model: large}}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        {stages}
    flag_at: {{probability: {threshold}}} # the line
    action: block
    on_error: {on_error}
    {on_truncated}
"""
TWO = """- member: specialist # fast
          settle: {{below: {below}, above: {above}}} # sure either way
        - member: backup"""
#: The same, but what is strange to the specialist goes on.
ESCALATING = TWO.replace("# sure either way", "\n          escalate_if: {{novelty_p_below: 0.1}}")


def logits_of(model: str, text: str) -> list[float]:
    """A text holds both models' log-odds: "small large | rest"; x fails."""
    return [0.0, number(text, 0 if model == "small" else 1)]


def novelty(model: str, text: str) -> float:
    """It may hold its novelty, the same for both: "small large novelty | rest"."""
    return number(text, 2) if "|" in text.split()[3:] else 0.0


def number(text: str, place: int) -> float:
    value = text.split()[place]
    if value == "x":
        raise ValueError("cannot score this")
    return float(value)


class CascadeFolder:
    """A folder with both models, and the plugins that guardkit then finds."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = folder
        self.family = FakeFamily(logits_of, novelty=novelty)
        self.plugins: Plugins = plugins_of(self.family)
        write_model(folder / "small", novelty=FAMILIAR)
        # another prior: what is one model by its hash is one in a cache
        write_model(folder / "large", novelty=FAMILIAR, prior=(0.6, 0.4))

        for module in ("policy.router", "tuning.frontier"):
            monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: self.plugins)

    def write(self, name: str = "policy.yaml", stages: str = TWO, **values: Any) -> Path:
        defaults = {"below": 0.1, "above": 0.9, "threshold": 0.5, "on_error": "closed",
                    "on_truncated": "", "max_characters": 1000}  # fmt: skip
        given = defaults | values
        path = self.path / name
        path.write_text(POLICY.format(stages=stages.format(**given), **given))
        return path


def random_examples(
    n: int,
    small: float,
    large: float,
    *,
    together: float = 0.0,
    strange: float = 0.0,
    seed: int = 0,
) -> Examples:
    """Return texts whose positives score ``small`` and ``large`` higher under the two models; a
    share of them is ``strange``, and a few of those fail to say so."""
    rng = np.random.default_rng(seed)
    positive_N = np.arange(n) % 3 == 0
    shared_N = rng.normal(size=n)
    texts = []
    for i, y in enumerate(positive_N):
        noise = [together * shared_N[i] + math.sqrt(1 - together**2) * rng.normal() for _ in "ab"]
        novelty = 0 if not strange or rng.random() > strange else rng.choice(["99", "99", "x"])
        texts.append(f"{small * y + noise[0]:.4f} {large * y + noise[1]:.4f} {novelty} | {i}")
    return Examples(texts, positive_N.astype(np.int64), ("benign", "injection"))
