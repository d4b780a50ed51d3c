"""Train GPT-2: language alone first where there is some, then the labelled texts.

head        loss = CE(label | window) + lm_weight * nats per token
likelihood  loss = sum over labels of its own language model's nats per token
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer
from torch import nn
from transformers import GPT2LMHeadModel

from guardkit import (
    TOKENIZER,
    WEIGHTS,
    ArtefactConfig,
    ConfigError,
    DataError,
    Examples,
    Progress,
    TrainingData,
    choose_pooling,
    fit_calibration,
    pick_device,
    pick_dtype,
    pool_windows,
    train_bpe,
    write_json,
)
from guardkit_gpt2.config import SCRATCH, Gpt2Options, NetworkSpec
from guardkit_gpt2.loop import BEST, Loop, Stage
from guardkit_gpt2.network import (
    Network,
    batches_by_length,
    fresh_lm,
    kept_config,
    pad,
    pretrained_lm,
    window_nll,
)
from guardkit_gpt2.scoring import cut_windows, score_windows
from guardkit_gpt2.tokenizer import START, TokenIds, encode_ids, read_tokenizer

ARTEFACT = "artefact"


def train(
    data: TrainingData,
    config: Gpt2Options,
    out: Path,
    *,
    pretrain: Examples | None,
    init: str | None,
    resume: bool,
    device: str,
    progress: Progress,
) -> Path:
    """Train and keep the epoch with the best validation log-loss; see
    ``ClassifierFamily.train``."""
    options = config.resolved(init)
    where = pick_device(device)
    dtype = pick_dtype(options.dtype, where)
    pooling, neutral = choose_pooling(data.label_names, options.neutral, options.window_pooling)
    train_set, validation = data.train, data.validation
    _check_labels(train_set, validation)
    language_texts = pretrain.texts if pretrain and options.pretrain_epochs else ()

    progress("prepare", 0, 1)
    lm, tokenizer, start_token = _starting_point(
        options, [*train_set.texts, *language_texts], out, resume
    )
    spec = NetworkSpec(
        rule=options.rule,
        n_labels=len(data.label_names),
        gpt2=kept_config(lm),
        start_token=start_token,
        window_tokens=options.window_tokens,
        overlap_tokens=options.overlap_tokens,
        length_exponent=options.length_exponent,
        language=options.rule == "likelihood" or options.lm_weight > 0,
    )
    if spec.window_tokens > lm.config.n_positions:
        raise ConfigError(
            f"window_tokens {spec.window_tokens}: init {options.init!r} reads at most "
            f"{lm.config.n_positions} tokens at once"
        )
    window = spec.window_tokens - 1
    language_ids = encode_ids(tokenizer, language_texts)
    train_ids = encode_ids(tokenizer, train_set.texts)
    validation_ids = encode_ids(tokenizer, validation.texts)
    progress("prepare", 1, 1)

    loop = Loop(options, out, progress)
    if resume:
        loop.resume(where)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        nn.Module.to(lm, where, dtype)  # transformers' own signature hides torch's
        if language_ids and loop.resumed_stage in (None, "pretrain"):
            pieces = [
                ids[i : i + window] for ids in language_ids for i in range(0, len(ids), window)
            ]
            loop.run(
                Stage("pretrain", 0, pieces, options.pretrain_epochs, window),
                lm,
                lambda rows, texts: _language_backward(lm, texts, spec, options),
            )
        network = Network(lm, spec).to(where, dtype)

        assert options.epochs is not None
        standing = loop.run(
            Stage("train", 1, train_ids, options.epochs, window),
            network,
            lambda rows, texts: _backward(network, texts, train_set.labels_N[rows], spec, options),
            lambda: _validate(
                network, validation, validation_ids, spec, pooling, neutral, progress
            ),
        )

    folder = out / ARTEFACT
    folder.mkdir(exist_ok=True)
    shutil.copyfile(out / BEST, folder / WEIGHTS)
    tokenizer.save(str(folder / TOKENIZER))
    best = min(standing.history, key=lambda epoch: epoch["log_loss"])
    artefact = ArtefactConfig(
        family="gpt2",
        labels=list(data.label_names),
        neutral=neutral,
        window_pooling=pooling,
        network=spec.model_dump(),
        training={
            "options": options.model_dump(),
            "parameters": sum(p.numel() for p in network.parameters()),
            "texts": len(train_set),
            "tokens": sum(len(ids) for ids in train_ids),
            "dtype": str(dtype).removeprefix("torch."),
            "best_epoch": best["epoch"],
            "epochs": standing.history,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )
    write_json(folder / "config.json", artefact)
    return folder


def _backward(
    network: Network,
    texts: Sequence[TokenIds],
    labels_B: np.ndarray,
    spec: NetworkSpec,
    options: Gpt2Options,
) -> float:
    if network.head is None:
        return sum(
            _language_backward(
                lm,
                [t for t, label in zip(texts, labels_B, strict=True) if label == c],
                spec,
                options,
            )
            for c, lm in enumerate(network.language_models)
            if c in labels_B
        )
    where = network.head.weight.device
    n_tokens = max(1, sum(len(t) for t in texts))
    total = 0.0
    for group in batches_by_length([len(t) for t in texts], options.batch_tokens):
        tokens_BL, lengths_B = pad([texts[i] for i in group], spec.start_token, where)
        reading = network(tokens_BL, lengths_B, language=options.lm_weight > 0)
        loss = F.cross_entropy(
            reading.logits_BC,
            torch.from_numpy(labels_B[group]).to(where),
            reduction="sum",
            label_smoothing=options.label_smoothing,
        ) / len(texts)
        if reading.nll_B is not None:
            loss = loss + options.lm_weight * reading.nll_B.sum() / n_tokens
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def _language_backward(
    lm: GPT2LMHeadModel, texts: Sequence[TokenIds], spec: NetworkSpec, options: Gpt2Options
) -> float:
    where = next(lm.parameters()).device
    n_tokens = max(1, sum(len(t) for t in texts))
    total = 0.0
    for group in batches_by_length([len(t) for t in texts], options.batch_tokens):
        tokens_BL, lengths_B = pad([texts[i] for i in group], spec.start_token, where)
        loss = window_nll(lm, tokens_BL, lengths_B).sum() / n_tokens
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def _validate(
    network: Network,
    examples: Examples,
    ids_N: Sequence[TokenIds],
    spec: NetworkSpec,
    pooling: Literal["mean", "max"],
    neutral: str | None,
    progress: Progress,
) -> dict[str, float]:
    """Return the log-loss in nats and the accuracy over whole texts.

    The log-loss is the one after the best scale and bias, which is what calibration will make
    of this epoch: raw log-likelihoods have no scale, and an over-confident head is no worse.
    """
    cut = cut_windows(ids_N, spec)
    logits_WC, _ = score_windows(
        network, cut, spec.start_token, before_batch=lambda n: progress("validate", n, len(cut))
    )
    index = None if neutral is None else examples.label_names.index(neutral)
    logits_NC = pool_windows(logits_WC, cut.text_W, cut.n_texts, pooling, index)
    fitted = fit_calibration(logits_NC, examples.labels_N, examples.label_names, data="")
    accuracy = float((logits_NC.argmax(1) == examples.labels_N).mean())
    return {"log_loss": fitted.log_loss_after, "accuracy": accuracy}


def _starting_point(
    options: Gpt2Options, texts: Sequence[str], out: Path, resume: bool
) -> tuple[GPT2LMHeadModel, Tokenizer, int]:
    """Return the language model to start from, its tokenizer and its start token."""
    if options.init != SCRATCH:
        return pretrained_lm(options.init, dropout=options.dropout)
    if resume and (out / TOKENIZER).is_file():
        tokenizer = read_tokenizer(out)
    else:
        tokenizer = train_bpe(
            texts,
            vocab_size=options.vocab_size,
            lower_case=options.lower_case,
            special_tokens=[START],
        )
        tokenizer.save(str(out / TOKENIZER))
    shape = {
        "vocab_size": tokenizer.get_vocab_size(),
        "n_positions": options.window_tokens,
        "n_embd": options.width,
        "n_layer": options.layers,
        "n_head": options.heads,
        "activation_function": "gelu_pytorch_tanh",  # GPT-2's own, in one kernel
    }
    lm = fresh_lm(shape, seed=options.seed, dropout=options.dropout)
    start_token = tokenizer.token_to_id(START)
    assert start_token is not None
    return lm, tokenizer, start_token


def _check_labels(train: Examples, validation: Examples) -> None:
    for name, examples in (("training", train), ("validation", validation)):
        counts_C = np.bincount(examples.labels_N, minlength=len(examples.label_names))
        if missing := [examples.label_names[c] for c in np.flatnonzero(counts_C == 0)]:
            raise DataError(f"{name} data has no text labelled {', '.join(missing)}; it needs each")
