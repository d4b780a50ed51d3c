"""Each feature says what a reader would say of a text, and takes time linear in its length."""

from __future__ import annotations

import time

import pytest

from guardkit.audit.shortcuts import FEATURES, capital_share, final_sign, first_letter, text_format

OF = {feature.name: feature.of for feature in FEATURES}


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("Yes.", "full stop"),
        ("Yes!", "exclamation mark"),
        ("Yes?", "question mark"),
        ("Yes", "none"),
        ("Yes:", "other sign"),
        ("Yes.  \n", "full stop"),
        ('He said "No."', "full stop"),
        ("(Really?)", "question mark"),
        ("Thanks! 👍", "exclamation mark"),
        ("Thanks 👍🏽", "none"),
        ("好的。", "full stop"),
        ("قال نعم؟", "question mark"),
        ("👍", "none"),
        ("", "none"),
        (" \n", "none"),
    ],
)
def test_the_final_sign_is_seen_through_what_closes_a_text(text: str, sign: str) -> None:
    assert final_sign(text) == sign


@pytest.mark.parametrize(
    ("text", "written_as"),
    [
        ('{"a": [1, 2]}', "JSON"),
        ('\n[{"a": 1}]\n', "JSON"),
        ("{no json}", "plain"),
        ("<p>Hello</p>", "HTML"),
        ("a <!-- note --> b", "HTML"),
        ("1 < 2 and 3 > 2", "plain"),
        ("# Title\n\ntext", "Markdown"),
        ("- one\n- two", "Markdown"),
        ("a **bold** word", "Markdown"),
        ("see [this](https://example.org)", "Markdown"),
        ("| a | b |\n| - | - |", "Markdown"),
        ("```\ncode\n```", "Markdown"),
        ("2 ** 3 and 4 - 5 [sic]", "plain"),
    ],
)
def test_the_format_of_a_text(text: str, written_as: str) -> None:
    assert text_format(text) == written_as


def test_case_is_that_of_letters_of_every_script() -> None:
    assert [first_letter(x) for x in ("Ab", '"éa', "\u00bd Ж", "123 ж", "你", "42")] == [
        "capital", "small", "capital", "small", "no case", "none",
    ]  # fmt: skip
    assert capital_share("ABcd 12") == 50
    assert capital_share("ЁЖ жж") == 50
    assert capital_share("123") == 0
    text = "Straße ÄÖ, ПРИВЕТ you \u01c5 你好"
    letters = [c for c in text if c.isalpha()]
    assert capital_share(text) == pytest.approx(100 * sum(map(str.isupper, text)) / len(letters))


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("emoji", ["hi 👍", "❤️", "a ☀ b"], ["hi :)", "é 你 ©", "1 + 1"]),
        ("capitals only", ["STOP NOW!"], ["Stop", "123"]),
        ("digits", ["in 2024"], ["in may"]),
        ("quotation marks", ['say "x"', "„x“", "«x»"], ["don't", "it\u2019s"]),
        ("brackets", ["a (b)", "a[0]", "{x}"], ["a < b"]),
        ("URL", ["see HTTPS://a.org", "www.a.org"], ["http and www"]),
        ("code fence", ["a\n```py\nb\n```", "~~~\nx"], ["`x`", "a ``` b"]),
        ("leading white space", [" a", "\na"], ["a "]),
        ("trailing white space", ["a ", "a\n"], [" a"]),
        ("carriage returns", ["a\r\nb"], ["a\nb"]),
        ("unseen characters", ["a\u200bb", "a\u202eb", "a\x00"], ["a\r\n\tb", "é 你"]),
    ],
)  # fmt: skip
def test_whether_a_text_has_a_sign(name: str, yes: list[str], no: list[str]) -> None:
    assert [OF[name](text) for text in [*yes, *no]] == ["yes"] * len(yes) + ["no"] * len(no)


@pytest.mark.parametrize(
    "unit", ["[", "<a", "**", "|", "\n", " ", '"', ".)", "👍", "[a](", "- ", "é"]
)
def test_a_long_hostile_text_takes_no_more_than_linear_time(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    start = time.process_time()
    for feature in FEATURES:
        feature.of(text)
        feature.at(text)
    assert time.process_time() - start < 5
