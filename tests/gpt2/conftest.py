"""Toy data and one toy model of each rule, trained once per test run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from guardkit_gpt2 import Gpt2Family
from guardkit_gpt2.config import Gpt2Options
from guardkit_gpt2.tokenizer import START
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from guardkit import TrainingData, train_bpe
from tests.gpt2.toy import ATTACK, PLAIN, TOY, Train, examples, never_interrupt, texts_of


@pytest.fixture(scope="session")
def data() -> TrainingData:
    return TrainingData(examples(24, seed=1), examples(10, seed=5))


@pytest.fixture(scope="session")
def train(data: TrainingData) -> Train:
    """Train on the toy data: ``train(out, progress=..., resume=..., **options)``."""

    def run(out: Path, *, data: TrainingData = data, **given: Any) -> Path:
        own = {
            "pretrain": None, "init": None, "resume": False, "device": "cpu",
            "progress": never_interrupt,
        }  # fmt: skip
        arguments = {name: given.pop(name, default) for name, default in own.items()}
        out.mkdir(parents=True, exist_ok=True)
        options = Gpt2Options.model_validate({**TOY, **given})
        return Gpt2Family().train(data, options, out, **arguments)

    return run


@pytest.fixture(scope="session", params=["head", "likelihood"])
def artefact(
    request: pytest.FixtureRequest, train: Train, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return train(tmp_path_factory.mktemp(request.param), rule=request.param)


@pytest.fixture(scope="session")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 and its tokenizer in Hugging Face layout, as the hub would give them."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-gpt2"
    tokenizer = train_bpe(
        texts_of(PLAIN + ATTACK, 40, 3), vocab_size=320, lower_case=False, special_tokens=[START]
    )
    fast = {"tokenizer_object": tokenizer, "bos_token": START, "eos_token": START}
    PreTrainedTokenizerFast(**fast).save_pretrained(folder)  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    shape = GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_positions=32, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(shape).save_pretrained(folder)
    return folder
