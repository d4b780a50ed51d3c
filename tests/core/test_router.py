"""The router against a naive reader of the same policy, and each promise on its own."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import naive_router
import numpy as np
import pytest
from fake_models import FakeFamily, plugins_of, write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardkit.errors import ArtefactError, ClassifierError, PolicyError, RunError
from guardkit.hookspecs import hookimpl
from guardkit.plugins import Plugins
from guardkit.router import PolicyRouter, load_policy
from guardkit.types import Decision, Row, Task

# ---------------------------------------------------------------- random policies and scores

MARK = "MARK"  # what pattern nodes look for
#: name -> labels, task, prior, scale, bias: every kind of calibration a model may have
MODELS: Mapping[str, tuple[list[str], Task, list[float], float, list[float]]] = {
    "two": (["benign", "injection"], "multiclass", [0.5, 0.5], 1.0, [0.0, 0.0]),
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
#: The novelty of every model's calibration texts: p-values are multiples of 1/20, so that they
#: fall on a policy's bounds too.
FAMILIAR = [float(i) for i in range(19)]
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
    model_of = {f"{model}{copy}": model for model in MODELS for copy in ("", "-again")}
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
        "members": {name: {"plugin": "fake", "model": model_of[name]} for name in sorted(used)},
        "categories": categories,
    }


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
        model = policy["members"][member]["model"]
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
        model = policy["members"][member]["model"]
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
        write_model(
            folder / name, labels, task=task, prior=prior, scale=scale, bias=bias, novelty=FAMILIAR
        )
    return folder


def open_router(
    shelf: Path, policy: Mapping[str, Any], table: Mapping[str, Mapping[str, Answer]]
) -> tuple[PolicyRouter, FakeFamily]:
    family = FakeFamily(
        lambda model, text: reply(table[text][model], len(MODELS[model][0])),
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
    renamed["members"] = {m["model"]: m for m in policy["members"].values()}
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


# ---------------------------------------------------------------- one promise at a time

SPECIALIST_THEN_BACKUP = """
version: 1
name: test
members:
  specialist: {plugin: fake, model: specialist}
  backup: {plugin: fake, model: backup}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - member: specialist
          settle: {below: 0.02, above: 0.98}
        - member: backup
    flag_at: {probability: 0.5}
    action: block
