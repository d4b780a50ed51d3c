"""What a policy's cascade costs and catches under every choice of its ``settle`` bounds.

Every model reads every labelled text once, against the clock; ``sweep`` then tries the
bounds without running one again. ``write_policy`` puts the chosen ones into the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from guardkit.data.hashes import texts_hash
from guardkit.data.labels import labelled
from guardkit.data.splits import group_names
from guardkit.errors import ClassifierError, DataError, UsageError
from guardkit.files import write_atomically
from guardkit.metrics import count_groups
from guardkit.model.chunks import chunks
from guardkit.model.loaded import Model
from guardkit.model.score_cache import CachedClassifier, with_score_cache
from guardkit.plugins import Plugins, installed_plugins
from guardkit.policy.backup_record import BackupRecord, category_hash, write_backup_record
from guardkit.policy.batch import PolicyBatch
from guardkit.policy.nodes import CategoryTree
from guardkit.policy.router import PolicyRouter, check_policy
from guardkit.policy.schema import (
    AnyNode,
    CascadeNode,
    Category,
    MemberNode,
    Policy,
    node_name,
    walk,
)
from guardkit.training.overlap import refuse_training_texts
from guardkit.tuning.replay import NEVER, Bounds, Stages
from guardkit.tuning.stacking import refuse_labels_unknown_to, refuse_moved_models
from guardkit.tuning.sweep import Sweep, SweepInput, sweep
from guardkit.types import BoolArray, Examples, HasCost, Progress
from guardkit.yamlfile import with_values

#: Least number of positives, and of negatives that may be flagged, groups counted once.
LEAST_POSITIVES = 20
_SWEEPS = (
    "it takes a `cascade` at the top whose stages are members, patterns or combinations of them, "
    "and in which a member stage has `settle` bounds"
)

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cost:
    """What one member takes per text: milliseconds on this machine after a warm-up, chunk by chunk;
    tokens read; operations, if its family says how many a token takes. ``scored`` texts were read
    in this run; the scores and times of the others were in the cache."""

    ms: float
    tokens: float
    flops: float | None
    scored: int


@dataclass(frozen=True)
class Frontier:
    """One category's sweep, and what it was made on. ``data`` is the texts' and labels' hash."""

    path: Path
    category: str
    n: int
    positives: int
    unlabelled: int
    data: str
    max_fpr: float
    costs: Mapping[str, Cost]
    sweep: Sweep

    def record(self) -> dict[str, Any]:
        """Return all of it, for JSON."""
        about = {"policy": str(self.path), "category": self.category, "data": self.data}
        sizes = {"n": self.n, "positives": self.positives, "unlabelled": self.unlabelled}
        costs = {member: asdict(cost) for member, cost in self.costs.items()}
        helps = {"max_fpr": self.max_fpr, "helps": self.sweep.helps}
        return {**about, **sizes, **helps, "costs": costs, **asdict(self.sweep)}


