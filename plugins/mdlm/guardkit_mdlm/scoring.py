"""A trained network as a classifier: the one-pass posterior, the generative ratio, evidence."""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from guardkit import (
    TOKENIZER,
    WEIGHTS,
    ArtefactConfig,
    ConfigError,
    Evidence,
    Network,
    RawScores,
    onnx_network,
    pick_device,
    pick_dtype,
    pool_windows,
    read_config,
    windows,
)
from guardkit_mdlm.adaptation.class_rows import AddedRows, load_rows
from guardkit_mdlm.adaptation.sketch import sketches
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.config import ENV_MASK_KEY
from guardkit_mdlm.estimators import (
    Evaluated,
    Float32,
    Scheme,
    density_ratio,
    evaluate,
)
from guardkit_mdlm.evidence import gradient_evidence
from guardkit_mdlm.features import TextFeatures, load_features
from guardkit_mdlm.inference import batched, one_pass_logits
from guardkit_mdlm.loading import load_class_network
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.shared import digests, once
from guardkit_mdlm.text_ngrams import (
    ReadText,
    TextNgrams,
    laid_over,
    load_ngrams,
    pooled,
    tokens_key,
)
from guardkit_mdlm.token_ids import TokenIds, cut_windows
from guardkit_mdlm.tokenizer import encode, encode_with_offsets, read_tokenizer
from guardkit_mdlm.unigram import load_background, pooled_novelty, rareness, unigram_log_probs

ONNX_SCORES = "backend 'onnx' runs the one_pass scorer only, and n-grams, which need no backend"


def load(
    path: Path,
    *,
    device: str,
    backend: str,
    scorer: str | None = None,
    ngrams: TextNgrams | None = None,
) -> MdlmClassifier:
    """Load an artefact folder by ``scorer``, its own where that is None; see
    ``ClassifierFamily.load``. ``ngrams`` are those of the artefact, if they are loaded already.

    Backend ``onnx`` runs the exported one-pass network; torch still explains it.
    """
    config = read_config(path)
    record = NetworkRecord.of(path, config)
    if backend not in ("torch", "onnx"):
        raise ConfigError(f"backend {backend!r}: the mdlm family runs on 'torch' or 'onnx'")
    scorer = scorer or record.scorer
    exported = None
    if backend == "onnx":
        if scorer != "one_pass":
            raise ConfigError(f"{path}: {ONNX_SCORES}")
        exported = onnx_network(path, device=device)
    net = load_class_network(path, record).to(pick_device(device)).eval()
    background_V = None if record.novelty == "energy" else load_background(path)
    features = None
    if record.features is not None:
        features = load_features(path, record.features, device=device)
    # those within the network stay there where it is exported with them, or runs on a GPU, next to
    # which NumPy is slow
    elsewhere = exported is not None or pick_device(device).type != "cpu"
    if elsewhere and record.text_ngrams is None:
        ngrams = None
    elif ngrams is None:
        ngrams = load_ngrams(path, record)
    shared_key = None
    if net.has_label_slot and exported is None and features is None:
        shared_key = _one_pass_key(path, record)
    return MdlmClassifier(
        path.name, config, record, net, read_tokenizer(path), exported, background_V, features,
        load_rows(path), ngrams, shared_key, tokens_key(path, TOKENIZER), scorer,
    )  # fmt: skip


def _one_pass_key(folder: Path, record: NetworkRecord) -> Hashable:
    """Return all that the network's logits of a text follow from."""
    files = digests(folder, WEIGHTS, TOKENIZER)
    return *files, record.window_tokens, record.overlap_tokens, record.dtype


