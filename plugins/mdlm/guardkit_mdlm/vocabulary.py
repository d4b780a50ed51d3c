"""log p(token) over the whole vocabulary, a few rows at a time.

Written out, N x V float32 logits and their gradients are what a small network spends most of
its time moving. Here a slice of rows stays in the cache from its product to its normaliser,
and the one N x V array that is kept, in the network's dtype, becomes its own gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Rows at once: some megabytes on a CPU, enough to fill a GPU.
ROWS = {"cpu": 256, "cuda": 16_384}


class TokenLogProbs(torch.autograd.Function):
    """(x_ND, weight_VD, target_N) -> log softmax(x weight^T)[target] as float32 (N,).

    In bfloat16 a logit near 6 resolves to 0.03, the size of the evidence a token carries on the
    class. The target's own logit is therefore computed in float32; the rounding of the
    normaliser's many terms averages out.
    """

    @staticmethod
    def forward(ctx: Any, x_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        N = len(x_ND)
        learns = any(ctx.needs_input_grad)  # else no logits are kept
        logits_NV = x_ND.new_empty(N if learns else 0, len(weight_VD))
        normaliser_N = x_ND.new_empty(N, dtype=torch.float32)
        for rows in _slices(N, x_ND.device.type):
            logits_RV = torch.mm(x_ND[rows], weight_VD.T, out=logits_NV[rows] if learns else None)
            normaliser_N[rows] = logits_RV.float().logsumexp(1)
        exact_N = torch.linalg.vecdot(x_ND.float(), weight_VD[target_N].float())
        ctx.save_for_backward(x_ND, weight_VD, target_N, logits_NV, normaliser_N)
        values_N: Tensor = exact_N - normaliser_N
        return values_N

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Overwrites the logits by their gradient, g (onehot - softmax): goes through once."""
        (gradient_N,) = gradients
        x_ND, weight_VD, target_N, logits_NV, normaliser_N = ctx.saved_tensors
        for rows in _slices(len(x_ND), x_ND.device.type):
            g_R1 = gradient_N[rows, None]
            p_RV = logits_NV[rows].float().sub_(normaliser_N[rows, None]).exp_().mul_(-g_R1)
            logits_NV[rows] = p_RV.scatter_add_(1, target_N[rows, None], g_R1)
        return logits_NV @ weight_VD, logits_NV.T @ x_ND, None


def _slices(n: int, device: str) -> list[slice]:
    rows = ROWS[device]
    return [slice(start, start + rows) for start in range(0, n, rows)]
