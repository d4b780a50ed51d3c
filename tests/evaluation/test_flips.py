"""How often verdicts flip: known exactly for models that hang on one form."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.evaluation.flips import sample, with_invariances
from guardkit.evaluation.invariances import TRANSFORMS
from guardkit.evaluation.predictions import predict
from guardkit.evaluation.report import render
from guardkit.model.loaded import Model, load_model
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Examples
from tests.evaluation.test_report import Page
from tests.support.evaluations import LABELS, POLICY, report_of
from tests.support.fake_models import FakeFamily, plugins_of, write_model

GREETING = TRANSFORMS[0]
Logits = Callable[[str, str], list[float]]
#: Two texts end with an exclamation mark, one with a full stop, three with none.
TEXTS = (
    "Sell it now!",
    "Buy the cake!",
    "Eat it.",
    "A cake for two",
    "Tea for one",
    "Rain on and on, all day long",
)


def shouting(model: str, text: str) -> list[float]:
    """Flag every text with an exclamation mark."""
    return [0.0, 2.0 if "!" in text else -1.0]


def model_of(folder: Path, logits_of: Logits = shouting) -> Model:
    write_model(folder / "model")
    return load_model(folder / "model", plugins=plugins_of(FakeFamily(logits_of)))


def router_of(folder: Path, logits_of: Logits = shouting, policy: str = POLICY) -> PolicyRouter:
    for name in ("fast", "slow"):
        write_model(folder / name)
    (folder / "policy.yaml").write_text(policy)
    return load_policy(folder / "policy.yaml", plugins=plugins_of(FakeFamily(logits_of)))


def examples_of(texts: Any = TEXTS, **more: Any) -> Examples:
    return Examples(list(texts), np.array([i % 2 for i in range(len(texts))]), LABELS, **more)


def flips_of(of: Model | PolicyRouter, examples: Examples, **more: Any) -> Any:
    report = with_invariances(report_of(of, examples), predict(of, examples), **more)
    json.dumps(report, allow_nan=False)
    part = report if "invariances" in report else report["categories"]["injection"]
    return part["invariances"]


@pytest.fixture(params=["model", "policy"])
def judging(request: pytest.FixtureRequest, tmp_path: Path) -> Model | PolicyRouter:
    return model_of(tmp_path) if request.param == "model" else router_of(tmp_path)


def test_a_planted_sensitivity_is_found_and_no_other(judging: Model | PolicyRouter) -> None:
    rows = flips_of(judging, examples_of())["transforms"]
    assert list(rows) == [transform.name for transform in TRANSFORMS]
    shares = ("flips", "to_passed", "to_flagged")
    found = {name: (row["n"], *(row[x]["value"] for x in shares)) for name, row in rows.items()}
    hello = [GREETING(text).startswith("Hello!") for text in TEXTS[2:]]  # of those not flagged
    assert any(hello)
    assert not all(hello)
    assert found.pop("greeting") == (6, sum(hello) / 6, 0.0, sum(hello) / 4)
    assert found.pop("exclamation mark") == (3, 1.0, None, 1.0)  # the three without a mark
    assert found.pop("no final mark") == (3, 2 / 3, 1.0, 0.0)
    for name, (n, flips, to_passed, to_flagged) in found.items():
        assert n > 0, name
        assert flips == 0.0, name
        assert to_passed in (0.0, None), name
        assert to_flagged == 0.0, name


def test_the_change_of_log_odds_is_the_mean_of_its_sizes(judging: Model | PolicyRouter) -> None:
    rows = flips_of(judging, examples_of())["transforms"]
    assert rows["exclamation mark"]["log_odds_change"]["value"] == pytest.approx(3.0, abs=1e-4)
    assert rows["no final mark"]["log_odds_change"]["value"] == pytest.approx(2.0, abs=1e-4)
    assert rows["JSON"]["log_odds_change"]["value"] == 0.0


def test_any_counts_a_text_that_one_change_flips(judging: Model | PolicyRouter) -> None:
    any_of_them = flips_of(judging, examples_of(TEXTS[:2] + TEXTS[3:]))["any"]
    assert any_of_them["n"] == 5
    assert any_of_them["flips"]["value"] == 1.0  # each loses its mark, or gets one


def test_intervals_are_never_of_width_0_and_resample_whole_groups(tmp_path: Path) -> None:
    texts = [f"cake {i}" + ("!" if i % 4 == 0 else ".") for i in range(80)]
    model = model_of(tmp_path)
    alone = flips_of(model, examples_of(texts))["transforms"]["no final mark"]["flips"]
    # the texts that flip are whole groups: four groups of twenty
    groups = [f"{i % 4}" for i in range(80)]
    grouped = flips_of(model, examples_of(texts, groups=groups))["transforms"]
    whole = grouped["no final mark"]["flips"]
    assert alone["value"] == whole["value"] == 0.25
    assert whole["high"] - whole["low"] > 2 * (alone["high"] - alone["low"])
    assert grouped["JSON"]["flips"] == {"value": 0.0, "low": 0.0, "high": 1 - 0.025 ** (1 / 4)}


def test_texts_that_a_transform_leaves_alone_do_not_count(tmp_path: Path) -> None:
    rows = flips_of(model_of(tmp_path), examples_of(["EAT IT", "EAT", "eat it"]))["transforms"]
    assert rows["upper case"]["n"] == 1
    assert rows["lower case"]["n"] == 2
    assert rows["no final mark"]["n"] == 0
    assert rows["no final mark"]["flips"]["value"] is None


def test_a_changed_text_that_a_model_cannot_score_is_counted_and_flips_nothing(
    tmp_path: Path,
) -> None:
    def fails_on_json(model: str, text: str) -> list[float]:
        if "{" in text:
            raise ValueError("cannot score this")
        return shouting(model, text)

    row = flips_of(model_of(tmp_path, fails_on_json), examples_of())["transforms"]["JSON"]
    assert (row["n"], row["errors"], row["flips"]["value"]) == (0, 6, None)
    (tmp_path / "p").mkdir()
    rows = flips_of(router_of(tmp_path / "p", fails_on_json), examples_of())["transforms"]
    assert (rows["JSON"]["n"], rows["JSON"]["errors"]) == (6, 6)
    assert rows["JSON"]["to_flagged"]["value"] == 1.0  # on_error blocks what passed before
    assert rows["JSON"]["log_odds_change"]["value"] is None


def test_without_a_positive_label_a_verdict_is_the_label_given(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    write_model(tmp_path / "model", names)
    family = FakeFamily(lambda _, text: [0.0, 2.0 if "!" in text else -1.0, -5.0])
    model = load_model(tmp_path / "model", plugins=plugins_of(family))
    examples = Examples(list(TEXTS), np.arange(6) % 3, names)
    rows = flips_of(model, examples)["transforms"]
    assert rows["exclamation mark"]["flips"]["value"] == 1.0
    assert rows["exclamation mark"]["to_flagged"]["value"] is None
    assert rows["exclamation mark"]["log_odds_change"]["value"] > 1.0


def test_a_sample_does_not_depend_on_the_order_of_the_data() -> None:
    examples = examples_of([f"text {i}" for i in range(100)])
    order = list(range(100))
    random.Random(0).shuffle(order)
    turned = examples.select(order)
    chosen = {examples.texts[i] for i in sample(examples, 10)}
    assert chosen == {turned.texts[i] for i in sample(turned, 10)}
    assert len(chosen) == 20
    assert sum(int(text.split()[1]) % 2 for text in chosen) == 10
    assert sample(examples, 1000).tolist() == list(range(100))


def test_a_report_says_how_many_texts_of_each_label_were_changed(tmp_path: Path) -> None:
    found = flips_of(model_of(tmp_path), examples_of(), per_label=2)
    assert found["labels"] == {
        "benign": {"texts": 2, "of": 3},
        "injection": {"texts": 2, "of": 3},
    }
    assert (found["texts"], found["per_label"]) == (4, 2)


def test_progress_counts_every_text_of_every_transform(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    flips_of(
        model_of(tmp_path),
        examples_of(),
        progress=lambda stage, done, total, note="": told.append((stage, done, total)),
    )
    assert {stage for stage, _, _ in told} == {"invariances"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (6 * len(TRANSFORMS), 6 * len(TRANSFORMS))


def test_the_page_shows_every_change_and_without_them_is_as_before(
    judging: Model | PolicyRouter,
) -> None:
    examples = examples_of()
    report = report_of(judging, examples)
    without = render(report)
    full = with_invariances(report, predict(judging, examples), per_label=2)
    page = Page(render(full))
    assert "Changes that must not flip a verdict" in page.words
    assert "2 of 3 benign, 2 of 3 injection texts were changed" in page.words
    for transform in TRANSFORMS:
        assert f"{transform.name} {transform.sentence}".replace(" ", "") in page.text.replace(
            " ", ""
        )
    assert "must not flip" not in without
    start, end = page_parts(render(full), without)
    assert start + end == without


def page_parts(longer: str, shorter: str) -> tuple[str, str]:
    """Return what the two have in common at their beginning, and at their end, without overlap."""
    at = next(i for i, (a, b) in enumerate(zip(longer, shorter, strict=False)) if a != b)
    rest = len(shorter) - at
    return shorter[:at], longer[len(longer) - rest :]
