"""The trunk of Sahoo et al. 2024 (MDLM): a diffusion transformer that is told of the class in
every layer, by adaptive layer norms (Peebles and Xie 2023).

Parameter names are those of the public ``mdlm-owt`` weights below their ``backbone.`` prefix.

Shape letters: B sequences, L tokens, S positions, D hidden, H heads, K width of the conditioning,
V vocabulary (its last id is MASK).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.trunk import Trunk


class DitTrunk(Trunk):
    """Rotary attention over all positions. The noise level is not an input: the optimal network
    needs none (Ou et al. 2024), so the conditioning is one vector per class."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.head_dim = shape.hidden_dim // shape.n_heads
        self.vocab_embed = _Embedding(shape.vocab_size, shape.hidden_dim)
        self.sigma_map = _SigmaMap(shape.cond_dim)
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.n_blocks))
        self.output_layer = _OutputLayer(shape)

    def embed(self, ids_BL: Tensor) -> Tensor:
        x_BLD: Tensor = self.vocab_embed(ids_BL)
        return x_BLD

    def condition(self, class_BK: Tensor) -> Tensor:
        return F.silu(self.sigma_map() + class_BK)

    def forward(self, x_BSD: Tensor, c_BK: Tensor, seen_BS: Tensor | None) -> Tensor:
        cos_S, sin_S = _rotary(x_BSD.shape[1], self.head_dim, x_BSD)
        seen = None if seen_BS is None else seen_BS[:, None, None, :]
        for block in self.blocks:
            x_BSD = block(x_BSD, c_BK, cos_S, sin_S, seen)
        return x_BSD

    def predictor(self, x_BLD: Tensor, c_BK: Tensor) -> Tensor:
        return self.output_layer.modulated(x_BLD, c_BK)

    @property
    def output_weight(self) -> Tensor:
        own = self.output_layer.linear.weight
        return self.vocab_embed.embedding if own is None else own

    @property
    def output_bias(self) -> Tensor:
        return self.output_layer.linear.bias

    @property
    def embedding(self) -> Tensor:
        return self.vocab_embed.embedding

    @torch.no_grad()
    def silence(self) -> None:
        self.output_layer.norm_final.weight.zero_()

    def hidden_matrices(self) -> Sequence[nn.Parameter]:
        # not adaLN's maps, which run once for a class
        named = self.blocks.named_parameters()
        return [p for name, p in named if p.ndim == 2 and "adaLN" not in name]


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


def _rotary(length: int, d: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """RoPE (Su 2021), base 10,000; cos and sin of shape (length, d / 2)."""
    frequency = torch.exp(-math.log(10_000.0) * torch.arange(0, d, 2, device=like.device) / d)
    angle = torch.arange(length, device=like.device)[:, None] * frequency
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _rotate(x: Tensor, cos_S: Tensor, sin_S: Tensor) -> Tensor:
    """Rotate halves (not interleaved pairs), as the public code does."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos_S - second * sin_S, second * cos_S + first * sin_S], dim=-1)
