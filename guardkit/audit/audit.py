"""Which features of labelled text tell the label though they should not: length, signs, format...

The features are in ``shortcuts``, how well one tells a label in ``audit_measure``.

Shape letters: N texts, V values of a feature, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from guardkit.audit.columns import Column, feature_columns, phrase_columns
from guardkit.audit.findings import (
    GIVES_AWAY,
    LEAST_GROUPS,
    PHRASE_SHARE,
    QUOTED_CHARACTERS,
    SOURCE,
    TELLS,
    Audit,
    Finding,
    Quote,
    Value,
    one_line,
    percent,
)
from guardkit.audit.measure import Counts, Float64, gap, lean
from guardkit.data.splits import group_folds, group_names
from guardkit.errors import DataError
from guardkit.metrics import Interval, bands, group_index, wilson_interval
from guardkit.types import UNLABELLED, BoolArray, Examples, IntArray

#: Texts that are quoted for each feature.
QUOTED = 3
#: What a quick audit looks at, at most: texts, and characters in all.
QUICK_TEXTS = 2_000
QUICK_CHARACTERS = 1_000_000
#: Resamples at most, and at least; between them texts x features x resamples keep to the budget.
RESAMPLES = (400, 100)
_BUDGET = 300_000_000


def audit(examples: Examples, *, texts: bool = True, quick: bool = False, seed: int = 0) -> Audit:
    """Measure every feature of the labelled ``examples``.

    ``quick`` reads a part of the texts, drawn by chance, and looks for phrases at their ends alone.
    Without ``texts`` none is quoted; phrases are still named. Raises DataError where fewer than
    two labels have texts.
    """
    row_N = np.flatnonzero(examples.labels_N != UNLABELLED)
    n_labelled = len(row_N)
    if quick:
        row_N = row_N[_some(examples, row_N, seed)]
    read = _own_labels(examples.select(row_N))
    if len(read.label_names) < 2:
        seen = ", ".join(map(repr, read.label_names)) or "none"
        raise DataError(f"an audit compares the texts of two labels or more; there is {seen}")
    groups = group_names(read)
    columns = [*feature_columns(read), *phrase_columns(read, groups, quick=quick)]
    most, fewest = RESAMPLES
    affordable = 0 if quick else _BUDGET // (len(read) * max(len(columns), 1))
    resamples = max(min(most, affordable), fewest)
    resampled = _Resampled(read, columns, groups, resamples=resamples, seed=seed)
    group_N = group_index(groups)

    def quote(column: Column, blamed_N: BoolArray) -> list[Quote]:
        return _quotes(read, column, blamed_N, group_N, row_N, texts)

    findings = [
        (column, _finding(k, column, resampled, read.label_names, group_N, quote, read.labels_N))
        for k, column in enumerate(columns)
    ]
    ordered = sorted(findings, key=lambda f: (not f[1].warning, -(f[1].auroc["value"] or 0)))
    return Audit(
        labels={label: int((read.labels_N == c).sum()) for c, label in enumerate(read.label_names)},
        texts=n_labelled,
        read=len(read),
        unlabelled=len(examples) - n_labelled,
        groups=len(set(groups)),
        intervals="resampled groups" if read.groups else "Wilson; of AUROC, resampled texts",
        features=[finding for column, finding in ordered if not column.is_phrase],
        phrases=[finding for column, finding in ordered if column.is_phrase],
    )


def _some(examples: Examples, row_N: IntArray, seed: int) -> IntArray:
    """Return which of the rows a quick audit reads, in order: drawn by chance, and one at least
    of each label."""
    order = np.random.default_rng(seed).permutation(len(row_N))
    _, first = np.unique(examples.labels_N[row_N[order]], return_index=True)
    order = np.concatenate([order[first], np.delete(order, first)])[:QUICK_TEXTS]
    read = np.cumsum([len(examples.texts[i]) for i in row_N[order].tolist()])
    most = max(int(np.searchsorted(read, QUICK_CHARACTERS, "right")), len(first))
    return np.sort(order[:most])


def _own_labels(examples: Examples) -> Examples:
    """Return the examples with those labels alone that one of them has."""
    seen, labels_N = np.unique(examples.labels_N, return_inverse=True)
    names = tuple(examples.label_names[c] for c in seen)
    return replace(examples, labels_N=labels_N.astype(np.int64), label_names=names)


class _Resampled:
    """What resampling says of the columns: AUROC, shares and leans, with 95% intervals."""

    def __init__(
        self,
        examples: Examples,
        columns: Sequence[Column],
        groups: Sequence[str],
        *,
        resamples: int,
        seed: int,
    ) -> None:
        labels_N, n_labels = examples.labels_N, len(examples.label_names)
        fold_N = group_folds(labels_N, groups, seed=seed)
        counts = [
            Counts(x.value_N, labels_N, fold_N, values=len(x.names), labels=n_labels)
            for x in columns
        ]
        plain = [count(np.ones(len(examples))) for count in counts]
        self.size_C = np.bincount(labels_N, minlength=n_labels).astype(np.float64)
        #: Of each column: how many texts have each value and label, whom each value speaks for
        #: most, and which label the column tells best.
        self.with_VC = [with_VC for _, with_VC in plain]
        self.best_V = [lean(with_VC, self.size_C).argmax(axis=1) for with_VC in self.with_VC]
        self.told = [_told(auroc_C, with_VC, self.size_C) for auroc_C, with_VC in plain]
        #: Whether whole groups are resampled for the shares, too; else they are Wilson's.
        self._whole_groups = bool(examples.groups)
        group_N = group_index(groups)
        self._groups_C = [len(np.unique(group_N[labels_N == c])) for c in range(n_labels)]

        def measures(weight_N: Float64) -> Mapping[str, Float64]:
            size_C = np.bincount(labels_N, weights=weight_N, minlength=n_labels)
            values: dict[str, Float64] = {}
            for k, count in enumerate(counts):
                auroc_C, with_VC = count(weight_N)
                every = np.arange(len(with_VC))
                values[f"{k} auroc"] = auroc_C[[self.told[k]]]
                values[f"{k} lean"] = lean(with_VC, size_C)[every, self.best_V[k]]
                with np.errstate(invalid="ignore"):  # a label that was not drawn
                    values[f"{k} share"] = (with_VC / size_C).ravel()
            return values

        self._found = bands(measures, groups, resamples=resamples, seed=seed)

    def auroc(self, k: int) -> Interval:
        return self._interval(f"{k} auroc", 0)

    def lean(self, k: int, v: int) -> Interval:
        return self._interval(f"{k} lean", v)

    def share(self, k: int, v: int, c: int) -> Interval:
        """Return the share of label ``c``'s texts that have value ``v`` of column ``k``."""
        ends = self._interval(f"{k} share", v * len(self.size_C) + c)
        value = ends["value"]
        assert value is not None  # every label has texts
        if not self._whole_groups:
            ends["low"], ends["high"] = wilson_interval(value, int(self.size_C[c]))
        elif value == 0:  # resampling shows no spread: the exact interval, as in metrics.rates
            ends["high"] = 1 - 0.025 ** (1 / self._groups_C[c])
        elif value == 1:
            ends["low"] = 0.025 ** (1 / self._groups_C[c])
        return ends

    def _interval(self, name: str, i: int) -> dict[str, float | None]:
        return {end: values[i] for end, values in self._found[name].items()}


