"""The arms of novel_families.py: what each makes of a task's texts once it was shown examples."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from guardkit_gpt2 import scoring as gpt2_scoring
from guardkit_gpt2 import training as gpt2_training
from guardkit_gpt2.config import PRESETS as GPT2_PRESETS
from guardkit_gpt2.config import Gpt2Options
from guardkit_mdlm.adaptation.class_rows import AddedRows, Contrast, fit_row
from guardkit_mdlm.adaptation.remembered import Windows, read_windows
from guardkit_mdlm.adaptation.sketch import sketches
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.diffusion import masked_log_probs
from guardkit_mdlm.estimators import Scheme, class_plans, evaluate
from guardkit_mdlm.inference import batched
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import MdlmClassifier
from guardkit_mdlm.scoring import load as load_mdlm
from guardkit_mdlm.tokenizer import TokenIds, encode, read_tokenizer
from guardkit_mdlm.training.train import train as train_mdlm
from sklearn.linear_model import LogisticRegression

from benchmarks.families.left_out import LabelledText, Task
from benchmarks.families.sentence_encoder import SentenceEncoder
from benchmarks.lib.baselines import fit_nbsvm, fit_tfidf
from guardkit import Classifier, Examples, TrainingData, pool_windows
from guardkit.types import FloatArray

LABELS = ("benign", "injection")
NEUTRAL, ATTACK = 0, 1
#: What is measured on, in the order in which an arm's ``score`` gives it.
SETS = ("attacks", "threshold", "benign")
ARMS = ("mdlm", "label-only", "mdlm-generative", "gpt2", "tfidf", "nbsvm", "sentences")
#: How often an example is in the training text of what is trained again with it.
REPEATED = 10
#: Small networks and few passes: what counts is the difference between arms, which see the same.
SIZE: Mapping[str, Any] = {"vocab_size": 2048, "neutral": "benign"}
MDLM: Mapping[str, Any] = {
    **SIZE, "hidden_dim": 128, "n_blocks": 2, "n_heads": 2, "batch_tokens": 2048, "epochs": 1.0,
    "max_windows_per_epoch": 2, "validations": 2, "ngrams": 0,
}  # fmt: skip
LABELS_ALONE: Mapping[str, Any] = {"text_weight": 0.0, "pair_weight": 0.0, "visible_share": 0.0}
GPT2: Mapping[str, Any] = {
    **GPT2_PRESETS["tiny"], **SIZE, "width": 128, "layers": 2, "heads": 2, "epochs": 1,
}  # fmt: skip
#: Training of a new class's conditioning: steps of so many windows each.
STEPS, STEP_WINDOWS, RATE = 40, 8, 0.05
ScoresOfSets = tuple[FloatArray, FloatArray, FloatArray]


class Arm(Protocol):
    """``cheap``: examples are shown in no time. ``train_s``: processor seconds before any."""

    cheap: bool
    train_s: float

    def score(self, shots: Sequence[int]) -> ScoresOfSets:
        """Return the scores of ``SETS`` once the task's ``shots`` at these indices are known."""
        ...

    def novelty(self) -> Mapping[str, ScoresOfSets]:
        """Return how strange the texts of ``SETS`` are, without any example, by each score."""
        ...


def arms_of(task: Task, folder: Path, encoder: str | None) -> dict[str, Callable[[], Arm]]:
    """Return what makes each arm; networks are trained into ``folder``, each once.

    ``encoder`` is a pretrained sentence encoder, without which there is no such arm.
    """
    arms: dict[str, Callable[[], Arm]] = {
        "mdlm": lambda: mdlm_arm(task, folder / "joint", {}),
        "label-only": lambda: mdlm_arm(task, folder / "label-only", LABELS_ALONE),
        "mdlm-generative": lambda: GenerativeArm(task, folder / "joint"),
        "gpt2": lambda: gpt2_arm(task, folder / "gpt2"),
        "tfidf": lambda: RetrainedArm(task, tfidf),
        "nbsvm": lambda: RetrainedArm(task, nbsvm),
    }
    if encoder is not None:
        arms["sentences"] = lambda: RetrainedArm(task, sentences(encoder, folder.parent))
    return arms


