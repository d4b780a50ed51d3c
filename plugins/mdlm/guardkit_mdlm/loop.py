"""One stage of training: steps, checkpoints, the log, and when to stop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guardkit import GuardkitError, Progress, TrainingInterrupted
from guardkit_mdlm.batches import Corpus, walk
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.loss import MEASURES, Step, draw, joint_loss
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.optimisation import Optimiser
from guardkit_mdlm.parallel import Workers
from guardkit_mdlm.separate import SeparateNetworks
from guardkit_mdlm.throughput import Throughput

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
LOG = "log.jsonl"

#: Measures the network being trained on held-out text; the least "held_out_loss" is the best.
Judge = Callable[[], Mapping[str, float]]


@dataclass
class Stage:
    """Where and how one stage runs. ``later`` names the stages that follow it."""

    name: str
    corpus: Corpus
    total: int  # steps
    later: list[str]
    out: Path
    device: torch.device
    workers: Workers
    progress: Progress
    judge: Judge | None = None
    report: dict[str, Any] = field(default_factory=dict)


def run_stage(
    net: Denoiser | SeparateNetworks, stage: Stage, config: MdlmConfig, *, resume: bool
) -> None:
    """Train one stage; leaves the averaged weights in ``net``, the best judged ones where there
    is a judge. A checkpoint of a later stage means that this one is done."""
    optimiser = Optimiser(net, config, stage.total)
    step = 0
    if resume and (stage.out / CHECKPOINT).is_file():
        at, tensors = _read(stage.out / CHECKPOINT)
        if at["stage"] in stage.later:
            return
        if at["stage"] == stage.name:
            optimiser.restore({n: t.to(stage.device) for n, t in tensors.items()})
            step = int(at["step"])
    watch = _Watch(stage, config)
    watch.resume(step)
    throughput = Throughput(net, stage.device)
    net.train()
    recent: dict[str, float] = {}
    log = (
        (stage.out / LOG).open("a", buffering=1, encoding="utf-8") if stage.workers.leads else None
    )
    try:
        for batch in walk(stage.corpus, step):
            if step >= stage.total or watch.stopped:
                break
            stage.progress(stage.name, step, stage.total, _note(recent))
            # the same draws whether or not the run was interrupted before this step
            seed = stage.corpus.seed * 1_000_003 + step
            drawn = draw(batch, config, net.shape.n_classes, torch.Generator().manual_seed(seed))
            torch.manual_seed(seed + stage.workers.rank)  # dropout
            record = _gradients(net, drawn, stage, config)
            if not math.isfinite(record["loss"]):
                raise GuardkitError(
                    f"training diverged: loss {record['loss']} at step {step} of stage "
                    f"{stage.name!r}; try smaller rates than lr {config.lr} and lr_muon "
                    f"{config.lr_muon}"
                )
            record["gradient"] = optimiser.step(step, stage.workers)
            throughput.count(drawn)
            step += 1
            recent = {k: 0.98 * recent.get(k, v) + 0.02 * v for k, v in record.items()}
            if watch.due(step):
                with throughput.paused():
                    record |= watch.judge(net, optimiser, step)
            if log:
                log.write(json.dumps({"stage": stage.name, "step": step, **record}) + "\n")
            if step % config.checkpoint_steps == 0:
                _write_checkpoint(stage, optimiser, step)
    except TrainingInterrupted:
        _write_checkpoint(stage, optimiser, step)
        raise
    finally:
        if log:
            log.close()
    stage.progress(stage.name, stage.total, stage.total, _note(recent))
    _write_checkpoint(stage, optimiser, step)
    optimiser.averaged()
    watch.restore_best(net)
    stage.report |= throughput.report() | watch.report(step)
    net.eval()


def _gradients(
    net: Denoiser | SeparateNetworks, drawn: Step, stage: Stage, config: MdlmConfig
) -> dict[str, float]:
    """Run this process's rows, in ``config.accumulate`` parts, and return the step's measures."""
    workers, counts = stage.workers, drawn.counts
    of = workers.count * config.accumulate
    totals = torch.zeros(1 + len(MEASURES), device=stage.device)
    for number in range(workers.rank, of, workers.count):
        part = drawn.part(number, of)
        if len(part.batch.label_B) == 0:
            continue
        loss, measures = joint_loss(net, part, counts, config, stage.device)
        loss.backward()  # type: ignore[no-untyped-call]
        totals += torch.cat([loss.detach()[None], measures])
    values = workers.sum(totals).tolist()
    record = dict(zip(("loss", *MEASURES), values, strict=True))
    present = {
        "text": counts.text, "label": counts.label, "label_accuracy": counts.label,
        "pair": counts.pair, "pair_accuracy": counts.pair,
        **dict(zip(MEASURES[-len(counts.text_by_range) :], counts.text_by_range, strict=True)),
    }  # fmt: skip
    return {name: value for name, value in record.items() if present.get(name, 1)}


class _Watch:
    """Early stopping: judges the averaged weights now and then and keeps the best."""

    def __init__(self, stage: Stage, config: MdlmConfig) -> None:
        self.stage = stage
        times = config.validations if stage.judge else 0
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
        """Take up what was judged before ``step``."""
        path = self.stage.out / BEST
        if step and self.steps and path.is_file():
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
            best = json.loads(metadata["best"])
            if best["stage"] == self.stage.name and best["step"] <= step:
                self.best = best
                self.since = sum(best["step"] < s <= step for s in self.steps)

    def judge(self, net: nn.Module, optimiser: Optimiser, step: int) -> Mapping[str, float]:
        assert self.stage.judge is not None
        optimiser.averaged()
        net.eval()
        found = self.stage.judge()
        net.train()
        if self.best is None or found["held_out_loss"] < self.best["held_out_loss"]:
            self.best = {"stage": self.stage.name, "step": step, **found}
            self.since = 0
            if self.stage.workers.leads:
                tensors = {n: p.detach().contiguous() for n, p in net.named_parameters()}
                _write(self.stage.out / BEST, tensors, {"best": json.dumps(self.best)})
        else:
            self.since += 1
        optimiser.current()
        return found

    def restore_best(self, net: nn.Module) -> None:
        if self.best is None:
            return
        self.stage.workers.wait()
        weights = load_file(self.stage.out / BEST, device=str(self.stage.device))
        net.load_state_dict(weights, strict=False)

    def report(self, step: int) -> dict[str, Any]:
        return {"steps": step} | ({"best": self.best} if self.best else {})


def _note(recent: Mapping[str, float]) -> str:
    return " ".join(f"{k} {v:.3f}" for k, v in recent.items() if k in ("text", "label", "pair"))


def _write_checkpoint(stage: Stage, optimiser: Optimiser, step: int) -> None:
    if stage.workers.leads:
        metadata = {"stage": stage.name, "step": str(step)}
        _write(stage.out / CHECKPOINT, optimiser.state(), metadata)


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    temporary = path.with_name(f"{path.name}.new")
    save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, metadata)
    temporary.rename(path)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata, load_file(path)
