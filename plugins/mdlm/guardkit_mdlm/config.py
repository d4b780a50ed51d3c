"""Every training option of the ``mdlm`` family, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

EstimatorName = Literal[
    "bernoulli", "fixed_k", "systematic_k", "complementary", "half_pairs", "partition"
]
#: The largest vocabulary whose pairs are counted: a matrix of 1.6 GB.
COUNTED_VOCABULARY = 20_000
#: The key that the generative scorer's masks are drawn by; unset: the one stored with the model.
ENV_MASK_KEY = "GUARDKIT_MASK_KEY"
#: Estimators whose masks come two by two.
PAIRED = ("complementary", "half_pairs")


class ScoringConfig(BaseModel):
    """How a network reads and scores texts, however it came to be."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    window_tokens: int = Field(
        128, ge=8, description="tokens read at once; longer texts are windowed"
    )
    overlap_tokens: int = Field(32, ge=0, description="tokens that neighbouring windows share")
    window_pooling: Literal["auto", "mean", "max"] = Field(
        "auto", description="max: one window's payload decides; auto: max where a neutral label is"
    )
    neutral: str | None = Field(None, description="the label that means: nothing found")

    scorer: Literal["one_pass", "generative"] = Field(
        "one_pass", description="what the calibrated model uses; the other stays available"
    )
    estimator: EstimatorName = Field(
        "half_pairs", description="the generative scorer's masks and their weights"
    )
    evaluations: int = Field(
        4, ge=1, description="network passes per label of the generative scorer; pairs take two"
    )
    shared_masks: bool = Field(
        True,
        description="all labels see the same masks; false, each its own: what an experiment that "
        "got 62% on IMDB did, kept to compare with",
    )
    length_exponent: float = Field(
        0.5, ge=0, le=1, description="generative logits are divided by tokens ** this"
    )

    @model_validator(mode="after")
    def _windows_advance(self) -> Self:
        if self.overlap_tokens >= self.window_tokens:
            raise ValueError("overlap_tokens must be below window_tokens")
        return self

    @model_validator(mode="after")
    def _pairs_are_whole(self) -> Self:
        if self.estimator in PAIRED and self.evaluations % 2:
            raise ValueError(f"evaluations must be even with estimator {self.estimator!r}")
        return self

    def scoring(self) -> dict[str, Any]:
        """Return what an artefact's network keeps of these options; pooling stands elsewhere."""
        kept = ScoringConfig.model_fields.keys() - {"window_pooling", "neutral"}
        return {name: value for name, value in self.model_dump().items() if name in kept}


class ImportConfig(ScoringConfig):
    """Options of ``guardkit models import --family mdlm``."""

    weights: Literal["ema", "raw"] = Field(
        "ema", description="of a .ckpt: the averaged weights, or the last"
    )
    tokenizer: str = Field(
        "gpt2", description="folder or hub id of the tokenizer the checkpoints were trained with"
    )
    start_token: str = Field(
        "<|endoftext|>", description="the token that opened every training chunk; empty: none did"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the weights; bfloat16 halves their size, and is less exact"
    )
    window_tokens: int = Field(511, ge=8, description="read at once, without the start token")
    overlap_tokens: int = Field(128, ge=0, description="tokens that neighbouring windows share")
    scorer: Literal["one_pass", "generative"] = Field(
        "generative", description="separate networks have no other"
    )

    @field_validator("scorer")
    @classmethod
    def _scorer_exists(cls, scorer: str) -> str:
        if scorer != "generative":
            raise ValueError(
                "reads a label slot, which networks trained one per label have not; leave it at "
                "'generative'"
            )
        return scorer


