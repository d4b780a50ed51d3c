"""The joint loss of one step: what is masked, what is shown, and what each row counts for.

    Loss = text * G + label * CE + pair * PAIR
    G    = (1/k) sum_{i in M} -log p(x_i | x_vis, y or null)        nats per token
    CE   = -log p(y | x_vis), label masked, the text whole or partly masked
    PAIR = -log sigmoid(tau * sum_{i in M} [l_i(true) - l_i(other)]), one M for both

PAIR teaches the ratio that the generative scorer reads; G alone spends its gradient on
language.

A step is drawn whole (``draw``), then split into the parts that a process or a micro-batch runs
(``Step.part``). A part's loss is its share of the step's: the sum over all parts, and of their
gradients, is the same however the rows are split. All of that, and each part's ``Layout``, is
made on the CPU: the device is asked nothing, so it is never waited for.

Shapes: B rows of the step, L tokens, X = 2P + H sequences of one network pass (P rows with
their label shown, the same P with a rival's where PAIR counts, H rows with it hidden), N masked
tokens of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from guardkit_mdlm.batches import Batch, unless_all
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.diffusion import fixed_size_mask

#: The text loss is also logged by share of masked tokens, in this many equal ranges.
MASK_RANGES = 4
#: What ``joint_loss`` returns beside the loss, in this order.
MEASURES = (
    "text", "label", "pair", "label_accuracy", "pair_accuracy",
    *(f"text_{100 * r // MASK_RANGES}%" for r in range(MASK_RANGES)),
)  # fmt: skip


@dataclass(frozen=True)
class Counts:
    """Over how many rows of the whole step G, PAIR and CE are means."""

    text: int
    pair: int
    label: int
    text_by_range: list[int]


@dataclass(frozen=True)
class Step:
    """The rows of one optimiser step, their masks and their roles."""

    batch: Batch
    mask_BL: Tensor
    shown_B: Tensor  # the label is an input: these rows carry PAIR
    rival_B: Tensor  # the label that PAIR holds against the true one

    @property
    def counts(self) -> Counts:
        masked_B = self.mask_BL.any(1)
        hidden_B = ~self.shown_B & (self.batch.label_B >= 0)
        by_range = torch.bincount(self.range_B[masked_B], minlength=MASK_RANGES)
        return Counts(
            int(masked_B.sum()), int(self.shown_B.sum()), int(hidden_B.sum()), by_range.tolist()
        )

    @property
    def range_B(self) -> Tensor:
        share_B = self.mask_BL.sum(1) / self.batch.real_BL.sum(1).clamp(min=1)
        return (share_B * MASK_RANGES).long().clamp(max=MASK_RANGES - 1)

    def part(self, number: int, of: int) -> Step:
        """Return every ``of``-th row: neighbours are of like length, so parts are alike."""
        own = slice(number, None, of)
        batch = self.batch
        L = max(1, int(batch.real_BL[own].sum(1).max())) if len(batch.label_B[own]) else 1
        return Step(
            Batch(
                batch.ids_BL[own, :L],
                batch.real_BL[own, :L],
                batch.label_B[own],
                None if batch.features_BF is None else batch.features_BF[own],
            ),
            self.mask_BL[own, :L],
            self.shown_B[own],
            self.rival_B[own],
        )


def draw(batch: Batch, config: MdlmConfig, n_classes: int, rng: torch.Generator) -> Step:
    """Draw the roles, rivals and masks of a step's rows."""
    B = len(batch.label_B)
    labelled_B = batch.label_B >= 0
    shown_B = labelled_B & (torch.rand(B, generator=rng) < config.visible_share)

    # label shown: a middling mask. Hidden: half of the labelled read whole text, the rest up
    # to label_mask_high masked; unlabelled rows carry the text loss, so theirs spans the levels.
    most = config.label_mask_high
    ratio_B = torch.rand(B, generator=rng)
    whole_B = labelled_B & (torch.rand(B, generator=rng) < 0.5)
    hidden_ratio_B = torch.where(labelled_B, most * ratio_B * ~whole_B, 0.05 + 0.95 * ratio_B)
    shown_ratio_B = config.mask_low + (config.mask_high - config.mask_low) * ratio_B
    size_B = torch.where(shown_B, shown_ratio_B, hidden_ratio_B) * batch.real_BL.sum(1)
    mask_BL = fixed_size_mask(batch.real_BL, size_B.ceil().long(), rng)

    away_B = torch.randint(1, max(2, n_classes), (B,), generator=rng)
    return Step(batch, mask_BL, shown_B, (batch.label_B + away_B) % max(1, n_classes))


