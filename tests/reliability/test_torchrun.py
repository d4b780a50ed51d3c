"""Training under torchrun: real processes, one model, the losses of a process alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_killed_training import OPTIONS, SAMPLE

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(family: str, out: Path, *before: str) -> subprocess.CompletedProcess[str]:
    settings = [x for o in [*OPTIONS[family], "dropout=0"] for x in ("--set", o)]
    return subprocess.run(
        [sys.executable, *before, "-m", "guardkit", "train", "--plugin", family,
         "--data", str(SAMPLE), "--out", str(out), *settings],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        text=True, capture_output=True, timeout=400, check=False,
    )  # fmt: skip


def held_out_losses(out: Path) -> list[float]:
    best = json.loads((out / "config.json").read_text())["training"]["stages"]["train"]["best"]
    return [best["held_out_loss"], best["held_out_accuracy"], best["step"]]


def test_two_processes_make_one_model_and_the_first_speaks(tmp_path: Path) -> None:
    alone, together = run("mdlm", tmp_path / "alone"), run("mdlm", tmp_path / "two", *TORCHRUN)
    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("the model is in") == 1
    assert not (tmp_path / "two.partial").exists()
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    assert config["training"]["processes"] == 2
    assert held_out_losses(tmp_path / "two") == pytest.approx(
        held_out_losses(tmp_path / "alone"), rel=0.02
    )


def test_a_family_that_trains_in_one_process_refuses_several(tmp_path: Path) -> None:
    refused = run("gpt2", tmp_path / "model", *TORCHRUN)
    assert refused.returncode != 0
    assert "trains in one process; start it without torchrun" in refused.stderr
    assert not (tmp_path / "model").exists()
