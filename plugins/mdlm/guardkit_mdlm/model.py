"""The network, whole: the DiT of Sahoo et al. 2024 (MDLM), with a class and a label slot.

Shape letters: B sequences, L text tokens, S = L + 1 with the slot, D hidden, H heads,
K width of the conditioning, C classes, V vocabulary (its last id is MASK).

Parameter names are those of the public ``mdlm-owt`` weights below their ``backbone.``
prefix. What is added for classes starts at zero, so that the null class computes what a
network without classes does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from guardkit import ArtefactError
from guardkit_mdlm.ngrams import Ngrams
from guardkit_mdlm.vocabulary import TokenLogProbs

#: MASK's logit: finite, so that no arithmetic with it gives NaN.
IMPOSSIBLE = -1e6


class NetworkShape(BaseModel):
    """What it takes to build a Denoiser. ``vocab_size`` includes MASK."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int
    hidden_dim: int
    cond_dim: int
    n_blocks: int
    n_heads: int
    n_classes: int = 0  # 0: a plain language model without a label slot
    dropout: float = 0.0
    tie_embeddings: bool = False
    class_bias: bool = False
    wide: bool = False
    n_features: int = 0  # of whole texts, by another model, beside the slot
    ngrams: int = 0  # the longest run of tokens in the linear model beside the network
    ngram_terms: int = 0

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1

    @classmethod
    def stored(cls, folder: Path, network: Mapping[str, Any]) -> NetworkShape:
        """Read the shape from an artefact's record. Raises ArtefactError where it has other fields:
        another version wrote it."""
        try:
            return cls.model_validate(network["shape"])
        except ValidationError as error:
            names = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise ArtefactError(
                f"{folder}: network.shape in its config.json: {names}: not as this version of the "
                "mdlm plugin writes it. Train the model anew, or install the version that made it"
            ) from error


