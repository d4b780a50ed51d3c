"""The models that a policy's members are, each loaded at its first use.

Members that are one model by several scorers load its parts once, and members that are the same
scorer of it are one model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from guardkit.errors import ArtefactError, ChangedError
from guardkit.member_options import read_member_options
from guardkit.model.answer_cache import AnswerCache
from guardkit.model.find import find_model
from guardkit.model.loaded import Model, load_model
from guardkit.model.scorers import Source, find_scorer
from guardkit.model.without_artefact import load_without_artefact
from guardkit.plugins import Plugins
from guardkit.policy.schema import Policy

#: Where a member's model is: f(plugin, model) -> folder. Raises GuardkitError.
FindModel = Callable[[str, str], Path]


class Members:
    """A policy's members. ``sources`` says of each which model it is, by which scorer; ``beside``
    are another policy's members, with which models are shared."""

    def __init__(
        self,
        policy: Policy,
        *,
        device: str,
        backend: str,
        plugins: Plugins,
        beside: Members | None = None,
    ) -> None:
        find = finder(policy.path, plugins)
        self.sources: dict[str, Source] = {}
        self._families = {name: member.plugin for name, member in policy.members.items()}
        self._caches: dict[str, Path] = {}
        for name, member in policy.members.items():
            family, folder, scorer = plugins.family(member.plugin), None, None
            if member.model is not None:
                folder = find(member.plugin, member.model).resolve()  # as a model says where it is
                scorer = member.scorer and find_scorer(folder, family, member.scorer)
            options = read_member_options(family, member.options, member.timeout_ms)
            self.sources[name] = Source(folder, scorer, options)
            if member.cache is not None:
                self._caches[name] = policy.path.absolute().parent / member.cache
        self._load = partial(load_model, device=device, backend=backend, plugins=plugins)
        self._load_without = partial(
            load_without_artefact, device=device, backend=backend, plugins=plugins
        )
        self._models: dict[Source, Model] = {} if beside is None else beside._models
        self._held: Mapping[str, str | None] = {}

    def hashes(self) -> dict[str, str]:
        """Return each member's model hash, its files verified; loads no model."""
        return {name: source.verified_hash() for name, source in self.sources.items()}

    def hold_to(self, hashes: Mapping[str, str | None]) -> None:
        """Refuse, with ChangedError, models that do not have these hashes."""
        self._held = hashes

    def model(self, member: str) -> Model:
        """Return the member's model, loading it on first need; members may share one."""
        source = self.sources[member]
        if source not in self._models:
            try:
                model = self._loaded(member, source)
            except ArtefactError as error:
                if member not in self._held:
                    raise
                raise ChangedError(f"{error} (since this run began)") from error
            if model.hash != (before := self._held.get(member, model.hash)):
                raise ChangedError.of(str(model.path), model.hash, before)
            if (cache := self._caches.get(member)) is not None:
                kept = AnswerCache(model.classifier, cache, source.identity)
                model = replace(model, classifier=kept)
            self._models[source] = model
        return self._models[source]

    def _loaded(self, member: str, source: Source) -> Model:
        folder, scorer, options = source
        if folder is None:
            assert options is not None, "the check of the policy asks for a model"
            return self._load_without(options)
        beside = list(self._models.values())
        return self._load(
            folder, family=self._families[member], scorer=scorer, options=options, beside=beside
        )


def unrepeatable(policy: Policy, plugins: Plugins) -> Iterator[str]:
    """Yield a line for every member that may answer otherwise when it is asked again."""
    for name, member in policy.members.items():
        if member.cache is None and not getattr(
            plugins.family(member.plugin), "deterministic", True
        ):
            yield (
                f"member {name!r}: plugin {member.plugin!r} may answer otherwise when it is asked "
                "again, so a run that is resumed or repeated may differ; `cache: FILE` of the "
                "member keeps its answers"
            )


def finder(policy: Path, plugins: Plugins) -> FindModel:
    """Return what finds the models that the policy file ``policy`` names."""
    base = policy.absolute().parent
    return lambda plugin, ref: find_model(ref, family=plugin, base=base, plugins=plugins)
