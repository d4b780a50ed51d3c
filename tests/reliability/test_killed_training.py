"""A real training process, killed or interrupted, ends in the same model as one left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from guardkit.model import artefact

SAMPLE = Path(__file__).parents[2] / "examples" / "sample"
OPTIONS = {
    "mdlm": ["vocab_size=400", "hidden_dim=32", "n_blocks=1", "n_heads=2", "cond_dim=8",
             "window_tokens=32", "overlap_tokens=8", "epochs=3", "checkpoint_steps=5",
             "dtype=float32"],
    "gpt2": ["init=scratch", "vocab_size=400", "width=32", "layers=1", "heads=2",
             "window_tokens=32", "overlap_tokens=8", "epochs=4", "dtype=float32"],
}  # fmt: skip

pytestmark = [pytest.mark.reliability, pytest.mark.timeout(600)]


def start(family: str, out: Path, *more: str) -> subprocess.Popen[str]:
    settings = [x for option in OPTIONS[family] for x in ("--set", option)]
    command = [sys.executable, "-m", "guardkit", "train", "--plugin", family,
               "--data", str(SAMPLE), "--out", str(out), *settings, *more]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def weights(out: Path) -> str:
    sums = (out / artefact.SUMS).read_text().splitlines()
    return next(line for line in sums if line.endswith(artefact.WEIGHTS))


@pytest.fixture(scope="module", params=["mdlm", "gpt2"])
def undisturbed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """A family, and the hash of the weights it learns."""
    out = tmp_path_factory.mktemp("undisturbed") / "model"
    finish(start(request.param, out))
    return request.param, weights(out)


def newest_checkpoint(partial: Path) -> float:
    """Return when the newest checkpoint was written, 0 if there is none."""
    files = [p for p in partial.glob("**/*checkpoint*.safetensors") if p.is_file()]
    return max((p.stat().st_mtime for p in files), default=0.0)


def wait_for_checkpoint(process: subprocess.Popen[str], partial: Path, newer_than: float) -> None:
    while newest_checkpoint(partial) <= newer_than:
        if process.poll() is not None:
            pytest.fail(f"it ended before another checkpoint: {process.communicate()[1]}")
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_resumes_to_the_same_weights(
    undisturbed: tuple[str, str], tmp_path: Path, kind: signal.Signals
) -> None:
    family, expected = undisturbed
    out = tmp_path / "model"
    partial = out.with_name("model.partial")
    for resume in ([], ["--resume"]):
        before = newest_checkpoint(partial)
        process = start(family, out, *resume)
        wait_for_checkpoint(process, partial, before)
        process.send_signal(kind)
        _, err = process.communicate(timeout=120)
        assert process.returncode == (-kind if kind == signal.SIGKILL else 130), err
        assert not out.exists()
    assert "--resume" in err or kind == signal.SIGKILL
    finish(start(family, out, "--resume"))
    assert weights(out) == expected
    assert not partial.exists()


def test_a_second_run_into_an_interrupted_one_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"
    process = start("mdlm", out)
    wait_for_checkpoint(process, out.with_name("model.partial"), 0.0)
    process.kill()
    process.communicate()
    again = start("mdlm", out)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 2
    assert "--resume" in err
    other = start("mdlm", out, "--resume", "--set", "seed=1")
    _, err = other.communicate(timeout=120)
    assert other.returncode == 2
    assert "was started with other options" in err


def test_a_run_killed_before_its_first_checkpoint_is_not_in_the_way(tmp_path: Path) -> None:
    out = tmp_path / "model"
    partial = out.with_name("model.partial")
    process = start("mdlm", out, "--set", "checkpoint_steps=100000", "--set", "epochs=1000")
    while not (partial / "tokenizer.json").is_file():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    other = start("mdlm", out)
    _, err = other.communicate(timeout=120)
    assert other.returncode == 2
    assert "another run is writing model" in err
    process.kill()
    process.communicate()
    assert newest_checkpoint(partial) == 0.0
    finish(start("mdlm", out))
    assert not partial.exists()


def test_a_run_that_fails_leaves_nothing_in_the_way_of_the_corrected_one(tmp_path: Path) -> None:
    out = tmp_path / "model"
    process = start("mdlm", out, "--init", str(tmp_path / "absent"))
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    assert list(tmp_path.iterdir()) == []
    finish(start("mdlm", out))
