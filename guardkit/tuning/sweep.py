"""Sweep a cascade's ``settle`` bounds: what each choice of them costs and catches.

For each choice the threshold is the loosest one that flags no more than ``max_fpr`` of the
negatives, within what a policy may say: below <= threshold <= above.

The best of many choices looks better than it is. To measure it on texts it was not chosen on, it is
cross-fitted: whole groups are dealt into two halves, and each half is decided with the bounds and
threshold that are best on the other.

Shape letters: N texts, S stages, M models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product

import numpy as np
import numpy.typing as npt

from guardkit.data.splits import group_folds
from guardkit.log_odds import logit
from guardkit.metrics import BinaryRates, Interval, RecallAt, bootstrap
from guardkit.tuning.replay import NEVER, Bounds, Replay, Stages, replay
from guardkit.types import BoolArray

#: Choices of bounds that are tried, over all stages together.
MAX_CHOICES = 5_000
#: Values tried for one bound.
MAX_VALUES = 40
#: Points of the frontier that are named and get intervals.
SHOWN_POINTS = 8
RESAMPLES = 500
#: A threshold must be a probability with finite log-odds.
_LOWEST, _HIGHEST = 1e-9, 1 - 1e-9

_Float64 = npt.NDArray[np.float64]
_ALL = 0


@dataclass(frozen=True)
class SweepInput:
    """What is swept: a cascade and each of its members alone, over labelled texts.

    ``swept`` are the stages whose bounds are to be chosen, ``bounds`` the file's for every stage;
    ``threshold`` is the file's, None where it has none.
    """

    members: Sequence[str]
    stages: Stages
    singles: Mapping[str, Stages]
    bounds: tuple[Bounds, ...]
    swept: Sequence[int]
    threshold: float | None
    positive_N: BoolArray
    groups: Sequence[str]
    max_fpr: float
    max_ms: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Point:
    """A way to run the cascade, or one member alone, measured on the labelled texts.

    ``threshold`` is a probability, ``ms`` the time per text, ``asked`` {member: share of texts}.
    """

    name: str
    bounds: tuple[Bounds, ...]
    threshold: float
    recall: float
    fpr: float
    ms: float
    asked: Mapping[str, float] = field(default_factory=dict)

    def dominates(self, other: Point) -> bool:
        """Return whether this costs, misses and falsely flags no more, and one of them less."""
        ours, theirs = (self.ms, -self.recall, self.fpr), (other.ms, -other.recall, other.fpr)
        return ours != theirs and all(a <= b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    ``own`` is the file as written; ``singles`` are the members alone; ``points`` are all choices
    that keep to ``max_fpr``; ``frontier`` are some of those within ``max_ms`` that no other point
    beats on both cost and recall; ``better`` are those that dominate ``own`` at its own
    false-positive rate. ``chosen`` has the highest recall (of equal ones, the lowest cost).
    ``intervals`` {name of a point: its recall}. The thresholds and bounds of all these points were
    chosen on the texts that they were measured on.

    ``held_out`` {recall, fpr, ms} is what the chosen point does on texts it was not chosen on.
    ``gains`` {member: recall of the cascade less recall of this member alone} has bounds
    cross-fitted, and both at the same false-positive rate; ``first`` names the first member.
    """

    own: Point | None
    singles: Sequence[Point]
    points: Sequence[Point]
    frontier: Sequence[Point]
    better: Sequence[Point]
    chosen: Point
    intervals: Mapping[str, Interval]
    held_out: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    first: str

    @property
    def helps(self) -> bool:
        """Whether the later stages are shown to catch more than the first member alone."""
        return (self.gains[self.first]["low"] or 0.0) > 0.0


