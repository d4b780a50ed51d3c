"""One stage of training: steps, checkpoints, the log, and when to stop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from guardkit import GuardkitError, Progress, TrainingInterrupted, write_atomically
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.corpus import Corpus, ahead, walk
from guardkit_mdlm.training.loss import MEASURES, Counts, Layout, draw, joint_loss, lay_out
from guardkit_mdlm.training.optimisation import Optimiser
from guardkit_mdlm.training.parallel import Workers
from guardkit_mdlm.training.throughput import Cost, Throughput, cost_of

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
LOG = "log.jsonl"
#: Steps whose measures are read at once: a GPU that is asked after every step waits for the next.
READ_STEPS = {"cpu": 1, "cuda": 20}

#: Measures the network being trained on held-out text; the least "held_out_loss" is the best.
Measure = Callable[[], Mapping[str, float]]


@dataclass(frozen=True)
class Run:
    """Where a training runs and what it writes to; the same for all its stages."""

    out: Path
    device: torch.device
    workers: Workers
    progress: Progress
    resume: bool

    @property
    def folder(self) -> Path:
        """The model's own folder."""
        return self.out / "artefact"


@dataclass(frozen=True)
class Stage:
    """What one stage learns from. ``later`` names the stages that follow it; ``reports`` holds
    what each stage has said of itself, and is shared by all."""

    name: str
    corpus: Corpus
    total: int  # steps
    later: Sequence[str]
    measure: Measure | None
    reports: dict[str, Any]


def run_stage(net: ClassNetwork, stage: Stage, config: MdlmConfig, run: Run) -> None:
    """Train one stage; leaves the averaged weights in ``net``, the best measured ones where they
    are measured. A checkpoint of a later stage means that this one is done."""
    optimiser = Optimiser(net, config, stage.total)
    throughput = Throughput(net, run.device)
    step = 0
    if run.resume and (run.out / CHECKPOINT).is_file():
        at, tensors = _read(run.out / CHECKPOINT)
        stage.reports.update(json.loads(at.get("reports", "{}")))
        if at["stage"] in stage.later:
            return
        if at["stage"] == stage.name:
            optimiser.restore({n: t.to(run.device) for n, t in tensors.items()})
            step = int(at["step"])
            if "throughput" in at:
                throughput.restore(json.loads(at["throughput"]))
    watch = _Watch(stage, config, run)
    watch.resume(step)
    net.train()
    records = _Records(stage, config, run)
    steps = _steps(stage, config, run, net.shape, step)
    if run.device.type == "cuda":  # whose time it would otherwise cost
        steps = ahead(steps)

    def keep() -> None:
        records.read()  # a network that has diverged is not kept
        if run.workers.leads:
            metadata = {"stage": stage.name, "step": str(step),
                        "throughput": json.dumps(throughput.state()),
                        "reports": json.dumps(stage.reports)}  # fmt: skip
            _write(run.out / CHECKPOINT, optimiser.state(), metadata)

    try:
        for prepared in steps:
            if step >= stage.total or watch.stopped:
                break
            run.progress(stage.name, step, stage.total, records.note)
            torch.manual_seed(_seed(stage, step) + run.workers.rank)  # dropout
            values = _gradients(net, prepared, config, run)
            norm = optimiser.step(step, run.workers)
            throughput.count(prepared.cost)
            step += 1
            measured: Mapping[str, float] = {}
            if watch.due(step):
                with throughput.paused():
                    measured = watch.measure(net, optimiser, step)
            records.add(step, prepared.counts, torch.cat([values, norm[None]]), measured)
            if step % config.checkpoint_steps == 0:
                keep()
        run.progress(stage.name, stage.total, stage.total, records.note)
        keep()
    except TrainingInterrupted:
        keep()
        raise
    finally:
        records.close()
    optimiser.averaged()
    watch.restore_best(net)
    stage.reports[stage.name] = throughput.report() | watch.report(step)
    net.eval()


@dataclass(frozen=True)
class _Prepared:
    """A step, laid out for this process: what is made of it before the device is needed."""

    parts: list[Layout]
    counts: Counts
    cost: Cost


def _steps(
    stage: Stage, config: MdlmConfig, run: Run, shape: NetworkShape, first: int
) -> Iterator[_Prepared]:
    """Yield the steps of a stage from ``first`` on, without end."""
    of = run.workers.count * config.accumulate
    for step, batch in enumerate(walk(stage.corpus, first), start=first):
        # the same draws whether or not the run was interrupted before this step
        rng = torch.Generator().manual_seed(_seed(stage, step))
        drawn = draw(batch, config, shape.n_classes, rng)
        counts = drawn.counts
        parts = [drawn.part(n, of) for n in range(run.workers.rank, of, run.workers.count)]
        layouts = [
            lay_out(part, counts, config, shape.mask_id) for part in parts if len(part.shown_B)
        ]
        if run.device.type == "cuda":  # pinned memory is copied without waiting
            layouts = [layout.moved(Tensor.pin_memory) for layout in layouts]
        cost = cost_of(drawn, shape, pairs=config.pair_weight > 0)
        yield _Prepared(layouts, counts, cost)


