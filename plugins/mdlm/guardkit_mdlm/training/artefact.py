"""What training writes: the folder of a model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from guardkit import TOKENIZER, ArtefactConfig, choose_pooling, write_json
from guardkit_mdlm.adaptation.remembered import Windows, read_windows, to_remember
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.features import TextFeatures
from guardkit_mdlm.record import NetworkRecord, TextNgramsRecord
from guardkit_mdlm.text_ngrams import TextNgrams
from guardkit_mdlm.token_ids import TokenIds
from guardkit_mdlm.training.corpus import Tokenised
from guardkit_mdlm.unigram import BACKGROUND, unigram


def write_artefact(
    folder: Path,
    net: ClassNetwork,
    tokenizer: Tokenizer,
    config: MdlmConfig,
    labels: Sequence[str],
    *,
    texts: Sequence[TokenIds],
    held_out: Tokenised | None,
    features: TextFeatures | None,
    text_ngrams: TextNgrams | None,
    training: Mapping[str, Any],
) -> None:
    """Write a trained network with its record, and what scoring and adapting it need: token
    frequencies of ``texts`` for its novelty, what it makes of ``held_out`` texts."""
    folder.mkdir(exist_ok=True)
    pooling, neutral = choose_pooling(labels, config.neutral, config.window_pooling)
    record = NetworkRecord(
        shape=net.shape,
        **config.scoring(),
        novelty=config.novelty,
        features=None if features is None else features.record,
        text_ngrams=None if text_ngrams is None else TextNgramsRecord(longest=text_ngrams.longest),
        mask_key=_mask_key(tokenizer, config),
        **net.record,
    )
    tokenizer.save(str(folder / TOKENIZER))
    save_weights(net, folder)
    if text_ngrams is not None:
        text_ngrams.save(folder)
    if config.novelty != "energy":
        log_p_V = torch.from_numpy(unigram(texts, net.shape.n_text_ids))
        save_file({"log_p_V": log_p_V}, folder / BACKGROUND)
    artefact = ArtefactConfig(
        family="mdlm",
        labels=list(labels),
        neutral=neutral,
        window_pooling=pooling,
        network=record.stored(),
        training=dict(training),
    )
    write_json(folder / "config.json", artefact)
    if features is not None:
        features.save(folder)
    elif held_out and net.has_label_slot and config.scorer == "one_pass":
        beside = None
        if text_ngrams is not None:
            index = artefact.neutral_index
            beside = partial(text_ngrams.logits, how=pooling, neutral=index)
        remember(net, held_out, config, beside).save(folder)


def save_weights(net: ClassNetwork, folder: Path) -> None:
    """Write a network's weights, as bfloat16."""
    for name, own in net.weight_files().items():
        save_file({n: _stored(t) for n, t in own.state_dict().items()}, folder / name)


def remember(
    net: ClassNetwork,
    held_out: Tokenised,
    config: MdlmConfig,
    beside: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> Windows:
    """Return what the trained network makes of held-out texts, as many as a model remembers;
    ``beside`` gives the logits_NC that are added to the network's."""
    cut = {"window": config.window_tokens, "overlap": config.overlap_tokens}
    kept_N = to_remember(held_out.ids, seed=config.seed, **cut)
    sources = [held_out.sources[i] for i in kept_N] if held_out.sources else []
    ids = [held_out.ids[i] for i in kept_N]
    device = next(net.parameters()).device
    beside_NC = None if beside is None else beside([held_out.texts[i] for i in kept_N])
    return read_windows(
        net, ids, held_out.labels_N[kept_N], device=device, sources=sources, beside_NC=beside_NC,
        **cut,
    )  # fmt: skip


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point():
        tensor = tensor.to(torch.bfloat16)
    return tensor.contiguous()


def _mask_key(tokenizer: Tokenizer, config: MdlmConfig) -> str:
    """Return the artefact's own mask key: another for every training, the same when repeated."""
    message = tokenizer.to_str() + config.model_dump_json()
    return hashlib.sha256(message.encode()).hexdigest()[:32]
