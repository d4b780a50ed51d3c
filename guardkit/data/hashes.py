"""The hashes by which a text, or a set of texts, is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from guardkit.types import Examples


def text_hash(text: str) -> bytes:
    """Return the SHA-256 of one text."""
    return hashlib.sha256(_bytes(text)).digest()


def texts_hash(texts: Sequence[str], labels: Sequence[str] = ()) -> str:
    """Return the SHA-256 of texts (and labels), the same however they are stored."""
    digest = hashlib.sha256()
    for strings in (texts, labels):
        digest.update(f"{len(strings)}\n".encode())
        for string in strings:
            data = _bytes(string)
            digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def examples_hash(examples: Examples) -> str:
    """Return the hash of texts and the numbers of their labels, by which a model knows what it was
    trained or calibrated on."""
    return texts_hash(examples.texts, [str(y) for y in examples.labels_N])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # half characters (lone surrogates) too
