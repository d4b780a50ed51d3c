"""Small evaluations of fake models and policies, for the tests of what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from guardkit.evaluation.breakdown import with_breakdown
from guardkit.evaluation.measure import measure
from guardkit.evaluation.predictions import predict
from guardkit.model.artefact import CONFIG, ArtefactConfig, seal, write_json
from guardkit.model.loaded import Model, load_model
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import UNLABELLED, Examples
from tests.support.fake_models import FakeFamily, plugins_of, write_model

LABELS = ("benign", "injection")
KINDS = ("model", "policy", "labels")
#: A text that tries to break out of the page that quotes it.
HOSTILE = (
    "<script>document.title='taken over'</script><img src=x onerror=\"document.title='taken'\">"
    '" onmouseover="alert(1)" \'><svg onload=alert(2)></bdi></td></table><style>*{display:none}'
    "</style>{{ 7 * 7 }}{% raw %} \u202egnp.exe\u202c &lt;b&gt;"
)
POLICY = """\
version: 1
name: test
members:
  fast: {plugin: fake, model: fast}
  slow: {plugin: fake, model: slow}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - {member: fast, settle: {below: 0.2, above: 0.8}}
        - member: slow
    flag_at: {probability: 0.5}
    action: block
"""


def logits_of(model: str, text: str) -> list[float]:
    """Return the logits written in the text."""
    if "BROKEN" in text:
        raise ValueError("cannot score this")
    return [float(x) for x in text.split("|")[0].split()]


def model_of(tmp_path: Path, labels: Sequence[str] = LABELS, neutral: str | None = None) -> Model:
    folder = write_model(tmp_path / "model", labels)
    config = ArtefactConfig(family="fake", labels=list(labels), neutral=neutral, network={})
    write_json(folder / CONFIG, config)
    seal(folder)
    return load_model(folder, plugins=plugins_of(FakeFamily(logits_of)))


def router_of(tmp_path: Path, policy: str = POLICY) -> PolicyRouter:
    for name in ("fast", "slow"):
        write_model(tmp_path / name)
    (tmp_path / "policy.yaml").write_text(policy)
    return load_policy(tmp_path / "policy.yaml", plugins=plugins_of(FakeFamily(logits_of)))


def examples_of(
    logits_NC: Any, labels: Sequence[str | None], names: tuple[str, ...] = LABELS, **more: Any
) -> Examples:
    texts = [" ".join(str(round(float(x), 4)) for x in row) for row in logits_NC]
    texts = [f"{text}|{'x' * (i * 7 % 400)}" for i, text in enumerate(texts)]
    labels_N = np.array([UNLABELLED if x is None else names.index(x) for x in labels], np.int64)
    return Examples(texts, labels_N, names, **more)


def random_logits(n: int = 300, seed: int = 0) -> tuple[Any, list[str]]:
    """Return logits_N2 that know something of the labels, and these."""
    rng = np.random.default_rng(seed)
    y_N = rng.integers(0, 2, n)
    lead_N = rng.normal(size=n) + 1.5 * (2 * y_N - 1)
    return np.stack([np.zeros(n), lead_N], axis=1), [LABELS[y] for y in y_N]


def report_of(predictor: Model | PolicyRouter, examples: Examples, *, texts: bool = True) -> Any:
    predictions = predict(predictor, examples)
    about = {
        "data": "mail.csv?label=kind",
        "split": "test",
        "data_hash": "0" * 64,
        "date": "2026-01-02T03:04:05+00:00",
        "machine": "a machine, 2 cores",
        "guardkit": "0.1.0",
        "python": "3.11.2",
        **predictions.about,
        **measure(predictions),
        "cost": predictions.cost,
    }
    return with_breakdown(about, predictions, texts=texts)


def hostile_examples(n: int = 300) -> Examples:
    """Return examples whose mistakes, and whose source, are made to break the page."""
    logits_NC, labels = random_logits(n)
    sources = [("mail", "<b>web</b>", "notes")[i % 3] for i in range(n)]
    labels = ["benign" if s == "notes" else x for s, x in zip(sources, labels, strict=True)]
    examples = examples_of(logits_NC, labels, sources=sources)
    texts = [f"{text}|{HOSTILE}" for text in examples.texts]
    return Examples(texts, examples.labels_N, examples.label_names, sources=examples.sources)


def reports_of_each_kind(folder: Path) -> dict[str, Any]:
    """Return reports of a model, of a policy, and of a model of several labels, by KINDS."""
    rng = np.random.default_rng(0)
    names = ("a", "b", "<i>c</i>")
    y_N = rng.integers(0, 3, 120)
    several = examples_of(
        rng.normal(size=(120, 3)) + np.eye(3)[y_N], [names[y] for y in y_N], names
    )
    both = POLICY + POLICY[POLICY.index("  injection:") :].replace("  injection:", "  again:", 1)
    (folder / "policy").mkdir()
    broken = hostile_examples()
    broken = Examples(
        [*broken.texts, "BROKEN"], np.append(broken.labels_N, 0), LABELS, (), [*broken.sources, ""]
    )
    return {
        "model": report_of(model_of(folder), hostile_examples()),
        "policy": report_of(router_of(folder / "policy", both), broken),
        "labels": report_of(model_of(folder / "several", names), several),
    }
