"""What decides a run's rows, and what its output depends on besides them."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from guardkit import __version__
from guardkit.classify.records import Decide, by_model, by_policy
from guardkit.classify.rows import read_rows
from guardkit.classify.shards import SHARD_BYTES, SHARD_ROWS, Input, named
from guardkit.model import artefact
from guardkit.model.find import find_model
from guardkit.model.loaded import load_model
from guardkit.plugins import installed_plugins
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Row

ENV_MASK_KEY = "GUARDKIT_MASK_KEY"


@dataclass(frozen=True)
class Job:
    """What decides the rows: all that a worker needs to be told."""

    policy: str | None = None
    shadow: str | None = None
    model: str | None = None
    device: str = "auto"
    backend: str = "torch"
    keep: tuple[str, ...] = ()
    named: bool = False  # ids that the rows do not bring name their file

    def load(self) -> Decide:
        """Load what is needed, models at their first use."""
        if self.model is not None:
            return by_model(load_model(self.model, device=self.device, backend=self.backend))
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
            with read_rows(path, keep=self.keep) as rows:
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
            for name, router in (("policy", self.router), ("shadow policy", self.router.shadow)):
                if router is not None:
                    found[name] = router.hash
                    for member, digest in router.model_hashes().items():
                        found[f"{name}'s model {member!r}"] = digest
        key = os.environ.get(ENV_MASK_KEY)
        return found | {
            "--keep": list(self.keep),
            "--device": self.device,
            "--backend": self.backend,
            "shards": f"{SHARD_ROWS:,} rows or {SHARD_BYTES:,} bytes",
            "torch": _version("torch"),
            # a fingerprint: who reads the manifest must not learn the key
            ENV_MASK_KEY: key and hashlib.sha256(key.encode()).hexdigest()[:12],
        }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
