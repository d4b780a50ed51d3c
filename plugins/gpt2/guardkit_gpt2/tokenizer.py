"""How GPT-2 reads text: byte-level BPE, every window opened by one token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from guardkit import TOKENIZER, open_tokenizer

#: Opens every window, so that a text's first token is predicted too and an empty text has a
#: state. Never read from a text: someone who writes its name writes ordinary characters.
START = "<|endoftext|>"
TokenIds = npt.NDArray[np.int32]


def read_tokenizer(folder: Path) -> Tokenizer:
    return open_tokenizer(folder / TOKENIZER)


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Encode texts whole, without special tokens."""
    return tokenizer.encode_batch(list(texts), add_special_tokens=False)


def encode_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return each text's token ids."""
    return [np.array(e.ids, np.int32) for e in encode(tokenizer, texts)]