def _seed(stage: Stage, step: int) -> int:
    return stage.corpus.seed * 1_000_003 + step


def _gradients(net: ClassNetwork, prepared: _Prepared, config: MdlmConfig, run: Run) -> Tensor:
    """Run this process's rows and return the whole step's loss and measures, on the device."""
    totals = torch.zeros(1 + len(MEASURES), device=run.device)
    for part in prepared.parts:
        loss, measures = joint_loss(net, part.to(run.device), config)
        loss.backward()  # type: ignore[no-untyped-call]
        totals += torch.cat([loss.detach()[None], measures])
    return run.workers.sum(totals)


class _Records:
    """The log: what every step measured, read from the device some steps at a time."""

    def __init__(self, stage: Stage, config: MdlmConfig, run: Run) -> None:
        self.stage, self.config = stage, config
        self.at_once = READ_STEPS[run.device.type]
        self.pending: list[tuple[int, Counts, Tensor, Mapping[str, float]]] = []
        self.recent: dict[str, float] = {}
        self.file: TextIO | None = None
        if run.workers.leads:
            self.file = (run.out / LOG).open("a", buffering=1, encoding="utf-8")

    @property
    def note(self) -> str:
        shown = ("text", "label", "pair")
        return " ".join(f"{k} {v:.3f}" for k, v in self.recent.items() if k in shown)

    def add(self, step: int, counts: Counts, values: Tensor, measured: Mapping[str, float]) -> None:
        """Take step number ``step``'s loss, MEASURES and gradient norm."""
        self.pending.append((step, counts, values, measured))
        if len(self.pending) >= self.at_once:
            self.read()

    def read(self) -> None:
        """Write down what is pending. Raises GuardkitError where a loss is no number."""
        if not self.pending:
            return
        rows = torch.stack([values for _, _, values, _ in self.pending]).tolist()
        pending, self.pending = self.pending, []
        for (step, counts, _, measured), row in zip(pending, rows, strict=True):
            record = _record(row, counts)
            if not math.isfinite(record["loss"]):
                raise GuardkitError(
                    f"training diverged: loss {record['loss']} at step {step - 1} of stage "
                    f"{self.stage.name!r}; try smaller rates than lr {self.config.lr} and lr_muon "
                    f"{self.config.lr_muon}"
                )
            self.recent = {k: 0.98 * self.recent.get(k, v) + 0.02 * v for k, v in record.items()}
            if self.file:
                line = {"stage": self.stage.name, "step": step, **record, **measured}
                self.file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        if self.file:
            self.file.close()


def _record(row: Sequence[float], counts: Counts) -> dict[str, float]:
    """Name a step's values; a measure of no row is left out."""
    record = dict(zip(("loss", *MEASURES, "gradient"), row, strict=True))
    present = {
        "text": counts.text, "label": counts.label, "label_accuracy": counts.label,
        "pair": counts.pair, "pair_accuracy": counts.pair,
        **dict(zip(MEASURES[-len(counts.text_by_range) :], counts.text_by_range, strict=True)),
    }  # fmt: skip
    return {name: value for name, value in record.items() if present.get(name, 1)}


class _Watch:
    """Early stopping: measures the averaged weights now and then and keeps the best."""

    def __init__(self, stage: Stage, config: MdlmConfig, run: Run) -> None:
        self.stage, self.run = stage, run
        times = config.validations if stage.measure else 0
        self.steps = {round(stage.total * k / times) for k in range(1, times + 1)}
        self.patience = config.patience
        self.best: dict[str, Any] | None = None
        self.since = 0

    @property
    def stopped(self) -> bool:
        return 0 < self.patience <= self.since

    def due(self, step: int) -> bool:
        return step in self.steps

    def resume(self, step: int) -> None:
        """Take up what was measured before ``step``."""
        path = self.run.out / BEST
        if step and self.steps and path.is_file():
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            best = json.loads(metadata["best"])
            if best["stage"] == self.stage.name and best["step"] <= step:
                self.best = best
                self.since = sum(best["step"] < s <= step for s in self.steps)

    def measure(self, net: ClassNetwork, optimiser: Optimiser, step: int) -> Mapping[str, float]:
        assert self.stage.measure is not None
        optimiser.averaged()
        net.eval()
        found = self.stage.measure()
        net.train()
        if self.best is None or found["held_out_loss"] < self.best["held_out_loss"]:
            self.best = {"stage": self.stage.name, "step": step, **found}
            self.since = 0
            if self.run.workers.leads:
                tensors = {n: p.detach().contiguous() for n, p in net.named_parameters()}
                _write(self.run.out / BEST, tensors, {"best": json.dumps(self.best)})
        else:
            self.since += 1
        optimiser.current()
        return found

    def restore_best(self, net: nn.Module) -> None:
        if self.best is None:
            return
        self.run.workers.wait()
        weights = load_file(self.run.out / BEST, device=str(self.run.device))
        net.load_state_dict(weights, strict=False)

    def report(self, step: int) -> dict[str, Any]:
        return {"steps": step} | ({"best": self.best} if self.best else {})


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    write_atomically(path, save({n: t.contiguous() for n, t in tensors.items()}, metadata))


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata, load_file(path)
