"""Phrases with gaps: parsed, filled in at random, and counted.

In a phrase ``(a|b|)`` is one of these, ``{list}`` a phrase of that list, ``{List}`` the same with
a capital, ``{list1}`` the same phrase wherever it stands in the text, ``{morse:list}`` the phrase
in Morse code (``codes.py``), and ``~`` nothing.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, field

from benchmarks.corpus.codes import CODES

Lists = dict[str, list["Phrase"]]


@dataclass
class Slot:
    name: str
    code: str = ""


@dataclass
class Choice:
    options: list[Phrase]


Phrase = list[str | Slot | Choice]
_TOKEN = re.compile(r"\{(?:(\w+):)?([A-Za-z_]+\d?)\}|[(|)]")


def parse(phrase: str) -> Phrase:
    """Return the parts of a phrase. Brackets without a ``|`` in them are just brackets."""
    open_groups: list[list[Phrase]] = [[[]]]
    at = 0

    def close(bracket: str) -> None:
        options = open_groups.pop()
        parts = open_groups[-1][-1]
        if len(options) > 1:
            parts.append(Choice(options))
        else:
            parts += ["(", *options[0], bracket]

    for token in _TOKEN.finditer(phrase):
        open_groups[-1][-1].append(phrase[at : token.start()])
        at = token.end()
        match token.group():
            case "(":
                open_groups.append([[]])
            case "|" if len(open_groups) > 1:
                open_groups[-1].append([])
            case ")" if len(open_groups) > 1:
                close(")")
            case "|" | ")":
                open_groups[-1][-1].append(token.group())
            case _:
                open_groups[-1][-1].append(Slot(token[2], token[1] or ""))
    open_groups[-1][-1].append(phrase[at:])
    while len(open_groups) > 1:  # a bracket that is never closed, as in a smiley
        close("")
    return open_groups[0][0]


def parse_lines(block: str) -> list[Phrase]:
    lines = (line.strip() for line in block.splitlines())
    return [parse("" if line == "~" else line.replace("\\n", "\n")) for line in lines if line]


@dataclass
class Writer:
    """Fills in templates, and remembers what the text at hand has already fixed."""

    rng: random.Random
    lists: Lists
    fixed: dict[str, str] = field(default_factory=dict)

    def write(self, sequence: Phrase) -> str:
        return "".join(self._part(part) for part in sequence)

    def longest(self, sequence: Phrase) -> tuple[str, str]:
        """Return the text and the longest of its fillings."""
        parts = [(part, self._part(part)) for part in sequence]
        fillings = [text for part, text in parts if not isinstance(part, str)]
        return "".join(text for _, text in parts), max(fillings, key=len, default="")

    def one_of(self, name: str) -> str:
        return self._part(Slot(name))

    def _part(self, part: str | Slot | Choice) -> str:
        if isinstance(part, str):
            return part
        if isinstance(part, Choice):
            return self.write(self.rng.choice(part.options))
        name = part.name[0].lower() + part.name[1:]
        if name not in self.fixed:
            text = self.write(self.rng.choice(find(self.lists, name)))
            if not name[-1].isdigit():
                return self._dressed(text, part)
            self.fixed[name] = text
        return self._dressed(self.fixed[name], part)

    @staticmethod
    def _dressed(text: str, part: Slot) -> str:
        if part.code:
            text = CODES[part.code](text)
        return text[:1].upper() + text[1:] if part.name[0].isupper() else text


def find(lists: Lists, name: str) -> list[Phrase]:
    name = name.rstrip("0123456789")
    if name not in lists:
        known = ", ".join(sorted(lists))
        raise KeyError(f"grammar: no list {name!r}; add it, or use one of: {known}")
    return lists[name]


def count(sequence: Phrase, lists: Lists) -> int:
    """Return in how many ways a template can be filled."""

    def ways(part: str | Slot | Choice) -> int:
        if isinstance(part, str):
            return 1
        if isinstance(part, Choice):
            return sum(count(option, lists) for option in part.options)
        name = part.name[0].lower() + part.name[1:]
        if name[-1].isdigit() and name in seen:
            return 1
        seen.add(name)
        return sum(count(phrase, lists) for phrase in find(lists, name))

    seen: set[str] = set()
    return math.prod(ways(part) for part in sequence)