def sweep_policy(
    path: Path,
    examples: Examples,
    *,
    category: str | None = None,
    max_fpr: float = 0.01,
    max_ms: float | None = None,
    cache: Path | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Frontier:
    """Sweep the cascade of one category of the policy at ``path`` over labelled ``examples``.

    The category is the only one with a cascade, or ``category``. Scores are kept in ``cache``.
    Raises UsageError where there is no cascade that can be swept, DataError where there are too
    few texts or a member was trained on them.
    """
    if not 0 < max_fpr < 1:
        raise UsageError(f"--max-fpr {max_fpr}: must lie between 0 and 1")
    plugins = installed_plugins()
    policy = check_policy(path, plugins, uncertified=True)
    name = _category(path, policy, category)
    chosen = policy.categories[name]
    cascade = _cascade(path, name, chosen)
    router = PolicyRouter(policy, device=device, backend="torch", plugins=plugins)
    members = dict.fromkeys(n.member for _, n in walk(cascade) if isinstance(n, MemberNode))
    models = {member: router.model(member) for member in members}

    total, examples = len(examples), labelled(examples)
    refuse_labels_unknown_to(models.values(), set(chosen.positive), examples)
    for member, model in models.items():
        refuse_training_texts(member, model, examples)
    labels = np.array(examples.label_names, dtype=object)[examples.labels_N]
    positive_N, groups = np.isin(labels, chosen.positive), group_names(examples)
    _refuse_too_few(name, positive_N, groups, max_fpr)

    once = {x.source: with_score_cache(x, cache, device=device) for x in models.values()}
    models = {member: once[model.source] for member, model in models.items()}  # which may share one
    asked = _CategoryScores(name, policy, models, plugins)
    alone: list[AnyNode] = [MemberNode(member=member) for member in models]
    nodes = [*cascade.cascade, *alone]
    lo_SN, hi_SN, strange_SN, unread_SN = asked.values(nodes, examples.texts, progress)
    costs, ms_MN = asked.costs(examples.texts)
    n_stages = len(cascade.cascade)
    asks_SM = np.stack([_asks(stage, models) for stage in [*cascade.cascade, *alone]])
    patterns = [s for s, stage in enumerate(cascade.cascade) if not _has_member(stage)]

    def stages(rows: Sequence[int]) -> Stages:
        rows = list(rows)
        closed = chosen.on_error == "closed"
        told = lo_SN[rows], hi_SN[rows], strange_SN[rows], unread_SN[rows]
        return Stages(*told, asks_SM[rows], ms_MN, closed=closed)

    result = sweep(
        SweepInput(
            members=list(models),
            stages=stages(range(n_stages)),
            singles={m: stages([*patterns, n_stages + i]) for i, m in enumerate(models)},
            bounds=(*map(_bounds, cascade.cascade[:-1]), NEVER),
            swept=_swept(cascade),
            threshold=getattr(chosen.flag_at, "probability", None),
            positive_N=positive_N,
            groups=groups,
            max_fpr=max_fpr,
            max_ms=max_ms,
            seed=seed,
        )
    )
    if result is None:
        within = "" if max_ms is None else f" within {max_ms} ms a text"
        raise DataError(
            f"{path}: no choice of bounds keeps to a false-positive rate of {max_fpr:.2%}{within} "
            "on these texts; allow more"
        )
    return Frontier(
        path=path,
        category=name,
        n=len(examples),
        positives=int(positive_N.sum()),
        unlabelled=total - len(examples),
        data=texts_hash(examples.texts, [str(y) for y in labels]),
        max_fpr=max_fpr,
        costs=costs,
        sweep=result,
    )


def write_policy(frontier: Frontier, out: Path) -> list[str]:
    """Write the policy to ``out`` with the chosen bounds and threshold, all else as it was, and
    the record on its backup beside it. Returns what the user should know.

    A ``flag_at`` that is no probability keeps what it says.
    """
    path, name, point = frontier.path, frontier.category, frontier.sweep.chosen
    refuse_moved_models("--write", path, out)
    plugins = installed_plugins()
    policy = check_policy(path, plugins, uncertified=True)
    category = policy.categories[name]
    cascade = _cascade(path, name, category)
    text = path.read_bytes().decode("utf-8-sig")
    for s in _swept(cascade):
        below, above = map(_yaml, point.bounds[s])
        place = ("categories", name, "decide", "cascade", s, "settle")
        text = with_values(text, place, {"below": below, "above": above})
    notes = []
    if hasattr(category.flag_at, "probability"):
        threshold = {"probability": _yaml(point.threshold)}
        text = with_values(text, ("categories", name, "flag_at"), threshold)
    else:
        notes.append(f"flag_at keeps what it says; run `guardkit policy certify {out}`")
    write_atomically(out, text.encode())
    certificates = out.with_name(f"{out.stem}.certificates.json")
    if certificates.exists():
        notes.append(f"{certificates} no longer fits; run `guardkit policy certify {out}`")
    written = check_policy(out, plugins, uncertified=True)
    sources = PolicyRouter(written, device="cpu", backend="torch", plugins=plugins).sources
    gain = frontier.sweep.gains[frontier.sweep.first]
    record = BackupRecord(
        hash=category_hash(written.categories[name], sources),
        helps=frontier.sweep.helps,
        gain=gain["value"],
        low=gain["low"],
        high=gain["high"],
        max_fpr=frontier.max_fpr,
        n=frontier.n,
        data=frontier.data,
    )
    notes.append(f"the verdict on its backup is in {write_backup_record(out, name, record)}")
    return notes


class _CategoryScores:
    """What the models and nodes of one category say of all texts, each text read once."""

    def __init__(
        self, name: str, policy: Policy, models: Mapping[str, Model], plugins: Plugins
    ) -> None:
        self.name, self.category = name, policy.categories[name]
        self.models, self.plugins = models, plugins
        self.max_characters = policy.max_characters
        members = [node for _, node in walk(self.category.decide) if isinstance(node, MemberNode)]
        #: The models that compute novelty together with their scores, as they do for the router.
        self.novelty_of = {models[n.member].source for n in members if n.escalate_if is not None}

    def values(
        self, nodes: Sequence[AnyNode], texts: Sequence[str], progress: Progress | None
    ) -> tuple[_Float64, _Float64, BoolArray, BoolArray]:
        """Return what each node says of each text, lo_SN and hi_SN, where its ``escalate_if``
        holds, strange_SN, and where it flags a text for what it has not read, unread_SN."""
        told = []
        try:
            for member in self.models:
                novelty = self._gives_novelty(member)
                self._classifier(member).warm_up(self._given(texts), novelty=novelty)
            for chunk in chunks(texts, "score", progress):
                batch = PolicyBatch(
                    chunk, self.models.__getitem__, self.plugins.combiners, self.novelty_of,
                    max_characters=self.max_characters,
                )  # fmt: skip
                of_nodes = [self._node(batch, node) for node in nodes]
                told.append([np.stack(values) for values in zip(*of_nodes, strict=True)])
        finally:  # what was scored before a failure need not be scored again
            for member in self.models:
                self._classifier(member).save()
        lo_SN, hi_SN, strange_SN, unread_SN = (
            np.concatenate(values, axis=1) for values in zip(*told, strict=True)
        )
        return lo_SN, hi_SN, strange_SN, unread_SN

    def _node(
        self, batch: PolicyBatch, node: AnyNode
    ) -> tuple[_Float64, _Float64, BoolArray, BoolArray]:
        """Return what ``values`` does of one node and one batch."""
        tree = CategoryTree(batch, self.name, self.category)
        lo_N, hi_N = tree.intervals(node)
        unread_N = tree.truncated_N & self.category.closed_where_truncated
        return lo_N, hi_N, self._strange(batch, node), unread_N

    def _given(self, texts: Sequence[str]) -> list[str]:
        """Return what a model is given of the texts."""
        return [text[: self.max_characters] for text in texts]

    def costs(self, texts: Sequence[str]) -> tuple[dict[str, Cost], _Float64]:
        """Return what each member takes, and ms_MN; of a text that failed, the mean."""
        costs, rows = {}, []
        texts = self._given(texts)
        for member in self.models:
            classifier = self._classifier(member)
            novelty = self._gives_novelty(member)
            ms_N = classifier.ms(texts, novelty=novelty)
            tokens_N = classifier.tokens(texts, novelty=novelty)
            if np.isnan(ms_N).all():
                raise ClassifierError(f"member {member!r}: not one text could be scored")
            ms, tokens = float(np.nanmean(ms_N)), float(np.nanmean(tokens_N))
            inner = classifier.inner
            per_token = inner.flops_per_token if isinstance(inner, HasCost) else None
            flops = None if per_token is None else per_token * tokens
            costs[member] = Cost(ms, tokens, flops, classifier.scored)
            rows.append(np.where(np.isnan(ms_N), ms, ms_N))
        return costs, np.stack(rows).astype(np.float64)

    def _strange(self, batch: PolicyBatch, node: AnyNode) -> BoolArray:
        """Return which texts ``node`` hands on however sure it is: not known to be familiar."""
        everything = np.arange(len(batch.texts))
        if not isinstance(node, MemberNode) or node.escalate_if is None:
            return np.zeros(len(everything), bool)
        p_N, _ = batch.novelty_p(self.models[node.member], everything)
        strange_N: BoolArray = ~(p_N > node.escalate_if.novelty_p_below)
        return strange_N

    def _gives_novelty(self, member: str) -> bool:
        return self.models[member].source in self.novelty_of

    def _classifier(self, member: str) -> CachedClassifier:
        return cast(CachedClassifier, self.models[member].classifier)


def _category(path: Path, policy: Policy, wanted: str | None) -> str:
    policy.refuse_unknown_category(wanted, path)
    if wanted is not None:
        return wanted
    cascades = [name for name, c in policy.categories.items() if isinstance(c.decide, CascadeNode)]
    if not cascades:
        raise UsageError(f"{path}: no category has a cascade to sweep: {_SWEEPS}")
    if len(cascades) > 1:
        raise UsageError(f"{path}: has cascades for {', '.join(cascades)}; choose by --category")
    return cascades[0]


def _cascade(path: Path, name: str, category: Category) -> CascadeNode:
    """Return the category's cascade, or say why it cannot be swept."""
    root = category.decide
    where = f"{path}: category {name!r} cannot be swept: "
    if not isinstance(root, CascadeNode):
        raise UsageError(f"{where}its `decide` is {node_name(root)}; {_SWEEPS}")
    for stage in root.cascade:
        if any(isinstance(node, CascadeNode) for _, node in walk(stage)):
            raise UsageError(f"{where}a cascade stands inside another; {_SWEEPS}")
    if not _swept(root):
        raise UsageError(f"{where}no stage has bounds; {_SWEEPS}")
    return root


def _swept(cascade: CascadeNode) -> list[int]:
    """Return the stages whose bounds are to be chosen."""
    earlier = enumerate(cascade.cascade[:-1])
    return [s for s, stage in earlier if stage.settle is not None and _has_member(stage)]


def _bounds(stage: AnyNode) -> Bounds:
    return (stage.settle.below, stage.settle.above) if stage.settle else NEVER


def _has_member(node: AnyNode) -> bool:
    return any(isinstance(n, MemberNode) for _, n in walk(node))


def _asks(node: AnyNode, models: Mapping[str, Model]) -> BoolArray:
    """Return which models ``node`` runs: of members that share one, the first stands for it."""
    sources = {models[n.member].source for _, n in walk(node) if isinstance(n, MemberNode)}
    asked = []
    for model in models.values():
        asked.append(model.source in sources)
        sources.discard(model.source)
    return np.array(asked, bool)


def _refuse_too_few(
    category: str, positive_N: BoolArray, groups: Sequence[str], max_fpr: float
) -> None:
    """Each half must hold some positives, and negatives enough for one false positive."""
    for what, wanted, least in (
        ("positive", True, LEAST_POSITIVES),
        ("negative", False, int(np.ceil(2 / max_fpr))),
    ):
        there = count_groups(groups, positive_N == wanted)
        if there < least:
            raise DataError(
                f"{there} {what} examples for category {category!r} (groups counted once); a "
                f"sweep at a false-positive rate of {max_fpr:.2%} needs {least:,} at least, half "
                "to choose on and half to measure on"
            )


def _yaml(p: float) -> str:
    return repr(int(p) if p in (0.0, 1.0) else p)
