"""The Muon optimiser (Jordan 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

#: The quintic's coefficients and how often it is applied (Jordan 2024).
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made nearly orthogonal, for hidden matrices.

    ``torch.optim.Muon`` is the same but for two things. It iterates in bfloat16 whatever the
    machine, slowly where a processor has to emulate it; this one iterates in ``dtype``. And it
    takes one matrix after the other, where this one takes all of a shape at once: a GPU has
    hundreds of small products less to launch.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        self.dtype = dtype
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            of_shape: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
            for p in group["params"]:
                if p.grad is None:
                    continue
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p)
                average = self.state[p]["momentum_buffer"].lerp_(p.grad, 1 - momentum)
                params, updates = of_shape.setdefault(p.shape, ([], []))
                params.append(p)
                updates.append(p.grad.lerp(average, momentum))  # Nesterov's
            for (rows, columns), (params, updates) in of_shape.items():
                update_NRC = orthogonal(torch.stack(updates), self.dtype)
                torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
                rate = lr * math.sqrt(max(1, rows / columns))
                torch._foreach_add_(params, list(update_NRC.to(params[0].dtype)), alpha=-rate)


def orthogonal(x_NRC: Tensor, dtype: torch.dtype) -> Tensor:
    """Return N matrices with singular values near 1 in place of their own: 0.7 to 1.2 for all but
    the smallest.

    ``ITERATIONS`` times X <- A X + (B X X' + C (X X')^2) X, from X / ||X||, in ``dtype``.
    """
    x_NRC = x_NRC.to(dtype)
    wide = x_NRC if x_NRC.shape[1] <= x_NRC.shape[2] else x_NRC.mT
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=B, alpha=C), wide, beta=A)
    return wide if x_NRC.shape[1] <= x_NRC.shape[2] else wide.mT
