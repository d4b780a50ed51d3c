"""Tensors of a safetensors file as NumPy arrays, bfloat16 among them; without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors called ``names``, bfloat16 widened to float32. No other is read."""
    with safe_open(path, "np") as checked:  # which checks the header and where each tensor lies
        arrays = {}
        for name in names:
            kind = checked.get_slice(name).get_dtype()
            arrays[name] = _wide(path, name) if kind == "BF16" else checked.get_tensor(name)
    return arrays


def _wide(path: Path, name: str) -> npt.NDArray[np.float32]:
    """NumPy has no bfloat16, which is the upper half of a float32."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: Mapping[str, Any] = json.loads(file.read(length))
        start, end = header[name]["data_offsets"]
        file.seek(8 + length + start)
        half = np.frombuffer(file.read(end - start), "<u2").reshape(header[name]["shape"])
    return (half.astype(np.uint32) << 16).view(np.float32)
