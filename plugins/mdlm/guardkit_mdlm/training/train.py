"""From labelled text to a model folder: tokens, a network, its stages, what is written.

    tokenise -> starting network -> stages -> n-grams beside it -> artefact

Text alone first where there is some (``pretrain``), then the joint loss (``train``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from guardkit import (
    TOKENIZER,
    Examples,
    Pooling,
    Progress,
    TrainingData,
    choose_pooling,
    pick_device,
    pick_dtype,
    pool_windows,
    train_bpe,
)
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.features import TextFeatures, learn_features
from guardkit_mdlm.inference import one_pass_logits
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.text_ngrams import TextNgrams
from guardkit_mdlm.token_ids import TokenIds, cut_windows
from guardkit_mdlm.tokenizer import encode, read_tokenizer
from guardkit_mdlm.training.artefact import write_artefact
from guardkit_mdlm.training.corpus import Corpus, Tokenised, steps_of
from guardkit_mdlm.training.loop import CHECKPOINT, Measure, Run, Stage, run_stage
from guardkit_mdlm.training.ngram_fit import Weighing, add_ngrams, fit_text_ngrams
from guardkit_mdlm.training.parallel import join
from guardkit_mdlm.training.pretrained import Pretrained, open_pretrained
from guardkit_mdlm.training.start import start_from_cooccurrence, start_from_naive_bayes
from guardkit_mdlm.weights.separate import SeparateNetworks


@dataclass(frozen=True)
class TokenisedData:
    """What a network learns from. ``held_out`` is judged for early stopping."""

    labels: Sequence[str]
    labelled: Tokenised
    held_out: Tokenised | None = None
    unlabelled: Tokenised | None = None

    @property
    def texts(self) -> list[TokenIds]:
        """All texts to learn from."""
        return [*self.labelled.ids, *(self.unlabelled.ids if self.unlabelled else ())]


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
    run = open_run(out, resume=resume, device=device, progress=progress)
    progress("tokenise", 0, 1)
    tokenizer = _tokenizer(data, pretrain, config, start, run)
    tokenised = _tokenised(tokenizer, data, pretrain)
    progress("tokenise", 1, 1)
    features = None
    if config.features is not None:
        features, features_NF = learn_features(
            config.features, data.train.texts, device=device, progress=progress
        )
        tokenised = _with_features(tokenised, features, features_NF, data)
    return fit(tokenizer, tokenised, config, run, start=start, features=features)


def open_run(out: Path, *, resume: bool, device: str, progress: Progress) -> Run:
    """Return where and how to train; under ``torchrun`` the other processes are met."""
    where = pick_device(device)
    return Run(out, where, join(where), progress, resume)


def fit(
    tokenizer: Tokenizer,
    data: TokenisedData,
    config: MdlmConfig,
    run: Run,
    *,
    start: Pretrained | None = None,
    features: TextFeatures | None = None,
) -> Path:
    """``train`` from token ids on."""
    # a checkpoint holds every weight that is counted for, which takes a while
    counted = [] if run.resume and (run.out / CHECKPOINT).is_file() else data.texts
    dtype = pick_dtype(config.dtype, run.device)
    net = _starting_network(tokenizer, data, counted, config, start).to(run.device, dtype)
    if config.compile:
        net.compile(dynamic=True)
    reports: dict[str, Any] = {}
    for stage in _stages(net, data, config, run, reports):
        run_stage(net, stage, config, run)
    parameters = sum(p.numel() for p in net.parameters())
    if run.workers.leads:
        text_ngrams = None
        if _is_measured(net, data, config) and config.ngrams:
            reports["ngrams"], text_ngrams = _join_ngrams(net, data, config, run)
        record = {
            "options": config.model_dump(),
            "init": None if start is None else start.init,
            "parameters": parameters,
            "tokens": int(sum(len(i) for i in data.labelled.ids)),
            "dtype": str(dtype).removeprefix("torch."),
            "processes": run.workers.count,
            "stages": reports,
        }
        write_artefact(
            run.folder, net, tokenizer, config, data.labels,
            texts=data.texts, held_out=data.held_out, features=features, text_ngrams=text_ngrams,
            training=record,
        )  # fmt: skip
    run.workers.wait()
    return run.folder


def _tokenised(
    tokenizer: Tokenizer, data: TrainingData, pretrain: Examples | None
) -> TokenisedData:
    def read(examples: Examples) -> Tokenised:
        ids = encode(tokenizer, examples.texts)
        return Tokenised(ids, examples.labels_N, sources=examples.sources, texts=examples.texts)

    return TokenisedData(
        data.label_names,
        read(data.train),
        read(data.validation),
        None if pretrain is None else read(pretrain),
    )


def _with_features(
    tokenised: TokenisedData,
    features: TextFeatures,
    features_NF: np.ndarray,
    data: TrainingData,
) -> TokenisedData:
    """Put another model's features beside the labelled texts."""
    assert tokenised.held_out is not None
    return replace(
        tokenised,
        labelled=replace(tokenised.labelled, features_NF=features_NF),
        held_out=replace(tokenised.held_out, features_NF=features(data.validation.texts)),
    )