"""


class Bench:
    """Two models that answer from a table of log-odds; an exception or NaN is a failure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log_odds: dict[tuple[str, str], float | Exception] = {}
        self.novelty: dict[tuple[str, str], float | Exception] = {}
        self.family = FakeFamily(self.answer, novelty=self.strangeness)
        for name in ("specialist", "backup"):
            write_model(folder / name, novelty=FAMILIAR)

    def answer(self, model: str, text: str) -> Sequence[float]:
        value = self.log_odds.get((model, text), -5.0)
        if isinstance(value, Exception):
            raise value
        return [0.0, value]

    def strangeness(self, model: str, text: str) -> float:
        value = self.novelty.get((model, text), 0.0)
        if isinstance(value, Exception):
            raise value
        return value

    def says(self, text: str, **log_odds: float | Exception) -> None:
        self.log_odds |= {(model, text): value for model, value in log_odds.items()}

    def router(self, policy: str, plugins: Plugins | None = None) -> PolicyRouter:
        path = self.folder / "policy.yaml"
        path.write_text(policy, "utf-8")
        return load_policy(path, plugins=plugins or plugins_of(self.family))

    def decide(self, decide: str, text: str, *, more: str = "") -> Decision:
        """Decide ``text`` by a policy whose tree is ``decide`` (YAML in one line)."""
        members = "".join(
            f"  {name}: {{plugin: fake, model: {name}}}\n"
            for name in ("specialist", "backup")
            if name in decide + more
        )
        policy = (
            f"version: 1\nname: test\nmembers:\n{members or '  {}'}\ncategories:\n  injection:\n"
            f"    positive: [injection]\n    decide: {decide}\n"
            f"    flag_at: {{probability: 0.5}}\n    action: block\n{more}"
        )
        return self.router(policy).decide([text])[0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


CASCADE = "{cascade: [{member: specialist, settle: {below: 0.1, above: 0.9}}, {member: backup}]}"


def test_a_sure_specialist_settles_and_the_backup_is_not_even_loaded(bench: Bench) -> None:
    bench.says("a", specialist=6.0)
    bench.says("b", specialist=-6.0)
    router = bench.router(SPECIALIST_THEN_BACKUP)
    attack, benign = router.decide(["a", "b"])
    assert (attack.action, benign.action) == ("block", "allow")
    assert bench.family.loads == ["specialist"]
    assert [(s.member, s.why) for s in attack.route] == [("specialist", "settled: not below 0.98")]
    assert [(s.member, s.why) for s in benign.route] == [("specialist", "settled: not above 0.02")]
    assert attack.categories["injection"].score == pytest.approx(1 / (1 + math.exp(-6)))


def test_the_backup_sees_only_what_is_left_and_has_the_last_word(bench: Bench) -> None:
    bench.says("unsure", specialist=1.0, backup=-2.0)
    bench.says("sure", specialist=6.0)
    router = bench.router(SPECIALIST_THEN_BACKUP)
    _, unsure = router.decide(["sure", "unsure"])
    assert ("backup", ["unsure"]) in bench.family.calls
    assert unsure.action == "allow"
    assert unsure.categories["injection"].decided_by == "backup"
    assert [(s.member, s.why) for s in unsure.route] == [
        ("specialist", "passed on: between 0.02 and 0.98"),
        ("backup", "last stage"),
    ]


def test_a_specialist_that_fails_is_covered_by_the_backup_and_seen_in_the_route(
    bench: Bench,
) -> None:
    bench.says("t", specialist=RuntimeError("boom"), backup=3.0)
    decision = bench.decide(CASCADE, "t")
    assert (decision.action, decision.error) == ("block", None)
    assert decision.route[0].why == "failed: RuntimeError: boom"
    assert decision.route[0].score is None


@pytest.mark.parametrize(("on_error", "action"), [("closed", "block"), ("open", "allow")])
def test_a_last_stage_that_fails_leaves_the_text_undecided(
    bench: Bench, on_error: str, action: str
) -> None:
    bench.says("t", specialist=1.0, backup=math.nan)
    decision = bench.decide(CASCADE, "t", more=f"    on_error: {on_error}\n")
    assert decision.action == action
    own = decision.categories["injection"]
    assert (own.action, own.score, own.decided_by) == (action, None, "on_error")
    assert decision.error == (
        "injection could not be judged (backup failed: the classifier returned a value that is "
        f"not finite); on_error: {on_error} gives {action}"
    )


def test_on_error_is_closed_unless_the_policy_says_otherwise(bench: Bench) -> None:
    bench.says("t", specialist=ValueError("no"))
    assert bench.decide("{member: specialist}", "t").action == "block"


def test_one_positive_settles_any_even_when_another_part_failed(bench: Bench) -> None:
    either = "{combine: {how: any, of: [{member: specialist}, {member: backup}]}}"
    bench.says("attack", specialist=2.0, backup=RuntimeError("boom"))
    attack = bench.decide(either, "attack")
    assert (attack.action, attack.error) == ("block", None)
    assert attack.categories["injection"].decided_by == "any(specialist, backup)"
    assert attack.categories["injection"].score == pytest.approx(1 / (1 + math.exp(-2)))


def test_one_negative_settles_all_and_does_not_settle_any(bench: Bench) -> None:
    bench.says("t", specialist=-2.0, backup=RuntimeError("boom"))
    parts = "[{member: specialist}, {member: backup}]"
    both = bench.decide(f"{{combine: {{how: all, of: {parts}}}}}", "t")
    assert (both.action, both.error) == ("allow", None)
    either = bench.decide(f"{{combine: {{how: any, of: {parts}}}}}", "t")
    assert either.action == "block"
    assert either.error is not None


def test_a_quorum_goes_on_without_failed_parts_while_enough_remain(bench: Bench) -> None:
    bench.says("t", specialist=-2.0, backup=RuntimeError("boom"))
    parts = "[{member: specialist}, {member: backup}]"
    one = bench.decide(f"{{combine: {{how: any, of: {parts}, quorum: 1}}}}", "t")
    assert (one.action, one.error) == ("allow", None)
    two = bench.decide(f"{{combine: {{how: any, of: {parts}, quorum: 2}}}}", "t")
    assert two.action == "block"
    assert two.error is not None


def test_a_weighted_combine_is_the_weighted_mean_of_log_odds(bench: Bench) -> None:
    bench.says("t", specialist=2.0, backup=-1.0)
    tree = (
        "{combine: {how: weighted, of: [{member: specialist}, {member: backup}], weights: [3, 1]}}"
    )
    score = bench.decide(tree, "t").categories["injection"].score
    assert score == pytest.approx(1 / (1 + math.exp(-1.25)))


def test_a_product_adds_up_independent_evidence_on_one_prior(bench: Bench) -> None:
    bench.says("t", specialist=2.0, backup=1.0)
    tree = "{combine: {how: product, of: [{member: specialist}, {member: backup}]}}"
    prevalence = "    prevalence: 0.1\n"
    # each posterior moves from prior 1/2 to 1/10; the product counts that prior once
    prior = math.log(0.1 / 0.9)
    score = bench.decide(tree, "t", more=prevalence).categories["injection"].score
    assert score == pytest.approx(1 / (1 + math.exp(-(2.0 + 1.0 + prior))))


STACKED = "{combine: {how: stacked, of: [{member: specialist}, {member: backup}], weights: %s}}"


def test_a_stacked_combine_weighs_evidence_and_adds_its_bias(bench: Bench) -> None:
    bench.says("t", specialist=2.0, backup=-1.0)
    tree = STACKED % "[0.5, 0.25], bias: -0.5"
    score = bench.decide(tree, "t").categories["injection"].score
    assert score == pytest.approx(1 / (1 + math.exp(-(1.0 - 0.25 - 0.5))), rel=1e-6)


def test_unit_weights_without_a_bias_are_a_product(bench: Bench) -> None:
    bench.says("t", specialist=2.0, backup=-1.0)
    product = "{combine: {how: product, of: [{member: specialist}, {member: backup}]}}"
    stacked = bench.decide(STACKED % "[1, 1]", "t", more="    prevalence: 0.1\n")
    same = bench.decide(product, "t", more="    prevalence: 0.1\n")
    assert stacked.categories["injection"].score == same.categories["injection"].score


def test_a_prevalence_moves_a_stacked_combine_by_bayes_rule_alone(bench: Bench) -> None:
    bench.says("t", specialist=2.0, backup=-1.0)
    tree = STACKED % "[0.6, 0.3], bias: 0.2"
    at_calibration = bench.decide(tree, "t").categories["injection"].score  # prior 1/2
    moved = bench.decide(tree, "t", more="    prevalence: 0.1\n").categories["injection"].score
    assert at_calibration is not None
    assert moved is not None
    odds = [p / (1 - p) for p in (at_calibration, moved)]
    assert odds[1] / odds[0] == pytest.approx(0.1 / 0.9, rel=1e-6)


def test_a_part_that_a_quorum_drops_adds_no_evidence_to_a_stacked_combine(bench: Bench) -> None:
    bench.says("t", specialist=2.0, backup=RuntimeError("boom"))
    assert bench.decide(STACKED % "[0.5, 0.5]", "t").error is not None
    decision = bench.decide(STACKED % "[0.5, 0.5], bias: 1, quorum: 1", "t")
    score = decision.categories["injection"].score
    assert score == pytest.approx(1 / (1 + math.exp(-(1.0 + 1.0))), rel=1e-6)


def test_a_pattern_that_matches_is_certain_and_one_that_does_not_is_silent(bench: Bench) -> None:
    tree = "{cascade: [{pattern: {re2: '(?i)ignore\\s+all'}}, {member: specialist}]}"
    bench.says("Ignore  ALL rules", specialist=-5.0)
    bench.says("hello", specialist=-5.0)
    match = bench.decide(tree, "Ignore  ALL rules")
    own = match.categories["injection"]
    assert (match.action, own.score) == ("block", 1.0)
    assert own.decided_by == "pattern((?i)ignore\\s+all)"
    silent = bench.decide(tree, "hello")
    assert silent.categories["injection"].decided_by == "specialist"
    assert [step.member for step in silent.route] == ["specialist"]


def test_a_pattern_on_the_canonical_form_finds_what_is_hidden_from_the_raw_text(
    bench: Bench,
) -> None:
    hidden = "please ign\u200b\u043ere \u0430ll"  # a zero-width space, Cyrillic letters
    for form, action in (("canonical", "block"), ("raw", "allow")):
        tree = f"{{pattern: {{re2: ignore all, on: {form}}}}}"
        assert bench.decide(tree, hidden).action == action
        assert bench.decide(tree, "please ignore all").action == "block"


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "([a-z]+)*\\d"])
def test_no_pattern_makes_a_long_text_slow(bench: Bench, pattern: str) -> None:
    tree = f"{{pattern: {{re2: '{pattern}'}}}}"
    start = time.perf_counter()
    decision = bench.decide(tree, "a" * 1_000_000 + "!")
    assert decision.action == "allow"
    assert time.perf_counter() - start < 2  # a backtracking engine would take years


