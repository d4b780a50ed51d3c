"""Class rows: what few examples of something new add to a trained network's labels.

A row is linear in what the one pass already computes, the *states* of a window: the label slot's
and the mean of its tokens'. It is Fisher's discriminant between the examples and remembered texts
of the other labels (Hastie, Tibshirani and Friedman 2009, section 4.3): both Gaussian, with one
covariance, that of the remembered texts, shrunk toward a multiple of the identity, for a handful
of examples has none of its own. Fitting is one linear system; no weight of the network moves.

A label's logit becomes the logsumexp of what it was and the row's, less a constant:

    z_y <- logaddexp(z_y, logsumexp_{c != y} z_c + a w.h + b) - shift

a and b put the remembered texts' 98% and 99.95% quantiles under the row where the 90% and 99.5%
quantiles lie under the label, so that neither the few examples nor the network's scale decide what
a logit is worth, and one family has a small share of the false positives; shift puts the 99%
quantile of both together where it was. A threshold in that tail lets through as many texts like the
remembered ones as before.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from guardkit import Pooling, pool_windows
from guardkit_mdlm.remembered import Float32, Windows

ROWS = "rows.safetensors"
SHRINKAGE, FOLDS = 0.2, 5
#: Examples that are taken to lie at the remembered texts' mean: a single one is not the family.
PRIOR_EXAMPLES = 2.0
#: Of the remembered texts of other labels: the quantiles of the label's log-odds that those of the
#: row's score are put at, and the one that stays where it was with both together. With the same
#: quantiles for both, a row took half of the false positives, and the shift that undid this cost
#: many of the known attacks.
TAIL, OWN_TAIL, KEPT = (0.9, 0.995), (0.98, 0.9995), 0.99

Float64 = npt.NDArray[np.float64]


class AddedRows(nn.Module):
    """R rows in the order in which they were added; F = 2 D states."""

    def __init__(self, n: int, n_states: int) -> None:
        super().__init__()
        self.weight_RF = nn.Parameter(torch.zeros(n, n_states), requires_grad=False)
        self.bias_R = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.shift_R = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.register_buffer("label_R", torch.zeros(n, dtype=torch.long))
        self.label_R: Tensor

    def forward(self, logits_BC: Tensor, states_BF: Tensor) -> Tensor:
        """Return the logits_BC with the rows in them."""
        scores_BR = states_BF @ self.weight_RF.T + self.bias_R
        for r in range(len(self.bias_R)):
            own_C = torch.arange(logits_BC.shape[1], device=logits_BC.device) == self.label_R[r]
            rest_BC = logits_BC.masked_fill(own_C, -torch.inf)
            # spelt out, for as ONNX torch's own overflow
            most_B1 = rest_BC.amax(1, keepdim=True)
            rest_B1 = most_B1 + (rest_BC - most_B1).exp().sum(1, keepdim=True).log()
            row_B1 = rest_B1 + scores_BR[:, r, None]
            apart_BC = (logits_BC - row_B1).abs()
            raised_BC = torch.maximum(logits_BC, row_B1) + torch.log1p(torch.exp(-apart_BC))
            logits_BC = torch.where(own_C, raised_BC - self.shift_R[r], logits_BC)
        return logits_BC

    def with_row(self, weight_F: Float32, bias: float, shift: float, label: int) -> AddedRows:
        """Return these rows and one more."""
        n, F = self.weight_RF.shape
        more = AddedRows(n + 1, F)
        with torch.no_grad():
            more.weight_RF.copy_(torch.cat([self.weight_RF, torch.from_numpy(weight_F)[None]]))
            more.bias_R.copy_(torch.cat([self.bias_R, torch.tensor([bias])]))
            more.shift_R.copy_(torch.cat([self.shift_R, torch.tensor([shift])]))
            more.label_R.copy_(torch.cat([self.label_R, torch.tensor([label])]))
        return more

    def __len__(self) -> int:
        return len(self.bias_R)

    def since(self, first: int) -> AddedRows:
        """Return the rows from ``first`` on."""
        later = AddedRows(len(self) - first, self.weight_RF.shape[1])
        later.load_state_dict({name: tensor[first:] for name, tensor in self.state_dict().items()})
        return later

    def of(self, logits_WC: Float32, states_WF: Float32) -> Float32:
        """``forward`` of arrays."""
        logits_BC, states_BF = torch.from_numpy(logits_WC), torch.from_numpy(states_WF)
        result: Float32 = self.cpu()(logits_BC, states_BF).numpy()
        return result

    def save(self, folder: Path) -> None:
        tensors = {n: np.ascontiguousarray(t.cpu().numpy()) for n, t in self.state_dict().items()}
        save_file(tensors, folder / ROWS)


def load_rows(folder: Path) -> AddedRows | None:
    """Return an artefact's rows, None where nothing was added to it."""
    path = folder / ROWS
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    rows = AddedRows(*tensors["weight_RF"].shape)
    rows.load_state_dict(tensors)
    return rows


