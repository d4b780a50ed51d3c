"""An audit log: a line of JSON for each text that was judged, with its hash and never the text.

It hears the ``decided`` hook, so that what cannot be logged is not answered either.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from guardkit.errors import OutputError
from guardkit.hookspecs import hookimpl

if TYPE_CHECKING:
    from guardkit.policy.schema import Policy
    from guardkit.types import Decision

#: With a key, a text's hash tells nothing to who can only guess texts.
ENV_KEY = "GUARDKIT_AUDIT_KEY"
_ENCODER = msgspec.json.Encoder()


class Audit:
    """Appends to ``path``. The file is opened for each batch, so that it can be rotated, and each
    batch is written at once, so that several processes can share it. ``text_share`` of the texts
    are written out, chosen by their hash."""

    def __init__(self, path: Path, *, text_share: float = 0.0) -> None:
        self.path, self.text_share = path, text_share
        self._key = os.fsencode(os.environ.get(ENV_KEY, ""))
        self._append(b"")  # what cannot be written is found out at the start

    @hookimpl
    def decided(self, texts: Sequence[str], decisions: Sequence[Decision], policy: Policy) -> None:
        """Write a line for each text. Raises OutputError."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        pairs = zip(texts, decisions, strict=True)
        self._append(_ENCODER.encode_lines([self._line(now, t, d) for t, d in pairs]))

    def _line(self, now: str, text: str, decision: Decision) -> dict[str, Any]:
        data = text.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key, data, "sha256") if self._key else _sha256(data)
        line = {
            "time": now,
            "id": decision.id,
            "text_sha256": digest.hex(),
            "characters": len(text),
            "action": decision.action,
            "categories": {name: c.action for name, c in decision.categories.items()},
            "failed": decision.error is not None,  # an error may quote the text
            "truncated": decision.truncated,
            "policy": decision.policy,
            "models": decision.models,
        }
        if int.from_bytes(digest[:4], "big") < self.text_share * 2**32:
            line["text"] = text
        return line

    def _append(self, lines: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with open(descriptor, "ab", buffering=0) as file:
                if lines and file.write(lines) != len(lines):
                    raise OSError(None, "only part of it was written")
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written: {error.strerror}") from error


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
