"""Texts of lognormal length to measure speed on, of words drawn from the sample."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from guardkit_mdlm.tokenizer import encode

from benchmarks.lib.paths import SAMPLE

#: Lengths in tokens: lognormal, cut off at both ends.
MEDIAN, SIGMA, SHORTEST, LONGEST = 90, 0.8, 20, 512


def sampled_texts(tokenizer: Any, n: int, seed: int) -> list[str]:
    """Return texts of sampled words, each as long as its draw asks, give or take a word."""
    rng = np.random.default_rng(seed)
    rows = [json.loads(line) for line in (SAMPLE / "train.jsonl").read_text("utf-8").splitlines()]
    words = [f" {word}" for row in rows for word in row["text"].split()]
    tokens = [len(ids) for ids in encode(tokenizer, words)]
    lengths_N = rng.lognormal(np.log(MEDIAN), SIGMA, n).clip(SHORTEST, LONGEST)
    texts = []
    for length in lengths_N:
        text, left = "", int(length)
        while left > 0:
            word = int(rng.integers(len(words)))
            text, left = text + words[word], left - tokens[word]
        texts.append(text.strip())
    return texts
