"""Many texts in chunks: how many a model is given at once, and what a person is told meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from guardkit.types import Progress

CHUNK_TEXTS = 256

Item = TypeVar("Item")


def chunks(
    items: Sequence[Item], stage: str, progress: Progress | None = None
) -> Iterator[Sequence[Item]]:
    """Yield ``items`` in order, ``CHUNK_TEXTS`` at a time.

    ``progress`` is told of ``stage`` at its beginning, and after each chunk how many are done.
    """
    if progress:
        progress(stage, 0, len(items))
    for start in range(0, len(items), CHUNK_TEXTS):
        yield items[start : start + CHUNK_TEXTS]
        if progress:
            progress(stage, min(start + CHUNK_TEXTS, len(items)), len(items))
