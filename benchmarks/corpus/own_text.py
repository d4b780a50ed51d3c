"""Make texts to train prompt-injection detectors on, from the phrases in ``grammar/``.

    python -m benchmarks.corpus.own_text --attacks N --benign M --seed S OUT.jsonl

Each line has ``text``, ``label``, ``group`` and ``source``. The same options give the same
lines. A group is a template with its longest filling, or a kind of document, with and without
planted instructions: what has to stay on one side of a split.

A file of the grammar names its ``language``, its ``kinds`` of text and further ``lists``, all
with one phrase a line (``phrases.py``; lists of the same file come before those of
``shared.yaml``). ``documents.yaml`` has documents, cut by ``//`` where something can be planted;
``stdlib_documents.py`` gives real ones.
"""

from __future__ import annotations

import json
import math
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import typer
from ruamel.yaml import YAML

from benchmarks.corpus import stdlib_documents
from benchmarks.corpus.phrases import Lists, Phrase, Writer, count, find, parse, parse_lines
from guardkit.training import over_defence

GRAMMAR = Path(__file__).parent / "grammar"
SOURCE = "own-grammar"
#: Shares: not in English; documents, and several of them; with an ordinary request beside it.
FOREIGN, DOCUMENTS, SEVERAL, WITH_REQUEST = 0.17, 0.3, 0.3, 0.25
#: Share of documents that are real ones.
REAL = 0.5
#: Characters of a document that stay on either side of what is planted: about a window with it. A
#: window of an attack without its payload would be a harmless one that is called an attack.
AROUND = 250
#: What an instruction stands in where it is planted in a real document: in code, as programmers
#: leave each other notes and reminders.
CARRIERS = {
    stdlib_documents.CODE: "# {note}\n{note}\n# TODO {note}\n// {note}\nprint('{note}')",
    stdlib_documents.MANUAL: "{note}\n{note}\nNote: {note}",
}
#: Texts tried for each one wanted, before the grammar counts as exhausted.
TRIES = 60


@dataclass
class Kind:
    """The templates of one kind of text in one language."""

    name: str
    language: str
    label: str
    templates: list[Phrase]
    lists: Lists


@dataclass
class Document:
    kind: str
    parts: list[Phrase]
    join: str
    carriers: list[Phrase]


@dataclass
class Grammar:
    kinds: list[Kind]
    documents: list[Document]
    #: what is put around and into documents
    planting: Lists


