"""Guaranteed false-positive rates: find the threshold of ``max_fpr`` on benign texts.

The whole tree scores the texts as it is, and the threshold is the score of a fixed rank among
them. ``guardkit.guarantee.choose_threshold`` says which rank and proves the promise:

    P(share of all benign texts that is flagged > max_fpr) <= 1 - confidence

over draws of independent texts like those the policy will meet, none of which was used to make its
members or its tree. The promise holds for single texts, and for each category by itself.

Shape letters: N texts of a data set, n the benign ones among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardkit.data.examples import load_examples
from guardkit.data.hashes import texts_hash
from guardkit.data.labels import refuse_unknown_labels
from guardkit.data.splits import group_names
from guardkit.errors import DataError, PolicyError, Problem, UsageError
from guardkit.guarantee import choose_threshold
from guardkit.log_odds import logit, sigmoid_N
from guardkit.model.chunks import chunks
from guardkit.plugins import Plugins, installed_plugins
from guardkit.policy.certificate import (
    Certificate,
    basis_of,
    members_of,
    promises,
    read_certificates,
    stage_bounds,
    write_certificates,
)
from guardkit.policy.nodes import CategoryTree
from guardkit.policy.router import PolicyRouter, check_policy
from guardkit.policy.schema import Policy, Threshold
from guardkit.training.overlap import use_of
from guardkit.types import UNLABELLED, Examples, IntArray, Progress
from guardkit.yamlfile import dotted, read_yaml

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Certified:
    """A category's new certificate and what was counted to make it.

    ``labels`` counts the benign texts by label, if they have any; ``duplicates`` those left out
    because another text of their group counts; ``flagged_positives`` of ``positives`` are above the
    threshold. ``raised_from`` is the threshold that the texts alone give, in log-odds, where a
    stage's ``below`` is higher.
    """

    category: str
    certificate: Certificate
    labels: Mapping[str, int]
    duplicates: int
    unlabelled: int
    positives: int
    flagged_positives: int
    raised_from: float | None


@dataclass(frozen=True)
class _CategoryTexts:
    """A data set as one category sees it: the positions of its texts, one benign text a group."""

    benign_N: IntArray
    positive_N: IntArray
    labels: Mapping[str, int]
    duplicates: int
    unlabelled: int


def certify(
    path: Path,
    *,
    category: str | None = None,
    data: str | None = None,
    device: str = "auto",
    plugins: Plugins | None = None,
    progress: Progress | None = None,
) -> list[Certified]:
    """Find the threshold of every category with ``max_fpr`` in the policy at ``path``, or of one.

    ``data`` is a data spec to try in place of ``calibrated_on``. Of a set without labels, or with
    one that no member has, all texts are benign; else those whose label is not a ``positive`` one.
    Raises PolicyError, and DataError where the texts are too few, were a member's own, or have
    labels that no member knows.
    """
    plugins = plugins or installed_plugins()
    policy = check_policy(path, plugins, uncertified=True)
    specs = {name: data or spec for name, spec in _specs(policy, category).items()}
    base = Path() if data else policy.path.parent
    router = PolicyRouter(policy, device=device, backend="torch", plugins=plugins)
    found: dict[str, Certified] = {}
    for spec in dict.fromkeys(specs.values()):
        examples = _load(spec, base)
        texts = {}
        for name in [name for name in specs if specs[name] == spec]:
            _refuse_own_texts(name, router, examples, spec)
            texts[name] = _texts_of(name, router, examples, spec)
            # raises where there are too few texts, before a model reads them
            choose_threshold(np.zeros(len(texts[name].benign_N)), *_promise(policy, name))
        for name, (lo_N, hi_N) in _evaluate(router, texts, examples, progress).items():
            found[name] = _certified(name, router, examples, texts[name], lo_N, hi_N)
    return [found[name] for name in specs]


def add_certificates(path: Path, certified: Sequence[Certified]) -> Path:
    """Write new certificates beside the policy at ``path`` and return the file they are in; it
    keeps those of other categories that ask for one."""
    try:
        known = dict(read_certificates(path))
    except UsageError:  # damaged, so of no use to anyone
        known = {}
    known |= {c.category: c.certificate for c in certified}
    asking = _specs(check_policy(path, uncertified=True), None)
    return write_certificates(path, {name: known[name] for name in asking if name in known})


def _specs(policy: Policy, category: str | None) -> dict[str, str]:
    """Return {category: calibrated_on} of those that have it, or of the one asked for."""
    policy.refuse_unknown_category(category, policy.path)
    specs = {
        name: flag_at.calibrated_on
        for name, flag_at in promises(policy).items()
        if category in (None, name)
    }
    if not specs:
        which = "no category has" if category is None else f"category {category!r} does not have"
        raise UsageError(
            f"{policy.path}: {which} `flag_at` with max_fpr, confidence and calibrated_on, so "
            "there is nothing to certify"
        )
    return specs


def _promise(policy: Policy, category: str) -> tuple[float, float]:
    flag_at = promises(policy)[category]
    return flag_at.max_fpr, flag_at.confidence


def _load(spec: str, base: Path) -> Examples:
    splits = load_examples(spec, need_labels=False, base=base)
    if len(splits) > 1:
        raise DataError(f"{spec}: has {', '.join(splits)}; choose one with ?split=NAME")
    return next(iter(splits.values()))


def _refuse_own_texts(category: str, router: PolicyRouter, examples: Examples, spec: str) -> None:
    for member in sorted(members_of(router.policy.categories[category])):
        folder = router.sources[member].folder
        if folder is not None and (use := use_of(examples, folder)):
            raise DataError(
                f"{spec}: member {member!r} ({folder}) was {use} these texts, where it errs less "
                "than it will; name others in calibrated_on"
            )


def _texts_of(category: str, router: PolicyRouter, examples: Examples, spec: str) -> _CategoryTexts:
    own = router.policy.categories[category]
    names, labels_N = examples.label_names, examples.labels_N
    sources = [router.sources[member] for member in members_of(own)]
    known = {*own.positive}.union(*(source.labels for source in sources))
    # an attack under a label of its own would count as benign, and raise the threshold
    if len(names) > 1:
        whose = f"category {category!r} and its members"
        refuse_unknown_labels(names, known, to=whose, where=f"{spec}: has")
    is_positive_C = np.array([*(name in own.positive for name in names), False])  # [-1]: unlabelled
    positive_N = is_positive_C[labels_N]
    benign_N = ~positive_N if not names else ~positive_N & (labels_N != UNLABELLED)
    groups: dict[str, int] = {}
    for i, group in enumerate(group_names(examples)):
        if benign_N[i]:
            groups.setdefault(group, i)
    first_N = np.array(list(groups.values()), np.int64)
    counts = {name: int((labels_N[first_N] == c).sum()) for c, name in enumerate(names)}
    return _CategoryTexts(
        benign_N=first_N,
        positive_N=np.flatnonzero(positive_N),
        labels={name: count for name, count in counts.items() if count},
        duplicates=int(benign_N.sum()) - len(first_N),
        unlabelled=int((labels_N == UNLABELLED).sum()) if names else 0,
    )


def _evaluate(
    router: PolicyRouter,
    texts: Mapping[str, _CategoryTexts],
    examples: Examples,
    progress: Progress | None,
) -> dict[str, tuple[_Float64, _Float64]]:
    """Return the root's lo_N and hi_N of each category, NaN for texts that it does not need."""
    wanted = sorted({int(i) for t in texts.values() for i in (*t.benign_N, *t.positive_N)})
    n = len(examples)
    values = {name: (np.full(n, np.nan), np.full(n, np.nan)) for name in texts}
    for index in chunks(wanted, "certify", progress):
        # one batch for all categories: a model reads each text once
        batch = router.batch([examples.texts[i] for i in index])
        for name, (lo_N, hi_N) in values.items():
            category = router.policy.categories[name]
            tree = CategoryTree(batch, name, category)
            lo_N[index], hi_N[index] = tree.intervals(category.decide)
            if category.closed_where_truncated:  # flagged, whatever was read
                unread = np.asarray(index)[tree.truncated_N]
                lo_N[unread] = hi_N[unread] = np.inf
    return values


