"""The network, whole: a trunk, a slot for the label at position 0, and what reads both.

Shape letters: B sequences, L text tokens, S = L + 1 with the slot, D hidden,
K width of the conditioning, C classes, V vocabulary.

What is added to the trunk for classes starts at zero, so that the null class computes what the
trunk does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from guardkit import WEIGHTS
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.ngrams import Ngrams
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.build import build_trunk
from guardkit_mdlm.trunks.trunk import Trunk
from guardkit_mdlm.vocabulary import TokenLogProbs

#: MASK's logit: finite, so that no arithmetic with it gives NaN.
IMPOSSIBLE = -1e6
TRUNK = "trunk."
#: How the trunk's parameters were named before it was a part of its own, and are in public weights.
_BARE = ("vocab_embed.", "sigma_map.", "blocks.", "output_layer.")


class Denoiser(ClassNetwork):
    """p(x_i | visible tokens, class), and p(class | text) from the label slot.

    Classes are numbered 1..C; 0 is the null class.
    """

    has_label_slot = True

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        D, K, C, V = shape.hidden_dim, shape.cond_dim, shape.n_classes, shape.vocab_size
        self.trunk = build_trunk(shape)
        E = self.trunk.embedding.shape[1]  # D, but where a layer widens embeddings (ELECTRA)
        if C:
            self.class_cond = nn.Parameter(torch.zeros(C, K))
            self.slot = nn.Parameter(torch.empty(E).normal_(std=0.02))  # the label, masked
            self.slot_class = nn.Parameter(torch.zeros(C, E))  # added where it is shown
            self.log_tau = nn.Parameter(torch.tensor(0.1).log())  # PAIR's scale, in training only
            self.label_head = nn.Linear(2 * D if shape.mean_readout else D, C)
            nn.init.zeros_(self.label_head.weight)
            nn.init.zeros_(self.label_head.bias)
        if shape.n_features:
            self.feature_map = nn.Linear(shape.n_features, E, bias=False)
            nn.init.zeros_(self.feature_map.weight)
        if shape.class_bias:
            self.class_bias = nn.Parameter(torch.zeros(C, V), requires_grad=False)
        if shape.wide:
            self.wide_scale = nn.Parameter(torch.ones(()))
        self.ngrams: Ngrams | None = None
        if shape.ngrams:
            self.join_ngrams(Ngrams(shape.ngrams, shape.ngram_terms, C))
        self.register_load_state_dict_pre_hook(_name_the_trunk)  # type: ignore[no-untyped-call]

    def trunks(self) -> Sequence[Trunk]:
        return [self.trunk]

    @torch.no_grad()
    def start_slot(self, slot_D: Tensor) -> None:
        if self.shape.n_classes:
            self.slot.copy_(slot_D)

    def weight_files(self) -> Mapping[str, nn.Module]:
        return {WEIGHTS: self}

    def join_ngrams(self, model: Ngrams) -> None:
        """Let ``label_logits`` add a linear model of words and runs of them."""
        added = {"ngrams": model.longest, "ngram_terms": model.n_terms}
        self.shape = self.shape.model_copy(update=added)
        self.ngrams = model

    @torch.no_grad()
    def scale_label_logits(self, scale: float) -> None:
        """Multiply the network's own label logits by ``scale``, once and for all."""
        self.label_head.weight.mul_(scale)
        self.label_head.bias.mul_(scale)
        if self.shape.wide:
            self.wide_scale.mul_(scale)

    def forward(
        self,
        ids_BL: Tensor,
        class_B: Tensor,
        real_BL: Tensor | None,
        features_BF: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the label's state_BD (normalised, for ``label_logits``) and text states_BLD
        (modulated, for ``token_logits``). ``real_BL`` is false on padding; None where there is
        none, which is faster.

        ``features_BF`` are standardised, zero or None for a sequence that is given none: they
        tell of the whole text, so a sequence with masked tokens must not have them.
        """
        x_BSD = self.trunk.embed(ids_BL)
        return self.from_embeddings(x_BSD, class_B, real_BL, features_BF)

    def from_embeddings(
        self,
        x_BLD: Tensor,
        class_B: Tensor,
        real_BL: Tensor | None,
        features_BF: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``forward`` from token embeddings on; attribution differentiates through it."""
        slot_BD = self._slot(class_B, features_BF)
        seen_BS = real_BL
        if slot_BD is not None:
            x_BLD = torch.cat([slot_BD[:, None].to(x_BLD.dtype), x_BLD], dim=1)
            if real_BL is not None:
                seen_BS = F.pad(real_BL, (1, 0), value=True)
        c_BK = self._conditioning(class_B).to(x_BLD.dtype)
        x_BLD = self.trunk(x_BLD, c_BK, seen_BS)
        text_BLD = x_BLD if slot_BD is None else x_BLD[:, 1:]
        if not self.shape.n_classes:
            return x_BLD[:, 0], self.trunk.predictor(text_BLD, c_BK)
        return self._label_state(x_BLD, real_BL), self.trunk.predictor(text_BLD, c_BK)

    def _label_state(self, x_BSD: Tensor, real_BL: Tensor | None) -> Tensor:
        """Return what the label is read from, float32: the slot's state, with ``mean_readout``
        beside the mean of the tokens'. Sentence encoders keep a text's meaning in that mean, and
        have never used their first position."""
        D = x_BSD.shape[-1:]
        slot_BD = F.layer_norm(x_BSD[:, 0].float(), D)
        if not self.shape.mean_readout:
            return slot_BD
        text_BLD = x_BSD[:, 1:].float()
        if real_BL is None:
            mean_BD = text_BLD.mean(1)
        else:
            mean_BD = (text_BLD * real_BL[..., None]).sum(1) / real_BL.sum(1, True).clamp(min=1)
        return torch.cat([slot_BD, F.layer_norm(mean_BD, D)], 1)

    def _slot(self, class_B: Tensor, features_BF: Tensor | None) -> Tensor | None:
        """Return the embeddings of position 0: the label's slot, or what a masked language model
        has there; None where texts begin at once."""
        if self.shape.n_classes:
            slot_BD = self.slot + _with_null_row(self.slot_class)[class_B]
            if features_BF is not None:
                slot_BD = slot_BD + self.feature_map(features_BF.to(slot_BD.dtype))
            return slot_BD
        if self.shape.encoder is not None:
            return self.trunk.embedding[self.shape.encoder.start_id].expand(len(class_B), -1)
        return None

    def label_logits(
        self, slot_BD: Tensor, ids_BL: Tensor, real_BL: Tensor | None, *, ngrams: bool = True
    ) -> Tensor:
        """Return logits_BC of p(class | text), float32. ``real_BL`` as in ``forward``; without
        ``ngrams`` those within the network are left out.

        The wide term is naive Bayes' log-ratio over the square root of the length, scaled: its
        sum grows with the length, its useful evidence more slowly.
        """
        head = self.label_head
        logits_BC = F.linear(slot_BD, head.weight.float(), head.bias.float())
        if self.shape.wide:
            if real_BL is None:
                real_BL = torch.ones_like(ids_BL, dtype=torch.bool)
            ids_BL = torch.where(real_BL, ids_BL, self.shape.mask_id)
            bias_CBL = self.class_bias.float()[:, ids_BL]  # MASK's own bias is zero
            length_B = real_BL.sum(1).clamp(min=1)
            wide_BC = rearrange(bias_CBL.sum(-1), "c b -> b c") / length_B[:, None].sqrt()
            logits_BC = logits_BC + self.wide_scale.float() * wide_BC
        if ngrams and self.ngrams is not None:
            logits_BC = logits_BC + self.ngrams(ids_BL, real_BL)
        return logits_BC

    @property
    def pair_scale(self) -> Tensor:
        return self.log_tau.float().exp()

    def token_logits(self, x_ND: Tensor, class_N: Tensor) -> Tensor:
        """Return logits_NV of N text positions whose sequences are of ``class_N``."""
        logits_NV = F.linear(x_ND, self.trunk.output_weight, self.trunk.output_bias)
        if self.shape.class_bias:
            logits_NV = logits_NV + _with_null_row(self.class_bias)[class_N].to(logits_NV.dtype)
        return logits_NV

    def token_log_probs(self, x_ND: Tensor, class_N: Tensor, target_N: Tensor) -> Tensor:
        """Return log p(target_N) under SUBS (MASK has probability 0), float32."""
        # the biases are further columns of the matrix: one product, and no (N, V) array of them
        bias_V = self.trunk.output_bias
        mask = torch.zeros_like(bias_V, dtype=torch.bool)
        mask[self.shape.mask_id] = True
        columns = [bias_V.masked_fill(mask, IMPOSSIBLE)[:, None]]
        inputs = [x_ND.new_ones(len(x_ND), 1)]
        if self.shape.class_bias:
            columns.append(_with_null_row(self.class_bias).T.to(bias_V.dtype))
            inputs.append(F.one_hot(class_N, self.shape.n_classes + 1).to(x_ND.dtype))
        unused = -sum(c.shape[1] for c in columns) % 32  # an odd width is multiplied slowly
        columns.append(bias_V.new_zeros(len(bias_V), unused))
        inputs.append(x_ND.new_zeros(len(x_ND), unused))
        values_N: Tensor = TokenLogProbs.apply(  # type: ignore[no-untyped-call]
            torch.cat([x_ND, *inputs], 1),
            torch.cat([self.trunk.output_weight, *columns], 1),
            target_N,
        )
        return values_N

    def _conditioning(self, class_B: Tensor) -> Tensor:
        if self.shape.n_classes:
            return self.trunk.condition(_with_null_row(self.class_cond)[class_B])
        like = self.trunk.embedding
        rows_BK = like.new_zeros(len(class_B), self.shape.cond_dim)
        return self.trunk.condition(rows_BK)


def _with_null_row(rows: Tensor) -> Tensor:
    """Prepend the null class, which is zero and stays so."""
    return F.pad(rows, (0, 0, 1, 0))


def _name_the_trunk(_module: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    """Take in weights whose trunk is not named as such."""
    for name in [n for n in state if n.removeprefix(prefix).startswith(_BARE)]:
        state[prefix + TRUNK + name.removeprefix(prefix)] = state.pop(name)
