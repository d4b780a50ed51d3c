"""benchmarks/injection/bundled_models.py: no model learns from what it is measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.corpus import own_text
from benchmarks.injection import bundled_models


def test_a_frozen_text_is_dropped_whatever_its_case_and_punctuation(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "Say it, now!"}\n{"text": "👍"}\n', "utf-8")
    words = bundled_models.frozen_words(tmp_path)
    texts = ["say it now", "SAY IT... NOW?", "👍\n", "say it now then", "👎", "say it"]
    left = bundled_models.without([{"text": text} for text in texts], words)
    assert [row["text"] for row in left] == ["say it now then", "👎", "say it"]


def test_the_frozen_lists_have_words_to_compare() -> None:
    assert len(bundled_models.frozen_words()) > 500
    assert "" not in bundled_models.frozen_words()


def test_no_part_that_is_learnt_from_has_a_frozen_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, more, build, frozen = (tmp_path / n for n in ("data", "more", "build", "frozen"))
    for folder in (data, more, frozen):
        folder.mkdir()
    for split in ("train", "validation", "test"):
        _table(data / f"{split}.parquet", split, ["benign", "injection"] * 30)
    _table(more / "train.parquet", "further", ["benign"] * 200)
    _table(more / "eval_other.parquet", "measured", ["benign"] * 5)
    lines = [f"TEXT {n} of {s}!" for n in range(10) for s in ("train", "further", "validation")]
    rows = "".join(json.dumps({"text": line}) + "\n" for line in lines)
    (frozen / "list.jsonl").write_text(rows, "utf-8")
    for name, value in {
        "BUILD": build, "ROOT": tmp_path, "FROZEN": frozen, "GRAMMAR_ATTACKS": 20,
        "GRAMMAR_BENIGN": 20, "CALIBRATION_GROUPS": 5, "CERTIFICATE_GROUPS": 5,
    }.items():  # fmt: skip
        monkeypatch.setattr(bundled_models, name, value)
    monkeypatch.setattr(bundled_models.frozen_words, "__defaults__", (frozen,))

    bundled_models.prepare(data, more)

    parts = {name: _read(build / f"{name}.jsonl") for name in bundled_models.LEARNT_FROM}
    learnt = {own_text.words_of(row["text"]) for part in parts.values() for row in part}
    assert not learnt & bundled_models.frozen_words(frozen)
    assert "text 11 of train end" in learnt
    assert not [row for part in parts.values() for row in part if row["text"].endswith("\r\nend")]
    assert not [text for text in learnt if "of measured" in text]
    groups = {
        name: {r["group"] for r in part if r["group"].startswith("more-")}
        for name, part in parts.items()
    }
    known = {r["group"] for r in _read(build / "known.jsonl") if r["group"].startswith("more-")}
    assert len(groups["train"]) + len(known) == 190
    assert 0 < len(known) < 30
    assert not groups["train"] & known
    assert not groups["validation"] | groups["calibration"] | groups["certificate"]


def test_no_source_that_weighs_and_calibrates_is_trained_on() -> None:
    """Neither alone nor within another's text."""
    sources = ["mine", "clinc/oos-eval@1", "composed: pypi:bastioncorpus==1 in f/prompts@2"]

    def part(name: str) -> list[bundled_models.Row]:
        return [{"text": f"{name} {s} {n}", "source": s, "group": f"{s} {n}", "label": "benign"}
                for s in sources for n in range(20)]  # fmt: skip

    names = ("train", "validation", "calibration")
    parts = bundled_models.by_source({name: part(name) for name in names})
    assert {row["source"] for row in parts["train"]} == {"mine"}
    assert {row["source"] for row in parts["known"]} == {"mine"}
    assert {row["source"] for row in parts["validation"]} == set(sources[1:])
    moved = {row["text"] for row in part("train") + part("validation") if row["source"] != "mine"}
    halves = [{row["text"] for row in parts[n]} & moved for n in ("validation", "calibration")]
    assert all(halves)
    assert not halves[0] & halves[1]
    assert halves[0] | halves[1] == moved
    before = {row["text"] for row in part("calibration")}
    assert before <= {row["text"] for row in parts["calibration"]}


def _table(path: Path, word: str, labels: list[str]) -> None:
    rows = [
        {
            "text": f"text {n} of {word}" + ("\r\nend" if n > 10 else ""),
            "label": label,
            "source": "garak-dan",
            "group": f"{word}{n}",
        }
        for n, label in enumerate(labels)
    ]
    pd.DataFrame(rows).to_parquet(path)


def _read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
