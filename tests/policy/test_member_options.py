"""A member without a model is what its options say; they are checked by its family, with their
lines, and a file can keep what it answered."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import numpy as np
import pytest

from guardkit.errors import ConfigError, MemberDown, OutputError, PolicyError
from guardkit.model.answer_cache import AnswerCache
from guardkit.plugins import Plugins
from guardkit.policy.router import PolicyRouter, load_policy
from tests.support.asked_elsewhere import Elsewhere, asked
from tests.support.fake_models import FakeFamily, plugins_of, write_model

POLICY = """\
version: 1
name: elsewhere
members:
  judge:
    plugin: elsewhere
    timeout_ms: 1500
    options:
      endpoint: http://one
      retries: {times: 3}
categories:
  injection:
    positive: [injection]
    decide: {member: judge}
    flag_at: {probability: 0.5}
    action: block
"""


@pytest.fixture
def family() -> Elsewhere:
    return Elsewhere(lambda endpoint, text: [2.0 if "attack" in text else -2.0])


@pytest.fixture
def plugins(family: Elsewhere) -> Plugins:
    return plugins_of(family, FakeFamily(lambda *_: [0.0, 0.0]))


def load(folder: Path, plugins: Plugins, text: str = POLICY) -> PolicyRouter:
    (folder / "policy.yaml").write_text(text)
    return load_policy(folder / "policy.yaml", plugins=plugins)


def test_a_member_without_a_model_is_asked_as_its_options_say(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    router = load(tmp_path, plugins)
    attack, cake = router.decide(["an attack", "a cake"])
    assert (attack.action, cake.action) == ("block", "allow")
    assert attack.categories["injection"].score == pytest.approx(1 / (1 + np.exp(-2)))
    ((path, options, timeout_s),) = family.opened
    assert (path, options.endpoint, options.retries.times, timeout_s) == (
        None,
        "http://one",
        3,
        1.5,
    )
    assert attack.models == {"judge": router.model_hashes()["judge"][:12]}


def test_the_hash_covers_what_changes_an_answer_and_no_more(
    tmp_path: Path, plugins: Plugins
) -> None:
    def hash_of(text: str) -> str:
        return load(tmp_path, plugins, text).model_hashes()["judge"]

    assert hash_of(POLICY.replace("times: 3", "times: 4")) == hash_of(POLICY)
    assert hash_of(POLICY.replace("http://one", "http://two")) != hash_of(POLICY)


def test_members_with_other_options_are_other_members(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    second = "  second: {plugin: elsewhere, options: {endpoint: http://two}}\ncategories:"
    either = "decide: {combine: {how: any, of: [{member: judge}, {member: second}]}}"
    text = POLICY.replace("categories:", second).replace("decide: {member: judge}", either)
    load(tmp_path, plugins, text).decide(["a"])
    assert [name for name, _ in family.calls] == ["http://one", "http://two"]


def test_a_member_may_have_a_model_and_options(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    write_model(tmp_path / "m", ["benign", "injection"], family="elsewhere")
    text = POLICY.replace("    timeout_ms: 1500", "    model: m")
    family.logits_of = lambda model, text: [0.0, 3.0]
    (decision,) = load(tmp_path, plugins, text).decide(["a"])
    assert decision.action == "block"
    assert family.opened[0][0] == tmp_path / "m"


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("endpoint: http", "endpont: http", 8, "endpont", "did you mean 'endpoint'?"),
        ("times: 3", "times: -3", 9, "retries.times", "greater than or equal to 0, got -3"),
        ("times: 3", "tines: 3", 9, "retries.tines", "did you mean 'times'?"),
        ("      endpoint: http://one\n", "", 7, "endpoint", "required, but missing"),
        ("retries: {times: 3}", "words: []", 9, "words", "at least 1 item"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_reported_on_its_line(
    tmp_path: Path, plugins: Plugins, old: str, new: str, line: int, field: str, words: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        load(tmp_path, plugins, POLICY.replace(old, new, 1))
    problems = [p for p in caught.value.problems if p.field == f"members.judge.options.{field}"]
    assert [p.line for p in problems] == [line], str(caught.value)
    assert words in problems[0].message


@pytest.mark.parametrize("field", ["options: {endpoint: x}", "timeout_ms: 5"])
def test_a_plugin_that_takes_no_options_is_given_none(
    tmp_path: Path, plugins: Plugins, field: str
) -> None:
    write_model(tmp_path / "m")
    member = f"  judge: {{plugin: fake, model: m, {field}}}\n"
    text = re.sub(r"  judge:\n(    .*\n)+", member, POLICY)
    with pytest.raises(PolicyError, match="members of plugin 'fake' take none; remove it"):
        load(tmp_path, plugins, text)


def test_a_plugin_whose_members_need_a_model_says_so(tmp_path: Path, plugins: Plugins) -> None:
    text = re.sub(r"  judge:\n(    .*\n)+", "  judge: {plugin: fake}\n", POLICY)
    with pytest.raises(PolicyError, match=r":4: members\.judge\.model: required: an artefact"):
        load(tmp_path, plugins, text)


def test_labels_are_checked_against_the_options(tmp_path: Path, plugins: Plugins) -> None:
    with pytest.raises(PolicyError, match="member 'judge' has no label 'spam'"):
        load(tmp_path, plugins, POLICY.replace("positive: [injection]", "positive: [spam]"))


def test_a_member_that_gives_other_labels_than_it_said_is_refused(
    tmp_path: Path, family: Elsewhere, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    router = load(tmp_path, plugins)
    monkeypatch.setattr(family, "load_member", lambda *_, **__: type("C", (), {"labels": ("x",)})())
    with pytest.raises(ConfigError, match="gives labels"):
        router.decide(["a"])


# -- kept answers ----------------------------------------------------------------------------

CACHED = POLICY.replace("    timeout_ms", "    cache: kept/answers\n    timeout_ms")


def test_what_was_answered_is_not_asked_again_in_another_run(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    first = load(tmp_path, plugins, CACHED).decide(["an attack", "a cake"])
    family.calls.clear()
    family.logits_of = lambda *_: [0.5]  # it has changed its mind
    again = load(tmp_path, plugins, CACHED).decide(["a cake", "an attack", "new"])
    assert asked(family) == ["new"]
    score = [d.categories["injection"].score for d in again]
    assert score[:2] == [d.categories["injection"].score for d in reversed(first)]


def test_other_options_that_change_an_answer_have_answers_of_their_own(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    load(tmp_path, plugins, CACHED).decide(["t"])
    load(tmp_path, plugins, CACHED.replace("times: 3", "times: 9")).decide(["t"])
    assert asked(family) == ["t"]
    load(tmp_path, plugins, CACHED.replace("http://one", "http://two")).decide(["t"])
    assert asked(family) == ["t", "t"]


def test_texts_that_failed_are_asked_about_again(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    family.logits_of = lambda _, text: [np.nan] if text == "odd" else [1.0]
    for _ in range(2):
        first, second = load(tmp_path, plugins, CACHED).decide(["odd", "b"])
        assert first.error is not None
        assert second.error is None
    assert asked(family) == ["odd", "b", "odd"]


def test_what_a_member_answered_before_it_went_down_is_kept(
    tmp_path: Path, family: Elsewhere
) -> None:
    inner = family.load_member(
        None, family.options(endpoint="e"), timeout_s=None, device="cpu", backend="torch"
    )
    score = inner.score

    def down_halfway(texts: list[str], **_: bool) -> None:
        answered = score(texts)
        answered.logits_NC[1:] = np.nan
        raise MemberDown("gone", answered)

    inner.score = down_halfway  # type: ignore[method-assign, assignment]
    cache = AnswerCache(inner, tmp_path / "answers", "e")
    with pytest.raises(MemberDown) as caught:
        cache.score(["a", "b"])
    assert caught.value.answered is not None
    assert np.isnan(caught.value.answered.logits_NC[:, 0]).tolist() == [False, True]
    inner.score = score  # type: ignore[method-assign]
    family.calls.clear()
    cache.score(["a", "b"])
    assert asked(family) == ["b"]


def test_of_two_that_ask_at_once_the_first_answer_is_the_answer(
    tmp_path: Path, family: Elsewhere
) -> None:
    options = family.options(endpoint="e")
    both_asked = threading.Barrier(2)
    given: list[float] = []

    def opinion(*_: object) -> list[float]:
        both_asked.wait(30)
        given.append(float(len(given)))
        return [given[-1]]

    family.logits_of = opinion
    heard = []

    def ask() -> None:
        inner = family.load_member(None, options, timeout_s=None, device="cpu", backend="torch")
        heard.append(AnswerCache(inner, tmp_path / "answers", "e").score(["t"]).logits_NC.item())

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 2
    assert heard[0] == heard[1]


def test_a_file_that_is_no_cache_is_named(
    tmp_path: Path, family: Elsewhere, plugins: Plugins
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "answers").write_text("something else " * 100)
    with pytest.raises(OutputError, match=r"kept/answers: cannot be used as a cache of answers"):
        load(tmp_path, plugins, CACHED).decide(["t"])


def test_a_text_is_not_in_the_file(tmp_path: Path, plugins: Plugins) -> None:
    load(tmp_path, plugins, CACHED).decide(["a very secret text"])
    assert b"secret" not in (tmp_path / "kept" / "answers").read_bytes()


def test_a_member_that_may_answer_otherwise_and_keeps_nothing_is_noted(
    tmp_path: Path, plugins: Plugins
) -> None:
    (note,) = load(tmp_path, plugins).unrepeatable()
    assert "member 'judge': plugin 'elsewhere' may answer otherwise" in note
    assert "`cache: FILE`" in note
    assert list(load(tmp_path, plugins, CACHED).unrepeatable()) == []
