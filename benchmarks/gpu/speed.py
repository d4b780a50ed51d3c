"""Texts a second on one device: an MDLM, and a large language model's prefill beside it.

Everything starts from token ids and ends with numbers on the CPU. The large model has random
weights: what it would answer is not the question, what it costs is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.scoring import MdlmClassifier
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.throughput import training_flops
from tokenizers import Tokenizer
from torch.nn.attention.bias import causal_lower_right
from transformers import AttentionInterface, DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.masking_utils import AttentionMaskInterface

from benchmarks.gpu.machine import finish, median_seconds
from guardkit import ArtefactConfig

TokenIds = npt.NDArray[np.int32]
LLM_BATCH_TOKENS = 16_384
PREFIXED = "prefixed"  # the name of our attention function


def mdlm(
    classifier: MdlmClassifier, shape: NetworkShape, texts: Sequence[TokenIds], device: torch.device
) -> dict[str, Any]:
    """Return texts a second of one pass and of one H pair (two passes per class)."""
    pieces, _ = classifier.cut(texts)
    lengths_W = np.array([len(piece) for piece in pieces])
    tokens, squares = int((lengths_W + 1).sum()), int(((lengths_W + 1) ** 2).sum())
    one_pass = training_flops(shape, tokens, squares, 0) / 3  # of which two thirds are backward
    pair = training_flops(shape, 4 * tokens, 4 * squares, 2 * int(lengths_W.sum())) / 3
    found: dict[str, Any] = {"texts": len(texts), "tokens": int(lengths_W.sum())}
    classifier.scheme = type(classifier.scheme)("half_pairs", 2)
    for scorer, name, flops in (("one_pass", "one pass", one_pass), ("generative", "H pair", pair)):
        classifier.scorer = scorer
        seconds = median_seconds(lambda: classifier.window_logits(pieces), device, repeats=3)
        found[name] = {"texts_per_s": len(texts) / seconds, "flops_per_s": flops / seconds}
    return found


def random_classifier(
    shape: NetworkShape, like: Mapping[str, Any], tokenizer: Tokenizer, device: torch.device
) -> MdlmClassifier:
    """Return an MDLM of ``shape`` with random weights; ``like`` is an artefact's ``network``."""
    labels = [str(c) for c in range(shape.n_classes)]
    record = NetworkRecord.model_validate({**like, "shape": shape.model_dump()})
    config = ArtefactConfig(family="mdlm", labels=labels, network=record.stored())
    with device:
        net = Denoiser(shape)
    return MdlmClassifier("random", config, record, net.eval(), tokenizer, None)


def llm(
    config: LlamaConfig, texts: Sequence[TokenIds], prefix: int, device: torch.device
) -> dict[str, Any]:
    """Return texts a second of a prefill: a prompt of ``prefix`` tokens is cached once, every
    text is read once after it, and two labels are read off its last token.

    Flash attention, no padding mask: texts of like length are padded on the right, where
    nothing of theirs looks. Eager: at these sizes matrix products are nearly all of the time.
    """
    model = _random_llm(config, device)
    keys_values = _prefix_cache(model, prefix)
    batches = list(_batches(texts))

    def score() -> None:
        for batch in batches:
            label_logits(model, keys_values, batch, device)

    label_logits(model, keys_values, batches[-1], device)  # the largest allocations first
    finish(device)
    seconds = median_seconds(score, device, repeats=1)
    lengths_N = np.array([len(t) for t in texts])
    matrices = sum(p.numel() for n, p in model.named_parameters() if "layers." in n and p.ndim == 2)
    attention = 4 * config.num_hidden_layers * config.hidden_size
    flops = 2.0 * matrices * lengths_N.sum() + attention * float(
        (lengths_N * (prefix + lengths_N / 2)).sum()
    )
    return {
        "weights": "random",
        "parameters": sum(p.numel() for p in model.parameters()),
        "prefix_tokens": prefix,
        "texts": len(texts),
        "texts_per_s": len(texts) / seconds,
        "flops_per_s": float(flops / seconds),
    }


@torch.inference_mode()
def label_logits(
    model: LlamaForCausalLM,
    prefix: Sequence[tuple[torch.Tensor, torch.Tensor]],
    texts: Sequence[TokenIds],
    device: torch.device,
) -> npt.NDArray[np.float32]:
    """Return the logits of tokens 0 and 1 after prefix and text, (B, 2)."""
    lengths_B = torch.tensor([len(t) for t in texts])
    ids_BL = torch.zeros(len(texts), int(lengths_B.max()), dtype=torch.long)
    for row, tokens in enumerate(texts):
        ids_BL[row, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(prefix):
        cache.update(
            keys.expand(len(texts), -1, -1, -1), values.expand(len(texts), -1, -1, -1), layer
        )
    ids_BL = (ids_BL % model.config.vocab_size).to(device)
    states_BLD = model.model(ids_BL, past_key_values=cache, use_cache=True).last_hidden_state
    last_BD = states_BLD[torch.arange(len(texts), device=device), (lengths_B - 1).to(device)]
    result: npt.NDArray[np.float32] = (last_BD @ model.lm_head.weight[:2].T).float().cpu().numpy()
    return result


def _random_llm(config: LlamaConfig, device: torch.device) -> LlamaForCausalLM:
    config._attn_implementation = PREFIXED
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            model = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    torch.nn.Module.eval(model)  # transformers' own signature hides torch's
    return model


@torch.inference_mode()
def _prefix_cache(model: LlamaForCausalLM, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    ids = torch.arange(length, device=model.device)[None] % model.config.vocab_size
    cache = DynamicCache()
    model.model(ids, past_key_values=cache, use_cache=True)
    layers: list[Any] = cache.layers
    return [(layer.keys, layer.values) for layer in layers]


def _batches(texts: Sequence[TokenIds]) -> Iterator[list[TokenIds]]:
    batch: list[TokenIds] = []
    for tokens in sorted(texts, key=len):
        if batch and (len(batch) + 1) * len(tokens) > LLM_BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(tokens)
    yield batch


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of the last tokens to all, by the fused kernel."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    bias = causal_lower_right(query.shape[2], key.shape[2])
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias).transpose(1, 2), None


AttentionInterface.register(PREFIXED, _attention)
AttentionMaskInterface.register(PREFIXED, lambda *_, **__: None)
