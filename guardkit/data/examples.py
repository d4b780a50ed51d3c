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
set's configuration, ``delimiter=`` (a character, or tab) says what separates the fields of CSV
files where none of ``,`` ``;`` tab ``|`` makes the text a column. A percent sign escapes, as in a
URL.

Files are read where they are and as they were written (``data.reader``); only what comes from the
hub is kept in the cache of ``datasets``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np

from guardkit.data.files import kind_of, stem_of
from guardkit.data.reader import KINDS
from guardkit.data.spec import Spec, parse_spec
from guardkit.data.table import Table, read_file
from guardkit.errors import DataError
from guardkit.types import UNLABELLED, Examples

#: What other names for a split mean here; any other split keeps its own name.
SPLITS = {
    "train": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test",
    "unsup": "unsup", "unsupervised": "unsup",
}  # fmt: skip
#: A longer row of digits is sorted as the name it is.
_LONGEST_NUMBER = 100


def load_examples(
    spec: str, *, need_labels: bool = True, base: Path | None = None
) -> dict[str, Examples]:
    """Return the examples of each split, train first; splits without a row are left out.

    Relative paths start at ``base``, else at the current folder. ``label_names`` are the labels
    seen in any of the splits, sorted, the same for all of them.
    A split other than ``unsup`` must have a label column unless ``need_labels`` is false.
    Raises DataError, which names the file, the row and the columns there are.
    """
    wanted = parse_spec(spec, base)
    splits: dict[str, list[Table]] = {}
    for split, table in _tables(wanted, need_labels=need_labels):
        splits.setdefault(split, []).append(table)
    names = {label for tables in splits.values() for t in tables for label in t.labels if label}
    ordered = tuple(sorted(names, key=_number_aware))
    loaded = {split: _examples(tables, ordered) for split, tables in splits.items()}
    if not any(len(examples) for examples in loaded.values()):
        why = f"no row fits where={wanted.conditions()}" if wanted.where else "it has no rows"
        raise DataError(f"{spec}: {why}")
    first = dict.fromkeys(SPLITS.values())  # train, validation, test, unsup, then the others
    return {s: loaded[s] for s in [*first, *loaded] if s in loaded and len(loaded[s])}


def check_spec(spec: str) -> None:
    """Raise DataError where ``spec`` is not written as one; reads nothing."""
    parse_spec(spec)


def load_split(spec: str, split: str | None, *, default: str = "test") -> tuple[str, Examples]:
    """Return (name, examples) of one split: ``split``, else ``default``, else the only one."""
    if split is not None:
        spec = f"{spec}{'&' if '?' in spec else '?'}split={quote(split)}"
    splits = load_examples(spec)
    if len(splits) > 1 and default not in splits:
        raise DataError(f"{spec}: has {', '.join(splits)}; choose one with --split")
    name = default if default in splits else next(iter(splits))
    return name, splits[name]


def _tables(spec: Spec, *, need_labels: bool) -> Iterator[tuple[str, Table]]:
    """Yield each split's name and rows."""
    path = spec.base / Path(spec.location).expanduser()
    if spec.hub or (path.is_dir() and not _split_files(path, spec)):
        yield from _hub_tables(spec, path, need_labels=need_labels)
        return
    if path.is_dir():
        files = _split_files(path, spec)
    else:
        names = [spec.location] if path.exists() else spec.location.split(",")
        files = [spec.base / Path(name.strip()).expanduser() for name in names]
    stems = [stem_of(file) for file in files]
    if path.is_dir() or (len(set(stems)) > 1 and all(stem in SPLITS for stem in stems)):
        chosen = [(split, files[i]) for split, i in _choose(spec, stems).items()]
    elif spec.split is not None:
        raise DataError(f"{spec.given}: split= chooses from a folder or a hub data set")
    else:  # files named one by one are simply the data: test.csv alone may well be trained on
        chosen = [("train", file) for file in files]
    for split, file in chosen:
        optional = split == "unsup" or not need_labels
        yield split, read_file(file, split, spec, label_optional=optional)


def _hub_tables(spec: Spec, path: Path, *, need_labels: bool) -> Iterator[tuple[str, Table]]:
    from guardkit.data.hub import open_data_set, read_split

    folder = path if path.is_dir() else None
    with open_data_set(spec, folder) as found:
        names = list(found)
        for split, i in _choose(spec, names).items():
            optional = split == "unsup" or not need_labels
            name = f"{spec.given}, split {split}"
            yield split, read_split(name, found[names[i]], spec, label_optional=optional)


def _split_files(folder: Path, spec: Spec) -> list[Path]:
    """Return the data files to choose splits from: none if none is called after a split."""
    files = [p for p in sorted(folder.iterdir()) if p.is_file() and kind_of(p) in KINDS]
    named = [p for p in files if stem_of(p) in SPLITS]
    if spec.split is None:
        return named
    return files if named or any(stem_of(p) == spec.split for p in files) else []


def _choose(spec: Spec, names: Sequence[str]) -> dict[str, int]:
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


def _examples(tables: Sequence[Table], names: tuple[str, ...]) -> Examples:
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


def _number_aware(label: str) -> tuple[bool, int, str]:
    """Sort names as text, but 2 before 10."""
    number = len(label) < _LONGEST_NUMBER and label.lstrip("-").isdecimal()
    return (not number, int(label) if number else 0, label)
