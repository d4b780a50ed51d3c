"""Every training option of the ``mdlm`` family, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class MdlmConfig(BaseModel):
    """Options of ``guardkit train --plugin mdlm``; ``--set NAME=VALUE`` sets one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # text
    vocab_size: int = Field(4096, ge=300, description="BPE tokens, learnt from the training text")
    lower_case: bool = Field(True, description="read text in lower case")
    window_tokens: int = Field(
        128, ge=8, description="tokens read at once; longer texts are windowed"
    )
    overlap_tokens: int = Field(32, ge=0, description="tokens that neighbouring windows share")
    window_pooling: Literal["auto", "mean", "max"] = Field(
        "auto", description="max: one window's payload decides; auto: max where a neutral label is"
    )
    neutral: str | None = Field(None, description="the label that means: nothing found")

    # network (Sahoo 2024's DiT)
    hidden_dim: int = Field(192, ge=16)
    n_blocks: int = Field(4, ge=1)
    n_heads: int = Field(3, ge=1)
    cond_dim: int = Field(64, ge=4, description="width of the class conditioning")
    dropout: float = Field(0.1, ge=0, lt=1)
    tie_embeddings: bool = Field(True, description="one matrix for input and output tokens")
    naive_bayes_bias: bool = Field(True, description="per-class vocabulary bias from class counts")
    wide: bool = Field(
        True, description="that bias, summed over the text, enters the one-pass logit"
    )

    # optimisation
    seed: int = Field(0, ge=0)
    epochs: float = Field(3.0, gt=0, description="passes over the labelled text")
    pretrain_epochs: float = Field(1.0, ge=0, description="passes over --pretrain-data before them")
    batch_tokens: int = Field(4096, ge=64, description="tokens per step, padding included")
    max_windows_per_epoch: int = Field(4, ge=1, description="windows drawn from one text per epoch")
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="for hidden matrices; the rest is always AdamW"
    )
    lr_muon: float = Field(0.02, gt=0)
    lr: float = Field(2e-3, gt=0, description="AdamW")
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.02, ge=0, lt=1, description="share of steps with a rising rate")
    grad_clip: float = Field(1.0, gt=0)
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the weights' moving average")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 where the machine multiplies it natively"
    )

    # joint loss: text_weight * G + label_weight * CE + pair_weight * PAIR
    visible_share: float = Field(0.6, ge=0, le=1, description="labelled rows whose label is shown")
    mask_low: float = Field(
        0.3, gt=0, le=1, description="least share of tokens masked, label shown"
    )
    mask_high: float = Field(0.7, gt=0, le=1, description="largest")
    text_weight: float = Field(1.0, ge=0)
    label_weight: float = Field(1.0, ge=0)
    pair_weight: float = Field(1.0, ge=0)

    # scoring
    scorer: Literal["one_pass", "generative"] = Field(
        "one_pass", description="what the calibrated model uses; the other stays available"
    )
    pairs: int = Field(2, ge=1, description="complementary mask pairs of the generative scorer")
    length_exponent: float = Field(
        0.5, ge=0, le=1, description="generative logits are divided by tokens ** this"
    )
    checkpoint_steps: int = Field(200, ge=1, description="steps between resumable checkpoints")

    @model_validator(mode="after")
    def _consistent(self) -> MdlmConfig:
        if self.hidden_dim % (2 * self.n_heads):
            raise ValueError("hidden_dim must be a multiple of twice n_heads")
        if self.overlap_tokens >= self.window_tokens:
            raise ValueError("overlap_tokens must be below window_tokens")
        if self.mask_low > self.mask_high:
            raise ValueError("mask_low must not exceed mask_high")
        return self


#: ``demo`` learns a small sample in about two minutes on 2 cores, ``tiny`` a data set of ten
#: thousand prompts in under 20; ``base`` and ``large`` want a GPU.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "demo": {"vocab_size": 2048, "hidden_dim": 128, "n_blocks": 2, "n_heads": 2, "epochs": 12.0},
    "tiny": {},
    "small": {
        "vocab_size": 8192,
        "hidden_dim": 256,
        "n_blocks": 4,
        "n_heads": 4,
        "cond_dim": 128,
        "batch_tokens": 8192,
    },
    "base": {
        "vocab_size": 12000,
        "window_tokens": 512,
        "overlap_tokens": 128,
        "hidden_dim": 448,
        "n_blocks": 8,
        "n_heads": 7,
        "cond_dim": 128,
        "batch_tokens": 32768,
        "max_windows_per_epoch": 2,
        "epochs": 8.0,
        "pretrain_epochs": 40.0,
    },
    "large": {
        "vocab_size": 16000,
        "window_tokens": 512,
        "overlap_tokens": 128,
        "hidden_dim": 768,
        "n_blocks": 12,
        "n_heads": 12,
        "cond_dim": 128,
        "batch_tokens": 32768,
        "max_windows_per_epoch": 2,
        "epochs": 8.0,
        "pretrain_epochs": 40.0,
    },
}
