"""A trained GPT-2 as a classifier: logits, novelty and evidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tokenizers import Encoding, Tokenizer

from guardkit import (
    WEIGHTS,
    ArtefactConfig,
    ArtefactError,
    ConfigError,
    Evidence,
    RawScores,
    check_network_size,
    halved_on_oom,
    pick_device,
    pool_windows,
    read_config,
    windows,
)
from guardkit_gpt2.config import NetworkSpec
from guardkit_gpt2.network import Network, batches_by_length, fresh_lm, pad
from guardkit_gpt2.tokenizer import TokenIds, encode, read_tokenizer

FloatArray = npt.NDArray[np.float32]
#: Tokens scored at once, padding included. More gains nothing on a CPU.
BATCH_TOKENS = {"cpu": 4096, "cuda": 65_536}
#: The same for evidence, which keeps every layer's states.
EVIDENCE_TOKENS = 1024


@dataclass(frozen=True)
class Windows:
    """N texts cut into W windows. ``span_W`` is (start, end) in the tokens of ``text_W``."""

    tokens_W: list[TokenIds]
    span_W: list[tuple[int, int]]
    text_W: np.ndarray
    n_texts: int

    def __len__(self) -> int:
        return len(self.tokens_W)


def load(path: Path, *, device: str, backend: str) -> Gpt2Classifier:
    """Load an artefact folder; see ``ClassifierFamily.load``."""
    if backend != "torch":
        raise ConfigError(f"backend {backend!r}: the gpt2 family runs on 'torch' only")
    where = pick_device(device)
    config = read_config(path)
    try:
        spec = NetworkSpec.model_validate(config.network)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(("network", *map(str, first["loc"])))
        raise ArtefactError(
            f"{path / 'config.json'}: {field}: {first['msg']} (got {first['input']!r:.80})"
        ) from error
    check_network_size([path / WEIGHTS], spec.least_values)
    network = Network(fresh_lm(spec.gpt2, seed=0), spec)
    _read_weights(network, path / WEIGHTS)
    return Gpt2Classifier(path.name, config, spec, network.to(where), read_tokenizer(path))


class Gpt2Classifier:
    """Scores texts in float32, whatever the weights were stored or trained in: rounded to
    bfloat16, a text's logits would move with the batch it is in."""

    def __init__(
        self,
        name: str,
        config: ArtefactConfig,
        spec: NetworkSpec,
        network: Network,
        tokenizer: Tokenizer,
    ) -> None:
        self.id = f"gpt2:{name}"
        self.labels = tuple(config.labels)
        self._config = config
        self._spec = spec
        self._network = network.float().eval()
        self._tokenizer = tokenizer

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return pooled logits_NC; an empty text is scored on the start token alone.

        ``novelty_N`` is -log p per token where the artefact's language model was trained, else
        the energy -logsumexp_c logit (Liu 2020). ``evidence`` explains the pooled logits.
        """
        encoded = encode(self._tokenizer, texts)
        ids_N = [np.array(e.ids, np.int32) for e in encoded]
        cut = cut_windows(ids_N, self._spec)
        language = novelty and self._spec.language
        logits_WC, nll_W = score_windows(
            self._network, cut, self._spec.start_token, language=language
        )
        logits_NC = self._pool(logits_WC, cut)
        novelty_N = None
        if novelty:
            novelty_N = (
                _nll_per_token(nll_W, cut) if language else -np.logaddexp.reduce(logits_NC, axis=1)
            )
        return RawScores(
            logits_NC=logits_NC,
            tokens_N=np.array([len(ids) for ids in ids_N], np.int64),
            windows_N=np.bincount(cut.text_W, minlength=len(texts)).astype(np.int64),
            truncated_N=np.zeros(len(texts), bool),
            novelty_N=None if novelty_N is None else novelty_N.astype(np.float32),
            evidence=self._explain(encoded, logits_WC, cut) if evidence else None,
        )

    @property
    def flops_per_token(self) -> float:
        """Twice the weights that a token meets (Kaplan et al. 2020, table 1); attention's own
        part, which grows with the window, is left out."""
        weights = {n: p.numel() for n, p in self._network.named_parameters() if p.ndim == 2}
        met = sum(n for name, n in weights.items() if ".h." in name)
        if self._spec.rule == "likelihood":  # each predicts the next token
            met += sum(n for name, n in weights.items() if name.endswith("wte.weight"))
        return 2.0 * met

    @property
    def feature_size(self) -> int:
        return self._network.state_size

    def features(self, texts: Sequence[str]) -> FloatArray:
        """Return features_NF: the mean final state over a window's tokens, and over windows."""
        ids_N = [np.array(e.ids, np.int32) for e in encode(self._tokenizer, texts)]
        cut = cut_windows(ids_N, self._spec)
        means_WF = window_states(self._network, cut, self._spec.start_token)
        sums_NF = np.zeros((len(texts), self.feature_size), np.float32)
        np.add.at(sums_NF, cut.text_W, means_WF)
        windows_N = np.bincount(cut.text_W, minlength=len(texts))
        return np.divide(sums_NF, windows_N[:, None], dtype=np.float32)

    def _pool(self, logits_WC: FloatArray, cut: Windows) -> FloatArray:
        return pool_windows(
            logits_WC,
            cut.text_W,
            cut.n_texts,
            self._config.window_pooling,
            self._config.neutral_index,
        )

    def _explain(
        self, encoded: Sequence[Encoding], logits_WC: FloatArray, cut: Windows
    ) -> list[Evidence]:
        """Share each pooled logit out among tokens: mean pooling averages the windows' values,
        max pooling takes those of each label's winning window, less the neutral label's."""
        values_WTC = window_evidence(self._network, cut, self._spec.start_token)
        neutral = self._config.neutral_index
        how = self._config.window_pooling
        explained = []
        for text, encoding in enumerate(encoded):
            own = np.flatnonzero(cut.text_W == text)
            values_TC = np.zeros((len(encoding.ids), len(self.labels)), np.float32)
            if how == "mean":
                for w in own:
                    values_TC[slice(*cut.span_W[w])] += values_WTC[w] / len(own)
            else:
                assert neutral is not None  # ArtefactConfig sees to it
                winner_C = (logits_WC[own] - logits_WC[own][:, [neutral]]).argmax(axis=0)
                for label, w in enumerate(own[winner_C]):
                    lead_T = values_WTC[w][:, label] - values_WTC[w][:, neutral]
                    values_TC[slice(*cut.span_W[w]), label] = lead_T
            scorer = f"gpt2 {self._spec.rule}, {how} of windows"
            explained.append(Evidence(scorer, encoding.offsets, values_TC))
        return explained


