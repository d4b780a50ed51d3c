"""Classifying on Ray, as far as it can be checked without it: tests/reliability has the rest."""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardkit.classify.ray_pool import cpus_each
from guardkit.cli.main import main


@given(nodes=st.lists(st.integers(0, 6), max_size=3), n=st.integers(1, 6))
def test_shares_are_the_largest_that_fit_without_spanning_machines(
    nodes: list[int], n: int
) -> None:
    def fits(share: int) -> bool:
        placings = product(range(len(nodes)), repeat=n)
        return any(
            all(placed.count(i) * share <= cpus for i, cpus in enumerate(nodes))
            for placed in placings
        )

    share = cpus_each(nodes, n)
    assert share == max((c for c in range(1, 7) if fits(c)), default=0)


def test_without_ray_the_error_says_how_to_get_it_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"text": "a cake"}\n', "utf-8")
    assert main(["classify", "in.jsonl", "--out", "out.jsonl", "--engine", "ray"]) == 2
    assert "pip install 'guardkit[ray]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_ray_needs_an_output_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.jsonl").write_text('{"text": "a cake"}\n', "utf-8")
    assert main(["classify", "in.jsonl", "--engine", "ray"]) == 2
    assert "--engine ray need --out FILE" in capsys.readouterr().err
