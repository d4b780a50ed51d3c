"""Structured tool output, clean and poisoned in pairs, from ``grammar/records.yaml``.

Record number n is the same under both labels but for what stands in its free field: a remark of
the kind people leave there (often an order to other people), or an order to whatever model reads
it. So neither the format nor an imperative tells the label.
"""

from __future__ import annotations

import csv
import html
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.corpus import surface
from benchmarks.corpus.phrases import Lists, Phrase, Writer

Row = dict[str, str]
#: Shares: records that come as a text of their kind (a mail, a log); with a task before or after
#: them; dressed; orders that follow a remark; clean fields with an order to people, and empty
#: ones; orders to models that begin with a capital.
AS_TEXT, WITH_TASK, DRESSED, REMARK_FIRST, ORDER_TO_PEOPLE, EMPTY, CAPITAL = (
    0.35, 0.35, 0.25, 0.4, 0.45, 0.1, 0.7,
)  # fmt: skip
#: Characters of a table beside its note, unless it has one row: a window of an attack without its
#: payload would be a harmless one that is called an attack.
LONGEST = 420


@dataclass
class Table:
    """A kind of record: its fields with their values, and names of its free field."""

    name: str
    fields: list[tuple[Phrase, Phrase]]
    free: Phrase


@dataclass
class Records:
    tables: list[Table]
    #: whole texts with ``{note}`` in them
    texts: list[Phrase]
    lists: Lists


def record(records: Records, label: str, seed: str) -> tuple[str, str]:
    """Return a record and its group. ``seed`` fixes all but what ``label`` decides."""
    rng = random.Random(seed)
    note = _note(records, label, random.Random(f"{seed}-{label}"))
    if rng.random() < AS_TEXT:
        number = rng.randrange(len(records.texts))
        text = Writer(rng, records.lists | {"note": [[note]]}).write(records.texts[number])
        name = f"text{number}"
    else:
        table = rng.choice(records.tables)
        text, name = _table(records, table, note, rng), table.name
    if rng.random() < WITH_TASK:
        task = Writer(rng, records.lists).one_of("task")
        joint = rng.choice(["\n", "\n\n", "\n\n---\n"])
        text = joint.join([task, text] if rng.random() < 0.7 else [text, task])
    look = random.Random(f"{seed}-look")
    if look.random() < DRESSED:
        text = surface.dress(text, look)
    return text, f"record-{name}-{seed}"


def _note(records: Records, label: str, rng: random.Random) -> str:
    writer = Writer(rng, records.lists)
    remark = writer.one_of("remark")
    if label == "injection":
        order = re.sub(r"\s+", " ", writer.one_of("order")).strip()
        if rng.random() < CAPITAL:
            order = order[:1].upper() + order[1:]
        return f"{remark} {order}" if rng.random() < REMARK_FIRST else order
    draw = rng.random()
    if draw < EMPTY:
        return rng.choice(["", "-", "n/a", "none"])
    if draw < EMPTY + ORDER_TO_PEOPLE:
        order = writer.one_of("order_to_people")
        return f"{remark} {order}" if rng.random() < REMARK_FIRST else order
    return f"{remark} {writer.one_of('remark')}" if rng.random() < 0.3 else remark


def _table(records: Records, table: Table, note: str, rng: random.Random) -> str:
    chosen = sorted(rng.sample(range(len(table.fields)), rng.randint(2, min(5, len(table.fields)))))
    keys = [Writer(rng, records.lists).write(table.fields[i][0]) for i in chosen]
    free = Writer(rng, records.lists).write(table.free)
    place = rng.choice([len(keys), len(keys), rng.randrange(len(keys) + 1)])
    rows = []
    count = rng.choice([1, 1, 1, 2, 3])
    with_note = rng.randrange(count)
    for number in range(count):
        writer = Writer(rng, records.lists)
        cells = [(k, writer.write(table.fields[i][1])) for k, i in zip(keys, chosen, strict=True)]
        other = writer.one_of("remark") if rng.random() < 0.5 else ""
        cells.insert(place, (free, note if number == with_note else other))
        rows.append(dict(cells))
    write, look = rng.choice(FORMATS), rng.random()
    text = write(table.name, rows, random.Random(look))
    while len(text) - len(note) > LONGEST and len(rows) > 1:
        del rows[0 if with_note else -1]
        with_note = max(0, with_note - 1)
        text = write(table.name, rows, random.Random(look))
    return text


def _value(value: str) -> object:
    return (
        json.loads(value) if re.fullmatch(r"-?[1-9]\d*(\.\d+)?|true|false|null", value) else value
    )


def _json(name: str, rows: list[Row], rng: random.Random) -> str:
    values = [{key: _value(value) for key, value in row.items()} for row in rows]
    found: object = values if len(values) > 1 else values[0]
    shape = rng.random()
    if shape < 0.25:
        found = {"status": rng.choice(["ok", "success", 200]), name: values}
    elif shape < 0.4:
        found = {"tool": f"{rng.choice(['get', 'list', 'search', 'read'])}_{name}", "result": found}
    return json.dumps(found, ensure_ascii=False, indent=rng.choice([None, None, 2]))


def _json_lines(name: str, rows: list[Row], rng: random.Random) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)


def _csv(name: str, rows: list[Row], rng: random.Random) -> str:
    out = io.StringIO()
    delimiter = rng.choice([",", ",", ";", "\t"])
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def _markdown(name: str, rows: list[Row], rng: random.Random) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {name.capitalize()}\n\n{table}" if rng.random() < 0.4 else table


def _list(name: str, rows: list[Row], rng: random.Random) -> str:
    mark = rng.choice(["", "- ", "* ", "**"])
    end = "**" if mark == "**" else ""
    texts = ["\n".join(f"{mark}{k}:{end} {v}" for k, v in row.items()) for row in rows]
    return "\n\n".join(texts)


def _yaml(name: str, rows: list[Row], rng: random.Random) -> str:
    items = ["\n    ".join(f"{k}: {v}" for k, v in row.items()) for row in rows]
    return f"{name}:\n" + "\n".join(f"  - {item}" for item in items)


def _xml(name: str, rows: list[Row], rng: random.Random) -> str:
    inner = [
        "".join(f"\n    <{k}>{html.escape(v, quote=False)}</{k}>" for k, v in row.items())
        for row in rows
    ]
    return f"<{name}>\n" + "".join(f"  <item>{i}\n  </item>\n" for i in inner) + f"</{name}>"


def _html(name: str, rows: list[Row], rng: random.Random) -> str:
    def line(cells: list[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{c}</{tag}>' for c in cells)}</tr>"

    head = [line(list(rows[0]), "th")] if rng.random() < 0.6 else []
    return "\n".join(["<table>", *head, *(line(list(r.values()), "td") for r in rows), "</table>"])


def _calls(name: str, rows: list[Row], rng: random.Random) -> str:
    fields = ["; ".join(f"{k}={v}" for k, v in row.items()) for row in rows]
    call = rng.choice(["Observation: ", "Tool result: ", f"[{name}] ", f"{name}() -> ", ""])
    return "\n".join(call + field for field in fields)


FORMATS: tuple[Callable[[str, list[Row], random.Random], str], ...] = (
    _json, _json, _json, _json_lines, _csv, _markdown, _list, _yaml, _xml, _html, _calls,
)  # fmt: skip
