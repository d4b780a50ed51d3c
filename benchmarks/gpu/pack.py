"""Tokenised reviews in one small file: 16-bit ids, packed by LZMA, no pickle.

Read on a machine that has neither the data set nor a way to fetch it.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save
from tokenizers import Tokenizer

TokenIds = npt.NDArray[np.int32]
TOKENS = "tokens.xz"
#: Two-byte values: position and literal contexts say which of the two a byte is.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lp": 1, "pb": 1, "lc": 3}]


@dataclass(frozen=True)
class TokenSet:
    """N texts as token ids; ``labels_N`` is -1 where there is none."""

    ids: Sequence[TokenIds]
    labels_N: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Packed:
    """Every set of a data set by name (train, validation, calibration, test, unlabelled)."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sets: dict[str, TokenSet]
    about: dict[str, Any]


def write(path: Path, packed: Packed) -> None:
    """Write one file, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    for name, part in packed.sets.items():
        ids = np.concatenate([*part.ids, np.zeros(0, np.int32)])
        if ids.max(initial=0) >= 2**16:
            raise ValueError(f"{name}: token id {ids.max()} does not fit 16 bits")
        arrays[f"{name}.ids"] = ids.astype("<u2")
        arrays[f"{name}.lengths"] = np.array([len(i) for i in part.ids], "<u4")
        arrays[f"{name}.labels"] = part.labels_N.astype(np.int8)
    metadata = {
        "tokenizer": packed.tokenizer.to_str(),
        "labels": json.dumps(packed.labels),
        "about": json.dumps(packed.about),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(lzma.compress(save(arrays, metadata), filters=FILTERS))
    temporary.replace(path)


def read(path: Path) -> Packed:
    data = lzma.decompress(path.read_bytes())
    arrays = load(data)
    metadata = _metadata(data)
    names = [name.removesuffix(".lengths") for name in arrays if name.endswith(".lengths")]
    sets = {}
    for name in names:
        ends = np.cumsum(arrays[f"{name}.lengths"].astype(np.int64))
        ids = np.split(arrays[f"{name}.ids"].astype(np.int32), ends[:-1]) if len(ends) else []
        sets[name] = TokenSet(ids, arrays[f"{name}.labels"].astype(np.int64))
    return Packed(
        Tokenizer.from_str(metadata["tokenizer"]),
        tuple(json.loads(metadata["labels"])),
        sets,
        json.loads(metadata["about"]),
    )


def _metadata(data: bytes) -> dict[str, str]:
    """Return what ``safetensors.numpy.load`` leaves out: 8 bytes of length, then JSON."""
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata
