"""A classifier with its calibration and novelty, loaded from an artefact."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardkit.bounds import MAX_CHARACTERS, READING_COST
from guardkit.calibration.maps import Calibration, read_calibration
from guardkit.errors import ArtefactError, ClassifierError, GuardkitError
from guardkit.member_options import HasOptions, MemberOptions
from guardkit.model import artefact
from guardkit.model.allocation import keep_freed_memory
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.asking import Asked, Circuit, Shared
from guardkit.model.find import find_model
from guardkit.model.novelty import (
    NO_NOVELTY,
    Novelty,
    fit_novelty,
    read_novelty,
    why_unreachable,
)
from guardkit.model.scored import Scored, joined
from guardkit.model.scorers import Source, find_scorer, not_calibrated, scorers_of
from guardkit.plugins import Plugins, installed_plugins
from guardkit.text.readings import readings
from guardkit.text.windows import pool_windows
from guardkit.types import (
    Classifier,
    ClassifierFamily,
    Evidence,
    Examples,
    FloatArray,
    HasScorers,
)


@dataclass
class Work:
    """What a model has done since it was loaded; ``seconds`` are those spent scoring."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0

    def since(self, earlier: Work) -> Work:
        return Work(
            self.texts - earlier.texts,
            self.tokens - earlier.tokens,
            self.truncated - earlier.truncated,
            self.seconds - earlier.seconds,
        )


