"""``POST /v1/classify`` and ``/v1/explain``: decisions as ``guardkit classify`` gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from guardkit.classify.records import decision_record
from tests.support.serving import Served, serving


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


def test_a_decision_is_that_of_the_command_line(served: Served) -> None:
    told = served.post("/v1/classify", {"text": "an attack", "id": {"own": [1]}}).json
    (expected,) = served.service.live.router.decide(["an attack"], [{"own": [1]}])
    assert told == {"decisions": [decision_record(expected)]}
    assert told["decisions"][0]["models"].keys() == {"only"}


def test_texts_and_records_get_a_decision_each_in_order(served: Served) -> None:
    inputs = [
        "a cake",
        {"text": "an attack", "id": "x"},
        {"messages": [{"role": "user", "content": "an attack"}], "id": "y"},
    ]
    decisions = served.post("/v1/classify", {"inputs": inputs}).json["decisions"]
    assert [d["action"] for d in decisions] == ["allow", "block", "block"]
    assert [d["id"] for d in decisions] == [0, "x", "y"]


def test_a_conversation_is_read_with_its_roles_and_calls(served: Served) -> None:
    call = {"id": "call_1", "type": "function",
            "function": {"name": "search", "arguments": '{"q": "an attack"}'}}  # fmt: skip
    messages = [
        {"role": "system", "content": "an attack"},  # the operator's own words
        {"role": "user", "content": "a cake"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    (decision,) = served.post("/v1/classify", {"messages": messages}).json["decisions"]
    assert decision["action"] == "block"
    (step,) = decision["route"]
    assert (step["message"], step["role"]) == ("messages[2]", "assistant")
    calm = served.post("/v1/classify", {"messages": messages[:2]}).json["decisions"]
    assert calm[0]["action"] == "allow"


def test_what_could_not_be_judged_says_so_beside_its_neighbours(served: Served) -> None:
    texts = ["a cake", "BROKEN", "NAN"]
    decisions = served.post("/v1/classify", {"inputs": texts}).json["decisions"]
    assert [d["action"] for d in decisions] == ["allow", "block", "block"]
    assert [d["error"] is None for d in decisions] == [True, False, False]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "no text"),
        ({"text": 5}, "text"),
        ({"text": None}, "no text"),
        ({"txt": "a cake"}, "no text"),
        ({"inputs": []}, "at least 1"),
        ({"inputs": ["a", {"text": None}]}, "inputs[1]: no text"),
        ({"inputs": ["a"], "text": "b"}, "stand alone"),
        ({"inputs": "a"}, "inputs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"messages": [{"role": "user", "odd": "an attack"}]}, "odd is a field"),
        ({"messages": [5]}, "messages[0]"),
    ],
)
def test_what_cannot_be_read_whole_is_refused(served: Served, body: Any, said: str) -> None:
    answer = served.post("/v1/classify", body)
    assert answer.status == 400
    assert said in answer.json["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"text": "a"', b'{"text": NaN}', b"nonsense", b'{"text": "\\ud800"}',
        b'{"text": "\xff"}', b'{"text": "a", "text": "an attack"}',
        '{"text": "a"}'.encode("utf-16"), b"[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_json_is_refused(served: Served, body: bytes) -> None:
    answer = served.post("/v1/classify", body)
    assert answer.status == 400
    # an empty body is a request without one
    assert answer.json["error"]["code"] == ("invalid_json" if body else "invalid_request")


def test_a_byte_order_mark_is_no_part_of_the_json(served: Served) -> None:
    assert served.post("/v1/classify", b'\xef\xbb\xbf{"text": "a cake"}').status == 200


def test_a_body_that_is_not_said_to_be_json_is_refused(served: Served) -> None:
    """So that no page elsewhere can make a browser ask without its leave."""
    answer = served.post("/v1/classify", {"text": "a cake"}, content_type="text/plain")
    assert answer.status == 400


def test_an_explanation_has_the_decision_and_what_each_piece_adds(served: Served) -> None:
    told = served.post("/v1/explain", {"text": "an attack"}).json
    assert told["decision"]["action"] == "block"
    (evidence,) = told["evidence"]
    assert (evidence["member"], evidence["label"]) == ("only", "injection")
    assert evidence["probabilities"]["injection"] == pytest.approx(0.880797)
    assert evidence["pieces"] == [[0, 2, -0.5], [3, 9, 1.5]]


def test_the_text_of_a_conversation_that_decides_is_explained(served: Served) -> None:
    messages = [{"role": "user", "content": "a cake"}, {"role": "user", "content": "an attack"}]
    (evidence,) = served.post("/v1/explain", {"messages": messages}).json["evidence"]
    assert (evidence["message"], evidence["text"]) == ("messages[1]", "an attack")


def test_a_decision_stands_where_there_is_no_evidence(served: Served) -> None:
    told = served.post("/v1/explain", {"text": "BROKEN"}).json
    assert told["decision"]["action"] == "block"
    assert told["evidence"][0]["error"]
    assert served.post("/v1/explain", {"inputs": ["a"]}).status == 400


def test_what_would_keep_others_waiting_long_is_refused(served: Served) -> None:
    messages = [{"role": "user", "content": "a"}] * 5000
    answer = served.post("/v1/classify", {"messages": messages})
    assert (answer.status, answer.json["error"]["code"]) == (400, "too_many_texts")
    assert served.post("/v1/classify", {"messages": messages[:4000]}).status == 200
    many = {"input_type": "request", "texts": [f"a {i}" for i in range(1000)],
            "structured_messages": messages[:3500]}  # fmt: skip
    assert served.post("/beta/litellm_basic_guardrail_api", many).status == 400


def test_a_long_text_is_judged_and_not_explained(served: Served) -> None:
    told = served.post("/v1/explain", {"text": "an attack " * 3000}).json
    assert told["decision"]["action"] == "block"
    assert "judged, not explained" in told["evidence"][0]["error"]


def test_many_callers_get_their_own_answers(served: Served) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(i: int) -> tuple[int, str, int]:
        text = "an attack" if i % 3 == 0 else "a cake"
        (decision,) = served.post("/v1/classify", {"text": text, "id": i}).json["decisions"]
        return i, decision["action"], decision["id"]

    with ThreadPoolExecutor(16) as pool:
        for i, action, identity in pool.map(ask, range(300)):
            assert (action, identity) == ("allow" if i % 3 else "block", i)
    assert served.metric("guardkit_batch_rows_sum") > served.metric("guardkit_batch_rows_count")
