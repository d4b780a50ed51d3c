"""The values that flow, and the two protocols a plugin fulfils.

Shape letters used throughout: N texts, C labels, L tokens, M members, W windows.
The hot path carries one numpy array per batch; records stand at the edges. Those that exist once
per text are msgspec structs, ten times cheaper to make than frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

Action = Literal["allow", "flag", "abstain", "block"]
#: Least to most severe; a text's overall action is the most severe of its categories'.
SEVERITY: tuple[Action, ...] = ("allow", "flag", "abstain", "block")
Task = Literal["multiclass", "multilabel"]
Pooling = Literal["mean", "max"]

#: f(log_odds_MN, prior_log_odds_M) -> log_odds_N, float32, natural logarithm.
Combiner = Callable[[FloatArray, FloatArray], FloatArray]

#: Whose words a text of a conversation is. A text of none is judged by every category.
Role = Literal["system", "developer", "user", "assistant", "tool"]

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts to learn from or to measure on.

    ``labels_N`` indexes ``label_names``; -1 means unlabelled. ``groups`` names what must
    stay on one side of a split (near-duplicates, one movie's reviews); ``sources`` is for
    per-source tables. Both are empty where the data has no such column.
    """

    texts: Sequence[str]
    labels_N: IntArray
    label_names: tuple[str, ...]
    groups: Sequence[str] = ()
    sources: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, index: Sequence[int] | IntArray) -> Examples:
        """Return the examples at ``index``, in that order."""
        rows = [int(i) for i in index]
        return Examples(
            texts=[self.texts[i] for i in rows],
            labels_N=self.labels_N[rows],
            label_names=self.label_names,
            groups=[self.groups[i] for i in rows] if self.groups else (),
            sources=[self.sources[i] for i in rows] if self.sources else (),
        )


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a family learns from, every example labelled. ``validation`` may steer the training
    (early stopping); the calibration set, which core keeps to itself, may not."""

    train: Examples
    validation: Examples

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.train.label_names


@dataclass(frozen=True, slots=True)
class Evidence:
    """What each token of one text adds to each label's logit, under ``scorer``.

    ``spans`` are (start, end) character offsets into the text; ``values_TC`` is float32.
    """

    scorer: str
    spans: Sequence[tuple[int, int]]
    values_TC: FloatArray


@dataclass(frozen=True, slots=True)
class RawScores:
    """What a classifier returns for one batch of N texts: pooled over windows, uncalibrated.

    ``logits_NC`` float32, natural-log units: for ``multiclass`` a softmax over C gives the
    uncalibrated posterior, for ``multilabel`` a sigmoid of each. ``tokens_N`` counts the
    tokens read, ``windows_N`` the windows they were read in; ``truncated_N`` is true where
    part of a text was not read at all. ``novelty_N``: larger is stranger; only on request.
    ``errors`` says by position which texts have no score and why; their rows may hold anything.
    """

    logits_NC: FloatArray
    tokens_N: IntArray
    windows_N: IntArray
    truncated_N: BoolArray
    novelty_N: FloatArray | None = None
    evidence: Sequence[Evidence] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Where a text of a conversation comes from: ``messages[3]``, ``content[0].text``."""

    message: str
    role: Role | None = None
    part: str | None = None  # None where the text is all there is, as in ``system``

    def name(self) -> str:
        """Return all of it in words: ``messages[3] (user, content[0].text)``."""
        more = ", ".join(word for word in (self.role, self.part) if word)
        return f"{self.message} ({more})" if more else self.message


class Row(msgspec.Struct, frozen=True, gc=False):
    """One line to classify: its texts, or why it has none. ``origins`` says of each text where it
    comes from; it is empty where the line is one plain text, which no role has."""

    line: int  # 1-based
    id: Any  # as the line gave it, else the line number
    texts: tuple[str, ...] = ()
    error: str | None = None
    kept: Mapping[str, Any] = msgspec.field(default_factory=dict)  # fields named by --keep
    own_id: bool = False  # the line gave the id itself
    origins: tuple[Origin, ...] = ()


class CategoryDecision(msgspec.Struct, frozen=True, gc=False):
    """One category of one text. ``score`` is a calibrated probability, None where nothing
    could judge the text; ``decided_by`` names the member or node that settled it."""

    action: Action
    score: float | None
    threshold: float
    decided_by: str | None


