"""How large and how long everything is: for a GPU, and in miniature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Size:
    """How large everything is."""

    options: Mapping[str, Any]  # of mdlm, over the preset that the text was tokenised for
    pretrain_minutes: float
    joint_minutes: float
    most_epochs: Mapping[str, float]  # of each stage, however fast the machine
    warm_up: int  # steps that a probe lets pass; compilation is among them
    timed: int
    side: int  # of the square matrices of the peaks
    speed_texts: int
    llm_texts: int
    medium: Mapping[str, int]  # the larger shape whose speed is measured
    llm: Mapping[str, Any]  # of transformers.LlamaConfig
    prefix: int
    seeds: int
    least_s: float  # no stage begins with less
    reserve_s: float  # kept back for writing a checkpoint and the parts

    def changed(
        self,
        options: Mapping[str, Any],
        pretrain_minutes: float | None,
        joint_minutes: float | None,
    ) -> Size:
        return replace(
            self,
            options={**self.options, **options},
            pretrain_minutes=pretrain_minutes or self.pretrain_minutes,
            joint_minutes=joint_minutes or self.joint_minutes,
        )


FULL = Size(
    options={"compile": True, "checkpoint_steps": 2000},
    pretrain_minutes=11,
    joint_minutes=4,
    most_epochs={"pretrain": 80, "train": 12},
    warm_up=30,
    timed=60,
    side=8192,
    speed_texts=4096,
    llm_texts=512,
    medium={"hidden_dim": 768, "n_blocks": 12, "n_heads": 12},  # 85M without embeddings
    llm={  # the shape of Llama 3.1 8B
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256,
    },
    prefix=200,
    seeds=3,
    least_s=45,
    reserve_s=25,
)  # fmt: skip
SMOKE = Size(
    options={
        "hidden_dim": 32, "n_blocks": 1, "n_heads": 2, "cond_dim": 8, "window_tokens": 32,
        "overlap_tokens": 8, "batch_tokens": 1024, "embeddings": "random", "dtype": "float32",
    },
    pretrain_minutes=0.05,
    joint_minutes=0.05,
    most_epochs={"pretrain": 2, "train": 2},
    warm_up=1,
    timed=3,
    side=128,
    speed_texts=16,
    llm_texts=8,
    medium={"hidden_dim": 64, "n_blocks": 2, "n_heads": 2},
    llm={
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512,
    },
    prefix=4,
    seeds=2,
    least_s=0,
    reserve_s=0,
)  # fmt: skip
