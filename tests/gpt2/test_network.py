"""The network against transformers' own forward, and the tokens it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from guardkit_gpt2.config import NetworkSpec
from guardkit_gpt2.network import (
    Network,
    batches_by_length,
    kept_config,
    pad,
    pretrained_lm,
    window_nll,
)
from guardkit_gpt2.tokenizer import START, TokenIds, encode_ids
from hypothesis import given
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel, GPT2Model

from guardkit import ConfigError, read_whole, train_bpe

CPU = torch.device("cpu")
WINDOWS: list[TokenIds] = [
    np.array(ids, np.int32) for ids in ([5, 9, 14, 3], [], [200, 31], [7] * 20)
]


def network_of(folder: Path, rule: Literal["head", "likelihood"], exponent: float = 0.5) -> Network:
    """Random heads, and language models that differ."""
    lm, _, start_token = pretrained_lm(str(folder), dropout=0.0)
    spec = NetworkSpec(
        rule=rule, n_labels=3, gpt2=kept_config(lm), start_token=start_token, window_tokens=24,
        overlap_tokens=6, length_exponent=exponent, language=True,
    )  # fmt: skip
    network = Network(lm, spec).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for number, own in enumerate(network.language_models):
            for parameter in own.parameters():
                parameter.add_(0.05 * number * torch.randn_like(parameter))
        if network.head is not None:
            network.head.weight.normal_()
            network.head.bias.normal_()
    return network


def test_head_logits_are_the_linear_head_on_the_mean_of_transformers_states(
    hub_folder: Path,
) -> None:
    network = network_of(hub_folder, "head")
    assert network.head is not None
    reference = GPT2Model.from_pretrained(hub_folder).train(False)
    with torch.no_grad():
        logits_BC = network(*pad(WINDOWS, 0, CPU)).logits_BC
        for ids, logits_C in zip(WINDOWS, logits_BC, strict=True):
            states_LD = reference(torch.tensor([[0, *ids]])).last_hidden_state[0]
            torch.testing.assert_close(logits_C, network.head(states_LD.mean(0)), atol=1e-4, rtol=0)


def test_window_nll_is_transformers_loss_times_the_tokens(hub_folder: Path) -> None:
    reference = GPT2LMHeadModel.from_pretrained(hub_folder).train(False)
    (lm,) = network_of(hub_folder, "head").language_models
    with torch.no_grad():
        nll_B = window_nll(lm, *pad(WINDOWS, 0, CPU))
        for ids, nll in zip(WINDOWS, nll_B, strict=True):
            tokens = torch.tensor([[0, *ids]])
            loss = reference(tokens, labels=tokens).loss * len(ids) if len(ids) else torch.tensor(0)
            assert float(nll) == pytest.approx(float(loss), abs=1e-3)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_likelihood_logits_compare_each_models_transformers_loss(
    hub_folder: Path, exponent: float
) -> None:
    network = network_of(hub_folder, "likelihood", exponent)
    with torch.no_grad():
        reading = network(*pad(WINDOWS, 0, CPU))
        for row, ids in enumerate(WINDOWS):
            if not len(ids):
                continue
            tokens = torch.tensor([[0, *ids]])
            log_p_C = torch.stack(
                [-lm(tokens, labels=tokens).loss * len(ids) for lm in network.language_models]
            )
            expected_C = (log_p_C - log_p_C.mean()) / len(ids) ** exponent
            torch.testing.assert_close(reading.logits_BC[row], expected_C, atol=1e-3, rtol=1e-4)
            mixture = torch.logsumexp(log_p_C, 0) - np.log(3)
            assert float(reading.nll_B[row]) == pytest.approx(-float(mixture), abs=1e-3)


def test_an_empty_window_tells_likelihoods_nothing(hub_folder: Path) -> None:
    reading = network_of(hub_folder, "likelihood")(*pad([WINDOWS[1]], 0, CPU))
    assert reading.logits_BC.abs().max() == 0


@pytest.mark.parametrize("rule", ["head", "likelihood"])
def test_padding_changes_nothing(hub_folder: Path, rule: Literal["head", "likelihood"]) -> None:
    network = network_of(hub_folder, rule)
    with torch.no_grad():
        together = network(*pad(WINDOWS, 0, CPU), language=True)
        for row, window in enumerate(WINDOWS):
            alone = network(*pad([window], 0, CPU), language=True)
            torch.testing.assert_close(
                together.logits_BC[row], alone.logits_BC[0], atol=1e-5, rtol=0
            )
            torch.testing.assert_close(together.nll_B[row], alone.nll_B[0], atol=1e-4, rtol=0)


def test_head_evidence_is_how_logits_change_as_a_token_fades(hub_folder: Path) -> None:
    network = network_of(hub_folder, "head").double()
    tokens_BL, lengths_B = pad(WINDOWS, 0, CPU)
    values_BLC = network.evidence(tokens_BL, lengths_B)
    (lm,) = network.language_models
    for position in range(4):

        def logits_with(scale: float, position: int = position) -> torch.Tensor:
            def fade(module: torch.nn.Module, given: Any, embedded: torch.Tensor) -> torch.Tensor:
                factor = torch.ones(embedded.shape[1], 1, dtype=embedded.dtype)
                factor[position] = scale
                return embedded * factor

            hook = lm.transformer.wte.register_forward_hook(fade)
            with torch.no_grad():
                logits_BC: torch.Tensor = network(tokens_BL, lengths_B).logits_BC
            hook.remove()
            return logits_BC

        slope_BC = (logits_with(1.01) - logits_with(0.99)) / 0.02
        torch.testing.assert_close(values_BLC[:, position], slope_BC, atol=1e-3, rtol=1e-2)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(64, 512))
def test_batches_hold_every_window_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = batches_by_length(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        assert len(group) == 1 or len(group) * (max(lengths[i] for i in group) + 1) <= budget


def test_the_start_token_cannot_be_written_in_a_text() -> None:
    tokenizer = train_bpe(
        ["some words to learn from"], vocab_size=300, lower_case=True, special_tokens=[START]
    )
    start = tokenizer.token_to_id(START)
    (ids,) = encode_ids(tokenizer, [f"before {START} after"])
    assert start not in ids
    assert tokenizer.decode(ids.tolist()) == f"before {START} after"


def test_any_text_is_read_whole() -> None:
    tokenizer = train_bpe(["plain ascii"], vocab_size=300, lower_case=False, special_tokens=[START])
    tokenizer.enable_truncation(4)
    read_whole(tokenizer)
    text = "Zürich 東京 \U0001f600\x00\n" * 20
    (ids,) = encode_ids(tokenizer, [text])
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text


def test_an_init_that_is_no_model_says_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded as GPT-2"):
        pretrained_lm(str(tmp_path), dropout=0.0)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="is a 'bert' model"):
        pretrained_lm(str(tmp_path), dropout=0.0)