def examples(rows: Sequence[LabelledText]) -> Examples:
    labels_N = np.array([ATTACK if r.family else NEUTRAL for r in rows], np.int64)
    return Examples([r.text for r in rows], labels_N, LABELS)


def texts(rows: Sequence[LabelledText]) -> list[str]:
    return [r.text for r in rows]


@dataclass
class RowArm:
    """A frozen network, and one class row fitted to the examples: what ``guardkit adapt`` does."""

    of_sets: Sequence[Windows]
    shots: Windows
    held_out: Windows
    strange: Mapping[str, ScoresOfSets]
    train_s: float
    cheap: bool = True
    contrast: Contrast = field(init=False)

    def __post_init__(self) -> None:
        self.contrast = Contrast(self.held_out, ATTACK, "max", NEUTRAL)

    def score(self, shots: Sequence[int]) -> ScoresOfSets:
        rows = AddedRows(0)
        if shots:
            rows = fit_row(self.shots.of_texts(shots), self.contrast, rows)
        first, second, third = (self._log_odds(rows, windows) for windows in self.of_sets)
        return first, second, third

    def _log_odds(self, rows: AddedRows, own: Windows) -> FloatArray:
        logits_WC = rows.of(own.logits_WC, own.sketch_WK) if len(rows) else own.logits_WC
        return lead(pool_windows(logits_WC, own.text_W, len(own), "max", NEUTRAL))

    def novelty(self) -> Mapping[str, ScoresOfSets]:
        return self.strange


def mdlm_arm(task: Task, out: Path, options: Mapping[str, Any]) -> RowArm:
    """Train an MDLM unless it is there, and read every text once."""
    folder, seconds = trained_mdlm(task, out, options)
    classifier: MdlmClassifier = load_mdlm(folder, device="cpu", backend="torch")
    record = classifier._record
    tokenizer = read_tokenizer(folder)

    def read(rows: Sequence[LabelledText]) -> Windows:
        return read_windows(
            classifier._joint, encode(tokenizer, texts(rows)), examples(rows).labels_N,
            window=record.window_tokens, overlap=record.overlap_tokens, device=torch.device("cpu"),
        )  # fmt: skip

    of_sets = [read(getattr(task, name)) for name in SETS]
    strange = strangeness(classifier, task, [w.pooled("max", NEUTRAL) for w in of_sets])
    return RowArm(of_sets, read(task.shots), read(task.held_out), strange, seconds)


def trained_mdlm(task: Task, out: Path, options: Mapping[str, Any]) -> tuple[Path, float]:
    config = MdlmConfig(**{**MDLM, **options})
    return trained(out, lambda: train_mdlm(
        TrainingData(examples(task.train), examples(task.held_out)), config, out,
        pretrain=None, init=None, resume=False, device="cpu", progress=quiet,
    ))  # fmt: skip


def gpt2_arm(task: Task, out: Path) -> RowArm:
    """Train a GPT-2 unless it is there; to a row, a whole text is one window of its tokens."""
    data = TrainingData(examples(task.train), examples(task.held_out))
    folder, seconds = trained(out, lambda: gpt2_training.train(
        data, Gpt2Options(**GPT2), out,
        pretrain=None, init=None, resume=False, device="cpu", progress=quiet,
    ))  # fmt: skip
    classifier = gpt2_scoring.load(folder, device="cpu", backend="torch")

    def read(rows: Sequence[LabelledText]) -> Windows:
        scores = classifier.score(texts(rows))
        ids = encode(classifier._tokenizer, texts(rows))
        whose, labels_N = np.arange(len(rows)), examples(rows).labels_N
        return Windows(scores.logits_NC, sketches(ids), whose, labels_N, scores.tokens_N)

    of_sets = [read(getattr(task, name)) for name in SETS]
    strange = strangeness(classifier, task, [w.logits_WC for w in of_sets])
    return RowArm(of_sets, read(task.shots), read(task.held_out), strange, seconds)


