"""The training loop: text alone first where there is some, then the joint loss.

    Loss = text * G + label * CE + pair * PAIR
    G    = (1/k) sum_{i in M} -log p(x_i | x_vis, y or null)        nats per token
    CE   = -log p(y | x_vis), label masked, the text whole or partly masked
    PAIR = -log sigmoid(tau * sum_{i in M} [l_i(true) - l_i(other)]), one M for both

PAIR teaches the ratio that the generative scorer reads; G alone spends its gradient on
language.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

from guardkit import (
    ArtefactConfig,
    ConfigError,
    Examples,
    Progress,
    TrainingData,
    TrainingInterrupted,
    choose_pooling,
    write_json,
)
from guardkit_mdlm.batches import Batch, Corpus, steps_of, walk
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.diffusion import fixed_size_mask, sum_by_row
from guardkit_mdlm.model import Denoiser, NetworkShape
from guardkit_mdlm.optimisation import Optimiser, pick_device, pick_dtype
from guardkit_mdlm.tokenizer import TOKENIZER, TokenIds, encode, read_tokenizer, train_tokenizer

WEIGHTS = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"
LOG = "log.jsonl"


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
    """Train one network for all labels; see ``ClassifierFamily.train``."""
    if init is not None:
        raise ConfigError(f"--init {init!r}: the mdlm family trains from scratch; leave it out")
    labels = data.label_names
    pooling, neutral = choose_pooling(labels, config.neutral, config.window_pooling)
    where = pick_device(device)
    dtype = pick_dtype(config.dtype, where)

    progress("tokenise", 0, 1)
    texts = [*data.train.texts, *(pretrain.texts if pretrain else ())]
    if resume and (out / TOKENIZER).is_file():
        tokenizer = read_tokenizer(out)
    else:
        tokenizer = train_tokenizer(
            texts, vocab_size=config.vocab_size, lower_case=config.lower_case
        )
        tokenizer.save(str(out / TOKENIZER))
    ids = encode(tokenizer, data.train.texts)
    progress("tokenise", 1, 1)

    shape = NetworkShape(
        vocab_size=tokenizer.get_vocab_size() + 1,  # MASK is the last id
        hidden_dim=config.hidden_dim,
        cond_dim=config.cond_dim,
        n_blocks=config.n_blocks,
        n_heads=config.n_heads,
        n_classes=len(labels),
        dropout=config.dropout,
        tie_embeddings=config.tie_embeddings,
        class_bias=config.naive_bayes_bias,
        wide=config.naive_bayes_bias and config.wide,
    )
    torch.manual_seed(config.seed)
    net = Denoiser(shape)
    start_from_naive_bayes(net, ids, data.train.labels_N)
    net = net.to(where, dtype)

    stages = [("train", ids, data.train.labels_N, config.epochs)]
    if pretrain is not None and config.pretrain_epochs > 0:
        unlabelled_N = np.full(len(pretrain), -1)
        stages.insert(
            0, ("pretrain", encode(tokenizer, pretrain.texts), unlabelled_N, config.pretrain_epochs)
        )
    for number, (stage, stage_ids, labels_N, epochs) in enumerate(stages):
        corpus = Corpus(
            ids=stage_ids,
            labels_N=labels_N,
            window=config.window_tokens,
            windows_per_epoch=config.max_windows_per_epoch,
            batch_tokens=config.batch_tokens,
            seed=config.seed * 10 + number,
        )
        _run_stage(
            net, corpus, config, steps_of(corpus, epochs), out,
            stage=stage, later=[s for s, *_ in stages[number + 1 :]],
            resume=resume, device=where, progress=progress,
        )  # fmt: skip

    folder = out / "artefact"
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / TOKENIZER))
    save_file(
        {n: t.to(torch.bfloat16).contiguous() for n, t in net.state_dict().items()},
        folder / WEIGHTS,
    )
    network = {
        "shape": shape.model_dump(),
        "window_tokens": config.window_tokens,
        "overlap_tokens": config.overlap_tokens,
        "scorer": config.scorer,
        "pairs": config.pairs,
        "length_exponent": config.length_exponent,
        "mask_key": _mask_key(tokenizer, config),
    }
    record = {
        "options": config.model_dump(),
        "parameters": sum(p.numel() for p in net.parameters()),
        "tokens": int(sum(len(i) for i in ids)),
        "dtype": str(dtype).removeprefix("torch."),
    }
    artefact = ArtefactConfig(
        family="mdlm",
        labels=list(labels),
        neutral=neutral,
        window_pooling=pooling,
        network=network,
        training=record,
    )
    write_json(folder / "config.json", artefact)
    return folder


def start_from_naive_bayes(net: Denoiser, ids: list[TokenIds], labels_N: np.ndarray) -> None:
    """Set the output biases so that, before any training, every token's log-probability under
    class c is its smoothed log-frequency there: the generative ratio is then naive Bayes.

    The class bias is log p(w|c) - mean_c log p(w|c) and stays as counted: trained, its rare
    words drift. A zero final norm silences the hidden state at the start.
    """
    V, C = net.shape.vocab_size, net.shape.n_classes
    counts_CV = np.ones((C, V - 1))
    for tokens, label in zip(ids, labels_N, strict=True):
        if label >= 0:
            counts_CV[label] += np.bincount(tokens, minlength=V - 1)
    log_p_CV = np.log(counts_CV / counts_CV.sum(1, keepdims=True))
    with torch.no_grad():
        net.output_layer.linear.bias[:-1] = torch.from_numpy(log_p_CV.mean(0)).float()
        if net.shape.class_bias:
            net.class_bias[:, :-1] = torch.from_numpy(log_p_CV - log_p_CV.mean(0)).float()
            net.output_layer.norm_final.weight.zero_()


def joint_loss(
    net: Denoiser, batch: Batch, config: MdlmConfig, rng: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of one batch and its parts; masks, roles and rivals drawn from ``rng``."""
    B = len(batch.label_B)
    labelled_B = batch.label_B >= 0
    draw_B = torch.rand(B, generator=rng).to(labelled_B.device)
    shown_B = labelled_B & (draw_B < config.visible_share)
    length_B = batch.real_BL.sum(1)

    # label shown: a middling mask. Hidden: half of the labelled read whole text, the rest up
    # to half masked; unlabelled rows carry the text loss, so theirs spans the levels.
    ratio_B = torch.rand(B, generator=rng).to(labelled_B.device)
    whole_B = labelled_B & (torch.rand(B, generator=rng).to(labelled_B.device) < 0.5)
    hidden_ratio_B = torch.where(labelled_B, 0.5 * ratio_B * ~whole_B, 0.05 + 0.95 * ratio_B)
    shown_ratio_B = config.mask_low + (config.mask_high - config.mask_low) * ratio_B
    size_B = torch.where(shown_B, shown_ratio_B, hidden_ratio_B) * length_B
    mask_BL = fixed_size_mask(batch.real_BL, size_B.ceil().long(), rng)

    # one pass over [label shown | its rival | label hidden]
    C = net.shape.n_classes
    own_P = batch.label_B[shown_B]
    step_P = torch.randint(1, C, own_P.shape, generator=rng).to(own_P.device)
    rival_P = (own_P + step_P) % C
    hidden_B = ~shown_B
    row_X = torch.cat([shown_B.nonzero()[:, 0]] * 2 + [hidden_B.nonzero()[:, 0]])
    class_X = torch.cat([own_P + 1, rival_P + 1, torch.zeros_like(row_X[2 * len(own_P) :])])
    ids_XL, mask_XL, real_XL = batch.ids_BL[row_X], mask_BL[row_X], batch.real_BL[row_X]
    noised_XL = ids_XL.masked_fill(mask_XL, net.shape.mask_id)
    slot_XD, x_XLD = net(noised_XL, class_X, real_XL)

    P = len(own_P)
    class_N = class_X[:, None].expand_as(ids_XL)[mask_XL]
    values_N = net.token_log_probs(x_XLD[mask_XL], class_N, ids_XL[mask_XL])
    sums_X = sum_by_row(values_N, mask_XL)
    own_X = torch.ones_like(sums_X, dtype=torch.bool)
    own_X[P : 2 * P] = False  # the text loss counts the true class only
    masked_X = mask_XL.sum(1)
    counted_X = own_X & (masked_X > 0)
    zero = sums_X.new_zeros(())
    G = -(sums_X[counted_X] / masked_X[counted_X]).mean() if bool(counted_X.any()) else zero
    PAIR = zero
    if P:
        PAIR = F.softplus(-net.log_tau.float().exp() * (sums_X[:P] - sums_X[P : 2 * P])).mean()
    CE = zero
    known_H = batch.label_B[hidden_B] >= 0
    if bool(known_H.any()):
        logits_HC = net.label_logits(slot_XD[2 * P :], noised_XL[2 * P :], real_XL[2 * P :])
        CE = F.cross_entropy(logits_HC[known_H], batch.label_B[hidden_B][known_H])
    loss = config.text_weight * G + config.label_weight * CE + config.pair_weight * PAIR
    return loss, {name: part.item() for name, part in (("text", G), ("label", CE), ("pair", PAIR))}


