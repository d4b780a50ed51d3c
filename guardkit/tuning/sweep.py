"""The choices a cascade's ``settle`` bounds offer: what each costs and catches, and what is left
of the best of them on texts it was not chosen on.

For each choice the threshold is the loosest that flags no more than ``max_fpr`` of the negatives,
within what a policy may say: below <= threshold <= above.

The best of many choices looks better than it is. So it is cross-fitted: the groups are dealt into
two halves, and each half is decided with the bounds and threshold that are best on the other.

Shape letters: N texts, S stages, M models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product

import numpy as np
import numpy.typing as npt

from guardkit.data.examples import group_folds
from guardkit.log_odds import logit
from guardkit.metrics import Flags, Interval, RecallAt, bootstrap
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
_ALL, _HALVES = 0, (1, 2)


@dataclass(frozen=True)
class Problem:
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
    """What came out.

    ``own`` is the file's point as written; ``singles`` are the members alone; ``points`` all
    choices that keep to ``max_fpr``, ``frontier`` some of those (within ``max_ms``) that none
    beats on both cost and recall; ``better`` those that dominate ``own``, at its own
    false-positive rate. ``chosen`` has the most recall (of equals, the cheapest). ``intervals``
    {point's name: recall}. Of all these, thresholds and bounds were chosen on the very texts.

    ``held_out`` {recall, fpr, ms} is what the choice does on texts it was not made on. ``gains``
    {member: recall that the cascade has over this member alone}, bounds cross-fitted and both at
    the same false-positive rate; ``first`` names the first member.
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


def sweep(problem: Problem) -> Sweep | None:
    """Try every choice of bounds; None where no threshold keeps any to ``max_fpr``."""
    everything = np.ones(len(problem.positive_N), bool)
    half_N = halves(problem.positive_N, problem.groups, problem.seed)
    parts = (everything, half_N, ~half_N)
    own = _own(problem)
    points: list[Point] = []
    best: list[Point | None] = [None] * len(parts)
    better: list[Point] = []
    for bounds in choices(problem):
        run = replay(problem.stages, bounds)
        # of all texts: a half must not rule out what the whole can afford
        affordable = problem.max_ms is None or run.ms_N.mean() <= problem.max_ms
        for i, part in enumerate(parts):
            point = _point(problem, "", bounds, run, problem.max_fpr, part)
            if point is not None and i == _ALL:
                points.append(point)
            if point is not None and affordable and _preferred(point, best[i]):
                best[i] = point
        if own is not None:
            rival = _point(problem, "", bounds, run, own.fpr, everything)
            if rival is not None and rival.dominates(own):
                better.append(rival)
    chosen, *on_halves = best
    if chosen is None or on_halves[0] is None or on_halves[1] is None:
        return None
    singles = [
        point
        for name, stages in problem.singles.items()
        for point in [_single(problem, name, stages, everything)]
        if point is not None
    ]
    frontier = _frontier([p for p in points if problem.max_ms is None or p.ms <= problem.max_ms])
    better.sort(key=lambda p: (-p.recall, p.ms))
    held_out, gains = _cross_fitted(problem, half_N, (on_halves[0], on_halves[1]))
    return Sweep(
        own=own,
        singles=singles,
        points=points,
        frontier=frontier,
        better=better,
        chosen=chosen,
        intervals=_intervals(problem, own, singles, frontier),
        held_out=held_out,
        gains=gains,
        first=next(iter(problem.singles)),
    )


def choices(problem: Problem) -> Iterator[tuple[Bounds, ...]]:
    """Yield bounds for every stage: the file's, then pairs of quantiles of what a stage says."""
    yield problem.bounds
    count = MAX_VALUES
    while count > 2 and (count * (count + 1) // 2) ** len(problem.swept) > MAX_CHOICES:
        count -= 1
    tried = [
        list(combinations_with_replacement(_values(problem.stages, s, count), 2))
        for s in problem.swept
    ]
    for pairs in product(*tried):
        if max(below for below, _ in pairs) > min(above for _, above in pairs):
            continue  # no threshold would lie between the bounds of every stage
        bounds = list(problem.bounds)
        for s, pair in zip(problem.swept, pairs, strict=True):
            bounds[s] = pair
        if tuple(bounds) != problem.bounds:
            yield tuple(bounds)


def halves(positive_N: BoolArray, groups: Sequence[str], seed: int) -> BoolArray:
    """Return which texts are in the first half: whole groups, both classes spread evenly."""
    first_N: BoolArray = group_folds(positive_N.astype(np.int64), groups, seed=seed, folds=2) == 0
    return first_N


def loosest(
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
    problem: Problem,
    name: str,
    bounds: tuple[Bounds, ...],
    run: Replay,
    max_fpr: float,
    part_N: BoolArray,
) -> Point | None:
    """Return what ``run`` does on some of the texts at the loosest threshold there."""
    low, high = _limits(bounds)
    positive_N, score_N = problem.positive_N[part_N], run.score_N[part_N]
    threshold = loosest(score_N, positive_N, max_fpr, logit(low), logit(high))
    if threshold is None:
        return None
    return _measured(problem, name, bounds, run, _written(threshold, score_N, low, high), part_N)


def _written(threshold: float, score_N: _Float64, low: float, high: float) -> float:
    """Return ``threshold`` as a short probability in [low, high] that flags the same texts."""
    if threshold <= logit(low):
        return low
    if threshold >= logit(high):
        return high
    above_N = score_N[score_N > threshold]
    return shortest_probability(threshold, min(float(above_N.min(initial=np.inf)), logit(high)))


def _measured(
    problem: Problem,
    name: str,
    bounds: tuple[Bounds, ...],
    run: Replay,
    threshold: float,
    part_N: BoolArray,
) -> Point:
    flagged_N, positive_N = run.flagged_N(threshold)[part_N], problem.positive_N[part_N]
    share_M = run.asked_MN[:, part_N].mean(axis=1).tolist()
    return Point(
        name=name,
        bounds=bounds,
        threshold=threshold,
        recall=float(flagged_N[positive_N].mean()),
        fpr=float(flagged_N[~positive_N].mean()),
        ms=float(run.ms_N[part_N].mean()),
        asked=dict(zip(problem.members, share_M, strict=True)),
    )


def _preferred(point: Point, best: Point | None) -> bool:
    return best is None or (-point.recall, point.ms) < (-best.recall, best.ms)


def _own(problem: Problem) -> Point | None:
    if problem.threshold is None:
        return None
    run = replay(problem.stages, problem.bounds)
    everything = np.ones(len(problem.positive_N), bool)
    return _measured(problem, "the file", problem.bounds, run, problem.threshold, everything)


def _alone(stages: Stages) -> Replay:
    return replay(stages, [NEVER] * len(stages.lo_SN))


def _single(problem: Problem, name: str, stages: Stages, part_N: BoolArray) -> Point | None:
    return _point(problem, f"{name} alone", (NEVER,), _alone(stages), problem.max_fpr, part_N)


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
    problem: Problem, own: Point | None, singles: Sequence[Point], frontier: Sequence[Point]
) -> dict[str, Interval]:
    """Return each point's recall with its 95% interval, thresholds read anew in each resample."""
    recalls: dict[str, Callable[[_Float64], float]] = {}
    for member, stages in problem.singles.items():
        if any(point.name == f"{member} alone" for point in singles):
            score_N = _alone(stages).score_N
            recalls[f"{member} alone"] = RecallAt(problem.positive_N, score_N, problem.max_fpr)
    for point in frontier:
        score_N = _ranked(replay(problem.stages, point.bounds).score_N, point.bounds)
        recalls[point.name] = RecallAt(problem.positive_N, score_N, problem.max_fpr)
    if own is not None:
        flagged_N = replay(problem.stages, own.bounds).flagged_N(own.threshold)
        flags = Flags(problem.positive_N, flagged_N)
        recalls[own.name] = lambda weight_N: flags(weight_N)["recall"]

    def measure(weight_N: _Float64) -> dict[str, float]:
        return {name: recall(weight_N) for name, recall in recalls.items()}

    return dict(bootstrap(measure, problem.groups, resamples=RESAMPLES, seed=problem.seed))


def _cross_fitted(
    problem: Problem, first_N: BoolArray, best: tuple[Point, Point]
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Return (held_out, gains): each half under what was best on the other, ``best`` by half."""
    positive_N = problem.positive_N
    flagged_N, ms_N = np.zeros(len(positive_N), bool), np.zeros(len(positive_N))
    recalls: list[tuple[BoolArray, RecallAt, dict[str, RecallAt]]] = []
    for part_N, point in ((~first_N, best[0]), (first_N, best[1])):
        run = replay(problem.stages, point.bounds)
        flagged_N[part_N] = run.flagged_N(point.threshold)[part_N]
        ms_N[part_N] = run.ms_N[part_N]

        def recall_at(score_N: _Float64, part_N: BoolArray = part_N) -> RecallAt:
            return RecallAt(positive_N[part_N], score_N[part_N], problem.max_fpr)

        alone = {m: recall_at(_alone(s).score_N) for m, s in problem.singles.items()}
        recalls.append((part_N, recall_at(_ranked(run.score_N, point.bounds)), alone))
    flags = Flags(positive_N, flagged_N)

    def held_out(weight_N: _Float64) -> dict[str, float]:
        counted = flags(weight_N)
        ms = float(weight_N @ ms_N / weight_N.sum())
        return {"recall": counted["recall"], "fpr": counted["fpr"], "ms": ms}

    def gains(weight_N: _Float64) -> dict[str, float]:
        total = weight_N @ positive_N
        result = dict.fromkeys(problem.singles, 0.0)
        for part_N, together, alone in recalls:
            share = weight_N[part_N] @ positive_N[part_N] / total if total else math.nan
            for member, single in alone.items():
                gain = together(weight_N[part_N]) - single(weight_N[part_N])
                result[member] += float(share) * gain
        return result

    groups, seed = problem.groups, problem.seed
    return (
        dict(bootstrap(held_out, groups, resamples=RESAMPLES, seed=seed)),
        dict(bootstrap(gains, groups, resamples=RESAMPLES, seed=seed)),
    )