@dataclass(frozen=True)
class Layout:
    """A part of a step as the device runs it: every index, weight and shape of its loss."""

    ids_XL: Tensor  # noised
    class_X: Tensor
    real_XL: Tensor | None
    features_XF: Tensor | None
    at_N: Tensor  # where the masked tokens stand among X * L positions
    row_N: Tensor
    class_N: Tensor
    target_N: Tensor
    share_X: Tensor  # of the text loss, for each of a row's masked tokens
    range_X: Tensor
    by_range: Tensor  # over how many rows of the step a range's text loss is a mean
    label_H: Tensor | None  # None where no row has a label to be found
    pairs: int  # rows label shown that have a rival's after them; 0 without PAIR
    shown: int
    counts: Counts

    def moved(self, how: Callable[[Tensor], Tensor]) -> Layout:
        """Return it with every tensor as ``how`` makes it."""
        changed: dict[str, Any] = {
            k: how(v) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        return replace(self, **changed)

    def to(self, device: torch.device) -> Layout:
        return self.moved(lambda x: x.to(device, non_blocking=True))


def lay_out(step: Step, counts: Counts, config: MdlmConfig, mask_id: int) -> Layout:
    """Arrange this part's rows for one pass over [label shown | its rival | label hidden].

    On the CPU. ``counts`` are the whole step's, not the part's.
    """
    batch = step.batch
    shown_P = step.shown_B.nonzero()[:, 0]
    hidden_H = (~step.shown_B).nonzero()[:, 0]
    P = len(shown_P)
    pairs = P if config.pair_weight else 0
    row_X = torch.cat([shown_P, shown_P[:pairs], hidden_H])
    own_P, rival_P = batch.label_B[shown_P] + 1, step.rival_B[shown_P[:pairs]] + 1
    class_X = torch.cat([own_P, rival_P, torch.zeros_like(hidden_H)])
    ids_XL, mask_XL = batch.ids_BL[row_X], step.mask_BL[row_X]
    predicts = config.text_weight > 0 or config.pair_weight > 0
    predicted_XL = mask_XL if predicts else torch.zeros_like(mask_XL)
    row_N, column_N = predicted_XL.nonzero(as_tuple=True)
    masked_X = mask_XL.sum(1)
    # the text loss counts the true class only
    share_X = torch.where(masked_X > 0, 1 / (masked_X * max(1, counts.text)), 0.0)
    share_X[P : P + pairs] = 0
    features_XF = None
    if batch.features_BF is not None:
        # features of the whole text would give masked tokens away, and the label shown
        whole_X = (masked_X == 0) & (class_X == 0)
        features_XF = batch.features_BF[row_X] * whole_X[:, None]
    label_H = batch.label_B[hidden_H]
    return Layout(
        ids_XL=ids_XL.masked_fill(mask_XL, mask_id),
        class_X=class_X,
        real_XL=unless_all(batch.real_BL[row_X]),
        features_XF=features_XF,
        at_N=row_N * mask_XL.shape[1] + column_N,
        row_N=row_N,
        class_N=class_X[row_N],
        target_N=ids_XL[row_N, column_N],
        share_X=share_X,
        range_X=step.range_B[row_X],
        by_range=torch.tensor(counts.text_by_range).clamp(min=1),
        label_H=label_H if bool((label_H >= 0).any()) else None,
        pairs=pairs,
        shown=P,
        counts=counts,
    )


def joint_loss(net: ClassNetwork, part: Layout, config: MdlmConfig) -> tuple[Tensor, Tensor]:
    """Return this part's share of the step's loss, and of its ``MEASURES``."""
    counts, pairs = part.counts, part.pairs
    slot_XD, x_XLD = net(part.ids_XL, part.class_X, part.real_XL, part.features_XF)
    x_ND = x_XLD.flatten(0, 1).index_select(0, part.at_N)
    values_N = net.token_log_probs(x_ND, part.class_N, part.target_N)
    sums_X = values_N.new_zeros(len(part.class_X)).index_add(0, part.row_N, values_N)

    text_X = -sums_X * part.share_X
    G = text_X.sum()
    lead_P = sums_X[:pairs] - sums_X[part.shown : part.shown + pairs]
    PAIR = CE = pair_right = label_right = G.new_zeros(())
    if pairs:
        PAIR = F.softplus(-net.pair_scale * lead_P).sum() / max(1, counts.pair)
        pair_right = (lead_P > 0).sum() / max(1, counts.pair)
    if part.label_H is not None:
        own, label_H = slice(part.shown + pairs, None), part.label_H
        real_HL = None if part.real_XL is None else part.real_XL[own]
        logits_HC = net.label_logits(slot_XD[own], part.ids_XL[own], real_HL)
        CE = F.cross_entropy(logits_HC, label_H, ignore_index=-1, reduction="sum") / counts.label
        label_right = (logits_HC.argmax(1) == label_H).sum() / counts.label
    loss = config.text_weight * G + config.label_weight * CE + config.pair_weight * PAIR
    with torch.no_grad():
        ranges = G.new_zeros(MASK_RANGES).index_add(0, part.range_X, text_X.detach())
        ranges = ranges * counts.text / part.by_range
        measures = torch.stack([G, CE, PAIR, label_right, pair_right]).detach()
    return loss, torch.cat([measures, ranges])
