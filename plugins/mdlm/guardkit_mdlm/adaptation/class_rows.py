"""Class rows: what few examples of something new add to a trained network's labels.

A row is linear in a window's sketch, the tokens and pairs of them that stand in it (``sketch``). It
is the discriminant between the examples and remembered texts of the other labels that takes buckets
for independent (DLDA of Dudoit, Fridlyand and Speed 2002): both Gaussian, with the remembered
texts' variance, halfway to its mean over buckets, for many a bucket is empty in all of them. No
weight of the network moves. Rows in what the network makes of a window, its last states, learn next
to nothing from as many examples (docs/results/novel-families.md).

A label's logit becomes the logsumexp of what it was and the row's, less a constant:

    z_y <- logaddexp(z_y, logsumexp_{c != y} z_c + min(a w.s + b, bound)) - shift

a and b put the remembered texts' 98% and 99.95% quantiles under the row where the 90% and 99.5%
quantiles lie under the label, so that neither the few examples nor the network's scale decide what
a logit is worth, and one family has a small share of the false positives; shift puts the 99%
quantile of both together where it was. A threshold in that tail lets through as many texts like the
remembered ones as before. The bound is what nine in ten of the label's own remembered texts do not
exceed: however much a text repeats of the examples, a handful of them makes no model surer.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse
from torch import Tensor, nn

from guardkit import ArtefactError, Pooling, pool_windows
from guardkit_mdlm.adaptation.remembered import Float32, Windows
from guardkit_mdlm.adaptation.sketch import BUCKETS, LONGEST_RUN, bucket_and_sign, weighed
from guardkit_mdlm.ngrams import run_hashes, shared_out
from guardkit_mdlm.runs import NONE

ROWS = "rows.safetensors"
FOLDS = 5
#: Of the remembered texts of other labels: the quantiles of the label's log-odds that those of the
#: row's score are put at, and the one that stays where it was with both together. With the same
#: quantiles for both, a row took half of the false positives, and the shift that undid this cost
#: many of the known attacks.
TAIL, OWN_TAIL, KEPT = (0.9, 0.995), (0.98, 0.9995), 0.99
#: Of the remembered texts of the label itself: the quantile of its log-odds that bounds a row.
SURE = 0.9

Float64 = npt.NDArray[np.float64]


class AddedRows(nn.Module):
    """R rows in the order in which they were added."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight_RK = nn.Parameter(torch.zeros(n, BUCKETS), requires_grad=False)
        self.bias_R = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.bound_R = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.shift_R = nn.Parameter(torch.zeros(n), requires_grad=False)
        self.register_buffer("label_R", torch.zeros(n, dtype=torch.long))
        self.label_R: Tensor

    def forward(self, logits_BC: Tensor, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Return the logits_BC of windows with the rows in them; ``real_BL`` is false on padding,
        None where there is none."""
        return self.raised(logits_BC, weighed(self.weight_RK, ids_BL, real_BL))

    def of(self, logits_WC: Float32, sketch_WK: sparse.csr_array) -> Float32:
        """``forward`` of arrays, windows in the form of their sketches."""
        score_WR = torch.from_numpy(sketch_WK @ self.weight_RK.cpu().numpy().T)
        result: Float32 = self.cpu().raised(torch.from_numpy(logits_WC), score_WR).numpy()
        return result

    def raised(self, logits_BC: Tensor, score_BR: Tensor) -> Tensor:
        """Return logits_BC with rows in them, of which a w.s is ``score_BR``."""
        odds_BR = torch.minimum(score_BR + self.bias_R, self.bound_R)
        for r in range(len(self.bias_R)):
            own_C, rest_B1 = self._others(logits_BC, r)
            row_B1 = rest_B1 + odds_BR[:, r, None]
            apart_BC = (logits_BC - row_B1).abs()
            raised_BC = torch.maximum(logits_BC, row_B1) + torch.log1p(torch.exp(-apart_BC))
            logits_BC = torch.where(own_C, raised_BC - self.shift_R[r], logits_BC)
        return logits_BC

    def evidence(self, values_LC: Tensor, logits_C: Tensor, ids_L: Tensor) -> Tensor:
        """Return what each token of one window is for its logits with the rows in them, to first
        order, from what it is for ``logits_C`` without them. Of a row at its bound all shares are
        reduced alike."""
        hash_NL = run_hashes(ids_L[None], None, LONGEST_RUN)[0]
        bucket_NL, sign_NL = bucket_and_sign(hash_NL.clamp(min=0))
        value_RNL = self.weight_RK[:, bucket_NL] * sign_NL * (hash_NL != NONE)
        share_LR = shared_out(value_RNL.permute(1, 2, 0), hash_NL)
        score_R = weighed(self.weight_RK, ids_L[None], None)[0]
        odds_R = torch.minimum(score_R + self.bias_R, self.bound_R)
        at_bound_R = odds_R < score_R + self.bias_R
        share_LR = torch.where(at_bound_R, share_LR * (odds_R - self.bias_R) / score_R, share_LR)
        for r in range(len(self.bias_R)):
            own_C, rest_11 = self._others(logits_C[None], r)
            rest_C = logits_C.masked_fill(own_C, -torch.inf).softmax(0)
            row_LC = ((values_LC * rest_C).sum(1) + share_LR[:, r])[:, None]
            part_C = torch.sigmoid(rest_11[0] + odds_R[r] - logits_C)  # the row's, of the sum
            both_LC = part_C * row_LC + (1 - part_C) * values_LC
            values_LC = torch.where(own_C, both_LC, values_LC)
            raised_C = torch.logaddexp(logits_C, rest_11[0] + odds_R[r]) - self.shift_R[r]
            logits_C = torch.where(own_C, raised_C, logits_C)
        return values_LC

    def _others(self, logits_BC: Tensor, r: int) -> tuple[Tensor, Tensor]:
        """Return which class is the row's, and the logsumexp of all others, (B, 1)."""
        own_C = torch.arange(logits_BC.shape[1], device=logits_BC.device) == self.label_R[r]
        rest_BC = logits_BC.masked_fill(own_C, -torch.inf)
        # spelt out, for as ONNX torch's own overflow
        most_B1 = rest_BC.amax(1, keepdim=True)
        return own_C, most_B1 + (rest_BC - most_B1).exp().sum(1, keepdim=True).log()

    def with_row(
        self, weight_K: Float32, bias: float, bound: float, shift: float, label: int
    ) -> AddedRows:
        """Return these rows and one more."""
        more = AddedRows(len(self) + 1)
        with torch.no_grad():
            more.weight_RK.copy_(torch.cat([self.weight_RK, torch.from_numpy(weight_K)[None]]))
            more.bias_R.copy_(torch.cat([self.bias_R, torch.tensor([bias])]))
            more.bound_R.copy_(torch.cat([self.bound_R, torch.tensor([bound])]))
            more.shift_R.copy_(torch.cat([self.shift_R, torch.tensor([shift])]))
            more.label_R.copy_(torch.cat([self.label_R, torch.tensor([label])]))
        return more

    def __len__(self) -> int:
        return len(self.bias_R)

    def since(self, first: int) -> AddedRows:
        """Return the rows from ``first`` on."""
        later = AddedRows(len(self) - first)
        later.load_state_dict({name: tensor[first:] for name, tensor in self.state_dict().items()})
        return later

    def save(self, folder: Path) -> None:
        tensors = {n: np.ascontiguousarray(t.cpu().numpy()) for n, t in self.state_dict().items()}
        save_file(tensors, folder / ROWS)


def load_rows(folder: Path) -> AddedRows | None:
    """Return an artefact's rows, None where nothing was added to it. Raises ArtefactError where
    another version made them."""
    path = folder / ROWS
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    rows = AddedRows(len(tensors["bias_R"]))
    if {n: t.shape for n, t in tensors.items()} != {
        n: t.shape for n, t in rows.state_dict().items()
    }:
        raise ArtefactError(
            f"{path}: what was added to this model was added by another version; adapt the model "
            "that it was made of again: guardkit adapt"
        )
    rows.load_state_dict(tensors)
    return rows


class Contrast:
    """The remembered texts of other labels than ``label``, from which new examples are told.

    Five times a fifth of them is left out of the moments: what they score under a row that was
    fitted without them is what fresh texts would.
    """

    def __init__(self, remembered: Windows, label: int, how: Pooling, neutral: int | None) -> None:
        self.label, self.how, self.neutral = label, how, neutral
        others_N = np.flatnonzero(remembered.labels_N != label)
        own_N = log_odds(remembered.pooled(how, neutral), label)[remembered.labels_N == label]
        self.bound = float(np.quantile(own_N, SURE)) if len(own_N) else np.inf
        self.texts = remembered.of_texts(others_N.tolist())
        self.fold_W = np.random.default_rng(0).permutation(len(others_N))[self.texts.text_W] % FOLDS
        self.whole = _Moments(self.texts.sketch_WK)
        self.folds = [_Moments(self.texts.sketch_WK[self.fold_W != k]) for k in range(FOLDS)]

    def log_odds(self, logits_WC: Float32) -> Float64:
        """Return the label's log-odds_N against all others, of pooled windows."""
        pooled_NC = replace(self.texts, logits_WC=logits_WC).pooled(self.how, self.neutral)
        return log_odds(pooled_NC, self.label)


def log_odds(logits_NC: Float32, label: int) -> Float64:
    """Return a label's log-odds_N against all others."""
    rest_NC = np.delete(logits_NC.astype(np.float64), label, axis=1)
    result_N: Float64 = logits_NC[:, label] - np.logaddexp.reduce(rest_NC, axis=1)
    return result_N


class _Moments:
    """Mean and shrunk variance of sketch_WK, bucket by bucket."""

    def __init__(self, sketch_WK: sparse.csr_array) -> None:
        n = sketch_WK.shape[0]
        self.mean_K = np.asarray(sketch_WK.sum(axis=0)).ravel() / n
        variance_K = np.asarray(sketch_WK.power(2).sum(axis=0)).ravel() / n - self.mean_K**2
        self.variance_K = variance_K + variance_K.mean()

    def direction(self, new: Windows) -> Float32:
        """Return weight_K of the discriminant of ``new``; a text's windows share its one vote."""
        vote_W = 1.0 / np.bincount(new.text_W)[new.text_W]
        mean_K = new.sketch_WK.T @ (vote_W / vote_W.sum())
        weight_K: Float32 = ((mean_K - self.mean_K) / self.variance_K).astype(np.float32)
        return weight_K


def fit_row(new: Windows, contrast: Contrast, rows: AddedRows) -> AddedRows:
    """Return ``rows`` and a row that tells the texts ``new`` from those of ``contrast``, whose
    logits are with ``rows`` in them."""
    texts, label = contrast.texts, contrast.label
    score_W = np.zeros(len(texts.text_W), np.float32)
    for k, moments in enumerate(contrast.folds):
        left_out = contrast.fold_W == k
        score_W[left_out] = texts.sketch_WK[left_out] @ moments.direction(new)

    # a window's score pools as the lead of a label over one other does
    score_WC = np.stack([np.zeros_like(score_W), score_W], axis=1)
    score_NC = pool_windows(score_WC, texts.text_W, len(texts), contrast.how, 0)
    before_N = contrast.log_odds(texts.logits_WC)
    low, high = np.quantile(before_N, TAIL)
    own_low, own_high = np.quantile(score_NC[:, 1] - score_NC[:, 0], OWN_TAIL)
    slope = (high - low) / max(own_high - own_low, 1e-6)
    bias = float(high - slope * own_high)

    weight_K = np.float32(slope) * contrast.whole.direction(new)
    row = AddedRows(0).with_row(weight_K, bias, max(contrast.bound, high), 0.0, label)
    raised_WC = row.raised(
        torch.from_numpy(texts.logits_WC), torch.from_numpy(np.float32(slope) * score_W)[:, None]
    )
    shift = np.quantile(contrast.log_odds(raised_WC.numpy()), KEPT) - np.quantile(before_N, KEPT)
    return rows.with_row(weight_K, bias, float(row.bound_R[0]), float(shift), label)
