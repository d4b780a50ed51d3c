"""Chunks leave nothing out, and progress is told as they are done."""

from __future__ import annotations

import pytest

from guardkit.model.chunks import CHUNK_TEXTS, chunks


@pytest.mark.parametrize("n", [0, 1, CHUNK_TEXTS, CHUNK_TEXTS + 1, 3 * CHUNK_TEXTS])
def test_chunks_hold_every_item_once_and_in_order(n: int) -> None:
    found = list(chunks(range(n), "read"))
    assert [item for chunk in found for item in chunk] == list(range(n))
    assert all(1 <= len(chunk) <= CHUNK_TEXTS for chunk in found)


def test_a_chunk_is_told_of_when_it_is_done() -> None:
    events: list[object] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        events.append((stage, done, total))

    total = CHUNK_TEXTS + 1
    for chunk in chunks(range(total), "read", progress):
        events.append(len(chunk))
    assert events == [
        ("read", 0, total), CHUNK_TEXTS,
        ("read", CHUNK_TEXTS, total), 1,
        ("read", total, total),
    ]  # fmt: skip
