"""Sentence vectors of a pretrained encoder in the layout of sentence-transformers/all-MiniLM-L6-v2:
the mean of a BERT's last states over a text's tokens, at length one (Reimers and Gurevych 2019).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

#: Of all-MiniLM-L6-v2; what a longer text says after them is not read.
MOST_TOKENS = 256
BATCH_TOKENS = 4096
Vectors = npt.NDArray[np.float32]


class SentenceEncoder:
    """Reads a text once; its vector is kept in ``folder``, for whoever asks again."""

    def __init__(self, model: str, kept: Path) -> None:
        """``model`` is a hub id or a folder; what another one has kept is forgotten."""
        self.model = model
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.net = AutoModel.from_pretrained(model).eval()
        self.kept = kept
        self.known: dict[str, Vectors] = {}
        if kept.is_file():
            with np.load(kept) as file:
                found_NF = file["vectors_NF"]
                whose, texts = json.loads(bytes(file["texts"]))
            if whose == model:
                self.known = dict(zip(texts, found_NF, strict=True))

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return vectors_NF, one a text."""
        new = sorted({t for t in texts if t not in self.known}, key=len)
        if new:
            for batch in self._batches(new):
                self.known.update(zip(batch, self._read(batch), strict=True))
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            np.savez(
                self.kept,
                vectors_NF=np.stack(list(self.known.values())),
                texts=np.frombuffer(json.dumps([self.model, [*self.known]]).encode(), np.uint8),
            )
        return np.stack([self.known[t] for t in texts])

    def _batches(self, texts: Sequence[str]) -> list[list[str]]:
        """Texts of similar length together, about ``BATCH_TOKENS`` of four characters."""
        batches: list[list[str]] = [[]]
        for text in texts:
            tokens = min(MOST_TOKENS, 2 + len(text) // 4)
            if batches[-1] and (len(batches[-1]) + 1) * tokens > BATCH_TOKENS:
                batches.append([])
            batches[-1].append(text)
        return batches

    @torch.inference_mode()
    def _read(self, texts: Sequence[str]) -> Vectors:
        inputs = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
        )
        states_BLF = self.net(**inputs).last_hidden_state
        real_BL1 = inputs["attention_mask"][:, :, None].to(states_BLF.dtype)
        mean_BF = (states_BLF * real_BL1).sum(1) / real_BL1.sum(1)
        found_BF: Vectors = torch.nn.functional.normalize(mean_BF, dim=1).numpy()
        return found_BF
