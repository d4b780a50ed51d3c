"""N-grams beside a network, in NumPy alone: with a tokenizer of their own, or the network's.

A pretrained network's tokenizer may see neither case nor emoji nor other scripts. These n-grams
read the text's own bytes (byte-level BPE), so that both are not blind to the same. A window's
runs of one to n tokens count once each, as in ``ngrams``:

    z_c = b_c + sum_{t in window} w_{t,c} / sqrt(number of runs)

Windows are pooled into a text's logits as the network's are, and the two are added. Where a
network was trained from nothing, they read its tokens and are kept among its weights (``ngrams``);
the network's logits and theirs are then added window by window, before pooling.

Shape letters: N texts, W windows, L tokens of a window, R runs, T terms, C classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from guardkit import TOKENIZER, WEIGHTS, Pooling, open_tokenizer, pool_windows, windows
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.runs import NONE, hashes_of
from guardkit_mdlm.shared import Shared, digests, once
from guardkit_mdlm.token_ids import TokenIds, cut_windows
from guardkit_mdlm.tokenizer import encode
from guardkit_mdlm.weights_file import read_arrays

NGRAMS = "ngrams.safetensors"
NGRAMS_TOKENIZER = "ngrams_tokenizer.json"
Float32 = npt.NDArray[np.float32]
Span = tuple[int, int]


@dataclass(frozen=True)
class ReadText:
    """A text's tokens, and the logits_WC of its windows."""

    ids: TokenIds
    logits_WC: Float32


@dataclass(frozen=True)
class TextNgrams:
    """``hash_T`` is in ascending order. ``window`` and ``overlap`` are in tokens of their own.
    ``tokens_key`` and ``key`` say what tokens and logits of a text follow from, where others may
    take them over (``shared.once``)."""

    tokenizer: Tokenizer
    longest: int
    window: int
    overlap: int
    hash_T: npt.NDArray[np.int32]
    weight_TC: Float32
    bias_C: Float32
    tokens_key: Hashable = None
    key: Hashable = None

    def logits(self, texts: Sequence[str], how: Pooling, neutral: int | None) -> Float32:
        """Return pooled logits_NC."""
        return pooled(self.read(texts, {}), how, neutral)

    def read(self, texts: Sequence[str], shared: Shared) -> list[ReadText]:
        """Return what each text's windows say; of texts that were read before in the same batch,
        by this or another model with the same n-grams, from ``shared``."""

        def score(new: Sequence[str]) -> list[ReadText]:
            ids_N = once(shared, self.tokens_key, new, lambda those: encode(self.tokenizer, those))
            return [ReadText(ids, self.window_logits(self._cut([ids])[0])) for ids in ids_N]

        return once(shared, self.key, texts, score)

    def cut(self, texts: Sequence[str]) -> tuple[list[TokenIds], npt.NDArray[np.int64]]:
        """Return the texts' windows, and text_W, whose each one is."""
        return self._cut(encode(self.tokenizer, texts))

    def window_logits(self, pieces: Sequence[TokenIds]) -> Float32:
        """Return logits_WC of windows, each by itself."""
        return np.stack([self._window_logits(piece) for piece in pieces])

    def _cut(self, ids: Sequence[TokenIds]) -> tuple[list[TokenIds], npt.NDArray[np.int64]]:
        return cut_windows(ids, self.window, self.overlap)

    def evidence(self, text: str, how: Pooling, neutral: int | None) -> tuple[list[Span], Float32]:
        """Return the (start, end) of each token in characters, and values_LC: what it adds to the
        text's logits. A term's weight is shared by the places where it stands, and there by its
        tokens; of windows the mean counts, or under max pooling the one that decides a label."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids = np.array(encoding.ids, np.int32)
        spans = windows(len(ids), self.window, self.overlap)
        C = len(self.bias_C)
        counted_WC = np.full((len(spans), C), 1 / len(spans), np.float32)
        if how == "max" and neutral is not None:
            logits_WC = np.stack([self._window_logits(ids[a:b]) for a, b in spans])
            lead_WC = logits_WC - logits_WC[:, [neutral]]
            counted_WC = (np.arange(len(spans))[:, None] == lead_WC.argmax(0)).astype(np.float32)
        values_LC = np.zeros((len(ids), C), np.float32)
        for (a, b), counted_C in zip(spans, counted_WC, strict=True):
            values_LC[a:b] += self._window_shares(ids[a:b]) * counted_C
        return [(start, end) for start, end in encoding.offsets], values_LC

    def save(self, folder: Path) -> None:
        self.tokenizer.save(str(folder / NGRAMS_TOKENIZER))
        tensors: dict[str, npt.NDArray[Any]] = {
            "hash_T": self.hash_T,
            "weight_TC": self.weight_TC.astype(np.float16),
            "bias_C": self.bias_C,
        }
        save_file(tensors, folder / NGRAMS)

    def _window_logits(self, ids_L: TokenIds) -> Float32:
        known_R = np.unique(hashes_of(ids_L, self.longest))
        known_R = known_R[known_R != NONE]
        weight_RC = self._weights(known_R)
        logits_C: Float32 = weight_RC.sum(0) / max(1, len(known_R)) ** 0.5 + self.bias_C
        return logits_C

    def _window_shares(self, ids_L: TokenIds) -> Float32:
        hash_NL = hashes_of(ids_L, self.longest)
        hash_U, own_NL, count_U = np.unique(hash_NL, return_inverse=True, return_counts=True)
        number = int((hash_U != NONE).sum())
        value_UC = self._weights(hash_U) / count_U[:, None]
        value_NLC = value_UC[own_NL.reshape(hash_NL.shape)]
        values_LC = np.zeros((len(ids_L), len(self.bias_C)), np.float32)
        for n, value_LC in enumerate(value_NLC, start=1):
            for i in range(min(n, len(ids_L))):
                values_LC[i:] += value_LC[: len(ids_L) - i] / n
        scaled_LC: Float32 = values_LC / max(1, number) ** 0.5
        return scaled_LC

    def _weights(self, hash_R: npt.NDArray[np.int32]) -> Float32:
        """Return the weights of runs, zero of those that are no terms."""
        if not len(self.hash_T):
            return np.zeros((len(hash_R), len(self.bias_C)), np.float32)
        at_R = np.searchsorted(self.hash_T, hash_R).clip(max=len(self.hash_T) - 1)
        known_R1 = (self.hash_T[at_R] == hash_R)[:, None]
        weight_RC: Float32 = np.where(known_R1, self.weight_TC[at_R], np.float32(0))
        return weight_RC


def pooled(read: Sequence[ReadText], how: Pooling, neutral: int | None) -> Float32:
    """Return the pooled logits_NC of texts."""
    logits_WC = np.concatenate([text.logits_WC for text in read])
    text_W = np.repeat(np.arange(len(read)), [len(text.logits_WC) for text in read])
    pooled_NC: Float32 = pool_windows(logits_WC, text_W, len(read), how, neutral)
    return pooled_NC


def tokens_key(folder: Path, tokenizer: str) -> Hashable:
    """Return what the tokens of a text follow from, of an artefact's tokenizer file."""
    return "mdlm tokens", *digests(folder, tokenizer)