def _tokenizer(
    data: TrainingData,
    pretrain: Examples | None,
    config: MdlmConfig,
    start: Pretrained | None,
    run: Run,
) -> Tokenizer:
    if start is not None:
        return start.tokenizer
    if run.workers.leads and not (run.resume and (run.out / TOKENIZER).is_file()):
        texts = [*data.train.texts, *(pretrain.texts if pretrain else ())]
        train_bpe(texts, vocab_size=config.vocab_size, lower_case=config.lower_case).save(
            str(run.out / TOKENIZER)
        )
    run.workers.wait()
    return read_tokenizer(run.out)


def _starting_network(
    tokenizer: Tokenizer,
    data: TokenisedData,
    texts: Sequence[TokenIds],
    config: MdlmConfig,
    start: Pretrained | None,
) -> ClassNetwork:
    """Return the network as it is before the first step; without ``texts`` its embeddings are
    left random."""
    labelled = data.labelled
    encoder = None if start is None else start.net.shape.encoder
    shape = NetworkShape(
        # MASK is the last id, where the network does not bring its own
        vocab_size=tokenizer.get_vocab_size() + 1 if start is None else start.net.shape.vocab_size,
        hidden_dim=config.hidden_dim,
        cond_dim=config.cond_dim,
        n_blocks=config.n_blocks,
        n_heads=config.n_heads,
        n_classes=len(data.labels),
        dropout=config.dropout,
        tie_embeddings=config.tie_embeddings,
        class_bias=config.naive_bayes_bias,
        wide=config.naive_bayes_bias and config.wide,
        n_features=0 if labelled.features_NF is None else labelled.features_NF.shape[1],
        encoder=encoder,
        mean_readout=_reads_mean(config, encoder is not None),
    )
    torch.manual_seed(config.seed)
    if config.networks == "separate":
        separate = SeparateNetworks(shape, None if start is None else start.start_id)
        if start is not None:
            start.fill(separate)
        return separate
    net = Denoiser(shape)
    if start is not None:
        start.fill(net)
    fresh_head = start is None or start.fresh_head
    start_from_naive_bayes(net, labelled.ids, labelled.labels_N, shared=fresh_head)
    if start is None and config.embeddings == "cooccurrence" and texts:
        start_from_cooccurrence(net, texts)
    return net


def _reads_mean(config: MdlmConfig, from_masked_lm: bool) -> bool:
    return from_masked_lm if config.readout == "auto" else config.readout == "slot_and_mean"


def _stages(
    net: ClassNetwork,
    data: TokenisedData,
    config: MdlmConfig,
    run: Run,
    reports: dict[str, Any],
) -> Sequence[Stage]:
    """Return the stages in order: text alone where there is some, then the labelled texts."""
    measure = None
    if _is_measured(net, data, config):
        assert data.held_out is not None
        measure = _held_out_measure(net, data.held_out, config, run.device)
    plan = [("train", data.labelled, config.epochs, measure)]
    if data.unlabelled and config.pretrain_epochs > 0:
        plan.insert(0, ("pretrain", data.unlabelled, config.pretrain_epochs, None))
    stages = []
    for number, (name, texts, epochs, stage_measure) in enumerate(plan):
        corpus = Corpus(
            ids=texts.ids,
            labels_N=texts.labels_N,
            window=config.window_tokens,
            windows_per_epoch=config.max_windows_per_epoch,
            batch_tokens=config.batch_tokens,
            seed=config.seed * 10 + number,
            features_NF=texts.features_NF,
        )
        later = [name for name, *_ in plan[number + 1 :]]
        stages.append(Stage(name, corpus, steps_of(corpus, epochs), later, stage_measure, reports))
    return stages


