"""A cache of a model's scores, in memory or also in a file: the model reads each text once.

    CACHE/<model hash, scorer, machine and device>.npz

holds a row per text: its SHA-256, logits, tokens, windows, truncated, milliseconds; a second row
where its novelty was asked for, with that. A scorer is named where it is not the default one.

Raw scores are kept, so that calibration, combination and thresholds can change freely. A file that
is damaged, or of another format, counts as missing and is written anew. Files are replaced whole:
runs at the same time see an old one or a new one. What two of them add at the same moment may be
lost, and is scored again.
"""

from __future__ import annotations

import os
import platform
import re
import time
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from guardkit.data.hashes import text_hash
from guardkit.errors import MemberDown, OutputError, TextError
from guardkit.files import replacing
from guardkit.model.loaded import Model
from guardkit.types import Classifier, FloatArray, RawScores

#: Texts scored before the clock runs: the first calls allocate, compile and load.
WARM_TEXTS = 8
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class _TextScores:
    """What a classifier made of one text."""

    logits_C: FloatArray
    tokens: int
    windows: int
    truncated: bool
    novelty: float | None
    ms: float


#: One value a row, as they stand in the file.
_COLUMNS = ("tokens_N", "windows_N", "truncated_N", "asked_N", "novelty_N", "ms_N")
#: A text's hash, and whether its novelty was asked for: that is another call, which takes longer.
_Key = tuple[bytes, bool]


class CachedClassifier:
    """A classifier that asks ``inner`` about each text once.

    The time of a call is divided among its texts in proportion to their tokens (``ms``). Evidence
    is not cached.
    """

    def __init__(self, inner: Classifier, file: Path | None = None) -> None:
        self.inner = inner
        self._file = file
        self._scores: dict[_Key, _TextScores] = (
            {} if file is None else _read(file, len(inner.labels))
        )
        self._failed: dict[_Key, Exception] = {}  # what a text raised when it was asked about alone
        self._reasons: dict[_Key, str] = {}  # of other texts that could not be scored
        self.scored = 0  # texts that the classifier read; the others were known

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def labels(self) -> tuple[str, ...]:
        return self.inner.labels

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        if evidence:
            return self.inner.score(texts, novelty=novelty, evidence=True)
        keys = [(text_hash(text), novelty) for text in texts]
        # raised again, not tried again: the caller halves its batch until the text is alone
        for key in keys:
            if key in self._failed:
                raise self._failed[key]
        known = self._scores.keys() | self._reasons.keys()
        new = {k: t for k, t in zip(keys, texts, strict=True) if k not in known}
        down = None
        try:
            if new:
                self._ask(new, novelty)
        except TextError as error:
            self._reasons[list(new)[error.text]] = str(error)
            return self.score(texts, novelty=novelty)
        except MemberDown as error:
            down = error
            if error.answered is not None:
                self._keep(new, error.answered, 0.0)
        except Exception as error:
            if len(new) == 1:
                self._failed[next(iter(new))] = error
            raise
        raw = self._known_scores(keys)
        if down is not None:
            raise MemberDown(str(down), raw) from down
        return raw

    def _known_scores(self, keys: Sequence[_Key]) -> RawScores:
        failed = _TextScores(np.full(len(self.labels), np.nan, np.float32), 0, 0, False, None, 0.0)
        rows = [self._scores.get(key, failed) for key in keys]
        return RawScores(
            np.stack([row.logits_C for row in rows]),
            np.array([row.tokens for row in rows], np.int64),
            np.array([row.windows for row in rows], np.int64),
            np.array([row.truncated for row in rows], bool),
            _novelty(rows),
            errors={i: self._reasons[key] for i, key in enumerate(keys) if key in self._reasons},
        )

    def warm_up(self, texts: Sequence[str], *, novelty: bool = False) -> None:
        """Score a few of ``texts`` that are not known yet, and forget the scores."""
        new = [text for text in texts if (text_hash(text), novelty) not in self._scores]
        if new:
            try:
                self.inner.score(new[:WARM_TEXTS], novelty=novelty)
            except Exception:  # it will fail again where it is recorded
                return

    def ms(self, texts: Sequence[str], *, novelty: bool = False) -> FloatArray:
        """Return ms_N, the milliseconds that scoring each text took, together with its ``novelty``
        if it was asked for and did not fail; NaN where scoring failed."""
        rows = self._known(texts, novelty)
        return np.array([row.ms if row else np.nan for row in rows], np.float32)

    def tokens(self, texts: Sequence[str], *, novelty: bool = False) -> FloatArray:
        """Return tokens_N read of each text; NaN where it failed."""
        rows = self._known(texts, novelty)
        return np.array([row.tokens if row else np.nan for row in rows], np.float32)

    def _known(self, texts: Sequence[str], novelty: bool) -> list[_TextScores | None]:
        keys = map(text_hash, texts)
        return [self._scores.get((k, novelty)) or self._scores.get((k, False)) for k in keys]

    def save(self) -> None:
        """Write the scores to the file, keeping what other runs have put there meanwhile."""
        if self._file is None or not self.scored:
            return
        rows = _read(self._file, len(self.labels))
        _write(self._file, rows | self._scores)

    def _ask(self, new: dict[_Key, str], novelty: bool) -> None:
        started = time.perf_counter()
        raw = self.inner.score(list(new.values()), novelty=novelty)
        self._keep(new, raw, 1000 * (time.perf_counter() - started))

    def _keep(self, new: dict[_Key, str], raw: RawScores, ms: float) -> None:
        """Keep what was scored; what was not, and has a reason, is not tried again."""
        n = len(new)
        shapes = [np.shape(x) for x in (raw.tokens_N, raw.windows_N, raw.truncated_N)]
        if np.shape(raw.logits_NC) != (n, len(self.labels)) or set(shapes) != {(n,)}:
            raise ValueError(f"scores of shapes {np.shape(raw.logits_NC)}, {shapes} for {n} texts")
        tokens_N = np.maximum(raw.tokens_N, 1)
        ms_N = ms * tokens_N / tokens_N.sum()
        for i, key in enumerate(new):
            if i in raw.errors:
                self._reasons[key] = raw.errors[i]
            elif np.isfinite(raw.logits_NC[i]).all():
                self._scores[key] = _TextScores(
                    np.array(raw.logits_NC[i], np.float32),
                    int(raw.tokens_N[i]),
                    int(raw.windows_N[i]),
                    bool(raw.truncated_N[i]),
                    None if raw.novelty_N is None else float(raw.novelty_N[i]),
                    float(ms_N[i]),
                )
        self.scored += n


