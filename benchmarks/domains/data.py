"""The texts of specialised.py: what counts as a near-duplicate in each domain, and the split."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from guardkit.data.examples import load_examples
from guardkit.data.splits import normalised

TEST_SHARE = 0.2
SQL_TOKEN = re.compile(r"0x[0-9a-f]+|\d+|[a-z_]+")
#: Words that say what a query does; all other words of one are names and values.
SQL = frozenset(
    SQL_TOKEN.findall("""
    select from where union all and or not null insert into values update set delete drop table
    create user alter exec execute declare case when then else end if iif like rlike regexp in
    between exists having group order by asc desc limit offset top percent distinct join left right
    inner outer full on sleep pg_sleep benchmark waitfor delay char chr concat concat_ws ascii
    substring substr mid length count sum avg min max version database cast convert begin rownum
    sysdate dual grant revoke truncate index view procedure updatexml extractvalue elt make_set
    generate_series randomblob information_schema exp floor rand xmltype utl_inaddr dbms_pipe
    ctxsys
""")
)
NUMBER = re.compile(r"\d+")
WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class LabelledText:
    text: str
    label: str
    group: str


def words(text: str) -> str:
    """Return a text's words, any number as 0: a campaign's messages differ in numbers and signs."""
    return " ".join(WORD.findall(NUMBER.sub("0", text.lower()))) or normalised(text)


def sql_template(text: str) -> str:
    """Return a query's keywords in order, with w for any other words and 0 for numbers.

    Signs are left out: a list of payloads holds each behind every kind of quote and bracket. Text
    without a keyword is no query and stands for itself.
    """
    tokens = SQL_TOKEN.findall(text.lower())
    if SQL.isdisjoint(tokens):
        return normalised(text)
    kinds = ("0" if t[0].isdigit() else t if t in SQL else "w" for t in tokens)
    return " ".join(kind for kind, _ in groupby(kinds))


@dataclass(frozen=True)
class Domain:
    """A set, the label that means nothing was found, and what makes two texts near-duplicates.

    ``grouped``: near-duplicates stay on one side of the split; else only equal texts do.
    ``several_labels``: a text may stand there once under each of several labels; elsewhere one
    that does contradicts itself and is left out.
    """

    source: str
    neutral: str | None
    template: Callable[[str], str] = words
    grouped: bool = True
    several_labels: bool = False
    most_training: int | None = None


DOMAINS = {
    "medical": Domain("medical-abstracts", None, several_labels=True),
    "sqli": Domain("sqli-payloads", "benign", sql_template, most_training=6000),
    "sqli-random": Domain(
        "sqli-payloads", "benign", sql_template, grouped=False, most_training=6000
    ),
    "sms": Domain("sms-spam", "ham"),
}


def read(sets: Path, domain: Domain) -> list[LabelledText]:
    """Return a domain's rows, each text once with each of its labels."""
    rows: dict[tuple[str, str], LabelledText] = {}
    for file in sorted((sets / domain.source).glob("*.parquet")):
        for examples in load_examples(str(file)).values():
            for text, y in zip(examples.texts, examples.labels_N, strict=True):
                group = domain.template(text) if domain.grouped else normalised(text)
                row = LabelledText(text, examples.label_names[y], group)
                rows.setdefault((normalised(text), row.label), row)
    labels: dict[str, set[str]] = {}
    for text, label in rows:
        labels.setdefault(text, set()).add(label)
    several = domain.several_labels
    return [row for (text, _), row in rows.items() if several or len(labels[text]) == 1]


def split(
    rows: Iterable[LabelledText], most_training: int | None
) -> tuple[Sequence[LabelledText], Sequence[LabelledText]]:
    """Return what to train on, at most so many rows, and a fifth of the groups to test on."""
    ordered = sorted(rows, key=lambda row: _draw(row.group + row.text + row.label))  # a shuffle
    test = [row for row in ordered if _draw(row.group) < TEST_SHARE]
    train = [row for row in ordered if _draw(row.group) >= TEST_SHARE]
    return train[:most_training], test


def _draw(text: str) -> float:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
