"""What a log and a terminal show of a command at work."""

from __future__ import annotations

import pytest

from guardkit.cli import progress as progress_module


def test_a_log_tells_how_far_a_long_run_is_and_says_nothing_of_a_short_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with progress_module.seldom_progress(beside_output=False) as progress:
        assert progress is not None
        progress("classify", 4000, 10_000, "")  # an interrupted run's
        assert capsys.readouterr().err == ""
        now += 60
        progress("classify", 6000, 10_000, "33 lines/s, 2 errors")
        line = "classify 6,000 of 10,000 (60%), 0:02:00 left, 33 lines/s, 2 errors\n"
        assert capsys.readouterr().err == line
        progress("classify", 7000, 10_000, "")
        assert capsys.readouterr().err == ""
