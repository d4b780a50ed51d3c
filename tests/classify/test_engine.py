"""Classifying into a file in parts: whole, resumable, and the same bytes however it went."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit.classify import engine, shards, worker
from guardkit.classify.engine import classify_into
from guardkit.classify.job import Job
from guardkit.classify.rows import read_rows
from guardkit.classify.run_folder import MANIFEST, RunFolder
from guardkit.classify.shards import Input
from guardkit.classify.worker import Do, Worker, run_here
from guardkit.cli.main import main
from guardkit.errors import OutputError, RunError, UsageError
from tests.support.fake_models import FakeFamily, plugins_of, write_model

POLICY = """
version: 1
name: only
members: {only: {plugin: fake, model: model}}
categories:
  injection:
    positive: [injection]
    decide: {member: only}
    flag_at: {probability: 0.5}
    action: flag
"""


class Crash(BaseException):
    """What nothing in the engine may catch: the process is gone."""


def answer(_model: str, text: str) -> list[float]:
    if "BROKEN" in text:
        raise RuntimeError("cannot score this")
    return [0.0, 2.0 if "attack" in text else -2.0]


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    """Work in a folder with a model and a policy; a shard is seven rows."""
    family = FakeFamily(answer)
    write_model(tmp_path / "model")
    (tmp_path / "policy.yaml").write_text(POLICY, "utf-8")
    for module in ("model.loaded", "policy.router", "classify.job"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: plugins_of(family))
    monkeypatch.setattr(shards, "SHARD_ROWS", 7)
    monkeypatch.chdir(tmp_path)
    return family


def write_input(n: int, name: str = "in.jsonl") -> str:
    kinds = ["a cake", "an attack", "BROKEN"]
    lines = [json.dumps({"text": f"{kinds[i % 3]} {i}", "id": f"row {i}"}) for i in range(n)]
    lines[n // 2] = "not json"
    Path(name).write_text("\n".join(lines) + "\n", "utf-8")
    return name


JOB = Job(policy="policy.yaml")


def undisturbed(source: str) -> bytes:
    classify_into(Path("undisturbed.jsonl"), Input(source), JOB)
    return Path("undisturbed.jsonl").read_bytes()


def test_every_row_is_there_once_and_in_order_and_the_state_is_gone() -> None:
    outcome = classify_into(Path("out.jsonl"), Input(write_input(50)), JOB)
    out = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in out] == [f"row {i}" if i != 25 else 26 for i in range(50)]
    assert outcome.summary.rows == 50
    assert outcome.summary.unreadable == 1
    assert sum(outcome.summary.actions.values()) == 50
    assert not Path("out.jsonl.parts").exists()


@pytest.mark.parametrize("after", range(1, 8))
def test_a_run_that_died_anywhere_goes_on_to_the_same_bytes(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_input(50)
    whole = undisturbed(source)
    written = worker.Worker.write
    calls = 0

    def dying(self: worker.Worker, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        if calls == after:
            raise Crash
        calls += 1
        return written(self, *args, **kwargs)

    monkeypatch.setattr(worker.Worker, "write", dying)
    with pytest.raises(Crash):
        classify_into(Path("out.jsonl"), Input(source), JOB)
    assert not Path("out.jsonl").exists()
    monkeypatch.setattr(worker.Worker, "write", written)
    with pytest.raises(UsageError, match="--resume"):
        classify_into(Path("out.jsonl"), Input(source), JOB)
    outcome = classify_into(Path("out.jsonl"), Input(source), JOB, resume=True)
    assert outcome.resumed == 7 * after
    assert outcome.summary.rows == 50
    assert Path("out.jsonl").read_bytes() == whole


def interrupted(source: str, monkeypatch: pytest.MonkeyPatch, shards_done: int = 2) -> None:
    """Leave the state of a run that died after some shards."""
    with monkeypatch.context() as patched:
        write, calls = worker.Worker.write, []

        def dying(self: worker.Worker, *args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) > shards_done:
                raise Crash
            return write(self, *args, **kwargs)

        patched.setattr(worker.Worker, "write", dying)
        with pytest.raises(Crash):
            classify_into(Path("out.jsonl"), Input(source), JOB)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "wrong",
    [
        ["--model", "absent"],
        ["--model", "uncalibrated"],
        ["--model", "unloadable"],
        ["--policy", "absent.yaml"],
        ["--policy", "unloadable.yaml"],
    ],
)
def test_a_run_that_could_not_begin_leaves_nothing_in_the_way_of_the_corrected_one(
    wrong: list[str], workers: int, desk: FakeFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(Path("uncalibrated"), calibrated=False)
    write_model(Path("unloadable"))
    Path("unloadable.yaml").write_text(POLICY.replace("model: model", "model: unloadable"))
    load = desk.load

    def failing(path: Path, **how: Any) -> Any:
        if path.name == "unloadable":
            raise RunError("cannot be loaded")
        return load(path, **how)

    monkeypatch.setattr(desk, "load", failing)
    source = write_input(50)
    common = ["classify", source, "--out", "out.jsonl", "--workers", str(workers)]
    assert main([*common, *wrong]) in (2, 3)
    assert not Path("out.jsonl.parts").exists()
    assert not Path("out.jsonl").exists()
    for more in ([], ["--resume"]):
        assert main(["classify", source, "--out", "out.jsonl", "--model", "model", *more]) == 3


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_killed_before_its_first_part_leaves_nothing_in_the_way(resume: bool) -> None:
    source = write_input(50)
    whole = undisturbed(source)
    folder = RunFolder(Path("out.jsonl").resolve())
    folder.path.mkdir()
    other = {"format": 99, "inputs": [], "settings": {}}
    Path(folder.path, MANIFEST).write_text(json.dumps(other))
    outcome = classify_into(Path("out.jsonl"), Input(source), JOB, resume=resume)
    assert outcome.resumed == 0
    assert Path("out.jsonl").read_bytes() == whole
    assert not folder.path.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda: Path("in.jsonl").write_text('{"text": "other"}\n'), "in.jsonl has changed"),
        (lambda: Path("policy.yaml").write_text(POLICY + "\n"), "policy is"),
        (lambda: write_model_again(), "policy's model 'only' is"),
    ],
)
def test_what_changed_meanwhile_is_named_and_nothing_is_resumed(
    change: Any, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_input(50)
    interrupted(source, monkeypatch)
    change()
    with pytest.raises(UsageError, match=named):  # a new process: the policy is read again
        classify_into(Path("out.jsonl"), Input(source), replace(JOB), resume=True)


def write_model_again() -> None:
    import shutil

    shutil.rmtree("model")
    write_model(Path("model"), scale=2.0)


def test_a_part_damaged_on_disk_is_found_and_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_input(50)
    whole = undisturbed(source)
    interrupted(source, monkeypatch)
    part = Path("out.jsonl.parts/part-00000001")
    part.write_bytes(part.read_bytes().replace(b"allow", b"blokk", 1))
    with pytest.raises(OutputError, match="damaged"):
        classify_into(Path("out.jsonl"), Input(source), JOB, resume=True)
    classify_into(Path("out.jsonl"), Input(source), JOB, resume=True)
    assert Path("out.jsonl").read_bytes() == whole


def test_two_runs_never_write_one_output() -> None:
    source = write_input(9)
    with (
        RunFolder(Path("out.jsonl").resolve()).held(),
        pytest.raises(UsageError, match="another run"),
    ):
        classify_into(Path("out.jsonl"), Input(source), JOB)


def test_a_row_that_fails_every_time_is_set_aside_alone_and_named_and_tried_again_on_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = write_input(21)
    whole = undisturbed(source)
    decide = worker.Worker.decide

    def failing(self: worker.Worker, rows: list[Any]) -> Any:
        if any(row.line == 10 for row in rows):
            raise MemoryError("no room")
        return decide(self, rows)

    with monkeypatch.context() as patched:
        patched.setattr(worker.Worker, "decide", failing)
        outcome = classify_into(Path("out.jsonl"), Input(source), JOB)
    assert outcome.set_aside == {"in.jsonl, row 10": "MemoryError: no room"}
    out = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len(out) == 21
    assert out[9]["action"] == "flag"  # on_error is closed: it never reads as safe
    assert "no room" in out[9]["error"]
    others = whole.splitlines()
    assert [json.dumps(line) for i, line in enumerate(out) if i != 9] == [
        json.dumps(json.loads(line)) for i, line in enumerate(others) if i != 9
    ]
    outcome = classify_into(Path("out.jsonl"), Input(source), JOB, resume=True)
    assert not outcome.set_aside
    assert Path("out.jsonl").read_bytes() == whole


def test_a_shard_of_which_every_row_fails_is_halved_for_so_many_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "SHARD_ROWS", 64)
    monkeypatch.setattr(worker, "MOST_ALONE", 3)
    calls = []

    def failing(self: worker.Worker, rows: list[Any]) -> Any:
        calls.append(len(rows))
        raise MemoryError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(worker.Worker, "decide", failing)
        outcome = classify_into(Path("out.jsonl"), Input(write_input(64)), JOB)
    assert calls[:3] == [64, 64, 64]
    assert len(calls) < 20
    named = list(outcome.set_aside)
    assert named[:3] == [f"in.jsonl, row {n}" for n in (1, 2, 3)]
    assert named[-1] == "in.jsonl, rows 33 to 64"
    out = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert len(out) == 64
    assert all(line["error"] for line in out)


@pytest.mark.parametrize("parts", [0, 1, 2, 3])
def test_a_run_that_died_twice_at_one_place_goes_on_in_another_process(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two parts were still being written, perhaps, when the line at fault was judged."""
    source = write_input(50)
    whole = undisturbed(source)
    interrupted(source, monkeypatch, 5)
    began = len(list(Path("out.jsonl.parts").glob("part-*"))) - parts
    Path("out.jsonl.parts", "running").write_text(str(began))  # what SIGKILL leaves
    elsewhere = []

    @contextmanager
    def processes(worker: Worker, n: int, timeout_s: float) -> Iterator[Do]:
        elsewhere.append(n)
        yield lambda shards, finished: run_here(shards, worker, finished)

    monkeypatch.setattr(engine, "processes", processes)
    classify_into(Path("out.jsonl"), Input(source), JOB, resume=True)
    assert elsewhere == ([1] if parts <= 2 else [])
    assert Path("out.jsonl").read_bytes() == whole
    assert not Path("out.jsonl.parts").exists()


