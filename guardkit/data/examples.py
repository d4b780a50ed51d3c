"""Examples to train and to measure on, from the hub, a folder or files.

    SPEC = hf:NAME | PATH[,PATH...]  then, if needed, ?option=value&option=value

    hf:stanfordnlp/imdb                          a data set of the hub, or a local folder laid
                                                 out like one
    reviews/                                     a folder: train.parquet, validation.csv, ...
    reviews/?split=ood                           its file ood.parquet alone
    mail.csv?text=body&label=folder&where=lang:en|de
                                                 files: one split, ``train``, unless all are
                                                 called after different splits

Options: ``text``, ``label``, ``group`` and ``source`` name columns, ``split`` keeps one split,
``where=COLUMN:VALUE|VALUE`` keeps rows (several: all must hold), ``config`` picks a hub data
set's configuration. A percent sign escapes, as in a URL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from guardkit.errors import DataError
from guardkit.types import UNLABELLED, Examples

if TYPE_CHECKING:
    import datasets

#: What other names for a split mean here; any other split keeps its own name.
SPLITS = {
    "train": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
    "unsup": "unsup", "unsupervised": "unsup",
}  # fmt: skip
#: Columns looked for, in this order, where a spec names none.
COLUMNS = {
    "text": ("text", "prompt", "review", "sentence", "content"),
    "label": ("label", "labels", "sentiment"),
    "group": ("group", "movie"),
    "source": ("source",),
}
_READERS = {".parquet": "parquet", ".csv": "csv", ".jsonl": "json", ".json": "json"}
_SUFFIXES = [*_READERS, *(f"{s}.gz" for s in _READERS if s != ".parquet")]


def load_examples(
    spec: str, *, need_labels: bool = True, base: Path | None = None
) -> dict[str, Examples]:
    """Return the examples of each split, train first; splits without a row are left out.

    Relative paths start at ``base``, else at the current folder. ``label_names`` are the labels
    seen in any of the splits, sorted, the same for all of them.
    A split other than ``unsup`` must have a label column unless ``need_labels`` is false.
    Raises DataError, which names the file, the row and the columns there are.
    """
    wanted = replace(_parse(spec), base=base or Path())
    splits: dict[str, list[_Table]] = {}
    with _quiet_datasets():
        for split, name, dataset in _datasets(wanted):
            optional = split == "unsup" or not need_labels
            table = _read(f"{name}, split {split}", dataset, wanted, label_optional=optional)
            splits.setdefault(split, []).append(table)
    names = {label for tables in splits.values() for t in tables for label in t.labels if label}
    ordered = tuple(sorted(names, key=_number_aware))
    loaded = {split: _examples(tables, ordered) for split, tables in splits.items()}
    if not any(len(examples) for examples in loaded.values()):
        why = f"no row fits where={_shown(wanted.where)}" if wanted.where else "it has no rows"
        raise DataError(f"{spec}: {why}")
    first = dict.fromkeys(SPLITS.values())  # train, validation, test, unsup, then the others
    return {s: loaded[s] for s in [*first, *loaded] if s in loaded and len(loaded[s])}


def check_spec(spec: str) -> None:
    """Raise DataError where ``spec`` is not written as one; reads nothing."""
    _parse(spec)


def load_split(spec: str, split: str | None, *, default: str = "test") -> tuple[str, Examples]:
    """Return (name, examples) of one split: ``split``, else ``default``, else the only one."""
    if split is not None:
        spec = f"{spec}{'&' if '?' in spec else '?'}split={quote(split)}"
    splits = load_examples(spec)
    if len(splits) > 1 and default not in splits:
        raise DataError(f"{spec}: has {', '.join(splits)}; choose one with --split")
    name = default if default in splits else next(iter(splits))
    return name, splits[name]


@dataclass(frozen=True, slots=True)
class _Spec:
    given: str
    location: str
    hub: bool
    columns: Mapping[str, str] = field(default_factory=dict)  # text, label, group, source
    split: str | None = None
    config: str | None = None
    where: Sequence[tuple[str, frozenset[str]]] = ()
    base: Path = Path()  # where relative paths start


@dataclass(frozen=True, slots=True)
class _Table:
    """One file, or one split of a hub data set, as columns of Python values."""

    texts: list[str]
    labels: list[str | None]
    groups: list[str]  # "" where a row has none
    sources: list[str]


def _parse(spec: str) -> _Spec:
    location, _, query = spec.partition("?")
    columns: dict[str, str] = {}
    single: dict[str, str] = {}
    where: list[tuple[str, frozenset[str]]] = []
    for option in query.split("&") if query else []:
        key, equals, value = (unquote(piece) for piece in option.partition("="))
        column, colon, values = value.partition(":")
        if not equals or not value or (key == "where" and not colon):
            raise DataError(f"{spec}: expected key=value or where=COLUMN:VALUE, got {option!r}")
        if key == "where":
            where.append((column, frozenset(values.split("|"))))
        elif key in COLUMNS:
            columns[key] = value
        elif key in ("split", "config"):
            single[key] = value
        else:
            known = ", ".join([*COLUMNS, "split", "where", "config"])
            raise DataError(f"{spec}: unknown option {key!r}; known: {known}")
    hub = location.startswith("hf:")
    location = location.removeprefix("hf:")
    if not location:
        raise DataError(f"{spec}: names no data set; expected hf:NAME or a path")
    return _Spec(spec, location, hub, columns, single.get("split"), single.get("config"), where)


def _datasets(spec: _Spec) -> Iterator[tuple[str, str, datasets.Dataset]]:
    """Yield (split, name for messages, data set)."""
    path = spec.base / Path(spec.location).expanduser()
    if spec.hub or (path.is_dir() and not _split_files(path, spec)):
        yield from _hub_splits(spec, str(path) if path.is_dir() else spec.location)
        return
    if path.is_dir():
        files = _split_files(path, spec)
    else:
        names = [spec.location] if path.exists() else spec.location.split(",")
        files = [spec.base / Path(name.strip()).expanduser() for name in names]
    stems = [_stem(file) for file in files]
    if path.is_dir() or (len(set(stems)) > 1 and all(stem in SPLITS for stem in stems)):
        for split, i in _choose(spec, stems).items():
            yield split, str(files[i]), _read_file(files[i])
    elif spec.split is not None:
        raise DataError(f"{spec.given}: split= chooses from a folder or a hub data set")
    else:  # files named one by one are simply the data: test.csv alone may well be trained on
        for file in files:
            yield "train", str(file), _read_file(file)


def _hub_splits(spec: _Spec, name: str) -> Iterator[tuple[str, str, datasets.Dataset]]:
    import datasets

    try:
        found = datasets.load_dataset(name, spec.config)
    except Exception as error:  # datasets raises many kinds; each is shown
        raise DataError(f"{spec.given}: {_reason(error)}") from error
    names = [str(split) for split in found]
    for split, i in _choose(spec, names).items():
        yield split, spec.given, found[names[i]]


def _split_files(folder: Path, spec: _Spec) -> list[Path]:
    """Return the data files to choose splits from: none if none is called after a split."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and _reader(p)]
    named = [p for p in files if _stem(p) in SPLITS]
    if spec.split is None:
        return named
    return files if named or any(_stem(p) == spec.split for p in files) else []