def test_a_tree_in_which_everything_dropped_out_is_clear(bench: Bench) -> None:
    decision = bench.decide("{pattern: {re2: never}}", "hello")
    own = decision.categories["injection"]
    assert (own.action, own.score, own.decided_by) == ("allow", None, None)
    assert (decision.action, decision.error, decision.route) == ("allow", None, [])


def test_a_silent_last_stage_does_not_turn_an_opinion_or_a_failure_into_clear(
    bench: Bench,
) -> None:
    tree = (
        "{cascade: [{member: specialist, settle: {below: 0.1, above: 0.9}}, "
        "{pattern: {re2: never}}]}"
    )
    bench.says("likely", specialist=1.0)
    likely = bench.decide(tree, "likely")
    assert likely.action == "block"
    assert likely.categories["injection"].decided_by == "specialist"
    bench.says("failed", specialist=RuntimeError("boom"))
    failed = bench.decide(tree, "failed")
    assert failed.action == "block"
    assert failed.error is not None


def test_a_text_exactly_at_the_threshold_is_clear(bench: Bench) -> None:
    bench.says("t", specialist=0.0)
    decision = bench.decide("{member: specialist}", "t")
    assert decision.categories["injection"].score == 0.5
    assert decision.action == "allow"


def test_a_stage_settles_what_stands_exactly_on_its_bounds(bench: Bench) -> None:
    tree = "{cascade: [{member: specialist, settle: {below: 0.5, above: 0.5}}, {member: backup}]}"
    bench.says("t", specialist=0.0, backup=3.0)
    assert bench.decide(tree, "t").route[0].why == "settled: not above 0.5"
    high = "{cascade: [{member: specialist, settle: {below: 0, above: 0.5}}, {member: backup}]}"
    assert bench.decide(high, "t").route[0].why == "settled: not below 0.5"


