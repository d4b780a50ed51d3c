"""Which device and type a network runs on."""

from __future__ import annotations

import pytest
import torch

from guardkit import ConfigError, pick_device, pick_dtype


def test_auto_is_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda", 0)
    assert pick_device("cpu") == torch.device("cpu")


def test_each_process_of_torchrun_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device("cuda") == pick_device("auto") == torch.device("cuda", 3)


def test_a_device_that_is_not_there_is_named_with_what_to_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no CUDA device; use 'cpu' or 'auto'"):
        pick_device("cuda")
    with pytest.raises(ConfigError, match="'tpu'; allowed: auto, cpu, cuda"):
        pick_device("tpu")


def test_a_type_that_is_asked_for_is_taken() -> None:
    assert pick_dtype("float32", torch.device("cpu")) == torch.float32
    assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    expected = torch.bfloat16 if native else torch.float32
    assert pick_dtype("auto", torch.device("cpu")) == expected