def load_text_ngrams(folder: Path, record: NetworkRecord) -> TextNgrams | None:
    """Return an artefact's n-grams with a tokenizer of their own, None where it has none."""
    if record.text_ngrams is None:
        return None
    tensors = load_file(folder / NGRAMS)
    tensors["weight_TC"] = tensors["weight_TC"].astype(np.float32)
    return _of(folder, record, record.text_ngrams.longest, (NGRAMS, NGRAMS_TOKENIZER), tensors)


def load_ngrams(folder: Path, record: NetworkRecord) -> TextNgrams | None:
    """Return an artefact's n-grams, be they beside the network or within it; None where it has
    none. Of the network nothing else is read."""
    if not record.shape.ngrams:
        return load_text_ngrams(folder, record)
    within = ("hash_T", "weight_TC", "bias_C")
    arrays = read_arrays(folder / WEIGHTS, [f"ngrams.{name}" for name in within])
    tensors = {name: arrays[f"ngrams.{name}"] for name in within}
    tensors["weight_TC"] = tensors["weight_TC"][:-1]  # the last row is that of no term
    return _of(folder, record, record.shape.ngrams, (WEIGHTS, TOKENIZER), tensors)


def _of(
    folder: Path,
    record: NetworkRecord,
    longest: int,
    files: tuple[str, str],
    tensors: Mapping[str, npt.NDArray[Any]],
) -> TextNgrams:
    weights, tokenizer = files
    tokens = tokens_key(folder, tokenizer)
    cut = (record.window_tokens, record.overlap_tokens)
    return TextNgrams(
        open_tokenizer(folder / tokenizer), longest, *cut,
        tensors["hash_T"], tensors["weight_TC"], tensors["bias_C"], tokens,
        key=("mdlm n-grams", *digests(folder, weights), tokens, longest, *cut),
    )  # fmt: skip


def laid_over(spans: Sequence[Span], others: Sequence[Span], values_LC: Float32) -> Float32:
    """Return ``values_LC`` of ``others`` shared out among ``spans``, by the characters that they
    have in common; both are in the order of the text. What no span touches goes to the nearest."""
    shared_TC = np.zeros((len(spans), values_LC.shape[1]), np.float32)
    if not len(spans):
        return shared_TC
    start_T = np.array([a for a, _ in spans])
    end_T = np.array([b for _, b in spans])
    for (a, b), value_C in zip(others, values_LC, strict=True):
        common_T = np.minimum(end_T, b) - np.maximum(start_T, a)
        if common_T.max() > 0:
            share_T = common_T.clip(min=0) / common_T.clip(min=0).sum()
            shared_TC += share_T[:, None].astype(np.float32) * value_C
        else:
            shared_TC[common_T.argmax()] += value_C
    return shared_TC