def test_one_text_that_fails_does_not_touch_its_neighbours(bench: Bench) -> None:
    texts = [f"t{i}" for i in range(9)]
    for text in texts:
        bench.says(text, specialist=6.0)
    bench.says("t4", specialist=RuntimeError("boom"), backup=RuntimeError("boom too"))
    decisions = bench.router(SPECIALIST_THEN_BACKUP).decide(texts)
    assert [d.error is None for d in decisions] == [i != 4 for i in range(9)]
    assert decisions[4].error == (
        "injection could not be judged (specialist failed: RuntimeError: boom; "
        "backup failed: RuntimeError: boom too); on_error: closed gives block"
    )


def test_a_plugins_combiner_that_raises_or_lies_fails_only_the_text_it_concerns(
    bench: Bench,
) -> None:
    def odd(log_odds_MN: Any, prior_M: Any) -> Any:
        log_odds_MN[:] = log_odds_MN  # its arrays are its own
        if (log_odds_MN > 5).any():
            raise RuntimeError("too big")
        result = log_odds_MN.mean(axis=0)
        return np.where(result < -5, np.nan, result)

    def wrong(log_odds_MN: Any, prior_M: Any) -> Any:
        return np.zeros(7)

    policy = (
        SPECIALIST_THEN_BACKUP[: SPECIALIST_THEN_BACKUP.index("    decide:")]
        + "    decide: {combine: {how: odd, of: [{member: specialist}, {member: backup}]}}\n"
        + "    flag_at: {probability: 0.5}\n    action: block\n"
    )
    bench.says("high", specialist=9.0, backup=1.0)
    bench.says("low", specialist=-9.0, backup=-9.0)
    bench.says("fine", specialist=2.0, backup=4.0)
    router = bench.router(policy, plugins_of(bench.family, combiners={"odd": odd}))
    high, low, fine = router.decide(["high", "low", "fine"])
    assert "odd(specialist, backup) failed: RuntimeError: too big" in str(high.error)
    assert "not finite" in str(low.error)
    assert (fine.action, fine.error) == ("block", None)
    assert fine.categories["injection"].score == pytest.approx(1 / (1 + math.exp(-3)))
    router = bench.router(policy, plugins_of(bench.family, combiners={"odd": wrong}))
    assert "returned shape (7,)" in str(router.decide(["fine", "low"])[0].error)