def sweep(inputs: SweepInput) -> Sweep | None:
    """Try every choice of bounds; None where no threshold keeps any to ``max_fpr``."""
    everything = np.ones(len(inputs.positive_N), bool)
    half_N = halves(inputs.positive_N, inputs.groups, inputs.seed)
    parts = (everything, half_N, ~half_N)
    own = _own(inputs)
    points: list[Point] = []
    best: list[Point | None] = [None] * len(parts)
    better: list[Point] = []
    for bounds in bound_choices(inputs):
        run = replay(inputs.stages, bounds)
        # of all texts: a half must not rule out what the whole can afford
        affordable = inputs.max_ms is None or run.ms_N.mean() <= inputs.max_ms
        for i, part in enumerate(parts):
            point = _point(inputs, "", bounds, run, inputs.max_fpr, part)
            if point is not None and i == _ALL:
                points.append(point)
            if point is not None and affordable and _preferred(point, best[i]):
                best[i] = point
        if own is not None:
            rival = _point(inputs, "", bounds, run, own.fpr, everything)
            if rival is not None and rival.dominates(own):
                better.append(rival)
    chosen, *on_halves = best
    if chosen is None or on_halves[0] is None or on_halves[1] is None:
        return None
    singles = [
        point
        for name, stages in inputs.singles.items()
        for point in [_single(inputs, name, stages, everything)]
        if point is not None
    ]
    frontier = _frontier([p for p in points if inputs.max_ms is None or p.ms <= inputs.max_ms])
    better.sort(key=lambda p: (-p.recall, p.ms))
    held_out, gains = _cross_fitted(inputs, half_N, (on_halves[0], on_halves[1]))
    return Sweep(
        own=own,
        singles=singles,
        points=points,
        frontier=frontier,
        better=better,
        chosen=chosen,
        intervals=_intervals(inputs, own, singles, frontier),
        held_out=held_out,
        gains=gains,
        first=next(iter(inputs.singles)),
    )


