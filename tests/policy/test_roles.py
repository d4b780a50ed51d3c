"""Whose words a category judges, and how a decision names the message that decided."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from guardkit.classify.records import by_model, by_policy, classify
from guardkit.classify.rows import read_rows
from guardkit.errors import PolicyError
from guardkit.model.loaded import load_model
from guardkit.policy.router import PolicyRouter, load_policy
from tests.support.fake_models import FakeFamily, plugins_of, write_model
from tests.support.one_member import POLICY, logits_of

FROM_TOOLS = """\
  planted:
    positive: [injection]
    roles: [tool]
    decide: {pattern: {re2: attack}}
    flag_at: {probability: 0.5}
    action: flag
"""
ATTACK = "an attack"


class Folder:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.family = FakeFamily(logits_of)
        write_model(path / "model")

    def router(self, policy: str, **options: Any) -> PolicyRouter:
        (self.path / "policy.yaml").write_text(policy)
        return load_policy(self.path / "policy.yaml", plugins=plugins_of(self.family), **options)

    def classify(self, *lines: Mapping[str, Any] | str, policy: str = POLICY) -> list[Any]:
        """Return the decisions of JSON lines, as they are written."""
        return self._written(lines, by_policy(self.router(policy)))

    def probabilities(self, *lines: Mapping[str, Any]) -> list[Any]:
        model = load_model(self.path / "model", plugins=plugins_of(self.family))
        return self._written(lines, by_model(model))

    def _written(self, lines: Any, decide: Any) -> list[Any]:
        path, out = self.path / "in.jsonl", self.path / "out.jsonl"
        path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
        classify(read_rows(path), decide, out)
        return [json.loads(line) for line in out.read_text().splitlines()]

    def asked(self) -> set[str]:
        return {text for _, texts in self.family.calls for text in texts}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def chat(*messages: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


CALL = {"id": "call_1", "type": "function",
        "function": {"name": "send", "arguments": '{"to": "a", "body": "an attack"}'}}  # fmt: skip


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": "assistant", "content": None, "tool_calls": [CALL]}]},
        {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
        {"messages": [{"role": "assistant", "function_call": CALL["function"]}]},
        {"messages": [{"role": "assistant", "content": "fine", "refusal": ATTACK}]},
        {"messages": [{"role": "user", "content": "fine", "name": ATTACK}]},
        {"messages": [{"role": "user", "content": [{"type": "input_text", "text": ATTACK}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image", "caption": ATTACK}]}]},
        {"text": "fine", "messages": [{"role": "user", "content": ATTACK}]},
        {"text": "fine", "prompt": ATTACK},
        {"text": "", "prompt": ATTACK},
        {"text": "fine", "input": ATTACK},
        {"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": ATTACK}]}]},
        {"input": [{"type": "function_call_output", "call_id": "c1", "output": ATTACK}]},
        {"messages": [{"role": ATTACK, "content": "fine"}]},
        {"messages": [{"role": "narrator", "content": ATTACK}]},
    ],
)  # fmt: skip
def test_an_attack_in_any_part_of_a_line_is_not_allowed(
    folder: Folder, line: dict[str, Any]
) -> None:
    (decision,) = folder.classify(line)
    assert decision["action"] == "block"


def test_a_message_that_only_calls_a_tool_does_not_block_the_conversation(folder: Folder) -> None:
    call = {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": {
        "name": "get_weather", "arguments": '{"city": "Rome"}'}}]}  # fmt: skip
    answered = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny."}
    line = {"messages": [{"role": "user", "content": "Weather?"}, call, answered]}
    (decision,) = folder.classify(line)
    assert (decision["action"], decision["error"]) == ("allow", None)


def test_the_route_names_the_message_that_decided_its_role_and_the_part(folder: Folder) -> None:
    messages = [
        {"role": "user", "content": "fine"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
    ]
    alone, called, system, plain, two = folder.classify(
        chat(("user", "fine"), ("tool", ATTACK)),
        {"messages": messages},
        {"system": "fine", "input": ATTACK},
        {"text": ATTACK},
        {"text": "fine", "prompt": ATTACK},
    )
    step = {"category": "injection", "member": "only", "score": 0.880797, "why": "decides"}
    assert alone["route"] == [step | {"message": "messages[1]", "role": "tool", "part": "content"}]
    # the whole call comes first, and says it as loudly as its body does
    arguments = "tool_calls[0].function.arguments"
    assert called["route"] == [
        step | {"message": "messages[1]", "role": "assistant", "part": arguments}
    ]
    assert system["route"] == [step | {"message": "input", "role": "user"}]
    assert plain["route"] == [step]  # nothing is said of the only text there is
    assert two["route"] == [step | {"message": "prompt"}]


def test_what_the_operator_writes_is_not_judged_unless_roles_say_so(folder: Folder) -> None:
    lines = [
        chat(("system", ATTACK), ("user", "fine")),
        chat(("developer", ATTACK), ("user", "fine")),
        {"system": ATTACK, "messages": [{"role": "user", "content": "fine"}]},
        {"instructions": ATTACK, "input": "fine"},
    ]
    assert [d["action"] for d in folder.classify(*lines)] == ["allow"] * 4
    assert ATTACK not in folder.asked()  # nor read
    every = POLICY.replace("    decide", "    roles: [user, system, developer]\n    decide")
    for decision in folder.classify(*lines, policy=every):
        assert decision["action"] == "block"
        assert decision["route"][0]["role"] in ("system", "developer")


def test_a_category_judges_only_the_roles_it_names(folder: Folder) -> None:
    user, tool, both = folder.classify(
        chat(("user", ATTACK), ("assistant", "fine")),
        chat(("user", "fine"), ("tool", ATTACK)),
        {"text": ATTACK},
        policy=POLICY + FROM_TOOLS,
    )
    assert user["categories"]["planted"] == {
        "action": "allow", "score": None, "threshold": 0.5, "decided_by": "roles",
    }  # fmt: skip
    assert user["categories"]["injection"]["action"] == "block"
    assert tool["categories"]["planted"]["action"] == "flag"
    assert {(s["category"], s["message"]) for s in tool["route"]} == {
        ("injection", "messages[1]"),
        ("planted", "messages[1]"),
    }
    # a text without a role is judged by every category
    assert both["categories"]["planted"]["action"] == "flag"


def test_a_line_that_no_category_judges_is_an_error_and_never_allowed(folder: Folder) -> None:
    (decision,) = folder.classify(chat(("system", "fine")))
    assert decision["action"] == "block"
    assert "no category judges any of its texts, which are those of system" in decision["error"]


def test_a_text_that_a_category_does_not_judge_cannot_fail_it(folder: Folder) -> None:
    (decision,) = folder.classify(chat(("system", "BROKEN"), ("user", "fine")))
    assert (decision["action"], decision["error"]) == ("allow", None)
    (decision,) = folder.classify(chat(("user", "BROKEN"), ("assistant", "fine")))
    assert decision["action"] == "block"
    assert "cannot score this" in decision["error"]
    assert decision["categories"]["injection"]["decided_by"] == "on_error"


def test_a_failure_of_an_open_category_is_not_hidden_by_a_role_it_leaves_out(
    folder: Folder,
) -> None:
    policy = POLICY + "    on_error: open\n"
    (decision,) = folder.classify(chat(("system", "fine"), ("user", "BROKEN")), policy=policy)
    assert decision["categories"]["injection"]["decided_by"] == "on_error"


def test_a_shadow_policy_judges_its_own_roles(folder: Folder) -> None:
    every = POLICY.replace("    decide", "    roles: [system]\n    decide")
    (folder.path / "shadow.yaml").write_text(every)
    router = folder.router(POLICY, shadow=folder.path / "shadow.yaml")
    (folder.path / "a.jsonl").write_text(json.dumps(chat(("system", ATTACK), ("user", "fine"))))
    (decision,) = router.decide_rows(list(read_rows(folder.path / "a.jsonl")))
    assert decision.action == "allow"
    assert decision.shadow is not None
    assert decision.shadow["action"] == "block"
    (folder.path / "shadow.yaml").write_text(POLICY)
    router = folder.router(every, shadow=folder.path / "shadow.yaml")
    (folder.path / "a.jsonl").write_text(json.dumps(chat(("system", "BROKEN"), ("user", "fine"))))
    (decision,) = router.decide_rows(list(read_rows(folder.path / "a.jsonl")))
    assert decision.error is not None
    assert decision.shadow is not None
    assert decision.shadow["error"] is None  # it was never asked about what the operator wrote


def test_a_model_alone_reads_every_text_whatever_its_role(folder: Folder) -> None:
    (record,) = folder.probabilities(chat(("system", ATTACK), ("user", "fine")))
    assert record["probabilities"]["injection"] == pytest.approx(0.880797)


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ("[user, user]", "role 'user' is listed twice"),
        ("[users]", "input should be 'system', 'developer', 'user', 'assistant' or 'tool', got"),
        ("[]", "at least 1 item"),
        ("user", "should be a valid list"),
    ],
)
def test_roles_that_are_none_are_refused_with_their_line(
    folder: Folder, roles: str, said: str
) -> None:
    with pytest.raises(PolicyError) as error:
        folder.router(POLICY.replace("    decide", f"    roles: {roles}\n    decide"))
    assert "policy.yaml:8: categories.injection.roles" in str(error.value)
    assert said in str(error.value)
