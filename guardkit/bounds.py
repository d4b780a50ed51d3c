"""How large what others made may be: what is larger is refused before it takes memory or time.

Each limit is far above what honest files need (the condition stands beside it), and low enough that
what is just below it is read in about a second and 200 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from guardkit.errors import ArtefactError

MIB = 2**20
#: Characters of a text, with its other readings, that are scored where nobody says otherwise.
MAX_CHARACTERS = 250_000
#: Texts of one line: a conversation of a thousand messages and calls has some thousands.
MAX_TEXTS = 2**16
#: Values of a JSON field that is read whole: about 100 MB as Python holds them.
MAX_JSON_VALUES = 2**20
#: What a reading costs beside its own characters: a short line takes a model as long as this many.
READING_COST = 64
#: A model card is read by people: those of the bundled models have 3 kB.
MAX_CARD_BYTES = MIB
#: What a user gives to open one: the rest of the card has room beside it.
MAX_CARD_OPENING_BYTES = MIB // 2
#: A longer card is shown as it is written: Markdown takes a second for so much (2 cores).
MARKDOWN_CHARACTERS = MIB // 8
#: config.json, calibration.json, novelty.json (18 bytes a text of calibration), metrics.json,
#: SHA256SUMS: 0.03 MB at most in the bundled models.
MAX_RECORD_BYTES = 16 * MIB
#: tokenizer.json: 0.3 MB in the bundled models, 33 MB with the 256,000 tokens of Gemma.
MAX_TOKENIZER_BYTES = 64 * MIB
#: What safetensors say of their tensors, about 100 bytes each; in a model of ours 100 tensors.
MAX_TENSORS_HEADER_BYTES = 4 * MIB
#: What the texts of a batch of parquet rows may grow to when dictionary and repetition are
#: unpacked, where that is more than PARQUET_GROWTH times what they are packed.
MAX_PARQUET_BATCH_BYTES = 64 * MIB
PARQUET_GROWTH = 16
#: What a parquet file says of its parts, about 100 bytes for a column of a row group.
MAX_PARQUET_FOOTER_BYTES = 16 * MIB
#: Pages of a column in a row group: of 8 kB, the smallest in use, half a gigabyte.
MAX_PARQUET_PAGES = 2**16
#: Values of a column of lists in a row group, where that is more than PARQUET_GROWTH a byte.
MAX_PARQUET_VALUES = 2**23
#: Rows that a byte of a parquet file may stand for: runs of one text take no room.
MAX_PARQUET_ROWS_A_BYTE = 2**14
#: So many values of a network (64 MiB of float32) are made whatever its files hold.
SMALL_NETWORK_VALUES = 2**24


def check_network_size(files: Sequence[Path], values: int) -> None:
    """Raise ArtefactError where a network of at least ``values`` numbers cannot be what ``files``
    hold, a byte for each: its sizes in config.json are wrong, and it is not built to find out."""
    held = sum(file.stat().st_size for file in files if file.is_file())
    if values > max(held, SMALL_NETWORK_VALUES):
        raise ArtefactError(
            f"{files[0].parent / 'config.json'}: network: its sizes ask for {values:,} weights or "
            f"more, and {', '.join(file.name for file in files)} can hold {held:,} at most"
        )


def check_model_file(path: Path) -> None:
    """Raise ArtefactError where a file of a model is larger than its kind may be."""
    size = path.stat().st_size
    if path.suffix == ".safetensors":
        with path.open("rb") as file:
            # a damaged file may say anything; who reads it sees that it is not that long
            size = min(size, int.from_bytes(file.read(8), "little"))
        limit, what = MAX_TENSORS_HEADER_BYTES, "a list of tensors"
    elif path.suffix == ".md":
        limit, what = MAX_CARD_BYTES, "a model card"
    elif path.name == "tokenizer.json":
        limit, what = MAX_TOKENIZER_BYTES, "a tokenizer"
    elif path.suffix in (".json", ""):
        limit, what = MAX_RECORD_BYTES, "a model's record"
    else:  # an exported network is as large as its weights
        return
    if size > limit:
        raise ArtefactError(
            f"{path}: {what} of {size:,} bytes; at most {limit:,} are read. Take a copy from where "
            "the model was published"
        )