@dataclass(frozen=True)
class Model:
    """A loaded artefact, by one of its scorers (None: the default one). Where ``calibration`` is
    None it can give no probability, where ``novelty`` is None no novelty p-value. A policy's
    member may have ``options``, and be nothing ``on_disk``."""

    classifier: Classifier
    config: ArtefactConfig
    calibration: Calibration | None
    hash: str
    path: Path
    novelty: Novelty | None = None
    scorer: str | None = None
    options: MemberOptions | None = None
    on_disk: bool = True
    work: Work = field(default_factory=Work, compare=False, repr=False)
    circuit: Circuit = field(default_factory=Circuit, compare=False, repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.config.labels)

    @property
    def source(self) -> Source:
        """Where its scores come from."""
        return Source(self.path if self.on_disk else None, self.scorer, self.options)

    def score(
        self,
        texts: Sequence[str],
        *,
        novelty: bool = False,
        shared: Shared | None = None,
        max_characters: int = MAX_CHARACTERS,
    ) -> Scored:
        """Score N texts; a text that cannot be scored fails alone, whatever batch it is in.

        A text and its other readings share ``max_characters``; what is beyond is not read, and
        the text counts as truncated. A text keeps its score where only its ``novelty`` fails.
        ``shared`` is where models that read the same texts leave work for each other; it changes
        no score. A classifier that was down is not asked again for a while (``Circuit``).
        """
        begun = time.perf_counter()
        shared = {} if shared is None else shared
        within = [text[:max_characters] for text in texts]
        scored = self._score(within, shared, novelty=novelty)
        if self.config.also_read:
            scored = self._with_readings(within, scored, shared, max_characters)
        scored.truncated_N[[len(text) > max_characters for text in texts]] = True
        self.work.seconds += time.perf_counter() - begun
        self.work.texts += len(texts)
        self.work.tokens += int(scored.tokens_N.sum())
        self.work.truncated += int(scored.truncated_N.sum())
        return scored

    def _score(self, texts: Sequence[str], shared: Shared, *, novelty: bool) -> Scored:
        asked = Asked(self.classifier, self.config.family, len(self.labels), self.circuit)
        return asked.score(texts, shared, novelty=novelty)

    def _with_readings(
        self, texts: Sequence[str], scored: Scored, shared: Shared, max_characters: int
    ) -> Scored:
        """Return the scores of each text's worst reading: what one reading hides another shows.

        Novelty and the number of tokens remain those of the raw text. A text fails where one of
        its readings cannot be scored.
        """
        found, truncated_N = [], scored.truncated_N.copy()
        for i, (text, windows) in enumerate(zip(texts, scored.windows_N.tolist(), strict=True)):
            own, all_of_them = self._readings(text, windows, max_characters)
            found.append(own)
            truncated_N[i] |= not all_of_them
        whose_R = np.repeat(np.arange(len(texts)), [len(own) for own in found])
        if not whose_R.size:
            return replace(scored, truncated_N=truncated_N)
        others = self._score([reading for own in found for reading in own], shared, novelty=False)
        self.work.tokens += int(others.tokens_N.sum())
        read_N = np.unique(whose_R)
        logits_NC = scored.logits_NC.copy()
        logits_NC[read_N] = pool_windows(
            np.concatenate([scored.logits_NC, others.logits_NC]),
            np.concatenate([np.arange(len(texts)), whose_R]),
            len(texts), "max", self.config.neutral_index,
        )[read_N]  # fmt: skip
        errors = {int(whose_R[i]): f"another reading of it: {why}"
                  for i, why in others.errors.items()}  # fmt: skip
        windows_N = scored.windows_N.copy()
        np.add.at(windows_N, whose_R, others.windows_N)
        np.logical_or.at(truncated_N, whose_R, others.truncated_N)
        down = frozenset(int(whose_R[i]) for i in others.down)
        return replace(
            scored, logits_NC=logits_NC, windows_N=windows_N, truncated_N=truncated_N,
            errors={**errors, **scored.errors}, down=scored.down | down,
        )  # fmt: skip

    def novelty_p_values(self, scored: Scored) -> npt.NDArray[np.float64]:
        """Return the novelty p-values p_N of texts scored with ``novelty``, NaN where unknown.

        Raises ArtefactError where the model has no ``novelty.json``.
        """
        if self.novelty is None:
            why = why_unreachable(self.source, 1.0)
            raise ArtefactError(why or f"{self.path}: {NO_NOVELTY}")
        assert scored.novelty_N is not None
        return self.novelty.p_values(scored.novelty_N, scored.tokens_N)

    def calibrated(self) -> Calibration:
        """Return the calibration, or say how to get one."""
        if self.calibration is None:
            raise ArtefactError(not_calibrated(self.source))
        return self.calibration

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Return calibrated probabilities_NC, columns in the order of ``labels``.

        multiclass rows sum to 1. Raises ClassifierError where a text cannot be scored.
        """
        scored = self.score(list(texts))
        for index, reason in scored.errors.items():
            raise ClassifierError(f"{self.path}: text {index}: {reason}")
        p_NC, unknown = self.probabilities_of(scored)
        for index, reason in unknown.items():
            raise ClassifierError(f"{self.path}: text {index}: {reason}")
        return p_NC

    def probabilities_of(self, scored: Scored) -> tuple[FloatArray, dict[int, str]]:
        """Return the calibrated probabilities_NC of ``scored``, and by position why a text has
        none: its classifier failed, or what calibration made of its logits is not finite."""
        calibration = self.calibrated()
        with np.errstate(over="ignore", invalid="ignore"):
            log_odds_NC = calibration.log_odds_NC(scored.logits_NC, scored.tokens_N)
            p_NC = calibration.probabilities_NC(scored.logits_NC, scored.tokens_N)
        bad_N = np.flatnonzero(~np.isfinite(log_odds_NC).all(axis=1)).tolist()
        errors = dict.fromkeys(bad_N, "its calibrated log-odds are not finite")
        p_NC[bad_N] = np.nan
        return p_NC, errors | dict(scored.errors)

    def _readings(self, text: str, windows: int, max_characters: int) -> tuple[list[str], bool]:
        """Return the other readings of ``text`` that it leaves room for, and whether they are
        all."""
        if not self.config.also_read:
            return [], True
        found = readings(text, self.config.also_read, long=windows > 1, most=max_characters)
        left = max_characters - len(text)
        for i, reading in enumerate(found):
            left -= len(reading) + READING_COST
            if left < 0:
                return found[:i], False
        return found, True

    def read(self, text: str) -> tuple[list[str], Scored]:
        """Return the readings of ``text``, the first of them the text itself, and their scores. The
        text's own score is each label's largest lead over the neutral one among them.

        Only what ``score`` reads by itself is there. Raises ClassifierError where one cannot be
        scored.
        """
        text = text[:MAX_CHARACTERS]
        scored = self._score([text], {}, novelty=False)
        others, _ = self._readings(text, int(scored.windows_N[0]), MAX_CHARACTERS)
        if others:
            scored = joined([scored, self._score(others, {}, novelty=False)])
        for reason in scored.errors.values():
            raise ClassifierError(f"{self.path}: {reason}")
        return [text, *others], scored

    def explain(self, text: str) -> Evidence:
        """Return what each token of ``text`` adds to each label's logit."""
        evidence = self.classifier.score([text], evidence=True).evidence
        if not evidence:
            raise ClassifierError(f"{self.path}: {self.config.family} gives no evidence")
        return evidence[0]


