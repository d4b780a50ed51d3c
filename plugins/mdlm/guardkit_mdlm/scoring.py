"""A trained network as a classifier: the one-pass posterior, the generative ratio, evidence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from guardkit import (
    ArtefactConfig,
    ConfigError,
    Evidence,
    Network,
    RawScores,
    onnx_network,
    pool_windows,
    read_config,
    windows,
)
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.diffusion import class_log_likelihoods, half_mask, mask_rng
from guardkit_mdlm.model import Denoiser, NetworkShape
from guardkit_mdlm.optimisation import pick_device, pick_dtype
from guardkit_mdlm.tokenizer import TokenIds, encode, encode_with_offsets, read_tokenizer

#: Tokens scored at once, padding included.
BATCH_TOKENS = {"cpu": 8192, "cuda": 262_144}
ENV_MASK_KEY = "GUARDKIT_MASK_KEY"


def load(path: Path, *, device: str, backend: str) -> MdlmClassifier:
    """Load an artefact folder; see ``ClassifierFamily.load``.

    Backend ``onnx`` runs the exported one-pass network; torch still explains it.
    """
    config = read_config(path)
    if backend not in ("torch", "onnx"):
        raise ConfigError(f"backend {backend!r}: the mdlm family runs on 'torch' or 'onnx'")
    exported = None
    if backend == "onnx":
        if config.network["scorer"] != "one_pass":
            raise ConfigError(f"{path}: backend 'onnx' runs the one_pass scorer only")
        exported = onnx_network(path, device=device)
    net = load_network(path).to(pick_device(device)).eval()
    return MdlmClassifier(path.name, config, net, read_tokenizer(path), exported)


def load_network(path: Path) -> Denoiser:
    """Build an artefact's network and fill in its weights."""
    net = Denoiser(NetworkShape.model_validate(read_config(path).network["shape"]))
    net.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    return net


