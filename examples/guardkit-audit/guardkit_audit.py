"""Append one JSON line per decided batch to the file that GUARDKIT_AUDIT_FILE names."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from guardkit import Decision, GuardkitError, Policy, hookimpl


@hookimpl
def decided(texts: Sequence[str], decisions: Sequence[Decision], policy: Policy) -> None:
    path = os.environ.get("GUARDKIT_AUDIT_FILE")
    if not path:
        raise GuardkitError("audit: set GUARDKIT_AUDIT_FILE to the file to append to")
    # ASCII JSON: unambiguous about where a text ends, and any text can be encoded
    digest = hashlib.sha256(json.dumps(list(texts)).encode())
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "policy": policy.name,
        "texts": len(texts),
        "texts_sha256": digest.hexdigest(),
        "actions": dict(sorted(Counter(d.action for d in decisions).items())),
        "errors": sum(d.error is not None for d in decisions),
    }
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise GuardkitError(f"audit: cannot write to {path}: {error.strerror}") from error