class Denoiser(nn.Module):
    """p(x_i | visible tokens, class), and p(class | text) from the label slot.

    Classes are numbered 1..C; 0 is the null class. The noise level is not an input: the
    optimal network needs none (Ou et al. 2024), so the conditioning is one vector per class.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        D, K, C, V = shape.hidden_dim, shape.cond_dim, shape.n_classes, shape.vocab_size
        self.vocab_embed = _Embedding(V, D)
        self.sigma_map = _SigmaMap(K)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.n_blocks))
        self.output_layer = _OutputLayer(shape)
        if C:
            self.class_cond = nn.Parameter(torch.zeros(C, K))
            self.slot = nn.Parameter(torch.empty(D).normal_(std=0.02))  # the label, masked
            self.slot_class = nn.Parameter(torch.zeros(C, D))  # added where it is shown
            self.log_tau = nn.Parameter(torch.tensor(0.1).log())  # PAIR's scale, in training only
            self.label_head = nn.Linear(D, C)
            nn.init.zeros_(self.label_head.weight)
            nn.init.zeros_(self.label_head.bias)
        if shape.n_features:
            self.feature_map = nn.Linear(shape.n_features, D, bias=False)
            nn.init.zeros_(self.feature_map.weight)
        if shape.class_bias:
            self.class_bias = nn.Parameter(torch.zeros(C, V), requires_grad=False)
        if shape.wide:
            self.wide_scale = nn.Parameter(torch.ones(()))
        self.ngrams: Ngrams | None = None
        if shape.ngrams:
            self.join_ngrams(Ngrams(shape.ngrams, shape.ngram_terms, C))

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
        """Return the slot's state_BD (normalised, for ``label_logits``) and text states_BLD
        (modulated, for ``token_logits``). ``real_BL`` is false on padding; None where there is
        none, which is faster.

        ``features_BF`` are standardised, zero or None for a sequence that is given none: they
        tell of the whole text, so a sequence with masked tokens must not have them.
        """
        x_BSD = self.vocab_embed(ids_BL)
        return self.from_embeddings(x_BSD, class_B, real_BL, features_BF)

    def from_embeddings(
        self,
        x_BLD: Tensor,
        class_B: Tensor,
        real_BL: Tensor | None,
        features_BF: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """``forward`` from token embeddings on; attribution differentiates through it."""
        seen_BS = real_BL
        if self.shape.n_classes:
            slot_BD = self.slot + _with_null_row(self.slot_class)[class_B]
            if features_BF is not None:
                slot_BD = slot_BD + self.feature_map(features_BF.to(slot_BD.dtype))
            x_BLD = torch.cat([slot_BD[:, None].to(x_BLD.dtype), x_BLD], dim=1)
            if real_BL is not None:
                seen_BS = F.pad(real_BL, (1, 0), value=True)
        c_BK = self._conditioning(class_B).to(x_BLD.dtype)
        cos_S, sin_S = _rotary(x_BLD.shape[1], self.shape.hidden_dim // self.shape.n_heads, x_BLD)
        seen = None if seen_BS is None else seen_BS[:, None, None, :]
        for block in self.blocks:
            x_BLD = block(x_BLD, c_BK, cos_S, sin_S, seen)
        if not self.shape.n_classes:
            return x_BLD[:, 0], self.output_layer.modulated(x_BLD, c_BK)
        slot_BD = F.layer_norm(x_BLD[:, 0].float(), x_BLD.shape[-1:])
        return slot_BD, self.output_layer.modulated(x_BLD[:, 1:], c_BK)

    def label_logits(self, slot_BD: Tensor, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
        """Return logits_BC of p(class | text), float32. ``real_BL`` as in ``forward``.

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
        if self.ngrams is not None:
            logits_BC = logits_BC + self.ngrams(ids_BL, real_BL)
        return logits_BC

    def token_logits(self, x_ND: Tensor, class_N: Tensor) -> Tensor:
        """Return logits_NV of N text positions whose sequences are of ``class_N``."""
        logits_NV = F.linear(x_ND, self.output_weight, self.output_layer.linear.bias)
        if self.shape.class_bias:
            logits_NV = logits_NV + _with_null_row(self.class_bias)[class_N].to(logits_NV.dtype)
        return logits_NV

    def token_log_probs(self, x_ND: Tensor, class_N: Tensor, target_N: Tensor) -> Tensor:
        """Return log p(target_N) under SUBS (MASK has probability 0), float32."""
        # the biases are further columns of the matrix: one product, and no (N, V) array of them
        bias_V = self.output_layer.linear.bias
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
            torch.cat([x_ND, *inputs], 1), torch.cat([self.output_weight, *columns], 1), target_N
        )
        return values_N

    @property
    def output_weight(self) -> Tensor:
        """The (V, D) output matrix, the embedding itself where tied."""
        own = self.output_layer.linear.weight
        return self.vocab_embed.embedding if own is None else own

    def _conditioning(self, class_B: Tensor) -> Tensor:
        c_1K = self.sigma_map()
        if self.shape.n_classes:
            return F.silu(c_1K + _with_null_row(self.class_cond)[class_B])
        return F.silu(c_1K).expand(len(class_B), -1)


class _Embedding(nn.Module):
    def __init__(self, V: int, D: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(V, D).normal_(std=0.02))

    def forward(self, ids_BL: Tensor) -> Tensor:
        return F.embedding(ids_BL, self.embedding)


class _SigmaMap(nn.Module):
    """The public code's embedding of the noise level, at level 0 where MDLM always runs it."""

    def __init__(self, K: int, n_frequencies: int = 256) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(n_frequencies, K), nn.SiLU(), nn.Linear(K, K))
        half = n_frequencies // 2
        self.at_zero: Tensor  # cos 0 and sin 0
        at_zero = torch.cat([torch.ones(half), torch.zeros(half)])
        self.register_buffer("at_zero", at_zero, persistent=False)

    def forward(self) -> Tensor:
        result: Tensor = self.mlp(self.at_zero[None])
        return result


