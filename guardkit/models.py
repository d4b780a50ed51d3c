"""A classifier with its calibration, found by name and loaded from an artefact."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from guardkit import artefact
from guardkit.artefact import ArtefactConfig
from guardkit.backends import MODEL
from guardkit.calibrate import Calibration, read_calibration
from guardkit.errors import ArtefactError, ClassifierError, PluginError
from guardkit.plugins import Plugins, installed_plugins
from guardkit.types import (
    BoolArray,
    Classifier,
    Evidence,
    Exporting,
    FloatArray,
    IntArray,
    RawScores,
)

BUILTIN = "builtin:"


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model made of N texts. Rows of ``logits_NC`` that failed are NaN, with the reason
    in ``errors`` by position."""

    logits_NC: FloatArray
    tokens_N: IntArray
    windows_N: IntArray
    truncated_N: BoolArray
    errors: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Work:
    """What a model has done since it was loaded; ``seconds`` are those spent scoring."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0

    def since(self, earlier: Work) -> Work:
        return Work(
            self.texts - earlier.texts,
            self.tokens - earlier.tokens,
            self.truncated - earlier.truncated,
            self.seconds - earlier.seconds,
        )


@dataclass(frozen=True)
class Model:
    """A loaded artefact. Where ``calibration`` is None it can give no probability."""

    classifier: Classifier
    config: ArtefactConfig
    calibration: Calibration | None
    hash: str
    path: Path
    work: Work = field(default_factory=Work, compare=False, repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config.labels)

    def score(self, texts: Sequence[str]) -> Scored:
        """Score N texts; one that cannot be scored fails alone, whatever its batch."""
        begun = time.perf_counter()
        scored = self._score(texts)
        self.work.seconds += time.perf_counter() - begun
        self.work.texts += len(texts)
        self.work.tokens += int(scored.tokens_N.sum())
        self.work.truncated += int(scored.truncated_N.sum())
        return scored

    def _score(self, texts: Sequence[str]) -> Scored:
        if not texts:
            return _nothing(len(self.labels))
        try:
            return _checked(self.classifier.score(texts), len(texts), len(self.labels))
        except Exception as error:  # recorded per text below; never swallowed
            if len(texts) == 1:
                return _failed(f"{type(error).__name__}: {error}", len(self.labels))
        # an exception for the batch: find whose it is, so that neighbours do not suffer
        half = len(texts) // 2
        return _joined(self._score(texts[:half]), self._score(texts[half:]))

    def calibrated(self) -> Calibration:
        """Return the calibration, or say how to get one."""
        if self.calibration is None:
            raise ArtefactError(
                f"{self.path}: has no {artefact.CALIBRATION}, so it gives no probabilities; "
                "`guardkit train` fits one at its end, `guardkit models import` on the text that "
                "--calibration-data names"
            )
        return self.calibration

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Return calibrated probabilities_NC, columns in the order of ``labels``.

        multiclass rows sum to 1. Raises ClassifierError where a text cannot be scored.
        """
        scored = self.score(list(texts))
        for index, reason in scored.errors.items():
            raise ClassifierError(f"{self.path}: text {index}: {reason}")
        return self.calibrated().probabilities_NC(scored.logits_NC)

    def explain(self, text: str) -> Evidence:
        """Return what each token of ``text`` adds to each label's logit."""
        evidence = self.classifier.score([text], evidence=True).evidence
        if not evidence:
            raise ClassifierError(f"{self.path}: {self.config.family} gives no evidence")
        return evidence[0]


def find_model(ref: str, *, family: str | None, base: Path, plugins: Plugins) -> Path:
    """Return the folder ``ref`` means: a path from ``base``, or a bundled model.

    ``builtin:NAME`` is ``family``'s; without a family, ``builtin:FAMILY/NAME`` says whose, and
    a NAME that only one family has needs no more.
    """
    if not ref.startswith(BUILTIN):
        return (base / Path(ref).expanduser()).resolve()
    owner, _, name = ref.removeprefix(BUILTIN).rpartition("/")
    families = [plugins.family(f) for f in (family, owner) if f] or plugins.families.values()
    bundled = [
        folder
        for f in families
        if f.builtin and f.builtin.is_dir()
        for folder in sorted(f.builtin.iterdir())
        if folder.is_dir()
    ]
    found = [folder for folder in bundled if folder.name == name]
    if len(found) == 1 and not (family and owner):
        return found[0]
    owned = sorted(
        f"{BUILTIN}{f.name}/{folder.name}"
        for f in families
        for folder in bundled
        if folder.parent == f.builtin
    )
    problem = "more than one family has it" if len(found) > 1 else "no such bundled model"
    raise ArtefactError(f"{ref}: {problem}; bundled: {', '.join(owned) or 'none'}")


