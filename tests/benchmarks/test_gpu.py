"""benchmarks/gpu: the whole of it in miniature, on a CPU, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import archive, pack, speed, stages
from benchmarks.gpu.sizes import SMOKE

ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks" / "gpu" / "run.py"
#: Packages of guardkit that the GPU machine may lack, and prepare.py does not bring.
LACKING = ("datasets", "pyarrow", "re2", "ruamel")


def command(*arguments: str, lacking: Path | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if lacking is not None:
        environment["PYTHONPATH"] = str(lacking)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    sample = str(ROOT / "examples" / "sample")
    command(
        "-m",
        "benchmarks.gpu.prepare",
        sample,
        "--out",
        str(out),
        "--vocab-size",
        "400",
        "--no-wheels",
    )
    return out


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH that hides what the GPU machine has not."""
    folder = tmp_path_factory.mktemp("lacking")
    for name in LACKING:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is not there')\n", "utf-8")
    return folder


def run(data: Path, work: Path, *arguments: str, lacking: Path) -> dict[str, Any]:
    out = work / "out"
    command(
        str(RUN), "--data", str(data), "--out", str(out), "--state", str(work / "state"),
        "--smoke", "--device", "cpu", *arguments, lacking=lacking,
    )  # fmt: skip
    results: dict[str, Any] = json.loads((out / "results.json").read_text("utf-8"))
    return results


def test_prepared_sets_are_those_of_training_and_hold_the_same_tokens(
    data: Path,
) -> None:
    from guardkit_mdlm.tokenizer import encode

    from guardkit.data.splits import load_data_splits

    packed = pack.read(data / pack.TOKENS)
    parts = load_data_splits(str(ROOT / "examples" / "sample"), None, None)
    assert parts.test is not None
    for name, part in (("train", parts.train), ("test", parts.test)):
        np.testing.assert_array_equal(packed.sets[name].labels_N, part.labels_N)
        expected = encode(packed.tokenizer, part.texts)
        assert all(
            np.array_equal(a, b) for a, b in zip(packed.sets[name].ids, expected, strict=True)
        )
    assert packed.labels == parts.train.label_names


def test_a_cached_prefix_gives_the_logits_of_reading_it_with_every_text() -> None:
    import torch
    from transformers import LlamaConfig

    model = speed._random_llm(LlamaConfig(**SMOKE.llm), torch.device("cpu"))
    torch.nn.Module.float(model)
    prefix = speed._prefix_cache(model, 7)
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 512, n).astype(np.int32) for n in (5, 9, 9, 12)]
    found_B2 = speed.label_logits(model, prefix, texts, torch.device("cpu"))
    model.config._attn_implementation = "eager"
    for tokens, found_2 in zip(texts, found_B2, strict=True):
        ids = torch.from_numpy(np.concatenate([np.arange(7), tokens]))[None]
        with torch.inference_mode():
            expected_2 = model(ids).logits[0, -1, :2]
        np.testing.assert_allclose(found_2, expected_2.numpy(), atol=1e-6)


def test_parts_join_to_what_was_written_and_to_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "PART_BYTES", 8000)
    content = np.random.default_rng(0).bytes(9000)
    about = archive.write({"a/b.bin": content, "c.txt": b"c"}, tmp_path, "model")
    assert about["parts"] == len(list(tmp_path.glob("model.tar.*"))) == 3
    archive.join(about, tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "a" / "b.bin").read_bytes() == content
    archive.write({"c.txt": b"later"}, tmp_path, "model")
    with pytest.raises((ValueError, OSError)):
        archive.join(about, tmp_path, tmp_path / "other")
    with pytest.raises(ValueError, match="parts"):
        archive.write({"large": content * 5}, tmp_path, "model")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_queue_runs_and_what_it_leaves_becomes_a_model(
    data: Path, lacking: Path, tmp_path: Path
) -> None:
    results = run(data, tmp_path, lacking=lacking)
    assert results["done"] == ["check", "peaks", "plan", "train", "score", "speed", "seeds"]
    assert 0 < results["score"]["one_pass"]["accuracy"] <= 1
    assert results["speed"]["8B prefill"]["texts_per_s"] > 0
    assert results["speed"]["mdlm 85M"]["H pair"]["texts_per_s"] > 0
    assert set(results["seeds"]) == {"1"}
    assert (tmp_path / "state" / "run-1" / "artefact").is_dir()
    command(
        "-m", "benchmarks.gpu.collect", str(tmp_path / "out"), str(ROOT / "examples" / "sample"),
        "--model", str(tmp_path / "model"), "--results", str(tmp_path / "gpu.json"),
    )  # fmt: skip
    from guardkit import load_model

    assert load_model(tmp_path / "model").calibration is not None
    training = json.loads((tmp_path / "model.training.json").read_text("utf-8"))
    assert training["runs"][0]["seconds"] == sum(results["train"]["seconds"].values())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_calls_cut_short_go_on_and_a_lost_machine_leaves_weights_to_restart_from(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from guardkit import TrainingInterrupted

    seen: list[tuple[str, int]] = []
    whole = stages.Clock.__call__

    def cut(at: tuple[str, int]) -> Callable[..., None]:
        def watch(clock: Any, stage: str, done: int, total: int, note: str = "") -> None:
            whole(clock, stage, done, total, note)
            if done < total:
                if (stage, done) == at:
                    raise TrainingInterrupted("cut")
                seen.append((stage, done))

        return watch

    def queue(work: str, restart: str | None = None) -> Any:
        folder = tmp_path / work
        return stages.Queue(
            size, data=data, out=folder / "out", state=folder, device="cpu",
            restart=None if restart is None else tmp_path / restart / "out",
            deadline=time.monotonic() + 300,
        )  # fmt: skip

    # so much time that the cap on epochs sets the steps, however slow the machine
    size = SMOKE.changed(options={}, pretrain_minutes=60, joint_minutes=60)
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.setattr(stages.Clock, "__call__", cut(("pretrain", 5)))
    queue("first").run()
    monkeypatch.setattr(stages.Clock, "__call__", cut(("train", 3)))
    queue("first").run()  # on the same machine: from its checkpoint
    monkeypatch.setattr(stages.Clock, "__call__", cut(("never", 0)))
    queue("second", restart="first").run()  # on another: from the averaged weights
    results = json.loads((tmp_path / "second" / "out" / "results.json").read_text("utf-8"))
    assert "train" in results["done"]
    assert results["done"][-1] == "seeds"
    assert results["seeds"] == {"not run": "the pretrained network was lost with another machine"}
    trained = {stage: [s for name, s in seen if name == stage] for stage in ("pretrain", "train")}
    for steps in trained.values():
        assert steps == list(range(len(steps)))  # none twice, none left out
    log = (tmp_path / "second" / "run-0" / "log.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["step"] for line in log][:5] == [1, 2, 3, 4, 5]
    assert len(log) == sum(map(len, trained.values()))
