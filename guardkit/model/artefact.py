"""A trained model on disk: written in one step, verified by hash, read without pickle.

    config.json  model.safetensors  tokenizer.json  calibration.json  novelty.json  metrics.json
    README.md (model card)  SHA256SUMS

A family writes ``config.json``, weights and what else it needs; core adds the rest, seals
the folder with ``SHA256SUMS`` and renames it into place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardkit.bounds import check_model_file
from guardkit.errors import ArtefactError, ConfigError, first_mistake
from guardkit.files import flush_to_disk, write_atomically
from guardkit.text.readings import Reading
from guardkit.types import Pooling, Task

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CALIBRATION = "calibration.json"
NOVELTY = "novelty.json"
METRICS = "metrics.json"
CARD = "README.md"
SUMS = "SHA256SUMS"
#: Formats that hold data and never code. Anything else in an artefact is refused.
SAFE_SUFFIXES = frozenset({".json", ".safetensors", ".onnx", ".md", ".txt"})
#: Label names, in upper or lower case, that mean: nothing was found.
NEUTRAL_NAMES = frozenset({"benign", "safe", "ham", "normal", "none", "clean"})


class ArtefactConfig(BaseModel):
    """``config.json``: what every family's artefact says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    family: str = Field(description="the classifier family that can load it")
    task: Task = "multiclass"
    labels: list[str] = Field(min_length=1, description="in the order of the logits")
    neutral: str | None = Field(default=None, description="the label that means: nothing found")
    window_pooling: Pooling = "mean"
    also_read: list[Reading] = Field(
        default=[],
        description="readings of a text that are scored beside it; each label's largest lead "
        "over the neutral one stands",
    )
    network: dict[str, Any] = Field(description="what the family needs to rebuild the network")
    training: dict[str, Any] = Field(default_factory=dict, description="how it was trained")

    @model_validator(mode="after")
    def _consistent(self) -> ArtefactConfig:
        if self.task == "multiclass" and len(self.labels) < 2:
            raise ValueError(f"labels that exclude each other are two at least, not {self.labels}")
        if len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels repeat: {self.labels}")
        if self.neutral is not None and self.neutral not in self.labels:
            raise ValueError(f"neutral {self.neutral!r} is not among the labels {self.labels}")
        if self.window_pooling == "max" and self.neutral is None:
            raise ValueError("window_pooling 'max' needs a neutral label")
        if self.also_read and self.window_pooling != "max":
            raise ValueError("also_read needs window_pooling 'max': the worst reading stands")
        return self

    @property
    def neutral_index(self) -> int | None:
        return None if self.neutral is None else self.labels.index(self.neutral)


def choose_pooling(
    labels: Sequence[str], neutral: str | None, pooling: Literal["auto", "mean", "max"]
) -> tuple[Pooling, str | None]:
    """Return how a text's windows are pooled, and its neutral label if it has one.

    Without ``neutral``, the one label named benign, safe, ham, normal, none or clean is it.
    ``auto`` is ``max`` where there is a neutral label (one window's payload decides), else
    ``mean`` (the whole text carries the label). Raises ConfigError.

    >>> choose_pooling(["benign", "injection"], None, "auto")
    ('max', 'benign')
    """
    if neutral is None:
        named = [label for label in labels if label.casefold() in NEUTRAL_NAMES]
        neutral = named[0] if len(named) == 1 else None
    elif neutral not in labels:
        raise ConfigError(f"neutral {neutral!r} is not a label; allowed: {', '.join(labels)}")
    if pooling == "auto":
        return ("mean" if neutral is None else "max"), neutral
    if pooling == "max" and neutral is None:
        raise ConfigError(
            "window_pooling 'max' compares every label with a neutral one; set neutral to one of "
            f"{', '.join(labels)}, or window_pooling to 'mean'"
        )
    return pooling, neutral


def write_json(path: Path, value: BaseModel | Mapping[str, Any]) -> None:
    """Write ``value`` as readable JSON, keys in the order given."""
    data = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def read_config(folder: Path) -> ArtefactConfig:
    """Read ``config.json`` alone: cheap, no weights, no hashes."""
    path = folder / CONFIG
    if not path.is_file():
        there = "no such folder" if not folder.is_dir() else f"it has no {CONFIG}"
        raise ArtefactError(f"{folder}: not a guardkit model: {there}")
    check_model_file(path)
    try:
        return ArtefactConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtefactError(f"{path}: {first_mistake(error)}") from error


