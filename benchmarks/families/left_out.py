"""The prompt-injection set with one family of attacks left out: what is trained on and tried on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.families.rules import family_of


@dataclass(frozen=True)
class LabelledText:
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

    train: Sequence[LabelledText]
    held_out: Sequence[LabelledText]
    shots: Sequence[LabelledText]
    attacks: Sequence[LabelledText]
    threshold: Sequence[LabelledText]
    benign: Sequence[LabelledText]


def read(folder: Path) -> list[LabelledText]:
    """Return the rows of the injection set's training, validation and test files, of NotInject
    (benign texts with words that attacks use) and of BIPIA."""
    rows = []
    for part in ("train", "validation", "test", "ood_notinject", "ood_bipia"):
        for row in pq.read_table(folder / f"{part}.parquet").to_pylist():
            attack = row["label"] == "injection"
            family = family_of(row["text"], row["source"]) if attack else None
            rows.append(LabelledText(row["text"], row["group"], row["source"], part, family))
    return rows


def leave_out(
    rows: Iterable[LabelledText], family: str, *, most_benign: int, most_attacks: int, seed: int
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


def one_a_group(rows: Sequence[LabelledText], rng: np.random.Generator) -> list[LabelledText]:
    """Return one row of each group, in random order."""
    chosen = {rows[i].group: rows[i] for i in rng.permutation(len(rows))}
    return list(chosen.values())


def _some(rows: Sequence[LabelledText], most: int, rng: np.random.Generator) -> list[LabelledText]:
    return [rows[i] for i in sorted(rng.permutation(len(rows))[:most])]
