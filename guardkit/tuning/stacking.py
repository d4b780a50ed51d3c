"""Fit a policy's ``stacked`` nodes: logistic regression on what their parts say of labelled text.

    log-odds = prior + bias + sum_p weight_p * (log-odds_p - prior_p)              (Wolpert 1992)

fitted at the data's own share of positives, which is not part of the result: the policy adds the
prior of its own prevalence, so the weights hold at any prevalence. Weights are not negative
(Breiman 1996): a text that looks worse to one part never looks better to the whole.

Shape letters: N texts, P parts of a node, F folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardkit.data.labels import labelled, refuse_unknown_labels
from guardkit.data.splits import FOLDS, group_folds, group_names
from guardkit.errors import DataError, UsageError
from guardkit.files import write_atomically
from guardkit.log_odds import log_sigmoid_N, logit_N, sigmoid_N
from guardkit.metrics import Interval, Intervals, bootstrap, count_groups
from guardkit.model.chunks import chunks
from guardkit.model.find import BUILTIN
from guardkit.model.loaded import Model
from guardkit.plugins import installed_plugins
from guardkit.policy.nodes import CategoryTree
from guardkit.policy.router import PolicyRouter, check_policy
from guardkit.policy.schema import CombineNode, MemberNode, node_name, walk
from guardkit.training.overlap import refuse_training_texts
from guardkit.types import BoolArray, Examples, IntArray, Progress
from guardkit.yamlfile import Place, with_values

#: Groups of each class that one weight takes (ten events per variable: Peduzzi 1996).
GROUPS_PER_PART = 10
RESAMPLES = 200
_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StackedFit:
    """A fitted node, and what the fit is worth.

    ``parameters`` and ``log_loss`` are {name: {value, low, high}}. The losses are cross-fitted:
    that of the stacked node, of each part as it is and refitted alone, and of their mean. ``gain``
    is the loss of ``best_other`` less that of the stacked node. ``left_out`` counts texts that a
    part could not judge.
    """

    category: str
    place: Place
    parts: Sequence[str]
    weights: Sequence[float]
    bias: float
    n: int
    positives: int
    left_out: int
    parameters: Intervals
    log_loss: Intervals
    gain: Interval
    best_other: str

    @property
    def written(self) -> Mapping[str, str]:
        """Return what to write into the policy file, with four digits."""
        weights = ", ".join(f"{w:.4g}" for w in self.weights)
        return {"weights": f"[{weights}]", "bias": f"{self.bias:.4g}"}


def fit_stacked_nodes(
    path: Path,
    examples: Examples,
    *,
    category: str | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> list[StackedFit]:
    """Fit every ``stacked`` node of the policy at ``path``, or of one category, to ``examples``.

    A text is positive where its label is one of the category's ``positive`` labels. Raises
    DataError where there are too few texts, or where they are what a member was trained on.
    """
    plugins = installed_plugins()
    policy = check_policy(path, plugins, unfitted=True, uncertified=True)
    policy.refuse_unknown_category(category, path)
    chosen = [category] if category is not None else list(policy.categories)
    nodes = [
        (name, place, node)
        for name in chosen
        for place, node in walk(policy.categories[name].decide, ("categories", name, "decide"))
        if isinstance(node, CombineNode) and node.combine.how == "stacked"
    ]
    if not nodes:
        raise UsageError(f"{path}: no node says `how: stacked`, so there is nothing to fit")
    examples = labelled(examples)
    groups = group_names(examples)
    labels = np.array(examples.label_names, dtype=object)[examples.labels_N]
    positive = {name: np.isin(labels, policy.categories[name].positive) for name in chosen}
    router = PolicyRouter(policy, device=device, backend="torch", plugins=plugins)
    for name, place, node in nodes:
        _check_node(node, place, path)
        members = {n.member for _, n in walk(node) if isinstance(n, MemberNode)}
        models = {member: router.model(member) for member in sorted(members)}
        refuse_labels_unknown_to(models.values(), set(policy.categories[name].positive), examples)
        for member, model in models.items():
            refuse_training_texts(member, model, examples)
        _refuse_too_few(name, node, positive[name], groups)

    ratios_NP: list[list[_Float64]] = [[] for _ in nodes]  # of each node, chunk by chunk
    for texts in chunks(examples.texts, "stack", progress):
        batch = router.batch(texts)  # one for all nodes: a model reads each text once
        for found, (name, _, node) in zip(ratios_NP, nodes, strict=True):
            tree = CategoryTree(batch, name, policy.categories[name])
            found.append(tree.part_ratios(node.combine).T)
    return [
        _fit_node(name, place, node, np.concatenate(found), positive[name], groups, seed=seed)
        for found, (name, place, node) in zip(ratios_NP, nodes, strict=True)
    ]


def write_policy(path: Path, stacks: Sequence[StackedFit], out: Path) -> None:
    """Write the policy at ``path`` to ``out`` with the weights filled in, all else as it was."""
    for stack in stacks:
        if zero := [p for p, w in zip(stack.parts, stack.weights, strict=True) if w == 0]:
            raise UsageError(
                f"{path}: {zero[0]!r} adds nothing to the others (its weight is 0); take it out of "
                f"the stacked node of category {stack.category!r} and fit the rest again"
            )
    refuse_moved_models("--out", path, out)
    text = path.read_bytes().decode("utf-8-sig")
    for stack in stacks:
        text = with_values(text, (*stack.place, "combine"), stack.written)
    write_atomically(out, text.encode())


def refuse_moved_models(option: str, path: Path, out: Path) -> None:
    """Raise UsageError where the policy at ``path`` names models by relative paths, which it would
    not find from the folder of ``out``."""
    if out.resolve().parent != path.resolve().parent:
        members = check_policy(path, unfitted=True, uncertified=True).members
        if relative := [m.model for m in members.values() if m.model and _is_relative(m.model)]:
            raise UsageError(
                f"{option} {out}: model {relative[0]!r} is looked for from the policy's own "
                f"folder; write to {path.parent}"
            )


def fit_weights(
    ratio_NP: _Float64, positive_N: BoolArray, count_N: _Float64 | None = None
) -> tuple[_Float64, float]:
    """Return weight_P >= 0 and bias, by maximum likelihood with a light penalty:

        sum_n count_n log(1 + exp(-s_n z_n)) + 1/2 sum_p (weight_p sd_p)^2
        z_n = logit(share of positives) + bias + sum_p weight_p ratio_np,    s_n = +-1

    The penalty keeps the weights finite on separable data; beyond some tens of texts it hardly
    matters.
    """
    from scipy.optimize import minimize

    count_N = np.ones(len(positive_N)) if count_N is None else count_N
    sd_P = np.maximum(ratio_NP.std(axis=0), 1e-6)
    x_NP = ratio_NP / sd_P
    prior, total = _prior(positive_N, count_N), count_N.sum()

    def loss(parameters: _Float64) -> tuple[float, _Float64]:
        weight_P, bias = parameters[:-1], parameters[-1]
        z_N = prior + bias + x_NP @ weight_P
        residual_N = count_N * (sigmoid_N(z_N) - positive_N) / total
        value = count_N @ _log_loss(z_N, positive_N) + 0.5 * weight_P @ weight_P
        gradient = np.append(residual_N @ x_NP + weight_P / total, residual_N.sum())
        return float(value / total), gradient

    n_parts = ratio_NP.shape[1]
    best = minimize(
        loss,
        np.append(sd_P / n_parts, 0.0),  # the plain mean
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * n_parts + [(None, None)],
        options={"ftol": 1e-12, "gtol": 1e-8},
    ).x
    return best[:-1] / sd_P, float(best[-1])


def _fit_node(
    category: str,
    place: Place,
    node: CombineNode,
    ratio_NP: _Float64,
    positive_N: BoolArray,
    groups: Sequence[str],
    *,
    seed: int,
) -> StackedFit:
    judged = np.flatnonzero(~np.isnan(ratio_NP).any(axis=1))
    left_out = len(ratio_NP) - len(judged)
    ratio_NP, positive_N = ratio_NP[judged], positive_N[judged]
    groups = [groups[i] for i in judged.tolist()]
    parts = [node_name(part) for part in node.combine.of]
    _refuse_too_few(category, node, positive_N, groups)

    def parameters(count_N: _Float64) -> dict[str, float]:
        weight_P, bias = fit_weights(ratio_NP, positive_N, count_N)
        named = {f"weight of {p}": float(w) for p, w in zip(parts, weight_P, strict=True)}
        return {**named, "bias": bias}

    fold_N = group_folds(positive_N.astype(np.int64), groups, seed=seed)
    prior = _prior(positive_N, np.ones(len(positive_N)))
    z_N = {part: prior + ratio_NP[:, p] for p, part in enumerate(parts)}
    for p, part in enumerate(parts):
        z_N[f"{part}, refitted"] = prior + _cross_fitted(ratio_NP[:, [p]], positive_N, fold_N)
    z_N["mean"] = prior + ratio_NP.mean(axis=1)
    others = list(z_N)
    z_N["stacked"] = prior + _cross_fitted(ratio_NP, positive_N, fold_N)
    loss_N = {name: _log_loss(z, positive_N) for name, z in z_N.items()}
    best = min(others, key=lambda name: float(loss_N[name].mean()))
    loss_N["gain"] = loss_N[best] - loss_N["stacked"]

    def losses(count_N: _Float64) -> dict[str, float]:
        total = count_N.sum()
        return {name: float(count_N @ loss / total) for name, loss in loss_N.items()}

    measured = bootstrap(losses, groups, resamples=RESAMPLES, seed=seed)
    weight_P, bias = fit_weights(ratio_NP, positive_N)
    return StackedFit(
        category=category,
        place=place,
        parts=parts,
        weights=weight_P.tolist(),
        bias=bias,
        n=len(judged),
        positives=int(positive_N.sum()),
        left_out=left_out,
        parameters=bootstrap(parameters, groups, resamples=RESAMPLES, seed=seed),
        gain=measured.pop("gain"),
        log_loss=measured,
        best_other=best,
    )


def _cross_fitted(ratio_NP: _Float64, positive_N: BoolArray, fold_N: IntArray) -> _Float64:
    """Return bias + sum of weighted ratios, each text's by a fit to the other folds."""
    fitted_N = np.zeros(len(positive_N))
    for fold in range(FOLDS):
        out_N = fold_N == fold
        weight_P, bias = fit_weights(ratio_NP[~out_N], positive_N[~out_N])
        fitted_N[out_N] = bias + ratio_NP[out_N] @ weight_P
    return fitted_N