def test_several_files_are_one_input_and_their_rows_say_which() -> None:
    Path("mail").mkdir()
    for name in ("b.txt", "a.txt"):
        Path("mail", name).write_text("a cake\nan attack\n")
    for spec in ("mail", "mail/*.txt"):
        classify_into(Path("out.jsonl"), Input(spec), Job(policy="policy.yaml", named=True))
        out = [json.loads(line)["id"] for line in Path("out.jsonl").read_text().splitlines()]
        assert out == ["mail/a.txt:1", "mail/a.txt:2", "mail/b.txt:1", "mail/b.txt:2"]


lines_of_bytes = st.binary(max_size=12).map(lambda line: line.replace(b"\n", b""))


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=40),
    st.booleans(),
)
def test_shards_of_a_file_of_lines_are_the_rows_of_the_whole_file(
    lines: list[bytes], ended: bool
) -> None:
    path = Path("lines.jsonl")
    path.write_bytes(b"\n".join(lines) + (b"\n" if ended and lines else b""))
    source = Input(str(path))
    source.scan()
    cut = list(source.shards((), set(), lambda shard: None))
    got = [row for shard in cut for row in shard.read((), with_names=False)]
    with read_rows(path) as rows:
        assert got == list(rows)
    assert source.rows == len(got)
    assert [shard.index for shard in cut] == list(range(source.count))
    assert all(shard.count <= shards.SHARD_ROWS for shard in cut)


