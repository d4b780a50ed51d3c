"""A byte-level BPE tokenizer of the model's own, or the one that public weights came with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Encoding, Tokenizer, decoders, models, pre_tokenizers

from guardkit import TOKENIZER, ConfigError, open_tokenizer, read_whole
from guardkit_mdlm.token_ids import TokenIds
from guardkit_mdlm.weights.hub import from_hub

#: The files of GPT-2's tokenizer as it was first published.
GPT2_FILES = ("vocab.json", "merges.txt")


def read_tokenizer(folder: Path) -> Tokenizer:
    return open_tokenizer(folder / TOKENIZER)


def find_tokenizer(source: str) -> Tokenizer:
    """Load the tokenizer of public weights, from a folder or the hub.

    The folder holds tokenizer.json, or GPT-2's vocab.json and merges.txt. Raises ConfigError,
    or ArtefactError where the hub cannot give it.
    """
    folder = Path(source) if Path(source).is_dir() else from_hub(source, [TOKENIZER])
    try:
        if (folder / TOKENIZER).is_file():
            tokenizer = read_tokenizer(folder)
        else:
            tokenizer = read_whole(_gpt2(*(str(folder / name) for name in GPT2_FILES)))
    except Exception as error:  # what the tokenizers library raises has no other class
        raise ConfigError(
            f"tokenizer {source!r}: cannot be read: {error}. The folder must hold {TOKENIZER}, or "
            f"{' and '.join(GPT2_FILES)}"
        ) from error
    return tokenizer


def check_vocabulary(tokenizer: Tokenizer, mask_id: int, source: str) -> None:
    """Raise ConfigError unless ``tokenizer`` numbers the tokens of a network with ``mask_id``.

    In the public code's networks MASK is the one token that the tokenizer does not have.
    """
    if (size := tokenizer.get_vocab_size()) != mask_id:
        raise ConfigError(
            f"tokenizer {source!r}: has {size:,} tokens, the network {mask_id:,} besides MASK: it "
            "was trained with another"
        )


def token_id(tokenizer: Tokenizer, token: str, source: str) -> int:
    """Return the id of ``token``. Raises ConfigError where there is none."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ConfigError(f"tokenizer {source!r}: has no token {token!r}")
    return int(found)


def _gpt2(vocab: str, merges: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE.from_file(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """Return each text's token ids, without special tokens."""
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(e.ids, np.int32) for e in encoded]


def encode_with_offsets(tokenizer: Tokenizer, text: str) -> Encoding:
    """Encode one text with each token's (start, end) in characters."""
    return tokenizer.encode(text, add_special_tokens=False)
