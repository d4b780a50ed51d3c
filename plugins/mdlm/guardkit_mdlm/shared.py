"""What the scorers of a policy leave for each other, as long as one batch lasts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, MutableMapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

#: ``guardkit.SupportsSharing``'s.
Shared = MutableMapping[Hashable, Any]
T = TypeVar("T")


def once(
    shared: Shared, key: Hashable, texts: Sequence[str], compute: Callable[[list[str]], Sequence[T]]
) -> list[T]:
    """Return what ``compute`` makes of each text by itself; texts that were asked about under
    ``key`` before are not computed again. ``key`` says all that the values follow from; under None
    nothing is shared."""
    known: dict[str, T] = {} if key is None else shared.setdefault(key, {})
    new = [text for text in dict.fromkeys(texts) if text not in known]
    if new:
        known.update(zip(new, compute(new), strict=True))
    return [known[text] for text in texts]


def digests(folder: Path, *names: str) -> tuple[str, ...]:
    """Return what tells which files of an artefact are meant, wherever they are."""
    found = []
    for name in names:
        with (folder / name).open("rb") as file:
            found.append(hashlib.file_digest(file, "sha256").hexdigest())
    return tuple(found)
