"""Training on several processes at once, as ``torchrun`` starts them: one step, split by rows.

Every process draws the same step, runs its own rows and sums the gradients with the others';
weights stay equal because the sums are. With one process nothing here does anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """This process's place among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def sum(self, tensor: Tensor) -> Tensor:
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Mapping[str, Tensor]) -> None:
        """Replace each ``.grad`` by its sum over processes; None where none has one."""
        if self.count == 1:
            return
        every = list(parameters.values())
        present = torch.tensor([p.grad is not None for p in every], device=every[0].device)
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in every]
        flat = torch.cat([g.flatten() for g in grads] + [present.to(grads[0].dtype)])
        dist.all_reduce(flat)
        for p, g, some in zip(
            every,
            torch.split(flat[: -len(every)], [g.numel() for g in grads]),
            flat[-len(every) :].tolist(),
            strict=True,
        ):
            p.grad = g.view_as(p) if some else None


def join(device: torch.device) -> Workers:
    """Meet the other processes, if ``torchrun`` started any."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Workers()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Workers(dist.get_rank(), dist.get_world_size())