def load_model(
    ref: str | Path,
    *,
    family: str | None = None,
    base: Path | None = None,
    scorer: str | None = None,
    options: MemberOptions | None = None,
    beside: Sequence[Model] = (),
    device: str = "auto",
    backend: str = "torch",
    allow_unverified: bool = False,
    plugins: Plugins | None = None,
) -> Model:
    """Load a model by folder or ``builtin:NAME``, its hashes verified.

    ``scorer`` names one of the scorers that its family offers; None is the default one.
    ``options`` are those of a policy's member.
    ``beside`` are models loaded for the same device and backend: one of the same artefact, by
    another scorer, hands over what it holds.
    ``device`` is ``auto``, ``cpu`` or ``cuda``; ``allow_unverified`` skips the hashes, for a
    model that is being made. From then on the process keeps freed memory (``allocation``).
    Raises ArtefactError or PluginError, and ClassifierError where the plugin fails at it.
    """
    keep_freed_memory()
    plugins = plugins or installed_plugins()
    path = find_model(str(ref), family=family, base=base or Path.cwd(), plugins=plugins)
    config = artefact.read_config(path)
    if family is not None and config.family != family:
        raise ArtefactError(f"{path}: made by plugin {config.family!r}, asked for as {family!r}")
    before = artefact.state(path)
    digest = "unverified" if allow_unverified else artefact.verify(path)
    of = plugins.family(config.family)
    scorer = find_scorer(path, of, scorer)
    calibration = None
    if (path / artefact.CALIBRATION).is_file():
        calibration = read_calibration(path / artefact.CALIBRATION).of(scorer)
        if calibration is not None and calibration.labels != config.labels:
            raise ArtefactError(
                f"{path}: calibrated for labels {calibration.labels}, not {config.labels}"
            )
    novelty = None
    if (path / artefact.NOVELTY).is_file():
        novelty = read_novelty(path / artefact.NOVELTY).of(scorer)
    same = [m.classifier for m in beside if m.path == path and m.hash == digest]
    try:
        if isinstance(of, HasOptions) and options is not None:
            classifier = of.load_member(
                path, options.options, timeout_s=options.timeout_s, device=device, backend=backend
            )
        else:
            classifier = _load(of, path, scorer, same, device=device, backend=backend)
    except (GuardkitError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin's own, an exit or a panic too: say whose it is
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        message = f"{path}: plugin {config.family!r} cannot load it: {reason}"
        raise ClassifierError(message) from error
    if artefact.state(path) != before:  # what was loaded may not be what was verified
        raise ArtefactError(f"{path}: was changed while it was loaded; load it again")
    if classifier.labels != tuple(config.labels):
        raise ArtefactError(
            f"{path}: plugin {config.family!r} gives labels {classifier.labels}, "
            f"config.json says {tuple(config.labels)}"
        )
    return Model(classifier, config, calibration, digest, path, novelty, scorer, options)


def load_scorers(ref: str | Path, *, device: str, allow_unverified: bool = False) -> list[Model]:
    """Load a model by each of its scorers, the default one first; see ``load_model``."""
    models = [load_model(ref, device=device, allow_unverified=allow_unverified)]
    path = models[0].path
    for scorer in scorers_of(path, installed_plugins().family(models[0].config.family))[1:]:
        models.append(
            load_model(
                path, scorer=scorer, beside=models, device=device, allow_unverified=allow_unverified
            )
        )
    return models


def _load(
    family: ClassifierFamily,
    path: Path,
    scorer: str | None,
    beside: Sequence[Classifier],
    *,
    device: str,
    backend: str,
) -> Classifier:
    if scorer is None and beside:  # of whose artefact it may take over parts
        scorer = next(iter(scorers_of(path, family)), None)
    if scorer is None or not isinstance(family, HasScorers):
        return family.load(path, device=device, backend=backend)
    return family.load_scorer(path, scorer, device=device, backend=backend, beside=beside)


def novelty_of(examples: Examples, scored: Scored, *, data: str) -> Novelty | None:
    """Return ``novelty.json`` for held-out ``examples`` of all labels, scored with ``novelty``;
    None where the family gives none. ``data`` is their hash."""
    assert scored.novelty_N is not None
    if np.isnan(scored.novelty_N).all():
        return None
    return fit_novelty(examples, scored.novelty_N, scored.tokens_N, data=data)
