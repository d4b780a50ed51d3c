"""The stages of run.py: what each does, what it needs to go on, what it leaves."""

from __future__ import annotations

import json
import lzma
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from guardkit_mdlm.config import PRESETS, MdlmConfig
from guardkit_mdlm.scoring import load
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.corpus import Tokenised
from guardkit_mdlm.training.loop import CHECKPOINT, LOG
from guardkit_mdlm.training.train import TokenisedData, fit, open_run
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file
from transformers import LlamaConfig

from benchmarks.gpu import archive, machine, pack, speed
from benchmarks.gpu.check import check
from benchmarks.gpu.sizes import Size
from guardkit import TrainingInterrupted, fit_calibration, pick_device, pool_windows, read_config

Record = dict[str, Any]
RESULTS = "results.json"
#: The network after its first stage, as a checkpoint; the other seeds start from it.
PRETRAINED = "pretrained.safetensors"
#: What goes home before there is a model: averaged weights alone, in bfloat16.
WEIGHTS = "average.safetensors"
LOG_S = 20.0


class OutOfTime(Exception):
    """This call is over; the next goes on."""


@dataclass
class Clock:
    """The progress of a training: says where it is, ends it in time, adds up its seconds."""

    deadline: float
    seconds: Record = field(default_factory=dict)
    began: Callable[[str], None] = lambda _: None
    _stage: str = ""
    _since: float = 0.0
    _shown: float = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._since = stage, now
            self.began(stage)
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now
        if now - self._shown > LOG_S:
            self._shown = now
            print(f"  {stage} {done:,}/{total:,} {note}", flush=True)
        if now > self.deadline and done < total:
            raise TrainingInterrupted(f"{stage} at {done} of {total}")


class _Enough(TrainingInterrupted):
    """A probe has seen what it wanted."""


