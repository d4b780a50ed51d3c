"""Labels of examples: which examples have one, and whether those who judge them know it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np

from guardkit.errors import DataError
from guardkit.types import UNLABELLED, Examples

#: What to do about labels that nobody knows.
OTHER_ROWS = "keep some rows with ?where=label:A|B, or name another column with ?label="


def labelled(examples: Examples) -> Examples:
    """Return the examples that have a label; ``label_names`` stay as they are."""
    return examples.select(np.flatnonzero(examples.labels_N != UNLABELLED))


def refuse_other_labels(labels: Iterable[str], own: Collection[str]) -> None:
    """Raise DataError where one of ``labels`` is not the model's ``own``."""
    for label in labels:
        if label not in own:
            raise DataError(
                f"the examples have label {label!r}, the model {', '.join(own)}; {OTHER_ROWS}"
            )


def refuse_unknown_labels(
    labels: Iterable[str],
    known: Collection[str],
    *,
    to: str,
    where: str = "the examples have",
    do: str = OTHER_ROWS,
) -> None:
    """Raise DataError where one of ``labels`` is not ``known``.

    The message says ``where`` the label is, ``to`` whom it is unknown, and what to ``do``.
    """
    for label in labels:
        if label not in known:
            raise DataError(
                f"{where} label {label!r}, unknown to {to} "
                f"({', '.join(sorted(known)) or 'none'}); {do}"
            )
