"""What each token of a window adds to the network's one pass.

Shape letters: B = 1 sequence, L tokens, D hidden, F features, C classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from guardkit_mdlm.adaptation.class_rows import AddedRows
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.token_ids import TokenIds


def gradient_evidence(
    net: Denoiser,
    piece: TokenIds,
    features_WF: np.ndarray | None,
    rows: AddedRows | None,
    device: torch.device,
) -> np.ndarray:
    """Return values_LC of one window's tokens: gradient times input of each label's logit with
    respect to their embeddings, plus their share of the wide term, of n-grams within the network
    and of the rows that were added. ``features_WF`` are those that all windows of the text
    share."""
    batch = pad_batch([piece], np.zeros(1), None if features_WF is None else features_WF[:1])
    ids_BL, real_BL, features_BF = batch.inputs(device)
    x_BLD = net.trunk.embed(ids_BL).detach().requires_grad_()
    null_B = torch.zeros_like(ids_BL[:, 0])
    slot_BD, _ = net.from_embeddings(x_BLD, null_B, real_BL, features_BF)
    logits_BC = net.label_logits(slot_BD, ids_BL, real_BL)
    columns: list[Tensor] = []
    for c in range(logits_BC.shape[1]):
        (gradient_BLD,) = torch.autograd.grad(logits_BC[0, c], x_BLD, retain_graph=True)
        columns.append((gradient_BLD.float() * x_BLD.detach().float()).sum(-1)[0])
    values_LC = torch.stack(columns, dim=-1)
    if net.shape.wide:
        bias_LC = net.class_bias.detach().float()[:, ids_BL[0]].T
        values_LC = (
            values_LC + net.wide_scale.detach().float() * bias_LC / max(1, len(piece)) ** 0.5
        )
    if net.ngrams is not None:
        values_LC = values_LC + net.ngrams.shares(ids_BL[0])
    if rows is not None:
        rows = rows.to(device)
        values_LC = rows.evidence(values_LC, logits_BC[0].detach().float(), ids_BL[0])
    result: np.ndarray = values_LC.detach().float().cpu().numpy()
    return result
