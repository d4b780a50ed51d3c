"""A run goes on only over what it began with: any difference is refused and named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .plugin import install, installed, write_deeds
from .runs import Running

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        stat = path.stat()
        path.write_bytes(change(path.read_bytes()))
        os.utime(path, (stat.st_atime, stat.st_mtime))  # a date alone would tell nothing

    return apply


def other_model(folder: Path) -> None:
    from guardkit.model.artefact import CALIBRATION, SUMS, seal

    path = folder / "model" / CALIBRATION
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "scale": [2.0, 2.0]}))
    (folder / "model" / SUMS).unlink()
    seal(folder / "model")


def damaged_model(folder: Path) -> None:
    path = folder / "model" / "calibration.json"
    path.write_text(path.read_text().replace("1.0", "3.0", 1))


def renamed(folder: Path) -> None:
    (folder / "in.jsonl").rename(folder / "mine.jsonl")
    (folder / "in.jsonl").write_bytes(b"")


def nothing(folder: Path) -> None:
    pass


CASES: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "a line more": (
        edit("in.jsonl", lambda b: b + b'{"text": "x 1"}\n'), [], "in.jsonl has changed"),
    "no last line": (
        edit("in.jsonl", lambda b: b[: b[:-1].rfind(b"\n") + 1]), [], "in.jsonl has changed"),
    "cut": (edit("in.jsonl", lambda b: b[: len(b) // 2]), [], "in.jsonl has changed"),
    "emptied": (edit("in.jsonl", lambda b: b""), [], "in.jsonl has changed"),
    "one byte": (
        edit("in.jsonl", lambda b: b.replace(b" 7", b" 8", 1)), [], "in.jsonl has changed"),
    "two lines swapped": (
        edit("in.jsonl", lambda b: b"\n".join([*(x := b.split(b"\n"))[1::-1], *x[2:]])), [],
        "in.jsonl has changed"),
    "gone": (lambda folder: (folder / "in.jsonl").unlink(), [], "in.jsonl: cannot be opened"),
    "threshold": (
        edit("policy.yaml", lambda b: b.replace(b"0.5", b"0.6")), [], "policy is"),
    "no policy": (lambda folder: (folder / "policy.yaml").unlink(), [], "policy.yaml"),
    "another model": (other_model, [], "policy's model 'only' is"),
    "a damaged model": (damaged_model, [], "calibration.json: its SHA-256 is not the one in"),
    "--keep": (nothing, ["--keep", "id2"], "--keep is ['id2']; it was []"),
    "--shadow": (nothing, ["--shadow", "policy.yaml"], "shadow policy is"),
    "--device": (nothing, ["--device", "cpu"], "--device is cpu; it was auto"),
}  # fmt: skip


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed after some of its parts."""
    folder = tmp_path_factory.mktemp("interrupted")
    install(folder)
    write_deeds(folder / "in.jsonl", 200, {101: "sleep"})
    run = Running(folder, "out.jsonl", shard_rows=20, within=installed)
    run.wait_for_parts(3)
    run.kill()
    run.end()
    assert 3 <= run.parts() < 10
    return folder


@pytest.mark.parametrize("name", CASES)
def test_a_difference_is_refused_and_named(interrupted: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(interrupted, folder)
    change, more, said = CASES[name]
    change(folder)
    before = sorted(os.listdir(folder / "out.jsonl.parts"))
    run = Running(folder, "out.jsonl", "--resume", *more, shard_rows=20, within=installed)
    assert run.end() == 2, run.said()
    assert said in run.said()
    assert "Traceback" not in run.said()
    assert sorted(os.listdir(folder / "out.jsonl.parts")) == before
    assert not (folder / "out.jsonl").exists()


def test_of_two_runs_into_one_output_the_second_is_refused(tmp_path: Path) -> None:
    install(tmp_path)
    write_deeds(tmp_path / "in.jsonl", 100, {57: "sleep"})
    first = Running(tmp_path, "out.jsonl", shard_rows=20, within=installed)
    first.wait_for_parts(1)
    time.sleep(0.2)
    for more in ([], ["--resume"]):
        second = Running(tmp_path, "out.jsonl", *more, shard_rows=20, within=installed)
        assert second.end() == 2
        assert "another run is writing out.jsonl" in second.said()
    first.kill(signal.SIGTERM)
    assert first.end() == 130


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_a_run_killed_before_its_first_part_is_not_in_the_way_of_another(
    tmp_path: Path, resume: list[str]
) -> None:
    install(tmp_path)
    write_deeds(tmp_path / "in.jsonl", 40, {3: "sleep"})
    run = Running(tmp_path, "out.jsonl", shard_rows=20, within=installed)
    manifest = tmp_path / "out.jsonl.parts" / "manifest.json"
    while not manifest.is_file():
        assert run.process.is_alive(), run.said()
        time.sleep(0.01)
    run.kill()
    run.end()
    assert run.parts() == 0
    write_deeds(tmp_path / "in.jsonl", 40, {})
    Running(tmp_path, "out.jsonl", *resume, shard_rows=20, within=installed).finish()
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 40
    assert not manifest.parent.exists()
