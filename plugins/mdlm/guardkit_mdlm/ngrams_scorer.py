"""The scorer ``ngrams``: an artefact's n-grams alone. Neither its network nor torch is loaded."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from guardkit import TOKENIZER, ArtefactConfig, Evidence, RawScores
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.shared import Shared, once
from guardkit_mdlm.text_ngrams import TextNgrams, pooled, tokens_key
from guardkit_mdlm.token_ids import cut_windows
from guardkit_mdlm.tokenizer import encode, read_tokenizer
from guardkit_mdlm.unigram import Float32, load_background, pooled_novelty, rareness

NGRAMS_SCORER = "ngrams"


class NgramsClassifier:
    """Scores texts by n-grams. Tokens and windows are those that the n-grams read."""

    def __init__(
        self, folder: Path, config: ArtefactConfig, record: NetworkRecord, ngrams: TextNgrams
    ) -> None:
        self.id = f"mdlm:{folder.name}"
        self.labels = tuple(config.labels)
        self.ngrams = ngrams
        self._how, self._neutral = config.window_pooling, config.neutral_index
        self._novelty = _Rareness(folder, config, record) if record.novelty == "unigram" else None

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return pooled logits_NC; ``novelty`` where the artefact's is of the kind ``unigram``."""
        raw = self.score_shared(texts, {}, novelty=novelty)
        return replace(raw, evidence=[self._explain(t) for t in texts]) if evidence else raw

    def score_shared(
        self,
        texts: Sequence[str],
        shared: MutableMapping[Hashable, Any],
        *,
        novelty: bool = False,
    ) -> RawScores:
        """``score``, and what the one pass of the same artefact adds to its network's."""
        read = self.ngrams.read(texts, shared)
        novelty_N = None
        if novelty and self._novelty is not None:
            novelty_N = self._novelty.of(texts, shared)
        return RawScores(
            logits_NC=pooled(read, self._how, self._neutral),
            tokens_N=np.array([len(text.ids) for text in read], np.int64),
            windows_N=np.array([len(text.logits_WC) for text in read], np.int64),
            truncated_N=np.zeros(len(texts), bool),
            novelty_N=novelty_N,
        )

    @property
    def flops_per_token(self) -> float:
        """An addition for each label and each run that begins at a token."""
        return float(self.ngrams.longest * len(self.labels))

    def _explain(self, text: str) -> Evidence:
        spans, values_TC = self.ngrams.evidence(text, self._how, self._neutral)
        return Evidence(f"mdlm {NGRAMS_SCORER}", spans, values_TC)


class _Rareness:
    """How rare the network's tokens are, as its other scorers have it."""

    def __init__(self, folder: Path, config: ArtefactConfig, record: NetworkRecord) -> None:
        self._tokenizer, self._key = read_tokenizer(folder), tokens_key(folder, TOKENIZER)
        self._log_p_V = load_background(folder)
        self._cut = (record.window_tokens, record.overlap_tokens)
        self._how = config.window_pooling

    def of(self, texts: Sequence[str], shared: Shared) -> Float32:
        ids = once(shared, self._key, texts, lambda new: encode(self._tokenizer, new))
        pieces, text_W = cut_windows(ids, *self._cut)
        return pooled_novelty(rareness(self._log_p_V, pieces), pieces, text_W, self._how)