# ---------------------------------------------------------------- novelty

ESCALATING = (
    "{cascade: [{member: specialist, settle: {below: 0.1, above: 0.9}, "
    "escalate_if: {novelty_p_below: 0.1}}, {member: backup}]}"
)
ABSTAINING = "    abstain_if: {member: backup, novelty_p_below: 0.1}\n"


@pytest.mark.parametrize(
    ("novelty", "why"),
    [
        (17.5, "passed on: novelty p 0.1 not above 0.1"),
        (99.0, "passed on: novelty p 0.05 not above 0.1"),
        (RuntimeError("boom"), "passed on: novelty is not known: RuntimeError: boom"),
        (math.nan, "passed on: novelty is not known: the classifier returned a novelty that is"),
    ],
)
def test_a_sure_specialist_hands_on_what_is_strange_to_it(
    bench: Bench, novelty: float | Exception, why: str
) -> None:
    bench.says("t", specialist=-6.0, backup=6.0)
    bench.novelty["specialist", "t"] = novelty
    decision = bench.decide(ESCALATING, "t")
    assert (decision.action, decision.error) == ("block", None)
    assert [step.member for step in decision.route] == ["specialist", "backup"]
    assert decision.route[0].why.startswith(why)
    assert decision.route[0].score == pytest.approx(1 / (1 + math.exp(6)))


def test_a_sure_specialist_settles_what_is_familiar_to_it(bench: Bench) -> None:
    bench.says("t", specialist=-6.0, backup=6.0)
    bench.novelty["specialist", "t"] = 16.5
    assert bench.decide(ESCALATING, "t").route[0].why == "settled: not above 0.1"
    assert bench.family.loads == ["specialist"]


def test_what_is_strange_and_unsure_is_passed_on_for_being_unsure(bench: Bench) -> None:
    bench.says("t", specialist=0.0, backup=6.0)
    bench.novelty["specialist", "t"] = 99.0
    assert bench.decide(ESCALATING, "t").route[0].why == "passed on: between 0.1 and 0.9"


