"""What a server is told at its start."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from pathlib import Path
from typing import Literal

from guardkit.errors import UsageError
from guardkit.policy.micro_batching import Limits

#: What LiteLLM is told of a text that the policy flags: it knows no such verdict.
OnFlag = Literal["block", "withhold", "pass"]
#: Shorter keys can be guessed.
KEY_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """The policy and how it is served; seconds end in ``_s``, sizes are bytes."""

    policy: Path | None = None
    shadow: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    device: str = "auto"
    backend: str = "torch"
    #: OpenAI's name of a category -> the policy's.
    openai_names: Mapping[str, str] = field(default_factory=dict)
    on_flag: OnFlag = "block"
    max_body: int = 2**20
    timeout_s: float = 10.0
    drain_s: float = 15.0
    #: A batch that takes longer has hung: /healthz then says so, for whoever can restart it.
    hung_s: float = 60.0
    limits: Limits = field(default_factory=Limits)
    keys: Keys | None = None
    audit_log: Path | None = None
    audit_text_share: float = 0.0


class Keys:
    """The keys that clients may bring. Kept as hashes, compared in constant time."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def __contains__(self, key: object) -> bool:
        given, found = _digest(str(key)), False
        for digest in self._digests:  # all of them, whichever it is
            found |= compare_digest(given, digest)
        return found

    def __repr__(self) -> str:
        return f"Keys({len(self._digests)})"


def read_keys(path: Path) -> Keys:
    """Return the keys in a file: one a line, empty lines and those with # at their start apart.
    Raises UsageError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise UsageError(f"--api-key-file {path}: cannot be read: {why}") from error
    keys = [key for line in lines if (key := line.strip()) and not key.startswith("#")]
    if not keys:
        raise UsageError(f"--api-key-file {path}: holds no key; write one a line")
    for number, line in enumerate(lines, 1):
        key = line.strip()
        if key in keys and (len(key) < KEY_CHARACTERS or not key.isascii() or " " in key):
            raise UsageError(
                f"--api-key-file {path}: line {number}: a key needs {KEY_CHARACTERS} ASCII "
                "characters or more and no space; `openssl rand -hex 32` makes a good one"
            )
    return Keys(keys)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
