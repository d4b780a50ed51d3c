"""Classify rows into JSON lines: one line out per line in, in order, under a policy or a model."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from guardkit.errors import OutputError, UsageError
from guardkit.models import Model
from guardkit.router import PolicyRouter
from guardkit.types import SEVERITY, Action, Decision, Progress, Row

#: Rows of a stream judged together. A constant: batches are a function of the input alone.
CHUNK_ROWS = 256

Record = dict[str, Any]
#: One record per row, in order.
Judge = Callable[[Sequence[Row]], list[Record]]

#: Fields of the output, which --keep must not overwrite.
_RESERVED = {"id", "action", "categories", "error", "truncated", "route", "policy", "shadow"}
_RESERVED |= {"probabilities", "model"}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Summary:
    """What a run did. ``unreadable`` rows had no text; ``undecided`` ones had a text that could
    not be judged; ``differing`` ones a shadow policy would have treated otherwise (None: there
    was none). ``times``: seconds by kind of work, all workers together."""

    rows: int = 0
    texts: int = 0
    unreadable: int = 0
    undecided: int = 0
    differing: int | None = None
    actions: Counter[Action] = field(default_factory=Counter)
    seconds: float = 0.0
    times: dict[str, float] = field(default_factory=dict)

    @property
    def texts_per_s(self) -> float:
        return self.texts / self.seconds if self.seconds else 0.0

    def reached(self, action: Action) -> bool:
        """Whether any text got ``action`` or a more severe one."""
        return any(self.actions[a] for a in SEVERITY[SEVERITY.index(action) :])

    def facts(self) -> dict[str, Any]:
        """Return the counts and times, for JSON."""
        return {**asdict(self), "actions": dict(self.actions)}

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add the ``facts`` of another part of the run."""
        for name in ("rows", "texts", "unreadable", "undecided"):
            setattr(self, name, getattr(self, name) + facts[name])
        if facts["differing"] is not None:
            self.differing = (self.differing or 0) + facts["differing"]
        self.actions.update(facts["actions"])
        for name, seconds in facts["times"].items():
            self.times[name] = self.times.get(name, 0.0) + seconds


def classify(
    rows: Iterable[Row], judge: Judge, out: Path | None, *, progress: Progress | None = None
) -> Summary:
    """Judge ``rows`` as they come and write a JSON line for each to ``out``, or to standard output
    if None; ``guardkit.engine`` does it in parts that can be resumed.

    The file appears under its name only when it is whole. Raises OutputError where it cannot be
    written, and BrokenPipeError where the reader of standard output has gone.
    """
    summary = Summary()
    started = time.perf_counter()
    remaining = iter(rows)
    with _Output(out) as output:
        while chunk := list(islice(remaining, CHUNK_ROWS)):
            body, part = judged(chunk, judge)
            summary.add(part.facts())
            output.write(body)
            summary.seconds = time.perf_counter() - started
            if progress:
                progress("classify", summary.rows, 0, f"{summary.texts_per_s:,.0f} texts/s")
    return summary


def judged(rows: Sequence[Row], judge: Judge) -> tuple[bytes, Summary]:
    """Return the JSON lines of rows judged together, and what they came to."""
    summary = Summary()
    lines = []
    for row, record in zip(rows, judge(rows), strict=True):
        lines.append(_encode({**record, **row.kept} if row.kept else record))
        _count(summary, row, record)
    lines.append(b"")
    return b"\n".join(lines), summary


def unjudged(rows: Sequence[Row], why: str) -> list[Row]:
    """Return the rows with nothing to judge and ``why`` as the error of each."""
    return [replace(row, texts=(), error=row.error or why) for row in rows]


def policy_judge(router: PolicyRouter) -> Judge:
    """Return a judge that decides rows under a policy."""
    return lambda rows: [decision_record(d) for d in router.decide_rows(rows)]


