"""Evaluating models and policies: right texts, right labels, nothing left out silently."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from guardkit.errors import DataError
from guardkit.evaluation.measure import NEEDED_NEGATIVES, evaluate_model, evaluate_policy
from guardkit.evaluation.predictions import predict_with_model, predict_with_policy
from guardkit.model.chunks import CHUNK_TEXTS
from guardkit.policy.router import load_policy
from guardkit.types import UNLABELLED, Examples
from tests.support.evaluations import (
    LABELS,
    POLICY,
    examples_of,
    logits_of,
    model_of,
    random_logits,
    router_of,
)
from tests.support.fake_models import FakeFamily, plugins_of


def test_a_model_is_measured_on_its_probabilities(tmp_path: Path) -> None:
    logits_NC, labels = random_logits()
    report = evaluate_model(model_of(tmp_path), examples_of(logits_NC, labels))
    y_N = np.array([x == "injection" for x in labels])
    p_N = 1 / (1 + np.exp(-logits_NC[:, 1].round(4)))
    m = report["metrics"]
    assert m["roc_auc"]["value"] == pytest.approx(sk.roc_auc_score(y_N, p_N))
    assert m["auprc"]["value"] == pytest.approx(sk.average_precision_score(y_N, p_N))
    assert m["accuracy"]["value"] == pytest.approx(((p_N > 0.5) == y_N).mean())
    assert m["log_loss"]["value"] == pytest.approx(sk.log_loss(y_N, p_N), rel=1e-5)
    assert m["brier"]["value"] == pytest.approx(sk.brier_score_loss(y_N, p_N), rel=1e-5)
    assert set(m) >= {"macro_f1", "ece", "recall_at_fpr_1%", "recall_at_fpr_0.1%"}
    assert all(v["low"] <= v["value"] <= v["high"] for v in m.values())
    assert (report["n"], report["errors"], report["unlabelled"]) == (300, 0, 0)
    assert report["positive"] == "injection"
    json.dumps(report, allow_nan=False)


def test_labels_are_matched_by_name_not_by_position(tmp_path: Path) -> None:
    logits_NC, labels = random_logits()
    model = model_of(tmp_path)
    straight = evaluate_model(model, examples_of(logits_NC, labels))
    turned = examples_of(logits_NC, labels, names=("injection", "unused", "benign"))
    assert evaluate_model(model, turned)["metrics"] == straight["metrics"]


@pytest.mark.parametrize(
    ("labels", "neutral", "asked", "expected"),
    [
        (("benign", "injection"), "benign", None, "injection"),
        (("safe", "unsafe"), "unsafe", None, "safe"),
        (("neg", "pos"), None, None, "pos"),
        (("neg", "pos"), None, "neg", "neg"),
        (("a", "b", "c"), None, None, None),
        (("a", "b", "c"), "a", "b", "b"),
    ],
)
def test_the_positive_label_is_the_one_that_is_to_be_found(
    tmp_path: Path,
    labels: tuple[str, ...],
    neutral: str | None,
    asked: str | None,
    expected: str | None,
) -> None:
    logits_NC = np.random.default_rng(0).normal(size=(40, len(labels)))
    names = [labels[i % len(labels)] for i in range(40)]
    examples = examples_of(logits_NC, names, labels)
    report = evaluate_model(model_of(tmp_path, labels, neutral), examples, positive=asked)
    assert report["positive"] == expected
    p_NC = np.exp(logits_NC.round(4))
    p_NC /= p_NC.sum(axis=1, keepdims=True)
    columns = range(len(labels)) if expected is None else [labels.index(expected)]
    y_N = np.array([labels.index(x) for x in names])
    auc = np.mean([sk.roc_auc_score(y_N == c, p_NC[:, c]) for c in columns])
    assert report["metrics"]["roc_auc"]["value"] == pytest.approx(auc)


def test_unlabelled_and_unscored_texts_are_counted_and_left_out(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(40)
    examples = examples_of(logits_NC, labels)
    broken = Examples(
        [*examples.texts, "BROKEN", "0 1"],
        np.append(examples.labels_N, [1, UNLABELLED]),
        LABELS,
    )
    model = model_of(tmp_path)
    report = evaluate_model(model, broken)
    assert (report["n"], report["errors"], report["unlabelled"]) == (40, 1, 1)
    assert report["metrics"] == evaluate_model(model, examples)["metrics"]


def test_one_class_alone_still_gives_what_can_be_given(tmp_path: Path) -> None:
    examples = examples_of([[0, -1], [0, 1], [0, -2], [0, -3]], ["benign"] * 4)
    report = evaluate_model(model_of(tmp_path), examples)
    assert report["metrics"]["accuracy"]["value"] == 0.75
    assert report["metrics"]["roc_auc"] == {"value": None, "low": None, "high": None}
    json.dumps(report, allow_nan=False)


def test_tables_split_texts_by_source_and_length(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(200)
    sources = ["mail" if i % 4 else "" for i in range(200)]
    report = evaluate_model(model_of(tmp_path), examples_of(logits_NC, labels, sources=sources))
    assert {name: part["n"] for name, part in report["sources"].items()} == {
        "(none)": 50,
        "mail": 150,
    }
    y_N = np.array([x == "injection" for x in labels])
    flagged_N = logits_NC[:, 1] > 0
    mail_N = np.array([s == "mail" for s in sources])
    part = report["sources"]["mail"]
    assert part["positives"] == (y_N & mail_N).sum()
    assert part["metrics"]["fpr"]["value"] == pytest.approx(flagged_N[mail_N & ~y_N].mean())
    assert part["metrics"]["recall"]["value"] == pytest.approx(flagged_N[mail_N & y_N].mean())
    assert all(m["low"] <= m["value"] <= m["high"] for m in part["metrics"].values())
    assert list(report["lengths"]) == ["0-99", "100-299", "300-999"]
    assert sum(part["n"] for part in report["lengths"].values()) == 200


def test_groups_stay_together_in_the_intervals(tmp_path: Path) -> None:
    logits_NC = np.array([[0.0, 3.0 if i < 100 else -3.0] for i in range(200)])
    labels = ["injection"] * 200
    model = model_of(tmp_path)
    alone = evaluate_model(model, examples_of(logits_NC, labels))["metrics"]["accuracy"]
    groups = [f"g{i // 20}" for i in range(200)]
    grouped = evaluate_model(model, examples_of(logits_NC, labels, groups=groups))["metrics"]
    assert grouped["accuracy"]["high"] - grouped["accuracy"]["low"] > 2 * (
        alone["high"] - alone["low"]
    )


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    strange = examples_of([[0, 1], [0, 1]], ["benign", "spam"], names=("benign", "spam"))
    with pytest.raises(DataError, match="have label 'spam', the model benign, injection"):
        evaluate_model(model, strange)
    with pytest.raises(DataError, match="--positive 'spam': the model's labels: benign, injection"):
        evaluate_model(model, examples_of([[0, 1]], ["benign"]), positive="spam")
    with pytest.raises(DataError, match="not one example is labelled"):
        evaluate_model(model, examples_of([[0, 1]], [None]))
    with pytest.raises(DataError, match="not one of 1 texts could be scored"):
        evaluate_model(model, Examples(["BROKEN"], np.array([0]), LABELS))


def test_progress_is_told_text_by_text(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        seen.append((done, total))

    logits_NC, labels = random_logits(CHUNK_TEXTS + 4)
    evaluate_model(model_of(tmp_path), examples_of(logits_NC, labels), progress=progress)
    total = CHUNK_TEXTS + 4
    assert seen == [(0, total), (CHUNK_TEXTS, total), (total, total)]


def test_a_policy_is_measured_on_its_actions(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(200)
    examples = examples_of(logits_NC, labels, sources=["s"] * 200)
    report = evaluate_policy(router_of(tmp_path), examples)
    category = report["categories"]["injection"]
    y_N = np.array([x == "injection" for x in labels])
    flagged_N = logits_NC[:, 1] > 0
    assert category["positives"] == y_N.sum()
    assert category["metrics"]["recall"]["value"] == pytest.approx(flagged_N[y_N].mean())
    assert category["metrics"]["fpr"]["value"] == pytest.approx(flagged_N[~y_N].mean())
    assert category["metrics"]["accuracy"]["value"] == pytest.approx((flagged_N == y_N).mean())
    unsure = np.abs(logits_NC[:, 1]) < np.log(4)
    assert category["members"] == {"fast": 1.0, "slow": pytest.approx(unsure.mean())}
    assert category["sources"]["s"]["n"] == 200
    assert sum(part["n"] for part in category["lengths"].values()) == 200
    json.dumps(report, allow_nan=False)


def test_a_text_that_a_policy_could_not_judge_counts_as_what_it_was_given(tmp_path: Path) -> None:
    texts = ["0 -9", "BROKEN", "0 9"]
    examples = Examples(texts, np.array([0, 0, 1]), LABELS)
    report = evaluate_policy(router_of(tmp_path), examples)
    assert report["errors"] == 1
    assert report["categories"]["injection"]["metrics"]["fpr"]["value"] == 0.5
    opened = POLICY.replace("action: block", "action: block\n    on_error: open")
    (tmp_path / "policy.yaml").write_text(opened)
    router = load_policy(tmp_path / "policy.yaml", plugins=plugins_of(FakeFamily(logits_of)))
    report = evaluate_policy(router, examples)
    assert report["errors"] == 1
    assert report["categories"]["injection"]["metrics"]["fpr"]["value"] == 0.0


def test_benign_text_alone_gives_a_false_positive_rate(tmp_path: Path) -> None:
    examples = examples_of([[0, -9], [0, 9]], ["benign", "benign"], names=LABELS)
    report = evaluate_policy(router_of(tmp_path), examples)
    metrics = report["categories"]["injection"]["metrics"]
    assert metrics["fpr"]["value"] == 0.5
    assert metrics["recall"]["value"] is None


def test_labels_a_policy_does_not_know_need_a_word_from_the_user(tmp_path: Path) -> None:
    router = router_of(tmp_path)
    names = ("ham", "spam")
    examples = examples_of([[0, -9], [0, 9]], ["ham", "spam"], names=names)
    with pytest.raises(DataError, match=r"label 'ham', unknown to the policy .* --positive"):
        evaluate_policy(router, examples)
    with pytest.raises(DataError, match="no example is labelled 'x'; the labels are ham, spam"):
        evaluate_policy(router, examples, positive="x")
    report = evaluate_policy(router, examples, positive="spam")
    assert report["categories"]["injection"]["metrics"]["accuracy"]["value"] == 1.0


def test_a_category_the_labels_are_not_about_is_left_out(tmp_path: Path) -> None:
    both = POLICY.replace("positive: [injection]", "positive: [benign]", 1).replace(
        "  injection:", "  calm:"
    )
    both += POLICY[POLICY.index("  injection:") :]
    router = router_of(tmp_path, both)
    positives = examples_of([[0, 9]], ["injection"])
    assert [*evaluate_policy(router, positives)["categories"]] == ["injection"]
    mixed = examples_of([[0, 9], [0, -9]], ["injection", "benign"])
    assert [*evaluate_policy(router, mixed)["categories"]] == ["calm", "injection"]


def test_recall_at_a_rate_that_is_less_than_one_text_is_told_so(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    for negatives, warned in ((99, ["1%", "0.1%"]), (100, ["0.1%"]), (1000, [])):
        labels = ["benign"] * negatives + ["injection"] * 20
        logits = [[0, i % 7 - (x == "benign")] for i, x in enumerate(labels)]
        report = evaluate_model(model, examples_of(logits, labels))
        assert list(report["warnings"]) == [f"recall_at_fpr_{rate}" for rate in warned]
        assert all(f"only {negatives:,} negative" in x for x in report["warnings"].values())
    assert set(NEEDED_NEGATIVES) <= set(report["metrics"])


def test_a_policys_score_is_measured_as_a_models_is(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(200)
    examples = examples_of(logits_NC, labels)
    policy = evaluate_policy(router_of(tmp_path), examples)["categories"]["injection"]
    model = evaluate_model(model_of(tmp_path), examples)["metrics"]
    for name in ("roc_auc", "auprc", "recall_at_fpr_1%", "brier", "log_loss", "recall", "fpr"):
        for end in ("value", "low", "high"):
            assert policy["metrics"][name][end] == pytest.approx(model[name][end], abs=1e-6), name
    assert policy["without_score"] == 0


def test_texts_without_a_score_are_flagged_or_not_but_never_ranked(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(60)
    examples = examples_of(logits_NC, labels)
    router = router_of(tmp_path)
    whole = evaluate_policy(router, examples)["categories"]["injection"]
    broken = Examples([*examples.texts, "BROKEN"], np.append(examples.labels_N, 0), LABELS)
    category = evaluate_policy(router, broken)["categories"]["injection"]
    assert category["without_score"] == 1
    assert category["metrics"]["roc_auc"] == whole["metrics"]["roc_auc"]
    flagged = round(category["metrics"]["fpr"]["value"] * labels.count("benign"), 6)
    assert category["metrics"]["fpr"]["value"] > whole["metrics"]["fpr"]["value"], flagged


def test_the_cost_is_what_the_models_did_in_this_run(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(100)
    examples = examples_of(logits_NC, labels)
    model = model_of(tmp_path)
    model.score(["0 1"])  # before: not this run's
    cost = predict_with_model(model, examples).cost
    assert (cost["texts"], cost["tokens_per_text"], cost["truncated"]) == (100, 1.0, 0)
    assert cost["ms_per_text"] == pytest.approx(10 * cost["seconds"])
    predictions = predict_with_policy(router_of(tmp_path), examples)
    unsure = (np.abs(logits_NC[:, 1].round(4)) < np.log(4)).mean()
    members = predictions.cost["members"]
    assert members["fast"]["asked"] == 1.0
    assert members["slow"]["asked"] == pytest.approx(unsure)
    assert 0 < sum(member["seconds"] for member in members.values()) < predictions.seconds


def test_a_batch_that_is_halved_to_find_a_failure_counts_its_texts_once(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    model.score(["0 1", "BROKEN", "0 2"])
    assert model.work.texts == 3
    assert model.work == replace(model.work, tokens=2, truncated=0)
