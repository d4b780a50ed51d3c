"""Public and old weights: the same outputs as the public code, and nothing of a pickle runs."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.weights.public_mdlm import load_denoiser

from guardkit import ArtefactError

from .test_model import REFERENCE, reference_net


class Config:
    """Stands for the configuration objects such checkpoints carry."""

    def __init__(self) -> None:
        self.content = {"a": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout of the hub's mdlm-owt."""
    shutil.copy(REFERENCE / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(
        '{"model_type": "mdlm", "n_heads": 3, "time_conditioning": false, "extra": 1}'
    )
    return tmp_path


def lightning(
    path: Path, prefix: str = "backbone.", net: Denoiser | None = None, **changes: Any
) -> Path:
    """Write a checkpoint as the public training code does; the averages are 2 x the weights."""
    net = net or reference_net()
    state = OrderedDict((prefix + n, p.detach()) for n, p in net.trunk.named_parameters())
    state[prefix + "rotary_emb.inv_freq"] = torch.ones(8)
    content = {
        "epoch": 1,
        "state_dict": state,
        "ema": {"decay": 0.9999, "shadow_params": [2 * p.detach() for p in net.parameters()]},
        "hyper_parameters": {"config": Config()},
    }
    torch.save(content | changes, path)
    return path


def test_a_hub_folder_gives_the_public_codes_logits(folder: Path) -> None:
    golden = np.load(REFERENCE / "golden.npz")
    denoiser = load_denoiser(folder)
    assert (denoiser.vocab_size, denoiser.mask_id) == (65, 64)
    logits = denoiser.logits(torch.from_numpy(golden["xt"]))
    np.testing.assert_allclose(logits.numpy(), golden["logits"], atol=1e-4)


def test_subs_gives_the_public_codes_log_probabilities(folder: Path) -> None:
    golden = np.load(REFERENCE / "golden.npz")
    noised_BL, ids_BL = torch.from_numpy(golden["xt"]), torch.from_numpy(golden["x0"])
    log_p_BLV = load_denoiser(folder).log_probs(noised_BL)
    log_p_BL = log_p_BLV.gather(-1, ids_BL[..., None])[..., 0]
    np.testing.assert_allclose(log_p_BL.numpy(), golden["log_p_x0"], atol=1e-4)
    torch.testing.assert_close(log_p_BLV.exp().sum(-1), torch.ones(noised_BL.shape))


@pytest.mark.parametrize("prefix", ["backbone.", "backbone.backbone."])
def test_a_lightning_checkpoint_gives_averaged_or_raw_weights(tmp_path: Path, prefix: str) -> None:
    path = lightning(tmp_path / "last.ckpt", prefix)
    raw, averaged = load_denoiser(path, weights="raw").net, load_denoiser(path).net
    assert raw.shape.n_heads == 3
    for name, parameter in reference_net().named_parameters():
        torch.testing.assert_close(raw.get_parameter(name), parameter)
        torch.testing.assert_close(averaged.get_parameter(name), 2 * parameter)


def test_averages_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt", ema={"shadow_params": [torch.zeros(1)]})
    with pytest.raises(ArtefactError, match="1 averaged weights do not match"):
        load_denoiser(path)
    path = lightning(tmp_path / "none.ckpt", ema=None)
    with pytest.raises(ArtefactError, match="weights='raw'"):
        load_denoiser(path)


def test_weights_without_conditioning_get_open_gates(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    plain = {n: t for n, t in tensors.items() if "adaLN" not in n}
    save_file(plain, folder / "model.safetensors")
    block = load_denoiser(folder).net.trunk.blocks[0]
    gates = block.adaLN_modulation.bias.view(6, -1).mean(1)
    assert gates.tolist() == [0, 0, 1, 0, 0, 1]


class Call:
    """A pickle of this calls ``function`` when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


PAYLOADS: list[Callable[[Path], Call]] = [
    lambda canary: Call(os.system, f"touch {canary}"),
    lambda canary: Call(eval, f"open({str(canary)!r}, 'w')"),
    lambda canary: Call(exec, f"import pathlib; pathlib.Path({str(canary)!r}).touch()"),
    lambda canary: Call(getattr, Call(__import__, "os"), "system"),
    lambda canary: Call(open, str(canary), "w"),
    lambda canary: Call(torch.save, {}, str(canary)),
]


@pytest.mark.parametrize("place", ["config", "state", "ema", "key"])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, place: str, payload: Any) -> None:
    canary = tmp_path / "canary"
    planted = payload(canary)
    changes: dict[str, Any] = {
        "config": {"hyper_parameters": planted},
        "state": {"callbacks": {"x": [planted]}},
        "ema": {"ema": planted},
        "key": {"loops": OrderedDict([("k", planted)])},
    }[place]
    path = lightning(tmp_path / "last.ckpt", **changes)
    load_denoiser(path, weights="raw")
    assert not canary.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x04N.", "older formats"),
        (b"", "older formats"),
        (b"PK\x05\x06" + b"\0" * 18, "cannot be read"),
    ],
)
def test_what_is_no_checkpoint_is_a_clear_error(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.ckpt"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match=message):
        load_denoiser(path)


def test_a_damaged_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    path = lightning(tmp_path / "last.ckpt")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "cut.ckpt", "w") as target:
        for item in source.namelist():
            data = source.read(item)
            target.writestr(item, data[: len(data) // 2] if item.endswith("data.pkl") else data)
    with pytest.raises(ArtefactError, match="cannot be read"):
        load_denoiser(tmp_path / "cut.ckpt")


def test_a_checkpoint_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such file"):
        load_denoiser(tmp_path / "absent.ckpt")


def test_what_the_hub_cannot_give_says_what_to_do() -> None:
    with pytest.raises(ArtefactError, match=r"Without a network, fetch config\.json"):
        load_denoiser("not/a/repository")


def test_a_checkpoint_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    torch.save({"weights": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ArtefactError, match="it holds weights"):
        load_denoiser(tmp_path / "other.ckpt")
