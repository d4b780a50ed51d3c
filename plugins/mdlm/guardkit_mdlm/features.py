"""What another model makes of a text, beside the label slot.

The other model is frozen and reads the whole text; all windows share what it says. Its features
are standardised over the training texts, and a linear map that starts at zero adds them to the
slot (``Denoiser.feature_map``).

Shape letters: N texts, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

from guardkit import ArtefactError, ConfigError, HasFeatures, Progress, chunks, load_model
from guardkit_mdlm.record import FeaturesRecord

FEATURES = "features.safetensors"
BUILTIN = "builtin:"
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TextFeatures:
    """Another model's features, (x - mean_F) / std_F. ``model`` is where it is, as ``load_model``
    takes it, and ``hash`` which one it must be."""

    reader: HasFeatures
    model: str
    hash: str
    mean_F: Float32
    std_F: Float32

    @property
    def size(self) -> int:
        return len(self.mean_F)

    def __call__(self, texts: Sequence[str]) -> Float32:
        """Return standardised features_NF."""
        return self.standardised(self.reader.features(texts))

    def standardised(self, raw_NF: Float32) -> Float32:
        return (raw_NF - self.mean_F) / self.std_F

    @property
    def record(self) -> FeaturesRecord:
        return FeaturesRecord(model=self.model, hash=self.hash)

    def save(self, folder: Path) -> None:
        save_file({"mean_F": self.mean_F, "std_F": self.std_F}, folder / FEATURES)


def learn_features(
    reference: str, texts: Sequence[str], *, device: str, progress: Progress
) -> tuple[TextFeatures, Float32]:
    """Return the features of the model ``reference``, standardised over ``texts``, and theirs."""
    if not reference.startswith(BUILTIN):  # the artefact may be read from anywhere
        reference = str(Path(reference).expanduser().absolute())
    reader, digest = _open(reference, device)
    raw_NF = np.concatenate([reader.features(c) for c in chunks(texts, "features", progress)])
    std_F = raw_NF.std(axis=0)
    std_F[std_F < 1e-6] = 1.0  # a feature that never changes says nothing
    features = TextFeatures(reader, reference, digest, raw_NF.mean(axis=0), std_F)
    return features, features.standardised(raw_NF)


def load_features(folder: Path, record: FeaturesRecord, *, device: str) -> TextFeatures:
    """Return the features that the artefact ``folder`` was trained with.

    A model that is no longer where it was is looked for beside ``folder``. Raises ArtefactError
    where it is not found or is another one.
    """
    reference = record.model
    beside = folder.parent / Path(reference).name
    if not reference.startswith(BUILTIN) and not Path(reference).is_dir() and beside.is_dir():
        reference = str(beside)
    try:
        reader, digest = _open(reference, device)
    except ArtefactError as error:
        raise ArtefactError(
            f"{folder}: reads the features of another model, which cannot be loaded: {error}. Put "
            f"it back, or beside this one as {beside}"
        ) from error
    if digest != record.hash:
        raise ArtefactError(
            f"{folder}: was trained on the features of a model with hash {record.hash[:12]}, "
            f"but {reference} has {digest[:12]}; put the one it was trained with back, or beside "
            f"this one as {beside}"
        )
    tensors = load_file(folder / FEATURES)
    return TextFeatures(reader, reference, digest, tensors["mean_F"], tensors["std_F"])


def _open(reference: str, device: str) -> tuple[HasFeatures, str]:
    model = load_model(reference, device=device)
    if not isinstance(model.classifier, HasFeatures):
        raise ConfigError(
            f"features {reference!r}: family {model.config.family!r} gives no features; name a "
            "model of a family that does, such as gpt2"
        )
    return model.classifier, model.hash