def seal(folder: Path) -> None:
    """Write ``SHA256SUMS`` over every file of ``folder`` (the format of ``sha256sum``)."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
    write_atomically(folder / SUMS, "".join(lines).encode())


def verify(folder: Path) -> str:
    """Check every file against ``SHA256SUMS`` and return the hash that stands for the model.

    A file changed, missing, added, linked, too large or of a format that can hold code is refused.
    """
    sums = folder / SUMS
    if not folder.is_dir():
        raise ArtefactError(
            f"{folder}: no such folder. Name the folder of a model, as guardkit train writes it, "
            "or a bundled one: see guardkit models list"
        )
    if not sums.is_file():
        raise ArtefactError(
            f"{folder}: no {SUMS}; it is no model's folder, or the model is incomplete. Python's "
            "load_model(..., allow_unverified=True) loads it even so"
        )
    check_model_file(sums)
    lines = (
        line.partition("  ") for line in sums.read_text("utf-8", "replace").splitlines() if line
    )
    listed = {name: digest for digest, _, name in lines}
    present = set(_files(folder))
    if odd := sorted(present ^ listed.keys()):
        where = "in the folder but not in" if odd[0] in present else "missing, though listed in"
        raise ArtefactError(f"{folder / odd[0]}: {where} {SUMS}")
    for name, expected in listed.items():
        if _sha256(folder / name) != expected:
            raise ArtefactError(
                f"{folder / name}: its SHA-256 is not the one in {SUMS}; the file was changed or "
                "damaged. Take a fresh copy of the model"
            )
    return model_hash(folder)


def check_layout(folder: Path, *, besides: Sequence[str] = ()) -> None:
    """Raise ArtefactError where ``folder`` holds what no model may, ``besides`` not looked at."""
    _files(folder, besides)


def state(folder: Path) -> list[tuple[str, int, int, int, int]]:
    """Return what tells, without reading them, whether any of the folder's files was changed."""
    found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    return [(name, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for name, s in found]


def model_hash(folder: Path) -> str:
    """Return the SHA-256 of ``SHA256SUMS``: one value for the model and its calibration."""
    return _sha256(folder / SUMS)


def refuse_to_replace(out: Path) -> None:
    """Raise ArtefactError where there is a folder ``out`` already."""
    if out.exists():
        raise ArtefactError(f"{out}: exists already; choose another --out or remove it")


@contextmanager
def workspace(out: Path) -> Iterator[Path]:
    """Yield a new folder on the disk of ``out`` to make a model in, for ``publish`` to move; what
    is left of it goes at the end."""
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=parent, prefix=f".{out.name}.") as work:
        folder = Path(work) / out.name
        folder.mkdir()
        yield folder


def publish(folder: Path, out: Path) -> None:
    """Seal ``folder`` and rename it to ``out``; both are on disk when this returns.

    A model that is there already is replaced. Raises ArtefactError where anything else is: nothing
    but sealed models is ever removed.
    """
    old = out.with_name(f".{out.name}.old")
    for path in (out, old):
        if os.path.lexists(path) and not _is_sealed(path):
            raise ArtefactError(f"{path}: is in the way, and is no model; move it away")
    seal(folder)
    for path in [*folder.iterdir(), folder]:
        # safetensors writes for its owner alone; a model is read by whoever reads the folder
        path.chmod(path.stat().st_mode | (folder.stat().st_mode & 0o044))
        flush_to_disk(path)
    if out.exists():  # sealed models are replaced whole, never mixed
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    folder.rename(out)
    flush_to_disk(out.parent)
    shutil.rmtree(old, ignore_errors=True)  # also what a crash between the renames left


def _is_sealed(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and (path / SUMS).is_file()


def _files(folder: Path, besides: Sequence[str] = ()) -> list[str]:
    names = []
    for path in sorted(folder.iterdir()):
        if path.name in besides:
            continue
        if path.is_symlink() or not path.is_file():
            raise ArtefactError(
                f"{path}: a model holds plain files only, no links or folders; what makes the "
                "model must put its files beside config.json"
            )
        if path.name == SUMS:
            continue
        if path.suffix not in SAFE_SUFFIXES:
            raise ArtefactError(
                f"{path}: files ending in {path.suffix!r} may hold code and are never loaded; "
                f"allowed: {', '.join(sorted(SAFE_SUFFIXES))}"
            )
        check_model_file(path)
        names.append(path.name)
    return names


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
