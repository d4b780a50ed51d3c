"""Masked diffusion language models as text classifiers: the ``mdlm`` family.

Hooks only; torch is imported when a model is trained or loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from guardkit import (
    Adapted,
    Classifier,
    ClassifierFamily,
    Examples,
    Progress,
    TrainingData,
    hookimpl,
)
from guardkit_mdlm.config import ENV_MASK_KEY, PRESETS, ImportConfig, MdlmConfig


@dataclass(frozen=True)
class MdlmFamily:
    """One class-conditional masked diffusion network for all labels."""

    name: str = "mdlm"
    summary: str = "class-conditional masked diffusion language model: one-pass and generative"
    config: type[MdlmConfig] = MdlmConfig
    import_config: type[ImportConfig] = ImportConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    builtin: Path | None = Path(__file__).parent / "models"
    data_parallel: bool = True
    checkpoint: str = "checkpoint.safetensors"
    environment: tuple[str, ...] = (ENV_MASK_KEY,)

    def train(self, data: TrainingData, config: MdlmConfig, out: Path, **how: Any) -> Path:
        from guardkit_mdlm.training.train import train

        return train(data, config, out, **how)

    def load(self, path: Path, *, device: str, backend: str) -> Classifier:
        from guardkit_mdlm.scoring import load

        return load(path, device=device, backend=backend)

    def scorers(self, folder: Path) -> Sequence[str]:
        from guardkit_mdlm.scorers import scorers_of

        return scorers_of(folder)

    def load_scorer(self, path: Path, scorer: str, **how: Any) -> Classifier:
        from guardkit_mdlm.scorers import load_scorer

        return load_scorer(path, scorer, **how)

    def adapt(self, base: Path, examples: Examples, out: Path, **how: Any) -> Adapted:
        from guardkit_mdlm.adaptation.adapt import adapt

        return adapt(base, examples, out, **how)

    def export(self, folder: Path, out: Path) -> None:
        from guardkit_mdlm.export import export_onnx

        export_onnx(folder, out)

    def import_checkpoints(
        self,
        checkpoints: Mapping[str, str],
        config: ImportConfig,
        out: Path,
        *,
        progress: Progress,
    ) -> Path:
        from guardkit_mdlm.weights.import_checkpoints import import_checkpoints

        return import_checkpoints(checkpoints, config, out, progress=progress)


@hookimpl
def register_classifiers() -> Sequence[ClassifierFamily]:
    return [MdlmFamily()]
