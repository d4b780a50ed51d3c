"""Workers that die, on this machine and on a real Ray: nothing is lost, what kills is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
ROWS = 40_000
POLICY = """
version: 1
name: patterns
plugins: [deadly]
categories:
  odd:
    positive: [odd]
    decide: {pattern: {re2: "[13579]$"}}
    flag_at: {probability: 0.5}
    action: flag
"""
#: A plugin that is told of every batch: slow, and the death of its process where a text asks.
PLUGIN = """
import os, signal, time
from guardkit import hookimpl

@hookimpl
def decided(texts, decisions, policy):
    time.sleep(0.2)
    if any("DIE" in text for text in texts):
        os.kill(os.getpid(), signal.SIGKILL)
"""
ray = pytest.param(
    "ray", marks=pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
)
on_each_engine = pytest.mark.parametrize("engine", ["local", ray])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    lines = [json.dumps({"id": i, "text": f"text number {i}"}) + "\n" for i in range(ROWS)]
    (folder / "in.jsonl").write_text("".join(lines), "utf-8")
    lines[5000] = json.dumps({"id": 5000, "text": "DIE"}) + "\n"
    (folder / "deadly.jsonl").write_text("".join(lines[:14_000]), "utf-8")
    about = folder / "plugins" / "guardkit_deadly-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: guardkit-deadly\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[guardkit]\ndeadly = guardkit_deadly\n")
    (folder / "plugins" / "guardkit_deadly.py").write_text(PLUGIN)
    finish(start(folder, "in.jsonl", "whole.jsonl"))
    return folder


def start(
    folder: Path, source: str, out: str, *more: str, run: Sequence[str] = ("-m", "guardkit")
) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(folder / "plugins"), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"PYTHONPATH": path}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, *run, "classify", source, "--policy", "policy.yaml", "--out", out, *more],
        cwd=folder, env=environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    _, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return err


def parts(folder: Path, out: str) -> int:
    return len(list(folder.glob(f"{out}.parts/part-*")))


def wait_for_part(folder: Path, out: str, process: subprocess.Popen[str]) -> None:
    while not parts(folder, out):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)


def workers_of(pid: int) -> list[int]:
    """Return the processes below ``pid`` that do shards."""
    names = (b"spawn_main", b"ray::_RayWorker")
    found = []
    for child in children(pid):
        command = Path(f"/proc/{child}/cmdline").read_bytes()
        found += [child] if any(name in command for name in names) else []
    return found


def children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            yield child
            yield from children(child)


@on_each_engine
def test_a_worker_killed_in_the_middle_changes_no_byte(folder: Path, engine: str) -> None:
    out = f"killed-{engine}.jsonl"
    process = start(folder, "in.jsonl", out, "--workers", "2", "--engine", engine)
    wait_for_part(folder, out, process)
    victims = workers_of(process.pid)
    assert len(victims) >= 2
    os.kill(victims[0], signal.SIGKILL)
    assert 0 < parts(folder, out) < ROWS / 2000
    finish(process)
    assert (folder / out).read_bytes() == (folder / "whole.jsonl").read_bytes()
    assert not (folder / f"{out}.parts").exists()


@on_each_engine
def test_a_line_that_kills_every_worker_is_set_aside_alone_and_named(
    folder: Path, engine: str
) -> None:
    out = f"deadly-{engine}.jsonl"
    more = ["--workers", "2", "--engine", engine]
    err = finish(start(folder, "deadly.jsonl", out, *more), 3)
    assert "deadly.jsonl, row 5,001: its worker ended with " in err
    lines = [json.loads(line) for line in (folder / out).read_bytes().splitlines()]
    assert [line["id"] for line in lines] == list(range(14_000))
    assert [line["id"] for line in lines if line["error"]] == [5000]
    assert lines[5000]["action"] == "flag"  # never read as safe
    whole = [json.loads(line) for line in (folder / "whole.jsonl").read_bytes().splitlines()]
    assert lines[:5000] == whole[:5000]
    assert lines[5001:] == whole[5001:14_000]


def test_a_line_that_kills_the_only_process_is_named_by_the_second_resume(folder: Path) -> None:
    """The process is gone, and nobody is left to say so: what is done is kept."""
    resume: list[str] = []
    for _ in range(3):
        process = start(folder, "deadly.jsonl", "alone.jsonl", *resume)
        _, err = process.communicate(timeout=300)
        if process.returncode != -signal.SIGKILL:
            break
        resume = ["--resume"]
    assert process.returncode == 3, err
    assert resume
    assert "deadly.jsonl, row 5,001: its worker ended with SIGKILL" in err
    lines = [json.loads(line) for line in (folder / "alone.jsonl").read_bytes().splitlines()]
    assert [line["id"] for line in lines] == list(range(14_000))
    assert [line["id"] for line in lines if line["error"]] == [5000]
    assert lines[5000]["action"] == "flag"  # never read as safe


@pytest.mark.parametrize("changed", ["policy.yaml", "in.jsonl"])
def test_a_worker_that_is_replaced_after_a_change_stops_the_run_by_name(
    folder: Path, tmp_path: Path, changed: str
) -> None:
    for name in ("policy.yaml", "in.jsonl", "plugins"):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, tmp_path / name)
    process = start(tmp_path, "in.jsonl", "out.jsonl", "--workers", "2")
    wait_for_part(tmp_path, "out.jsonl", process)
    path = tmp_path / changed
    with path.open("r+b") as file:  # in place, and not a byte more
        content = file.read()
        file.seek(0)
        file.write(content.replace(b"0.5", b"0.6").replace(b"number 39", b"numbre 39"))
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    err = finish(process, 3)
    assert f"{changed}" in err
    assert "has changed since this run began" in err
    assert not (tmp_path / "out.jsonl").exists()


@on_each_engine
def test_a_signal_ends_it_within_seconds_and_resume_goes_on(folder: Path, engine: str) -> None:
    out = f"stopped-{engine}.jsonl"
    more = ["--workers", "2", "--engine", engine]
    process = start(folder, "in.jsonl", out, *more)
    wait_for_part(folder, out, process)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert "--resume" in finish(process, 130)
    assert time.monotonic() - began < 5
    finish(start(folder, "in.jsonl", out, "--resume"))  # here: not one byte is another
    assert (folder / out).read_bytes() == (folder / "whole.jsonl").read_bytes()


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_a_worker_that_sees_another_folder_is_a_clear_error(folder: Path) -> None:
    """Stands for a machine without the shared file system: it looks where there is nothing."""
    code = (
        "import sys\n"
        "from guardkit.classify import ray_pool\n"
        "from guardkit.cli.main import main\n"
        "ray_pool.Path = type('P', (), {'cwd': staticmethod(lambda: '/not/there')})\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    process = start(folder, "in.jsonl", "unseen.jsonl", "--engine", "ray", run=["-c", code])
    err = finish(process, 2)
    assert "error: /not/there: a Ray worker on" in err
    assert "a file system that all machines of the cluster share" in err
