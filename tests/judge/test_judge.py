"""The judge over the wire: what it makes of answers, and of every way not to get one."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from guardkit_judge.judge import Judge
from guardkit_judge.options import JudgeOptions
from pydantic import ValidationError

from guardkit.errors import ConfigError, MemberDown
from guardkit.types import RawScores
from tests.support.stub_endpoint import (
    Endpoint,
    Reply,
    by_rule,
    completion,
    refused_url,
    serving,
    text_of,
)

QUESTION = "Does it speak of an attack?"
LOGIT_09 = math.log(9)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(by_rule) as found:
        yield found


def judge(endpoint: Endpoint | str, timeout_s: float | None = 30.0, **options: Any) -> Judge:
    url = endpoint if isinstance(endpoint, str) else endpoint.url
    quick = {"backoff_s": 0.0, "questions": {"injection": QUESTION}}
    return Judge(JudgeOptions(endpoint=url, model="stub", **(quick | options)), timeout_s)


def down(asked: Judge, texts: Sequence[str]) -> tuple[str, RawScores]:
    with pytest.raises(MemberDown) as caught:
        asked.score(texts)
    assert caught.value.answered is not None
    return str(caught.value), caught.value.answered


# -- answers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [False, True], ids=["word", "json"])
def test_the_probability_of_the_answer_is_the_score(endpoint: Endpoint, structured: bool) -> None:
    raw = judge(endpoint, structured=structured).score(["an attack", "a cake", ""])
    assert raw.logits_NC[:, 0].tolist() == pytest.approx([LOGIT_09, -LOGIT_09, -LOGIT_09])
    assert raw.errors == {}
    assert raw.tokens_N.tolist() == [50, 50, 50]
    assert sorted(endpoint.texts()) == ["", "a cake", "an attack"]


def test_each_label_has_its_question(endpoint: Endpoint) -> None:
    def answer(request: Any) -> Reply:
        p = 0.9 if "first?" in request["messages"][1]["content"] else 0.2
        return Reply(completion("yes" if p > 0.5 else "no", {"yes": p, "no": 1 - p}))

    endpoint.answer = answer
    asked = judge(endpoint, questions={"a": "Is it the first?", "b": "Is it the second?"})
    assert asked.labels == ("a", "b", "benign")
    raw = asked.score(["t"])
    assert raw.logits_NC[0].tolist() == pytest.approx([LOGIT_09, math.log(0.25), -LOGIT_09])


def test_an_endpoint_without_probabilities_is_asked_for_votes(endpoint: Endpoint) -> None:
    votes = iter(["yes", "yes", "no", "Yes.", "yes"])

    def answer(request: Any) -> Reply:
        return Reply(completion(next(votes) if request["temperature"] == 1.0 else "no"))

    endpoint.answer = answer
    raw = judge(endpoint, votes=5).score(["t"])
    assert raw.logits_NC[0, 0] == pytest.approx(math.log(4.5 / 1.5))
    assert [r["temperature"] for r in endpoint.requests] == [0.0] + [1.0] * 5


def test_votes_are_all_that_is_asked_for_where_the_policy_says_so(endpoint: Endpoint) -> None:
    raw = judge(endpoint, answers="votes", votes=3).score(["an attack"])
    assert raw.logits_NC[0, 0] == pytest.approx(math.log(3.5 / 0.5))
    assert all("logprobs" not in request for request in endpoint.requests)


def test_a_policy_that_needs_probabilities_says_so_where_there_are_none(
    endpoint: Endpoint,
) -> None:
    endpoint.answer = lambda _: Reply(completion("no"))
    raw = judge(endpoint, answers="logprobs").score(["t"])
    assert "gives no log-probabilities; `answers: votes`" in raw.errors[0]


@pytest.mark.parametrize("said", ["", "maybe", "I cannot help with that.", "noyes", "0", "nope"])
def test_an_answer_that_is_neither_yes_nor_no_is_a_failure_and_no_no(
    endpoint: Endpoint, said: str
) -> None:
    endpoint.answer = lambda request: (
        Reply(completion(said)) if text_of(request) == "odd" else by_rule(request)
    )
    raw = judge(endpoint).score(["odd"] * 4 + ["a cake"])
    assert set(raw.errors) == {0, 1, 2, 3}
    assert "neither yes nor no" in raw.errors[0]
    assert np.isnan(raw.logits_NC[:4]).all()
    assert raw.logits_NC[4, 0] < 0  # a text that confuses it does not make the judge be down


def test_a_long_text_is_cut_and_says_so(endpoint: Endpoint) -> None:
    raw = judge(endpoint, max_characters=10).score(["x" * 11, "x" * 10])
    assert raw.truncated_N.tolist() == [True, False]
    assert endpoint.texts() == ["x" * 10] * 2


def test_calls_are_made_at_once_and_no_more_than_asked_for(endpoint: Endpoint) -> None:
    inside, most, gate = [0], [0], threading.Barrier(4)
    count = threading.Lock()

    def answer(request: Any) -> Reply:
        return by_rule(request)

    class Gate(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            with count:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            gate.wait(30)  # passes only where four calls are under way
            with count:
                inside[0] -= 1
            return False

    endpoint.answer = lambda request: Reply(json.loads(answer(request).body), hold=Gate(), pieces=1)
    raw = judge(endpoint, concurrency=4).score(["an attack", "a cake"] * 6)
    assert raw.errors == {}
    assert np.sign(raw.logits_NC[:, 0]).tolist() == [1, -1] * 6
    assert most[0] == 4


def test_it_can_be_asked_within_a_running_event_loop(endpoint: Endpoint) -> None:
    import asyncio

    async def notebook() -> RawScores:
        return judge(endpoint).score(["an attack"])

    assert asyncio.run(notebook()).logits_NC[0, 0] > 0


# -- failures --------------------------------------------------------------------------------


def test_an_endpoint_that_refuses_is_down(caplog: pytest.LogCaptureFixture) -> None:
    reason, answered = down(judge(refused_url(), retries=1), ["a", "b"])
    assert "cannot be reached" in reason
    assert np.isnan(answered.logits_NC).all()
    assert answered.errors == {}


def holding(event: threading.Event) -> Callable[[Any], Reply]:
    return lambda _: Reply(completion("no"), hold=event)


def test_three_timeouts_in_a_row_and_it_is_down(endpoint: Endpoint) -> None:
    never = threading.Event()
    endpoint.answer = holding(never)
    try:
        asked = judge(endpoint, 0.2, retries=0, concurrency=1)
        reason, answered = down(asked, [str(i) for i in range(9)])
    finally:
        never.set()
    assert "3 texts in a row had no answer: no answer within 0.2 s" in reason
    assert len(endpoint.requests) == 3, "the others are not asked about"
    assert sorted(answered.errors) == [0, 1, 2]


def test_a_slow_drip_is_a_timeout(endpoint: Endpoint) -> None:
    never = threading.Event()
    endpoint.answer = lambda _: Reply(completion("no"), hold=never, pieces=1000)
    try:
        raw = judge(endpoint, 0.5, retries=0).score(["t"])
    finally:
        never.set()
    assert raw.errors == {0: "no answer within 0.5 s"}


BAD = {
    "429": Reply({"error": {"message": "slow down"}}, 429),
    "500": Reply(b"oops", 500),
    "503": Reply({"error": "loading"}, 503),
    "malformed": Reply(b'{"choices": [{"mess'),
    "truncated": Reply(json.dumps(completion("no")).encode()[:40], announced=4000),
    "no choices": Reply({"choices": []}),
    "wrong schema": Reply({"choices": [{"text": "no"}]}),
    "wrong types": Reply({"choices": [{"message": {"content": ["no"]}}]}),
    "not JSON": Reply(b"<html>busy</html>"),
    "NaN": Reply(b'{"choices": [{"message": {"content": "no"}, "logprobs": {"content": [{"token": '
                 b'"no", "logprob": NaN}]}}]}'),
    "endless": Reply(b" " * (2**20 + 5)),
    "bytes": Reply(b"\xff\xfe\x00"),
    "deep": Reply(b"[" * 100_000),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_asked_for_again_and_then_a_failure_of_the_text(
    endpoint: Endpoint, name: str
) -> None:
    endpoint.answer = lambda request: BAD[name] if text_of(request) == "bad" else by_rule(request)
    raw = judge(endpoint, retries=2).score(["an attack", "bad"])
    assert list(raw.errors) == [1]
    assert "(3 tries)" in raw.errors[1]
    assert endpoint.texts().count("bad") == 3
    assert raw.logits_NC[0, 0] == pytest.approx(LOGIT_09)
    assert np.isnan(raw.logits_NC[1]).all()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_that_is_followed_by_a_good_one_is_forgotten(
    endpoint: Endpoint, name: str
) -> None:
    first = iter([BAD[name]])
    endpoint.answer = lambda request: next(first, None) or by_rule(request)
    raw = judge(endpoint).score(["an attack"])
    assert (raw.errors, raw.logits_NC[0, 0]) == ({}, pytest.approx(LOGIT_09))


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_text_that_the_endpoint_does_not_take_fails_alone_and_once(
    endpoint: Endpoint, status: int
) -> None:
    said = {"error": {"message": "maximum context length exceeded"}}
    endpoint.answer = lambda request: (
        Reply(said, status) if "long" in text_of(request) else by_rule(request)
    )
    raw = judge(endpoint).score(["long"] * 5 + ["a cake"])
    assert raw.errors[0] == f"answers {status}: maximum context length exceeded"
    assert endpoint.texts().count("long") == 5
    assert 5 not in raw.errors


@pytest.mark.parametrize("status", [401, 403, 404, 302])
def test_an_endpoint_that_will_not_answer_anyone_is_down_at_once(
    endpoint: Endpoint, status: int
) -> None:
    endpoint.answer = lambda _: Reply(
        {"error": {"message": "no"}}, status, headers={"location": "http://127.0.0.1:1/elsewhere"}
    )
    reason, _ = down(judge(endpoint, concurrency=1), ["a", "b", "c"])
    assert f"answers {status}: no" in reason
    assert len(endpoint.requests) == 1


def test_what_was_answered_before_it_went_down_is_handed_over(endpoint: Endpoint) -> None:
    endpoint.answer = lambda request: (
        Reply({}, 401) if text_of(request) == "last" else by_rule(request)
    )
    _, answered = down(judge(endpoint, concurrency=1), ["an attack", "last", "never asked"])
    assert np.isfinite(answered.logits_NC[:, 0]).tolist() == [True, False, False]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_kept_up_to_a_limit(endpoint: Endpoint, form: str) -> None:
    later = datetime.now(UTC) + timedelta(seconds=90)
    value = "90" if form == "seconds" else format_datetime(later, usegmt=True)
    endpoint.answer = lambda _: Reply({}, 429, headers={"retry-after": value})
    raw = judge(endpoint, max_wait_s=5).score(["t"])
    assert "asks to wait" in raw.errors[0]
    assert "more than max_wait_s" in raw.errors[0]
    assert len(endpoint.requests) == 1


def test_retry_after_a_moment_is_waited_for(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("guardkit_judge.client.anyio.sleep", sleep)
    replies = iter([Reply({}, 429, headers={"retry-after": "7"}), Reply({}, 503), Reply({}, 503)])
    endpoint.answer = lambda request: next(replies, None) or by_rule(request)
    raw = judge(endpoint, retries=3, backoff_s=2.0).score(["a cake"])
    assert raw.errors == {}
    assert waited[0] == 7
    assert 4 * 0.5 <= waited[1] <= 4 * 1.5
    assert 8 * 0.5 <= waited[2] <= 8 * 1.5


# -- budget and key --------------------------------------------------------------------------


def test_a_budget_of_calls_is_never_exceeded_and_what_it_bought_is_kept(
    endpoint: Endpoint,
) -> None:
    asked = judge(endpoint, max_calls=5, concurrency=3)
    reason, answered = down(asked, ["a cake"] * 9)
    assert "its budget of 5 calls is spent (max_calls)" in reason
    assert len(endpoint.requests) == 5
    assert np.isfinite(answered.logits_NC[:, 0]).sum() == 5
    down(asked, ["a cake"])
    assert len(endpoint.requests) == 5


def test_a_budget_of_money_counts_what_was_used_and_reserves_what_may_be(
    endpoint: Endpoint,
) -> None:
    price = {"input": 10.0, "output": 100.0}
    asked = judge(endpoint, price_per_million=price, max_cost=0.03, concurrency=1)
    reason, answered = down(asked, ["a cake"] * 50)
    used = (50 * 10 + 1 * 100) / 1e6
    assert asked.budget.cost == pytest.approx(len(endpoint.requests) * used)
    assert asked.budget.cost <= 0.03
    assert "its budget of 0.03 is spent (max_cost)" in reason
    assert 20 < np.isfinite(answered.logits_NC[:, 0]).sum() < 50


def test_what_says_no_usage_costs_what_was_reserved(endpoint: Endpoint) -> None:
    endpoint.answer = lambda request: Reply(json.loads(by_rule(request).body) | {"usage": None})
    price = {"input": 10.0, "output": 100.0}
    asked = judge(endpoint, price_per_million=price, max_cost=1.0)
    asked.score(["a cake"])
    sent = json.dumps(endpoint.requests[0])
    assert asked.budget.cost == pytest.approx((len(sent) * 10 + 16 * 100) / 1e6)


KEY = "sk-very-secret-0123456789"


def test_the_key_is_sent_and_never_shown(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    asked = judge(endpoint, api_key_env="MY_KEY")
    asked.score(["a cake"])
    assert endpoint.keys == [f"Bearer {KEY}"]
    endpoint.answer = lambda _: Reply({"error": {"message": f"Incorrect API key: {KEY}"}}, 401)
    reason, _ = down(asked, ["t"])
    assert "Incorrect API key: ***" in reason
    endpoint.answer = lambda _: Reply({"error": {"message": f"{KEY} is too long"}}, 400)
    assert asked.score(["t"]).errors == {0: "answers 400: *** is too long"}
    shown = [caplog.text, repr(asked.options), str(asked.options.model_dump())]
    assert not any(KEY in text for text in shown)


def test_without_a_key_none_is_sent(endpoint: Endpoint) -> None:
    judge(endpoint).score(["t"])
    assert endpoint.keys == [None]


@pytest.mark.parametrize("value", [None, "", " \n", "two\nlines"])
def test_a_key_that_is_not_there_is_named_before_anything_is_asked(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ConfigError, match="environment variable 'MY_KEY' is not set"):
        judge(endpoint, api_key_env="MY_KEY")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"endpoint": "ftp://x"}, "begins with http:// or https://"),
        ({"endpoint": "http://u:p@x"}, "no user, query or fragment"),
        ({"questions": {}}, "at least 1 item"),
        ({"questions": {"benign": "?"}}, "neutral 'benign' is a label with a question"),
        ({"body": {"messages": []}}, "must not hold messages"),
        ({"body": {"max_tokens": "9"}}, "whole number above 0"),
        ({"max_cost": 1.0}, "max_cost needs price_per_million"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    good = {"endpoint": "http://x/v1", "model": "m", "questions": {"a": "b"}}
    with pytest.raises(ValidationError, match=words):
        JudgeOptions(**(good | options))
