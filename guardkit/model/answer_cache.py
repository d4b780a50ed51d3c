"""What a member answered, kept in a file, so that resumes and replays are the same and free.

One SQLite file may hold several members' answers, and several processes may write it: the first
answer to a text is the answer. A text is kept as its SHA-256 alone. Texts that failed are not kept.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from guardkit.errors import MemberDown, OutputError, TextError
from guardkit.types import Classifier, RawScores

#: Another process may be writing.
BUSY_S = 60.0
_Row = tuple[bytes, int, int, int]
_T = TypeVar("_T")


class AnswerCache:
    """A classifier that asks ``inner`` about a text only where ``file`` has no answer yet.
    ``identity`` says all that its answers follow from. Novelty and evidence are not kept."""

    def __init__(self, inner: Classifier, file: Path, identity: str) -> None:
        self.inner, self.file, self.identity = inner, file, identity
        self._read([])  # what cannot be used is said now

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def labels(self) -> tuple[str, ...]:
        return self.inner.labels

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return the answers kept, and those of ``inner`` to the texts that have none."""
        if novelty or evidence:
            return self.inner.score(texts, novelty=novelty, evidence=evidence)
        keys = [self._key(text) for text in texts]
        known = self._read(keys)
        new = {k: text for k, text in zip(keys, texts, strict=True) if k not in known}
        if not new:
            return self._scores(keys, known, {})
        asked = list(new)
        try:
            raw = self.inner.score(list(new.values()))
        except TextError as error:
            if not 0 <= error.text < len(asked):
                raise
            raise TextError(keys.index(asked[error.text]), str(error)) from error
        except MemberDown as error:
            errors = self._keep(asked, error.answered) if error.answered is not None else {}
            answered = self._scores(keys, self._read(keys), errors)
            raise MemberDown(str(error), answered) from error
        errors = self._keep(asked, raw)
        # what another process has put there meanwhile is the answer
        return self._scores(keys, self._read(keys), errors)

    def _key(self, text: str) -> bytes:
        said = text.encode("utf-8", "surrogatepass")
        return hashlib.sha256(self.identity.encode() + b"\0" + said).digest()

    def _scores(
        self, keys: Sequence[bytes], known: dict[bytes, _Row], errors: dict[bytes, str]
    ) -> RawScores:
        n, n_labels = len(keys), len(self.labels)
        logits_NC = np.full((n, n_labels), np.nan, np.float32)
        counts_N3 = np.zeros((n, 3), np.int64)
        for i, key in enumerate(keys):
            if key in known and len(known[key][0]) == 4 * n_labels:
                logits_NC[i] = np.frombuffer(known[key][0], "<f4")
                counts_N3[i] = known[key][1:]
        reasons = {i: errors[key] for i, key in enumerate(keys) if key in errors}
        tokens_N, windows_N, truncated_N = counts_N3.T
        return RawScores(logits_NC, tokens_N, windows_N, truncated_N.astype(bool), errors=reasons)

    def _keep(self, keys: Sequence[bytes], raw: RawScores) -> dict[bytes, str]:
        """Keep what was answered; return why the others have no answer."""
        logits_NC = np.asarray(raw.logits_NC, "<f4")
        if logits_NC.shape != (len(keys), len(self.labels)):
            raise ValueError(f"logits of shape {logits_NC.shape} for {len(keys)} texts")
        rows = [
            (key, logits_NC[i].tobytes(), int(raw.tokens_N[i]), int(raw.windows_N[i]),
             int(raw.truncated_N[i]))
            for i, key in enumerate(keys)
            if i not in raw.errors and np.isfinite(logits_NC[i]).all()
        ]  # fmt: skip
        insert = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)"
        self._with(lambda connection: connection.executemany(insert, rows))
        return {keys[i]: why for i, why in raw.errors.items() if 0 <= i < len(keys)}

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, _Row]:
        def read(connection: sqlite3.Connection) -> dict[bytes, _Row]:
            one = "SELECT logits, tokens, windows, truncated FROM answers WHERE key = ?"
            found = {key: connection.execute(one, (key,)).fetchone() for key in keys}
            return {key: row for key, row in found.items() if row is not None}

        return self._with(read)

    def _with(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do ``work`` on the file, opened for that: a process that forks takes none of it along."""
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=BUSY_S)) as connection, connection:
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, logits BLOB, "
                    "tokens INTEGER, windows INTEGER, truncated INTEGER) WITHOUT ROWID"
                )
                return work(connection)
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"{self.file}: cannot be used as a cache of answers: {error}; name another file, "
                "or remove it"
            ) from error