def _is_relative(model: str) -> bool:
    return not model.startswith(BUILTIN) and not Path(model).expanduser().is_absolute()


def _check_node(node: CombineNode, place: Place, path: Path) -> None:
    inner = [n for _, n in walk(node) if n is not node and isinstance(n, CombineNode)]
    if any(n.combine.how == "stacked" for n in inner):
        raise UsageError(
            f"{path}: the stacked node of category {place[1]!r} holds another, and both would be "
            "fitted to one text; name the members in one node"
        )
    names = [node_name(part) for part in node.combine.of]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"{path}: the stacked node of category {place[1]!r} lists {min(repeated)!r} twice"
        )


def refuse_labels_unknown_to(
    models: Iterable[Model], positive: set[str], examples: Examples
) -> None:
    """Raise DataError where a label is neither a model's nor one of the ``positive`` ones."""
    known = positive.union(*(model.labels for model in models))
    refuse_unknown_labels(examples.label_names, known, to="the members that are stacked")


def _refuse_too_few(
    category: str, node: CombineNode, positive_N: BoolArray, groups: Sequence[str]
) -> None:
    n_parts = len(node.combine.of)
    least = GROUPS_PER_PART * n_parts
    for what, wanted in (("positive", True), ("negative", False)):
        there = count_groups(groups, positive_N == wanted)
        if there < least:
            raise DataError(
                f"{there} {what} examples for category {category!r} (groups counted once); "
                f"stacking {n_parts} parts needs {least} of each class at least"
            )


def _prior(positive_N: BoolArray, count_N: _Float64) -> float:
    share = float(count_N @ positive_N / count_N.sum())
    return float(logit_N(share))


def _log_loss(z_N: _Float64, positive_N: BoolArray) -> _Float64:
    return -log_sigmoid_N(np.where(positive_N, z_N, -z_N))
