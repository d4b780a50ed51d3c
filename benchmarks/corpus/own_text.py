"""Make texts to train prompt-injection detectors on, from the phrases in ``grammar/``.

    python -m benchmarks.corpus.own_text --attacks N --benign M --seed S OUT.jsonl

Each line has ``text``, ``label``, ``group`` and ``source``. The same options give the same
lines. A group is a template with its longest filling, a kind of document or one record, with and
without planted instructions: what has to stay on one side of a split.

A file of the grammar names its ``language``, its ``kinds`` of text and further ``lists``, all
with one phrase a line (``phrases.py``; lists of the same file come before those of
``shared.yaml``), and can have several languages, parted by ``---``. ``everyday: true`` marks
what people and applications send all day, most of it short. ``documents.yaml`` has documents, cut
by ``//`` where something can be planted; ``stdlib_documents.py`` gives real ones.
``records.yaml`` has structured tool output (``records.py``). Looks are varied by ``surface.py``,
which knows no label.
"""

from __future__ import annotations

import json
import math
import random
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import typer
from ruamel.yaml import YAML

from benchmarks.corpus import records, stdlib_documents, surface
from benchmarks.corpus.phrases import Lists, Phrase, Writer, count, find, parse, parse_lines
from guardkit.training import over_defence

GRAMMAR = Path(__file__).parent / "grammar"
SOURCE = "own-grammar"
#: Shares of all texts: everyday ones, and records.
EVERYDAY, RECORDS = 0.4, 0.16
#: Shares of the others: not in English; documents, and several of them; with an ordinary request
#: beside it.
FOREIGN, DOCUMENTS, SEVERAL, WITH_REQUEST = 0.17, 0.3, 0.3, 0.25
#: Shares of everyday texts: not in English; in English with an ordinary request beside them (most
#: stay short).
EVERYDAY_FOREIGN, EVERYDAY_WITH_REQUEST = 0.3, 0.06
#: Texts of at most so many words come in at most so many forms: there are too few of them to let
#: each have one case and one punctuation only.
FEW_WORDS, FORMS = 8, 3
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
    everyday: bool = False


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
    records: records.Records | None = None


def load(folder: Path = GRAMMAR) -> Grammar:
    shared = _lists(_yaml(folder / "shared.yaml"))
    kinds = []
    for path in sorted(folder.glob("*/*.yaml")):
        label = "injection" if path.parent.name == "attacks" else "benign"
        for part in YAML(typ="safe").load_all(path):
            lists = shared | _lists(part.get("lists", {}))
            kinds += [
                Kind(name, part["language"], label, parse_lines(block), lists,
                     part.get("everyday", False))
                for name, block in part["kinds"].items()
            ]  # fmt: skip
    documents = []
    for name, entry in _yaml(folder / "documents.yaml").items():
        carriers = parse_lines(entry["carriers"])
        for line in entry["texts"].strip().splitlines():
            parts = [parse(part.replace("\\n", "\n")) for part in line.strip().split(" // ")]
            documents.append(Document(name, parts, entry["join"], carriers))
    for name, paragraphs in stdlib_documents.documents():
        literal: list[Phrase] = [[paragraph] for paragraph in paragraphs]
        documents.append(Document(name, literal, "\n\n", parse_lines(CARRIERS[name])))
    planting = shared | _lists(_yaml(folder / "planted.yaml"))
    return Grammar(kinds, documents, planting, _records(_yaml(folder / "records.yaml"), planting))


def _records(file: dict[str, Any], lists: Lists) -> records.Records:
    tables = []
    for name, entry in file["tables"].items():
        lines = (line.strip().split(": ", 1) for line in entry["fields"].strip().splitlines())
        fields = [(parse(key), parse(value)) for key, value in lines]
        tables.append(records.Table(name, fields, parse(entry["free"])))
    return records.Records(tables, parse_lines(file["texts"]), lists | _lists(file["lists"]))


def normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def words_of(text: str) -> str:
    """Return what tells texts apart but for case and punctuation; of signs alone, the signs."""
    return normal(text) or "".join(text.split())


