"""What is strange to a member is handed on or abstained from, by its novelty."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.support.backup_policies import (
    SPECIALIST_THEN_BACKUP,
    TWO_CATEGORIES,
    SpecialistAndBackup,
)

ESCALATING = (
    "{cascade: [{member: specialist, settle: {below: 0.1, above: 0.9}, "
    "escalate_if: {novelty_p_below: 0.1}}, {member: backup}]}"
)
ABSTAINING = "    abstain_if: {member: backup, novelty_p_below: 0.1}\n"


@pytest.fixture
def models(tmp_path: Path) -> SpecialistAndBackup:
    return SpecialistAndBackup(tmp_path)


@pytest.mark.parametrize(
    ("novelty", "why"),
    [
        (17.5, "passed on: novelty p 0.1 not above 0.1"),
        (99.0, "passed on: novelty p 0.05 not above 0.1"),
        (RuntimeError("boom"), "passed on: novelty is not known: RuntimeError: boom"),
        (math.nan, "passed on: novelty is not known: the classifier returned a novelty that is"),
    ],
)
def test_a_sure_specialist_hands_on_what_is_strange_to_it(
    models: SpecialistAndBackup, novelty: float | Exception, why: str
) -> None:
    models.set_log_odds("t", specialist=-6.0, backup=6.0)
    models.novelty["specialist", "t"] = novelty
    decision = models.decide(ESCALATING, "t")
    assert (decision.action, decision.error) == ("block", None)
    assert [step.member for step in decision.route] == ["specialist", "backup"]
    assert decision.route[0].why.startswith(why)
    assert decision.route[0].score == pytest.approx(1 / (1 + math.exp(6)))


def test_a_sure_specialist_settles_what_is_familiar_to_it(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=-6.0, backup=6.0)
    models.novelty["specialist", "t"] = 16.5
    assert models.decide(ESCALATING, "t").route[0].why == "settled: not above 0.1"
    assert models.family.loads == ["specialist"]


def test_what_is_strange_and_unsure_is_passed_on_for_being_unsure(
    models: SpecialistAndBackup,
) -> None:
    models.set_log_odds("t", specialist=0.0, backup=6.0)
    models.novelty["specialist", "t"] = 99.0
    assert models.decide(ESCALATING, "t").route[0].why == "passed on: between 0.1 and 0.9"


def test_what_would_be_allowed_abstains_where_it_is_strange(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=-6.0)
    models.novelty["backup", "t"] = 99.0
    decision = models.decide("{member: specialist}", "t", more=ABSTAINING)
    assert (decision.action, decision.error) == ("abstain", None)
    own = decision.categories["injection"]
    assert (own.action, own.decided_by) == ("abstain", "abstain_if")
    assert own.score == pytest.approx(1 / (1 + math.exp(6)))  # what said clear is still told
    assert [(step.member, step.score, step.why) for step in decision.route[1:]] == [
        ("backup", None, "abstains: novelty p 0.05 not above 0.1")
    ]


def test_a_text_made_strange_on_purpose_does_not_turn_a_block_into_an_abstention(
    models: SpecialistAndBackup,
) -> None:
    models.set_log_odds("t", specialist=6.0)
    models.novelty["backup", "t"] = 99.0
    decision = models.decide("{member: specialist}", "t", more=ABSTAINING)
    assert decision.action == "block"
    assert "backup" not in models.family.loads  # it is not even asked


def test_a_text_whose_novelty_is_not_known_is_not_allowed_and_says_why(
    models: SpecialistAndBackup,
) -> None:
    models.novelty["backup", "t"] = RuntimeError("boom")
    decision = models.decide("{member: specialist}", "t", more=ABSTAINING)
    assert decision.action == "abstain"
    assert decision.error == (
        "injection abstains: backup's novelty is not known: RuntimeError: boom"
    )


def test_what_on_error_lets_through_abstains_too(models: SpecialistAndBackup) -> None:
    models.set_log_odds("t", specialist=RuntimeError("boom"))
    models.novelty["backup", "t"] = 99.0
    more = ABSTAINING + "    on_error: open\n"
    decision = models.decide("{member: specialist}", "t", more=more)
    assert decision.action == "abstain"
    assert decision.categories["injection"].score is None
    assert "on_error: open gives allow" in str(decision.error)


def test_novelty_comes_with_the_scores_and_no_text_is_read_twice(
    models: SpecialistAndBackup,
) -> None:
    cascade = SPECIALIST_THEN_BACKUP[SPECIALIST_THEN_BACKUP.index("\n      cascade") :]
    cascade = cascade[: cascade.index("    flag_at")]
    policy = TWO_CATEGORIES.replace(cascade, f" {ESCALATING}\n", 1)
    router = models.router(
        policy.replace("    action: block\n", "    action: block\n" + ABSTAINING)
    )
    for text in "abcde":
        models.set_log_odds(text, specialist=-6.0)
    models.novelty["specialist", "c"] = 99.0
    assert [d.action for d in router.decide(list("abcde"))] == ["allow"] * 5
    assert models.family.calls == [
        ("specialist", list("abcde")),
        ("backup", ["c"]),  # handed on
        ("backup", list("abde")),  # would be allowed; `spam` finds all of them scored
    ]


def test_a_test_of_a_policy_may_expect_to_abstain(models: SpecialistAndBackup) -> None:
    models.novelty["backup", "strange"] = 99.0
    tests = "tests: [{text: strange, expect: {injection: abstain}}]\n"
    router = models.router(SPECIALIST_THEN_BACKUP + ABSTAINING + tests)
    assert [result.passed for result in router.run_tests()] == [True]
