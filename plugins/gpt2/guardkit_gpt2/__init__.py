"""GPT-2 as a text classifier, fine-tuned or from scratch: the ``gpt2`` family.

Hooks only; torch is imported when a model is trained or loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from guardkit import Classifier, ClassifierFamily, TrainingData, hookimpl
from guardkit_gpt2.config import PRESETS, Gpt2Options


@dataclass(frozen=True)
class Gpt2Family:
    """A classification head on GPT-2, or one GPT-2 per label compared by likelihood."""

    name: str = "gpt2"
    summary: str = "GPT-2 fine-tuned or from scratch: a head, or one language model per label"
    config: type[Gpt2Options] = Gpt2Options
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    builtin: Path | None = Path(__file__).parent / "models"
    checkpoint: str = "checkpoint.safetensors"

    def train(self, data: TrainingData, config: Gpt2Options, out: Path, **how: Any) -> Path:
        from guardkit_gpt2.training import train

        return train(data, config, out, **how)

    def load(self, path: Path, *, device: str, backend: str) -> Classifier:
        from guardkit_gpt2.scoring import load

        return load(path, device=device, backend=backend)


@hookimpl
def register_classifiers() -> Sequence[ClassifierFamily]:
    return [Gpt2Family()]
