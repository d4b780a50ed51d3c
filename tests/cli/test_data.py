"""`guardkit data audit`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from pathlib import Path

import pytest

from guardkit.cli.main import main

WORDS = ["apple", "river", "stone", "cloud", "paper", "green", "seven", "under"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder whose train split has an emoji in most texts of one label, and texts, labels
    and sources that would drive a terminal."""
    chance = random.Random(0)
    lines = []
    for i in range(200):
        attack = i % 2 == 0
        text = " ".join(chance.choice(WORDS) for _ in range(8))
        if attack and i % 10:
            text = f"{text} 👍 \x1b]0;owned\x07\u202e[red]x[/red]"
        label = "bad\x1b[31m" if attack else "good"
        source = f"forum\x1b[2J{i % 3}"
        lines.append(json.dumps({"text": text, "label": label, "source": source}) + "\n")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("".join(lines))
    (folder / "test.jsonl").write_text("".join(lines[:100]))
    return folder


def test_an_audit_shows_shortcuts_with_texts_and_nothing_raw(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "audit", str(data), "--json", str(tmp_path / "audit.json")]) == 0
    out = capsys.readouterr().out
    assert "split 'train'" in out
    assert "100 'good'" in out
    assert "* emoji: yes" in out
    assert "row 3" in out
    assert "more texts of 'good' with it would even it out" in out.replace("\n", " ")
    assert "[red]x[/red]" in out
    unseen = [c for c in out if c != "\n" and unicodedata.category(c).startswith("C")]
    assert unseen == []
    found = json.loads((tmp_path / "audit.json").read_text())
    assert (found["data"], found["split"], found["texts"]) == (str(data), "train", 200)
    emoji = next(f for f in found["features"] if f["feature"] == "emoji")
    assert emoji["warning"].startswith("tells the label: AUROC 0.90")
    assert emoji["strongest"]["shares"]["good"]["value"] == 0
    assert "[U+001B]" in json.dumps(emoji["texts"])


def test_without_texts_none_is_quoted(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "audit", str(data), "--split", "test", "--no-texts"]) == 0
    out = capsys.readouterr().out
    assert "split 'test'" in out
    assert "* emoji: yes" in out
    assert re.findall(r"    row .*: .*", out) == []
    assert re.findall(r"    row 3, bad\[U\+001B\]\[31m .*", out) != []


def test_what_cannot_be_audited_is_refused(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "audit", f"{data}?where=label:good"]) == 2
    assert "two labels or more; there is 'good'" in capsys.readouterr().err
    assert main(["data", "audit", str(data), "--json", str(tmp_path / "no" / "x.json")]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_where_nothing_tells_the_label_the_audit_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(1)
    rows = [
        {"text": " ".join(chance.choice(WORDS) for _ in range(8)), "label": i % 4}
        for i in range(200)
    ]
    path = tmp_path / "mail.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["data", "audit", str(path)]) == 0
    out = capsys.readouterr().out
    assert "no shortcut was found" in out
    assert "least often with" in out
