"""Weights of the public MDLM code: hub folders and old Lightning checkpoints, read safely.

    (a) a folder or hub id laid out as kuleshov-group/mdlm-owt: config.json, model.safetensors
    (b) a Lightning .ckpt of that code or of bd3lms: ``state_dict`` (raw weights), ``ema``
        (``shadow_params``, a list in the order of the parameters)

A .ckpt is a pickle, and this one holds OmegaConf and tokenizer objects, so that torch's own
``weights_only`` refuses it. Here every name outside a short list becomes an inert stand-in:
whatever a pickle asks to be called, nothing runs.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import types
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch._utils
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from guardkit import ArtefactError
from guardkit_mdlm.model import TRUNK, Denoiser
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.weights.hub import from_hub

Weights = Literal["ema", "raw"]
PREFIX = "backbone."
ROTARY = "rotary_emb.inv_freq"  # a buffer: computed anew, but its length tells the head's width
_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}


@dataclass(frozen=True)
class LoadedDenoiser:
    """A plain masked diffusion language model, without classes."""

    net: Denoiser

    @property
    def vocab_size(self) -> int:
        return self.net.shape.vocab_size

    @property
    def mask_id(self) -> int:
        return self.net.shape.mask_id

    @torch.no_grad()
    def logits(self, ids_BL: Tensor) -> Tensor:
        """Return the network's raw logits_BLV, before SUBS."""
        null_B = torch.zeros(len(ids_BL), dtype=torch.long, device=ids_BL.device)
        _, x_BLD = self.net(ids_BL, null_B, torch.ones_like(ids_BL, dtype=torch.bool))
        B, L, _ = x_BLD.shape
        logits_NV = self.net.token_logits(x_BLD.flatten(0, 1), null_B.repeat_interleave(L))
        return logits_NV.view(B, L, -1)

    def log_probs(self, ids_BL: Tensor) -> Tensor:
        """Return log p(x0 | ids)_BLV under SUBS (Sahoo 2024, 3.2.3), float32: MASK has
        probability 0, and a token that is visible is certain."""
        logits_BLV = self.logits(ids_BL).float()
        logits_BLV[..., self.mask_id] = -torch.inf
        log_p_BLV = logits_BLV.log_softmax(-1)
        seen_BL = ids_BL != self.mask_id
        certain_BLV = torch.full_like(log_p_BLV, -torch.inf).scatter_(-1, ids_BL[..., None], 0.0)
        return torch.where(seen_BL[..., None], certain_BLV, log_p_BLV)


def load_denoiser(path: str | Path, *, weights: Weights = "ema") -> LoadedDenoiser:
    """Load public weights from a folder, a hub id or a ``.ckpt`` file.

    ``weights`` picks the averaged or the last raw weights of a ``.ckpt``; a folder holds one
    set. Raises ArtefactError that says what was found instead.
    """
    path = Path(path)
    if path.suffix == ".ckpt":
        tensors = _read_lightning(path, weights)
        n_heads = None
    else:
        folder = path if path.is_dir() else from_hub(str(path), ["config.json", "*.safetensors"])
        tensors, n_heads = _read_folder(folder)
    return LoadedDenoiser(_build(tensors, n_heads, str(path)))


def _read_folder(folder: Path) -> tuple[dict[str, Tensor], int | None]:
    file = folder / "model.safetensors"
    try:
        tensors = load_file(file)
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, SafetensorError, ValueError) as error:
        raise ArtefactError(f"{folder}: not a folder of MDLM weights: {error}") from error
    if config.get("time_conditioning"):
        raise ArtefactError(f"{folder}: was trained with time_conditioning, which MDLM is without")
    return {_plain(name): tensor for name, tensor in tensors.items()}, config.get("n_heads")


