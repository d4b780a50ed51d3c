"""The folder of a run beside its output: only what a run wrote itself is ever removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardkit.classify.engine import classify_into
from guardkit.classify.job import Job
from guardkit.classify.run_folder import MANIFEST, RunFolder
from guardkit.classify.shards import Input
from guardkit.errors import UsageError
from tests.reliability.runs import POLICY

MANIFEST_OF_ANOTHER_VERSION = json.dumps({"format": 99, "inputs": [], "settings": {}})


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY, "utf-8")
    Path("in.jsonl").write_text('{"text": "number 1"}\n{"text": "number 2"}\n', "utf-8")


def run() -> None:
    classify_into(Path("out.jsonl"), Input("in.jsonl"), Job(policy="policy.yaml"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "files",
    [
        {"notes.txt": "mine"},
        {"part-notes": "mine"},
        {"part-00000001": "mine"},
        {"part-00000001": '{"shard": 1}\n'},
        {"lock": "mine"},
        {"running": "mine"},
        {".hidden": ""},
        {"deep/down/notes.txt": "mine"},
        {"manifest.json": '{"mine": 1}'},
        {"manifest.json": "no JSON"},
        {"manifest.json": "[1]", "part-00000000": "mine"},
        {"lock": "", "notes.txt": "mine"},
    ],
)
def test_a_folder_that_no_run_made_is_refused_and_every_byte_of_it_is_left(
    files: dict[str, str],
) -> None:
    folder = Path("out.jsonl.parts")
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    before = everything(folder)
    with pytest.raises(UsageError, match="was not written by guardkit"):
        run()
    assert everything(folder) == before
    assert not Path("out.jsonl").exists()


def test_a_link_in_the_folders_place_is_refused_and_what_it_points_to_is_left() -> None:
    Path("mine").mkdir()
    Path("mine", "notes.txt").write_text("mine")
    for target in ("mine", "nowhere", "mine/notes.txt"):
        Path("out.jsonl.parts").symlink_to(target)
        with pytest.raises(UsageError, match="is a link"):
            run()
        Path("out.jsonl.parts").unlink()
    assert everything(Path("mine")) == {"notes.txt": b"mine"}


def test_a_file_in_the_folders_place_is_refused_and_left() -> None:
    Path("out.jsonl.parts").write_text("mine")
    with pytest.raises(UsageError, match="is no folder"):
        run()
    assert Path("out.jsonl.parts").read_text() == "mine"


def test_a_link_of_a_parts_or_the_locks_name_is_no_file_of_ours() -> None:
    Path("mine.txt").write_text("")
    for name in ("lock", "part-00000000", MANIFEST, ".writing-x"):
        folder = Path("out.jsonl.parts")
        folder.mkdir()
        (folder / name).symlink_to("../mine.txt")
        with pytest.raises(UsageError, match="was not written by guardkit"):
            run()
        (folder / name).unlink()
        folder.rmdir()


def test_what_the_user_put_beside_a_runs_own_files_is_left_when_it_ends() -> None:
    folder = RunFolder(Path("out.jsonl").resolve())
    folder.path.mkdir()
    (folder.path / MANIFEST).write_text(MANIFEST_OF_ANOTHER_VERSION)
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "part-of-mine").write_text("mine")
    run()
    assert len(Path("out.jsonl").read_bytes().splitlines()) == 2
    assert everything(folder.path) == {"notes.txt": b"mine", "part-of-mine": b"mine"}


def test_an_empty_folder_and_what_a_crash_left_in_it_are_taken() -> None:
    folder = Path("out.jsonl.parts")
    for names in ((), ("lock",), ("lock", ".writing-manifest.json.7")):
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        run()
        assert not folder.exists()
