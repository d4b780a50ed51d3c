"""A text that was not read to its end never reads as safe, and what a text may cost is bounded."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.bounds import READING_COST
from guardkit.model.loaded import Model, load_model
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Row
from tests.support.fake_models import FakeFamily, plugins_of, write_model
from tests.support.one_member import logits_of

POLICY = """
version: 1
name: truncation
max_characters: 100
members: {only: {plugin: fake, model: model}}
categories:
  injection:
    positive: [injection]
    decide: {member: only}
    flag_at: {probability: 0.5}
    action: block
"""


@pytest.fixture
def family() -> FakeFamily:
    return FakeFamily(logits_of)


def router(folder: Path, family: FakeFamily, more: str = "", **settings: Any) -> PolicyRouter:
    write_model(folder / "model", neutral="benign", window_pooling="max", **settings)
    (folder / "policy.yaml").write_text(POLICY + more, "utf-8")
    return load_policy(folder / "policy.yaml", plugins=plugins_of(family))


@pytest.mark.parametrize(
    ("more", "action"),
    [
        ("", "block"),  # on_error is closed where nothing is said
        ("    on_error: open\n", "allow"),
        ("    on_error: open\n    on_truncated: closed\n", "block"),
        ("    on_truncated: open\n", "allow"),
    ],
)
@pytest.mark.parametrize("text", ["long " * 30, "cut by its model CUT"])
def test_a_text_that_was_not_read_to_its_end_gets_what_on_truncated_says(
    more: str, action: str, text: str, tmp_path: Path, family: FakeFamily
) -> None:
    deciding = router(tmp_path, family, more)
    short, long, found, row = (
        *deciding.decide(["short", text, "attack " * 20]),
        *deciding.decide_rows([Row(1, 1, ("short", text))]),
    )
    assert (short.action, short.truncated) == ("allow", False)
    for decision in (long, row):
        assert (decision.action, decision.truncated) == (action, True)
        own = decision.categories["injection"]
        assert own.decided_by == ("on_truncated" if action == "block" else "only")
        assert decision.error is None
    assert (found.action, found.truncated) == ("block", True)
    assert found.categories["injection"].decided_by == "only"


def test_a_truncated_text_that_fails_is_closed_by_either(
    tmp_path: Path, family: FakeFamily
) -> None:
    open_and_closed = "    on_error: open\n    on_truncated: closed\n"
    (decision,) = router(tmp_path, family, open_and_closed).decide(["BROKEN" + "x" * 100])
    assert (decision.action, decision.truncated) == ("block", True)
    assert "cannot score this" in str(decision.error)


@pytest.fixture
def model(tmp_path: Path, family: FakeFamily) -> Model:
    family.windows = 2  # a long text: its lines are read, too
    write_model(
        tmp_path / "model", neutral="benign", window_pooling="max",
        also_read=["canonical", "decoded", "lines"],
    )  # fmt: skip
    return load_model(tmp_path / "model", plugins=plugins_of(family))


def asked(family: FakeFamily) -> int:
    return sum(len(text) for _, texts in family.calls for text in texts)


def test_a_text_and_its_readings_share_one_budget(model: Model, family: FakeFamily) -> None:
    lines = "\n".join(f"line number {i:05} says little" for i in range(1000))
    for most in (10, 5_000, len(lines), len(lines) + 10_000):
        family.calls.clear()
        scored = model.score([lines], max_characters=most)
        readings = sum(len(texts) for _, texts in family.calls) - 1
        assert asked(family) + READING_COST * readings <= most
        assert scored.truncated_N.tolist() == [True]
    family.calls.clear()
    enough = 2 * len(lines) + READING_COST * 1000
    assert model.score([lines], max_characters=enough).truncated_N.tolist() == [False]
    assert asked(family) > 1.9 * len(lines)


def test_a_text_beyond_the_budget_changes_nothing_for_its_neighbours(
    model: Model, family: FakeFamily
) -> None:
    texts = ["an attack", "x" * 3_000, "a cake"]
    together = model.score(texts, max_characters=1_000)
    assert together.truncated_N.tolist() == [False, True, False]
    for i in (0, 2):
        alone = model.score([texts[i]], max_characters=1_000)
        np.testing.assert_array_equal(together.logits_NC[i], alone.logits_NC[0])


def test_a_reading_that_had_no_room_is_truncation_and_never_silence(model: Model) -> None:
    hidden = base64.b64encode(b"this is an attack on you").decode()
    whole = model.score([f"read {hidden}"])
    assert whole.logits_NC[0, 1] > whole.logits_NC[0, 0]
    short = model.score([f"read {hidden}"], max_characters=len(hidden) + 6)
    assert short.truncated_N.tolist() == [True]


def test_decisions_name_the_models_that_made_them(tmp_path: Path, family: FakeFamily) -> None:
    write_model(tmp_path / "other")
    router(tmp_path, family)
    two = POLICY.replace("model: model}}", "model: model}, b: {plugin: fake, model: other}}")
    two = two.replace(
        "decide: {member: only}",
        "decide: {cascade: [{member: only, settle: {below: 0.5, above: 1}}, {member: b}]}",
    )
    (tmp_path / "two.yaml").write_text(two)
    cascade = load_policy(tmp_path / "two.yaml", plugins=plugins_of(family))
    cake, attack = cascade.decide(["a cake", "an attack"])
    only, b = (cascade.model(member).hash[:12] for member in ("only", "b"))
    assert cake.models == {"only": only}
    assert attack.models == {"only": only, "b": b}
    (row,) = cascade.decide_rows([Row(1, 1, ("a cake", "an attack"))])
    assert row.models == {"only": only, "b": b}
    (unread,) = cascade.decide_rows([Row(1, 1, (), "line 1 is not JSON")])
    assert unread.models == {}
