"""Check what a policy says of one member: its plugin, model, scorer and options."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from guardkit.errors import GuardkitError, PluginError
from guardkit.member_options import HasOptions, MemberOptions, read_member_options
from guardkit.model import artefact
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.scorers import Source, find_scorer, is_calibrated, not_calibrated
from guardkit.model.without_artefact import config_of
from guardkit.plugins import Plugins
from guardkit.policy.members import FindModel
from guardkit.policy.messages import option_mistakes
from guardkit.types import ClassifierFamily
from guardkit.yamlfile import Place


class MemberCheck:
    """What was found of a member: its ``config`` and ``source`` as far as they can be told, and
    mistakes with their places. What is malformed is the schema's to report."""

    def __init__(self, member: Any, name: str, plugins: Plugins, find_model: FindModel) -> None:
        self.place: Place = ("members", name)
        self.found: list[tuple[Place, str]] = []
        self.config: ArtefactConfig | None = None
        self.source: Source | None = None
        if not isinstance(member, dict) or not isinstance(plugin := member.get("plugin"), str):
            return
        try:
            family = plugins.family(plugin)
        except PluginError as error:
            self._add(str(error), "plugin")
            return
        known, options = self._options(member, family)
        model = member.get("model")
        if isinstance(model, str) and model:
            self._model(member, model, family, options, find_model)
        elif model is None and options is not None and options.labels:
            if member.get("scorer") is not None:
                self._add("a member without a model has no scorers; remove it", "scorer")
            self.config, self.source = config_of(options), Source(None, None, options)
        elif model is None and known:
            self._add("required: an artefact folder, or builtin:NAME; got null", "model")

    def _options(
        self, member: dict[str, Any], family: ClassifierFamily
    ) -> tuple[bool, MemberOptions | None]:
        """Return whether what the member tells its family is in order, and the options."""
        given, timeout_ms = member.get("options"), member.get("timeout_ms")
        if not isinstance(family, HasOptions):
            for name in ("options", "timeout_ms"):
                if member.get(name) is not None:
                    self._add(f"members of plugin {family.name!r} take none; remove it", name)
            return True, None
        if not isinstance(given, dict | None) or not isinstance(timeout_ms, int | None):
            return False, None
        try:
            return True, read_member_options(family, given, timeout_ms)
        except ValidationError as error:
            for place, message in option_mistakes(error, family.options):
                self._add(message, "options", *place)
            return False, None

    def _model(
        self,
        member: dict[str, Any],
        model: str,
        family: ClassifierFamily,
        options: MemberOptions | None,
        find_model: FindModel,
    ) -> None:
        try:
            folder = find_model(family.name, model)
            if not folder.exists():
                self._add(_not_made(family.name, folder), "model")
                return
            self.config = artefact.read_config(folder)
        # a name no file system takes (too long, NUL, ~nobody) is a mistake in the file too
        except (GuardkitError, OSError, RuntimeError, ValueError) as error:
            self._add(str(error), "model")
            return
        if self.config.family != family.name:
            made = f"{folder}: made by plugin {self.config.family!r}, not {family.name!r}"
            self._add(made, "model")
            return
        named = member.get("scorer")
        named = named if isinstance(named, str) and named else None
        if named and options is not None:
            self._add("a member with options has no scorer to name; remove it", "scorer")
            return
        try:
            source = Source(folder, find_scorer(folder, family, named), options)
            if not is_calibrated(source):
                self._add(not_calibrated(source), "scorer" if source.scorer else "model")
            self.source = source
        except GuardkitError as error:
            self._add(str(error), "scorer")

    def _add(self, message: str, *place: str | int) -> None:
        self.found.append(((*self.place, *place), message))


def _not_made(plugin: str, folder: Path) -> str:
    return (
        f"{folder}: not a guardkit model: no such folder; "
        f"`guardkit train --plugin {plugin} --data DATA --out {shlex.quote(str(folder))}` makes "
        "one there, of text with the labels that this policy names; its comments may say where "
        "to find some"
    )