def runs(text: str) -> set[tuple[str, ...]]:
    """Return each five words in a row, or the whole of a shorter text."""
    words = normal(text).split()
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def make(grammar: Grammar, attacks: int, benign: int, seed: int) -> Iterator[dict[str, str]]:
    """Yield that many texts of each label, no two alike but for case and punctuation.

    Texts of few words may come in ``FORMS`` forms of case and punctuation, under one label. None
    has five words in a row from the over-defence set, which models are measured on.
    """
    held_out = set().union(*map(runs, over_defence.bundled()))
    forms: dict[str, set[str]] = {}
    label_of: dict[str, str] = {}
    for label, wanted in (("injection", attacks), ("benign", benign)):
        texts = _texts(grammar, label, seed)
        made = 0
        for _ in range(TRIES * wanted):
            if made == wanted:
                break
            text, group = next(texts)
            key = words_of(text)
            if not key or held_out & runs(text) or label_of.setdefault(key, label) != label:
                continue
            alike = forms.setdefault(key, set())
            if text not in alike and len(alike) < (FORMS if _few(key) else 1):
                alike.add(text)
                made += 1
                yield {"text": text, "label": label, "group": group, "source": SOURCE}
        if made < wanted:
            raise ValueError(f"{label}: the grammar made {made} texts of {wanted}; ask for fewer")


def _few(words: str) -> bool:
    return len(words.split()) <= FEW_WORDS and len(words) < 60


def _texts(grammar: Grammar, label: str, seed: int) -> Iterator[tuple[str, str]]:
    """Yield texts without end: kinds by chance, the templates of each in turn."""
    rng = random.Random(f"{seed}-{label}")
    of_label = [kind for kind in grammar.kinds if kind.label == label]

    def kinds(everyday: bool, english: bool) -> list[Kind]:
        found = [kind for kind in of_label if kind.everyday == everyday]
        return [kind for kind in found if (kind.language == "en") == english]

    everyday, everyday_foreign = kinds(True, True), kinds(True, False)
    english, foreign = kinds(False, True), kinds(False, False)
    turns = {id(kind): cycle(_shuffled(range(len(kind.templates)), rng)) for kind in of_label}
    real = (stdlib_documents.CODE, stdlib_documents.MANUAL)
    pools = [[d for d in grammar.documents if (d.kind in real) is which] for which in (False, True)]
    documents = [cycle(_shuffled(pool or grammar.documents, rng)) for pool in pools]
    number = 0
    while True:
        draw = rng.random()
        if grammar.records and draw < RECORDS:
            number += 1
            yield records.record(grammar.records, label, f"{seed}-{number}")
        elif everyday and draw < RECORDS + EVERYDAY:
            pool = (rng.random() < EVERYDAY_FOREIGN and everyday_foreign) or everyday
            yield _phrase(grammar, pool, turns, EVERYDAY_WITH_REQUEST, rng)
        elif (draw := rng.random()) < DOCUMENTS:
            text, group = _document(grammar, next(documents[rng.random() < REAL]), label, rng)
            yield surface.lines(text, rng) if rng.random() < surface.LINES else text, group
        else:
            pool = (draw < DOCUMENTS + FOREIGN and foreign) or english
            yield _phrase(grammar, pool, turns, WITH_REQUEST, rng)


def _phrase(
    grammar: Grammar,
    pool: list[Kind],
    turns: Mapping[int, Iterator[int]],
    with_request: float,
    rng: random.Random,
) -> tuple[str, str]:
    """Return a text of a kind in the pool, by the template whose turn it is."""
    # The square root lets a kind with many templates come more often, but not crowd out.
    (kind,) = rng.choices(pool, [math.sqrt(len(k.templates)) for k in pool])
    number = next(turns[id(kind)])
    text, key = Writer(rng, kind.lists).longest(kind.templates[number])
    requests = [k for k in grammar.kinds if k.name == "requests" and k.language == "en"]
    if kind.language == "en" and requests and rng.random() < with_request:
        other = rng.choice(requests)
        extra = Writer(rng, other.lists).write(rng.choice(other.templates))
        joint = rng.choice([" ", "\n", "\n\n"])
        text = joint.join([extra, text] if rng.random() < 0.6 else [text, extra])
    group = f"{kind.name}-{kind.language}-{number}-{zlib.crc32(key.encode()):08x}"
    return surface.dress(_tidy(text), rng), group


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