def model_judge(model: Model) -> Judge:
    """Return a judge that gives each label's calibrated probability and flags nothing.

    Of a row with several messages, each label's highest. Raises ArtefactError where the model
    has no calibration.
    """
    model.calibrated()
    return lambda rows: _probabilities(model, rows)


def decision_record(decision: Decision) -> Record:
    """Return a decision as it is written to JSON, probabilities to six significant digits."""
    record: Record = {
        "id": decision.id,
        "action": decision.action,
        "categories": {
            name: {
                "action": c.action,
                "score": _rounded(c.score),
                "threshold": _rounded(c.threshold),
                "decided_by": c.decided_by,
            }
            for name, c in decision.categories.items()
        },
        "error": decision.error,
        "truncated": decision.truncated,
        "route": [
            {"category": s.category, "member": s.member, "score": _rounded(s.score), "why": s.why}
            for s in decision.route
        ],
        "policy": decision.policy,
    }
    if decision.shadow is not None:
        categories = decision.shadow.get("categories", {})
        rounded = {name: _category(c) for name, c in categories.items()}
        record["shadow"] = {**decision.shadow, **({"categories": rounded} if categories else {})}
    return record


def _category(c: Mapping[str, Any]) -> Record:
    return {**c, "score": _rounded(c["score"]), "threshold": _rounded(c["threshold"])}


def check_kept(names: Sequence[str]) -> None:
    """Refuse fields to carry along that would overwrite fields of the output."""
    if taken := sorted(_RESERVED & set(names)):
        raise UsageError(f"--keep {taken[0]}: the output has a field of this name already")


def _probabilities(model: Model, rows: Sequence[Row]) -> list[Record]:
    texts = [text for row in rows for text in row.texts]
    scored = model.score(texts)
    p_NC = model.calibrated().probabilities_NC(scored.logits_NC, scored.tokens_N)
    records: list[Record] = []
    end = 0
    for row in rows:
        start, end = end, end + len(row.texts)
        errors = [scored.errors[i] for i in range(start, end) if i in scored.errors]
        error = row.error or (errors[0] if errors else None)
        given = None
        if error is None:
            highest_C = p_NC[start:end].max(axis=0)
            given = {x: _rounded(float(p)) for x, p in zip(model.labels, highest_C, strict=True)}
        records.append(
            {
                "id": row.id,
                "probabilities": given,
                "error": error,
                "truncated": bool(scored.truncated_N[start:end].any()),
                "model": model.hash[:12],
            }
        )
    return records


def _count(summary: Summary, row: Row, record: Record) -> None:
    summary.rows += 1
    summary.texts += len(row.texts)
    if row.error is not None:
        summary.unreadable += 1
    elif record["error"] is not None:
        summary.undecided += 1
    if "action" in record:
        summary.actions[record["action"]] += 1
    if "policy" in record.get("shadow", {}):
        summary.differing = (summary.differing or 0) + (
            record["shadow"]["action"] != record["action"]
        )


class _Output:
    """A file that takes its name only when it is whole, or standard output."""

    def __init__(self, out: Path | None) -> None:
        self.name = str(out or "standard output")
        self._final: Path | None = None
        self._temporary: Path | None = None
        if out is None:
            self._file: BinaryIO = sys.stdout.buffer
            return
        with self._reporting():
            path = out.resolve()  # a link stays a link, to the new file
            if not path.exists() or path.is_file():  # else /dev/null, a pipe: not to be replaced
                self._final = path
                path = self._temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
            self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        with self._reporting():
            self._file.write(data)
            self._file.flush()

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is sys.stdout.buffer:
            return
        try:
            with self._reporting(), self._file:
                if kind is None and self._final:
                    os.fsync(self._file.fileno())
            if kind is None and self._final and self._temporary:
                with self._reporting():
                    self._temporary.replace(self._final)
        finally:
            if self._temporary:
                self._temporary.unlink(missing_ok=True)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # nobody reads on: for the caller to end quietly
            raise
        except OSError as error:
            raise OutputError(f"{self.name}: cannot be written: {error.strerror}") from error


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
