"""Classify rows into JSON lines: one line out per line in, in order, under a policy or a model."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from guardkit.errors import OutputError, UsageError
from guardkit.files import replacing
from guardkit.model.loaded import Model
from guardkit.policy.router import PolicyRouter
from guardkit.rounding import six_digits
from guardkit.text.visible import visible_json
from guardkit.types import SEVERITY, Action, CategoryDecision, Decision, Progress, Row

#: Rows of a stream decided together. A constant: batches are a function of the input alone.
CHUNK_ROWS = 256


class ModelRecord(msgspec.Struct, frozen=True, gc=False):
    """A line of output under a model alone: each label's probability, None where there is none."""

    id: Any
    probabilities: dict[str, float] | None
    error: str | None
    truncated: bool
    model: str


Record = Decision | ModelRecord
#: From rows to records, one for each, in order.
Decide = Callable[[Sequence[Row]], Sequence[Record]]

#: Fields of the output, which --keep must not overwrite.
_RESERVED = {*Decision.__struct_fields__, *ModelRecord.__struct_fields__}
_ENCODER = msgspec.json.Encoder()


@dataclass(slots=True)
class Summary:
    """What a run did. ``unreadable`` rows had no text; ``undecided`` ones had a text that could
    not be judged; ``differing`` ones a shadow policy would have treated otherwise (None: there
    was none). ``down``: {member: rows it was down for}. ``times``: seconds by kind of work, all
    workers together."""

    rows: int = 0
    texts: int = 0
    unreadable: int = 0
    undecided: int = 0
    differing: int | None = None
    actions: Counter[Action] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)
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
        counts = {"actions": dict(self.actions), "down": dict(self.down)}
        return {**dataclasses.asdict(self), **counts}

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add the ``facts`` of other rows of the run."""
        for name in ("rows", "texts", "unreadable", "undecided"):
            setattr(self, name, getattr(self, name) + facts[name])
        if facts["differing"] is not None:
            self.differing = (self.differing or 0) + facts["differing"]
        self.actions.update(facts["actions"])
        self.down.update(facts.get("down", {}))
        for name, seconds in facts["times"].items():
            self.times[name] = self.times.get(name, 0.0) + seconds


def classify(
    rows: Iterable[Row], decide: Decide, out: Path | None, *, progress: Progress | None = None
) -> Summary:
    """Decide ``rows`` as they come and write a JSON line for each to ``out``, or to standard output
    if None; ``guardkit.classify.engine`` does it in parts that can be resumed.

    The file appears under its name only when it is whole. Raises OutputError where it cannot be
    written, and BrokenPipeError where the reader of standard output has gone.
    """
    summary = Summary()
    started = time.perf_counter()
    remaining = iter(rows)
    with _written(out) as write:
        while chunk := list(islice(remaining, CHUNK_ROWS)):
            lines, counted = output_lines(chunk, decide)
            summary.add(counted.facts())
            write(lines)
            summary.seconds = time.perf_counter() - started
            if progress:
                progress("classify", summary.rows, 0, f"{summary.texts_per_s:,.0f} texts/s")
    return summary


def output_lines(rows: Sequence[Row], decide: Decide) -> tuple[bytes, Summary]:
    """Return the JSON lines of rows decided together, and what they came to."""
    records = decide(rows)
    if any(row.kept for row in rows):
        lines = [_with_kept(r, row.kept) for row, r in zip(rows, records, strict=True)]
        body = b"".join(lines)
    else:
        body = _ENCODER.encode_lines(records)
    return body, _counted(rows, records)


def as_errors(rows: Sequence[Row], why: str) -> list[Row]:
    """Return the rows without their texts and with ``why`` as the error of each."""
    return [replace(row, texts=(), origins=(), error=row.error or why) for row in rows]


def by_policy(router: PolicyRouter) -> Decide:
    """Return what decides rows under a policy."""

    def decide(rows: Sequence[Row]) -> Sequence[Record]:
        plain = all(len(r.texts) == 1 and not r.origins and r.error is None for r in rows)
        if plain and not router.heard:
            return router.decide_rows(rows, rounded=True)  # nobody looks at the digits left out
        return [_rounded(decision) for decision in router.decide_rows(rows)]

    return decide


def by_model(model: Model) -> Decide:
    """Return what gives each label's calibrated probability and flags nothing.

    Of a row with several texts, each label's highest, whatever their roles. Raises ArtefactError
    where the model has no calibration.
    """
    model.calibrated()
    return lambda rows: _probabilities(model, rows)


def decision_record(decision: Decision) -> dict[str, Any]:
    """Return a decision as it is written to JSON, probabilities to six significant digits."""
    written = _rounded(decision)
    record = asdict(written)
    record["categories"] = {name: asdict(c) for name, c in written.categories.items()}
    record["route"] = [msgspec.to_builtins(step) for step in written.route]
    for name in ("shadow", "models", "down"):
        if not record[name]:
            del record[name]
    return record


def _rounded(decision: Decision) -> Decision:
    """Return ``decision`` with every score and threshold to six significant digits."""
    categories = {
        name: CategoryDecision(
            c.action, _six_digits(c.score), six_digits(c.threshold), c.decided_by
        )
        for name, c in decision.categories.items()
    }
    route = [replace(step, score=_six_digits(step.score)) for step in decision.route]
    shadow = decision.shadow
    if shadow is not None and "categories" in shadow:
        beside = {
            name: {**c, "score": _six_digits(c["score"]), "threshold": six_digits(c["threshold"])}
            for name, c in shadow["categories"].items()
        }
        shadow = {**shadow, "categories": beside}
    return replace(decision, categories=categories, route=route, shadow=shadow)


def _six_digits(score: float | None) -> float | None:
    return None if score is None else six_digits(score)


def check_kept(names: Sequence[str]) -> None:
    """Refuse fields to carry along that would overwrite fields of the output."""
    if taken := sorted(_RESERVED & set(names)):
        raise UsageError(f"--keep {taken[0]}: the output has a field of this name already")


def _probabilities(model: Model, rows: Sequence[Row]) -> list[Record]:
    texts = [text for row in rows for text in row.texts]
    scored = model.score(texts)
    p_NC, unknown = model.probabilities_of(scored)
    records: list[Record] = []
    end = 0
    for row in rows:
        start, end = end, end + len(row.texts)
        errors = [unknown[i] for i in range(start, end) if i in unknown]
        error = row.error or (errors[0] if errors else None)
        given = None
        if error is None:
            highest_C = p_NC[start:end].max(axis=0)
            given = {x: six_digits(float(p)) for x, p in zip(model.labels, highest_C, strict=True)}
        truncated = bool(scored.truncated_N[start:end].any())
        records.append(ModelRecord(row.id, given, error, truncated, model.hash[:12]))
    return records


def _counted(rows: Sequence[Row], records: Sequence[Record]) -> Summary:
    unreadable = sum([row.error is not None for row in rows])
    undecided = sum(
        record.error is not None and row.error is None
        for row, record in zip(rows, records, strict=True)
    )
    summary = Summary(len(rows), sum(len(row.texts) for row in rows), unreadable, undecided)
    decided = [record for record in records if isinstance(record, Decision)]
    summary.actions = Counter([decision.action for decision in decided])
    summary.down = Counter([member for decision in decided for member in decision.down])
    beside = [(d.action, d.shadow) for d in decided if d.shadow is not None]
    differing = [action != shadow["action"] for action, shadow in beside if "policy" in shadow]
    summary.differing = sum(differing) if differing else None
    return summary


def _with_kept(record: Record, kept: Mapping[str, Any]) -> bytes:
    line = _ENCODER.encode(record)
    return b"%b,%b\n" % (line[:-1], _ENCODER.encode(kept)[1:]) if kept else line + b"\n"


@contextmanager
def _written(out: Path | None) -> Iterator[Callable[[bytes], None]]:
    """Yield what writes to ``out``, a file that takes its name when it is whole, or to standard
    output. What fails there is an OutputError, what fails between two writes is not."""
    with ExitStack() as stack:
        with _reporting(out):
            file = sys.stdout.buffer if out is None else stack.enter_context(replacing(out))

        on_terminal = out is None and sys.stdout.isatty()

        def write(data: bytes) -> None:
            if on_terminal:
                data = visible_json(data, sys.stdout.encoding)
            with _reporting(out):
                file.write(data)
                file.flush()

        yield write
        with _reporting(out):
            stack.close()


@contextmanager
def _reporting(out: Path | None) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody reads on: for the caller to end quietly
        raise
    except OSError as error:
        name = out or "standard output"
        raise OutputError(f"{name}: cannot be written: {error.strerror}") from error