def _is_measured(net: ClassNetwork, data: TokenisedData, config: MdlmConfig) -> bool:
    """Whether there are held-out texts, and a label slot that learns, to measure on them."""
    return bool(data.held_out) and config.label_weight > 0 and net.has_label_slot


def _held_out_measure(
    net: ClassNetwork, held_out: Tokenised, config: MdlmConfig, device: torch.device
) -> Measure:
    """Return what measures the label loss and accuracy of one pass, windows averaged."""
    pieces, text_W = cut_windows(held_out.ids, config.window_tokens, config.overlap_tokens)
    features_WF = None if held_out.features_NF is None else held_out.features_NF[text_W]
    labels_N = held_out.labels_N

    def measure() -> dict[str, float]:
        logits_WC = one_pass_logits(net, pieces, device, features_WF)
        logits_NC = pool_windows(logits_WC, text_W, len(held_out), "mean", None).astype(np.float64)
        log_p_NC = logits_NC - np.logaddexp.reduce(logits_NC, axis=1, keepdims=True)
        return {
            "held_out_loss": float(-log_p_NC[np.arange(len(held_out)), labels_N].mean()),
            "held_out_accuracy": float((logits_NC.argmax(1) == labels_N).mean()),
        }

    return measure


def _join_ngrams(
    net: ClassNetwork, data: TokenisedData, config: MdlmConfig, run: Run
) -> tuple[dict[str, Any], TextNgrams | None]:
    """Fit n-grams to stand beside the trained network; return the record of how the two are
    weighed, and the n-grams where they read tokens of their own."""
    assert isinstance(net, Denoiser)
    assert data.held_out is not None
    run.progress("ngrams", 0, 1)
    pooling, name = choose_pooling(data.labels, config.neutral, config.window_pooling)
    neutral = None if name is None else data.labels.index(name)
    text_ngrams = None
    if net.shape.encoder is None:
        found = add_ngrams(
            net, data.labelled, data.held_out, longest=config.ngrams, most=config.ngram_terms,
            pooling=pooling, neutral=neutral,
            window=config.window_tokens, overlap=config.overlap_tokens, device=run.device,
        )  # fmt: skip
    else:
        text_ngrams, weighing = _text_ngrams(net, data.labelled, data.held_out, config, run.device,
                                             pooling, neutral)  # fmt: skip
        net.scale_label_logits(weighing.network_scale)
        found = {"terms": len(text_ngrams.hash_T), **asdict(weighing)}
    alone = f"network {found['network_loss']:.3f}, n-grams {found['ngrams_loss']:.3f}"
    run.progress("ngrams", 1, 1, f"held-out loss {alone}, both {found['joined_loss']:.3f}")
    return found, text_ngrams


def _text_ngrams(
    net: Denoiser,
    labelled: Tokenised,
    held_out: Tokenised,
    config: MdlmConfig,
    device: torch.device,
    pooling: Pooling,
    neutral: int | None,
) -> tuple[TextNgrams, Weighing]:
    """Return n-grams of the labelled texts' own bytes, weighed beside the network's one pass."""
    pieces, text_W = cut_windows(held_out.ids, config.window_tokens, config.overlap_tokens)
    logits_WC = one_pass_logits(net, pieces, device)
    network_NC = pool_windows(logits_WC, text_W, len(held_out), pooling, neutral)
    return fit_text_ngrams(
        labelled.texts, labelled.labels_N, held_out.texts, held_out.labels_N,
        network_NC.astype(np.float64),
        tokenizer=train_bpe(
            labelled.texts, vocab_size=config.ngram_vocab_size, lower_case=False
        ),
        longest=config.ngrams, most=config.ngram_terms,
        window=config.window_tokens, overlap=config.overlap_tokens,
        pooling=pooling, neutral=neutral,
    )  # fmt: skip