class Queue:
    """Runs what is not done yet, in order, and keeps its results."""

    def __init__(
        self, size: Size, *, data: Path, out: Path, state: Path, restart: Path | None,
        deadline: float, device: str,
    ) -> None:  # fmt: skip
        self.size, self.out, self.state = size, out, state
        self.deadline = deadline - size.reserve_s
        self.device = pick_device(device)
        out.mkdir(parents=True, exist_ok=True)
        self.packed = pack.read(data / pack.TOKENS)
        self._file = state / RESULTS
        if restart is not None and not self._file.exists():
            self._restart(restart)
        if self._file.exists():
            self.results: Record = json.loads(self._file.read_text("utf-8"))
        else:
            self.results = {
                "script": "benchmarks/gpu/run.py",
                "machine": machine.describe(self.device),
                "data": self.packed.about,
                "weights": "random where a result says so, else trained here",
                "done": [],
            }

    def run(self) -> int:
        """Return 0 where this call did what it could in its time."""
        stages: dict[str, Callable[[], Record]] = {
            "check": self._check,
            "peaks": lambda: machine.peaks(self.device, self.size.side),
            "plan": self._plan,
            "train": lambda: self._train(0),
            "score": lambda: self._score(self._run(0)),
            "speed": self._speed,
            "seeds": self._seeds,
        }
        for name, stage in stages.items():
            if name in self.results["done"]:
                continue
            started = time.monotonic()
            print(f"{name}: {self.deadline - started:.0f} s left", flush=True)
            try:
                self._mind_the_time()
                self.results[name] = stage()
            except (OutOfTime, TrainingInterrupted) as why:
                print(f"{name}: {why}; to be continued: call again", flush=True)
                self._deliver()
                return 0
            self.results["done"].append(name)
            self._deliver()
            print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
            print(json.dumps(self.results[name], indent=1), flush=True)
        print("all is done", flush=True)
        return 0

    def _check(self) -> Record:
        compiled = bool(self._config().compile)
        return check(self.packed, self.device, self.state / "rehearsal", compiled=compiled)

    def _plan(self) -> Record:
        """Measure a step of each stage, and set how many epochs fill its time.

        Compiled or not is settled by the first stage's step, most of the time being spent there.
        """
        plan: Record = {"compile": self._config().compile}
        if plan["compile"]:
            steps: dict[bool, float] = {}
            for compiled in (True, False):
                try:
                    steps[compiled] = self._probe("pretrain", compile=compiled)[0]
                except Exception as error:  # recorded, shown; the other way may do
                    traceback.print_exc()
                    plan[f"compile {compiled}"] = f"failed: {type(error).__name__}: {error}"
            plan |= {f"compile {compiled}": step_s for compiled, step_s in steps.items()}
            plan["compile"] = min(steps, key=lambda compiled: steps[compiled])
        for stage, minutes, name in (
            ("pretrain", self.size.pretrain_minutes, "pretrain_epochs"),
            ("train", self.size.joint_minutes, "epochs"),
        ):
            step_s, per_epoch = self._probe(stage, compile=plan["compile"])
            epochs = 60 * minutes / (step_s * per_epoch)
            plan[stage] = {"step_s": step_s, "steps_per_epoch": per_epoch}
            plan[name] = round(min(epochs, self.size.most_epochs[stage]), 3)
        return plan

    def _probe(self, wanted: str, **options: Any) -> tuple[float, int]:
        """Return seconds a step, and steps an epoch, of a stage of training."""
        warm_up, timed = self.size.warm_up, self.size.timed
        stamps: dict[int, float] = {}
        steps = 0

        def watch(stage: str, done: int, total: int, note: str = "") -> None:
            nonlocal steps
            if stage != wanted:
                return
            steps = total
            # between the two, the device runs as far behind as it will
            if done in (min(warm_up, total - 1), min(warm_up + timed, total)):
                machine.finish(self.device)
                stamps[done] = time.perf_counter()
            if done >= warm_up + timed:
                raise _Enough("timed")

        options |= {"epochs": 1, "pretrain_epochs": 1, "embeddings": "random", "validations": 0}
        work = self.state / "probe"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with suppress(_Enough):
            self._fit(self._config(**options), work, watch, pretrain=wanted == "pretrain")
        (first, began), (last, ended) = sorted(stamps.items())
        return (ended - began) / (last - first), steps

    def _train(self, seed: int) -> Record:
        """Train, or go on; both stages, planned to end in their time."""
        run = self._run(seed)
        run.mkdir(exist_ok=True)
        kept = run / "seconds.json"
        seconds = json.loads(kept.read_text("utf-8")) if kept.exists() else {}

        def began(stage: str) -> None:
            if (seed, stage) == (0, "train") and _stage_of(run / CHECKPOINT) == "pretrain":
                shutil.copyfile(run / CHECKPOINT, run / PRETRAINED)
                self._deliver()

        clock = Clock(self.deadline, seconds, began)
        plan = {k: self.results["plan"][k] for k in ("pretrain_epochs", "epochs", "compile")}
        config = self._config(**plan, seed=seed)
        try:
            folder = self._fit(config, run, clock, pretrain=True)
        finally:
            kept.write_text(json.dumps(clock.seconds), "utf-8")
        about = read_config(folder).training
        return {"seconds": clock.seconds, "parameters": about["parameters"],
                "options": about["options"], "stages": about["stages"],
                "of_product": self._shares(about["stages"])}  # fmt: skip

    def _shares(self, stages: Record) -> Record:
        """Return each stage's FLOP/s as a share of the square product's and its own layer's."""
        square = self.results["peaks"]["product_flops_per_s"]
        return {
            name: {"square": s["flops_per_s"] / square,
                   "layer": s["flops_per_s"] / s["product_flops_per_s"]}
            for name, s in stages.items() if "flops_per_s" in s
        }  # fmt: skip

    def _fit(
        self, config: MdlmConfig, work: Path, progress: Callable[..., None], *, pretrain: bool
    ) -> Path:
        train, held_out = (self._tokenised(name) for name in ("train", "validation"))
        ids = [*train.ids, *self._tokenised("unlabelled").ids]
        unlabelled = Tokenised(ids, np.full(len(ids), -1)) if pretrain else None
        data = TokenisedData(self.packed.labels, train, held_out, unlabelled)
        run = open_run(work, resume=True, device=self.device.type, progress=progress)
        return fit(self.packed.tokenizer, data, config, run)

    def _score(self, run: Path) -> Record:
        """Score every held-out and test review under both scorers; accuracy on the test set."""
        classifier = load(run / "artefact", device=self.device.type, backend="torch")
        config = read_config(run / "artefact")
        found: Record = {}
        logits: dict[str, np.ndarray] = {}
        for scorer in ("one_pass", "generative"):
            classifier.scorer = scorer
            for name in ("calibration", "validation", "test"):
                part = self.packed.sets[name]
                pieces, text_W = classifier.cut(part.ids)
                started = time.perf_counter()
                logits_WC = classifier.window_logits(pieces)
                seconds = time.perf_counter() - started
                logits[f"{scorer}.{name}"] = pool_windows(
                    logits_WC, text_W, len(part), config.window_pooling, config.neutral_index
                )
            calibration = fit_calibration(
                logits[f"{scorer}.calibration"], self.packed.sets["calibration"].labels_N,
                config.labels, data="",
            )  # fmt: skip
            tokens_N = np.array([len(ids) for ids in part.ids])
            p_NC = calibration.probabilities_NC(logits[f"{scorer}.test"], tokens_N)
            right_N = p_NC.argmax(1) == part.labels_N
            found[scorer] = {"accuracy": float(right_N.mean()), "texts": len(part),
                             "texts_per_s": len(part) / seconds}  # fmt: skip
        found["generative"]["evaluations"] = classifier.scheme.evaluations
        save_file({k: torch.from_numpy(x) for k, x in logits.items()}, run / "logits.safetensors")
        return found

    def _speed(self) -> Record:
        """Measure what is left of it in time; a part that fails is recorded and does not end
        the others, which the machine may never be there for again."""
        folder, texts = self._run(0) / "artefact", self.packed.sets["test"].ids
        config = read_config(folder)
        own = NetworkShape.model_validate(config.network["shape"])
        medium = own.model_copy(update=dict(self.size.medium))
        some = texts[: self.size.speed_texts]

        def trained() -> Record:
            classifier = load(folder, device=self.device.type, backend="torch")
            return speed.mdlm(classifier, own, some, self.device)

        def larger() -> Record:
            classifier = speed.random_classifier(
                medium, config.network, self.packed.tokenizer, self.device
            )
            weights = {"weights": "random", "shape": medium.model_dump()}
            return weights | speed.mdlm(classifier, medium, some, self.device)

        def llm() -> Record:
            shape = LlamaConfig(**self.size.llm)
            few = texts[: self.size.llm_texts]
            return speed.llm(shape, few, self.size.prefix, self.device)

        found: Record = self.results.setdefault("speed", {})
        for name, measure in (("mdlm", trained), ("mdlm 85M", larger), ("8B prefill", llm)):
            if name in found:
                continue
            self._mind_the_time()
            try:
                found[name] = measure()
            except Exception as error:  # recorded, shown, and not the end of the others
                traceback.print_exc()
                found[name] = {"failed": f"{type(error).__name__}: {error}"}
            self._keep()
        return found

    def _seeds(self) -> Record:
        """Train the second stage with other seeds, from the same pretrained network."""
        found: Record = self.results.setdefault("seeds", {})
        if not (self._run(0) / PRETRAINED).exists():
            return {"not run": "the pretrained network was lost with another machine"}
        for seed in range(1, self.size.seeds):
            if str(seed) in found:
                continue
            run = self._run(seed)
            if not (run / CHECKPOINT).exists():
                run.mkdir(exist_ok=True)
                shutil.copyfile(self._run(0) / PRETRAINED, run / CHECKPOINT)
            self._mind_the_time()
            training = self._train(seed)
            found[str(seed)] = {"seconds": training["seconds"], **self._score(run)}
            self._keep()
        return found

    def _deliver(self) -> None:
        """Leave in OUT what there is: results, and the model or the averaged weights so far."""
        run = self._run(0)
        files: dict[str, bytes | Path] = {}
        if (run / LOG).exists():
            files[f"{LOG}.xz"] = lzma.compress((run / LOG).read_bytes(), preset=1)
        if "train" in self.results["done"]:
            files |= {f"artefact/{p.name}": p for p in (run / "artefact").iterdir()}
            files |= {p.name: p for p in [run / "logits.safetensors"] if p.exists()}
        elif (run / CHECKPOINT).exists():
            files[WEIGHTS] = _averages(run / CHECKPOINT)
            if (run / "seconds.json").exists():
                files["seconds.json"] = run / "seconds.json"
        if files:
            self.results["parts"] = archive.write(files, self.out, "model")
        self._keep()
        shutil.copyfile(self._file, self.out / RESULTS)

    def _restart(self, left: Path) -> None:
        """Take up what ``_deliver`` left on another machine: results, and weights as a checkpoint
        whose optimiser starts anew."""
        results = json.loads((left / RESULTS).read_text("utf-8"))
        run = self._run(0)
        run.mkdir(exist_ok=True)
        if "parts" in results:
            archive.join(results["parts"], left, run)
        if (run / WEIGHTS).exists():
            _resumable(run / WEIGHTS, run / CHECKPOINT)
        if (run / f"{LOG}.xz").exists():
            (run / LOG).write_bytes(lzma.decompress((run / f"{LOG}.xz").read_bytes()))
        self._file.write_text(json.dumps(results), "utf-8")

    def _mind_the_time(self) -> None:
        if (left := self.deadline - time.monotonic()) < self.size.least_s:
            raise OutOfTime(f"{left:.0f} s left, {self.size.least_s:.0f} are the least")

    def _keep(self) -> None:
        self._file.write_text(json.dumps(self.results, indent=1) + "\n", "utf-8")

    def _config(self, **options: Any) -> MdlmConfig:
        about = self.packed.about
        preset = {**PRESETS[about["preset"]], "vocab_size": about["vocab_size"]}
        return MdlmConfig.model_validate({**preset, **self.size.options, **options})

    def _tokenised(self, name: str) -> Tokenised:
        part = self.packed.sets[name]
        return Tokenised(part.ids, part.labels_N)

    def _run(self, seed: int) -> Path:
        return self.state / f"run-{seed}"


def _stage_of(checkpoint: Path) -> str:
    with safe_open(checkpoint, "pt") as file:
        return str(file.metadata()["stage"])


def _averages(checkpoint: Path) -> bytes:
    """Return a checkpoint's averaged weights in bfloat16, with its place in the training."""
    with safe_open(checkpoint, "pt") as file:
        metadata = file.metadata()
        names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118
        tensors = {
            name.removeprefix("average."): file.get_tensor(name).to(torch.bfloat16)
            for name in names
        }
    return save(tensors, metadata)


def _resumable(weights: Path, checkpoint: Path) -> None:
    """Write averaged weights as a checkpoint that training resumes from."""
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
    tensors = {n: t.float() for n, t in load_file(weights).items()}
    both = {f"{kind}.{n}": t.clone() for kind in ("master", "average") for n, t in tensors.items()}
    save_file(both, checkpoint, metadata)
