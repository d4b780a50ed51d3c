"""What decides a run's rows, and what its output depends on besides them."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from guardkit import __version__
from guardkit.classify.records import Decide, by_model, by_policy
from guardkit.classify.rows import read_rows
from guardkit.classify.shards import SHARD_BYTES, SHARD_ROWS, Input, named
from guardkit.errors import ArtefactError, ChangedError
from guardkit.model import artefact
from guardkit.model.find import find_model
from guardkit.model.loaded import load_model
from guardkit.plugins import installed_plugins
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import HasEnvironment, Row


@dataclass(frozen=True)
class Job:
    """What decides the rows: all that a worker needs to be told."""

    policy: str | None = None
    shadow: str | None = None
    model: str | None = None
    scorer: str | None = None  # of the model
    device: str = "auto"
    backend: str = "torch"
    keep: tuple[str, ...] = ()
    named: bool = False  # ids that the rows do not bring name their file

    def load(self, began_with: Mapping[str, Any] | None = None) -> Decide:
        """Load what is needed, models at their first use.

        ``began_with`` are the ``settings`` of the run's manifest: a policy or model that is not
        what it was is a ChangedError, now or at its first use.
        """
        if self.model is not None:
            try:
                model = load_model(
                    self.model, scorer=self.scorer, device=self.device, backend=self.backend
                )
            except ArtefactError as error:
                if began_with is None:
                    raise
                raise ChangedError(f"{error} (since this run began)") from error
            if began_with is not None and model.hash != began_with.get("model"):
                raise ChangedError.of(str(model.path), model.hash, began_with.get("model"))
            return by_model(model)
        if began_with is not None:
            for name, router in self._routers():
                if router.hash != (before := began_with.get(name)):
                    raise ChangedError.of(str(router.policy.path), router.hash, before)
                router.hold_to({m: began_with.get(_of(name, m)) for m in router.sources})
        return by_policy(self.router)

    @cached_property
    def router(self) -> PolicyRouter:
        """Return the policy's router: its file is read and checked once in each process."""
        return load_policy(
            self.policy, shadow=self.shadow, device=self.device, backend=self.backend
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the router behind: a process that is sent this reads the policy for itself."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def rows(self, source: Input) -> Iterator[Row]:
        """Yield the rows of ``source`` one after the other, for a run that saves nothing."""
        for path in source.paths:
            with read_rows(path, keep=self.keep, delimiter=source.delimiter) as rows:
                yield from (named(row, path) for row in rows) if self.named else rows

    def settings(self) -> dict[str, Any]:
        """Return what the output depends on besides the input: nothing is loaded for it."""
        found: dict[str, Any] = {"guardkit": __version__, "python": platform.python_version()}
        if self.model is not None:
            folder = find_model(
                self.model, family=None, base=Path.cwd(), plugins=installed_plugins()
            )
            found["model"] = artefact.verify(folder)
        else:
            for name, router in self._routers():
                found[name] = router.hash
                for member, digest in router.model_hashes().items():
                    found[_of(name, member)] = digest
        return found | {
            "--keep": list(self.keep),
            **({} if self.scorer is None else {"--scorer": self.scorer}),
            "--device": self.device,
            "--backend": self.backend,
            "shards": f"{SHARD_ROWS:,} rows or {SHARD_BYTES:,} bytes",
            "torch": _version("torch"),
            **{name: _fingerprint(os.environ.get(name)) for name in self.environment()},
        }

    def environment(self) -> list[str]:
        """Return the environment variables that the output of the run's models depends on."""
        plugins = installed_plugins()
        if self.model is not None:
            folder = find_model(self.model, family=None, base=Path.cwd(), plugins=plugins)
            used = {artefact.read_config(folder).family}
        else:
            members = [router.policy.members for _, router in self._routers()]
            used = {member.plugin for own in members for member in own.values()}
        families = [plugins.family(name) for name in sorted(used)]
        declared = [f.environment for f in families if isinstance(f, HasEnvironment)]
        return sorted({name for names in declared for name in names})

    def _routers(self) -> list[tuple[str, PolicyRouter]]:
        """Return the routers of the policies, by what the manifest calls each policy."""
        shadow = self.router.shadow
        return [("policy", self.router), *([("shadow policy", shadow)] if shadow else [])]


def _of(policy: str, member: str) -> str:
    """Return what the manifest calls a member's model."""
    return f"{policy}'s model {member!r}"


def _fingerprint(value: str | None) -> str | None:
    """Return a short hash: who reads the manifest must not learn a key."""
    return value and hashlib.sha256(os.fsencode(value)).hexdigest()[:12]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
