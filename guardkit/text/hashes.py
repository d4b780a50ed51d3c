"""Hashes of texts: the same text has the same hash, however and wherever it is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def text_hash(text: str) -> bytes:
    """Return the SHA-256 of one text, half characters (lone surrogates) included."""
    return hashlib.sha256(_bytes(text)).digest()


def texts_hash(texts: Sequence[str], labels: Sequence[str] = ()) -> str:
    """Return the SHA-256 of texts (and labels) in their order, hexadecimal."""
    digest = hashlib.sha256()
    for part in (texts, labels):
        digest.update(f"{len(part)}\n".encode())
        for text in part:
            data = _bytes(text)
            digest.update(f"{len(data)}\n".encode() + data)
    return digest.hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
