"""The texts under examples/ are what their README and the demo take them for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from guardkit.classify.rows import read_rows

EXAMPLES = Path(__file__).parents[2] / "examples"
SPLITS = ("train", "validation", "test")


def rows(name: str) -> list[dict[str, str]]:
    lines = (EXAMPLES / "sample" / f"{name}.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_no_group_and_no_text_is_in_two_files() -> None:
    files = [*SPLITS, "benign"]
    for key in ("group", "text"):
        seen = [{" ".join(row[key].lower().split()) for row in rows(name)} for name in files]
        assert sum(map(len, seen)) == len(set().union(*seen))


@pytest.mark.parametrize("name", [*SPLITS, "benign"])
def test_the_sample_holds_as_many_rows_as_its_readme_says(name: str) -> None:
    readme = (EXAMPLES / "sample" / "README.md").read_text("utf-8")
    found = re.search(rf"^\| `{name}\.jsonl` \| (\d+) \| (\d+) \| (\d+) \|$", readme, flags=re.M)
    assert found is not None
    labels = [row["label"] for row in rows(name)]
    counts = [len(labels), labels.count("benign"), labels.count("injection")]
    assert counts == [int(n) for n in found.groups()]


@pytest.mark.parametrize("name", SPLITS)
def test_length_is_no_shortcut_to_the_label(name: str) -> None:
    by_label: dict[str, list[int]] = {"benign": [], "injection": []}
    for row in rows(name):
        by_label[row["label"]].append(len(row["text"]))
    longer = sum(
        (i > b) + 0.5 * (i == b) for i in by_label["injection"] for b in by_label["benign"]
    )
    assert abs(longer / len(by_label["injection"]) / len(by_label["benign"]) - 0.5) < 0.1


def test_every_prompt_of_the_demo_can_be_read_and_has_its_own_id() -> None:
    prompts = list(read_rows(EXAMPLES / "prompts.jsonl"))
    assert [p.error for p in prompts] == [None] * len(prompts)
    assert len({str(p.id) for p in prompts}) == len(prompts)
