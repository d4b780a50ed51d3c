"""benchmarks/engine/io_null.py on few lines: memory does not grow with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.engine import io_null


@pytest.mark.reliability
@pytest.mark.timeout(300)
def test_ten_times_as_many_lines_take_no_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(io_null, "MEMORY_LINES", (10_000, 100_000))
    work = tmp_path / "work"
    io_null.prepare(work)
    found = io_null.memory(work, 1, 1.0)
    for workers, growth in found["growth"].items():
        assert growth < 0.10, (workers, found["rows"])
        assert min(found["rows"][workers].values()) > 20 * 2**20  # it was really measured
