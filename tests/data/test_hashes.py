"""The hash of texts depends on the texts alone, and on nothing less."""

from __future__ import annotations

from guardkit.data.hashes import text_hash, texts_hash


def test_the_hash_of_texts_tells_apart_where_one_ends_and_the_next_begins() -> None:
    several = [["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "c", ""], ["ab\n1\nc"], []]
    assert len({texts_hash(texts) for texts in several}) == len(several)
    assert texts_hash(["a"], ["b"]) != texts_hash(["a", "b"])
    assert texts_hash(["a"]) == texts_hash(("a",))
    assert texts_hash(["\ud800"]) != texts_hash(["?"])


def test_half_a_character_is_hashed_as_itself() -> None:
    assert text_hash("\ud800") != text_hash("?")
    assert text_hash("a").hex().startswith("ca978112ca1bbdca")