class MdlmClassifier:
    """Scores texts by one of the two scorers that need the network.

    ``one_pass``: logits of p(c | text) read from the label slot, one network pass, and the
    n-grams', which ``ngrams_scorer`` gives by themselves.
    ``generative``: log p(text | c) / tokens ** length_exponent, evaluations * C passes, by the
    estimator its artefact names; masks follow from the text and the mask key alone.
    """

    def __init__(
        self,
        name: str,
        config: ArtefactConfig,
        record: NetworkRecord,
        net: ClassNetwork,
        tokenizer: Tokenizer,
        exported: Network | None,
        background_V: Float32 | None = None,
        features: TextFeatures | None = None,
        rows: AddedRows | None = None,
        ngrams: TextNgrams | None = None,
        shared_key: Hashable = None,
        tokens_key: Hashable = None,
        scorer: str | None = None,
    ) -> None:
        self.id = f"mdlm:{name}"
        self.labels = tuple(config.labels)
        self._config = config
        self._device = next(net.parameters()).device
        self._net = net.to(dtype=pick_dtype(record.dtype, self._device))
        self._exported = exported
        self._tokenizer = tokenizer
        self._record = record
        self.scorer: str = scorer or record.scorer
        self.scheme = Scheme(record.estimator, record.evaluations, record.shared_masks)
        self._mask_key = (os.environ.get(ENV_MASK_KEY) or record.mask_key).encode()
        self._background_V = background_V
        self._features = features
        self._rows = rows
        self._ngrams = ngrams
        self._apart = record.text_ngrams is not None  # n-grams read tokens of their own
        self._shared_key = shared_key
        self._tokens_key = tokens_key

    @property
    def ngrams(self) -> TextNgrams | None:
        """The n-grams that the one pass adds to its network's logits, if there are any."""
        return self._ngrams

    def by(self, scorer: str) -> MdlmClassifier:
        """Return this classifier by another scorer; the two share all that was loaded."""
        if self._exported is not None and scorer != "one_pass":
            raise ConfigError(f"{self.id}: {ONNX_SCORES}")
        other = copy.copy(self)
        other.scorer = scorer
        return other

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return pooled logits_NC; ``novelty`` is of the kind that the artefact names (of
        separate networks unigram alone), and ``evidence`` explains the scorer in use."""
        raw = self.score_shared(texts, {}, novelty=novelty)
        return replace(raw, evidence=[self._explain(t) for t in texts]) if evidence else raw

    def score_shared(
        self,
        texts: Sequence[str],
        shared: MutableMapping[Hashable, Any],
        *,
        novelty: bool = False,
    ) -> RawScores:
        """``score``, with what others have computed of these texts: the tokens, the n-grams'
        logits, and the network's one pass where a model of the same network (one adapted from it,
        or that it was adapted from) has read these very texts."""
        if not self._net.has_label_slot and self._record.novelty != "unigram":
            novelty = False
        ids = once(shared, self._tokens_key, texts, lambda new: encode(self._tokenizer, new))
        pieces, text_W = self.cut(ids)
        needed = self.scorer == "one_pass" or novelty
        features_WF = self.window_features(texts, text_W) if needed else None
        plain_WC = None
        if self.scorer == "one_pass":
            read = [] if self._ngrams is None else self._ngrams.read(texts, shared)
            if self._shared_key is None:
                network_WC = self._network(pieces, features_WF)
            else:
                key = (self._shared_key, tuple(texts))  # of a batch: rounding may depend on it
                if key not in shared:
                    shared[key] = self._network(pieces, features_WF)
                network_WC = shared[key]
            plain_WC, logits_WC = self._joined(network_WC, pieces, read)
        else:
            logits_WC = self.window_logits(pieces)
        how, neutral = self._config.window_pooling, self._config.neutral_index
        logits_NC = pool_windows(logits_WC, text_W, len(texts), how, neutral)
        if self.scorer == "one_pass" and read and self._apart:
            logits_NC = logits_NC + pooled(read, how, neutral)
        return RawScores(
            logits_NC=logits_NC,
            tokens_N=np.array([len(i) for i in ids], np.int64),
            windows_N=np.bincount(text_W, minlength=len(texts)),
            truncated_N=np.zeros(len(texts), bool),
            novelty_N=self._novelty(pieces, features_WF, text_W, plain_WC) if novelty else None,
        )

    @property
    def flops_per_token(self) -> float | None:
        """Twice the weights that a token meets in all passes (Kaplan et al. 2020, table 1);
        attention's own part, which grows with the window, and the prediction of masked tokens are
        left out. None where another model's features are read."""
        if self._features is not None:
            return None
        # a network for each label reads a text once for its own, one for all once for each
        met = sum(trunk.layer_weights() for trunk in self._net.trunks())
        if self.scorer == "one_pass":
            return 2.0 * met
        passes = len(self.labels) if self._net.has_label_slot else 1
        return 2.0 * met * self.scheme.evaluations * passes

    def cut(self, ids: Sequence[TokenIds]) -> tuple[list[TokenIds], np.ndarray]:
        """Cut tokenised texts into windows; return them and text_W, whose each one is."""
        return cut_windows(ids, self._record.window_tokens, self._record.overlap_tokens)

    def window_features(self, texts: Sequence[str], text_W: np.ndarray) -> Float32 | None:
        """Return features_WF of each window's whole text, where the one pass reads another
        model's."""
        return None if self._features is None else self._features(texts)[text_W]

    def window_logits(
        self, pieces: Sequence[TokenIds], features_WF: Float32 | None = None
    ) -> np.ndarray:
        """Return the scorer's logits_WC of windows, in the order given; ``features_WF`` as
        ``window_features`` gives them."""
        if self.scorer == "one_pass":
            return self._one_pass(pieces, features_WF)[1]
        mean_WC: np.ndarray = self.window_draws(pieces, self.scheme).mean(1)
        return mean_WC

    def window_draws(self, pieces: Sequence[TokenIds], scheme: Scheme) -> np.ndarray:
        """Return each draw's logits_WDC under ``scheme``: log p(window | c) by that draw alone,
        divided by tokens ** length_exponent. Their mean over D is the generative logit."""

        def draws(chosen: Sequence[TokenIds]) -> np.ndarray:
            draws_BDC = self._evaluate(chosen, scheme).draws()
            scaled_BDC: np.ndarray = draws_BDC * self._scale(chosen)[:, None, None]
            return scaled_BDC

        return batched(pieces, draws, (scheme.draws, len(self.labels)), self._device)

    def _one_pass(
        self, pieces: Sequence[TokenIds], features_WF: Float32 | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return logits_WC of p(class | window) from the label slot: the network's own, and with
        the rows that were added to it."""
        return self._joined(self._network(pieces, features_WF), pieces, [])

    def _network(self, pieces: Sequence[TokenIds], features_WF: Float32 | None) -> np.ndarray:
        """Return the logits_WC that the network alone gives windows; the exported one's are those
        with n-grams and then those with rows too, side by side."""
        if features_WF is None and self._features is not None:
            raise ValueError("its one pass needs the features of the windows' texts")
        if self._exported is None:
            within = self._ngrams is None  # or else they are added in NumPy
            return one_pass_logits(self._joint, pieces, self._device, features_WF, ngrams=within)
        exported, C = self._exported, len(self.labels)

        def run(chosen: Sequence[TokenIds]) -> np.ndarray:
            batch = pad_batch(chosen, np.zeros(len(chosen)))
            return exported({"ids_BL": batch.ids_BL.numpy(), "real_BL": batch.real_BL.numpy()})

        return batched(pieces, run, (C if self._rows is None else 2 * C,), self._device)

    def _joined(
        self, network_WC: np.ndarray, pieces: Sequence[TokenIds], read: Sequence[ReadText]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits_WC of windows without and with the rows that were added: the network's
        and those of n-grams that read its tokens, of the texts as ``read`` if they were."""
        C = len(self.labels)
        if self._exported is not None:
            return network_WC[:, :C], network_WC[:, -C:]
        plain_WC = network_WC
        if self._ngrams is not None and not self._apart:
            found = [text.logits_WC for text in read] or [self._ngrams.window_logits(pieces)]
            plain_WC = network_WC + np.concatenate(found)
        if self._rows is None:
            return plain_WC, plain_WC
        return plain_WC, self._rows.of(plain_WC, sketches(pieces))

    def _evaluate(self, pieces: Sequence[TokenIds], scheme: Scheme) -> Evaluated:
        classes = range(1, len(self.labels) + 1)
        return evaluate(self._net, pieces, scheme, classes=classes, key=self._mask_key)

    @property
    def _joint(self) -> Denoiser:
        """The network of all labels, which has a label slot to read."""
        if not isinstance(self._net, Denoiser):
            raise ConfigError(
                f"{self.id}: has a network for each label, and no label slot for one_pass to "
                "read; 'generative' is its only scorer"
            )
        return self._net

    def _scale(self, pieces: Sequence[TokenIds]) -> np.ndarray:
        lengths_B = np.array([max(1, len(p)) for p in pieces])
        scale_B: np.ndarray = lengths_B**-self._record.length_exponent
        return scale_B

    def _novelty(
        self,
        pieces: Sequence[TokenIds],
        features_WF: Float32 | None,
        text_W: np.ndarray,
        plain_WC: np.ndarray | None,
    ) -> np.ndarray:
        """Return novelty_N: the energy -logsumexp_c of the network's own one-pass logits (Liu
        2020), -log p of token frequencies or the density ratio to them, nats a token."""
        if self._record.novelty == "unigram":
            assert self._background_V is not None
            values_W = rareness(self._background_V, pieces)
        elif self._record.novelty == "density":
            values_W = batched(pieces, self._density_ratio, (), self._device)
        else:
            if plain_WC is None:
                plain_WC, _ = self._one_pass(pieces, features_WF)
            values_W = -np.logaddexp.reduce(plain_WC, axis=1)
        return pooled_novelty(values_W, pieces, text_W, self._config.window_pooling)

    def _density_ratio(self, pieces: Sequence[TokenIds]) -> np.ndarray:
        assert self._background_V is not None
        background_B = unigram_log_probs(self._background_V, pieces)
        return density_ratio(self._net, pieces, background_B, key=self._mask_key)

    def _explain(self, text: str) -> Evidence:
        """Attribute a text's logits to its tokens, over the windows that decide it.

        generative: the mean of l_i(c) over the masks that hold i; under half pairs and partitions
        their sum is the logit. one_pass: gradient times input of each label's logit with respect
        to the token embeddings, plus the token's share of the wide term and of the linear model's;
        what features of the whole text add is no token's, and rows that were added have their share
        of the label's. Tokens in several windows take the mean; under max pooling only the deciding
        window of each label counts.
        """
        encoding = encode_with_offsets(self._tokenizer, text)
        ids = np.array(encoding.ids, np.int32)
        spans = windows(len(ids), self._record.window_tokens, self._record.overlap_tokens)
        pieces = [ids[a:b] for a, b in spans]
        features_WF = None
        if self.scorer == "one_pass":
            features_WF = self.window_features([text], np.zeros(len(pieces), np.int64))
        values = [
            gradient_evidence(self._joint, p, features_WF, self._rows, self._device)
            if self.scorer == "one_pass"
            else self._evaluate([p], self.scheme).attribution()[0] * self._scale([p])
            for p in pieces
        ]  # fmt: skip
        C = len(self.labels)
        total_TC, seen_TC = np.zeros((len(ids), C)), np.zeros((len(ids), C))
        counted_WC = np.ones((len(spans), C), bool)
        neutral = self._config.neutral_index
        if self._config.window_pooling == "max" and neutral is not None:
            logits_WC = self.window_logits(pieces, features_WF)
            lead_WC = logits_WC - logits_WC[:, [neutral]]
            counted_WC = np.arange(len(spans))[:, None] == lead_WC.argmax(0)[None]
        for (a, b), values_TC, counted_C in zip(spans, values, counted_WC, strict=True):
            total_TC[a:b] += values_TC[: b - a] * counted_C
            seen_TC[a:b] += counted_C
        values_TC = (total_TC / np.maximum(seen_TC, 1)).astype(np.float32)
        at = [(a, b) for a, b in encoding.offsets]
        if self._ngrams is not None and self._apart and self.scorer == "one_pass":
            others, values_LC = self._ngrams.evidence(text, self._config.window_pooling, neutral)
            values_TC = values_TC + laid_over(at, others, values_LC)
        return Evidence(f"mdlm {self.scorer}", at, values_TC)