class Contrast:
    """The remembered texts of other labels than ``label``, from which new examples are told.

    Five times a fifth of them is left out of the Gaussian: what they score under a row that was
    fitted without them is what fresh texts would.
    """

    def __init__(self, remembered: Windows, label: int, how: Pooling, neutral: int | None) -> None:
        self.label, self.how, self.neutral = label, how, neutral
        others_N = np.flatnonzero(remembered.labels_N != label)
        self.texts = remembered.of_texts(others_N.tolist())
        self.fold_W = np.random.default_rng(0).permutation(len(others_N))[self.texts.text_W] % FOLDS
        self.whole = _Gaussian(self.texts.states_WF)
        self.folds = [_Gaussian(self.texts.states_WF[self.fold_W != k]) for k in range(FOLDS)]

    def log_odds(self, logits_WC: Float32) -> Float64:
        """Return the label's log-odds_N against all others, of pooled windows."""
        pooled_NC = replace(self.texts, logits_WC=logits_WC).pooled(self.how, self.neutral)
        rest_NC = np.delete(pooled_NC.astype(np.float64), self.label, axis=1)
        result_N: Float64 = pooled_NC[:, self.label] - np.logaddexp.reduce(rest_NC, axis=1)
        return result_N


class _Gaussian:
    """Mean, scale and shrunk covariance of states_WF."""

    def __init__(self, states_WF: Float32) -> None:
        self.mean_F, self.scale_F = states_WF.mean(0), states_WF.std(0) + 1e-6
        covariance_FF = np.cov(((states_WF - self.mean_F) / self.scale_F).T.astype(np.float64))
        even_FF = np.eye(len(covariance_FF)) * np.trace(covariance_FF) / len(covariance_FF)
        self.factor = cho_factor((1 - SHRINKAGE) * covariance_FF + SHRINKAGE * even_FF)

    def direction(self, new: Windows) -> Float32:
        """Return weight_F of the discriminant of ``new``; a text's windows share its one vote."""
        vote_W = 1.0 / np.bincount(new.text_W)[new.text_W]
        states_WF = (new.states_WF - self.mean_F) / self.scale_F
        centre_F = np.average(states_WF, axis=0, weights=vote_W)
        centre_F = centre_F * len(new) / (len(new) + PRIOR_EXAMPLES)
        weight_F: Float32 = (cho_solve(self.factor, centre_F) / self.scale_F).astype(np.float32)
        return weight_F


def fit_row(new: Windows, contrast: Contrast, rows: AddedRows) -> AddedRows:
    """Return ``rows`` and a row that tells the texts ``new`` from those of ``contrast``, whose
    logits are with ``rows`` in them."""
    texts, label = contrast.texts, contrast.label
    score_W = np.zeros(len(texts.states_WF), np.float32)
    for k, gaussian in enumerate(contrast.folds):
        left_out = contrast.fold_W == k
        score_W[left_out] = texts.states_WF[left_out] @ gaussian.direction(new)

    # a window's score pools as the lead of a label over one other does
    score_WC = np.stack([np.zeros_like(score_W), score_W], axis=1)
    score_NC = pool_windows(score_WC, texts.text_W, len(texts), contrast.how, 0)
    before_N = contrast.log_odds(texts.logits_WC)
    low, high = np.quantile(before_N, TAIL)
    own_low, own_high = np.quantile(score_NC[:, 1] - score_NC[:, 0], OWN_TAIL)
    slope = (high - low) / max(own_high - own_low, 1e-6)
    bias = float(high - slope * own_high)

    of_score = AddedRows(0, 1).with_row(np.array([slope], np.float32), bias, 0.0, label)
    after_N = contrast.log_odds(of_score.of(texts.logits_WC, score_W[:, None]))
    shift = np.quantile(after_N, KEPT) - np.quantile(before_N, KEPT)
    weight_F = np.float32(slope) * contrast.whole.direction(new)
    return rows.with_row(weight_F, bias, float(shift), label)
