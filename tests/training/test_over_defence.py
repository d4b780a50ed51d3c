"""The benign texts that sound like attacks are many, and no model has seen them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from guardkit.data.splits import normalised
from guardkit.training.over_defence import bundled

SAMPLE = Path(__file__).parents[2] / "examples" / "sample"
TRIGGERS = re.compile(
    r"ignor|disregard|forget|forgot|override|overrid|bypass|reveal|secret|confidential|password|"
    r"jailbreak|hack|exploit|prompt|instruction|guideline|rule|restrict|pretend|act as|you are|"
    r"admin|system|previous|above|disable|unlock|leak|inject|repeat|instead|only|simulat|play|mode|"
    r"command|order|obey|translate|delete|trick|imperson|attack|decode|hidden|permission|filter",
    re.IGNORECASE,
)


def test_there_are_more_than_300_different_ones() -> None:
    texts = bundled()
    assert len({normalised(text) for text in texts}) == len(texts) > 300


def test_most_hold_a_word_that_attacks_hold() -> None:
    texts = bundled()
    assert sum(bool(TRIGGERS.search(text)) for text in texts) > 0.75 * len(texts)


def test_none_is_among_the_sample_texts_that_models_are_trained_on() -> None:
    seen = {
        normalised(json.loads(line)["text"])
        for path in SAMPLE.glob("*.jsonl")
        for line in path.read_text("utf-8").splitlines()
    }
    assert seen
    assert not seen & {normalised(text) for text in bundled()}
