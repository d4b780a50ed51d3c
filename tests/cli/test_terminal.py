"""What reaches a terminal, whoever wrote it and whatever the terminal is."""

import ast
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from guardkit.cli.console import console
from guardkit.cli.main import main
from guardkit.model.artefact import CARD, SUMS, seal
from tests.support.fake_models import write_model

ROOT = Path(__file__).parents[2]
CLI = ROOT / "guardkit" / "cli"
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e[/red][bold]"
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
POLICY = """\
version: 1
name: patterns
categories:
  injection: {decide: {pattern: {re2: 'PATTERN'}}, flag_at: {probability: 0.5}, action: block}
"""


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "guardkit", *args]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "hello"}\n')
    return path


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_text_that_the_encoding_of_the_terminal_lacks_is_escaped(encoding: str) -> None:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    text = "hello \u4f60"
    ran = subprocess.run(command("explain", text), env=env, capture_output=True, check=False)
    out = ran.stdout.decode(encoding)
    assert ran.returncode == 0, ran.stderr
    assert r"\u4f60" in out


def test_policy_test_prints_in_a_locale_without_unicode(tmp_path: Path) -> None:
    policy = tmp_path / "p.yaml"
    text = POLICY.replace("PATTERN", "ignore").replace("version", "tests: TESTS\nversion")
    long = "\u4f60" * 100  # cut with an ellipsis, in a table with lines
    policy.write_text(text.replace("TESTS", f"[{{text: {long}, expect: {{injection: allow}}}}]"))
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = subprocess.run(
        command("policy", "test", str(policy)), env=env, capture_output=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert rb"\u4f60" in ran.stdout
    assert rb"\u2026" in ran.stdout


def test_nothing_in_a_model_reaches_a_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_model(tmp_path / f"m{HOSTILE.replace('/', '')}", ["benign", f"x{HOSTILE}"])
    (folder / CARD).write_text(f"# {HOSTILE}\n\n[link](http://e/\x1b]8;;x) `{HOSTILE}`\n")
    seal(folder)
    assert main(["models", "show", str(folder)]) == 0
    shown = capsys.readouterr().out
    assert not RAW.search(shown)
    assert "[U+001B]" in shown
    assert "[U+202E]" in shown
    assert "[/red]" in shown
    assert main(["models", "verify", str(folder)]) == 0
    (folder / SUMS).write_text(f"{'0' * 64}  {HOSTILE}\n")
    assert main(["models", "verify", str(folder)]) == 2
    said = capsys.readouterr()
    assert not RAW.search(said.out + said.err)
    assert "[U+001B]" in said.err


def test_no_error_reaches_a_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "p.yaml"
    policy.write_text(POLICY.replace("'PATTERN'", r'"(\e[2J\u202e"'))  # a regular expression's
    hostile = str(tmp_path / f"{HOSTILE.replace('/', '')}.jsonl")
    for args in (
        ["policy", "check", str(policy)],
        ["policy", "check", hostile],
        ["classify", hostile],
        ["classify", "a", hostile],  # told by typer
        ["classify", f"--{HOSTILE}"],
        [HOSTILE],
        ["explain", "x", "--model", hostile],
    ):
        assert main(args) == 2
        said = capsys.readouterr()
        assert not RAW.search(said.out + said.err), args
        assert re.search(r"\[U\+|\\x1b", said.err), args
        assert "Traceback" not in said.err


def test_a_bug_that_quotes_a_text_does_not_print_it_raw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr("guardkit.plugins.installed_plugins", broken)
    assert main(["plugins"]) == 3
    said = capsys.readouterr().err
    assert "RuntimeError" in said
    assert not RAW.search(said)


def test_a_table_on_a_terminal_has_colours_but_no_escape_of_a_cell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out._force_terminal = True
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    with out.capture() as captured:
        out.print(table)
        out.print(Text(HOSTILE, style="red"))
    without_colours = re.sub(r"\x1b\[[\d;]*m", "", captured.get())
    assert not RAW.search(without_colours)
    assert "[/red]" in without_colours


def test_decisions_on_a_terminal_are_the_same_json_with_nothing_raw_in_it(tmp_path: Path) -> None:
    policy, source = tmp_path / "p.yaml", tmp_path / "in.jsonl"
    policy.write_text(POLICY.replace("PATTERN", "ignore"))
    source.write_text('{"id": "a\u202e\x9b31m\U0001f600", "text": "hello"}\n')
    args = command("classify", str(source), "--policy", str(policy))
    piped = subprocess.run(args, capture_output=True, check=True).stdout.decode()
    leader, follower = pty.openpty()
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    subprocess.run(args, stdout=follower, stderr=subprocess.DEVNULL, env=env, check=True)
    shown = os.read(leader, 65536).decode().replace("\r\n", "\n")
    os.close(leader), os.close(follower)
    assert "\u202e" in piped
    assert not RAW.search(shown)
    assert r"\u202e\u009b31m" in shown
    assert "\U0001f600" in shown
    assert ast.literal_eval(shown.split(",")[0][6:]) == ast.literal_eval(piped.split(",")[0][6:])


def test_every_command_prints_by_the_one_module() -> None:
    for path in CLI.glob("*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in ("print", "Console", "typer.echo"), f"{path.name}: {called}"
            assert not re.match(r"sys\.(stdout|stderr)\.write", called), path.name
            assert called != "traceback.print_exc", path.name


COMMANDS = {
    "help": ["--help"],
    "help of a command": ["policy", "check", "--help"],
    "version": ["--version"],
    "plugins": ["plugins"],
    "models list": ["models", "list"],
    "models show": ["models", "show", "builtin:mdlm/injection"],
    "models verify": ["models", "verify", "builtin:mdlm/injection"],
    "policy schema": ["policy", "schema"],
    "policy check": ["policy", "check", "policies/default.yaml"],
    "policy test": ["policy", "test", "policies/default.yaml"],
    "explain": ["explain", "hello"],
    "classify": ["classify", "IN"],
}


def run(name: str, lines: Path, tail: str) -> subprocess.CompletedProcess[str]:
    """Run a command by a shell, which ``tail`` tells where its streams go."""
    args = [str(lines) if x == "IN" else x for x in COMMANDS[name]]
    return subprocess.run(
        ["bash", "-c", f'"$@" {tail}', "bash", *command(*args)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_goes_away_is_141_for_every_command(name: str, lines: Path) -> None:
    ran = run(name, lines, "| true; exit ${PIPESTATUS[0]}")
    assert (ran.returncode, ran.stderr) == (141, "")


def test_an_output_in_a_folder_that_is_not_there_says_so_once(lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "out.jsonl"
    for more in ([], ["--workers", "2"], ["--model", "builtin:mdlm/injection"]):
        args = command("classify", str(lines), "--out", str(out), *more)
        ran = subprocess.run(args, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert ran.stderr == f"error: --out {out}: its folder is not there; make it first\n"
    assert not out.parent.exists()


@pytest.mark.parametrize("args", [["nope"], ["classify", "nope.jsonl"]])
def test_an_error_that_nobody_reads_ends_quietly(args: list[str]) -> None:
    shell = ["bash", "-c", '"$@" 2>&1 | true; exit ${PIPESTATUS[0]}', "bash", *command(*args)]
    ran = subprocess.run(shell, capture_output=True, text=True, check=False)
    assert ran.returncode in (2, 141)
    assert not ran.stderr


@pytest.mark.parametrize("where", [">&-", "> /dev/full"])
@pytest.mark.parametrize("name", ["models list", "policy schema", "classify", "version"])
def test_standard_output_that_cannot_be_written_is_one_line(
    name: str, where: str, lines: Path
) -> None:
    ran = run(name, lines, where)
    assert ran.returncode == 3
    assert re.fullmatch(r"error: standard output: cannot be written: [\w ]+\n", ran.stderr)


@pytest.mark.parametrize("name", ["models list", "classify", "help"])
def test_a_command_works_without_standard_error_and_input(name: str, lines: Path) -> None:
    ran = run(name, lines, "2>&- <&-")
    assert ran.returncode == 0
    assert ran.stdout


def test_standard_input_that_is_closed_is_not_read_as_empty() -> None:
    for args in (["classify", "-"], ["explain", "-"]):
        shell = ["bash", "-c", '"$@" <&-', "bash", *command(*args)]
        ran = subprocess.run(shell, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert re.search(r"cannot be read: Bad file descriptor", ran.stderr)
        assert "Traceback" not in ran.stderr


def test_a_run_saves_its_output_with_all_streams_closed(lines: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    shell = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash"]
    args = command("classify", str(lines), "--out", str(out))
    assert subprocess.run([*shell, *args], check=False).returncode == 0
    assert out.read_bytes().startswith(b'{"id":1,')
    assert out.read_bytes().count(b"\n") == 1
