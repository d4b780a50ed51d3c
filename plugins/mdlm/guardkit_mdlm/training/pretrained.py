"""Start training from weights that know language: any masked language model, public MDLM weights,
or guardkit's own.

A language model is taken over whole: embeddings, blocks, output. What a classifier adds starts
as in any training, classes at zero, so that the null class computes the language model's own
function, and a class that and its naive-Bayes bias. Public weights saw a start token at the
head of every chunk; the label slot takes its place, and at first its embedding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, normalizers
from torch import Tensor

from guardkit import ArtefactError, ConfigError, load_model
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.tokenizer import check_vocabulary, find_tokenizer, read_tokenizer, token_id
from guardkit_mdlm.weights.masked_lm import find_masked_lm, load_masked_lm
from guardkit_mdlm.weights.public_mdlm import load_denoiser

START_TOKEN = "<|endoftext|>"
#: AdamW's rate for weights that another training has brought far already.
LR_BODY = 3e-5
#: Positions that no token of a text has: [CLS], [SEP], and RoBERTa's two that stand for padding.
RESERVED = 4


@dataclass(frozen=True)
class Pretrained:
    """A language model to start from, with the tokenizer it reads and its label slot."""

    init: str
    net: Denoiser
    tokenizer: Tokenizer
    slot_D: Tensor
    start_id: int | None  # opened every training chunk; None where a label slot stood there
    fresh_head: bool = False  # what predicts tokens is at random

    def options(self, config: MdlmConfig) -> MdlmConfig:
        """Return ``config`` with the shape of this network, AdamW and a low rate for its weights.

        Options that were set win where they can; those of the network's shape cannot. Raises
        ConfigError with every one that was set to something else.
        """
        shape = self.net.shape
        fixed: dict[str, Any] = {
            "vocab_size": self.tokenizer.get_vocab_size(),
            "lower_case": isinstance(self.tokenizer.normalizer, normalizers.Lowercase),
            "hidden_dim": shape.hidden_dim,
            "n_blocks": shape.n_blocks,
            "n_heads": shape.n_heads,
            "cond_dim": shape.cond_dim,
            "tie_embeddings": shape.tie_embeddings,
        }
        wrong = [
            f"{name} is {value!r} there, not {getattr(config, name)!r}"
            for name, value in fixed.items()
            if name in config.model_fields_set and getattr(config, name) != value
        ]
        if wrong:
            raise ConfigError(
                f"--init {self.init}: {'; '.join(wrong)}. Leave these out, or a preset that sets "
                "them; 'finetune' sets none"
            )
        self._check_window(config)
        preferred = {"optimizer": "adamw", "lr_body": LR_BODY}
        unset = {k: v for k, v in preferred.items() if k not in config.model_fields_set}
        return config.model_copy(update=fixed | unset)

    def _check_window(self, config: MdlmConfig) -> None:
        """Raise ConfigError where a window is longer than what the network has positions for."""
        encoder = self.net.shape.encoder
        limit = None if encoder is None else encoder.config.get("max_position_embeddings")
        if limit is not None and config.window_tokens > limit - RESERVED:
            raise ConfigError(
                f"--init {self.init}: reads {limit - RESERVED} tokens at once, window_tokens is "
                f"{config.window_tokens}"
            )

    @torch.no_grad()
    def fill(self, net: ClassNetwork) -> None:
        """Put the language model and its slot into a network with classes, or the language
        model into each of separate ones; what else ``net`` has stays as it is."""
        for trunk in net.trunks():
            trunk.load_state_dict(self.net.trunk.state_dict())
        net.start_slot(self.slot_D)


def open_pretrained(init: str, tokenizer: str) -> Pretrained:
    """Load ``init``: a trained model of this family (a folder or ``builtin:NAME``), a masked
    language model of transformers (a folder or hub id), or public MDLM weights as
    ``load_denoiser`` takes them, read with ``tokenizer`` (a folder or hub id).

    Raises ConfigError or ArtefactError.
    """
    if init.startswith("builtin:") or _is_artefact(Path(init)):
        path = load_model(init, family="mdlm", device="cpu").path  # its hashes hold
        try:
            net = load_network(path)
        except ArtefactError as error:
            raise ConfigError(
                f"--init {init}: {error}; name one of the checkpoints it was made of"
            ) from error
        return Pretrained(init, net, read_tokenizer(path), net.slot.detach(), None)
    if not init.endswith(".ckpt") and (folder := find_masked_lm(init)) is not None:
        found = load_masked_lm(folder)
        return Pretrained(init, found.net, found.tokenizer, found.slot_D, None, found.fresh_head)
    net = load_denoiser(init).net
    reader = find_tokenizer(tokenizer)
    check_vocabulary(reader, net.shape.mask_id, tokenizer)
    start = token_id(reader, START_TOKEN, tokenizer)
    return Pretrained(init, net, reader, net.trunk.embedding[start].detach(), start)


def _is_artefact(folder: Path) -> bool:
    """Tell a guardkit model from public weights, which have a config.json too."""
    try:
        return "family" in json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
