"""The router against a naive reader of the same policy, over random policies and scores."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Task
from tests.support import naive_router
from tests.support.backup_policies import FAMILIAR
from tests.support.fake_models import FakeFamily, ScorersFamily, plugins_of, write_model

MARK = "MARK"  # what pattern nodes look for
#: name -> labels, task, prior, scale, bias: every kind of calibration a model may have; a name
#: with a scorer after it is a model by that scorer
MODELS: Mapping[str, tuple[list[str], Task, list[float], float, list[float]]] = {
    "two": (["benign", "injection"], "multiclass", [0.5, 0.5], 1.0, [0.0, 0.0]),
    "two/cheap": (["benign", "injection"], "multiclass", [0.8, 0.2], 0.5, [0.25, 0.0]),
    "rare": (["benign", "injection"], "multiclass", [0.9, 0.1], 2.0, [0.0, 0.5]),
    "three": (
        ["benign", "injection", "jailbreak"],
        "multiclass",
        [0.7, 0.2, 0.1],
        1.5,
        [0.0, -0.5, 0.25],
    ),
    "each": (["injection", "jailbreak"], "multilabel", [0.3, 0.1], 0.5, [0.1, -0.2]),
}
Answer = list[float] | str  # logits, or how the model fails
BOUNDS = st.sampled_from([0.05, 0.1, 0.3, 0.5])


def f32(x: float) -> float:
    return float(np.float32(x))


def fussy(values: Sequence[float], priors: Sequence[float]) -> float:
    if max(values) > 4:
        raise ValueError("too sure")
    return math.nan if min(values) < -6 else statistics.median(values)


def shifted(values: Sequence[float], priors: Sequence[float]) -> float:
    return sum(values) - sum(priors[1:])


def batched(one_text: Callable[..., float]) -> Callable[..., Any]:
    """Make a combiner of batches out of one of single texts."""

    def combiner(log_odds_MN: Any, prior_M: Any) -> Any:
        priors = [float(p) for p in prior_M]
        return np.array([one_text([float(x) for x in column], priors) for column in log_odds_MN.T])

    return combiner


def in_float32(one_text: Callable[..., float]) -> Callable[..., float]:
    """Combiners receive float32: round as the router must."""
    return lambda values, priors: one_text([f32(v) for v in values], [f32(p) for p in priors])


COMBINERS = {"fussy": fussy, "shifted": shifted}


def settle_bounds(threshold: float) -> st.SearchStrategy[dict[str, float]]:
    return st.fixed_dictionaries(
        {
            "below": st.one_of(
                st.just(0.0), st.floats(0.01, threshold), st.sampled_from([threshold, 0.1])
            ).filter(lambda p: p <= threshold),
            "above": st.one_of(
                st.just(1.0), st.floats(threshold, 0.99), st.sampled_from([threshold, 0.95])
            ).filter(lambda p: p >= threshold),
        }
    )


@st.composite
def nodes(
    draw: st.DrawFn,
    members: Sequence[str],
    threshold: float,
    depth: int = 2,
    patterns: bool = True,
    kind: str | None = None,
) -> dict[str, Any]:
    kinds = ["member"] * 2 + ["pattern"] * patterns + ["cascade", "combine"] * (depth > 0)
    kind = kind or draw(st.sampled_from(kinds))
    if kind == "member":
        return {"member": draw(st.sampled_from(members))}
    if kind == "pattern":
        return {"pattern": {"re2": MARK}}
    if kind == "cascade":
        kinds_of_stages = draw(st.sampled_from([("member", None), (None, "member", None), (None,)]))
        stages = [
            draw(nodes(members, threshold, depth - 1, patterns, kind)) for kind in kinds_of_stages
        ]
        for i, stage in enumerate(stages):
            only_patterns = "member" not in json.dumps(stage)
            if (i < len(stages) - 1 and not only_patterns) or draw(st.booleans()):
                stage["settle"] = draw(settle_bounds(threshold))
            if "member" in stage and i < len(stages) - 1 and draw(st.booleans()):
                stage["escalate_if"] = {"novelty_p_below": draw(BOUNDS)}
        return {"cascade": stages}
    how = draw(st.sampled_from(["any", "all", "weighted", "product", "stacked", *COMBINERS]))
    inside = nodes(members, threshold, depth - 1, patterns and how in ("any", "all"))
    parts = draw(st.lists(inside, min_size=1, max_size=4))
    combine: dict[str, Any] = {"how": how, "of": parts}
    if how == "stacked" or (how == "weighted" and draw(st.booleans())):
        weight = st.sampled_from([0.5, 1, 2.0, 3])
        combine["weights"] = draw(st.lists(weight, min_size=len(parts), max_size=len(parts)))
    if how == "stacked" and draw(st.booleans()):
        combine["bias"] = draw(st.sampled_from([-1.5, 0, 0.25, 2]))
    if draw(st.booleans()):
        combine["quorum"] = draw(st.integers(1, len(parts)))
    return {"combine": combine}


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    """A policy as YAML would give it; every member it names is used."""
    model_of = {
        f"{model.replace('/', '-')}{copy}": model for model in MODELS for copy in ("", "-again")
    }
    categories = {}
    for name in draw(st.sampled_from([["injection"], ["injection", "jail/break"]])):
        positive = draw(st.sampled_from([["injection"], ["jailbreak"], ["injection", "jailbreak"]]))
        able = [m for m, model in model_of.items() if set(positive) <= set(MODELS[model][0])]
        threshold = draw(st.sampled_from([0.5, 0.9]) | st.floats(0.05, 0.95))
        categories[name] = {
            "positive": positive,
            "decide": draw(nodes(able, threshold, kind=draw(st.sampled_from(["cascade", None])))),
            "flag_at": {"probability": threshold},
            "action": draw(st.sampled_from(["flag", "block"])),
        }
        if draw(st.booleans()):
            categories[name]["on_error"] = draw(st.sampled_from(["closed", "open"]))
        if draw(st.booleans()):
            asked = draw(st.sampled_from(sorted(model_of)))
            categories[name]["abstain_if"] = {"member": asked, "novelty_p_below": draw(BOUNDS)}
        if draw(st.booleans()):
            categories[name]["prevalence"] = draw(st.sampled_from([0.01, 0.5]))
    used = {name for name in model_of if f'"member": "{name}"' in json.dumps(categories)}
    return {
        "version": 1,
        "name": "random",
        "mode": draw(st.sampled_from(["enforce", "shadow"])),
        "members": {name: member(model_of[name], name) for name in sorted(used)},
        "categories": categories,
    }


def member(model: str, name: str) -> dict[str, str]:
    """A member that is ``model``; naming the default scorer changes nothing."""
    folder, _, scorer = model.partition("/")
    scorer = scorer or ("own" if name.endswith("-again") else "")
    return {"plugin": "fake", "model": folder} | ({"scorer": scorer} if scorer else {})


def model_asked(policy: Mapping[str, Any], name: str) -> str:
    """Return which of MODELS a member is."""
    folder, scorer = policy["members"][name]["model"], policy["members"][name].get("scorer")
    return folder if scorer in (None, "own") else f"{folder}/{scorer}"


def answers(model: str) -> st.SearchStrategy[Answer]:
    n = len(MODELS[model][0])
    logit = st.one_of(st.floats(-8, 8, width=32), st.sampled_from([0.0, 1.0, -40.0, 40.0, 3e38]))
    return st.one_of(
        st.lists(logit, min_size=n, max_size=n),
        st.lists(logit, min_size=n, max_size=n),
        st.lists(logit, min_size=n, max_size=n),
        st.sampled_from(["raise", "nan", "inf"]),
    )


@st.composite
def tables(draw: st.DrawFn) -> dict[str, dict[str, Answer]]:
    """What every model says of every text: 0 to 6 texts, some with the mark; "novelty of MODEL"
    is how strange the model finds it."""
    marks = draw(st.lists(st.booleans(), max_size=6))
    texts = [f"text {i} {MARK * marked}" for i, marked in enumerate(marks)]
    novelty = st.one_of(
        st.floats(-5, 25, width=32).map(lambda score: [score]),
        st.sampled_from([[30.0], [18.0], [14.0], [10.0]]),  # p on one of the bounds
        st.sampled_from(["raise", "nan", "inf"]),
    )
    return {
        text: {model: draw(answers(model)) for model in MODELS}
        | {f"novelty of {model}": draw(novelty) for model in MODELS}
        for text in texts
    }


def reply(answer: Answer, n_labels: int) -> Sequence[float]:
    if answer == "raise":
        raise RuntimeError("boom")
    if isinstance(answer, str):
        return [0.0] * (n_labels - 1) + [float(answer)]
    return answer


def reference(
    policy: Mapping[str, Any], table: Mapping[str, Mapping[str, Answer]]
) -> Callable[[str, Mapping[str, Any], str], naive_router.Answer]:
    """Return what members say, calibrated in plain Python from the definition."""

    def log_sum(xs: Sequence[float]) -> float:
        return max(xs) + math.log(sum(math.exp(x - max(xs)) for x in xs))

    def ask(member: str, category: Mapping[str, Any], text: str) -> naive_router.Answer:
        model = model_asked(policy, member)
        labels, task, prior, scale, bias = MODELS[model]
        positive = [labels.index(name) for name in category["positive"]]
        shares = [prior[c] for c in positive]
        own = naive_router.logit(max(shares) if task == "multilabel" else sum(shares))
        expected = naive_router.logit(category["prevalence"]) if "prevalence" in category else own
        answer = table[text][model]
        if isinstance(answer, str):
            return None, expected
        z = [scale * x + b for x, b in zip(answer, bias, strict=True)]
        if task == "multilabel":
            shift = [
                expected - naive_router.logit(prior[c]) if "prevalence" in category else 0.0
                for c in positive
            ]
            log_odds = max(z[c] + s for c, s in zip(positive, shift, strict=True))
        else:
            rest = [z[c] for c in range(len(z)) if c not in positive]
            log_odds = log_sum([z[c] for c in positive]) - log_sum(rest) + expected - own
        with np.errstate(over="ignore"):
            log_odds = f32(log_odds)
        return (log_odds if math.isfinite(log_odds) else None), expected

    return ask


def p_values(
    policy: Mapping[str, Any], table: Mapping[str, Mapping[str, Answer]]
) -> naive_router.Novelty:
    """Return the novelty p-values of members, from the definition."""

    def p_value(member: str, text: str) -> float | None:
        model = model_asked(policy, member)
        novelty = table[text][f"novelty of {model}"]
        if isinstance(table[text][model], str) or isinstance(novelty, str):
            return None
        return (1 + sum(score >= novelty[0] for score in FAMILIAR)) / (len(FAMILIAR) + 1)

    return p_value


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model of MODELS."""
    folder = tmp_path_factory.mktemp("shelf")
    for name, (labels, task, prior, scale, bias) in MODELS.items():
        if "/" in name:
            continue
        others = {
            other.partition("/")[2]: {"prior": p, "scale": s, "bias": b, "novelty": FAMILIAR}
            for other, (_, _, p, s, b) in MODELS.items() if other.startswith(f"{name}/")
        }  # fmt: skip
        write_model(
            folder / name, labels, task=task, prior=prior, scale=scale, bias=bias,
            novelty=FAMILIAR, scorers=others,
        )  # fmt: skip
    return folder


