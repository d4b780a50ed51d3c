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

from .pages import GUIDES, INDEX, PAGES, README, ROOT, blocks, code_spans, named, shell_lines

POLICIES = ROOT / "docs" / "policies.md"
CLASSIFY = ROOT / "docs" / "classify.md"
HOOKS = ROOT / "docs" / "hooks.md"
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
# Folders of ours: what starts with one of them is a path.
FOLDERS = ("benchmarks", "docs", "examples", "guardkit", "plugins", "policies", "tests", r"\.ci")


def guardkit_commands() -> list[str]:
    """Return the commands that are shown whole: those of shell blocks, and README's."""
    lines = [line for page in GUIDES for line in shell_lines(page)] + code_spans(README)
    ours = [re.sub(r"^torchrun .* -m (?=guardkit )", "", line) for line in lines]
    return [line for line in dict.fromkeys(ours) if line.startswith("guardkit ")]


def make_targets() -> set[str]:
    lines = [line for page in GUIDES for line in [*shell_lines(page), *code_spans(page)]]
    return {line.split()[1] for line in lines if line.startswith("make ")}


def without_callbacks(command: Any) -> Any:
    """Return ``command`` made to parse its arguments and do nothing."""
    command.callback = lambda **_: None
    for child in getattr(command, "commands", {}).values():
        without_callbacks(child)
    return command


def names_a_command(words: list[str]) -> bool:
    """Whether ``words`` begin with a command, whatever options and placeholders follow."""
    command: Any = get_command(app)
    for word in words:
        if not hasattr(command, "commands") or not re.fullmatch(r"[a-z]+", word):
            return True
        if word not in command.commands:
            return False
        command = command.commands[word]
    return True


@pytest.mark.parametrize("line", guardkit_commands())
def test_every_guardkit_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    without_callbacks(get_command(app)).main(words, prog_name="guardkit", standalone_mode=False)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_that_a_sentence_names_exists(page: Path) -> None:
    shown = [span for span in code_spans(page) if span.startswith("guardkit ")]
    assert [span for span in shown if not names_a_command(span.split()[1:])] == []


def test_readme_shows_the_commands_that_newcomers_need() -> None:
    shown = {line.split()[1] for line in [*shell_lines(README), *code_spans(README)]
             if line.startswith("guardkit ")}  # fmt: skip
    assert shown >= {"train", "classify", "evaluate", "explain", "policy"}


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) < 150


@pytest.mark.parametrize("target", sorted(make_targets()))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, flags=re.M)


@pytest.mark.parametrize("source", [x for page in GUIDES for x in blocks("python", page)])
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


@pytest.mark.parametrize("source", [*blocks("yaml", README), *blocks("yaml", POLICIES)])
def test_every_policy_is_valid(source: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(source, "utf-8")
    check_policy(policy, uncertified=True)


def test_the_policy_reference_names_every_field() -> None:
    schema = Policy.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    fields = {field for part in parts for field in part.get("properties", {})}
    page = POLICIES.read_text("utf-8")
    assert {f for f in fields if not re.search(rf"\b{f}\b", page)} == set()


# cli.md shows the examples of the help texts, with files that are yet to be written
@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "cli.md"], ids=named)
def test_every_path_exists(page: Path) -> None:
    # what made a stored figure is where it was then
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", page.read_text("utf-8"), flags=re.S)
    paths = set(re.findall(rf"(?<![\w./~-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text))
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_resolves(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_links_every_page_and_pages_every_picture() -> None:
    files = [path for path in (ROOT / "docs").rglob("*") if path.is_file() and path != INDEX]
    linked = {page: targets(page) for page in PAGES}
    assert [named(f) for f in files if f.suffix == ".md" and f not in linked[INDEX]] == []
    shown = set().union(*linked.values())
    assert [named(f) for f in files if f.suffix != ".md" and f not in shown] == []


def test_every_public_name_is_described() -> None:
    section = HOOKS.read_text("utf-8").split("## Public names")[1].split("\n## ")[0]
    described = re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", section, flags=re.M)))
    assert sorted(described) == guardkit.__all__


def test_every_field_of_a_decision_is_explained() -> None:
    table = CLASSIFY.read_text("utf-8").split("| field | meaning |")[1].split("\n\n")[0]
    decision = Decision("1", "allow", {}, None, False, [], "0" * 12)
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.M) == list(decision_record(decision))


def links(page: Path) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    return [link for link in found if not re.match(r"https?:", link)]


def targets(page: Path) -> set[Path]:
    return {(page.parent / link.partition("#")[0]).resolve() for link in links(page)}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of ``page``."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.M):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        number = next(n for n in range(100) if (slug if n == 0 else f"{slug}-{n}") not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found
