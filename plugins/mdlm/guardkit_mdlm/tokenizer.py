"""A byte-level BPE tokenizer of the model's own: no unknown tokens, offsets into the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TOKENIZER = "tokenizer.json"
TokenIds = npt.NDArray[np.int32]


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, lower_case: bool) -> Tokenizer:
    """Learn a BPE of at most ``vocab_size`` tokens; deterministic for the same texts."""
    tokenizer = Tokenizer(models.BPE())
    if lower_case:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / TOKENIZER))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return each text's token ids, without special tokens."""
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(e.ids, np.int32) for e in encoded]


def encode_with_offsets(tokenizer: Tokenizer, text: str) -> Encoding:
    """Encode one text with each token's (start, end) in characters."""
    return tokenizer.encode(text, add_special_tokens=False)
