"""Masks, and what a masked text says of its class: pure functions, equations beside them.

Notation: x a text of L tokens, M a set of masked positions, x_vis the others,
l_i(c) = log p(x_i | x_vis, c). Shapes: B sequences, L tokens, C classes, N masked tokens.

Sharing M across classes is what makes the ratio measurable: the noise of which tokens are
masked, some nats per token, cancels in the difference; with one mask per class it drowns a
signal of some hundredths of a nat.
"""

from __future__ import annotations

import hmac

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guardkit_mdlm.model import Denoiser

BoolArray = npt.NDArray[np.bool_]


def mask_rng(key: bytes, ids: npt.NDArray[np.int32], pair: int) -> np.random.Generator:
    """Return the generator of a text's masks: HMAC-SHA256(key, pair, tokens).

    The same in any batch and any run, and unknown to who does not hold the key: fixed public
    masks could be optimised against.
    """
    message = pair.to_bytes(4, "little") + ids.astype("<i4").tobytes()
    digest = hmac.digest(key, message, "sha256")
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))


def half_mask(length: int, rng: np.random.Generator) -> BoolArray:
    """Return M, a uniformly drawn half of ``length`` positions (rounded up); its complement is
    the other half of an H pair."""
    mask = np.zeros(length, bool)
    mask[rng.permutation(length)[: (length + 1) // 2]] = True
    return mask


def fixed_size_mask(real_BL: Tensor, size_B: Tensor, generator: torch.Generator) -> Tensor:
    """Mask exactly ``size_B`` real positions of each row, every such set equally likely."""
    order_BL = torch.rand(real_BL.shape, generator=generator).to(real_BL.device)
    order_BL = order_BL.masked_fill(~real_BL, torch.inf)
    rank_BL = order_BL.argsort(1).argsort(1)
    return (rank_BL < size_B[:, None]) & real_BL


def masked_log_probs(
    net: Denoiser, ids_BL: Tensor, mask_BL: Tensor, class_B: Tensor, real_BL: Tensor
) -> Tensor:
    """Return l_i of every masked token in reading order (N,), float32, one network pass.

    Only masked positions meet the output matrix.
    """
    noised_BL = ids_BL.masked_fill(mask_BL, net.shape.mask_id)
    _, x_BLD = net(noised_BL, class_B, real_BL)
    class_N = class_B[:, None].expand_as(ids_BL)[mask_BL]
    return net.token_log_probs(x_BLD[mask_BL], class_N, ids_BL[mask_BL])


def sum_by_row(values_N: Tensor, mask_BL: Tensor) -> Tensor:
    """Sum values of masked tokens by sequence: sum_{i in M} l_i, shape (B,)."""
    rows_N = mask_BL.nonzero()[:, 0]
    return values_N.new_zeros(len(mask_BL)).index_add(0, rows_N, values_N)


def class_log_likelihoods(
    net: Denoiser, ids_BL: Tensor, mask_BL: Tensor, real_BL: Tensor
) -> Tensor:
    """Return l_i(c) of every token under an H pair, shape (B, L, C), zero on padding.

    With M = ``mask_BL`` and its complement M' each token is predicted once:
    sum_i l_i(c) is the H estimate of log p(x|c) (unbiased for mask level 1/2 only, as a
    discriminant better than the NELBO's), and l_i(1) - l_i(0) is the token's evidence. M is
    shared by all classes.
    """
    B, L = ids_BL.shape
    C = net.shape.n_classes
    class_X = torch.arange(1, C + 1, device=ids_BL.device).repeat_interleave(B)
    result_CBL = torch.zeros(C, B, L, device=ids_BL.device)
    for half_BL in (mask_BL & real_BL, ~mask_BL & real_BL):
        if not bool(half_BL.any()):
            continue
        half_XL = half_BL.repeat(C, 1)
        values_N = masked_log_probs(
            net, ids_BL.repeat(C, 1), half_XL, class_X, real_BL.repeat(C, 1)
        )
        result_CBL.view(C * B, L)[half_XL] = values_N
    return result_CBL.permute(1, 2, 0)