def load_model(
    ref: str | Path,
    *,
    family: str | None = None,
    base: Path | None = None,
    device: str = "auto",
    backend: str = "torch",
    allow_unverified: bool = False,
    plugins: Plugins | None = None,
) -> Model:
    """Load a model by folder or ``builtin:NAME``, its hashes verified.

    ``device`` is ``auto``, ``cpu`` or ``cuda``; ``allow_unverified`` skips the hashes, for a
    model being made. Raises ArtefactError or PluginError.
    """
    plugins = plugins or installed_plugins()
    path = find_model(str(ref), family=family, base=base or Path.cwd(), plugins=plugins)
    config = artefact.read_config(path)
    if family is not None and config.family != family:
        raise ArtefactError(f"{path}: made by plugin {config.family!r}, asked for as {family!r}")
    digest = "unverified" if allow_unverified else artefact.verify(path)
    calibration = None
    if (path / artefact.CALIBRATION).is_file():
        calibration = read_calibration(path / artefact.CALIBRATION)
        if calibration.labels != config.labels:
            raise ArtefactError(
                f"{path}: calibrated for labels {calibration.labels}, not {config.labels}"
            )
    classifier = plugins.family(config.family).load(path, device=device, backend=backend)
    if classifier.labels != tuple(config.labels):
        raise ArtefactError(
            f"{path}: plugin {config.family!r} gives labels {classifier.labels}, "
            f"config.json says {tuple(config.labels)}"
        )
    return Model(classifier, config, calibration, digest, path)


def export_model(ref: str | Path, out: Path, *, plugins: Plugins | None = None) -> Path:
    """Copy a model to ``out`` with its network as ``model.onnx`` beside the weights.

    ``backend="onnx"`` then runs it. Raises ArtefactError, or PluginError where the family
    exports nothing.
    """
    plugins = plugins or installed_plugins()
    folder = find_model(str(ref), family=None, base=Path.cwd(), plugins=plugins)
    artefact.verify(folder)
    family = plugins.family(artefact.read_config(folder).family)
    if not isinstance(family, Exporting):
        raise PluginError(f"{folder}: plugin {family.name!r} cannot export its models")
    if out.exists():
        raise ArtefactError(f"{out}: exists already; choose another --out or remove it")
    with TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as work:
        copy = Path(work) / out.name
        shutil.copytree(folder, copy)
        (copy / artefact.SUMS).unlink()
        family.export(folder, copy / MODEL)
        artefact.publish(copy, out)
    return out


def texts_hash(texts: Sequence[str], labels: Sequence[str] = ()) -> str:
    """Return the SHA-256 of texts (and labels), the same however they are stored."""
    digest = hashlib.sha256()
    for part in (texts, labels):
        digest.update(f"{len(part)}\n".encode())
        for text in part:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def _checked(raw: RawScores, n: int, n_labels: int) -> Scored:
    """Refuse wrong shapes; turn non-finite rows into failures. A score is finite or no score."""
    logits_NC = np.asarray(raw.logits_NC, np.float32)
    if logits_NC.shape != (n, n_labels):
        raise ClassifierError(f"logits of shape {logits_NC.shape}, expected {(n, n_labels)}")
    for name in ("tokens_N", "windows_N", "truncated_N"):
        if (shape := np.shape(getattr(raw, name))) != (n,):
            raise ClassifierError(f"{name} of shape {shape}, expected {(n,)}")
    bad_N = np.flatnonzero(~np.isfinite(logits_NC).all(axis=1))
    errors = {int(i): "the classifier returned a value that is not finite" for i in bad_N}
    if errors:
        logits_NC = logits_NC.copy()
        logits_NC[bad_N] = np.nan
    return Scored(
        logits_NC,
        np.asarray(raw.tokens_N, np.int64),
        np.asarray(raw.windows_N, np.int64),
        np.asarray(raw.truncated_N, bool),
        errors,
    )


def _nothing(n_labels: int) -> Scored:
    none = np.zeros(0, np.int64)
    return Scored(np.zeros((0, n_labels), np.float32), none, none, np.zeros(0, bool))


def _failed(reason: str, n_labels: int) -> Scored:
    nothing = np.zeros(1, np.int64)
    nan = np.full((1, n_labels), np.nan, np.float32)
    return Scored(nan, nothing, nothing, np.zeros(1, bool), {0: reason})


def _joined(first: Scored, second: Scored) -> Scored:
    n = len(first.tokens_N)
    return Scored(
        np.concatenate([first.logits_NC, second.logits_NC]),
        np.concatenate([first.tokens_N, second.tokens_N]),
        np.concatenate([first.windows_N, second.windows_N]),
        np.concatenate([first.truncated_N, second.truncated_N]),
        {**first.errors, **{n + i: reason for i, reason in second.errors.items()}},
    )
