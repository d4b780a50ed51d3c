"""Each feature of labelled text as a column: which of a few values every text has.

Shape letters: N texts, V values of a feature, C labels, P phrases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from guardkit.audit.findings import GIVES_AWAY, LEAST_GROUPS, SOURCE
from guardkit.audit.measure import Float64, gap, lean
from guardkit.audit.phrases import Phrase, anywhere, at_the_ends
from guardkit.audit.shortcuts import FEATURES, NO
from guardkit.metrics import group_index
from guardkit.types import Examples, IntArray

#: Phrases that are reported.
PHRASES = 20
#: Ranges that a number is cut into, of about equally many texts.
RANGES = 8
#: Two phrases at one place that share this much of their texts are one.
_SAME = 0.8
_SOURCE_HINT = "add texts of every label from each source; choose models by leaving sources out"
_PHRASE_HINT = "add the same texts without these words, or texts of the other labels with them"


@dataclass(frozen=True)
class Column:
    """A feature of every text: ``value_N`` indexes ``names``; see ``shortcuts.Feature``."""

    name: str
    subject: str
    names: Sequence[str]
    value_N: IntArray
    hint: str
    at: Callable[[str], int] = lambda text: 0
    is_phrase: bool = False


def feature_columns(examples: Examples) -> Iterator[Column]:
    """Yield the features that are not the same in every text, the source among them."""
    for feature in FEATURES:
        found = [feature.of(text) for text in examples.texts]
        if feature.unit is not None:
            names, value_N = _ranges(np.array(found, np.float64), feature.unit)
        else:
            names, value_N = _kinds([str(x) for x in found])
        if len(names) > 1:
            subject = feature.subject or feature.name
            yield Column(feature.name, subject, names, value_N, feature.hint, feature.at)
    if len(set(examples.sources)) > 1:
        names, value_N = _kinds([source or "(none)" for source in examples.sources])
        yield Column(SOURCE, SOURCE, names, value_N, _SOURCE_HINT)


def phrase_columns(examples: Examples, groups: Sequence[str], *, quick: bool) -> Iterator[Column]:
    """Yield the phrases that almost give a label away, most widespread first: ``PHRASES`` of
    them, none in much the same texts as another."""
    found = at_the_ends(examples.texts, least=LEAST_GROUPS)
    if not quick:
        found += anywhere(examples.texts, least=LEAST_GROUPS)
    n_labels = len(examples.label_names)
    size_C = np.bincount(examples.labels_N, minlength=n_labels)
    with_PC = np.array(
        [np.bincount(examples.labels_N[phrase.rows], minlength=n_labels) for phrase in found]
    ).reshape(-1, n_labels)
    lean_PC, gap_PC = lean(with_PC, size_C), gap(with_PC, size_C)
    best_P = lean_PC.argmax(axis=1)
    rows = np.arange(len(found))
    group_N = group_index(groups)
    kept: list[Phrase] = []
    # of phrases in the same texts the longest one says most
    for p in np.lexsort([[-len(x.words) for x in found], -gap_PC[rows, best_P]]).tolist():
        phrase = found[p]
        if (
            lean_PC[p, best_P[p]] < GIVES_AWAY
            or len(np.unique(group_N[phrase.rows])) < LEAST_GROUPS
            or any(_same(phrase, other) for other in kept)
        ):
            continue
        kept.append(phrase)
        value_N = np.ones(len(examples), np.int64)
        value_N[phrase.rows] = 0
        yield Column(
            phrase.where, phrase.where, (phrase.words, "without"), value_N, _PHRASE_HINT,
            at=partial(_position, phrase), is_phrase=True,
        )  # fmt: skip
        if len(kept) == PHRASES:
            return


def _kinds(found: Sequence[str]) -> tuple[list[str], IntArray]:
    # "no" last: of a yes and a no that tell the same the first one is shown
    names = sorted(set(found), key=lambda name: (name == NO, name))
    place = {name: v for v, name in enumerate(names)}
    return names, np.array([place[name] for name in found], np.int64)


def _ranges(x_N: Float64, unit: str) -> tuple[list[str], IntArray]:
    """Cut numbers into ranges of about equally many texts; equal numbers stay together."""
    edges = np.unique(np.quantile(x_N, np.linspace(0, 1, RANGES + 1)[1:-1], method="lower"))
    _, value_N = np.unique(np.searchsorted(edges, x_N), return_inverse=True)
    names = []
    for v in range(value_N.max() + 1):
        ends = (x_N[value_N == v].min(), x_N[value_N == v].max())
        low, high = (f"{x:,.0f}{unit}" for x in ends)
        names.append(low if low == high else f"{low} to {high}")
    return names, value_N


def _position(phrase: Phrase, text: str) -> int:
    if phrase.where != "anywhere":
        return 0 if phrase.where == "first words" else len(text)
    found = re.search(r"\W+".join(map(re.escape, phrase.words.split(" "))), text.lower())
    return found.start() if found else 0


def _same(phrase: Phrase, other: Phrase) -> bool:
    both = len(np.intersect1d(phrase.rows, other.rows, assume_unique=True))
    either = len(phrase.rows) + len(other.rows) - both
    return phrase.where == other.where and both >= _SAME * either