class MdlmConfig(ScoringConfig):
    """Options of ``guardkit train --plugin mdlm``; ``--set NAME=VALUE`` sets one."""

    # text
    vocab_size: int = Field(4096, ge=300, description="BPE tokens, learnt from the training text")
    lower_case: bool = Field(True, description="read text in lower case")
    tokenizer: str = Field(
        "gpt2", description="folder or hub id of the tokenizer of public weights (--init)"
    )

    # network (Sahoo 2024's DiT)
    networks: Literal["joint", "separate"] = Field(
        "joint",
        description="one network that is told the label, or one for each label, which knows its "
        "own texts only and has no one-pass posterior",
    )
    hidden_dim: int = Field(192, ge=16)
    n_blocks: int = Field(4, ge=1)
    n_heads: int = Field(3, ge=1)
    cond_dim: int = Field(64, ge=4, description="width of the class conditioning")
    dropout: float = Field(0.1, ge=0, lt=1)
    tie_embeddings: bool = Field(True, description="one matrix for input and output tokens")
    naive_bayes_bias: bool = Field(True, description="per-class vocabulary bias from class counts")
    embeddings: Literal["cooccurrence", "random"] = Field(
        "cooccurrence", description="where tokens start: a factorisation of how often they meet"
    )
    wide: bool = Field(
        True, description="that bias, summed over the text, enters the one-pass logit"
    )

    readout: Literal["auto", "slot", "slot_and_mean"] = Field(
        "auto",
        description="what one pass reads the label from: the state of its slot, or also the mean "
        "of the tokens'; auto: both where the network comes from a masked language model (--init)",
    )

    ngrams: int = Field(
        3,
        ge=0,
        le=5,
        description="tokens in the longest run that counts in the linear model which is fitted "
        "beside the trained network and enters the one-pass logit; 0: no such model",
    )
    ngram_terms: int = Field(2**19, ge=1, description="runs that it knows, at most")
    ngram_vocab_size: int = Field(
        8192,
        ge=300,
        description="BPE tokens of the n-grams, which read case and all; where the network came "
        "with a tokenizer of its own (--init with a masked language model)",
    )
    features: str | None = Field(
        None,
        min_length=1,
        description="a model whose features of the whole text are read beside the label slot: a "
        "folder or builtin:FAMILY/NAME of a family that gives some (gpt2). Best trained on other "
        "labels: on its own training texts it looks surer than it will be",
    )

    # optimisation
    seed: int = Field(0, ge=0)
    epochs: float = Field(3.0, gt=0, description="passes over the labelled text")
    pretrain_epochs: float = Field(1.0, ge=0, description="passes over --pretrain-data before them")
    batch_tokens: int = Field(4096, ge=64, description="tokens per step, padding included")
    accumulate: int = Field(1, ge=1, description="parts a step is run in, to need less memory")
    max_windows_per_epoch: int = Field(4, ge=1, description="windows drawn from one text per epoch")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="for hidden matrices; the rest is always AdamW"
    )
    lr_muon: float = Field(0.02, gt=0)
    lr: float = Field(2e-3, gt=0, description="AdamW")
    lr_body: float | None = Field(
        None, gt=0, description="AdamW, all but what classes add; none: lr, or 3e-5 with --init"
    )
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.02, ge=0, lt=1, description="share of steps with a rising rate")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="of the rate after its rise: down to zero, or none"
    )
    grad_clip: float = Field(1.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the weights' moving average")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the machine multiplies it natively"
    )

    compile: bool = Field(False, description="torch.compile; pays on GPUs")
    validations: int = Field(
        8, ge=0, description="times the labelled stage is judged on held-out text; the best stays"
    )
    patience: int = Field(
        3, ge=0, description="judgements without gain that end the stage; 0: never"
    )

    # joint loss: text_weight * G + label_weight * CE + pair_weight * PAIR
    visible_share: float = Field(0.6, ge=0, le=1, description="labelled rows whose label is shown")
    mask_low: float = Field(
        0.3, gt=0, le=1, description="least share of tokens masked, label shown"
    )
    mask_high: float = Field(0.7, gt=0, le=1, description="largest")
    label_mask_high: float = Field(
        0.5,
        ge=0,
        le=1,
        description="largest share masked of half of the rows whose label is to "
        "be found; the other half are whole",
    )
    text_weight: float = Field(1.0, ge=0)
    label_weight: float = Field(1.0, ge=0)
    pair_weight: float = Field(1.0, ge=0)

    novelty: Literal["unigram", "energy", "density"] = Field(
        "unigram",
        description="how strange a text is: unigram: how rare its tokens are in the training "
        "text; energy of the one-pass logits; both at no cost; density: likelihood against that "
        "of token frequencies, two passes",
    )

    # checkpoints
    checkpoint_steps: int = Field(200, ge=1, description="steps between resumable checkpoints")

    @model_validator(mode="after")
    def _consistent(self) -> MdlmConfig:
        if self.hidden_dim % (2 * self.n_heads):
            raise ValueError("hidden_dim must be a multiple of twice n_heads")
        if self.mask_low > self.mask_high:
            raise ValueError("mask_low must not exceed mask_high")
        if self.networks == "separate":
            self._fits_separate_networks()
        if self.embeddings == "cooccurrence" and self.vocab_size > COUNTED_VOCABULARY:
            raise ValueError(
                f"embeddings 'cooccurrence' count pairs of tokens, of {COUNTED_VOCABULARY:,} at "
                "most; set vocab_size lower, or embeddings to 'random'"
            )
        return self

    def _fits_separate_networks(self) -> None:
        needed = {
            "scorer": "generative", "visible_share": 1.0, "label_weight": 0.0, "pair_weight": 0.0,
            "naive_bayes_bias": False, "ngrams": 0, "embeddings": "random", "features": None,
            "novelty": "unigram",
        }  # fmt: skip
        if wrong := [f"{k}={v}" for k, v in needed.items() if getattr(self, k) != v]:
            raise ValueError(f"networks 'separate' share nothing: they need {', '.join(wrong)}")


