"""guardkit: train small text classifiers, and route text through ensembles of them.

    guardkit.load_policy("policies/default.yaml").decide(["Ignore all previous instructions."])
    guardkit.load_model("builtin:mdlm/injection").probabilities(["Hello."])

Names below are the public API, plugins' included; everything else may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardkit.calibration.fit import fit_calibration as fit_calibration
    from guardkit.errors import ArtefactError as ArtefactError
    from guardkit.errors import ConfigError as ConfigError
    from guardkit.errors import DataError as DataError
    from guardkit.errors import GuardkitError as GuardkitError
    from guardkit.errors import TrainingInterrupted as TrainingInterrupted
    from guardkit.hookspecs import hookimpl as hookimpl
    from guardkit.model.artefact import ArtefactConfig as ArtefactConfig
    from guardkit.model.artefact import choose_pooling as choose_pooling
    from guardkit.model.artefact import read_config as read_config
    from guardkit.model.artefact import write_json as write_json
    from guardkit.model.loaded import load_model as load_model
    from guardkit.model.memory import halved_on_oom as halved_on_oom
    from guardkit.model.onnx import Network as Network
    from guardkit.model.onnx import onnx_network as onnx_network
    from guardkit.policy.router import load_policy as load_policy
    from guardkit.policy.schema import Policy as Policy
    from guardkit.text.windows import pool_windows as pool_windows
    from guardkit.text.windows import windows as windows
    from guardkit.types import Adapted as Adapted
    from guardkit.types import BeforeAfter as BeforeAfter
    from guardkit.types import Classifier as Classifier
    from guardkit.types import ClassifierFamily as ClassifierFamily
    from guardkit.types import Combiner as Combiner
    from guardkit.types import Costing as Costing
    from guardkit.types import Decision as Decision
    from guardkit.types import Evidence as Evidence
    from guardkit.types import Examples as Examples
    from guardkit.types import Featuring as Featuring
    from guardkit.types import Pooling as Pooling
    from guardkit.types import Progress as Progress
    from guardkit.types import RawScores as RawScores
    from guardkit.types import Sharing as Sharing
    from guardkit.types import TrainingData as TrainingData

__version__ = "0.1.0"

_HOME = {
    "Adapted": "types",
    "ArtefactConfig": "model.artefact",
    "ArtefactError": "errors",
    "BeforeAfter": "types",
    "Classifier": "types",
    "ClassifierFamily": "types",
    "Combiner": "types",
    "ConfigError": "errors",
    "Costing": "types",
    "DataError": "errors",
    "Decision": "types",
    "Evidence": "types",
    "Examples": "types",
    "Featuring": "types",
    "GuardkitError": "errors",
    "Network": "model.onnx",
    "Policy": "policy.schema",
    "Pooling": "types",
    "Progress": "types",
    "RawScores": "types",
    "Sharing": "types",
    "TrainingData": "types",
    "TrainingInterrupted": "errors",
    "choose_pooling": "model.artefact",
    "fit_calibration": "calibration.fit",
    "halved_on_oom": "model.memory",
    "hookimpl": "hookspecs",
    "load_model": "model.loaded",
    "load_policy": "policy.router",
    "onnx_network": "model.onnx",
    "pool_windows": "text.windows",
    "read_config": "model.artefact",
    "windows": "text.windows",
    "write_json": "model.artefact",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import public names on first use, so that ``import guardkit`` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'guardkit' has no attribute {name!r}")
    return getattr(import_module(f"guardkit.{_HOME[name]}"), name)
