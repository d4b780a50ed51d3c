"""Copy a model with its network as ONNX beside the weights."""

from __future__ import annotations

import shutil
from pathlib import Path

from guardkit.errors import PluginError
from guardkit.model import artefact
from guardkit.model.find import find_model
from guardkit.model.onnx import MODEL
from guardkit.plugins import Plugins, installed_plugins
from guardkit.types import SupportsExport


def export_model(ref: str | Path, out: Path, *, plugins: Plugins | None = None) -> Path:
    """Copy a model to ``out`` with its network as ``model.onnx`` beside the weights.

    ``backend="onnx"`` then runs it. Raises ArtefactError, or PluginError where the family
    exports nothing.
    """
    plugins = plugins or installed_plugins()
    folder = find_model(str(ref), family=None, base=Path.cwd(), plugins=plugins)
    artefact.verify(folder)
    family = plugins.family(artefact.read_config(folder).family)
    if not isinstance(family, SupportsExport):
        raise PluginError(f"{folder}: plugin {family.name!r} cannot export its models")
    artefact.refuse_to_replace(out)
    with artefact.workspace(out) as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        (copy / artefact.SUMS).unlink()
        family.export(folder, copy / MODEL)
        artefact.publish(copy, out)
    return out