def _choose(spec: _Spec, names: Sequence[str]) -> dict[str, int]:
    """Return split -> position in ``names``: of all of them, or of the one asked for."""
    chosen = list(range(len(names)))
    if spec.split is not None:
        same = [i for i in chosen if SPLITS.get(names[i], names[i]) == SPLITS.get(spec.split)]
        chosen = [i for i in chosen if names[i] == spec.split] or same
    splits: dict[str, int] = {}
    for i in chosen:
        split = SPLITS.get(names[i], names[i])
        if split in splits:
            raise DataError(
                f"{spec.given}: {names[splits[split]]!r} and {names[i]!r} both mean {split!r}; "
                "choose with ?split=, or name files, separated by commas"
            )
        splits[split] = i
    if not splits:
        raise DataError(f"{spec.given}: no split {spec.split!r}; there are {', '.join(names)}")
    return splits


def _read_file(path: Path) -> datasets.Dataset:
    import datasets

    reader = _reader(path)
    if reader is None:
        raise DataError(f"{path}: cannot read this kind of file; known: {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    # a cell that says NA or None is text; only an empty cell is empty
    options: dict[str, Any] = {"keep_default_na": False} if reader == "csv" else {}
    try:
        read = getattr(datasets.Dataset, f"from_{reader}")
        data: datasets.Dataset = read(str(path.resolve()), **options)
    except StopIteration as error:  # what datasets makes of an empty file
        raise DataError(f"{path}: the file is empty") from error
    except Exception as error:  # datasets raises many kinds; each is shown
        raise DataError(f"{path}: {_reason(error)}") from error
    return data


def _read(name: str, dataset: datasets.Dataset, spec: _Spec, *, label_optional: bool) -> _Table:
    text = _column("text", name, dataset, spec, optional=False)
    label = _column("label", name, dataset, spec, optional=label_optional)
    group = _column("group", name, dataset, spec, optional="group" not in spec.columns)
    source = _column("source", name, dataset, spec, optional="source" not in spec.columns)
    texts = dataset[text][:]
    labels = _labels(name, dataset, label) if label else [None] * len(dataset)
    groups, sources = _strings(dataset, group), _strings(dataset, source)
    keep = list(range(len(dataset)))
    for column, values in spec.where:
        if column not in dataset.column_names:
            raise DataError(f"{name}: where={column}: no such column; {_columns(dataset)}")
        cells = _names(dataset, column)
        keep = [i for i in keep if str(cells[i]) in values]
    for i in keep:
        if not isinstance(texts[i], str):
            raise DataError(
                f"{name}, row {i + 1}: column {text!r} holds {texts[i]!r}, not a text; mend or "
                "drop the row, or name another column with ?text="
            )
    return _Table(
        [texts[i] for i in keep],
        [labels[i] for i in keep],
        [groups[i] for i in keep],
        [sources[i] for i in keep],
    )


def _column(
    kind: str, name: str, dataset: datasets.Dataset, spec: _Spec, *, optional: bool
) -> str | None:
    wanted = [spec.columns[kind]] if kind in spec.columns else list(COLUMNS[kind])
    for column in wanted:
        if column in dataset.column_names:
            return column
    if optional:
        return None
    raise DataError(
        f"{name}: no {kind} column ({' or '.join(wanted)}); {_columns(dataset)}. "
        f"Name it with ?{kind}=COLUMN"
    )


def _labels(name: str, dataset: datasets.Dataset, column: str) -> list[str | None]:
    """Return label names; -1, null and an empty cell mean unlabelled."""
    labels: list[str | None] = []
    for i, value in enumerate(_names(dataset, column)):
        if isinstance(value, float) and value.is_integer():  # integers beside nulls
            value = int(value)
        if value is not None and not isinstance(value, (str, int)):
            raise DataError(
                f"{name}, row {i + 1}: column {column!r} holds {value!r}; a label is a name or a "
                "whole number. Name another column with ?label="
            )
        labels.append(None if value is None or str(value) in ("-1", "") else str(value))
    return labels


def _names(dataset: datasets.Dataset, column: str) -> list[Any]:
    """Return a column's values, a ClassLabel's integers as their names."""
    values: list[Any] = dataset[column][:]
    names = getattr(dataset.features[column], "names", None)
    if names is None:
        return values
    return [None if v is None or v == UNLABELLED else names[v] for v in values]


def _strings(dataset: datasets.Dataset, column: str | None) -> list[str]:
    if column is None:
        return [""] * len(dataset)
    return ["" if value is None else str(value) for value in _names(dataset, column)]


def _examples(tables: Sequence[_Table], names: tuple[str, ...]) -> Examples:
    index = {label: i for i, label in enumerate(names)}
    groups = [group for table in tables for group in table.groups]
    sources = [source for table in tables for source in table.sources]
    labels = [index[x] if x else UNLABELLED for table in tables for x in table.labels]
    return Examples(
        texts=[text for table in tables for text in table.texts],
        labels_N=np.array(labels, np.int64),
        label_names=names,
        groups=groups if any(groups) else (),
        sources=sources if any(sources) else (),
    )


def _reader(path: Path) -> str | None:
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    reader = _READERS.get(Path(plain).suffix)
    return None if name != plain and reader == "parquet" else reader


def _stem(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).stem


def _number_aware(label: str) -> tuple[bool, int, str]:
    """Sort names as text, but 2 before 10."""
    number = label.lstrip("-").isdecimal()
    return (not number, int(label) if number else 0, label)


def _columns(dataset: datasets.Dataset) -> str:
    return f"its columns: {', '.join(dataset.column_names)}"


def _shown(where: Sequence[tuple[str, frozenset[str]]]) -> str:
    return " and ".join(f"{column}:{'|'.join(sorted(values))}" for column, values in where)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error  # datasets says "an error occurred"; its cause says which
    return f"{type(cause).__name__}: {cause}"


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Turn off the progress bars of ``datasets`` here, and put them back as they were."""
    import datasets

    were_on = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_on:
            datasets.enable_progress_bars()
