"""LiteLLM's Generic Guardrail API: its requests as its own client writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.serving import POLICY, Served, serving

PATH = "/beta/litellm_basic_guardrail_api"
FLAG = POLICY.replace("action: block", "action: flag").replace("n: block}", "n: flag}")
CALL = {"id": "call_1", "type": "function",
        "function": {"name": "search", "arguments": '{"q": "an attack"}'}}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


def request(kind: str = "request", **fields: Any) -> dict[str, Any]:
    """Return a request with all that litellm 1.108 sends."""
    return {
        "input_type": kind,
        "litellm_call_id": "c-1",
        "litellm_trace_id": "t-1",
        "structured_messages": None,
        "images": None,
        "tools": None,
        "texts": [],
        "request_data": {"user_api_key_hash": "h", "user_api_key_user_id": "an attack"},
        "request_headers": {"user-agent": "an attack"},
        "litellm_version": "1.108.7",
        "additional_provider_specific_params": {},
        "tool_calls": None,
        "model": "gpt-4",
    } | fields


def messages(*texts: str, role: str = "user") -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for text in texts]


@pytest.mark.parametrize(
    ("body", "action"),
    [
        (request(texts=["a cake"]), "NONE"),
        (request(texts=["a cake", "an attack"]), "BLOCKED"),
        (request("response", texts=["an attack"]), "BLOCKED"),
        (request(texts=["a cake"], structured_messages=messages("a cake")), "NONE"),
        (request(texts=["a cake"], structured_messages=messages("an attack")), "BLOCKED"),
        # the operator's own words are not judged, wherever they stand
        (request(texts=["an attack", "a cake"], structured_messages=[
            *messages("an attack", role="system"), *messages("a cake")]), "NONE"),
        (request(texts=["a cake"], structured_messages=[
            *messages("a cake"), {"role": "assistant", "content": None, "tool_calls": [CALL]}]),
         "BLOCKED"),
        (request("response", tool_calls=[CALL]), "BLOCKED"),
        (request("response", texts=["an attack"], structured_messages=[
            *messages("an attack", role="system"), *messages("a cake")]), "BLOCKED"),
        (request("response", tool_calls=[{**CALL, "index": 0}], texts=["a cake"]), "BLOCKED"),
        (request(texts=["a cake"], images=["https://example.com/x.png"]), "BLOCKED"),
        (request(texts=["a cake"], structured_messages=[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "x"}}]}]), "BLOCKED"),
        (request(texts=["BROKEN"]), "BLOCKED"),
        (request(), "NONE"),
        ({"input_type": "request", "texts": ["a cake"]}, "NONE"),
    ],
)  # fmt: skip
def test_a_verdict_of_each_kind_of_request(
    served: Served, body: dict[str, Any], action: str
) -> None:
    answer = served.post(PATH, body)
    assert answer.status == 200
    assert answer.json["action"] == action
    assert ("blocked_reason" in answer.json) is (action == "BLOCKED")


def test_the_reason_names_the_category_and_no_text(served: Served) -> None:
    told = served.post(PATH, request(texts=["an attack"])).json
    assert told == {"action": "BLOCKED", "blocked_reason": "policy 'test': injection"}


def test_what_is_no_such_request_is_refused(served: Served) -> None:
    assert served.post(PATH, {"texts": ["a cake"]}).status == 400
    assert served.post(PATH, request("both")).status == 400


def test_a_policy_that_lets_the_unjudged_pass_gets_a_503(tmp_path: Path) -> None:
    with serving(tmp_path, POLICY.replace("on_error: closed", "on_error: open")) as served:
        assert served.post(PATH, request(texts=["BROKEN"])).status == 503


@pytest.mark.parametrize(("on_flag", "action"), [("block", "BLOCKED"), ("pass", "NONE")])
def test_what_is_flagged_is_treated_as_the_server_was_told(
    tmp_path: Path, on_flag: str, action: str
) -> None:
    with serving(tmp_path, FLAG, on_flag=on_flag) as served:
        assert served.post(PATH, request(texts=["an attack"])).json["action"] == action
        assert served.post(PATH, request(texts=["a cake"])).json["action"] == "NONE"


def test_what_is_flagged_is_withheld_and_the_rest_is_left(tmp_path: Path) -> None:
    said = [*messages("an attack, I say", role="system"), *messages("a cake", "an attack")]
    with serving(tmp_path, FLAG, on_flag="withhold") as served:
        told = served.post(PATH, request(texts=["a cake", "an attack", "a pie"])).json
        assert told == {
            "action": "GUARDRAIL_INTERVENED",
            "texts": ["a cake", "[withheld: injection]", "a pie"],
        }
        elsewhere = request(texts=["a cake"], structured_messages=[
            *messages("a cake"), {"role": "assistant", "tool_calls": [CALL]}])  # fmt: skip
        assert served.post(PATH, elsewhere).json["action"] == "BLOCKED"
        own = ["an attack, I say", "a cake", "an attack"]
        tool = {"type": "function", "function": {"name": "f", "description": "an attack"}}
        told = served.post(PATH, request(texts=own, structured_messages=said, tools=[tool])).json
        assert told["texts"] == [*own[:2], "[withheld: injection]"], "the operator's words stay"


def test_what_no_category_judges_passes(tmp_path: Path) -> None:
    policy = POLICY.replace("    positive:", "    roles: [user]\n    positive:")
    with serving(tmp_path, policy) as served:
        told = served.post(PATH, request("response", texts=["an attack"])).json
        assert told == {"action": "NONE"}
        assert served.post(PATH, request(texts=["an attack"])).json["action"] == "BLOCKED"
