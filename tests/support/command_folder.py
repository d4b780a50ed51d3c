"""A folder to run commands in: a model, a policy, input, one plugin sound and one broken."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.plugins import Plugins
from guardkit.types import Evidence, RawScores
from tests.support import one_member
from tests.support.fake_models import FakeClassifier, FakeFamily, plugins_of, write_model
from tests.support.one_member import logits_of

POLICY = (
    one_member.POLICY.replace("block", "flag")
    + """\
tests:
  - {text: "an attack", expect: {injection: flag}}
  - {text: "a cake", expect: {injection: allow}}
"""
)
TRAIN = ["train", "--plugin", "fake", "--data", "reviews/", "--out", "new"]


class Explaining(FakeClassifier):
    """Gives each word evidence: attack speaks for injection, the others against it."""

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        scores = super().score(texts)
        if not evidence:
            return scores
        found = []
        for text in texts:
            words = list(re.finditer(r"\S+", text))
            values = [[0.0, 1.5 if word.group() == "attack" else -0.5] for word in words]
            spans = [word.span() for word in words]
            found.append(Evidence("posterior", spans, np.array(values, np.float32)))
        return replace(scores, evidence=found)


class Family(FakeFamily):
    def load(self, path: Path, *, device: str, backend: str) -> Explaining:
        loaded = super().load(path, device=device, backend=backend)
        return Explaining(self, loaded.id, loaded.labels)


def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: FakeFamily | None = None
) -> Plugins:
    """Work in a folder with a model and a policy, with one plugin installed (of ``family``) and
    one broken."""
    family = family or Family(logits_of, builtin=tmp_path / "bundled")
    write_model(tmp_path / "bundled" / "injection")
    write_model(tmp_path / "model")
    found = plugins_of(family, broken={"torn": "ImportError: No module named 'torn'"})
    for module in (
        "model.export",
        "model.loaded",
        "policy.router",
        "classify.job",
        "training.train",
        "plugins",
    ):  # its source last: read at import
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: found)
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY)
    Path("in.jsonl").write_text('{"text": "a cake"}\n{"text": "an attack", "id": "x", "k": [1]}\n')
    return found


def written(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]