@pytest.mark.parametrize("spec", ["in.csv?delimiter=^", "*.csv?delimiter=%5E", ".?delimiter=^"])
def test_what_separates_the_fields_of_csv_is_named_after_the_file(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    Path("in", "in.csv").write_text("id^text\n1^a, cake; a | cup\n2^an attack\n", "utf-8")
    monkeypatch.chdir("in")
    source, job = Input(spec), Job(policy="../policy.yaml")
    assert [row.texts for row in job.rows(source)] == [("a, cake; a | cup",), ("an attack",)]
    classify_into(Path("../out.jsonl"), source, job)
    lines = Path("../out.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in lines] == ["allow", "flag"]


def test_a_run_is_not_resumed_with_another_delimiter(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("in.csv").write_text("text|y^text\n" + "a|b^c\n" * 50, "utf-8")
    interrupted("in.csv?delimiter=^", monkeypatch)
    with pytest.raises(UsageError, match=r"delimiter is \|; it was \^"):
        classify_into(Path("out.jsonl"), Input("in.csv?delimiter=|"), JOB, resume=True)


def test_an_option_after_the_input_that_does_not_fit_is_named() -> None:
    Path("in.csv").write_text("body^id\na^1\n", "utf-8")
    write_input(5)
    for spec, said in {
        "in.csv?text=body": "unknown option 'text' for rows to classify; known: delimiter",
        "in.csv?delimiter=ab": "expected one character that separates fields, or tab",
        "in.jsonl?delimiter=^": "delimiter= is for CSV files, and this is none",
        "-?delimiter=^": "delimiter= is for CSV files, and this is none",
        "in.csv": r"separates the fields of a CSV file: 'in.csv\?delimiter=CHARACTER'",
        "none?.csv": "no file fits this pattern",
    }.items():
        with pytest.raises(UsageError, match=said):
            Input(spec)


def test_a_file_whose_name_looks_like_an_option_is_that_file() -> None:
    name = write_input(5, "a?delimiter=^")
    assert Input(name).paths == [name]


def test_the_command_resumes_and_refuses_without_an_output_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_input(50)
    interrupted(source, monkeypatch)
    assert Path("out.jsonl.parts", MANIFEST).is_file()
    args = ["classify", source, "--policy", "policy.yaml"]
    assert main([*args, "--resume"]) == 2
    assert "--out" in capsys.readouterr().err
    assert main([*args, "--out", "out.jsonl", "--resume"]) == 3  # it has lines it cannot judge
    assert "50 lines" in capsys.readouterr().err


def test_a_long_run_says_where_its_time_went() -> None:
    from guardkit.cli.output import times_line

    summary = classify_into(Path("out.jsonl"), Input(write_input(20)), JOB).summary
    assert set(summary.times) == {"read", "judge", "write"}
    assert times_line(summary) is None
    summary.times = {"read": 1.0, "judge": 18.0, "write": 1.0}
    assert times_line(summary) == "of 20 s of work: read 5%, judge 90%, write 5%"


def test_standard_input_is_resumed_where_it_is_fed_the_same_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Path(write_input(50)).read_bytes()
    whole = undisturbed("in.jsonl")

    def feed(content: bytes) -> str:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        return "-"

    interrupted(feed(data), monkeypatch, shards_done=3)
    for changed in (data.replace(b"row 0", b"row O"), data.replace(b"cake", b"pie")):
        with pytest.raises(UsageError, match="not what it was"):
            classify_into(Path("out.jsonl"), Input(feed(changed)), JOB, resume=True)
    outcome = classify_into(Path("out.jsonl"), Input(feed(data)), JOB, resume=True)
    assert outcome.resumed == 21
    assert Path("out.jsonl").read_bytes() == whole


def test_a_resumed_run_counts_its_speed_by_what_it_did_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_input(50)
    interrupted(source, monkeypatch)
    args = ["classify", source, "--policy", "policy.yaml", "--out", "out.jsonl", "--resume"]
    main(args)
    assert "s (14 were done before; " in capsys.readouterr().err