def _finding(
    k: int,
    column: Column,
    resampled: _Resampled,
    names: Sequence[str],
    group_N: IntArray,
    quote: Callable[[Column, BoolArray], list[Quote]],
    labels_N: IntArray,
) -> Finding:
    with_VC, best_V, size_C = resampled.with_VC[k], resampled.best_V[k], resampled.size_C
    values = [
        Value(
            name,
            int(with_VC[v].sum()),
            len(np.unique(group_N[column.value_N == v])),
            {label: resampled.share(k, v, c) for c, label in enumerate(names)},
            names[best_V[v]],
            resampled.lean(k, v),
        )
        for v, name in enumerate(column.names)
    ]
    auroc, told = resampled.auroc(k), resampled.told[k]
    tells = (auroc["low"] or 0) >= TELLS
    v, given_away = _strongest(column, values, with_VC, size_C, told, tells)
    c = int(best_V[v])
    return Finding(
        column.name,
        column.subject,
        names[c if len(names) == 2 else told],
        auroc,
        values[v],
        values[:1] if column.is_phrase else values,
        _warning(auroc, values[v], tells=tells, given_away=given_away),
        _hint(column, names, c, with_VC[v], size_C),
        quote(column, (column.value_N == v) & (labels_N == c)),
    )


def _told(auroc_C: Float64, with_VC: Float64, size_C: Float64) -> int:
    """Return the label that a column tells best; of two, that of the value that tells most."""
    if len(auroc_C) > 2:
        return int(np.nanargmax(auroc_C))
    return int(np.unravel_index(gap(with_VC, size_C).round(9).argmax(), with_VC.shape)[1])


