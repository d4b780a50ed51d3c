"""A policy that promises a false-positive rate, with benign texts that hold their own scores."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.tuning.certify import Certified, certify
from tests.support.fake_models import FakeFamily, plugins_of, write_model

POLICY = """\
version: 1
name: test
members:
  first: {plugin: fake, model: first}
  second: {plugin: fake, model: second}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - member: first
          settle: {below: 0.02, above: 0.999}
        - member: second
    flag_at:
      max_fpr: 0.05
      confidence: 0.9
      calibrated_on: texts/benign.jsonl
    action: block
"""
N = 200
POLICY_FILE = Path("policy.yaml")


def logits_of(model: str, text: str) -> list[float]:
    """A text holds both models' log-odds: "first second | rest"."""
    if f"BROKEN {model}" in text:
        raise ValueError("cannot score this")
    first, second = text.split("|")[0].split()
    return [0.0, float({"first": first, "second": second}[model])]


def random_texts(n: int = N, seed: int = 0, more: str = "") -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{a:.4f} {b:.4f} | {i}{more}" for i, (a, b) in enumerate(rng.normal(size=(n, 2)))]


def cascade_log_odds(texts: Sequence[str]) -> list[float]:
    """Return what the cascade makes of each text, worked out by hand."""
    low, high = math.log(0.02 / 0.98), math.log(0.999 / 0.001)
    values = []
    for text in texts:
        first, second = map(float, text.split("|")[0].split())
        values.append(first if first <= low or first >= high else second)
    return values


def write_texts(texts: Sequence[str], name: str = "texts/benign.jsonl", **columns: Any) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    rows = [
        {"text": text, **{key: values[i] for key, values in columns.items()}}
        for i, text in enumerate(texts)
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def enter_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    """Work in a folder with two models, benign texts and a policy that promises something."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        write_model(tmp_path / name)
    POLICY_FILE.write_text(POLICY)
    write_texts(random_texts())
    family = FakeFamily(logits_of)
    plugins = plugins_of(family)
    for module in ("tuning.certify", "policy.router"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: plugins)
    return family


def edit_policy(old: str, new: str) -> None:
    text = POLICY_FILE.read_text()
    assert text.count(old) == 1
    POLICY_FILE.write_text(text.replace(old, new))


def certify_one(**options: Any) -> Certified:
    (result,) = certify(POLICY_FILE, **options)
    return result
