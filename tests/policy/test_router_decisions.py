"""What a router loads, what its decisions carry, and who sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from guardkit.errors import ArtefactError, ClassifierError, PolicyError, RunError
from guardkit.hookspecs import hookimpl
from guardkit.policy.router import load_policy
from guardkit.types import Decision, Row
from tests.support.backup_policies import (
    SPECIALIST_THEN_BACKUP,
    TWO_CATEGORIES,
    SpecialistAndBackup,
)
from tests.support.fake_models import Panic, plugins_of


@pytest.fixture
def models(tmp_path: Path) -> SpecialistAndBackup:
    return SpecialistAndBackup(tmp_path)


def test_ids_are_kept_and_default_to_positions(models: SpecialistAndBackup) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    assert [d.id for d in router.decide(["a", "b"])] == [0, 1]
    assert [d.id for d in router.decide(["a", "b"], ["x", None])] == ["x", None]
    with pytest.raises(ValueError, match="1 ids for 2 texts"):
        router.decide(["a", "b"], ["x"])
    with pytest.raises(TypeError, match="sequence of texts"):
        router.decide("one text")


def test_what_is_no_string_is_an_error_of_its_own_and_its_neighbours_are_judged(
    models: SpecialistAndBackup,
) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    texts: list[Any] = ["a", None, b"b", 3, ["c"], "d"]
    found = router.decide(texts, list("uvwxyz"))
    alone = router.decide(["a", "d"], ["u", "z"])
    assert [found[0], found[-1]] == alone
    assert [d.id for d in found] == list("uvwxyz")
    assert [d.error for d in found[1:-1]] == [
        f"expected text, found {name}" for name in ("NoneType", "bytes", "int", "list")
    ]
    assert {d.action for d in found[1:-1]} == {"block"}


def test_nothing_to_decide_is_no_decision_and_loads_nothing(models: SpecialistAndBackup) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    assert router.decide([]) == []
    assert router.decide_rows([]) == []
    assert models.family.loads == []


def test_decisions_carry_the_policys_hash_and_truncation(models: SpecialistAndBackup) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    whole, cut = router.decide(["a", "b CUT"])
    assert (whole.truncated, cut.truncated) == (False, True)
    assert len(router.hash) == 64
    assert whole.policy == router.hash[:12]
    assert whole.shadow is None


def test_shadow_mode_allows_and_records_what_it_would_have_done(
    models: SpecialistAndBackup,
) -> None:
    models.set_log_odds("t", specialist=6.0)
    router = models.router(SPECIALIST_THEN_BACKUP.replace("name: test", "name: t\nmode: shadow"))
    (decision,) = router.decide(["t"])
    assert decision.action == "allow"
    assert decision.categories["injection"].action == "block"
    assert decision.shadow == {"action": "block"}
    (unreadable,) = router.decide_rows([Row(1, 1, error="not JSON")])
    assert (unreadable.action, unreadable.shadow) == ("allow", {"action": "block"})
    assert unreadable.error == "not JSON"


def test_the_most_severe_category_gives_the_action(models: SpecialistAndBackup) -> None:
    router = models.router(TWO_CATEGORIES)
    models.set_log_odds("both", specialist=6.0, backup=2.0)
    models.set_log_odds("spam", specialist=-6.0, backup=2.0)
    both, spam = router.decide(["both", "spam"])
    assert (both.action, spam.action) == ("block", "flag")
    assert spam.categories["injection"].action == "allow"


def test_a_row_takes_its_worst_text_in_every_category(models: SpecialistAndBackup) -> None:
    router = models.router(TWO_CATEGORIES)
    models.set_log_odds("attack", specialist=6.0, backup=-5.0)
    models.set_log_odds("spam", specialist=-6.0, backup=2.0)
    models.set_log_odds("more spam", specialist=-6.0, backup=3.0)
    models.set_log_odds("broken CUT", specialist=-6.0, backup=RuntimeError("boom"))
    rows = [
        Row(1, "chat", ("spam", "attack", "broken CUT", "more spam")),
        Row(2, 2, ("spam",)),
        Row(3, "bad", error="line 3 is not JSON"),
        Row(4, 4, ()),
    ]
    chat, alone, bad, empty = router.decide_rows(rows)
    assert (chat.id, chat.action, chat.truncated) == ("chat", "block", True)
    assert chat.categories["injection"].action == "block"
    assert chat.categories["spam"].action == "flag"
    assert chat.categories["spam"].score == pytest.approx(1 / (1 + math.exp(-3)))
    assert "boom" in str(chat.error)
    assert [(s.category, s.member) for s in chat.route] == [
        ("injection", "specialist"),
        ("spam", "backup"),
    ]
    assert (alone.id, alone.action) == (2, "flag")
    assert (bad.id, bad.error, bad.action) == ("bad", "line 3 is not JSON", "block")
    assert bad.categories["spam"].action == "allow"  # its on_error is open
    assert bad.categories["spam"].decided_by == "on_error"
    assert (empty.action, empty.error) == ("block", "no text to judge")


def test_rows_are_decided_in_one_batch(models: SpecialistAndBackup) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    router.decide_rows([Row(i, i, (f"a{i}", f"b{i}")) for i in range(3)])
    assert len(models.family.calls) == 1


class Audit:
    def __init__(self, error: BaseException | None = None) -> None:
        self.seen: list[tuple[list[str], list[str], str]] = []
        self.error = error

    @hookimpl
    def decided(self, texts: Sequence[str], decisions: Sequence[Decision], policy: Any) -> None:
        if self.error:
            raise self.error
        self.seen.append((list(texts), [d.action for d in decisions], policy.name))


def test_a_plugin_sees_decisions_once_per_batch_and_only_where_the_policy_names_it(
    models: SpecialistAndBackup,
) -> None:
    named, other = Audit(), Audit()
    plugins = plugins_of(models.family, modules={"named": named, "other": other})
    policy = SPECIALIST_THEN_BACKUP.replace("name: test", "name: test\nplugins: [named]")
    models.router(policy, plugins).decide(["a", "b"])
    assert named.seen == [(["a", "b"], ["allow", "allow"], "test")]
    assert other.seen == []


def test_a_policys_own_tests_are_no_decisions_to_audit(models: SpecialistAndBackup) -> None:
    audit = Audit()
    plugins = plugins_of(models.family, modules={"audit": audit})
    policy = SPECIALIST_THEN_BACKUP.replace("name: test", "name: test\nplugins: [audit]")
    assert models.router(policy, plugins).run_tests() == []
    policy += "tests:\n  - {text: hello, expect: {injection: allow}}\n"
    assert models.router(policy, plugins).run_tests()[0].passed
    assert audit.seen == []


@pytest.mark.parametrize(
    "error", [OSError("disk full"), Panic("disk full"), SystemExit("disk full")]
)
def test_an_audit_that_fails_stops_the_run(
    models: SpecialistAndBackup, error: BaseException
) -> None:
    plugins = plugins_of(models.family, modules={"audit": Audit(error)})
    policy = SPECIALIST_THEN_BACKUP.replace("name: test", "name: test\nplugins: [audit]")
    with pytest.raises(RunError, match="disk full"):
        models.router(policy, plugins).decide(["a"])


def test_loading_a_policy_loads_no_model_and_hashes_are_known_without_one(
    models: SpecialistAndBackup,
) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    hashes = router.model_hashes()
    assert sorted(hashes) == ["backup", "specialist"]
    assert all(len(digest) == 64 for digest in hashes.values())
    assert models.family.loads == []


def test_a_model_damaged_after_the_check_stops_the_run_when_it_is_needed(
    models: SpecialistAndBackup,
) -> None:
    router = models.router(SPECIALIST_THEN_BACKUP)
    (models.folder / "backup" / "calibration.json").write_text("{}", "utf-8")
    models.set_log_odds("sure", specialist=6.0)
    assert router.decide(["sure"])[0].action == "block"
    models.set_log_odds("unsure", specialist=0.5)
    with pytest.raises(ArtefactError, match="SHA-256"):
        router.decide(["unsure"])


def test_a_plugin_that_cannot_load_its_model_is_named(
    models: SpecialistAndBackup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise KeyError("weights")

    monkeypatch.setattr(models.family, "load", refuse)
    with pytest.raises(ClassifierError, match="plugin 'fake' cannot load it: KeyError"):
        models.router(SPECIALIST_THEN_BACKUP).decide(["a"])


@pytest.mark.parametrize("name", ["none.yaml", "", "x" * 5000, "nul\0", "half\ud800"])
def test_a_policy_that_cannot_be_read_is_a_policy_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyError, match="cannot be read: "):
        load_policy(tmp_path / name, plugins=plugins_of())


def test_a_policys_own_tests_report_what_was_expected_and_what_came(
    models: SpecialistAndBackup,
) -> None:
    models.set_log_odds("attack", specialist=6.0)
    models.set_log_odds("broken", specialist=RuntimeError("boom"), backup=RuntimeError("boom"))
    router = models.router(
        SPECIALIST_THEN_BACKUP
        + """
tests:
  - {text: attack, expect: {injection: block}}
  - {text: hello, expect: {injection: block}}
  - {text: broken, expect: {injection: block}}
"""
    )
    results = router.run_tests()
    assert [(r.text, r.got["injection"], r.passed) for r in results] == [
        ("attack", "block", True),
        ("hello", "allow", False),
        ("broken", "block", False),  # blocked only because it could not be judged
    ]
    assert "boom" in str(results[2].error)
