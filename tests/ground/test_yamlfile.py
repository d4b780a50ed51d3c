"""What makes YAML surprising is refused, with its line, quickly."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit.yamlfile import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    REFUSED,
    dotted,
    read_yaml,
    with_values,
)

BILLION_LAUGHS = "a: &a [lol, lol]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

#: name -> content, line of the first problem, a word of its message
REFUSALS: dict[str, tuple[bytes, int, str]] = {
    "alias": (b"a: &x 1\nb: *x\n", 1, "anchors (&x)"),
    "alias alone": (b"a: 1\nb: *x\n", 2, "aliases (*x)"),
    "merge key": (b"a: 1\n<<: *base\n", 2, "aliases"),
    "alias as a key": (b"a: 1\n*x : 2\n", 2, "plain word"),
    "anchor on a key": (b"&k a: 1\n", 1, "anchors"),
    "billion laughs": (BILLION_LAUGHS.encode(), 1, "anchors"),
    "python tag": (b"a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "tags"),
    "python name": (b"a: !!python/name:os.system\n", 1, "tags"),
    "harmless tag": (b"a: !!str 1\n", 1, "tags"),
    "tag on a key": (b"!!str a: 1\n", 1, "tags"),
    "local tag": (b"a:\n  - 1\n  - !secret 2\n", 3, "tags"),
    "duplicate key": (b"a: 1\nb: 2\na: 3\n", 3, "duplicate key; first on line 1"),
    "duplicate key below": (b"a:\n  b: 1\n  b: 2\n", 3, "duplicate"),
    "duplicate by quotes": (b"no: 1\n'no': 2\n", 2, "duplicate"),
    "directive": (b"%YAML 1.1\n---\na: no\n", 1, "directives"),
    "directive of no known version": (b"# first\n%YAML 1.11\n---\na: no\n", 2, "directives"),
    "tag directive": (b"%TAG ! tag:x,2000:\n---\na: 1\n", 1, "directives"),
    "two documents": (b"a: 1\n---\nb: 2\n", 2, "second document"),
    "deep brackets": (b"a:\n  " + b"[" * 3000 + b"]" * 3000, 2, "levels deep"),
    "deep braces": (b"{a: " * 3000, 1, "levels deep"),
    "deep dashes": (b"- " * 3000, 1, "levels deep"),
    "deep keys": ("".join(f"{' ' * i}a:\n" for i in range(200)).encode(), 51, "levels deep"),
    "brackets, 1 MB": (b"[" * 1_000_000, 1, "bytes"),
    "list as a key": (b"a: 1\n? [x]\n: 2\n", 2, "plain word"),
    "50 MB": (b"a" * (50 << 20), 1, "more than 131,072 bytes"),
    "Latin-1": ("a: 1\nb: café\n".encode("latin-1"), 2, "not UTF-8: byte 0xe9"),
    "UTF-16": ("a: 1".encode("utf-16"), 1, "not UTF-8"),
    "NUL": (b"a: 1\nb: \x00\n", 2, "U+0000"),
    "escape character": (b"a: 1\n\nb: \x1b[31m\n", 3, "U+001B"),
    "half a character": (b'a: 1\nb: "\\ud83d"\n', 2, "half a character"),
    "half a character in a key": (b'"\\ud83d": 1\n', 1, "half a character"),
    "no such character": (b'a: 1\nb: "\\U00110000"\n', 2, "no character"),
    "tab": (b"a:\n\tb: 1\n", 2, "not YAML"),
    "open bracket": (b"a: 1\nb: [1, 2\n", 3, "not YAML"),
    "open quote": (b"a: 'x\n", 2, "not YAML"),
    "colon in a value": (b"a: b: c\n", 1, "not YAML: mapping values are not allowed here"),
    "no indent": (b"a:\n  b: 1\n c: 2\n", 3, "not YAML"),
    "empty": (b"", 1, "empty"),
    "only a comment": (b"# nothing\n", 1, "empty"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_trap_is_refused_with_its_line_in_under_100_ms(name: str) -> None:
    content, line, word = REFUSALS[name]
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three
        start = time.perf_counter()
        document = read_yaml(content)
        seconds.append(time.perf_counter() - start)
    assert document.problems
    assert document.problems[0].line == line
    assert word in document.problems[0].message
    assert min(seconds) < 0.1


def test_every_mistake_is_found_at_once() -> None:
    document = read_yaml(b"a: &x 1\nb: *x\nc: !t 2\na: 3\nd: [*x, {e: 1, e: 2}]\n")
    assert [(p.line, p.field) for p in document.problems] == [
        (1, "a"),
        (2, "b"),
        (3, "c"),
        (4, "a"),
        (5, "d[0]"),
        (5, "d[1].e"),
    ]
    assert document.data == {"a": 1, "b": REFUSED, "c": 2, "d": [REFUSED, {"e": 1}]}


def test_endless_mistakes_end() -> None:
    document = read_yaml(b"- *x\n" * 1000)
    assert len(document.problems) == 100


def test_what_yaml_1_1_would_turn_into_something_else_stays_text() -> None:
    traps = [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "12:30:45",
        "010",
        "0o17",
        "0x1F",
        "1_000",
        "2026-01-01",
    ]
    traps += [".inf", ".nan", "1.2.3", "=", "1e", "+", ".", "0b1", "NO", "tRue"]
    document = read_yaml("".join(f"- {trap}\n" for trap in traps).encode())
    assert document.problems == ()
    assert document.data == traps


def test_numbers_booleans_null_and_text_are_told_apart() -> None:
    document = read_yaml(
        b"- 1\n- -3\n- +2\n- 0\n- 0.5\n- .5\n- 5.\n- 1e-3\n- 2.5E+3\n- true\n- False\n- null\n"
        b"- ~\n-\n- '1'\n- \"true\"\n- 'null'\n- |\n  1\n"
    )
    assert document.data == [
        *(1, -3, 2, 0, 0.5, 0.5, 5.0, 1e-3, 2500.0, True, False, None),
        *(None, None, "1", "true", "null", "1\n"),
    ]
    assert [type(value) for value in document.data[:9]] == [int] * 4 + [float] * 5


def test_keys_are_always_text() -> None:
    assert read_yaml(b"1: a\nno: b\nnull: c\n1.5: d\n").data == {
        "1": "a",
        "no": "b",
        "null": "c",
        "1.5": "d",
    }


def test_a_byte_order_mark_and_any_language_are_read() -> None:
    assert read_yaml("\ufeffklíč: 你好 😀\n".encode()).data == {"klíč": "你好 😀"}


def test_the_limits_are_inside_what_is_read() -> None:
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert read_yaml(deep.encode()).problems == ()
    assert "deep" in read_yaml(f"[{deep}]".encode()).problems[0].message
    full = b"- a\n" * (MAX_VALUES - 1)
    assert read_yaml(full).problems == ()
    assert "values" in read_yaml(full + b"- a\n").problems[0].message
    assert read_yaml(b"# " + b"x" * (MAX_BYTES - 8) + b"\na: 1\n").data == {"a": 1}


def test_a_long_number_is_no_integer_of_5000_digits() -> None:
    assert read_yaml(b"9" * 5000).data == float("inf")


def test_every_value_has_its_line() -> None:
    document = read_yaml(b"# a\na:\n  - b: 1\n    c:\n      - 2\n  - {d: 3,\n     e: 4}\n")
    assert document.line(("a",)) == 2
    assert document.line(("a", 0)) == 3
    assert document.line(("a", 0, "c")) == 4
    assert document.line(("a", 0, "c", 0)) == 5
    assert document.line(("a", 1, "e")) == 7
    assert document.line(("a", 1, "missing", "deeper")) == 6, "the nearest value around it"


def test_a_place_is_written_as_people_write_it() -> None:
    assert dotted(("a", 0, "b-c/d")) == "a[0].b-c/d"
    assert dotted(("a", "b\x1b[31m c")) == "a.'b\\x1b[31m c'"
    assert dotted(()) == ""


YAML_LIKE = st.text(alphabet="ab1-:{}[],?&*!|>'\"%#@`~.\\ \n\t\x00é\ud800", max_size=60)


@settings(max_examples=300, derandomize=True, deadline=None, database=None)
@given(
    st.one_of(st.binary(max_size=60), YAML_LIKE.map(lambda s: s.encode("utf-8", "surrogatepass")))
)
def test_no_bytes_make_the_reader_raise(content: bytes) -> None:
    document = read_yaml(content)
    assert document.data is not REFUSED or document.problems


BLOCK = """\
# what it is
tree:
  - one # a comment
  - how: stacked # fitted
    # the parts
    of: [a, "b"]
    weights: # by hand
      - 1
      - 2 # twice
    # what follows
    quorum: 1