def open_router(
    shelf: Path, policy: Mapping[str, Any], table: Mapping[str, Mapping[str, Answer]]
) -> tuple[PolicyRouter, FakeFamily]:
    family = ScorersFamily(
        lambda model, text: reply(table[text][model], len(MODELS[model][0])),
        offered={"two": ("own", "cheap")},
        novelty=lambda model, text: reply(table[text][f"novelty of {model}"], 1)[0],
    )
    combiners = {name: batched(one_text) for name, one_text in COMBINERS.items()}
    path = shelf / "policy.yaml"
    path.write_text(json.dumps(policy), "utf-8")
    return load_policy(path, plugins=plugins_of(family, combiners=combiners)), family


def repeatable(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@repeatable(200)
@given(policy=policies(), table=tables())
def test_the_router_agrees_with_a_reader_of_one_text_at_a_time(
    shelf: Path, policy: dict[str, Any], table: dict[str, dict[str, Answer]]
) -> None:
    router, _ = open_router(shelf, policy, table)
    ask, novelty = reference(policy, table), p_values(policy, table)
    combiners = {name: in_float32(one_text) for name, one_text in COMBINERS.items()}
    decisions = router.decide(list(table))
    assert len(decisions) == len(table)
    for text, decision in zip(table, decisions, strict=True):
        expected = naive_router.decide(policy, text, ask, combiners, novelty)
        assert decision.action == expected.action
        assert list(decision.categories) == list(policy["categories"])
        for name, verdict in expected.categories.items():
            got = decision.categories[name]
            assert (got.action, got.decided_by) == (verdict.action, verdict.decided_by)
            assert got.threshold == policy["categories"][name]["flag_at"]["probability"]
            assert (got.score is None) == (verdict.score is None)
            if got.score is not None:
                assert got.score == pytest.approx(verdict.score, abs=1e-6)
            route = [step.member for step in decision.route if step.category == name]
            assert route == expected.routes[name]
        failed = any(verdict.failed for verdict in expected.categories.values())
        assert (decision.error is not None) == failed


@repeatable(100)
@given(policy=policies(), table=tables(), data=st.data())
def test_order_and_batch_size_never_change_a_decision(
    shelf: Path, policy: dict[str, Any], table: dict[str, dict[str, Answer]], data: st.DataObject
) -> None:
    router, _ = open_router(shelf, policy, table)
    texts = list(table)
    whole = dict(zip(texts, router.decide(texts, texts), strict=True))
    shuffled = data.draw(st.permutations(texts))
    cut = data.draw(st.integers(0, len(texts)))
    for part in (shuffled, shuffled[:cut], shuffled[cut:], *([text] for text in texts)):
        assert router.decide(part, part) == [whole[text] for text in part]


@repeatable(100)
@given(policy=policies(), table=tables())
def test_members_that_share_a_model_decide_as_if_each_had_its_own(
    shelf: Path, policy: dict[str, Any], table: dict[str, dict[str, Answer]]
) -> None:
    router, family = open_router(shelf, policy, table)
    shared = router.decide(list(table))
    asked = [(model, text) for model, texts in family.calls for text in texts]
    failing = {text for text, own in table.items() if "raise" in own.values()}
    sound = [pair for pair in asked if pair[1] not in failing]
    if not failing:  # a failing text is asked again alone, to find whose failure it is
        assert len(sound) == len(set(sound)), "a text was scored twice in one batch"
    assert len(family.loads) == len(set(family.loads)), "one model was loaded twice"

    renamed = json.loads(json.dumps(policy).replace("-again", ""))
    renamed["members"] = {
        name.removesuffix("-again"): own for name, own in policy["members"].items()
    }
    alone, _ = open_router(shelf, renamed, table)
    for one, other in zip(shared, alone.decide(list(table)), strict=True):
        assert one.action == other.action
        assert [(c.action, c.score) for c in one.categories.values()] == [
            (c.action, c.score) for c in other.categories.values()
        ]


@repeatable(100)
@given(policy=policies(), table=tables())
def test_what_leaves_the_router_is_finite_or_an_error(
    shelf: Path, policy: dict[str, Any], table: dict[str, dict[str, Answer]]
) -> None:
    router, _ = open_router(shelf, policy, table)
    for decision in router.decide(list(table)):
        scores = [c.score for c in decision.categories.values()] + [s.score for s in decision.route]
        assert all(score is None or 0 <= score <= 1 for score in scores)
        for name, category in decision.categories.items():
            if category.decided_by == "on_error":
                closed = policy["categories"][name].get("on_error", "closed") == "closed"
                assert category.action == (
                    policy["categories"][name]["action"] if closed else "allow"
                )
                assert decision.error is not None
                assert name in decision.error