class _LayerNorm(nn.Module):
    """In float32, with a weight and no bias."""

    def __init__(self, D: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        normal = F.layer_norm(x.float(), x.shape[-1:], self.weight.float(), eps=1e-5)
        return normal.to(x.dtype)


class _Block(nn.Module):
    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        D, K = shape.hidden_dim, shape.cond_dim
        self.n_heads = shape.n_heads
        self.dropout = shape.dropout
        self.norm1 = _LayerNorm(D)
        self.attn_qkv = nn.Linear(D, 3 * D, bias=False)
        self.attn_out = nn.Linear(D, D, bias=False)
        self.norm2 = _LayerNorm(D)
        self.mlp = nn.Sequential(
            nn.Linear(D, 4 * D), nn.GELU(approximate="tanh"), nn.Linear(4 * D, D)
        )
        self.adaLN_modulation = nn.Linear(K, 6 * D)
        # The public code starts with closed gates; open ones leave the start of training
        # sooner. A little noise lets the class, itself at zero, receive a gradient.
        nn.init.normal_(self.adaLN_modulation.weight, std=0.02)
        nn.init.zeros_(self.adaLN_modulation.bias)
        with torch.no_grad():
            gates = rearrange(self.adaLN_modulation.bias, "(part d) -> part d", part=6)
            gates[2] = gates[5] = 1.0

    def forward(
        self, x_BSD: Tensor, c_BK: Tensor, cos_S: Tensor, sin_S: Tensor, seen: Tensor | None
    ) -> Tensor:
        parts = self.adaLN_modulation(c_BK)[:, None].chunk(6, dim=2)
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = parts
        a_BSD = torch.addcmul(shift_msa, self.norm1(x_BSD), 1 + scale_msa)
        q, k, v = rearrange(
            self.attn_qkv(a_BSD), "b s (three h d) -> three b h s d", three=3, h=self.n_heads
        )
        q, k = _rotate(q, cos_S, sin_S), _rotate(k, cos_S, sin_S)
        a = _attend(q, k, v, seen)
        a_BSD = self.attn_out(rearrange(a, "b h s d -> b s (h d)"))
        x_BSD = x_BSD + gate_msa * F.dropout(a_BSD, self.dropout, self.training)
        m_BSD = self.mlp(torch.addcmul(shift_mlp, self.norm2(x_BSD), 1 + scale_mlp))
        result: Tensor = x_BSD + gate_mlp * F.dropout(m_BSD, self.dropout, self.training)
        return result


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
    """Full attention of (B, H, S, d); keys where ``seen`` is false are left out."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16:
        # The fused kernel's backward pass takes three times as long as plain products here
        # (45 against 14.5 ms: 78 heads of 129 x 64, one Zen 4 core, torch 2.13), its forward
        # pass over half as long again (8.9 against 5.1 ms: 32 heads of 257 x 64).
        scores = (q * q.shape[-1] ** -0.5) @ k.mT
        if seen is not None:
            scores = scores.masked_fill_(~seen, -torch.inf)
        weighted: Tensor = scores.softmax(-1) @ v
        return weighted
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)


class _OutputLayer(nn.Module):
    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        D, V = shape.hidden_dim, shape.vocab_size
        self.norm_final = _LayerNorm(D)
        self.adaLN_modulation = nn.Linear(shape.cond_dim, 2 * D)
        nn.init.zeros_(self.adaLN_modulation.weight)
        nn.init.zeros_(self.adaLN_modulation.bias)
        self.linear = _OutputLinear(V, None if shape.tie_embeddings else D)

    def modulated(self, x_BLD: Tensor, c_BK: Tensor) -> Tensor:
        """Return what the output matrix is applied to; only masked positions need that."""
        shift, scale = self.adaLN_modulation(c_BK)[:, None].chunk(2, dim=2)
        return torch.addcmul(shift, self.norm_final(x_BLD), 1 + scale)


class _OutputLinear(nn.Module):
    """The output matrix and bias, at zero; without a matrix of its own where tied (D None)."""

    def __init__(self, V: int, D: int | None) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(V))
        self.weight = None if D is None else nn.Parameter(torch.zeros(V, D))


def _with_null_row(rows: Tensor) -> Tensor:
    """Prepend the null class, which is zero and stays so."""
    return F.pad(rows, (0, 0, 1, 0))


def _rotary(length: int, d: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """RoPE (Su 2021), base 10,000; cos and sin of shape (length, d / 2)."""
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(0, d, 2, device=like.device) / d)
    angle = torch.arange(length, device=like.device)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _rotate(x: Tensor, cos_S: Tensor, sin_S: Tensor) -> Tensor:
    """Rotate halves (not interleaved pairs), as the public code does."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos_S - second * sin_S, second * cos_S + first * sin_S], dim=-1)