class MdlmClassifier:
    """Scores texts with the scorer its artefact names.

    ``one_pass``: logits of p(c | text) read from the label slot, one network pass.
    ``generative``: log p(text | c) / tokens ** length_exponent by H pairs, 2 * pairs * C passes;
    masks follow from the text and the mask key alone.
    """

    def __init__(
        self,
        name: str,
        config: ArtefactConfig,
        net: Denoiser,
        tokenizer: Tokenizer,
        exported: Network | None,
    ) -> None:
        self.id = f"mdlm:{name}"
        self.labels = tuple(config.labels)
        self._config = config
        self._device = net.slot.device
        self._net = net.to(dtype=pick_dtype("auto", self._device))
        self._exported = exported
        self._tokenizer = tokenizer
        options = config.network
        self.scorer = str(options["scorer"])
        self.pairs = int(options["pairs"])
        self._length_exponent = float(options["length_exponent"])
        self._window = int(options["window_tokens"])
        self._overlap = int(options["overlap_tokens"])
        key = os.environ.get(ENV_MASK_KEY) or str(options["mask_key"])
        self._mask_key = key.encode()

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return pooled logits_NC. ``novelty`` is the one-pass energy -logsumexp_c logit
        (Liu 2020); ``evidence`` explains the scorer in use."""
        ids = encode(self._tokenizer, texts)
        spans = [windows(len(i), self._window, self._overlap) for i in ids]
        pieces = [i[a:b] for i, text_spans in zip(ids, spans, strict=True) for a, b in text_spans]
        text_W = np.repeat(np.arange(len(texts)), [len(s) for s in spans])
        logits_WC = self.window_logits(pieces)
        pooled_NC = pool_windows(
            logits_WC, text_W, len(texts), self._config.window_pooling, self._config.neutral_index
        )
        return RawScores(
            logits_NC=pooled_NC,
            tokens_N=np.array([len(i) for i in ids], np.int64),
            windows_N=np.array([len(s) for s in spans], np.int64),
            truncated_N=np.zeros(len(texts), bool),
            novelty_N=-np.logaddexp.reduce(pooled_NC, axis=1) if novelty else None,
            evidence=[self._explain(t) for t in texts] if evidence else None,
        )

    def window_logits(self, pieces: Sequence[TokenIds]) -> np.ndarray:
        """Return the scorer's logits_WC of windows, in the order given; batched by length."""
        logits_WC = np.zeros((len(pieces), len(self.labels)), np.float32)
        for rows in self._batches(pieces):
            chosen = [pieces[w] for w in rows]
            if self.scorer == "one_pass":
                logits_WC[rows] = self._one_pass(chosen)
            else:
                tokens_BLC = self._token_evidence(chosen)
                lengths_B = np.array([max(1, len(p)) for p in chosen])
                scale_B = lengths_B**-self._length_exponent
                logits_WC[rows] = tokens_BLC.sum(1) * scale_B[:, None]
        return logits_WC

    def _batches(self, pieces: Sequence[TokenIds]) -> Iterator[list[int]]:
        """Yield positions of windows to run together: like lengths, a bounded number of tokens."""
        budget = BATCH_TOKENS[self._device.type]
        rows: list[int] = []
        for w in sorted(range(len(pieces)), key=lambda w: len(pieces[w])):
            if rows and (len(rows) + 1) * (len(pieces[w]) + 1) > budget:
                yield rows
                rows = []
            rows.append(w)
        if rows:
            yield rows

    def _one_pass(self, pieces: Sequence[TokenIds]) -> np.ndarray:
        batch = pad_batch(pieces, np.zeros(len(pieces)))
        if self._exported is not None:
            return self._exported(
                {"ids_BL": batch.ids_BL.numpy(), "real_BL": batch.real_BL.numpy()}
            )
        batch = batch.to(self._device)
        null_B = torch.zeros_like(batch.label_B)
        with torch.inference_mode():
            slot_BD, _ = self._net(batch.ids_BL, null_B, batch.real_BL)
            return _numpy(self._net.label_logits(slot_BD, batch.ids_BL, batch.real_BL))

    def _token_evidence(self, pieces: Sequence[TokenIds]) -> np.ndarray:
        """Return l_i(c) averaged over the mask pairs, (B, L, C), zero on padding."""
        batch = pad_batch(pieces, np.zeros(len(pieces))).to(self._device)
        L = batch.ids_BL.shape[1]
        total_BLC = torch.zeros(len(pieces), L, len(self.labels), device=self._device)
        for pair in range(self.pairs):
            mask_BL = np.zeros((len(pieces), L), bool)
            for row, tokens in enumerate(pieces):
                rng = mask_rng(self._mask_key, tokens, pair)
                mask_BL[row, : len(tokens)] = half_mask(len(tokens), rng)
            with torch.inference_mode():
                total_BLC += class_log_likelihoods(
                    self._net,
                    batch.ids_BL,
                    torch.from_numpy(mask_BL).to(self._device),
                    batch.real_BL,
                )
        return _numpy(total_BLC / self.pairs)

    def _explain(self, text: str) -> Evidence:
        """Attribute a text's logits to its tokens, over the windows that decide it.

        generative: l_i(c), whose sum is the logit. one_pass: gradient times input of each
        label's logit with respect to the token embeddings, plus the token's share of the wide
        term. Tokens in several windows take the mean; under max pooling only the deciding
        window of each label counts.
        """
        encoding = encode_with_offsets(self._tokenizer, text)
        ids = np.array(encoding.ids, np.int32)
        spans = windows(len(ids), self._window, self._overlap)
        pieces = [ids[a:b] for a, b in spans]
        values = [
            self._gradient_evidence(p) if self.scorer == "one_pass"
            else self._token_evidence([p])[0] * max(1, len(p)) ** -self._length_exponent
            for p in pieces
        ]  # fmt: skip
        C = len(self.labels)
        total_TC, seen_TC = np.zeros((len(ids), C)), np.zeros((len(ids), C))
        counted_WC = np.ones((len(spans), C), bool)
        neutral = self._config.neutral_index
        if self._config.window_pooling == "max" and neutral is not None:
            logits_WC = self.window_logits(pieces)
            lead_WC = logits_WC - logits_WC[:, [neutral]]
            counted_WC = np.arange(len(spans))[:, None] == lead_WC.argmax(0)[None]
        for (a, b), values_TC, counted_C in zip(spans, values, counted_WC, strict=True):
            total_TC[a:b] += values_TC[: b - a] * counted_C
            seen_TC[a:b] += counted_C
        values_TC = (total_TC / np.maximum(seen_TC, 1)).astype(np.float32)
        return Evidence(f"mdlm {self.scorer}", [(a, b) for a, b in encoding.offsets], values_TC)

    def _gradient_evidence(self, piece: TokenIds) -> np.ndarray:
        batch = pad_batch([piece], np.zeros(1)).to(self._device)
        null_B = torch.zeros_like(batch.label_B)
        net = self._net
        x_BLD = net.vocab_embed(batch.ids_BL).detach().requires_grad_()
        slot_BD, _ = net.from_embeddings(x_BLD, null_B, batch.real_BL)
        logits_BC = net.label_logits(slot_BD, batch.ids_BL, batch.real_BL)
        columns: list[Tensor] = []
        for c in range(len(self.labels)):
            (gradient_BLD,) = torch.autograd.grad(logits_BC[0, c], x_BLD, retain_graph=True)
            columns.append((gradient_BLD.float() * x_BLD.detach().float()).sum(-1)[0])
        values_LC = torch.stack(columns, dim=-1)
        if net.shape.wide:
            bias_LC = net.class_bias.detach().float()[:, batch.ids_BL[0]].T
            values_LC = (
                values_LC + net.wide_scale.detach().float() * bias_LC / max(1, len(piece)) ** 0.5
            )
        return _numpy(values_LC)


def _numpy(values: Tensor) -> np.ndarray:
    result: np.ndarray = values.detach().float().cpu().numpy()
    return result
