"""What a policy makes of a member that is down: nothing is ever safe for want of an answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardkit.classify.records import by_policy, output_lines
from guardkit.errors import MemberDown, RunError
from guardkit.model.asking import REST_S
from guardkit.types import Decision, Origin, Row
from tests.support.backup_policies import SPECIALIST_THEN_BACKUP, SpecialistAndBackup

AWAY = MemberDown("connection refused")
WHY = "it is down: connection refused"


@pytest.fixture
def models(tmp_path: Path) -> SpecialistAndBackup:
    return SpecialistAndBackup(tmp_path)


def policy(tree: str | None = None, *, down: str | None, **members: str) -> str:
    """Return a policy whose backup has ``on_member_down: down``."""
    text = SPECIALIST_THEN_BACKUP
    for name in ("backup", *members):
        what = members.get(name, down)
        if what is not None:
            text = text.replace(f"model: {name}}}", f"model: {name}, on_member_down: {what}}}")
    if tree is not None:
        before, rest = text.split("    decide:\n")
        text = f"{before}    decide: {tree}\n    flag_at{rest.split('flag_at')[1]}"
    return text


def decide(models: SpecialistAndBackup, text: str) -> Decision:
    (decision,) = models.router(text).decide(["t"])
    return decision


@pytest.mark.parametrize("down", [None, "on_error"])
def test_a_text_that_needs_a_member_that_is_down_gets_what_on_error_says(
    models: SpecialistAndBackup, down: str | None
) -> None:
    models.set_log_odds("t", specialist=-1.0, backup=AWAY)
    decision = decide(models, policy(down=down))
    assert decision.action == "block"
    assert decision.error is not None
    assert f"backup failed: {WHY}" in decision.error
    assert decision.down == ["backup"]


def test_with_next_the_text_goes_on_to_what_else_there_is(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=-1.0, backup=AWAY)
    decision = decide(models, policy(down="next"))
    assert (decision.action, decision.error) == ("allow", None)
    assert decision.categories["injection"].decided_by == "specialist"
    assert decision.down == ["backup"]
    assert [(s.member, s.why) for s in decision.route] == [
        ("specialist", "passed on: between 0.02 and 0.98"),
        ("backup", f"left out: {WHY}"),
    ]


def test_a_first_stage_that_is_down_is_covered_by_the_next(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=AWAY, backup=2.0)
    decision = decide(models, policy(down=None, specialist="next"))
    assert (decision.action, decision.error) == ("block", None)
    assert decision.categories["injection"].decided_by == "backup"


PARTS = "of: [{member: specialist}, {member: backup}]"
ONLY_THE_BACKUP = [
    "{member: backup}",
    "{cascade: [{pattern: {re2: xyz}}, {member: backup}]}",
    "{combine: {how: any, of: [{pattern: {re2: xyz}}, {member: backup}]}}",
]


@pytest.mark.parametrize("tree", ONLY_THE_BACKUP)
def test_with_next_and_nothing_else_the_text_is_not_safe(
    models: SpecialistAndBackup, tree: str
) -> None:
    models.set_log_odds("t", backup=AWAY)
    without = "\n".join(x for x in policy(tree, down="next").splitlines() if "specialist:" not in x)
    decision = decide(models, without)
    assert decision.action == "block"
    assert decision.categories["injection"].decided_by == "on_error"
    assert decision.error is not None
    assert f"backup left out: {WHY}" in decision.error
    assert "on_error: closed gives block" in decision.error


@pytest.mark.parametrize(
    "how", ["any", "all", "weighted", "product", "stacked, weights: [1, 1]"], ids=str.split
)
def test_with_next_every_combination_goes_on_without_it_and_fails_without_any(
    models: SpecialistAndBackup, how: str
) -> None:
    tree = f"{{combine: {{how: {how}, {PARTS}}}}}"
    models.set_log_odds("t", specialist=-1.0, backup=AWAY)
    decision = decide(models, policy(tree, down="next", specialist="next"))
    assert (decision.action, decision.error) == ("allow", None)
    models.set_log_odds("t", specialist=MemberDown("gone"), backup=AWAY)
    decision = decide(models, policy(tree, down="next", specialist="next"))
    assert decision.action == "block"
    assert decision.error is not None
    assert sorted(decision.down) == ["backup", "specialist"]


def test_with_stop_the_run_ends_and_names_the_member(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=-1.0, backup=AWAY)
    with pytest.raises(RunError, match=f"member 'backup': {WHY}; its `on_member_down: stop`"):
        decide(models, policy(down="stop"))


def test_a_member_that_nobody_had_to_ask_is_not_down(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=-8.0, backup=AWAY)
    decision = decide(models, policy(down="stop"))
    assert (decision.action, decision.down) == ("allow", ())


def test_a_text_of_its_own_fault_does_not_make_the_member_be_left_out(
    models: SpecialistAndBackup,
) -> None:
    models.set_log_odds("t", specialist=-1.0, backup=ValueError("odd text"))
    decision = decide(models, policy(down="next"))
    assert decision.action == "block"
    assert decision.down == ()


def test_a_member_that_is_down_is_asked_once_and_rests_over_batches(
    models: SpecialistAndBackup,
) -> None:
    router = models.router(policy(down="next"))
    for text in "abcdefgh":
        models.set_log_odds(text, specialist=-1.0, backup=AWAY)
    for _ in range(3):
        assert {d.action for d in router.decide(list("abcdefgh"))} == {"allow"}
    assert [len(texts) for name, texts in models.family.calls if name == "backup"] == [8]
    assert router.model("backup").circuit.until > REST_S


def test_the_summary_counts_the_lines_a_member_was_down_for(models: SpecialistAndBackup) -> None:
    for text in "ab":
        models.set_log_odds(text, specialist=-1.0, backup=AWAY)
    rows = [Row(i, i, (text,)) for i, text in enumerate("abc", 1)]
    body, summary = output_lines(rows, by_policy(models.router(policy(down="next"))))
    assert summary.down == {"backup": 2}
    assert [json.loads(x).get("down") for x in body.splitlines()] == [["backup"], ["backup"], None]
    summary.add(summary.facts())
    assert summary.down == {"backup": 4}


def test_of_a_line_of_several_texts_it_is_named_once(models: SpecialistAndBackup) -> None:
    for text in "ab":
        models.set_log_odds(text, specialist=-1.0, backup=AWAY)
    row = Row(1, 1, ("a", "b"), origins=(Origin("messages[0]"), Origin("messages[1]")))
    (decision,) = models.router(policy(down="next")).decide_rows([row])
    assert decision.down == ("backup",)
