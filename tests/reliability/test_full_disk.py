"""A disk that is really full, at ten levels: the message names the path and the room that is left,
and once there is room the run goes on to the same bytes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .runs import POLICY, Running, write_input

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(300)]
ROWS, SHARD_ROWS = 6_000, 200
DISK_BYTES = 8 * 2**20
LEVELS = 10


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with an input, and in it a small disk of its own, ``disk/``."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "policy.yaml").write_text(POLICY, "utf-8")
    write_input(folder / "in.jsonl", ROWS)
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "guardkit-test", str(disk)]
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if (mounted := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_does_not_fit_goes_on_when_it_does(disk: Path, workers: int) -> None:
    folder, more = disk.parent, ["--workers", str(workers)]
    run = Running(folder, "whole.jsonl", shard_rows=SHARD_ROWS)
    run.finish()
    whole = (folder / "whole.jsonl").read_bytes()
    needed = 2 * len(whole) + 2**18  # the parts and the output beside them, in whole pages
    assert needed < DISK_BYTES
    stopped_with = set()
    for level in range(LEVELS) if workers == 1 else (1, 5, 9):
        filler = disk / "filler"
        filler.touch()
        free = shutil.disk_usage(disk).free
        os.truncate(filler, 0)
        with filler.open("wb") as file:
            file.write(bytes(free - needed * level // LEVELS))
        log = folder / "run.log"
        run = Running(folder, "disk/out.jsonl", *more, shard_rows=SHARD_ROWS, log=log)
        assert run.end() == 3, run.said()
        assert re.search(r"error: \S*/disk/out\.jsonl\S*: cannot be written: No space", run.said())
        assert re.search(r"\([\d,]+ bytes are free there\)", run.said())
        assert "Traceback" not in run.said()
        assert not (disk / "out.jsonl").exists()
        stopped_with.add(run.parts())
        filler.unlink()
        run = Running(folder, "disk/out.jsonl", *more, "--resume", shard_rows=SHARD_ROWS, log=log)
        run.finish()
        assert (disk / "out.jsonl").read_bytes() == whole
        assert [path.name for path in disk.iterdir()] == ["out.jsonl"]
        (disk / "out.jsonl").unlink()
    assert 0 in stopped_with or workers == 2
    assert max(stopped_with) > 0.8 * ROWS // SHARD_ROWS
    assert len(stopped_with) >= (5 if workers == 1 else 2)
