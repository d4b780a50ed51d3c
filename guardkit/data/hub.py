"""Data sets of the Hugging Face hub, and local folders laid out like them, by ``datasets``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guardkit.data.spec import Spec
from guardkit.data.table import Table, choose_columns, table_of
from guardkit.errors import DataError

if TYPE_CHECKING:
    import datasets

_BATCH_ROWS = 1024


@contextmanager
def open_data_set(spec: Spec, folder: Path | None) -> Iterator[Mapping[str, datasets.Dataset]]:
    """Open the data set that ``spec`` names, or the local ``folder``: {split: data set}.

    What was fetched from the hub stays in its cache; of a local folder nothing stays anywhere.
    """
    import datasets

    with ExitStack() as stack:
        stack.enter_context(_quiet())
        cache = None
        if folder is not None:
            made = tempfile.TemporaryDirectory(prefix="guardkit-", ignore_cleanup_errors=True)
            cache = stack.enter_context(made)
        name = spec.location if folder is None else str(folder)
        try:
            found = datasets.load_dataset(name, spec.config, cache_dir=cache)
        except Exception as error:  # datasets raises many kinds; each is shown
            raise DataError(f"{spec.given}: {_reason(error)}") from error
        yield {str(split): data for split, data in found.items()}


def read_split(name: str, data: datasets.Dataset, spec: Spec, *, label_optional: bool) -> Table:
    """Read the rows of one split that ``spec`` keeps."""
    columns = choose_columns(name, data.column_names, spec, label_optional=label_optional)
    names = {
        column: data.features[column].names
        for column in columns.names()
        if hasattr(data.features[column], "names")
    }

    def rows() -> Iterator[tuple[int, Mapping[str, Any]]]:
        number = 0
        wanted = data.select_columns(columns.names()).with_format("arrow")
        for batch in wanted.iter(_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row

    return table_of(name, rows(), columns, names)


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error  # datasets says "an error occurred"; its cause says which
    return f"{type(cause).__name__}: {cause}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Turn off the progress bars of ``datasets`` here, and put them back as they were."""
    import datasets

    were_on = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_on:
            datasets.enable_progress_bars()