end: {x: [1, {how: stacked, of: [a]}], y: 1}
"""


@pytest.mark.parametrize(
    ("text", "place", "changed"),
    [
        (
            BLOCK,
            ("tree", 1),
            [
                ("    # the parts\n", "    # the parts\n    bias: 0.5\n"),
                ("      - 1\n      - 2 # twice", "      [3, 4] # twice"),
            ],
        ),
        (BLOCK, ("end", "x", 1), [("how: stacked, of", "how: stacked, bias: 0.5, "
                                   "weights: [3, 4], of")]),
        ("a: 1\nbias: -1\nweights: [1, 2]  # old\n", (), [("-1", "0.5"), ("[1, 2]", "[3, 4]")]),
        ("{bias: 'x', weights: {a: 1}}", (), [("'x'", "0.5"), ("{a: 1}", "[3, 4]")]),
        ("weights:\nbias:\n", (), [("weights:", "weights: [3, 4]"), ("bias:", "bias: 0.5")]),
        ("a: 1\r\nb: 2\r\n", (), [("b: 2", "bias: 0.5\nweights: [3, 4]\nb: 2")]),
    ],
)  # fmt: skip
def test_values_are_set_and_everything_else_stays(
    text: str, place: tuple[str | int, ...], changed: list[tuple[str, str]]
) -> None:
    expected = text
    for old, new in changed:
        assert old in expected
        expected = expected.replace(old, new, 1)
    written = with_values(text, place, {"bias": "0.5", "weights": "[3, 4]"})
    assert written == expected
    document = read_yaml(written.encode())
    assert document.problems == ()
    node, before = document.data, read_yaml(text.encode()).data
    for part in place:
        node, before = node[part], before[part]
    assert node == {**before, "bias": 0.5, "weights": [3, 4]}
