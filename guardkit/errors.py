"""Every error guardkit raises on purpose.

    GuardkitError
    |-- UsageError              exit 2: something given to us is wrong
    |   |-- InputFileError      a file to classify cannot be read at all
    |   |-- DataError           examples to train or evaluate on
    |   |-- ConfigError         training options
    |   |-- PolicyError         a policy file; carries every mistake found
    |   |-- ArtefactError       a trained model on disk
    |   `-- PluginError         a plugin is missing, broken or misspelt
    |       `-- PluginConflictError   two plugins claim one name
    |-- RunError                exit 3: the work failed under way
    |   |-- ChangedError        a file changed while a run was reading it
    |   |-- ClassifierError     a classifier broke its contract
    |   |   |-- TextError       it cannot score one text of its batch
    |   |   `-- MemberDown      it can score nothing for now
    |   |-- NotJudgedError      a text that waited for its turn was not judged
    |   |   |-- QueueFullError  too much was waiting already
    |   |   |-- DeadlineError   its time was over
    |   |   `-- ClosedError     nothing is judged any more
    |   `-- OutputError         results could not be written
    `-- TrainingInterrupted     exit 130: stopped by the user, resumable

Messages name the file, the field, the value, what was allowed and what to do
next. ``guardkit.cli.main`` is the only place that catches them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

    from guardkit.types import RawScores


class GuardkitError(Exception):
    """Anything guardkit raises on purpose."""

    exit_code = 3


class UsageError(GuardkitError):
    """Something given to guardkit is wrong; nothing was done."""

    exit_code = 2


class InputFileError(UsageError):
    """A file to classify cannot be opened or is of no known format."""


class DataError(UsageError):
    """Training or evaluation examples cannot be used as they are."""


class ConfigError(UsageError):
    """A training option is unknown or out of range."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a policy file."""

    line: int  # 1-based; 0 where the mistake has no line
    field: str  # dotted path, "" for the whole file
    message: str


class PolicyError(UsageError):
    """A policy file has mistakes; ``problems`` holds all of them, by line."""

    def __init__(self, path: str, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = tuple(sorted(problems, key=lambda p: (p.line, p.field)))
        lines = [
            f"{path}:{p.line}: {p.field + ': ' if p.field else ''}{p.message}"
            for p in self.problems
        ]
        count = f"{len(lines)} mistake{'s' if len(lines) != 1 else ''}"
        super().__init__(f"{path}: {count}\n" + "\n".join(lines))


class ArtefactError(UsageError):
    """A trained model on disk is missing, damaged or not what was asked for."""


class PluginError(UsageError):
    """A plugin is missing, failed to import, or does not keep its contract."""


class PluginConflictError(PluginError):
    """Two plugins claim the same name."""


class RunError(GuardkitError):
    """The work failed under way."""


class ChangedError(RunError):
    """A policy, a model or an input is not what it was when the run began: to go on would mix two
    in one output."""

    @classmethod
    def of(cls, path: str, now: str | None, before: str | None) -> ChangedError:
        """Return the error for a file or folder whose SHA-256 is not what it was."""
        return cls(
            f"{path}: has changed since this run began: its SHA-256 is {str(now)[:12]}, it was "
            f"{str(before)[:12]}. Put it back as it was and go on with --resume, or remove the "
            "run's .parts folder and start anew"
        )


class ClassifierError(RunError):
    """A classifier raised, or returned something that is not a score."""


class TextError(ClassifierError):
    """A classifier cannot score one text of its batch; the others are asked about again.

    ``text`` is its position in the batch. Where some texts can be scored in the same call,
    ``RawScores.errors`` is cheaper.
    """

    def __init__(self, text: int, reason: str) -> None:
        super().__init__(reason)
        self.text = text


class MemberDown(ClassifierError):
    """A classifier can score nothing at all for now, such as one behind an endpoint that refuses.

    No text is at fault, so none is tried alone. ``answered`` is what it could score of the batch
    before: texts without finite logits there, and without a reason of their own, were lost to it.
    """

    def __init__(self, reason: str, answered: RawScores | None = None) -> None:
        super().__init__(reason)
        self.answered = answered


class NotJudgedError(RunError):
    """A text that waited for its turn was not judged: it counts as unsafe, or is asked again."""


class QueueFullError(NotJudgedError):
    """Too much was waiting already; ``retry_after_s`` is about how long that takes."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"too many texts are waiting; try again in about {retry_after_s} s")


class DeadlineError(NotJudgedError):
    """The time that a text may take was over before it was judged."""


class ClosedError(NotJudgedError):
    """What judges texts was closed."""


class OutputError(RunError):
    """Results could not be written."""


class Interrupted(GuardkitError):
    """The user stopped the work; what is done is kept, and ``--resume`` goes on."""

    exit_code = 130


class TrainingInterrupted(Interrupted):
    """Training was stopped. A checkpoint was saved."""


class RunInterrupted(Interrupted):
    """A classification was stopped. Its finished shards were saved."""


def first_mistake(error: ValidationError) -> str:
    """Return the first mistake that pydantic found, in one line: field, what is wrong, value."""
    detail = error.errors()[0]
    return f"{'.'.join(map(str, detail['loc']))}: {detail['msg']} (got {detail['input']!r:.80})"
