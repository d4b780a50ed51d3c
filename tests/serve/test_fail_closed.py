"""Whatever fails, and wherever: no text that was not judged reads as safe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.hookspecs import hookimpl
from guardkit.types import RawScores
from tests.support.fake_models import FakeClassifier
from tests.support.serving import POLICY, Served, serving

POLICIES = {
    "closed": POLICY,
    "open": POLICY.replace("on_error: closed", "on_error: open"),
    "a pattern beside it": POLICY.replace(
        "decide: {member: only}",
        "decide: {combine: {how: any, of: [{pattern: {re2: never}}, {member: only}]}}",
    ),
}
SCORES = np.array([[0.0, -2.0]], np.float32)
ONE = np.ones(1, np.int64)
NO = np.zeros(1, bool)


def raises(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


#: What a classifier may do instead of scoring one text.
FAILURES: dict[str, Callable[[], Any]] = {
    "an exception": raises(ValueError("no")),
    "half a character": raises(ValueError("\ud800")),
    "an exit": raises(SystemExit(0)),
    "a panic": raises(type("PanicException", (BaseException,), {})("panicked")),
    "no memory": raises(MemoryError()),
    "a timeout": raises(TimeoutError("took too long")),
    "cancelled": raises(__import__("asyncio").CancelledError()),
    "the end of an iterator": raises(StopIteration()),
    "NaN": lambda: RawScores(SCORES * np.nan, ONE, ONE, NO),
    "infinity": lambda: RawScores(SCORES - np.inf, ONE, ONE, NO),
    "a label too few": lambda: RawScores(SCORES[:, :1], ONE, ONE, NO),
    "a text too few": lambda: RawScores(SCORES[:0], ONE[:0], ONE[:0], NO[:0]),
    "nothing": lambda: None,
    "something else": lambda: "safe",
}


@pytest.fixture(params=POLICIES)
def server(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A server whose model fails as told at each text with FAIL in it."""
    told: dict[str, Callable[[], Any]] = {}
    sound = FakeClassifier.score

    def score(self: Any, texts: Any, **asked: Any) -> Any:
        if any("FAIL" in text for text in texts):
            if len(texts) > 1:
                raise ValueError("one of them")
            return told["now"]()
        return sound(self, texts, **asked)

    monkeypatch.setattr(FakeClassifier, "score", score)
    with serving(tmp_path, POLICIES[request.param]) as served:
        yield served, told, request.param == "open"


def safe(served: Served, path: str, body: Any) -> bool:
    """Whether an answer calls a text safe without a word of an error."""
    answer = served.post(path, body)
    if answer.status != 200:
        assert answer.status == 503
        return False
    told = answer.json
    if "moderations" in path:
        return not told["results"][-1]["flagged"]
    if "litellm" in path:
        return bool(told["action"] == "NONE")
    decision = told["decision"] if "explain" in path else told["decisions"][-1]
    return decision["action"] == "allow" and decision["error"] is None


def test_nothing_that_fails_reads_as_safe(server: Any) -> None:
    served, told, is_open = server
    asked = {
        "/v1/moderations": {"input": ["a cake", "FAIL"]},
        "/v1/classify": {"inputs": ["a cake", "FAIL"]},
        "/v1/explain": {"text": "FAIL"},
        "/beta/litellm_basic_guardrail_api": {"input_type": "request", "texts": ["FAIL"]},
    }
    for failure in FAILURES:
        told["now"] = FAILURES[failure]
        for path, body in asked.items():
            assert not safe(served, path, body), (failure, path)
        (decision,) = served.post("/v1/classify", {"text": "FAIL"}).json["decisions"]
        assert decision["action"] == ("allow" if is_open else "block"), failure
        assert decision["error"], failure
    (decision,) = served.post("/v1/classify", {"text": "a cake"}).json["decisions"]
    assert decision["action"] == "allow"
    assert served.get("/healthz").status == 200


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(0), KeyError("x")])
def test_a_hook_that_fails_at_a_text_fails_that_request_alone(
    tmp_path: Path, error: BaseException
) -> None:
    class Ear:
        @hookimpl
        def decided(self, texts: list[str], decisions: object, policy: object) -> None:
            if any("HOOK" in text for text in texts):
                raise error

    with serving(tmp_path, f"{POLICY}plugins: [ear]\n", modules={"ear": Ear()}) as served:
        for path, body in (
            ("/v1/moderations", {"input": "HOOK"}),
            ("/v1/classify", {"text": "HOOK"}),
            ("/v1/explain", {"text": "HOOK"}),
        ):
            answer = served.post(path, body)
            assert answer.status == 503
            assert answer.json["error"]["code"] == "not_judged"
        assert served.post("/v1/classify", {"text": "a cake"}).status == 200


def test_a_text_that_was_not_read_to_its_end_is_not_safe(tmp_path: Path) -> None:
    policy = POLICIES["open"]
    with serving(tmp_path, policy) as served:
        assert served.post("/v1/moderations", {"input": "CUT off"}).status == 503
        (decision,) = served.post("/v1/classify", {"text": "CUT off"}).json["decisions"]
        assert decision["truncated"]
    with serving(tmp_path) as served:
        assert served.post("/v1/moderations", {"input": "CUT off"}).json["results"][0]["flagged"]