def test_what_would_be_allowed_abstains_where_it_is_strange(bench: Bench) -> None:
    bench.says("t", specialist=-6.0)
    bench.novelty["backup", "t"] = 99.0
    decision = bench.decide("{member: specialist}", "t", more=ABSTAINING)
    assert (decision.action, decision.error) == ("abstain", None)
    own = decision.categories["injection"]
    assert (own.action, own.decided_by) == ("abstain", "abstain_if")
    assert own.score == pytest.approx(1 / (1 + math.exp(6)))  # what said clear is still told
    assert [(step.member, step.score, step.why) for step in decision.route[1:]] == [
        ("backup", None, "abstains: novelty p 0.05 not above 0.1")
    ]


def test_a_text_made_strange_on_purpose_does_not_turn_a_block_into_an_abstention(
    bench: Bench,
) -> None:
    bench.says("t", specialist=6.0)
    bench.novelty["backup", "t"] = 99.0
    decision = bench.decide("{member: specialist}", "t", more=ABSTAINING)
    assert decision.action == "block"
    assert "backup" not in bench.family.loads  # it is not even asked


def test_a_text_whose_novelty_is_not_known_is_not_allowed_and_says_why(bench: Bench) -> None:
    bench.novelty["backup", "t"] = RuntimeError("boom")
    decision = bench.decide("{member: specialist}", "t", more=ABSTAINING)
    assert decision.action == "abstain"
    assert decision.error == (
        "injection abstains: backup's novelty is not known: RuntimeError: boom"
    )


def test_what_on_error_lets_through_abstains_too(bench: Bench) -> None:
    bench.says("t", specialist=RuntimeError("boom"))
    bench.novelty["backup", "t"] = 99.0
    more = ABSTAINING + "    on_error: open\n"
    decision = bench.decide("{member: specialist}", "t", more=more)
    assert decision.action == "abstain"
    assert decision.categories["injection"].score is None
    assert "on_error: open gives allow" in str(decision.error)


def test_novelty_comes_with_the_scores_and_no_text_is_read_twice(bench: Bench) -> None:
    cascade = SPECIALIST_THEN_BACKUP[SPECIALIST_THEN_BACKUP.index("\n      cascade") :]
    cascade = cascade[: cascade.index("    flag_at")]
    policy = TWO_CATEGORIES.replace(cascade, f" {ESCALATING}\n", 1)
    router = bench.router(policy.replace("    action: block\n", "    action: block\n" + ABSTAINING))
    for text in "abcde":
        bench.says(text, specialist=-6.0)
    bench.novelty["specialist", "c"] = 99.0
    assert [d.action for d in router.decide(list("abcde"))] == ["allow"] * 5
    assert bench.family.calls == [
        ("specialist", list("abcde")),
        ("backup", ["c"]),  # handed on
        ("backup", list("abde")),  # would be allowed; `spam` finds all of them scored
    ]


def test_a_test_of_a_policy_may_expect_to_abstain(bench: Bench) -> None:
    bench.novelty["backup", "strange"] = 99.0
    tests = "tests: [{text: strange, expect: {injection: abstain}}]\n"
    router = bench.router(SPECIALIST_THEN_BACKUP + ABSTAINING + tests)
    assert [result.passed for result in router.run_tests()] == [True]


# ---------------------------------------------------------------- decisions


def test_ids_are_kept_and_default_to_positions(bench: Bench) -> None:
    router = bench.router(SPECIALIST_THEN_BACKUP)
    assert [d.id for d in router.decide(["a", "b"])] == [0, 1]
    assert [d.id for d in router.decide(["a", "b"], ["x", None])] == ["x", None]
    with pytest.raises(ValueError, match="1 ids for 2 texts"):
        router.decide(["a", "b"], ["x"])
    with pytest.raises(TypeError, match="sequence of texts"):
        router.decide("one text")