def load(folder: Path = GRAMMAR) -> Grammar:
    shared = _lists(_yaml(folder / "shared.yaml"))
    kinds = []
    for path in sorted(folder.glob("*/*.yaml")):
        label = "injection" if path.parent.name == "attacks" else "benign"
        file = _yaml(path)
        lists = shared | _lists(file.get("lists", {}))
        for name, block in file["kinds"].items():
            kinds.append(Kind(name, file["language"], label, parse_lines(block), lists))
    documents = []
    for name, entry in _yaml(folder / "documents.yaml").items():
        carriers = parse_lines(entry["carriers"])
        for line in entry["texts"].strip().splitlines():
            parts = [parse(part.replace("\\n", "\n")) for part in line.strip().split(" // ")]
            documents.append(Document(name, parts, entry["join"], carriers))
    for name, paragraphs in stdlib_documents.documents():
        literal: list[Phrase] = [[paragraph] for paragraph in paragraphs]
        documents.append(Document(name, literal, "\n\n", parse_lines(CARRIERS[name])))
    return Grammar(kinds, documents, shared | _lists(_yaml(folder / "planted.yaml")))


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def runs(text: str) -> set[tuple[str, ...]]:
    """Return each five words in a row, or the whole of a shorter text."""
    words = normal(text).split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def make(grammar: Grammar, attacks: int, benign: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield that many texts of each label, no two alike but for case and punctuation.

    None has five words in a row from the over-defence set, which models are measured on.
    """
    held_out = set().union(*map(runs, over_defence.bundled()))
    taken = set[str]()
    for label, wanted in (("injection", attacks), ("benign", benign)):
        texts = _texts(grammar, label, random.Random(f"{seed}-{label}"))
        made = 0
        for _ in range(TRIES * wanted):
            if made == wanted:
                break
            text, group = next(texts)
            if (key := normal(text)) and key not in taken and not held_out & runs(text):
                taken.add(key)
                made += 1
                yield {"text": text, "label": label, "group": group, "source": SOURCE}
        if made < wanted:
            raise ValueError(f"{label}: the grammar made {made} texts of {wanted}; ask for fewer")


def _texts(grammar: Grammar, label: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Yield texts without end: kinds by chance, the templates of each in turn."""
    of_label = [kind for kind in grammar.kinds if kind.label == label]
    english = [kind for kind in of_label if kind.language == "en"]
    foreign = [kind for kind in of_label if kind.language != "en"]
    requests = [k for k in grammar.kinds if k.name == "requests" and k.language == "en"]
    turns = {id(kind): cycle(_shuffled(range(len(kind.templates)), rng)) for kind in of_label}
    real = (stdlib_documents.CODE, stdlib_documents.MANUAL)
    pools = [[d for d in grammar.documents if (d.kind in real) is which] for which in (False, True)]
    documents = [cycle(_shuffled(pool or grammar.documents, rng)) for pool in pools]
    while True:
        draw = rng.random()
        if draw < DOCUMENTS:
            yield _document(grammar, next(documents[rng.random() < REAL]), label, rng)
            continue
        pool = (draw < DOCUMENTS + FOREIGN and foreign) or english
        # The square root lets a kind with many templates come more often, but not crowd out.
        (kind,) = rng.choices(pool, [math.sqrt(len(k.templates)) for k in pool])
        number = next(turns[id(kind)])
        text, key = Writer(rng, kind.lists).longest(kind.templates[number])
        if kind.language == "en" and requests and rng.random() < WITH_REQUEST:
            other = rng.choice(requests)
            extra = Writer(rng, other.lists).write(rng.choice(other.templates))
            joint = rng.choice([" ", "\n", "\n\n"])
            text = joint.join([extra, text] if rng.random() < 0.6 else [text, extra])
        text = _tidy(text)
        group = f"{kind.name}-{kind.language}-{number}-{zlib.crc32(key.encode()):08x}"
        yield _dress(text, rng), group


def _document(
    grammar: Grammar, document: Document, label: str, rng: random.Random
) -> tuple[str, str]:
    """Return a document, with or without a task, planted or with a line meant for people."""
    frame = Writer(rng, grammar.planting).one_of("frame")
    list_name = "for_people"
    if label == "injection":
        # Under a bare document a plain request would be the user's own.
        list_name = "override_plant" if frame == "DOCUMENT" else "plant"
    noted = grammar.planting | {"note": find(grammar.planting, list_name)}

    # Some texts are several documents of a kind, which a payload hides among.
    several = [document]
    if rng.random() < SEVERAL:
        fellows = [d for d in grammar.documents if d.kind == document.kind]
        several += rng.choices(fellows, k=rng.randint(1, 4))
    with_note = rng.randrange(len(several))
    texts, planted = [], ""
    for number, each in enumerate(several):
        writer = Writer(rng, grammar.planting)
        kept = sorted(rng.sample(range(len(each.parts)), _size(len(each.parts), rng)))
        parts = [writer.write(each.parts[i]) for i in kept]
        if number == with_note and (label == "injection" or rng.random() < 0.4):
            place = rng.choice([0, len(parts), rng.randrange(len(parts) + 1)])
            planted = Writer(rng, noted).write(rng.choice(each.carriers))
            parts.insert(place, planted)
        texts.append(each.join.join(parts))
    text = rng.choice(["\n\n", "\n\n---\n\n"]).join(texts)
    if label == "injection":
        text = _around(text, planted, rng)
    return frame.replace("DOCUMENT", text), f"document-{document.kind}-{_number(document)}"


def _number(document: Document) -> str:
    """Tell documents of a kind apart, whatever fills their slots."""
    return f"{zlib.crc32(repr(document.parts).encode()):08x}"


def _around(text: str, planted: str, rng: random.Random) -> str:
    """Return what stands about ``planted``, whole words, as if a window had met it anywhere."""
    start = text.index(planted)
    end = start + len(planted)
    before, after = text[:start], text[end:]
    if len(before) > (reach := rng.randint(0, 2 * AROUND)):
        before = before[-reach:].partition(" ")[2] if reach else ""
    if len(after) > (reach := 2 * AROUND - min(reach, len(before))):
        after = after[:reach].rpartition(" ")[0]
    return before + planted + after


def _tidy(text: str) -> str:
    """Close the gaps that empty phrases leave."""
    text = re.sub(r"(?<=\S) {2,}", " ", text)
    return re.sub(r"(?<=\w) (?=[.,](\s|$))", "", text).strip()


def _size(parts: int, rng: random.Random) -> int:
    return parts if rng.random() < 0.5 else rng.randint(min(2, parts), parts)


def _dress(text: str, rng: random.Random) -> str:
    """Vary case and punctuation as people do, in both labels alike."""
    draw = rng.random()
    if draw < 0.12:
        text = text.lower()
    elif draw < 0.15 and len(text) < 300:
        text = text.upper()
    draw = rng.random()
    if draw < 0.12:
        return text.rstrip(".!?")
    if draw < 0.16:
        return text.rstrip(".") + rng.choice(["!", "!!", "...", " :)", " thanks", " please"])
    return text


def _shuffled(items: Any, rng: random.Random) -> list[Any]:
    return rng.sample(list(items), len(items))


def _yaml(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path)
    return loaded


def _lists(blocks: dict[str, str]) -> Lists:
    return {name: parse_lines(block) for name, block in blocks.items()}


def sizes(grammar: Grammar) -> dict[tuple[str, str], int]:
    """Return how many texts the templates of each kind can make, before they are dressed."""
    total: Counter[tuple[str, str]] = Counter()
    for kind in grammar.kinds:
        ways = sum(count(template, kind.lists) for template in kind.templates)
        total[kind.label, kind.name] += ways
    return dict(total)


def main(out: Path, attacks: int = 2000, benign: int = 4000, seed: int = 0) -> None:
    """Write texts made by the grammar to OUT, and say how many of each kind there are.

    What is printed after "of" is how many texts of that kind the grammar can make.
    """
    grammar = load()
    rows = list(make(grammar, attacks, benign, seed))
    random.Random(seed).shuffle(rows)
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out.write_text("".join(lines), "utf-8")
    made = Counter((row["label"], row["group"].split("-")[0]) for row in rows)
    ways = sizes(grammar)
    for (label, kind), number in sorted(made.items()):
        print(f"{label} {kind}: {number} texts of {ways.get((label, kind), 'countless')}")
    print(f"{out}: {len(rows)} texts in {len({r['group'] for r in rows})} groups")


if __name__ == "__main__":
    typer.run(main)
