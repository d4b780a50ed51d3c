"""A classifier family that looks its logits up in a table, and artefact folders for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pluggy
from pydantic import BaseModel

from guardkit import hookspecs
from guardkit.calibration.maps import Calibration, calibration_file
from guardkit.model.artefact import CALIBRATION, CONFIG, NOVELTY, ArtefactConfig, seal, write_json
from guardkit.model.novelty import Novelty, novelty_file
from guardkit.plugins import Plugin, Plugins
from guardkit.types import RawScores, Task

Logits = Sequence[float]
#: What pyo3 raises where a library in Rust panics.
Panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


class FakeClassifier:
    def __init__(self, family: FakeFamily, name: str, labels: tuple[str, ...]) -> None:
        self.family, self.id, self.labels = family, name, labels

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        self.family.calls.append((self.id, list(texts)))
        rows = [self.family.logits_of(self.id, text) for text in texts]
        ones = np.ones(len(texts), np.int64)
        windows_N = np.full(len(texts), self.family.windows)
        cut = np.array(["CUT" in text or f"UNREAD:{self.id}" in text for text in texts], bool)
        strange_N = None
        if novelty and self.family.novelty is not None:
            strange_N = np.array([self.family.novelty(self.id, text) for text in texts], np.float32)
        return RawScores(np.array(rows, np.float32), ones, windows_N, cut, strange_N)


class FakeFamily:
    """``logits_of(model, text)`` gives a model's logits, or raises; ``novelty`` likewise a text's
    novelty, of any length."""

    summary = "answers from a table"
    config = BaseModel
    presets: Mapping[str, Mapping[str, Any]] = {}

    def __init__(
        self,
        logits_of: Callable[[str, str], Logits],
        name: str = "fake",
        builtin: Path | None = None,
        novelty: Callable[[str, str], float] | None = None,
    ) -> None:
        self.logits_of, self.name, self.builtin, self.novelty = logits_of, name, builtin, novelty
        self.calls: list[tuple[str, list[str]]] = []
        self.loads: list[str] = []
        self.windows = 1  # in which it reads any text

    def train(self, *_: Any, **__: Any) -> Path:
        raise NotImplementedError("only scores")

    def load(self, path: Path, *, device: str, backend: str) -> FakeClassifier:
        self.loads.append(path.name)
        config = ArtefactConfig.model_validate_json((path / CONFIG).read_bytes())
        return FakeClassifier(self, path.name, tuple(config.labels))


class ScorersFamily(FakeFamily):
    """A family some of whose models have scorers: ``offered`` names those of a folder, the default
    one first. Another scorer than that is a model "FOLDER/SCORER" to ``logits_of``."""

    def __init__(self, *args: Any, offered: Mapping[str, Sequence[str]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.offered = offered
        self.handed: list[tuple[str, list[str]]] = []  # what was loaded beside what

    def scorers(self, folder: Path) -> Sequence[str]:
        return self.offered.get(folder.name, ("own",))

    def load_scorer(
        self, path: Path, scorer: str, *, device: str, backend: str, beside: Sequence[Any]
    ) -> FakeClassifier:
        loaded = self.load(path, device=device, backend=backend)
        if scorer != self.scorers(path)[0]:
            loaded.id = self.loads[-1] = f"{path.name}/{scorer}"
        self.handed.append((loaded.id, [classifier.id for classifier in beside]))
        return loaded


def write_model(
    folder: Path,
    labels: Sequence[str] = ("benign", "injection"),
    *,
    family: str = "fake",
    task: Task = "multiclass",
    prior: Sequence[float] | None = None,
    scale: float = 1.0,
    bias: Sequence[float] | None = None,
    calibrated: bool = True,
    novelty: Sequence[float] = (),
    scorers: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Path:
    """Write a sealed artefact; by default its calibration changes nothing. ``novelty`` is that of
    calibration texts, all of one token; ``scorers`` gives ``prior``, ``scale``, ``bias`` and
    ``novelty`` of others than the default one; ``settings`` are more of config.json."""
    folder.mkdir(parents=True)
    n = len(labels)
    config = ArtefactConfig(family=family, task=task, labels=list(labels), network={}, **settings)
    write_json(folder / CONFIG, config)
    own = {"prior": prior, "scale": scale, "bias": bias, "novelty": novelty}
    every = {None: own, **(scorers or {})}
    calibrations = {
        name: Calibration(
            task=task,
            labels=list(labels),
            scale=[one.get("scale", 1.0)] * n,
            bias=list(one.get("bias") or [0.0] * n),
            prior=list(one.get("prior") or [1 / n] * n),
            n=100,
            data="0" * 64,
            ece_before=0.0,
            ece_after=0.0,
            log_loss_before=0.0,
            log_loss_after=0.0,
        )
        for name, one in every.items()
    }
    novelties = {
        name: Novelty(tokens=[1] * len(x), scores=list(x), left_out=0, data="0" * 64)
        for name, one in every.items() if (x := one.get("novelty"))
    }  # fmt: skip
    if calibrated:
        write_json(folder / CALIBRATION, calibration_file(calibrations.pop(None), calibrations))
    if novelty:
        write_json(folder / NOVELTY, novelty_file(novelties.pop(None), novelties))
    seal(folder)
    return folder


def plugins_of(
    *families: FakeFamily,
    combiners: Mapping[str, Any] | None = None,
    modules: Mapping[str, object] | None = None,
    broken: Mapping[str, str] | None = None,
    allowed: frozenset[str] | None = None,
) -> Plugins:
    """Return a Plugins as the loader would: ``modules`` are plugins with hooks, ``broken``
    plugins with the reason they could not be imported."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins = {f.name: Plugin(f.name, f.name, "1", classifiers=(f.name,)) for f in families}
    for name, module in (modules or {}).items():
        manager.register(module, name=name)
        hooks = tuple(c.name for c in manager.get_hookcallers(module) or ())
        plugins[name] = Plugin(name, name, "1", hooks=hooks)
    for name, error in (broken or {}).items():
        plugins[name] = Plugin(name, name, "1", error=error)
    by_name = {f.name: f for f in families}
    return Plugins(plugins, by_name, dict(combiners or {}), manager, allowed)
