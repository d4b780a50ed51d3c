"""README.md and docs say what is there: commands, options, code, files, targets and fields."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import guardkit
from guardkit.classify.records import decision_record
from guardkit.cli.main import app
from guardkit.policy.router import check_policy
from guardkit.policy.schema import Policy
from guardkit.types import Decision

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
POLICIES = (ROOT / "docs" / "policies.md").read_text("utf-8")
CALIBRATION = (ROOT / "docs" / "calibration.md").read_text("utf-8")
EVALUATION = (ROOT / "docs" / "evaluation.md").read_text("utf-8")
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
# Folders of ours: what starts with one of them in README is a path.
FOLDERS = ("benchmarks", "docs", "examples", "plugins", "policies", "tests", r"\.ci")


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.M | re.S)


def code_spans() -> list[str]:
    without_blocks = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", without_blocks)


def command_lines(program: str) -> list[str]:
    shown = [b for page in (README, POLICIES, CALIBRATION, EVALUATION) for b in blocks("sh", page)]
    lines = [line for block in shown for line in block.splitlines()]
    return [line for line in [*lines, *code_spans()] if line.startswith(f"{program} ")]


def without_callbacks(command: Any) -> Any:
    """Return ``command`` made to parse its arguments and do nothing."""
    command.callback = lambda **_: None
    for child in getattr(command, "commands", {}).values():
        without_callbacks(child)
    return command


@pytest.mark.parametrize("line", command_lines("guardkit"))
def test_every_guardkit_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    without_callbacks(get_command(app)).main(words, prog_name="guardkit", standalone_mode=False)


def test_readme_shows_the_commands_that_newcomers_need() -> None:
    shown = {line.split()[1] for line in command_lines("guardkit")}
    assert shown >= {"train", "classify", "evaluate", "explain", "policy"}


@pytest.mark.parametrize("target", sorted({x.split()[1] for x in command_lines("make")}))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, flags=re.M)


@pytest.mark.parametrize("source", blocks("python"))
def test_every_python_block_compiles_and_uses_public_names(source: str) -> None:
    tree = ast.parse(source)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "guardkit"
    }
    assert used <= set(guardkit.__all__)


@pytest.mark.parametrize("source", blocks("yaml") + blocks("yaml", POLICIES))
def test_every_policy_is_valid(source: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(source, "utf-8")
    check_policy(policy, uncertified=True)


def test_the_policy_reference_names_every_field() -> None:
    schema = Policy.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    fields = {field for part in parts for field in part.get("properties", {})}
    assert {f for f in fields if not re.search(rf"\b{f}\b", POLICIES)} == set()


def test_every_path_and_link_exists() -> None:
    paths = re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", README)
    links = [x for x in re.findall(r"\]\(([^)]+)\)", README) if not x.startswith("http")]
    missing = sorted({p for p in [*paths, *links] if not (ROOT / p).exists()})
    assert not missing


def test_every_field_of_a_decision_is_explained() -> None:
    table = README.split("| field | meaning |")[1].split("\n\n")[0]
    decision = Decision("1", "allow", {}, None, False, [], "0" * 12)
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.M) == list(decision_record(decision))
