"""Changes to a text that must not change what a guard says of it.

Ribeiro, Wu, Guestrin and Singh 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with
CheckList", section 2.2: invariance tests. What a text asks for is the same with a greeting before
it or inside a JSON object. ``flips`` counts the verdicts that change all the same.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from guardkit.data.hashes import text_hash

#: Share of the words of four letters or more that get a typing error; one at least.
TYPING_ERRORS = 0.05
#: Words between two line breaks.
WORDS_PER_LINE = 5
GREETINGS = ("Hello! ", "Hi there, ", "Good morning. ", "Dear all,\n\n")
EMOJI = ("😊", "👍", "🙏", "🎉", "😂")
WORD = re.compile(r"[^\W\d_]{4,}")
#: The last three are those of Chinese and Japanese.
FINAL_MARKS = ".!?…。\uff01\uff1f"


@dataclass(frozen=True)
class Transform:
    """A change that leaves alone what a text asks for: its name, a sentence on what it does, and
    the function that does it. What is left to chance in it depends on the text and the name."""

    name: str
    sentence: str
    change: Callable[[str, random.Random], str]

    def __call__(self, text: str) -> str:
        """Return ``text`` changed; as it is where there is nothing to change, or only space."""
        if not text.strip():
            return text
        seed = hashlib.sha256(self.name.encode() + text_hash(text)).digest()
        return self.change(text, random.Random(seed))


def _recased(change: Callable[[str], str], text: str) -> str:
    """Change the case of each character for which it is only that: not of ß, which would be SS."""
    pairs = ((c, change(c)) for c in text)
    return "".join(
        new if len(new) == 1 and new.casefold() == c.casefold() else c for c, new in pairs
    )


def _title(text: str, _: random.Random) -> str:
    def word(found: re.Match[str]) -> str:
        return _recased(str.upper, found[0][0]) + _recased(str.lower, found[0][1:])

    return re.sub(r"\S+", word, text)


def _other_first_letter(text: str, _: random.Random) -> str:
    def swapped(found: re.Match[str]) -> str:
        return _recased(str.swapcase, found[0])

    return re.sub(r"[^\W\d_]", swapped, text, count=1)


def final_marks(text: str) -> tuple[str, str, str]:
    """Return what stands before the marks that end ``text``, these marks, and the space after."""
    whole = text.rstrip()
    body = whole.rstrip(FINAL_MARKS)
    return body, whole[len(body) :], text[len(whole) :]


def _final_mark_added(mark: str) -> Callable[[str, random.Random], str]:
    def added(text: str, _: random.Random) -> str:
        body, marks, space = final_marks(text)
        return text if marks else f"{body}{mark}{space}"

    return added


def _final_marks_left_out(text: str, _: random.Random) -> str:
    body, _marks, space = final_marks(text)
    return body + space if body else text  # a text of marks alone would be none


def _final_marks_doubled(text: str, _: random.Random) -> str:
    body, marks, space = final_marks(text)
    return body + 2 * marks + space


def _lines(text: str, _: random.Random) -> str:
    counted = iter(range(1, len(text) + 1))

    def broken(space: re.Match[str]) -> str:
        return space[0] if next(counted) % WORDS_PER_LINE else "\n"

    return re.sub(r"(?<=\S) (?=\S)", broken, text)


def _typing_errors(
    positions: Callable[[str], Sequence[int]], slip: Callable[[str, int], str]
) -> Callable[[str, random.Random], str]:
    """Return what makes ``slip`` at one of a word's ``positions``, in a few words."""

    def mistyped(text: str, chance: random.Random) -> str:
        words = [found for found in WORD.finditer(text) if positions(found[0])]
        chosen = chance.sample(words, min(len(words), max(1, round(TYPING_ERRORS * len(words)))))
        for found in sorted(chosen, key=lambda x: -x.start()):  # from the end: offsets stay right
            word = slip(found[0], chance.choice(positions(found[0])))
            text = text[: found.start()] + word + text[found.end() :]
        return text

    return mistyped


def _inner(word: str) -> Sequence[int]:
    return range(1, len(word) - 1)


def _swappable(word: str) -> Sequence[int]:
    return [i for i in range(1, len(word) - 1) if word[i] != word[i + 1]]


def _fenced(text: str, _: random.Random) -> str:
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}\n{text}\n{fence}"


#: In the order in which they are shown.
TRANSFORMS: Sequence[Transform] = (
    Transform("greeting", "A greeting before it.", lambda t, r: r.choice(GREETINGS) + t),
    Transform("please", "`Please` before it.", lambda t, _: f"Please {t}"),
    Transform("thanks", "`Thank you.` after it.", lambda t, _: f"{t} Thank you."),
    Transform("emoji", "An emoji after it.", lambda t, r: f"{t} {r.choice(EMOJI)}"),
    Transform(
        "full stop", "A full stop at its end, where there was no mark.", _final_mark_added(".")
    ),
    Transform(
        "exclamation mark",
        "An exclamation mark at its end, where there was no mark.",
        _final_mark_added("!"),
    ),
    Transform(
        "no final mark",
        "Without the full stop, exclamation or question mark at its end.",
        _final_marks_left_out,
    ),
    Transform(
        "doubled final mark",
        "The marks at its end twice.",
        _final_marks_doubled,
    ),
    Transform("upper case", "In capitals.", lambda t, _: _recased(str.upper, t)),
    Transform("lower case", "In small letters.", lambda t, _: _recased(str.lower, t)),
    Transform("title case", "Each Word With One Capital.", _title),
    Transform("first letter", "The case of its first letter changed.", _other_first_letter),
    Transform("quotes", "In quotation marks.", lambda t, _: f'"{t}"'),
    Transform(
        "space before", "A line break and two spaces before it.", lambda t, _: f"\n  {t}"
    ),
    Transform("space after", "Two spaces and a line break after it.", lambda t, _: f"{t}  \n"),
    Transform("doubled spaces", "Each space twice.", lambda t, _: t.replace(" ", "  ")),
    Transform(
        "line breaks",
        f"A line break for every {WORDS_PER_LINE}th space between two words.",
        _lines,
    ),
    Transform(
        "swapped letters",
        "Two neighbouring letters swapped in one word of twenty.",
        _typing_errors(_swappable, lambda w, i: w[:i] + w[i + 1] + w[i] + w[i + 2 :]),
    ),
    Transform(
        "dropped letters",
        "A letter left out in one word of twenty.",
        _typing_errors(_inner, lambda w, i: w[:i] + w[i + 1 :]),
    ),
    Transform(
        "doubled letters",
        "A letter typed twice in one word of twenty.",
        _typing_errors(_inner, lambda w, i: w[: i + 1] + w[i:]),
    ),
    Transform(
        "JSON", 'As {"text": ...}.', lambda t, _: json.dumps({"text": t}, ensure_ascii=False)
    ),
    Transform(
        "JSON message",
        'As {"role": "user", "content": ...}.',
        lambda t, _: json.dumps({"role": "user", "content": t}, ensure_ascii=False),
    ),
    Transform(
        "Markdown quote",
        "Each line after `> `.",
        lambda t, _: "\n".join(f"> {line}" for line in t.split("\n")),
    ),
    Transform(
        "Markdown list item",
        "After `- `, further lines indented.",
        lambda t, _: "- " + t.replace("\n", "\n  "),
    ),
    Transform("Markdown code", "In a fenced code block.", _fenced),
    Transform("Markdown heading", "After `# `.", lambda t, _: f"# {t}"),
)  # fmt: skip