def _read_lightning(path: Path, weights: Weights) -> dict[str, Tensor]:
    content = _unpickle(path)
    state = content.get("state_dict")
    if not isinstance(state, Mapping):
        raise ArtefactError(f"{path}: has no state_dict; it holds {', '.join(map(str, content))}")
    raw = {_plain(n): t for n, t in state.items() if isinstance(t, Tensor) and PREFIX in str(n)}
    if weights == "raw":
        return raw
    ema = content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(shadow, list):
        raise ArtefactError(f"{path}: holds no averaged weights; take weights='raw'")
    names = [name for name in raw if name != ROTARY]
    odd = [
        f"{name} {tuple(raw[name].shape)} beside {tuple(average.shape)}"
        for name, average in zip(names, shadow, strict=False)
        if not isinstance(average, Tensor) or average.shape != raw[name].shape
    ]
    if len(names) != len(shadow) or odd:
        raise ArtefactError(
            f"{path}: {len(shadow)} averaged weights do not match {len(names)} parameters"
            + (f": {odd[0]}" if odd else "")
        )
    return raw | dict(zip(names, shadow, strict=True))


def _plain(name: object) -> str:
    """Strip ``backbone.``, twice where the network was trained inside a hub wrapper."""
    return str(name).removeprefix(PREFIX).removeprefix(PREFIX)


def _build(tensors: dict[str, Tensor], n_heads: int | None, where: str) -> Denoiser:
    rotary = tensors.pop(ROTARY, None)
    try:
        vocab_size, hidden_dim = tensors["vocab_embed.embedding"].shape
        cond_dim = tensors["sigma_map.mlp.2.weight"].shape[0]
    except (KeyError, ValueError) as error:
        raise ArtefactError(f"{where}: has no {error}; not MDLM weights") from error
    n_blocks = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
    if n_heads is None:
        n_heads = hidden_dim // (64 if rotary is None else 2 * len(rotary))
    net = Denoiser(
        NetworkShape(
            vocab_size=vocab_size,
            hidden_dim=hidden_dim,
            cond_dim=cond_dim,
            n_blocks=n_blocks,
            n_heads=n_heads,
        )
    )
    expected = {name.removeprefix(TRUNK): value for name, value in net.state_dict().items()}
    _open_gates_where_unconditioned(tensors, expected)
    wrong = sorted(expected.keys() ^ tensors.keys())
    wrong += [n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape]
    if wrong:
        raise ArtefactError(f"{where}: weights missing, unknown or of another shape: {wrong[:5]}")
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net.eval()


def _open_gates_where_unconditioned(
    tensors: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Fill in the conditioning of weights trained without: shift 0, scale 0, gates 1."""
    if any("adaLN" in name for name in tensors):
        return
    for name, value in expected.items():
        if "adaLN" in name:
            tensors[name] = torch.zeros_like(value)
            if name.startswith("blocks.") and name.endswith("bias"):
                parts = tensors[name].view(6, -1)
                parts[2] = parts[5] = 1.0


def _unpickle(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise ArtefactError(f"{path}: no such file")
    try:
        if not zipfile.is_zipfile(path):
            raise ArtefactError(
                f"{path}: not a checkpoint of torch 1.6 or later (a zip file); older formats "
                "cannot be read safely"
            )
        # mapped, not read: of a checkpoint's tensors two thirds are the optimiser's
        content = torch.load(
            path, map_location="cpu", mmap=True, pickle_module=_inert_pickle(), weights_only=False
        )
    except ArtefactError:
        raise
    except Exception as error:  # a hostile or damaged pickle can fail in any way
        raise ArtefactError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(content, Mapping):
        raise ArtefactError(f"{path}: holds a {type(content).__name__}, not a checkpoint")
    return content


class _Inert:
    """Stands for any object a checkpoint names: takes everything, does nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __call__(self, *args: object, **kwargs: object) -> _Inert:
        return self

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _ALLOWED.get((module, name), _Inert)


def _inert_pickle() -> types.ModuleType:
    """Return a stand-in for the pickle module, as ``torch.load`` takes one."""
    module = types.ModuleType("inert_pickle")
    module.Unpickler = _InertUnpickler  # type: ignore[attr-defined]
    module.load = lambda file, **_: _InertUnpickler(file).load()  # type: ignore[attr-defined]
    module.loads = lambda data, **_: _InertUnpickler(io.BytesIO(data)).load()  # type: ignore[attr-defined]
    return module
