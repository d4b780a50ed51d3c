"""How fast training ran, against how fast the machine multiplies matrices in the same run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.loss import Step

#: Rows of the matrix product that training is held against; seconds it is timed for.
PRODUCT_ROWS = {"cpu": 4096, "cuda": 65_536}
PRODUCT_SECONDS = 0.3


@dataclass(frozen=True)
class Cost:
    """Of a step: its rows' real tokens, and the FLOP of the products of what they are run as."""

    tokens: int
    flops: float


class Throughput:
    """Counts what the steps of a stage took, interruptions apart, and measures the machine when
    asked to report."""

    def __init__(self, net: ClassNetwork, device: torch.device) -> None:
        self._net = net
        self._device = device
        self._tokens = 0
        self._flops = 0.0
        self._started = time.perf_counter()

    def count(self, cost: Cost) -> None:
        self._tokens += cost.tokens
        self._flops += cost.flops

    @contextmanager
    def paused(self) -> Iterator[None]:
        finish(self._device)  # what it was given before the pause is not part of it
        began = time.perf_counter()
        yield
        self._started += time.perf_counter() - began

    def state(self) -> dict[str, float]:
        """Return what a resumed stage goes on counting from."""
        seconds = time.perf_counter() - self._started
        return {"seconds": seconds, "tokens": self._tokens, "flops": self._flops}

    def restore(self, state: Mapping[str, float]) -> None:
        """Take up what ``state`` returned."""
        self._tokens, self._flops = int(state["tokens"]), state["flops"]
        self._started = time.perf_counter() - state["seconds"]

    def report(self) -> dict[str, float]:
        """Return tokens and FLOP per second, and the machine's rate; {} where nothing ran."""
        finish(self._device)
        seconds = time.perf_counter() - self._started
        if not self._tokens:
            return {}
        rate = product_rate(
            self._net.shape.hidden_dim, next(self._net.parameters()).dtype, self._device
        )
        return {
            "seconds": seconds,
            "tokens_per_s": self._tokens / seconds,
            "flops_per_s": self._flops / seconds,
            "product_flops_per_s": rate,
        }


def cost_of(step: Step, shape: NetworkShape, *, pairs: bool) -> Cost:
    """Return what a step of training costs, over all its parts; with ``pairs`` rows whose label
    is shown are run with a rival's too."""
    real_B = step.batch.real_BL.sum(1)
    passes_B = 1 + step.shown_B.long() * pairs
    lengths, masked = (passes_B * real_B), (passes_B * step.mask_BL.sum(1))
    squares = passes_B * (real_B + 1) ** 2
    tokens = int((lengths + passes_B).sum())
    flops = training_flops(shape, tokens, int(squares.sum()), int(masked.sum()))
    return Cost(int(real_B.sum()), flops)


def training_flops(shape: NetworkShape, tokens: int, squares: int, masked: int) -> float:
    """Return the FLOP of a step's matrix products, backward pass (twice the forward) included.

    ``tokens`` of all sequences with their slots, ``squares`` the sum of their squared lengths,
    ``masked`` the tokens that meet the output matrix. Padding is not counted: it is waste.
    """
    D, V = shape.hidden_dim, shape.vocab_size
    blocks = shape.n_blocks * (2 * 12 * D * D * tokens + 4 * D * squares)
    return 3.0 * (blocks + 2 * D * V * masked)


def product_rate(D: int, dtype: torch.dtype, device: torch.device) -> float:
    """Return FLOP/s of the network's largest block product, (rows, D) by (D, 4 D)."""
    rows = PRODUCT_ROWS[device.type]
    a, b = torch.randn(rows, D, device=device), torch.randn(D, 4 * D, device=device)
    a, b = a.to(dtype), b.to(dtype)
    a @ b
    finish(device)
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < PRODUCT_SECONDS:
        for _ in range(10):
            a @ b
        finish(device)
        done += 10
    return done * 8.0 * rows * D * D / (time.perf_counter() - began)


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
