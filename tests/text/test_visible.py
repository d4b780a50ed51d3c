"""What nobody sees is spelt out, and nothing else is touched."""

from __future__ import annotations

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from guardkit.text.visible import has_unseen, visible


@given(st.text())
def test_nothing_unseen_is_left_but_line_ends_and_tabs(text: str) -> None:
    shown = visible(text)
    assert all(
        c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        for c in shown
    )
    assert has_unseen(text) == (shown != text)


def test_letters_of_every_script_stay_as_they_are() -> None:
    letters = "".join(filter(str.isalpha, map(chr, range(sys.maxunicode + 1))))
    assert visible(letters) == letters
    assert visible("a\u202eb\x1b\n") == "a[U+202E]b[U+001B]\n"