def test_nothing_to_decide_is_no_decision_and_loads_nothing(bench: Bench) -> None:
    router = bench.router(SPECIALIST_THEN_BACKUP)
    assert router.decide([]) == []
    assert router.decide_rows([]) == []
    assert bench.family.loads == []


def test_decisions_carry_the_policys_hash_and_truncation(bench: Bench) -> None:
    router = bench.router(SPECIALIST_THEN_BACKUP)
    whole, cut = router.decide(["a", "b CUT"])
    assert (whole.truncated, cut.truncated) == (False, True)
    assert len(router.hash) == 64
    assert whole.policy == router.hash[:12]
    assert whole.shadow is None


def test_shadow_mode_allows_and_records_what_it_would_have_done(bench: Bench) -> None:
    bench.says("t", specialist=6.0)
    router = bench.router(SPECIALIST_THEN_BACKUP.replace("name: test", "name: t\nmode: shadow"))
    (decision,) = router.decide(["t"])
    assert decision.action == "allow"
    assert decision.categories["injection"].action == "block"
    assert decision.shadow == {"action": "block"}
    (unreadable,) = router.decide_rows([Row(1, 1, error="not JSON")])
    assert (unreadable.action, unreadable.shadow) == ("allow", {"action": "block"})
    assert unreadable.error == "not JSON"


TWO_CATEGORIES = (
    SPECIALIST_THEN_BACKUP
    + """
  spam:
    positive: [injection]
    decide: {member: backup}
    flag_at: {probability: 0.5}
    action: flag
    on_error: open
"""
)


def test_the_most_severe_category_gives_the_action(bench: Bench) -> None:
    router = bench.router(TWO_CATEGORIES)
    bench.says("both", specialist=6.0, backup=2.0)
    bench.says("spam", specialist=-6.0, backup=2.0)
    both, spam = router.decide(["both", "spam"])
    assert (both.action, spam.action) == ("block", "flag")
    assert spam.categories["injection"].action == "allow"


def test_a_row_takes_its_worst_text_in_every_category(bench: Bench) -> None:
    router = bench.router(TWO_CATEGORIES)
    bench.says("attack", specialist=6.0, backup=-5.0)
    bench.says("spam", specialist=-6.0, backup=2.0)
    bench.says("more spam", specialist=-6.0, backup=3.0)
    bench.says("broken CUT", specialist=-6.0, backup=RuntimeError("boom"))
    rows = [
        Row(1, "chat", ("spam", "attack", "broken CUT", "more spam")),
        Row(2, 2, ("spam",)),
        Row(3, "bad", error="line 3 is not JSON"),
        Row(4, 4, ()),
    ]
    chat, alone, bad, empty = router.decide_rows(rows)
    assert (chat.id, chat.action, chat.truncated) == ("chat", "block", True)
    assert chat.categories["injection"].action == "block"
    assert chat.categories["spam"].action == "flag"
    assert chat.categories["spam"].score == pytest.approx(1 / (1 + math.exp(-3)))
    assert "boom" in str(chat.error)
    assert [(s.category, s.member) for s in chat.route] == [
        ("injection", "specialist"),
        ("spam", "backup"),
    ]
    assert (alone.id, alone.action) == (2, "flag")
    assert (bad.id, bad.error, bad.action) == ("bad", "line 3 is not JSON", "block")
    assert bad.categories["spam"].action == "allow"  # its on_error is open
    assert bad.categories["spam"].decided_by == "on_error"
    assert (empty.action, empty.error) == ("block", "no text to judge")


def test_rows_are_decided_in_one_batch(bench: Bench) -> None:
    router = bench.router(SPECIALIST_THEN_BACKUP)
    router.decide_rows([Row(i, i, (f"a{i}", f"b{i}")) for i in range(3)])
    assert len(bench.family.calls) == 1


class Audit:
    def __init__(self, error: Exception | None = None) -> None:
        self.seen: list[tuple[list[str], list[str], str]] = []
        self.error = error

    @hookimpl
    def decided(self, texts: Sequence[str], decisions: Sequence[Decision], policy: Any) -> None:
        if self.error:
            raise self.error
        self.seen.append((list(texts), [d.action for d in decisions], policy.name))


