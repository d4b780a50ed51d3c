"""README and docs show what their commands print; commands that need no training run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from guardkit.cli.main import main

from .pages import GUIDES, README, ROOT, blocks, code_spans, shell_lines

CALIBRATION = ROOT / "docs" / "calibration.md"
POLICIES = ROOT / "docs" / "policies.md"
NUMBER = r"\d+\.\d+"
#: What a command needs that is not in the repository: a trained model, somebody's data, the hub.
#: Or an end: a server has none (tests/serve/test_process.py runs it).
NEEDS = r"models/|hf:|tickets|new-attack|held-out|(stacked|certified)\.yaml|torchrun|pip |serve"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout to commands, where they may write."""
    for name in ("examples", "policies"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str, *, code: int = 0) -> None:
    words = shlex.split(command)
    assert words[0] == "guardkit"
    assert main(words[1:]) == code


def same_but_for_last_digits(printed: str, shown: str, *, within: float = 0.01) -> None:
    """Compare word by word; another processor moves the last digits of a score."""
    assert re.sub(NUMBER, "#", printed).split() == re.sub(NUMBER, "#", shown).split()
    values = [float(x) for x in re.findall(NUMBER, printed)]
    assert values == pytest.approx([float(x) for x in re.findall(NUMBER, shown)], abs=within)


def test_calibrate_prints_what_its_page_shows(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = (x for x in shell_lines(CALIBRATION) if x.startswith("guardkit calibrate "))
    (shown,) = blocks("text", CALIBRATION)
    run(f"{command} --device cpu")
    printed = capsys.readouterr().out.splitlines()
    # a score that moves may put a text into the next bin of the ECE
    for line, expected in zip(printed, shown.splitlines(), strict=False):
        same_but_for_last_digits(line, expected)
    assert len(printed) > len(shown.splitlines())
    assert (checkout / "reliability.svg").is_file()


def test_the_first_run_gives_what_readme_shows(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *_ = (x for x in shell_lines(README) if x.startswith("guardkit classify "))
    (summary,) = blocks("text", README)
    (lines,) = blocks("json", README)
    run(f"{command} --device cpu")
    counts = re.compile(r"^\d+ lines|\d+ (?:allow|flag|abstain|block)")
    assert counts.findall(capsys.readouterr().err) == counts.findall(summary)
    written = (checkout / "decisions.jsonl").read_text("utf-8").splitlines(keepends=True)
    same_but_for_last_digits("".join(written[:2]), lines, within=1e-4)


def test_certify_prints_what_its_page_shows(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (policy,) = (x for x in blocks("yaml", POLICIES) if "name: certified" in x)
    (shown,) = (x for x in blocks("text", POLICIES) if "certified.certificates.json" in x)
    (checkout / "certified.yaml").write_text(policy, "utf-8")
    (command,) = (x for x in shell_lines(POLICIES) if x.startswith("guardkit policy certify "))
    run(f"{command} --device cpu")
    same_but_for_last_digits(capsys.readouterr().out, shown)


def test_stack_writes_the_weights_that_its_page_shows(checkout: Path) -> None:
    (policy,) = (x for x in blocks("yaml", POLICIES) if "name: stacked" in x)
    fitted = re.compile(r"^ +(?:weights|bias):.*\n", flags=re.M)
    (checkout / "stacked.yaml").write_text(fitted.sub("", policy), "utf-8")
    (command,) = (x for x in shell_lines(POLICIES) if x.startswith("guardkit policy stack "))
    run(f"{command} --device cpu")
    written = (checkout / "stacked.yaml").read_text("utf-8")
    values = [re.findall(NUMBER, "".join(fitted.findall(text))) for text in (written, policy)]
    assert [float(x) for x in values[0]] == pytest.approx([float(x) for x in values[1]], abs=0.01)


def test_every_other_command_that_needs_no_training_runs(checkout: Path) -> None:
    shown = [x for page in GUIDES for x in shell_lines(page)] + code_spans(README)
    commands = [x for x in dict.fromkeys(shown) if x.startswith("guardkit ")]
    runnable = [x for x in commands if not re.search(NEEDS, x)]
    for command in runnable:
        # some of the examples are blocked, and --fail-on says so
        run(command, code=1 if "--fail-on" in command else 0)
    assert {x.split()[1] for x in runnable} >= {
        "classify", "evaluate", "explain", "models", "plugins", "policy",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "training.md"], ids=lambda p: p.name)
def test_the_commands_of_a_page_that_trains_run_in_order(page: Path, checkout: Path) -> None:
    commands = [x for x in shell_lines(page) if x.startswith("guardkit ") and "models/mine" in x]
    assert commands[0].startswith("guardkit train ")
    for command in commands:
        run(command)
