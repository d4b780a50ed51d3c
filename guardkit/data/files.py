"""Files opened for reading: their kind by their name, ``.gz`` and ``.zst`` unpacked as they are
read, nothing copied anywhere."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from guardkit.errors import InputFileError

#: Longer lines are not read into memory; each is one unreadable row.
MAX_LINE_BYTES = 64 * 2**20
BOM = b"\xef\xbb\xbf"
#: What reading on can raise: the disk, a damaged or cut gzip or zstd stream, parquet pages.
DAMAGE = (OSError, EOFError, zlib.error, ValueError)


class CutShort(Exception):
    """A file cannot be read on: ``unit`` (line or row) ``number`` would be the next one."""

    def __init__(self, unit: str, number: int, error: Exception) -> None:
        super().__init__(f"{unit} {number}: cannot be read: {why(error)}")
        self.number = number
        self.reason = f"the file cannot be read from here on: {why(error)}"
        #: The disk or the network failed: at another time it may be read.
        self.passing = isinstance(error, OSError) and bool(error.errno)


def kind_of(path: Path) -> str:
    """Return the suffix that says how ``path`` is read: ``.csv`` of ``Mail.CSV.gz``."""
    return Path(uncompressed_name(path)[0]).suffix.lower()


def stem_of(path: Path) -> str:
    """Return its name without the suffixes of kind and compression."""
    return Path(uncompressed_name(path)[0]).stem


def uncompressed_name(path: Path) -> tuple[str, str | None]:
    """Return the name less ``.gz`` or ``.zst``, and which of them it had."""
    for suffix in (".gz", ".zst"):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)], suffix
    return path.name, None


def open_bytes(path: Path, compression: str | None) -> BinaryIO:
    """Open for reading bytes; the first one is read now, so that a wrong file fails here."""
    try:
        stream = _stream(path, compression)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be opened: {why(error)}") from error
    try:
        stream.peek(1)
    except DAMAGE as error:
        stream.close()
        raise InputFileError(f"{path}: cannot be read: {why(error)}") from error
    return cast(BinaryIO, stream)


def why(error: BaseException) -> str:
    """Return what went wrong, without the path and the number of the system's error."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _stream(path: Path, compression: str | None) -> io.BufferedReader | gzip.GzipFile:
    if compression == ".gz":
        return gzip.GzipFile(path)
    if compression == ".zst":
        # unlike zstandard's reader, pyarrow's reports a stream that was cut short
        import pyarrow as pa

        return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    return path.open("rb")