def test_a_plugin_sees_decisions_once_per_batch_and_only_where_the_policy_names_it(
    bench: Bench,
) -> None:
    named, other = Audit(), Audit()
    plugins = plugins_of(bench.family, modules={"named": named, "other": other})
    policy = SPECIALIST_THEN_BACKUP.replace("name: test", "name: test\nplugins: [named]")
    bench.router(policy, plugins).decide(["a", "b"])
    assert named.seen == [(["a", "b"], ["allow", "allow"], "test")]
    assert other.seen == []


def test_a_policys_own_tests_are_no_decisions_to_audit(bench: Bench) -> None:
    audit = Audit()
    plugins = plugins_of(bench.family, modules={"audit": audit})
    policy = SPECIALIST_THEN_BACKUP.replace("name: test", "name: test\nplugins: [audit]")
    assert bench.router(policy, plugins).run_tests() == []
    policy += "tests:\n  - {text: hello, expect: {injection: allow}}\n"
    assert bench.router(policy, plugins).run_tests()[0].passed
    assert audit.seen == []


def test_an_audit_that_fails_stops_the_run(bench: Bench) -> None:
    plugins = plugins_of(bench.family, modules={"audit": Audit(OSError("disk full"))})
    policy = SPECIALIST_THEN_BACKUP.replace("name: test", "name: test\nplugins: [audit]")
    with pytest.raises(RunError, match="disk full"):
        bench.router(policy, plugins).decide(["a"])


# ---------------------------------------------------------------- loading


def test_loading_a_policy_loads_no_model_and_hashes_are_known_without_one(bench: Bench) -> None:
    router = bench.router(SPECIALIST_THEN_BACKUP)
    hashes = router.model_hashes()
    assert sorted(hashes) == ["backup", "specialist"]
    assert all(len(digest) == 64 for digest in hashes.values())
    assert bench.family.loads == []


def test_a_model_damaged_after_the_check_stops_the_run_when_it_is_needed(bench: Bench) -> None:
    router = bench.router(SPECIALIST_THEN_BACKUP)
    (bench.folder / "backup" / "calibration.json").write_text("{}", "utf-8")
    bench.says("sure", specialist=6.0)
    assert router.decide(["sure"])[0].action == "block"
    bench.says("unsure", specialist=0.5)
    with pytest.raises(ArtefactError, match="SHA-256"):
        router.decide(["unsure"])


def test_a_plugin_that_cannot_load_its_model_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise KeyError("weights")

    monkeypatch.setattr(bench.family, "load", refuse)
    with pytest.raises(ClassifierError, match="plugin 'fake' cannot load it: KeyError"):
        bench.router(SPECIALIST_THEN_BACKUP).decide(["a"])


@pytest.mark.parametrize("name", ["none.yaml", "", "x" * 5000, "nul\0", "half\ud800"])
def test_a_policy_that_cannot_be_read_is_a_policy_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(PolicyError, match="cannot be read: "):
        load_policy(tmp_path / name, plugins=plugins_of())


def test_a_policys_own_tests_report_what_was_expected_and_what_came(bench: Bench) -> None:
    bench.says("attack", specialist=6.0)
    bench.says("broken", specialist=RuntimeError("boom"), backup=RuntimeError("boom"))
    router = bench.router(
        SPECIALIST_THEN_BACKUP
        + """
tests:
  - {text: attack, expect: {injection: block}}
  - {text: hello, expect: {injection: block}}
  - {text: broken, expect: {injection: block}}
"""
    )
    results = router.run_tests()
    assert [(r.text, r.got["injection"], r.passed) for r in results] == [
        ("attack", "block", True),
        ("hello", "allow", False),
        ("broken", "block", False),  # blocked only because it could not be judged
    ]
    assert "boom" in str(results[2].error)
