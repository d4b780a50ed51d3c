"""What a report shows beside the numbers: it adds up, and it names what went wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from guardkit.evaluation.breakdown import (
    LISTED,
    OTHER_ROUTES,
    SHOWN_CHARACTERS,
    excerpt,
    with_breakdown,
)
from guardkit.evaluation.measure import measure
from guardkit.evaluation.predictions import predict
from guardkit.model.loaded import Model
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Examples
from tests.support.evaluations import (
    POLICY,
    examples_of,
    logits_of,
    model_of,
    random_logits,
    router_of,
)
from tests.support.fake_models import FakeFamily, plugins_of


def breakdown_of(predictor: Model | PolicyRouter, examples: Examples, *, texts: bool = True) -> Any:
    predictions = predict(predictor, examples)
    report = with_breakdown(measure(predictions), predictions, texts=texts)
    json.dumps(report, allow_nan=False)
    return report


def test_a_model_of_two_labels_is_shown_by_its_positive_one(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(200)
    report = breakdown_of(model_of(tmp_path), examples_of(logits_NC, labels))
    y_N = np.array([x == "injection" for x in labels])
    flagged_N = logits_NC[:, 1].round(4) > 0
    assert report["confusion"]["counts"] == sk.confusion_matrix(y_N, flagged_N).tolist()
    assert sum(report["histogram"]["hits"]) == y_N.sum()
    assert sum(report["histogram"]["others"]) == (~y_N).sum()
    assert sum(report["reliability"]["count"]) == 200
    roc = report["curves"]["roc"]
    at = roc["fpr"].index(0.01)
    assert roc["recall"]["value"][at] == report["metrics"]["recall_at_fpr_1%"]["value"]
    assert "per_label" not in report


def test_the_worst_mistakes_come_first_with_their_rows(tmp_path: Path) -> None:
    leads = [-1.0, 3.0, -2.0, 1.0, 2.0, 0.5, -0.5]
    labels = [None, "benign", "benign", "benign", "injection", "benign", "injection"]
    examples = examples_of([[0, x] for x in leads], labels, sources=list("abcdefg"))
    mistakes = breakdown_of(model_of(tmp_path), examples)["mistakes"]
    assert [row["row"] for row in mistakes["flagged_negatives"]] == [2, 4, 6]
    (missed,) = mistakes["missed_positives"]
    assert missed["text"] == examples.texts[6]
    assert (missed["row"], missed["source"], missed["given"]) == (7, "g", "benign")
    assert missed["score"] == pytest.approx(1 / (1 + np.exp(0.5)))


def test_many_mistakes_are_cut_to_the_worst(tmp_path: Path) -> None:
    leads = np.linspace(0.1, 5, 3 * LISTED)
    report = breakdown_of(model_of(tmp_path), examples_of([[0, x] for x in leads], ["benign"] * 30))
    rows = [row["row"] for row in report["mistakes"]["flagged_negatives"]]
    assert rows == list(range(30, 30 - LISTED, -1))


def test_several_labels_are_averaged_and_each_is_listed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = ("a", "b", "c")
    y_N = rng.integers(0, 3, 200)
    logits_NC = (rng.normal(size=(200, 3)) + 1.5 * np.eye(3)[y_N]).round(4)
    examples = examples_of(logits_NC, [names[y] for y in y_N], names)
    report = breakdown_of(model_of(tmp_path, names), examples)
    given_N = logits_NC.argmax(axis=1)
    assert report["confusion"]["counts"] == sk.confusion_matrix(y_N, given_N).tolist()
    for c, name in enumerate(names):
        own = report["per_label"][name]
        assert own["n"] == (y_N == c).sum()
        expected = sk.recall_score(y_N == c, given_N == c)
        assert own["metrics"]["recall"]["value"] == pytest.approx(expected)
        assert own["metrics"]["recall"]["low"] <= expected <= own["metrics"]["recall"]["high"]
    at = report["curves"]["roc"]["fpr"].index(0.01)
    macro = report["metrics"]["recall_at_fpr_1%"]["value"]
    assert report["curves"]["roc"]["recall"]["value"][at] == pytest.approx(macro)
    assert sum(report["histogram"]["hits"]) == (given_N == y_N).sum()
    surest = report["mistakes"]["surest"]
    assert all(row["label"] != row["given"] for row in surest)
    scores = [row["score"] for row in surest]
    assert scores == sorted(scores, reverse=True)


def test_a_policys_routes_and_actions_add_up(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(200)
    examples = examples_of(logits_NC, labels)
    broken = Examples(
        [*examples.texts, "BROKEN"], np.append(examples.labels_N, 0), ("benign", "injection")
    )
    report = breakdown_of(router_of(tmp_path), broken)
    category = report["categories"]["injection"]
    routes = category["routes"]
    assert sum(route["texts"] for route in routes.values()) == 201
    unsure = (np.abs(logits_NC[:, 1].round(4)) < np.log(4)).sum()
    assert routes["fast: passed on: between 0.2 and 0.8 → slow: last stage"]["texts"] == unsure
    assert routes["fast: failed → slow: failed"] == {
        "texts": 1,
        "positives": 0,
        "flagged": 1,
        "wrong": 1,
    }
    assert category["undecided"] == 1
    flagged_N = np.append(logits_NC[:, 1].round(4) > 0, True)
    y_N = np.append([x == "injection" for x in labels], False)
    assert category["confusion"]["columns"] == ["allow", "block"]
    assert category["confusion"]["counts"] == sk.confusion_matrix(y_N, flagged_N).tolist()
    # what was flagged without a judgement is the worst of its kind
    worst = category["mistakes"]["flagged_negatives"][0]
    assert (worst["row"], worst["score"], worst["text"]) == (201, None, "BROKEN")
    (failure,) = report["failures"]
    assert failure["texts"] == 1
    assert "cannot score this" in failure["reason"]


def test_rare_routes_are_counted_together(tmp_path: Path) -> None:
    patterns = "".join(f'        - pattern: {{re2: "w{i}w"}}\n' for i in range(LISTED + 3))
    policy = POLICY.replace("      cascade:\n", f"      cascade:\n{patterns}")
    texts = [f"0 -9|w{i}w" for i in range(LISTED + 3)] * 2
    examples = Examples(texts, np.zeros(len(texts), np.int64), ("benign",))
    routes = breakdown_of(router_of(tmp_path, policy), examples)["categories"]["injection"][
        "routes"
    ]
    assert len(routes) == LISTED
    assert routes[OTHER_ROUTES]["texts"] == 2 * 4
    assert sum(route["texts"] for route in routes.values()) == len(texts)


def test_a_policy_of_patterns_has_no_curve(tmp_path: Path) -> None:
    policy = POLICY[: POLICY.index("members:")] + POLICY[POLICY.index("categories:") :]
    cascade = policy[policy.index("      cascade:") : policy.index("    flag_at")]
    (tmp_path / "policy.yaml").write_text(policy.replace(cascade, '      pattern: {re2: "evil"}\n'))
    router = load_policy(tmp_path / "policy.yaml", plugins=plugins_of(FakeFamily(logits_of)))
    examples = Examples(["evil", "good", "fine"], np.array([1, 0, 0]), ("benign", "injection"))
    predictions = predict(router, examples, positive="injection")
    category = with_breakdown(measure(predictions), predictions)["categories"]["injection"]
    assert category["without_score"] == 2
    assert category["curves"] is None
    assert category["metrics"]["recall"]["value"] == 1.0
    assert category["routes"]["(no opinion)"]["texts"] == 2


def test_benign_text_alone_has_no_curve_but_all_else(tmp_path: Path) -> None:
    examples = examples_of([[0, x] for x in (-1, 1, 2)], ["benign"] * 3)
    report = breakdown_of(model_of(tmp_path), examples)
    assert report["curves"] is None
    assert sum(report["histogram"]["others"]) == 3
    assert len(report["mistakes"]["flagged_negatives"]) == 2


def test_without_texts_not_one_is_quoted(tmp_path: Path) -> None:
    logits_NC, labels = random_logits(60)
    examples = examples_of(logits_NC, labels)
    examples = Examples(
        [f"{text} SECRET" for text in examples.texts] + ["BROKEN SECRET"],
        np.append(examples.labels_N, 0),
        examples.label_names,
    )
    for predictor in (model_of(tmp_path), router_of(tmp_path)):
        assert "SECRET" in json.dumps(breakdown_of(predictor, examples))
        assert "SECRET" not in json.dumps(breakdown_of(predictor, examples, texts=False))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("naïve 中文 🙂", "naïve 中文 🙂"),
        ("a\u202eb\u2066c\u200bd", "a[U+202E]b[U+2066]c[U+200B]d"),
        ("\x1b[31m\x00", "[U+001B][31m[U+0000]"),
        ("\ud800 \U000e0041 \ue000", "[U+D800] [U+E0041] [U+E000]"),
        ("line\u2028break\r", "line[U+2028]break[U+000D]"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text: str, shown: str) -> None:
    assert excerpt(text) == shown


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    first, last = SHOWN_CHARACTERS
    text = "a" * first + "b" * 1234 + "c" * last
    assert excerpt(text) == "a" * first + " … [1,234 characters left out] … " + "c" * last
    whole = "d" * (first + last)
    assert excerpt(whole) == whole
