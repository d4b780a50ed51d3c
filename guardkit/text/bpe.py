"""Byte-level BPE, as GPT-2's (Radford et al. 2019, section 2.2): no unknown tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: A tokenizer's file in a model folder.
TOKENIZER = "tokenizer.json"


def train_bpe(
    texts: Iterable[str], *, vocab_size: int, lower_case: bool, special_tokens: Sequence[str] = ()
) -> Tokenizer:
    """Learn a BPE of at most ``vocab_size`` tokens; deterministic for the same texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    if lower_case:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return read_whole(tokenizer)


def open_tokenizer(file: Path) -> Tokenizer:
    """Read a ``tokenizer.json``; ``read_whole`` says how it reads texts."""
    from tokenizers import Tokenizer

    return read_whole(Tokenizer.from_file(str(file)))


def read_whole(tokenizer: Tokenizer) -> Tokenizer:
    """Return ``tokenizer``, which now cuts nothing off and adds nothing, whatever it was set to;
    who writes a special token's name writes ordinary characters."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