def with_score_cache(model: Model, cache: Path | None = None, *, device: str = "auto") -> Model:
    """Return ``model`` with a ``CachedClassifier``, whose scores are kept below ``cache`` if given.

    Scores and times of another machine or device are not those of this one: each has its file.
    """
    file = None
    if cache is not None:
        scorer = "" if model.scorer is None else f"-{model.scorer}"
        where = re.sub(r"[^\w.-]", "_", f"{scorer}-{platform.node()}-{device}")
        file = cache / f"{model.hash}{where}.npz"
    return replace(model, classifier=CachedClassifier(model.classifier, file))


def default_cache() -> Path:
    """Return where scores are kept: ``$XDG_CACHE_HOME/guardkit/scores``, else in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "guardkit" / "scores"


def _novelty(rows: Sequence[_TextScores]) -> FloatArray | None:
    if all(row.novelty is None for row in rows):
        return None
    return np.array([row.novelty for row in rows], np.float32)  # None: NaN


def _read(file: Path, n_labels: int) -> dict[_Key, _TextScores]:
    """Return the rows of ``file``; none where it is missing or damaged."""
    try:
        # a zip: every part has a checksum
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if int(arrays["format"]) != _FORMAT:
            return {}
        n = len(arrays["key_N"])
        one_each: tuple[int, ...] = (n,)
        wanted = dict.fromkeys(_COLUMNS, one_each)
        wanted |= {"key_N": (n, 32), "logits_NC": (n, n_labels)}
        if any(arrays[name].shape != shape for name, shape in wanted.items()):
            return {}
        rows = zip(
            arrays["key_N"].astype(np.uint8),
            arrays["logits_NC"].astype(np.float32),
            *(arrays[name].tolist() for name in _COLUMNS),
            strict=True,
        )
        return {
            (bytes(key), bool(asked)): _TextScores(
                logits_C, int(tokens), int(windows), bool(truncated),
                float(novelty) if asked else None, float(ms),
            )
            for key, logits_C, tokens, windows, truncated, asked, novelty, ms in rows
        }  # fmt: skip
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return {}


def _write(file: Path, rows: dict[_Key, _TextScores]) -> None:
    keys, values = list(rows), list(rows.values())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as stream:
            np.savez_compressed(
                stream,
                format=np.array(_FORMAT),
                key_N=np.frombuffer(b"".join(k for k, _ in keys), np.uint8).reshape(-1, 32),
                logits_NC=np.stack([row.logits_C for row in values]),
                tokens_N=np.array([row.tokens for row in values], np.int64),
                windows_N=np.array([row.windows for row in values], np.int64),
                truncated_N=np.array([row.truncated for row in values], bool),
                asked_N=np.array([asked for _, asked in keys], bool),
                novelty_N=np.array([row.novelty for row in values], np.float32),  # None: NaN
                ms_N=np.array([row.ms for row in values], np.float32),
            )
    except OSError as error:
        raise OutputError(f"{file}: cannot be written: {error.strerror}") from error
