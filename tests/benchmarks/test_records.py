"""benchmarks/corpus/records.py: a record is the same under both labels but for its free field."""

from __future__ import annotations

import difflib
import json
import random
import re
from typing import Any

import pytest

from benchmarks.corpus import own_text, records


@pytest.fixture(scope="module")
def known() -> records.Records:
    found = own_text.load().records
    assert found is not None
    return found


def test_twins_differ_in_one_place_only(
    known: records.Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "DRESSED", 0)
    for number in range(200):
        poisoned, group = records.record(known, "injection", f"0-{number}")
        clean, same_group = records.record(known, "benign", f"0-{number}")
        assert group == same_group
        before = len(_common(poisoned, clean))
        after = len(_common(poisoned[before:][::-1], clean[before:][::-1]))
        order = poisoned[before : len(poisoned) - after]
        assert order.strip()
        assert len(order) < 400


def test_a_record_is_the_same_each_time(known: records.Records) -> None:
    assert records.record(known, "benign", "3-4") == records.record(known, "benign", "3-4")
    assert records.record(known, "benign", "3-4") != records.record(known, "benign", "3-5")


def test_clean_records_give_orders_to_people_too(known: records.Records) -> None:
    notes = [records._note(known, "benign", random.Random(seed)) for seed in range(400)]
    imperatives = [
        n for n in notes if re.search("Please|Send|Leave|Pay |Delete|Ignore|Call|Tell", n)
    ]
    assert len(imperatives) > 20
    assert sum(note in ("", "-", "n/a", "none") for note in notes) > 10


@pytest.mark.parametrize("write", [f for f in records.FORMATS if f is not records._calls])
def test_each_format_keeps_every_value(write: Any) -> None:
    rows = [{"name": "Mei", "note": 'say "hi", please'}, {"name": "Tom", "note": "none"}]
    for seed in range(20):
        text = write("guests", rows, random.Random(seed))
        assert "Mei" in text
        assert "Tom" in text
        assert difflib.SequenceMatcher(None, text, rows[0]["note"]).find_longest_match().size > 3


def test_json_records_are_json(known: records.Records) -> None:
    rows = [{"id": "012", "total": "12.5", "paid": "true", "iban": "DE 01"}]
    found = json.loads(records._json("orders", rows, random.Random(3)))
    assert {"id": "012", "total": 12.5, "paid": True, "iban": "DE 01"} in _dicts(found)


def _common(a: str, b: str) -> str:
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    return a[: min(len(a), len(b)) if length is None else length]


def _dicts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *(d for inner in value.values() for d in _dicts(inner))]
    return [d for inner in value for d in _dicts(inner)] if isinstance(value, list) else []
