"""`guardkit explain`: what each token adds."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from guardkit.cli.main import main
from guardkit.plugins import Plugins
from tests.support.command_folder import POLICY, install, written


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def test_explain_shows_what_each_token_adds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", "an attack \x1b[31m", "--model", "model"]) == 0
    out, _ = capsys.readouterr()
    assert "probabilities: benign 0.119, injection 0.881" in out
    assert "evidence for 'injection' (posterior)" in out
    assert re.search(r"'attack' +│ \+1\.500", out)
    assert re.search(r"'an' +│ -0\.500", out)
    assert "\x1b" not in out  # a text cannot drive the terminal
    monkeypatch.setattr("guardkit.policy.router.policies_dir", Path)
    Path("default.yaml").write_text(POLICY)
    assert main(["explain", "a cake"]) == 0
    assert "injection 0.119" in capsys.readouterr().out


ATTACK = "an attack"
CHAT = {
    "system": f"{ATTACK} of the operator",
    "messages": [
        {"role": "user", "content": "a cake"},
        {"role": "tool", "content": [{"type": "text", "text": "tea"}, {"text": ATTACK}]},
    ],
}
FORMS: dict[str, tuple[dict[str, Any], str]] = {
    "chat": (CHAT, "messages[1] (tool, content[1].text), of 4 texts\n"),
    "responses": (
        {"input": [{"type": "function_call_output", "call_id": "c1", "output": ATTACK}]},
        "input[0] (tool, output)\n",
    ),
    "anthropic": (
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"q": ATTACK}}]}]},
        "messages[0] (assistant, content[0].input",
    ),
}  # fmt: skip


@pytest.fixture
def default_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the policy of the folder stand for the one that comes with guardkit."""
    monkeypatch.setattr("guardkit.policy.router.policies_dir", Path)
    Path("default.yaml").write_text(POLICY)


@pytest.mark.usefixtures("default_policy")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("indent", [None, 2])
def test_the_message_that_decides_a_conversation_is_named_as_the_route_names_it(
    form: str, indent: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    record, named = FORMS[form]
    Path("chat.json").write_text(json.dumps(record, indent=indent))
    assert main(["explain", "--record", "chat.json", "--html", "page.html"]) == 0
    out = capsys.readouterr().out
    assert f"decided by {named}" in out
    assert "evidence for 'injection'" in out
    assert f"decided by <bdi>{named.split(',')[0]}" in Path("page.html").read_text()
    Path("chat.jsonl").write_text(json.dumps(record) + "\n")
    assert main(["classify", "chat.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl"]) == 0
    (step,) = written()[0]["route"]
    assert f"decided by {step['message']} ({step['role']}, {step['part']})" in out


@pytest.mark.usefixtures("default_policy")
def test_whose_words_are_explained_is_the_policys_to_say_and_a_model_reads_all(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = json.dumps({**CHAT, "messages": [{"role": "user", "content": "a cake"}]})

    def explained(*options: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(operator.encode())))
        code = main(["explain", "--record", "-", *options])
        return code, capsys.readouterr().out

    code, out = explained()
    assert (code, "decided by messages[0] (user, content)\n" in out) == (0, True)
    code, out = explained("--model", "model")
    assert (code, "decided by system (system), of 2 texts\n" in out) == (0, True)
    operator = json.dumps({"system": ATTACK, "messages": []})
    assert explained()[0] == 2


def test_a_line_of_many_is_chosen_by_its_number_and_a_plain_one_is_a_text(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["explain", "--record", "in.jsonl", "--line", "2", "--model", "model"]) == 0
    out = capsys.readouterr().out
    assert "injection 0.881" in out
    assert "decided by" not in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--record", "in.jsonl"], "in.jsonl: has several rows; choose one with --line"),
        (["--record", "in.jsonl", "--line", "3"], "in.jsonl: has no row 3"),
        (["--record", "image.jsonl"], "image.jsonl: line 1: a message has a part that is not text"),
        (["--record", "none.jsonl"], "none.jsonl: cannot be opened"),
        (["--record", "in.jsonl", "a text"], "give a TEXT or --record FILE, one of them"),
        ([], "give a TEXT or --record FILE, one of them"),
        (["a text", "--line", "1"], "--line chooses from the FILE of --record"),
    ],
)
def test_what_cannot_be_explained_is_named_and_nothing_is_loaded(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    image = {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}
    Path("image.jsonl").write_text(json.dumps(image))
    assert main(["explain", *options, "--model", "absent"]) == 2
    assert said in capsys.readouterr().err


def test_a_text_that_cannot_be_judged_is_named_by_its_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    messages = [{"role": "user", "content": ATTACK}, {"role": "user", "content": "BROKEN"}]
    Path("chat.json").write_text(json.dumps({"messages": messages}))
    assert main(["explain", "--record", "chat.json", "--model", "model"]) == 3
    assert "messages[1] (user, content): ValueError: cannot score" in capsys.readouterr().err