def trained(out: Path, train: Callable[[], Path]) -> tuple[Path, float]:
    """Return where ``train`` put its artefact, and its processor seconds; both kept in ``out``."""
    kept = out / "seconds"
    if not kept.is_file():
        out.mkdir(parents=True, exist_ok=True)
        begun = time.process_time()
        folder = train()
        kept.write_text(f"{folder.relative_to(out)}\n{time.process_time() - begun}\n", "utf-8")
    name, seconds = kept.read_text("utf-8").split()
    return out / name, float(seconds)


def strangeness(
    classifier: Classifier, task: Task, logits: Sequence[FloatArray]
) -> dict[str, ScoresOfSets]:
    """Return the model's own novelty, and one less its largest probability."""
    own, sure = [], []
    for name, logits_NC in zip(SETS, logits, strict=True):
        novelty_N = classifier.score(texts(getattr(task, name)), novelty=True).novelty_N
        assert novelty_N is not None
        own.append(novelty_N)
        largest_N = np.exp(logits_NC.max(1) - np.logaddexp.reduce(logits_NC, axis=1))
        sure.append(1 - largest_N)
    return {"own": (own[0], own[1], own[2]), "msp": (sure[0], sure[1], sure[2])}


class GenerativeArm:
    """The joint network's log p(text | class); a new class is 64 numbers of conditioning.

    They start at those of the attacks and are trained on the examples' text alone, as channel
    prompt tuning does (Min et al. 2022); the new class's word frequencies are those of attacks.
    A text's score is the lead of both kinds of attack together over the benign, per square root
    of its tokens.
    """

    cheap = False

    def __init__(self, task: Task, out: Path) -> None:
        folder, self.train_s = trained_mdlm(task, out, {})
        classifier: MdlmClassifier = load_mdlm(folder, device="cpu", backend="torch")
        self.key, self.exponent = classifier._mask_key, classifier._record.length_exponent
        self.scheme = Scheme("half_pairs", 2)
        self.net = with_one_more_class(classifier._joint.float())
        tokenizer = read_tokenizer(folder)
        cut = [classifier.cut(encode(tokenizer, texts(getattr(task, name)))) for name in SETS]
        self.cut = [(pieces, text_W, len(getattr(task, name)))
                    for (pieces, text_W), name in zip(cut, SETS, strict=True)]  # fmt: skip
        self.shots = [classifier.cut([i])[0] for i in encode(tokenizer, texts(task.shots))]
        self.known = [self._log_p(pieces, [1, 2]) for pieces, _, _ in self.cut]

    def score(self, shots: Sequence[int]) -> ScoresOfSets:
        if shots:
            self._learn([piece for i in shots for piece in self.shots[i][:4]])
        found = []
        for (pieces, text_W, n), known_WC in zip(self.cut, self.known, strict=True):
            attack_W = known_WC[:, 1]
            if shots:
                attack_W = np.logaddexp(attack_W, self._log_p(pieces, [3])[:, 0])
            lead_W = np.stack([np.zeros_like(attack_W), attack_W - known_WC[:, 0]], axis=1)
            found.append(lead(pool_windows(lead_W.astype(np.float32), text_W, n, "max", NEUTRAL)))
        return found[0], found[1], found[2]

    def novelty(self) -> Mapping[str, ScoresOfSets]:
        return {}

    def _log_p(self, pieces: Sequence[TokenIds], classes: Sequence[int]) -> FloatArray:
        def run(chosen: Sequence[TokenIds]) -> np.ndarray:
            found = evaluate(self.net, chosen, self.scheme, classes=classes, key=self.key)
            lengths_B = np.array([max(1, len(p)) for p in chosen])
            estimate_BC: np.ndarray = found.estimate() / lengths_B[:, None] ** self.exponent
            return estimate_BC

        result: FloatArray = batched(pieces, run, (len(classes),), torch.device("cpu"))
        return result

    def _learn(self, pieces: Sequence[TokenIds]) -> None:
        """Train the last row of ``class_cond``, from that of attacks, on these windows."""
        rng = np.random.default_rng(0)
        row_K = self.net.class_cond[1].detach().clone().requires_grad_()
        others_CK = self.net.class_cond[:2].detach()
        optimiser = torch.optim.Adam([row_K], RATE)
        net = copy.copy(self.net)  # whose conditioning is an expression, not a parameter
        net._parameters = {k: v for k, v in net._parameters.items() if k != "class_cond"}
        pieces = [p for p in pieces if len(p)]
        for _ in range(STEPS):
            net.class_cond = torch.cat([others_CK, row_K[None]])
            chosen = [pieces[i] for i in rng.integers(len(pieces), size=STEP_WINDOWS)]
            loss = -mean_log_prob(net, chosen, self.scheme, rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        with torch.no_grad():
            self.net.class_cond[2] = row_K


def mean_log_prob(
    net: Denoiser, pieces: Sequence[TokenIds], scheme: Scheme, rng: np.random.Generator
) -> torch.Tensor:
    """Return class 3's mean log-probability of a masked token, every token masked once."""
    longest = max(len(p) for p in pieces)
    ids_BL = torch.zeros(len(pieces), longest, dtype=torch.long)
    real_BL = torch.zeros(len(pieces), longest, dtype=torch.bool)
    first_BL = torch.zeros(len(pieces), longest, dtype=torch.bool)
    for b, piece in enumerate(pieces):
        ids_BL[b, : len(piece)] = torch.from_numpy(np.asarray(piece, np.int64))
        real_BL[b, : len(piece)] = True
        (plan,) = class_plans(scheme, piece, [3], rng.bytes(16))
        first_BL[b, : len(piece)] = torch.from_numpy(plan.masks_KL[0])
    class_B = torch.full((len(pieces),), 3)
    values = [
        masked_log_probs(net, ids_BL, mask_BL, class_B, real_BL)
        for mask_BL in (first_BL, real_BL & ~first_BL)
    ]
    return torch.cat(values).mean()


def with_one_more_class(net: Denoiser) -> Denoiser:
    """Return a copy with a third class like the second, for its generative scores alone: without
    n-grams."""
    shape = net.shape.model_copy(update={"n_classes": net.shape.n_classes + 1, "ngrams": 0})
    more = Denoiser(shape)
    state = {name: t for name, t in net.state_dict().items() if not name.startswith("ngrams.")}
    for name in ("class_cond", "slot_class", "class_bias", "label_head.weight", "label_head.bias"):
        state[name] = torch.cat([state[name], state[name][-1:]])
    more.load_state_dict(state)
    return more.eval().requires_grad_(False)


class RetrainedArm:
    """A linear model, trained again with the examples."""

    cheap = False
    train_s = 0.0

    def __init__(
        self, task: Task, fit: Callable[[Examples], Callable[[Sequence[str]], FloatArray]]
    ) -> None:
        self.task, self.fit = task, fit

    def score(self, shots: Sequence[int]) -> ScoresOfSets:
        chosen = [self.task.shots[i] for i in shots] * REPEATED
        score = self.fit(examples([*self.task.train, *chosen]))
        first, second, third = (score(texts(getattr(self.task, name))) for name in SETS)
        return first, second, third

    def novelty(self) -> Mapping[str, ScoresOfSets]:
        return {}


def tfidf(train: Examples) -> Callable[[Sequence[str]], FloatArray]:
    return fit_tfidf(train.texts, train.labels_N, solver="liblinear").decision_function


def nbsvm(train: Examples) -> Callable[[Sequence[str]], FloatArray]:
    classifier, _ = fit_nbsvm(train)
    return lambda of: lead(classifier.score(of).logits_NC)


def sentences(encoder: str, folder: Path) -> Callable[[Examples], Callable[..., FloatArray]]:
    """Fit the head of SetFit (Tunstall et al. 2022), without its tuning of the encoder."""
    read = SentenceEncoder(encoder, folder / "sentences.npz").vectors

    def fit(train: Examples) -> Callable[[Sequence[str]], FloatArray]:
        model = LogisticRegression(C=10.0, max_iter=1000).fit(read(train.texts), train.labels_N)
        return lambda of: model.decision_function(read(of))

    return fit


def lead(logits_NC: FloatArray) -> FloatArray:
    """Return the lead of attack over benign."""
    result: FloatArray = logits_NC[:, ATTACK] - logits_NC[:, NEUTRAL]
    return result


def quiet(*_: object) -> None:
    """Report nothing."""