class RouteStep(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A member that ran for a text: its calibrated probability and what followed. Of a line with
    several texts also which one it was; the JSON of a plain text's has none of these."""

    category: str
    member: str
    score: float | None
    why: str
    message: str | None = None
    role: Role | None = None
    part: str | None = None


class Decision(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a policy decided for one text. Verdict and failure are separate fields: a text
    that could not be judged has ``error`` set and never reads as safe by silence. Its JSON leaves
    out what of ``shadow``, ``models`` and ``down`` is empty."""

    id: Any
    action: Action
    categories: Mapping[str, CategoryDecision]
    error: str | None
    truncated: bool
    route: Sequence[RouteStep]
    policy: str  # short hash
    shadow: Mapping[str, Any] | None = None
    #: Each member that was asked, with its model's short hash: ``policy`` does not cover models.
    models: Mapping[str, str] = msgspec.field(default_factory=dict)
    down: Sequence[str] = ()  # members that were asked and were down, whatever the text


class Progress(Protocol):
    """Called by a family between two training steps.

    May raise ``TrainingInterrupted``: the family then saves what ``resume`` needs and lets
    the exception pass.
    """

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None: ...


@runtime_checkable
class Classifier(Protocol):
    """A loaded model. ``score`` may be called from one thread at a time."""

    @property
    def id(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores: ...


@runtime_checkable
class HasFeatures(Protocol):
    """A classifier that also gives a text a vector, for another model to learn from; optional."""

    @property
    def feature_size(self) -> int: ...

    def features(self, texts: Sequence[str]) -> FloatArray:
        """Return features_NF of N whole texts, float32, finite, F = ``feature_size``; a text's own
        depend on nothing but the text."""
        ...


@runtime_checkable
class SupportsSharing(Protocol):
    """A classifier that computes once what several models need of the same texts, such as models
    adapted from one; optional."""

    def score_shared(
        self,
        texts: Sequence[str],
        shared: MutableMapping[Hashable, Any],
        *,
        novelty: bool = False,
    ) -> RawScores:
        """Return what ``score`` would, to the bit.

        ``shared`` lives as long as one batch of a policy, and every such classifier of the policy
        is given it: leave there what another may need, under a key that says all it follows from.
        """
        ...


@runtime_checkable
class HasCost(Protocol):
    """A classifier that tells how much arithmetic it takes, for ``guardkit policy frontier``;
    optional."""

    @property
    def flops_per_token(self) -> float | None:
        """Floating-point operations per token read, an estimate; None where it cannot say."""
        ...


@runtime_checkable
class HasScorers(Protocol):
    """A family whose models can score in several ways, cheaper and dearer; optional.

    Each is calibrated when a model is made, and a policy's member may name one. What one scorer
    computed of a text that another needs, it leaves in ``SupportsSharing``'s ``shared``.
    """

    def scorers(self, folder: Path) -> Sequence[str]:
        """Return the names of what the artefact ``folder`` can be scored by; the first is what
        ``load`` gives. Read ``config.json`` alone, and import nothing heavy: policies are checked
        by it."""
        ...

    def load_scorer(
        self,
        path: Path,
        scorer: str,
        *,
        device: str,
        backend: str,
        beside: Sequence[Classifier],
    ) -> Classifier:
        """Load a verified artefact folder to score by ``scorer``, and no more than that needs.

        ``beside`` are the classifiers of the same artefact, device and backend that are loaded
        already: take over what they hold.
        """
        ...


class ClassifierFamily(Protocol):
    """A way to train and run classifiers, as a plugin registers it.

    ``presets`` maps a name to values for ``config``; ``builtin`` is the folder of bundled
    artefacts (``builtin:NAME`` is ``builtin / NAME``) or None. A family whose ``train`` may be
    called by all processes of a ``torchrun`` at once says so by ``data_parallel = True``; the
    first of them writes. One that gives the file name of its checkpoints as ``checkpoint`` lets
    a run that failed before the first one be started anew; without it any file may be one.
    """

    @property
    def name(self) -> str: ...

    @property
    def summary(self) -> str: ...

    @property
    def config(self) -> type[BaseModel]: ...

    @property
    def presets(self) -> Mapping[str, Mapping[str, Any]]: ...

    @property
    def builtin(self) -> Path | None: ...

    def train(
        self,
        data: TrainingData,
        config: Any,
        out: Path,
        *,
        pretrain: Examples | None,
        init: str | None,
        resume: bool,
        device: str,
        progress: Progress,
    ) -> Path:
        """Train and return the folder that holds ``config.json`` and the weights.

        ``out`` exists and is the family's own until it returns; checkpoints go below it,
        the returned folder is ``out`` or one inside it. ``resume`` continues from what an
        interrupted call with the same data and config left there.
        """
        ...

    def load(self, path: Path, *, device: str, backend: str) -> Classifier:
        """Load a verified artefact folder."""
        ...


@dataclass(frozen=True, slots=True)
class BeforeAfter:
    """Pooled logits_NC of N texts under a model and under what was made of it."""

    before_NC: FloatArray
    after_NC: FloatArray
    tokens_N: IntArray
    labels_N: IntArray
    sources: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Adapted:
    """A model folder, and what adapting changed: on held-out texts that the model remembers, and
    on the new examples, each scored without the help of itself."""

    folder: Path
    held_out: BeforeAfter
    examples: BeforeAfter


@runtime_checkable
class SupportsAdapt(Protocol):
    """A family whose trained models learn from few examples of something new; optional."""

    def adapt(
        self, base: Path, examples: Examples, out: Path, *, device: str, progress: Progress
    ) -> Adapted:
        """Make a model of the verified artefact ``base`` and of examples that all have one label,
        one of its own. ``out`` and the folder are as in ``ClassifierFamily.train``.
        """
        ...


@runtime_checkable
class SupportsExport(Protocol):
    """A family whose models can be exported; optional."""

    def export(self, folder: Path, out: Path) -> None:
        """Write the network of the verified artefact ``folder`` to the file ``out``, as ONNX."""
        ...


@runtime_checkable
class HasEnvironment(Protocol):
    """A family whose models' output depends on environment variables; optional."""

    @property
    def environment(self) -> tuple[str, ...]:
        """The variables' names. A run that uses such a model goes on only while each has the value
        it began with; a short hash of the value is kept, never the value."""
        ...


@runtime_checkable
class SupportsImport(Protocol):
    """A family that makes models of checkpoints which other code trained; optional."""

    @property
    def import_config(self) -> type[BaseModel]: ...

    def import_checkpoints(
        self, checkpoints: Mapping[str, str], config: Any, out: Path, *, progress: Progress
    ) -> Path:
        """Make one model of a checkpoint per label, in the order of the labels.

        ``out`` and the folder returned are as in ``ClassifierFamily.train``. A checkpoint comes
        from anywhere: nothing in it may run.
        """
        ...
