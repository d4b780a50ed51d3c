"""Byte-level BPE, as GPT-2's: no unknown tokens, offsets into the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TOKENIZER = "tokenizer.json"
#: Opens every window, so that a text's first token is predicted too and an empty text has a
#: state. Never read from a text: someone who writes its name writes ordinary characters.
START = "<|endoftext|>"
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
        special_tokens=[START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / TOKENIZER))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoding]:
    """Encode texts whole: no truncation, padding or special tokens, not even those that a
    text spells out."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer.encode_batch(list(texts), add_special_tokens=False)


def encode_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return each text's token ids."""
    return [np.array(e.ids, np.int32) for e in encode(tokenizer, texts)]
