"""Steps, epochs and checkpoints: the same for every stage of training.

Order, windows and dropout follow from (seed, stage, epoch, step) alone, so that a resumed run
repeats what the interrupted one would have done.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from guardkit import GuardkitError, Progress, TrainingInterrupted, write_atomically
from guardkit_gpt2.config import Gpt2Options
from guardkit_gpt2.optimisation import Optimiser, learning_rate
from guardkit_gpt2.tokenizer import TokenIds

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Stage:
    """Texts to learn from, a window of each once per epoch."""

    name: str
    number: int
    ids: Sequence[TokenIds]
    epochs: int
    window: int

    def draw(self, step: int, batch_size: int, seed: int) -> tuple[np.ndarray, list[TokenIds]]:
        """Return the texts of a step, by number, and a window of each; both drawn anew every
        epoch."""
        per_epoch = math.ceil(len(self.ids) / batch_size)
        epoch, position = divmod(step, per_epoch)
        order_N, start_N = self._epoch(epoch, seed)
        rows = order_N[position * batch_size :][:batch_size]
        return rows, [self.ids[i][start_N[i] :][: self.window] for i in rows]

    @lru_cache(maxsize=1)  # noqa: B019 - a stage lives as long as its training
    def _epoch(self, epoch: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([seed, self.number, epoch])
        spare_N = np.maximum(np.array([len(i) for i in self.ids]) - self.window, 0)
        return rng.permutation(len(self.ids)), rng.integers(0, spare_N + 1)


@dataclass
class Standing:
    """How far a stage is; ``history`` has an entry for every epoch that was closed."""

    stage: str
    step: int = 0
    loss_sum: float = 0.0
    best: float = math.inf
    stale: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


class Loop:
    """Trains one stage after another in ``folder``, where checkpoints and the best weights go."""

    def __init__(self, options: Gpt2Options, folder: Path, progress: Progress) -> None:
        self._options = options
        self._folder = folder
        self._progress = progress
        self._resumed: tuple[Standing, dict[str, Tensor]] | None = None

    @property
    def resumed_stage(self) -> str | None:
        """The stage that was interrupted; those before it are done."""
        return self._resumed[0].stage if self._resumed else None

    def resume(self, where: torch.device) -> None:
        """Take up what an interrupted run left, if it left any."""
        path = self._folder / CHECKPOINT
        if path.is_file():
            with safe_open(path, "pt") as file:
                standing = Standing(**json.loads(file.metadata()["standing"]))
            self._resumed = standing, load_file(path, device=str(where))

    def run(
        self,
        stage: Stage,
        module: nn.Module,
        backward: Callable[[np.ndarray, list[TokenIds]], float],
        validate: Callable[[], dict[str, float]] | None = None,
    ) -> Standing:
        """Train ``module``; return where the stage ended.

        ``backward`` takes rows and a window of each, leaves gradients and returns the loss;
        ``validate`` returns measures, ``log_loss`` among them: the weights of the epoch with
        the least go to ``BEST``, and ``patience`` epochs without a better one end the stage.
        """
        options = self._options
        optimiser = Optimiser(module, options.weight_decay)
        at = Standing(stage.name)
        if self._resumed and self._resumed[0].stage == stage.name:
            at, tensors = self._resumed
            optimiser.restore(tensors)
        per_epoch = math.ceil(len(stage.ids) / options.batch_size)
        total = per_epoch * stage.epochs
        assert options.lr is not None  # resolved
        try:
            while True:
                # an epoch interrupted while it is validated is validated again
                if at.step == per_epoch * (len(at.history) + 1):
                    self._close_epoch(at, module, at.loss_sum / per_epoch, validate)
                    self._save(at, optimiser)
                if at.step >= total or at.stale >= options.patience:
                    break
                self._progress(stage.name, at.step, total, _note(at, per_epoch))
                rows, windows = stage.draw(at.step, options.batch_size, options.seed)
                module.train()
                torch.manual_seed(_step_seed(options.seed, stage.number, at.step))  # dropout
                loss = backward(rows, windows)
                if not math.isfinite(loss):
                    raise GuardkitError(
                        f"training diverged: loss {loss} at step {at.step} of stage "
                        f"{stage.name!r}; try a smaller lr than {options.lr}"
                    )
                optimiser.step(learning_rate(at.step, total, options.lr, options.warmup))
                at.step += 1
                at.loss_sum += loss
        except TrainingInterrupted:
            self._save(at, optimiser)
            raise
        self._progress(stage.name, total, total, _note(at, per_epoch))
        return at

    def _close_epoch(
        self,
        at: Standing,
        module: nn.Module,
        train_loss: float,
        validate: Callable[[], dict[str, float]] | None,
    ) -> None:
        """Add the epoch to the history, and keep its weights if they are the best so far."""
        measures = {"epoch": len(at.history) + 1, "train_loss": train_loss}
        if validate is not None:
            measures |= validate()
            at.stale += 1
            if measures["log_loss"] < at.best:
                at.best, at.stale = measures["log_loss"], 0
                dtype = STORED[self._options.store_dtype]
                weights = {n: p.detach().to(dtype) for n, p in module.named_parameters()}
                _write(self._folder / BEST, weights)
        at.history.append(measures)
        at.loss_sum = 0.0

    def _save(self, at: Standing, optimiser: Optimiser) -> None:
        metadata = {"standing": json.dumps(asdict(at))}
        _write(self._folder / CHECKPOINT, optimiser.state(), metadata)


def _step_seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def _note(at: Standing, per_epoch: int) -> str:
    done = at.step - per_epoch * len(at.history)
    parts = [f"loss {at.loss_sum / done:.3f}"] if done else []
    if at.history and "log_loss" in at.history[-1]:
        last = at.history[-1]
        parts.append(f"validation log-loss {last['log_loss']:.4f} accuracy {last['accuracy']:.3f}")
    return ", ".join(parts)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    write_atomically(path, save({n: t.contiguous().cpu() for n, t in tensors.items()}, metadata))
