"""Which device a network runs on, and which type it computes in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from guardkit.errors import ConfigError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def pick_device(device: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` means; of several GPUs the one that
    ``torchrun`` gave this process. Raises ConfigError where there is no such device."""
    import torch

    cuda = torch.cuda.is_available()
    if device not in DEVICES:
        raise ConfigError(f"device {device!r}; allowed: {', '.join(DEVICES)}")
    if device == "cuda" and not cuda:
        raise ConfigError("device 'cuda': torch sees no CUDA device; use 'cpu' or 'auto'")
    if device == "cpu" or not cuda:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the type that ``auto``, ``float32`` or ``bfloat16`` means on ``device``; ``auto`` is
    bfloat16 where the machine multiplies it natively, else float32."""
    import torch

    if dtype != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32
