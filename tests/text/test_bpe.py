"""Byte-level BPE: any text is read whole, whatever a tokenizer's file asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from guardkit import open_tokenizer, train_bpe

TEXTS = ["the cake is good", "the cake is bad", "a good cake"] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(TEXTS, vocab_size=280, lower_case=False, special_tokens=["<end>"])


@given(text=st.text())
def test_what_is_read_can_be_written_again(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_special_tokens_name_in_a_text_is_ordinary_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_to_id("<end>") not in tokenizer.encode("the <end>").ids


def test_the_same_texts_teach_the_same_tokens(tokenizer: Tokenizer) -> None:
    again = train_bpe(TEXTS, vocab_size=280, lower_case=False, special_tokens=["<end>"])
    assert again.to_str() == tokenizer.to_str()


def test_a_file_that_asks_for_truncation_and_padding_gets_neither(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    cutting = Tokenizer.from_str(tokenizer.to_str())
    cutting.enable_truncation(3)
    cutting.enable_padding(length=100)
    cutting.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("a" * 50).ids) == 100
    read = open_tokenizer(tmp_path / "tokenizer.json")
    long, short = "the cake " * 100, "a"
    for text in (long, short):
        ids = read.encode(text, add_special_tokens=False).ids
        assert read.decode(ids, skip_special_tokens=False) == text
