"""From labelled text to a model folder: tokens, a network, its stages, what is written.

Text alone first where there is some (``pretrain``), then the joint loss (``train``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from guardkit import (
    ArtefactConfig,
    Examples,
    Progress,
    TrainingData,
    choose_pooling,
    pick_device,
    pick_dtype,
    pool_windows,
    train_bpe,
    write_json,
)
from guardkit_mdlm.adaptation.remembered import Windows, read_windows, to_remember
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.estimators import BACKGROUND, unigram
from guardkit_mdlm.features import TextFeatures, learn_features
from guardkit_mdlm.inference import cut_windows, one_pass_logits
from guardkit_mdlm.model import Denoiser, NetworkShape
from guardkit_mdlm.tokenizer import TOKENIZER, TokenIds, encode, read_tokenizer
from guardkit_mdlm.training.batches import Corpus, Tokenised, steps_of
from guardkit_mdlm.training.loop import CHECKPOINT, Judge, Stage, run_stage
from guardkit_mdlm.training.ngram_fit import add_ngrams
from guardkit_mdlm.training.parallel import Workers, join
from guardkit_mdlm.training.pretrained import Pretrained, open_pretrained
from guardkit_mdlm.training.start import start_from_cooccurrence, start_from_naive_bayes
from guardkit_mdlm.weights.separate import SeparateNetworks, class_weights

WEIGHTS = "model.safetensors"


def train(
    data: TrainingData,
    config: MdlmConfig,
    out: Path,
    *,
    pretrain: Examples | None,
    init: str | None,
    resume: bool,
    device: str,
    progress: Progress,
) -> Path:
    """Train one network for all labels; see ``ClassifierFamily.train``.

    Under ``torchrun`` every process calls this with the same arguments; the first one writes.
    """
    start = None if init is None else open_pretrained(init, config.tokenizer)
    if start is not None:
        config = start.options(config)
    workers = join(pick_device(device))
    progress("tokenise", 0, 1)
    tokenizer = _tokenizer(data, pretrain, config, start, out, resume, workers)
    parts = [
        None
        if part is None
        else Tokenised(encode(tokenizer, part.texts), part.labels_N, sources=part.sources)
        for part in (data.train, data.validation, pretrain)
    ]
    progress("tokenise", 1, 1)
    labelled, held_out, unlabelled = parts
    assert labelled is not None
    features = None
    if config.features is not None:
        features, features_NF = learn_features(
            config.features, data.train.texts, device=device, progress=progress
        )
        labelled = replace(labelled, features_NF=features_NF)
        if held_out is not None:
            held_out = replace(held_out, features_NF=features(data.validation.texts))
    return fit(
        tokenizer, labelled, held_out, unlabelled, data.label_names, config, out,
        start=start, features=features, resume=resume, device=device, progress=progress,
    )  # fmt: skip


def fit(
    tokenizer: Tokenizer,
    labelled: Tokenised,
    held_out: Tokenised | None,
    unlabelled: Tokenised | None,
    labels: Sequence[str],
    config: MdlmConfig,
    out: Path,
    *,
    start: Pretrained | None = None,
    features: TextFeatures | None = None,
    resume: bool,
    device: str,
    progress: Progress,
) -> Path:
    """``train`` from token ids on. ``held_out`` is judged for early stopping."""
    pooling, neutral = choose_pooling(labels, config.neutral, config.window_pooling)
    where = pick_device(device)
    dtype = pick_dtype(config.dtype, where)
    workers = join(where)
    texts = [*labelled.ids, *(unlabelled.ids if unlabelled else ())]
    # a checkpoint holds every weight that is counted for, which takes a while
    counted = [] if resume and (out / CHECKPOINT).is_file() else texts
    net = _network(tokenizer, labelled, counted, len(labels), config, start).to(where, dtype)
    if config.compile:
        net.compile(dynamic=True)

    judge = None
    if held_out and config.label_weight and isinstance(net, Denoiser):
        judge = _judge(net, held_out, config, where)
    plan: list[tuple[str, Tokenised, float, Judge | None]] = []
    if unlabelled and config.pretrain_epochs > 0:
        plan.append(("pretrain", unlabelled, config.pretrain_epochs, None))
    plan.append(("train", labelled, config.epochs, judge))
    reports: dict[str, Any] = {}
    for number, (name, part, epochs, stage_judge) in enumerate(plan):
        corpus = Corpus(
            ids=part.ids,
            labels_N=part.labels_N,
            window=config.window_tokens,
            windows_per_epoch=config.max_windows_per_epoch,
            batch_tokens=config.batch_tokens,
            seed=config.seed * 10 + number,
            features_NF=part.features_NF,
        )
        stage = Stage(
            name, corpus, steps_of(corpus, epochs), [p[0] for p in plan[number + 1 :]],
            out, where, workers, progress, stage_judge, reports,
        )  # fmt: skip
        run_stage(net, stage, config, resume=resume)

    folder = out / "artefact"
    if workers.leads:
        parameters = sum(p.numel() for p in net.parameters())
        if judge is not None and config.ngrams:
            assert held_out is not None
            assert isinstance(net, Denoiser)
            progress("ngrams", 0, 1)
            reports["ngrams"] = found = add_ngrams(
                net, labelled, held_out, longest=config.ngrams, most=config.ngram_terms,
                pooling=pooling,
                neutral=None if neutral is None else labels.index(neutral),
                window=config.window_tokens, overlap=config.overlap_tokens, device=where,
            )  # fmt: skip
            alone = f"network {found['network_loss']:.3f}, n-grams {found['ngrams_loss']:.3f}"
            progress("ngrams", 1, 1, f"held-out loss {alone}, both {found['joined_loss']:.3f}")
        record = {
            "options": config.model_dump(),
            "init": None if start is None else start.init,
            "parameters": parameters,
            "tokens": int(sum(len(i) for i in labelled.ids)),
            "dtype": str(dtype).removeprefix("torch."),
            "processes": workers.count,
            "stages": reports,
        }
        artefact = ArtefactConfig(
            family="mdlm",
            labels=list(labels),
            neutral=neutral,
            window_pooling=pooling,
            network={
                "shape": net.shape.model_dump(),
                **config.scoring(),
                "novelty": config.novelty,
                **({} if features is None else {"features": features.record}),
                **(net.record if isinstance(net, SeparateNetworks) else {}),
                "mask_key": _mask_key(tokenizer, config),
            },
            training=record,
        )
        write_artefact(
            folder, artefact, net, tokenizer, None if config.novelty == "energy" else texts
        )
        if features is not None:
            features.save(folder)
        elif held_out and isinstance(net, Denoiser) and config.scorer == "one_pass":
            remember(net, held_out, config, where).save(folder)
    workers.wait()
    return folder


def _tokenizer(
    data: TrainingData,
    pretrain: Examples | None,
    config: MdlmConfig,
    start: Pretrained | None,
    out: Path,
    resume: bool,
    workers: Workers,
) -> Tokenizer:
    if start is not None:
        return start.tokenizer
    if workers.leads and not (resume and (out / TOKENIZER).is_file()):
        texts = [*data.train.texts, *(pretrain.texts if pretrain else ())]
        train_bpe(texts, vocab_size=config.vocab_size, lower_case=config.lower_case).save(
            str(out / TOKENIZER)
        )
    workers.wait()
    return read_tokenizer(out)


def _network(
    tokenizer: Tokenizer,
    labelled: Tokenised,
    texts: Sequence[TokenIds],
    n_classes: int,
    config: MdlmConfig,
    start: Pretrained | None,
) -> Denoiser | SeparateNetworks:
    """Return the network as it is before the first step; without ``texts`` its embeddings are
    left random."""
    shape = NetworkShape(
        vocab_size=tokenizer.get_vocab_size() + 1,  # MASK is the last id
        hidden_dim=config.hidden_dim,
        cond_dim=config.cond_dim,
        n_blocks=config.n_blocks,
        n_heads=config.n_heads,
        n_classes=n_classes,
        dropout=config.dropout,
        tie_embeddings=config.tie_embeddings,
        class_bias=config.naive_bayes_bias,
        wide=config.naive_bayes_bias and config.wide,
        n_features=0 if labelled.features_NF is None else labelled.features_NF.shape[1],
    )
    torch.manual_seed(config.seed)
    if config.networks == "separate":
        separate = SeparateNetworks(shape, None if start is None else start.start_id)
        if start is not None:
            start.fill(separate)
        return separate
    net = Denoiser(shape)
    start_from_naive_bayes(net, labelled.ids, labelled.labels_N, shared=start is None)
    if start is not None:
        start.fill(net)
    elif config.embeddings == "cooccurrence" and texts:
        start_from_cooccurrence(net, texts)
    return net


def _judge(net: Denoiser, held_out: Tokenised, config: MdlmConfig, device: torch.device) -> Judge:
    """Return what measures the label loss and accuracy of one pass, windows averaged."""
    pieces, text_W = cut_windows(held_out.ids, config.window_tokens, config.overlap_tokens)
    features_WF = None if held_out.features_NF is None else held_out.features_NF[text_W]
    labels_N = held_out.labels_N

    def judge() -> dict[str, float]:
        logits_WC = one_pass_logits(net, pieces, device, features_WF)
        logits_NC = pool_windows(logits_WC, text_W, len(held_out), "mean", None).astype(np.float64)
        log_p_NC = logits_NC - np.logaddexp.reduce(logits_NC, axis=1, keepdims=True)
        return {
            "held_out_loss": float(-log_p_NC[np.arange(len(held_out)), labels_N].mean()),
            "held_out_accuracy": float((logits_NC.argmax(1) == labels_N).mean()),
        }

    return judge


def remember(
    net: Denoiser, held_out: Tokenised, config: MdlmConfig, device: torch.device
) -> Windows:
    """Return what the trained network makes of held-out texts, as many as a model remembers."""
    cut = {"window": config.window_tokens, "overlap": config.overlap_tokens}
    kept_N = to_remember(held_out.ids, seed=config.seed, **cut)
    sources = [held_out.sources[i] for i in kept_N] if held_out.sources else []
    ids = [held_out.ids[i] for i in kept_N]
    return read_windows(net, ids, held_out.labels_N[kept_N], device=device, sources=sources, **cut)


def write_artefact(
    folder: Path,
    artefact: ArtefactConfig,
    net: Denoiser | SeparateNetworks,
    tokenizer: Tokenizer,
    background: Sequence[TokenIds] | None,
) -> None:
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER))
    files: dict[Path, nn.Module] = {folder / WEIGHTS: net}
    if isinstance(net, SeparateNetworks):
        files = {class_weights(folder, n): own for n, own in enumerate(net.networks, start=1)}
    for path, own in files.items():
        weights = {n: _stored(t) for n, t in own.state_dict().items()}
        save_file(weights, path)
    if background is not None:
        log_p_V = torch.from_numpy(unigram(background, net.shape.mask_id))
        save_file({"log_p_V": log_p_V}, folder / BACKGROUND)
    write_json(folder / "config.json", artefact)


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_floating_point():
        tensor = tensor.to(torch.bfloat16)
    return tensor.contiguous()


def _mask_key(tokenizer: Tokenizer, config: MdlmConfig) -> str:
    """Return the artefact's own mask key: another for every training, the same when repeated."""
    message = tokenizer.to_str() + config.model_dump_json()
    return hashlib.sha256(message.encode()).hexdigest()[:32]