def cut_windows(ids_N: Sequence[TokenIds], spec: NetworkSpec) -> Windows:
    """Cut texts into windows; each leaves room for the start token."""
    spans_N = [windows(len(ids), spec.window_tokens - 1, spec.overlap_tokens) for ids in ids_N]
    return Windows(
        tokens_W=[ids[a:b] for ids, spans in zip(ids_N, spans_N, strict=True) for a, b in spans],
        span_W=[span for spans in spans_N for span in spans],
        text_W=np.repeat(np.arange(len(ids_N)), [len(spans) for spans in spans_N]),
        n_texts=len(ids_N),
    )


@torch.inference_mode()
def score_windows(
    network: Network,
    cut: Windows,
    start_token: int,
    *,
    language: bool = False,
    before_batch: Callable[[int], None] = lambda _: None,
) -> tuple[FloatArray, FloatArray]:
    """Return logits_WC and nll_W (zero unless ``language``), in the network's own dtype, those
    of like length together. ``before_batch`` is told how many windows are done."""
    network.eval()
    where = next(network.parameters()).device
    logits_WC = np.zeros((len(cut), network.n_labels), np.float32)
    nll_W = np.zeros(len(cut), np.float32)

    def read(group: Sequence[int]) -> None:
        reading = network(
            *pad([cut.tokens_W[w] for w in group], start_token, where), language=language
        )
        logits_WC[group] = reading.logits_BC.cpu().numpy()
        if language:
            nll_W[group] = reading.nll_B.cpu().numpy()

    done = 0
    for group in batches_by_length([len(t) for t in cut.tokens_W], BATCH_TOKENS[where.type]):
        before_batch(done)
        halved_on_oom(group, read)
        done += len(group)
    return logits_WC, nll_W


@torch.inference_mode()
def window_states(network: Network, cut: Windows, start_token: int) -> FloatArray:
    """Return each window's mean final states, means_WF."""
    where = next(network.parameters()).device
    means_WF = np.zeros((len(cut), network.state_size), np.float32)

    def read(group: Sequence[int]) -> None:
        means_BF = network.mean_states(*pad([cut.tokens_W[w] for w in group], start_token, where))
        means_WF[group] = means_BF.cpu().numpy()

    for group in batches_by_length([len(t) for t in cut.tokens_W], BATCH_TOKENS[where.type]):
        halved_on_oom(group, read)
    return means_WF


def window_evidence(network: Network, cut: Windows, start_token: int) -> list[FloatArray]:
    """Return, for each window, what each of its tokens adds to each logit: values_TC."""
    where = next(network.parameters()).device
    values_WTC = [np.zeros((0, network.n_labels), np.float32)] * len(cut)

    def explain(group: Sequence[int]) -> None:
        values_BLC = network.evidence(*pad([cut.tokens_W[w] for w in group], start_token, where))
        for row, w in enumerate(group):
            values_WTC[w] = values_BLC[row, 1 : len(cut.tokens_W[w]) + 1].cpu().numpy()

    for group in batches_by_length([len(t) for t in cut.tokens_W], EVIDENCE_TOKENS):
        halved_on_oom(group, explain)
    return values_WTC


def _nll_per_token(nll_W: FloatArray, cut: Windows) -> np.ndarray:
    """Return each text's nats per token; 0 for an empty one."""
    read_W = [len(tokens) for tokens in cut.tokens_W]
    nats_N = np.bincount(cut.text_W, nll_W, cut.n_texts)
    read_N = np.bincount(cut.text_W, read_W, cut.n_texts)
    result: np.ndarray = nats_N / np.maximum(read_N, 1)
    return result


def _read_weights(network: Network, path: Path) -> None:
    tensors = load_file(path)
    parameters = dict(network.named_parameters())
    if odd := sorted(tensors.keys() ^ parameters.keys()):
        side = "missing" if odd[0] in parameters else "not part of the network config.json tells of"
        raise ArtefactError(f"{path}: tensor {odd[0]!r} is {side}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if tensors[name].shape != parameter.shape:
                raise ArtefactError(
                    f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, config.json "
                    f"tells of {tuple(parameter.shape)}"
                )
            parameter.copy_(tensors[name])
