"""GPT-2, whole from transformers, and the two ways of reading a label from it.

    head         logit_c = (1/L) sum_i w_c . h_i + b_c
    likelihood   logit_c = sum_i [log p(x_i | x_<i, c) - mean_c' log p(x_i | x_<i, c')] / n^g

The mean of all states, not the last one: every token then reaches the head in one step, which
is what a small network learns from few texts, and a window's last token says nothing special.

B windows, L tokens with the start token first (n = L - 1 of the text), C labels, D width,
V vocabulary, T the tokens of a batch that are predicted.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from guardkit import ConfigError, read_whole
from guardkit_gpt2.config import NetworkSpec
from guardkit_gpt2.tokenizer import TokenIds

#: What an artefact keeps of a GPT2Config.
KEPT = (
    "vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner", "activation_function",
    "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
    "tie_word_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """What a network makes of B windows, float32. ``nll_B`` is -log p(window) in nats (rule
    likelihood: under the equal mixture of the labels' models), where it was asked for."""

    logits_BC: Tensor
    nll_B: Tensor | None


class Network(nn.Module):
    """One GPT-2 with a head, or one GPT-2 per label, all starting from ``lm``."""

    def __init__(self, lm: GPT2LMHeadModel, spec: NetworkSpec) -> None:
        super().__init__()
        copies = spec.n_labels if spec.rule == "likelihood" else 1
        self.lms = nn.ModuleList([lm, *(copy.deepcopy(lm) for _ in range(copies - 1))])
        self.head = nn.Linear(lm.config.n_embd, spec.n_labels) if spec.rule == "head" else None
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.n_labels = spec.n_labels
        self.length_exponent = spec.length_exponent

    @property
    def language_models(self) -> list[GPT2LMHeadModel]:
        return cast(list[GPT2LMHeadModel], list(self.lms))

    def forward(self, tokens_BL: Tensor, lengths_B: Tensor, *, language: bool = False) -> Reading:
        """Read windows padded on the right; ``language`` asks for ``nll_B``."""
        if self.head is None:
            log_p_BLC = self._log_p(tokens_BL, lengths_B)
            mixture_B = log_p_BLC.sum(1).logsumexp(1) - np.log(log_p_BLC.shape[2])
            return Reading(self._ratios(log_p_BLC, lengths_B).sum(1), -mixture_B)
        (lm,) = self.language_models
        states_BLD = states(lm, tokens_BL)
        nll_B = -token_log_p(lm, states_BLD, tokens_BL, lengths_B).sum(1) if language else None
        return Reading(self._head_logits(self.head, states_BLD, lengths_B), nll_B)

    def evidence(self, tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Return what each position adds to each logit, values_BLC float32.

        likelihood: its log-ratio to the mean over labels; they add up to the logits. head:
        gradient times input (Shrikumar 2016), a first-order estimate. Deleting the fifth of a
        text's tokens with the largest values took 4.8 off the logit lead of 60 injections;
        the fifth that hurts most one by one 4.9, a random fifth 0.4, and the fifth whose own
        states speak most for the label 2.8.
        """
        if self.head is None:
            return self._ratios(self._log_p(tokens_BL, lengths_B), lengths_B).detach()
        (lm,) = self.language_models
        embedded_BLD = lm.transformer.wte(tokens_BL).detach().requires_grad_()
        logits_BC = self._head_logits(self.head, states(lm, inputs_embeds=embedded_BLD), lengths_B)
        columns = [
            torch.autograd.grad(logits_BC[:, c].sum(), embedded_BLD, retain_graph=True)[0]
            for c in range(self.n_labels)
        ]
        return torch.stack([(g * embedded_BLD.detach()).sum(2) for g in columns], 2).float()

    @property
    def state_size(self) -> int:
        """How many numbers ``mean_states`` gives a window."""
        return sum(int(lm.config.n_embd) for lm in self.language_models)

    def mean_states(self, tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Return means_BF of the final states, float32, the language models' side by side."""
        means = [mean_state(states(lm, tokens_BL), lengths_B) for lm in self.language_models]
        return torch.cat(means, 1)

    @staticmethod
    def _head_logits(head: nn.Linear, states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
        # in float32: the head is small, and a logit is what everything after it depends on
        mean_BD = mean_state(states_BLD, lengths_B)
        return F.linear(mean_BD, head.weight.float(), head.bias.float())

    def _log_p(self, tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
        log_p = [
            token_log_p(lm, states(lm, tokens_BL), tokens_BL, lengths_B)
            for lm in self.language_models
        ]
        return torch.stack(log_p, 2)

    def _ratios(self, log_p_BLC: Tensor, lengths_B: Tensor) -> Tensor:
        read_B = (lengths_B - 1).clamp(min=1)
        scale_B = read_B.float() ** -self.length_exponent
        return (log_p_BLC - log_p_BLC.mean(2, keepdim=True)) * scale_B[:, None, None]


def states(lm: GPT2LMHeadModel, tokens_BL: Tensor | None = None, **inputs: Tensor) -> Tensor:
    """Return the final states_BLD. No mask: padding is on the right, and no token looks there."""
    states_BLD: Tensor = lm.transformer(tokens_BL, use_cache=False, **inputs).last_hidden_state
    return states_BLD


def mean_state(states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """Return the mean_BD over each window's positions, the start token's included; float32."""
    weights_BL = _real(states_BLD, lengths_B) / lengths_B[:, None]
    return (states_BLD.float() * weights_BL[:, :, None]).sum(1)


def token_log_p(
    lm: GPT2LMHeadModel, states_BLD: Tensor, tokens_BL: Tensor, lengths_B: Tensor
) -> Tensor:
    """Return log p(token | those before it)_BL, 0 at the start token and at padding; float32."""
    predicted_BL = _real(tokens_BL, lengths_B)
    predicted_BL[:, 0] = False
    logits_TV = lm.lm_head(states_BLD[:, :-1][predicted_BL[:, 1:]]).float()
    log_p_T = -F.cross_entropy(logits_TV, tokens_BL[predicted_BL], reduction="none")
    zeros_BL = torch.zeros(tokens_BL.shape, device=tokens_BL.device)
    return zeros_BL.masked_scatter(predicted_BL, log_p_T)


def window_nll(lm: GPT2LMHeadModel, tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Return -log p(window)_B in nats by one language model."""
    return -token_log_p(lm, states(lm, tokens_BL), tokens_BL, lengths_B).sum(1)


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Return every position once, in groups of like length of at most ``budget`` tokens padded,
    the start tokens counted; a single window may exceed it."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups and (len(groups[-1]) + 1) * (lengths[i] + 1) <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def pad(
    windows: Sequence[TokenIds], start_token: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return tokens_BL with the start token before every window, and lengths_B."""
    lengths_B = np.array([len(w) + 1 for w in windows])
    tokens_BL = np.full((len(windows), lengths_B.max()), start_token, np.int64)
    for row, tokens in enumerate(windows):
        tokens_BL[row, 1 : len(tokens) + 1] = tokens
    return torch.from_numpy(tokens_BL).to(device), torch.from_numpy(lengths_B).to(device)


def fresh_lm(gpt2: dict[str, Any], *, seed: int, dropout: float = 0.0) -> GPT2LMHeadModel:
    """Return a GPT-2 with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(GPT2Config(**gpt2, **_training_settings(dropout)))


def pretrained_lm(name: str, *, dropout: float) -> tuple[GPT2LMHeadModel, Tokenizer, int]:
    """Return GPT-2 ``name`` of the hub or of a folder, its tokenizer and its start token.

    Raises ConfigError for anything that is not a GPT-2 with safetensors and a tokenizer.
    """
    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type != "gpt2":
            raise ConfigError(
                f"init {name!r} is a {config.model_type!r} model; allowed: a GPT-2 of the hub "
                "(gpt2, distilgpt2), a folder holding one, or 'scratch'"
            )
        lm = GPT2LMHeadModel.from_pretrained(
            name, use_safetensors=True, dtype=torch.float32, **_training_settings(dropout)
        )
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"init {name!r}: cannot be loaded as GPT-2: {error}. Give a GPT-2 of the hub (needs "
            "the network, or a copy in its cache), a folder in Hugging Face layout with "
            "model.safetensors and a tokenizer, or 'scratch'"
        ) from error
    return lm, read_whole(tokenizer.backend_tokenizer), _start_token(tokenizer, lm, name)


def kept_config(lm: GPT2LMHeadModel) -> dict[str, Any]:
    """Return the arguments of GPT2Config that an artefact needs."""
    return {name: getattr(lm.config, name) for name in KEPT}


def _start_token(tokenizer: Any, lm: GPT2LMHeadModel, name: str) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None and token < lm.config.vocab_size:
            return int(token)
    raise ConfigError(f"init {name!r}: its tokenizer names no bos or eos token to start texts with")


def _training_settings(dropout: float) -> dict[str, Any]:
    """Dropout on attention weights would leave the fused kernel; the rest is enough. Token ids
    are ours to handle, so transformers is told of none."""
    return {
        "embd_pdrop": dropout,
        "resid_pdrop": dropout,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _real(padded_BL: Tensor, lengths_B: Tensor) -> Tensor:
    positions_L = torch.arange(padded_BL.shape[1], device=padded_BL.device)
    return positions_L[None] < lengths_B[:, None]
