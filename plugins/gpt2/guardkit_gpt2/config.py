"""Every training option of the ``gpt2`` family, its presets, and what an artefact keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

SCRATCH = "scratch"
#: GPT-2 XL has 48; a hundred thousand take minutes to make, all of them empty.
MAX_LAYERS = 256


class Gpt2Options(BaseModel):
    """Options of ``guardkit train --plugin gpt2``; ``--set NAME=VALUE`` sets one."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    # what is learnt
    init: str = Field(
        "gpt2",
        min_length=1,
        description="a GPT-2 of the hub (gpt2, distilgpt2), a folder in Hugging Face layout, "
        "or 'scratch'; --init prevails",
    )
    rule: Literal["head", "likelihood"] = Field(
        "head",
        description="head: a linear head on the mean state; likelihood: one language model per "
        "label, compared by log p(text | label)",
    )

    # network and tokenizer, from scratch only: a model from elsewhere brings its own
    width: int = Field(192, ge=8, description="from scratch: size of a state")
    layers: int = Field(3, ge=1, description="from scratch: transformer blocks")
    heads: int = Field(3, ge=1, description="from scratch: attention heads of a block")
    vocab_size: int = Field(
        4096, ge=300, description="from scratch: BPE tokens, learnt from the training text"
    )
    lower_case: bool = Field(True, description="from scratch: read text in lower case")

    # text
    window_tokens: int = Field(
        128, ge=8, description="tokens read at once, the start token among them; longer texts "
        "are windowed"
    )  # fmt: skip
    overlap_tokens: int = Field(32, ge=0, description="tokens that neighbouring windows share")
    window_pooling: Literal["auto", "mean", "max"] = Field(
        "auto", description="max: one window's payload decides; auto: max where a neutral label is"
    )
    neutral: str | None = Field(None, description="the label that means: nothing found")
    length_exponent: float = Field(
        0.5,
        ge=0,
        le=1,
        description="rule likelihood: log p(window | label) is divided by its tokens ** this; "
        "0.5 gives the noise of the sum one size at every length",
    )

    # optimisation
    epochs: int | None = Field(
        None, ge=1, description="passes over the labelled text; default 4 from scratch, else 3"
    )
    pretrain_epochs: int = Field(
        1, ge=0, description="passes over --pretrain-data and unlabelled rows before them"
    )
    batch_size: int = Field(32, ge=1, description="texts per step")
    batch_tokens: int = Field(
        4096, ge=64, description="tokens run at once, padding included: bounds the memory"
    )
    lr: float | None = Field(
        None, gt=0, description="largest learning rate; default 1e-3 from scratch, else 5e-5"
    )
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, on matrices")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps with a rising rate")
    dropout: float = Field(0.1, ge=0, lt=1, description="after embeddings and in every block")
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="rule head: share of the target spread over all labels"
    )
    # 10,000 prompts from scratch, 4 epochs, one seed: validation AUC 0.989 with 0.5, 0.971 with 0
    lm_weight: float = Field(
        0.5,
        ge=0,
        description="rule head: weight of the language model's loss beside the head's "
        "(Radford 2018 used 0.5)",
    )
    patience: int = Field(
        3, ge=1, description="epochs without a better validation log-loss before training stops"
    )
    seed: int = Field(0, ge=0, description="of weights, order, windows and dropout")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="training arithmetic; auto: bfloat16 where the machine multiplies it natively",
    )
    store_dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="how weights are stored"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Gpt2Options:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        if self.overlap_tokens >= self.window_tokens - 1:
            raise ValueError(
                f"overlap_tokens {self.overlap_tokens} must be below window_tokens - 1 = "
                f"{self.window_tokens - 1}"
            )
        return self

    def resolved(self, init: str | None) -> Gpt2Options:
        """Return these options with ``init`` and the defaults that depend on it filled in."""
        init = init or self.init
        scratch = init == SCRATCH
        return self.model_copy(
            update={
                "init": init,
                "epochs": self.epochs or (4 if scratch else 3),
                "lr": self.lr or (1e-3 if scratch else 5e-5),
            }
        )


#: ``tiny`` learns ten thousand prompts from scratch in minutes on 2 cores; ``small`` and
#: ``finetune`` want a GPU, ``finetune`` the hub as well.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tiny": {"init": SCRATCH},
    "small": {
        "init": SCRATCH,
        "width": 384,
        "layers": 6,
        "heads": 6,
        "vocab_size": 12000,
        "window_tokens": 256,
        "overlap_tokens": 64,
        "batch_tokens": 16384,
    },
    "finetune": {
        "init": "gpt2",
        "window_tokens": 512,
        "overlap_tokens": 128,
        "batch_tokens": 16384,
    },
}


class NetworkSpec(BaseModel):
    """``network`` in an artefact's ``config.json``: what rebuilds the network and reads text."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    rule: Literal["head", "likelihood"]
    n_labels: int = Field(ge=2, le=10_000)
    gpt2: dict[str, Any] = Field(description="arguments of transformers.GPT2Config")
    start_token: int = Field(ge=0, description="id of the token that opens every window")
    window_tokens: int = Field(ge=2)
    overlap_tokens: int = Field(ge=0)
    length_exponent: float = Field(ge=0, le=1)
    language: bool = Field(description="its language model was trained, so novelty can use it")

    @field_validator("gpt2")
    @classmethod
    def _bounded(cls, gpt2: dict[str, Any]) -> dict[str, Any]:
        layers = gpt2.get("n_layer", 1)
        if isinstance(layers, int | float) and layers > MAX_LAYERS:
            raise ValueError(f"n_layer {layers}: at most {MAX_LAYERS}")
        return gpt2

    @property
    def least_values(self) -> int:
        """So many weights the network has at least."""
        sizes = [value for value in self.gpt2.values() if type(value) is int]
        width = max(int(self.gpt2.get("n_embd", 1)), 1)
        blocks = 12 * width * int(self.gpt2.get("n_layer", 1))
        copies = self.n_labels if self.rule == "likelihood" else 1
        return copies * width * max([*sizes, blocks])