#: ``demo`` learns a small sample in about two minutes on 2 cores, ``tiny`` a data set of ten
#: thousand prompts in under 20, ``small`` twenty thousand reviews in one to two hours (too few
#: passes for dropout to pay; so few reviews a step that higher rates kept it at the entropy of
#: word frequencies); ``base`` and ``large`` want a GPU, ``finetune`` weights to start from.
#: A window of 511 and the label slot are 512 positions, which a GPU multiplies without padding.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "demo": {"vocab_size": 2048, "hidden_dim": 128, "n_blocks": 2, "n_heads": 2, "epochs": 12.0},
    "tiny": {},
    "small": {
        "vocab_size": 8192,
        "window_tokens": 256,
        "hidden_dim": 256,
        "n_blocks": 4,
        "n_heads": 4,
        "cond_dim": 128,
        "dropout": 0.0,
        "lr": 1e-3,
        "lr_muon": 0.008,
        "epochs": 2.0,
    },
    "base": {
        "vocab_size": 12000,
        "window_tokens": 511,
        "overlap_tokens": 128,
        "hidden_dim": 448,
        "n_blocks": 8,
        "n_heads": 7,
        "cond_dim": 128,
        "batch_tokens": 32768,
        "max_windows_per_epoch": 2,
        "epochs": 8.0,
        "pretrain_epochs": 40.0,
        "checkpoint_steps": 2000,
    },
    "finetune": {
        "window_tokens": 511,
        "overlap_tokens": 128,
        "batch_tokens": 32768,
        "max_windows_per_epoch": 2,
        "epochs": 4.0,
        "pretrain_epochs": 8.0,
        "lr": 1e-3,
        "checkpoint_steps": 2000,
    },
    # What got 62.0% on IMDB, to be run again with --init kuleshov-group/mdlm-owt-noeos: two
    # networks, batches of 8 x 4 for each, one independent mask a label, weighed by 1/t.
    "experiment-2025-11": {
        "networks": "separate",
        "hidden_dim": 768,
        "n_blocks": 12,
        "n_heads": 12,
        "cond_dim": 128,
        "window_tokens": 511,
        "overlap_tokens": 0,
        "dropout": 0.1,
        "tie_embeddings": False,
        "naive_bayes_bias": False,
        "ngrams": 0,
        "embeddings": "random",
        "optimizer": "adamw",
        "lr": 3e-4,
        "lr_body": 3e-4,
        "weight_decay": 0.0,
        "schedule": "constant",
        "batch_tokens": 32768,
        "accumulate": 8,
        "max_windows_per_epoch": 1,
        "epochs": 123.0,
        "pretrain_epochs": 0.0,
        "ema": 0.9999,
        "visible_share": 1.0,
        "mask_low": 0.001,
        "mask_high": 1.0,
        "label_weight": 0.0,
        "pair_weight": 0.0,
        "scorer": "generative",
        "estimator": "bernoulli",
        "evaluations": 1,
        "shared_masks": False,
    },
    "large": {
        "vocab_size": 16000,
        "window_tokens": 511,
        "overlap_tokens": 128,
        "hidden_dim": 768,
        "n_blocks": 12,
        "n_heads": 12,
        "cond_dim": 128,
        "batch_tokens": 32768,
        "max_windows_per_epoch": 2,
        "epochs": 8.0,
        "pretrain_epochs": 40.0,
        "checkpoint_steps": 2000,
    },
}