def bound_choices(inputs: SweepInput) -> Iterator[tuple[Bounds, ...]]:
    """Yield bounds for every stage: the file's, then pairs of quantiles of what a stage says."""
    yield inputs.bounds
    count = MAX_VALUES
    while count > 2 and (count * (count + 1) // 2) ** len(inputs.swept) > MAX_CHOICES:
        count -= 1
    tried = [
        list(combinations_with_replacement(_values(inputs.stages, s, count), 2))
        for s in inputs.swept
    ]
    for pairs in product(*tried):
        if max(below for below, _ in pairs) > min(above for _, above in pairs):
            continue  # no threshold would lie between the bounds of every stage
        bounds = list(inputs.bounds)
        for s, pair in zip(inputs.swept, pairs, strict=True):
            bounds[s] = pair
        if tuple(bounds) != inputs.bounds:
            yield tuple(bounds)


def halves(positive_N: BoolArray, groups: Sequence[str], seed: int) -> BoolArray:
    """Return which texts are in the first half: whole groups, both classes spread evenly."""
    first_N: BoolArray = group_folds(positive_N.astype(np.int64), groups, seed=seed, folds=2) == 0
    return first_N


def loosest_threshold(
    score_N: _Float64, positive_N: BoolArray, max_fpr: float, low: float, high: float
) -> float | None:
    """Return the lowest threshold in [low, high], in log-odds, above which no more than
    ``max_fpr`` of the negatives score; None where there is none."""
    negative_N = score_N[~positive_N]
    if not len(negative_N):
        return low
    allowed = min(math.floor(max_fpr * len(negative_N) + 1e-9), len(negative_N) - 1)
    rank = len(negative_N) - 1 - allowed
    threshold = max(float(np.partition(negative_N, rank)[rank]), low)
    return threshold if threshold <= high else None


def shortest_probability(low: float, high: float) -> float:
    """Return the probability of fewest decimals whose log-odds are in [low, high), so that what
    a file says flags the very texts that ``low`` does."""
    middle = low + min((high - low) / 2, 0.5)
    for digits in range(2, 17):
        p = round(1.0 / (1.0 + math.exp(-middle)), digits)
        if 0 < p < 1 and low <= logit(p) < high:
            return p
    return 1.0 / (1.0 + math.exp(-low))


def _values(stages: Stages, s: int, count: int) -> list[float]:
    """Return ``count`` probabilities to try: 0, 1, and quantiles of what the stage says, short."""
    lo_N = stages.lo_SN[s]
    known_N = lo_N[np.isfinite(lo_N) & (lo_N == stages.hi_SN[s])]
    if not len(known_N):
        return [0.0, 1.0]
    inner = np.quantile(known_N, np.linspace(0, 1, count)[1:-1])
    return sorted({0.0, 1.0, *(_short(float(z)) for z in inner)})


def _short(z: float) -> float:
    """Return the probability of log-odds ``z`` with two digits of it, or of what 1 lacks."""
    p = 1.0 / (1.0 + math.exp(-min(max(z, -20.0), 20.0)))
    return float(f"{p:.2g}") if p < 0.5 else round(1 - float(f"{1 - p:.2g}"), 12)


def _limits(bounds: Sequence[Bounds]) -> tuple[float, float]:
    """Return the probabilities between which a policy with ``bounds`` may flag."""
    below, above = max(b for b, _ in bounds), min(a for _, a in bounds)
    return max(below, _LOWEST), min(above, _HIGHEST)


def _point(
    inputs: SweepInput,
    name: str,
    bounds: tuple[Bounds, ...],
    run: Replay,
    max_fpr: float,
    part_N: BoolArray,
) -> Point | None:
    """Return what ``run`` does on some of the texts at the loosest threshold there."""
    low, high = _limits(bounds)
    positive_N, score_N = inputs.positive_N[part_N], run.score_N[part_N]
    threshold = loosest_threshold(score_N, positive_N, max_fpr, logit(low), logit(high))
    if threshold is None:
        return None
    return _measured(inputs, name, bounds, run, _written(threshold, score_N, low, high), part_N)


def _written(threshold: float, score_N: _Float64, low: float, high: float) -> float:
    """Return ``threshold`` as a short probability in [low, high] that flags the same texts."""
    if threshold <= logit(low):
        return low
    if threshold >= logit(high):
        return high
    above_N = score_N[score_N > threshold]
    return shortest_probability(threshold, min(float(above_N.min(initial=np.inf)), logit(high)))


def _measured(
    inputs: SweepInput,
    name: str,
    bounds: tuple[Bounds, ...],
    run: Replay,
    threshold: float,
    part_N: BoolArray,
) -> Point:
    flagged_N, positive_N = run.flagged_N(threshold)[part_N], inputs.positive_N[part_N]
    share_M = run.asked_MN[:, part_N].mean(axis=1).tolist()
    return Point(
        name=name,
        bounds=bounds,
        threshold=threshold,
        recall=float(flagged_N[positive_N].mean()),
        fpr=float(flagged_N[~positive_N].mean()),
        ms=float(run.ms_N[part_N].mean()),
        asked=dict(zip(inputs.members, share_M, strict=True)),
    )


def _preferred(point: Point, best: Point | None) -> bool:
    return best is None or (-point.recall, point.ms) < (-best.recall, best.ms)


def _own(inputs: SweepInput) -> Point | None:
    if inputs.threshold is None:
        return None
    run = replay(inputs.stages, inputs.bounds)
    everything = np.ones(len(inputs.positive_N), bool)
    return _measured(inputs, "the file", inputs.bounds, run, inputs.threshold, everything)


def _alone(stages: Stages) -> Replay:
    return replay(stages, [NEVER] * len(stages.lo_SN))


def _single(inputs: SweepInput, name: str, stages: Stages, part_N: BoolArray) -> Point | None:
    return _point(inputs, f"{name} alone", (NEVER,), _alone(stages), inputs.max_fpr, part_N)


def _frontier(points: Sequence[Point]) -> list[Point]:
    """Return at most ``SHOWN_POINTS`` of the points that none beats on cost and recall, named."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, -p.recall)):
        if not kept or point.recall > kept[-1].recall:
            kept.append(point)
    chosen = np.unique(np.linspace(0, len(kept) - 1, SHOWN_POINTS).round().astype(int)).tolist()
    return [
        Point(f"#{n}", p.bounds, p.threshold, p.recall, p.fpr, p.ms, p.asked)
        for n, p in enumerate((kept[i] for i in chosen), start=1)
    ]


def _ranked(score_N: _Float64, bounds: Sequence[Bounds]) -> _Float64:
    """Return scores as a threshold within ``bounds`` ranks them: below all of it is the last."""
    return np.where(score_N > logit(_limits(bounds)[0]), score_N, -np.inf)


def _intervals(
    inputs: SweepInput, own: Point | None, singles: Sequence[Point], frontier: Sequence[Point]
) -> dict[str, Interval]:
    """Return each point's recall with its 95% interval, thresholds read anew in each resample."""
    recalls: dict[str, Callable[[_Float64], float]] = {}
    for member, stages in inputs.singles.items():
        if any(point.name == f"{member} alone" for point in singles):
            score_N = _alone(stages).score_N
            recalls[f"{member} alone"] = RecallAt(inputs.positive_N, score_N, inputs.max_fpr)
    for point in frontier:
        score_N = _ranked(replay(inputs.stages, point.bounds).score_N, point.bounds)
        recalls[point.name] = RecallAt(inputs.positive_N, score_N, inputs.max_fpr)
    if own is not None:
        flagged_N = replay(inputs.stages, own.bounds).flagged_N(own.threshold)
        flags = BinaryRates(inputs.positive_N, flagged_N)
        recalls[own.name] = lambda weight_N: flags(weight_N)["recall"]

    def measure(weight_N: _Float64) -> dict[str, float]:
        return {name: recall(weight_N) for name, recall in recalls.items()}

    return dict(bootstrap(measure, inputs.groups, resamples=RESAMPLES, seed=inputs.seed))


def _cross_fitted(
    inputs: SweepInput, first_N: BoolArray, best: tuple[Point, Point]
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Return (held_out, gains): each half under what was best on the other, ``best`` by half."""
    positive_N = inputs.positive_N
    flagged_N, ms_N = np.zeros(len(positive_N), bool), np.zeros(len(positive_N))
    recalls: list[tuple[BoolArray, RecallAt, dict[str, RecallAt]]] = []
    for part_N, point in ((~first_N, best[0]), (first_N, best[1])):
        run = replay(inputs.stages, point.bounds)
        flagged_N[part_N] = run.flagged_N(point.threshold)[part_N]
        ms_N[part_N] = run.ms_N[part_N]

        def recall_at(score_N: _Float64, part_N: BoolArray = part_N) -> RecallAt:
            return RecallAt(positive_N[part_N], score_N[part_N], inputs.max_fpr)

        alone = {m: recall_at(_alone(s).score_N) for m, s in inputs.singles.items()}
        recalls.append((part_N, recall_at(_ranked(run.score_N, point.bounds)), alone))
    flags = BinaryRates(positive_N, flagged_N)

    def held_out(weight_N: _Float64) -> dict[str, float]:
        counted = flags(weight_N)
        ms = float(weight_N @ ms_N / weight_N.sum())
        return {"recall": counted["recall"], "fpr": counted["fpr"], "ms": ms}

    def gains(weight_N: _Float64) -> dict[str, float]:
        total = weight_N @ positive_N
        result = dict.fromkeys(inputs.singles, 0.0)
        for part_N, together, alone in recalls:
            share = weight_N[part_N] @ positive_N[part_N] / total if total else math.nan
            for member, single in alone.items():
                gain = together(weight_N[part_N]) - single(weight_N[part_N])
                result[member] += float(share) * gain
        return result

    groups, seed = inputs.groups, inputs.seed
    return (
        dict(bootstrap(held_out, groups, resamples=RESAMPLES, seed=seed)),
        dict(bootstrap(gains, groups, resamples=RESAMPLES, seed=seed)),
    )
