"""Models of one network in one policy: it runs once a batch, and no score changes by a bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guardkit_mdlm import scoring
from guardkit_mdlm.adaptation.class_rows import AddedRows
from guardkit_mdlm.adaptation.sketch import BUCKETS
from guardkit_mdlm.scoring import MdlmClassifier, load

from guardkit import SupportsSharing, read_config
from guardkit.calibration.maps import Calibration
from guardkit.model.artefact import CALIBRATION, CONFIG, seal, write_json
from guardkit.policy.router import load_policy

from .conftest import make_examples

TEXTS = make_examples(40, 7).texts


@pytest.fixture(scope="module")
def models(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model and two that were made of it: each its network and a row."""
    made = tmp_path_factory.mktemp("models")
    rng = np.random.default_rng(0)
    for name in ("base", "first", "second"):
        shutil.copytree(folder, made / name)
        labels = read_config(folder).labels
        calibration = Calibration(
            task="multiclass", labels=labels, scale=[1.0, 1.0], bias=[0.0, 0.0], prior=[0.5, 0.5],
            n=100, data="0" * 64, ece_before=0, ece_after=0, log_loss_before=0, log_loss_after=0,
        )  # fmt: skip
        write_json(made / name / CALIBRATION, calibration)
        if name != "base":
            weight_K = rng.normal(size=BUCKETS).astype(np.float32)
            AddedRows(0).with_row(weight_K, 0.5, 9.0, 0.1, 1).save(made / name)
        seal(made / name)
    return made


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many windows each run of a network read."""
    counted: list[int] = []
    run = scoring.one_pass_logits

    def counting(net: Any, pieces: Any, *others: Any, **more: Any) -> Any:
        counted.append(len(pieces))
        return run(net, pieces, *others, **more)

    monkeypatch.setattr(scoring, "one_pass_logits", counting)
    return counted


def load_all(models: Path) -> list[MdlmClassifier]:
    return [
        load(models / name, device="cpu", backend="torch") for name in ("base", "first", "second")
    ]


def same(one: Any, other: Any) -> bool:
    names = ("logits_NC", "tokens_N", "windows_N", "truncated_N", "novelty_N")
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in names)


def test_models_of_one_network_run_it_once_and_score_as_they_do_alone(
    models: Path, passes: list[int]
) -> None:
    classifiers = load_all(models)
    alone = [c.score(TEXTS, novelty=True) for c in classifiers]
    assert len(passes) == 3
    assert not same(alone[0], alone[1])
    shared: dict[Any, Any] = {}
    for classifier, expected in zip(classifiers, alone, strict=True):
        assert isinstance(classifier, SupportsSharing)
        assert same(classifier.score_shared(TEXTS, shared, novelty=True), expected)
    assert len(passes) == 4


def test_what_was_read_of_other_texts_or_by_another_network_is_not_taken_over(
    models: Path, passes: list[int], tmp_path: Path
) -> None:
    first, *_ = load_all(models)
    shared: dict[Any, Any] = {}
    first.score_shared(TEXTS, shared)
    assert same(first.score_shared(TEXTS[1:], shared), first.score(TEXTS[1:]))
    shutil.copytree(models / "base", tmp_path / "other")
    config = read_config(tmp_path / "other")
    network = {**config.network, "window_tokens": 12}
    write_json(tmp_path / "other" / CONFIG, config.model_copy(update={"network": network}))
    other = load(tmp_path / "other", device="cpu", backend="torch")
    assert same(other.score_shared(TEXTS, shared), other.score(TEXTS))
    assert not same(other.score_shared(TEXTS, shared), first.score(TEXTS))


def test_a_policy_runs_the_network_of_all_its_members_once_a_batch(
    models: Path, passes: list[int]
) -> None:
    members = ("base", "first", "second")
    decided = {}
    for name in members:
        router = load_policy(write_policy(models, (name,)), device="cpu")
        decided[name] = [d.categories[name] for d in router.decide(TEXTS)]
    assert len(passes) == 3
    router = load_policy(write_policy(models, members), device="cpu")
    together = router.decide(TEXTS)
    assert len(passes) == 4
    for name in members:
        assert [d.categories[name] for d in together] == decided[name]
    router.decide(TEXTS)
    assert len(passes) == 5, "what was left for one batch is no other batch's"


def test_a_shadow_of_the_same_network_costs_no_pass(models: Path, passes: list[int]) -> None:
    live, next_one = write_policy(models, ("base",)), write_policy(models, ("second",))
    load_policy(live, shadow=next_one, device="cpu").decide(TEXTS)
    assert len(passes) == 1


def write_policy(models: Path, members: tuple[str, ...]) -> Path:
    lines = ["version: 1", "name: adapted", "members:"]
    lines += [f"  {name}: {{plugin: mdlm, model: {name}}}" for name in members]
    lines += ["categories:"]
    lines += [
        f"  {name}: {{positive: [injection], decide: {{member: {name}}}, "
        "flag_at: {probability: 0.5}, action: flag}"
        for name in members
    ]
    path = models / f"{'-'.join(members)}.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
