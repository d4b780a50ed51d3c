"""Masking a text and reading the network's probabilities of what was masked: pure functions.

Notation: x a text of L tokens, M a set of masked positions, x_vis the others,
l_i(c) = log p(x_i | x_vis, c). Shapes: B sequences, L tokens, N masked tokens.
"""

from __future__ import annotations

import hmac

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from guardkit_mdlm.class_network import ClassNetwork

BoolArray = npt.NDArray[np.bool_]


def mask_rng(key: bytes, ids: npt.NDArray[np.int32], stream: int) -> np.random.Generator:
    """Return the generator of a text's masks: HMAC-SHA256(key, stream, tokens).

    The same in any batch and any run, and unknown to who does not hold the key: fixed public
    masks could be optimised against.
    """
    message = stream.to_bytes(4, "little") + ids.astype("<i4").tobytes()
    digest = hmac.digest(key, message, "sha256")
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))


def fixed_size_mask(real_BL: Tensor, size_B: Tensor, generator: torch.Generator) -> Tensor:
    """Mask exactly ``size_B`` real positions of each row, every such set equally likely."""
    order_BL = torch.rand(real_BL.shape, generator=generator).to(real_BL.device)
    order_BL = order_BL.masked_fill(~real_BL, torch.inf)
    rank_BL = order_BL.argsort(1).argsort(1)
    return (rank_BL < size_B[:, None]) & real_BL


def masked_log_probs(
    net: ClassNetwork, ids_BL: Tensor, mask_BL: Tensor, class_B: Tensor, real_BL: Tensor | None
) -> Tensor:
    """Return l_i of every masked token in reading order (N,), float32, one network pass.

    Only masked positions meet the output matrix. ``real_BL`` is None where nothing is padding.
    """
    noised_BL = ids_BL.masked_fill(mask_BL, net.shape.mask_id)
    _, x_BLD = net(noised_BL, class_B, real_BL)
    class_N = class_B[:, None].expand_as(ids_BL)[mask_BL]
    return net.token_log_probs(x_BLD[mask_BL], class_N, ids_BL[mask_BL])