def _strongest(
    column: Column,
    values: Sequence[Value],
    with_VC: Float64,
    size_C: Float64,
    told: int,
    tells: bool,
) -> tuple[int, bool]:
    """Return (the value to show, whether some value gives a label away)."""
    if column.is_phrase:
        share = values[0].shares[values[0].label]["value"] or 0
        return 0, share >= PHRASE_SHARE and _gives_away(values[0])
    gap_VC = gap(with_VC, size_C).round(9)
    away = [v for v, value in enumerate(values) if _gives_away(value)]
    if tells or not away:
        gap_V = gap_VC.max(axis=1) if len(size_C) == 2 else gap_VC[:, told]
        return int(gap_V.argmax()), bool(away)
    return max(away, key=lambda v: values[v].texts), True


def _gives_away(value: Value) -> bool:
    return value.groups >= LEAST_GROUPS and (value.lean["low"] or 0) >= GIVES_AWAY


def _warning(auroc: Interval, value: Value, *, tells: bool, given_away: bool) -> str:
    if tells:
        return f"tells the label: AUROC {auroc['value']:.2f}, at least {auroc['low']:.2f}"
    if given_away:
        return (
            f"gives the label away: at equal numbers of every label, "
            f"{percent(value.lean['value'])} of such texts are {value.label!r}"
        )
    return ""


def _hint(column: Column, names: Sequence[str], c: int, with_C: Float64, size_C: Float64) -> str:
    """Say what would make a value as frequent with label ``c`` as without it: the fewer texts."""
    own, rest = with_C[c], with_C.sum() - with_C[c]
    n_own, n_rest = size_C[c], size_C.sum() - size_C[c]
    others = repr(names[1 - c]) if len(names) == 2 else f"labels other than {names[c]!r}"
    ways = []
    if own < n_own:
        ways.append(((own / n_own * n_rest - rest) / (1 - own / n_own), f"of {others} with it"))
    if rest > 0:
        ways.append((own * n_rest / rest - n_own, f"of {names[c]!r} without it"))
    texts, which = min(ways, default=(0, ""))
    if column.name == SOURCE or texts < 1:  # more texts of one source make it no better
        return column.hint
    return f"about {texts:,.0f} more texts {which} would even it out; {column.hint}"


def _quotes(
    examples: Examples,
    column: Column,
    blamed_N: BoolArray,
    group_N: IntArray,
    row_N: IntArray,
    texts: bool,
) -> list[Quote]:
    """Return some of the texts to blame, of different groups, from all over the data."""
    rows = np.flatnonzero(blamed_N)
    _, first = np.unique(group_N[rows], return_index=True)
    rows = rows[np.sort(first)]
    chosen = rows[np.linspace(0, len(rows) - 1, min(QUOTED, len(rows))).astype(int)]
    return [
        Quote(
            int(row_N[i]) + 1,
            examples.label_names[examples.labels_N[i]],
            examples.sources[i] or None if examples.sources else None,
            _excerpt(examples.texts[i], column.at(examples.texts[i])) if texts else None,
        )
        for i in chosen.tolist()
    ]


def _excerpt(text: str, at: int) -> str:
    """Return what stands around ``at``, in one line, what nobody sees spelt out."""
    start = max(min(at - QUOTED_CHARACTERS // 2, len(text) - QUOTED_CHARACTERS), 0)
    end = start + QUOTED_CHARACTERS
    before, after = "…" if start else "", "…" if end < len(text) else ""
    return f"{before}{one_line(text[start:end])}{after}"