def _certified(
    name: str,
    router: PolicyRouter,
    examples: Examples,
    texts: _CategoryTexts,
    lo_N: _Float64,
    hi_N: _Float64,
) -> Certified:
    category, promise = router.policy.categories[name], _promise(router.policy, name)
    # what is undecided at t, lo <= t < hi, is flagged if on_error is closed: just where hi > t
    score_N = hi_N if category.on_error == "closed" else lo_N
    score_N = np.where(np.isnan(score_N), -np.inf, score_N)  # no opinion: clear
    benign_n = score_N[texts.benign_N]
    choice = choose_threshold(benign_n, *promise)
    t = _between_the_stages(choice.log_odds, name, router.policy)
    unjudged_n = (lo_N <= t)[texts.benign_N] & (hi_N > t)[texts.benign_N]
    read = [examples.texts[i] for i in texts.benign_N.tolist()]
    certificate = Certificate(
        basis=basis_of(category, router.sources),
        data=texts_hash(read),
        n=len(read),
        allowed=choice.allowed,
        false_positives=int((benign_n > t).sum()),
        unjudged=int(unjudged_n.sum()),
        bound=choice.bound,
        threshold=Threshold(log_odds=t, probability=float(sigmoid_N(t))),
    )
    return Certified(
        category=name,
        certificate=certificate,
        labels=texts.labels,
        duplicates=texts.duplicates,
        unlabelled=texts.unlabelled,
        positives=len(texts.positive_N),
        flagged_positives=int((score_N[texts.positive_N] > t).sum()),
        raised_from=choice.log_odds if t > choice.log_odds > -math.inf else None,
    )


def _between_the_stages(t: float, name: str, policy: Policy) -> float:
    """Return ``t``, raised to the highest ``below`` where it is lower. Raises PolicyError where it
    is above an ``above``, for it may not be lowered."""
    stages = stage_bounds(policy.categories[name])
    if t == -math.inf:  # no score speaks for a lower one than this
        t = min([0.0, *(logit(settle.above) for _, settle in stages)])
    t = max([t, *(logit(settle.below) for _, settle in stages)])
    lines = read_yaml(policy.path.read_bytes())
    problems = []
    for below_decide, settle in stages:
        if logit(settle.above) < t:
            place = ("categories", name, "decide", *below_decide, "above")
            why = (
                f"{settle.above:g} is below the threshold that keeps max_fpr, {_at_least(t)}: a "
                "text settled here as positive would stay unflagged, and no later stage be asked; "
                f"set it to {_at_least(t)} or more (1: settles nothing as positive) and certify on "
                "other texts"
            )
            problems.append(Problem(lines.line(place), dotted(place), why))
    if problems:
        raise PolicyError(str(policy.path), problems)
    return t


def _at_least(log_odds: float) -> str:
    """Return the probability, such as 0.9952, rounded up so that its difference from 1 has two
    digits."""
    rest = 1 / (1 + math.exp(min(log_odds, 700.0)))
    digits = 1 - math.floor(math.log10(rest))
    return f"{1 - math.floor(rest * 10**digits) / 10**digits:.{digits}f}"