def _run_stage(
    net: Denoiser, corpus: Corpus, config: MdlmConfig, total: int, out: Path, *,
    stage: str, later: list[str], resume: bool,
    device: torch.device, progress: Progress,
) -> None:  # fmt: skip
    """Train one stage; leaves the averaged weights in ``net``. A checkpoint of a later stage
    means that this one is done."""
    optimiser = Optimiser(net, config, total)
    step = 0
    if resume and (out / CHECKPOINT).is_file():
        at, tensors = _read_checkpoint(out)
        if at["stage"] in later:
            return
        if at["stage"] == stage:
            optimiser.restore({n: t.to(device) for n, t in tensors.items()})
            step = int(at["step"])
    net.train()
    recent: dict[str, float] = {}
    with (out / LOG).open("a", encoding="utf-8") as log:
        try:
            for batch in walk(corpus, step):
                if step >= total:
                    break
                progress(stage, step, total, _note(recent))
                # the same draws whether or not the run was interrupted before this step
                rng = torch.Generator().manual_seed(corpus.seed * 1_000_003 + step)
                torch.manual_seed(corpus.seed * 1_000_003 + step)  # dropout
                loss, parts = joint_loss(net, batch.to(device), config, rng)
                loss.backward()  # type: ignore[no-untyped-call]
                parts["gradient"] = optimiser.step(step)
                step += 1
                recent = {k: 0.98 * recent.get(k, v) + 0.02 * v for k, v in parts.items()}
                log.write(
                    json.dumps({"stage": stage, "step": step, "loss": loss.item(), **parts}) + "\n"
                )
                if step % config.checkpoint_steps == 0:
                    _write_checkpoint(out, optimiser, stage, step)
        except TrainingInterrupted:
            _write_checkpoint(out, optimiser, stage, step)
            raise
    progress(stage, total, total, _note(recent))
    _write_checkpoint(out, optimiser, stage, step)
    optimiser.averaged()
    net.eval()


def _note(recent: dict[str, float]) -> str:
    return " ".join(f"{k} {v:.3f}" for k, v in recent.items() if k != "gradient")


def _mask_key(tokenizer: Tokenizer, config: MdlmConfig) -> str:
    """Return the artefact's own mask key: another for every training, the same when repeated."""
    message = tokenizer.to_str() + config.model_dump_json()
    return hashlib.sha256(message.encode()).hexdigest()[:32]


def _write_checkpoint(out: Path, optimiser: Optimiser, stage: str, step: int) -> None:
    temporary = out / f"{CHECKPOINT}.new"
    metadata = {"stage": stage, "step": str(step)}
    save_file({n: t.contiguous() for n, t in optimiser.state().items()}, temporary, metadata)
    temporary.rename(out / CHECKPOINT)


def _read_checkpoint(out: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(out / CHECKPOINT, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata, load_file(out / CHECKPOINT)
