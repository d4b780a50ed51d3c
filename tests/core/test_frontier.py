"""A sweep decides as the router would, finds the best bounds, and does not flatter the backup."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from fake_models import FakeFamily, plugins_of, write_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardkit.cli import main
from guardkit.errors import DataError, UsageError
from guardkit.frontier import _Asked, _asks, _cascade, sweep_policy, write_policy
from guardkit.metrics import RecallAt
from guardkit.plugins import Plugins
from guardkit.policy import CascadeNode
from guardkit.replay import NEVER, Stages, replay
from guardkit.router import load_policy
from guardkit.scorecache import remembering
from guardkit.sweep import (
    MAX_CHOICES,
    Point,
    Problem,
    choices,
    halves,
    loosest,
    shortest_probability,
)
from guardkit.types import Examples
from guardkit.verdicts import read_verdicts, unproven, verdicts_file

POLICY = """\
version: 1
name: test
members:
  specialist: {{plugin: fake, model: small}}
  backup: {{plugin: fake, model: large}}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        {stages}
    flag_at: {{probability: {threshold}}} # the line
    action: block
    on_error: {on_error}
"""
TWO = """- member: specialist # fast
          settle: {{below: {below}, above: {above}}} # sure either way
        - member: backup"""


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def answer(model: str, text: str) -> list[float]:
    """A text holds both models' log-odds: "small large | rest"; x fails."""
    value = text.split()[0 if model == "small" else 1]
    if value == "x":
        raise ValueError("cannot score this")
    return [0.0, float(value)]


class Setting:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.family = FakeFamily(answer)
        self.plugins: Plugins = plugins_of(self.family)
        write_model(folder / "small")
        write_model(folder / "large", prior=(0.6, 0.4))  # one model by its hash is one in a cache

    def write(self, name: str = "policy.yaml", stages: str = TWO, **values: Any) -> Path:
        defaults = {"below": 0.1, "above": 0.9, "threshold": 0.5, "on_error": "closed"}
        given = defaults | values
        path = self.folder / name
        path.write_text(POLICY.format(stages=stages.format(**given), **given))
        return path


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    made = Setting(tmp_path)
    for module in ("router", "frontier"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: made.plugins)
    return made


def examples(
    n: int, small: float, large: float, *, together: float = 0.0, seed: int = 0
) -> Examples:
    """Return texts whose positives score ``small`` and ``large`` higher under the two models."""
    rng = np.random.default_rng(seed)
    positive_N = np.arange(n) % 3 == 0
    shared_N = rng.normal(size=n)
    texts = []
    for i, y in enumerate(positive_N):
        noise = [together * shared_N[i] + math.sqrt(1 - together**2) * rng.normal() for _ in "ab"]
        texts.append(f"{small * y + noise[0]:.4f} {large * y + noise[1]:.4f} | {i}")
    return Examples(texts, positive_N.astype(np.int64), ("benign", "injection"))


# -- the replay is the router ----------------------------------------------------------------

SCORES = st.one_of(st.just("x"), st.sampled_from([-4, -1, -0.5, 0, 0.25, 1, 2.5, 4]).map(str))
#: Shapes of cascades: every kind of stage that can be swept.
SHAPES = [
    TWO,
    """- pattern: {{re2: MARK}}
        - member: specialist
          settle: {{below: {below}, above: {above}}}
        - member: backup""",
    """- member: specialist
          settle: {{below: {below}, above: {above}}}
        - pattern: {{re2: MARK}}
        - combine:
            {{how: weighted, of: [{{member: specialist}}, {{member: backup}}], quorum: 1}}""",
    """- member: specialist
          settle: {{below: {below}, above: {above}}}
        - combine: {{how: any, of: [{{member: specialist}}, {{member: backup}}]}}
          settle: {{below: 0, above: {above}}}
        - member: backup
          settle: {{below: {below}, above: 1}}
        - pattern: {{re2: MARK}}""",
]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    st.lists(st.tuples(SCORES, SCORES, st.booleans()), min_size=1, max_size=12),
    st.sampled_from(SHAPES),
    st.sampled_from([0.0, 0.1, 0.3775406687981454, 0.5]),  # one is the sigmoid of -0.5
    st.sampled_from([0.5, 0.7310585786300049, 0.9, 1.0]),
    st.sampled_from([0.5, 0.5000001]),
    st.sampled_from(["closed", "open"]),
)
def test_the_replay_decides_and_asks_as_the_router_does(
    setting: Setting,
    scores: list[tuple[str, str, bool]],
    shape: str,
    below: float,
    above: float,
    threshold: float,
    on_error: str,
) -> None:
    threshold = min(max(threshold, below), above)
    path = setting.write(
        stages=shape, below=below, above=above, threshold=threshold, on_error=on_error
    )
    texts = [f"{a} {b} | {'MARK' if mark else ''}" for a, b, mark in scores]
    router = load_policy(path, plugins=setting.plugins)
    category = router.policy.categories["injection"]
    cascade = _cascade(path, "injection", category)
    models = {name: remembering(router.model(name)) for name in ("specialist", "backup")}
    asked = _Asked("injection", category, models, setting.plugins)
    lo_SN, hi_SN = asked.intervals(cascade.cascade, texts, None)
    asks_SM = np.stack([_asks(stage, models) for stage in cascade.cascade])
    ms_MN = np.array([[1.0], [10.0]]) * np.ones(len(texts))
    stages = Stages(lo_SN, hi_SN, asks_SM, ms_MN, closed=on_error == "closed")
    bounds = [
        (stage.settle.below, stage.settle.above) if stage.settle else NEVER
        for stage in cascade.cascade
    ]
    run = replay(stages, bounds)
    for i, text in enumerate(texts):  # one at a time, so that calls say who was asked
        setting.family.calls.clear()
        (decision,) = router.decide([text])
        assert run.flagged_N(threshold)[i] == (decision.action == "block"), text
        called = {model for model, _ in setting.family.calls}
        assert run.asked_MN[:, i].tolist() == ["small" in called, "large" in called], text
        assert run.ms_N[i] == ("small" in called) + 10 * ("large" in called)


# -- its arithmetic --------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from([-2.0, -1, 0, 1, 2, 3]), st.booleans()), min_size=2),
    st.sampled_from([0.0, 0.1, 0.25, 0.5]),
)
def test_the_loosest_threshold_is_the_lowest_that_keeps_to_the_rate(
    rows: list[tuple[float, bool]], rate: float
) -> None:
    score_N, positive_N = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    threshold = loosest(score_N, positive_N, rate, -5.0, 5.0)
    negative_N = score_N[~positive_N]
    candidates = [-5.0, *sorted(set(negative_N))]
    allowed = [t for t in candidates if (negative_N > t).sum() <= rate * len(negative_N) + 1e-9]
    assert threshold is not None
    assert (score_N > threshold).tolist() == (score_N > min(allowed)).tolist() or not len(
        negative_N
    )
    assert loosest(np.array([9.0, 9.0]), np.array([True, False]), 0.0, -5.0, 5.0) is None


@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, 0, 1, 2, 3]), st.booleans()), min_size=2, max_size=20
    ),
    st.lists(st.integers(0, 3), min_size=20, max_size=20),
    st.sampled_from([0.0, 0.1, 0.34]),
)
def test_recall_under_weights_is_that_of_texts_written_so_often(
    rows: list[tuple[float, bool]], counts: list[int], rate: float
) -> None:
    score_N, positive_N = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    count_N = np.array(counts[: len(rows)])
    got = RecallAt(positive_N, score_N, rate)(count_N.astype(np.float64))
    many_N, label_N = np.repeat(score_N, count_N), np.repeat(positive_N, count_N)
    if not label_N.any() or label_N.all():
        assert math.isnan(got)
        return
    thresholds = [-9.0, *many_N]
    best = max(
        (many_N[label_N] > t).mean()
        for t in thresholds
        if (many_N[~label_N] > t).mean() <= rate + 1e-9
    )
    assert got == pytest.approx(best)


@given(st.floats(-15, 15), st.floats(1e-6, 3))
def test_a_short_probability_flags_the_same_texts(low: float, width: float) -> None:
    p = shortest_probability(low, low + width)
    assert low <= logit(p) < low + width
    assert width < 1 or len(repr(p)) < 12


def problem(n_swept: int = 1) -> Problem:
    rng = np.random.default_rng(0)
    lo_SN = rng.normal(size=(n_swept + 1, 90))
    stages = Stages(lo_SN, lo_SN, np.eye(n_swept + 1, dtype=bool), np.ones((n_swept + 1, 90)), True)
    bounds = (*[(0.1, 0.9)] * n_swept, NEVER)
    positive_N = np.arange(90) % 3 == 0
    names = [f"m{i}" for i in range(n_swept + 1)]
    groups = [str(i // 2) for i in range(90)]
    return Problem(names, stages, {}, bounds, range(n_swept), 0.5, positive_N, groups, 0.05)


@pytest.mark.parametrize("n_swept", [1, 2, 3, 4])
def test_choices_hold_the_file_s_bounds_and_leave_room_for_a_threshold(n_swept: int) -> None:
    tried = list(choices(problem(n_swept)))
    assert tried[0] == problem(n_swept).bounds
    assert len(set(tried)) == len(tried) <= MAX_CHOICES + 1
    assert len(tried) > 50
    for bounds in tried:
        assert max(b for b, _ in bounds[:-1]) <= min(a for _, a in bounds[:-1])
    assert ((0.0, 1.0),) * n_swept in {bounds[:-1] for bounds in tried}  # the backup reads all


def test_halves_keep_groups_whole_and_classes_even() -> None:
    p = problem()
    half_N = halves(p.positive_N, p.groups, 0)
    for group in set(p.groups):
        inside = [h for h, g in zip(half_N, p.groups, strict=True) if g == group]
        assert len(set(inside)) == 1
    assert abs(half_N[p.positive_N].sum() - 15) <= 2
    assert abs(half_N.sum() - 45) <= 2


def test_a_point_dominates_by_being_no_worse_anywhere_and_better_somewhere() -> None:
    def point(ms: float, recall: float, fpr: float) -> Point:
        return Point("", (), 0.5, recall, fpr, ms)

    assert point(1, 0.5, 0.1).dominates(point(2, 0.5, 0.1))
    assert point(1, 0.6, 0.1).dominates(point(1, 0.5, 0.1))
    assert not point(1, 0.5, 0.1).dominates(point(1, 0.5, 0.1))
    assert not point(1, 0.5, 0.2).dominates(point(2, 0.5, 0.1))


# -- the flow --------------------------------------------------------------------------------


def test_a_good_backup_is_shown_to_help_and_a_bad_one_is_not(setting: Setting) -> None:
    path = setting.write()
    good = sweep_policy(path, examples(900, 1.0, 4.0), max_fpr=0.05).sweep
    assert good.helps
    assert good.gains["specialist"]["low"] > 0.3
    # no better, and of the same opinion; deferring to it can only lose
    bad = sweep_policy(path, examples(900, 2.0, 1.0, together=0.9), max_fpr=0.05).sweep
    assert not bad.helps
    assert bad.gains["specialist"]["value"] < 0.05


def test_useless_backups_are_seldom_said_to_help(setting: Setting) -> None:
    path = setting.write()
    verdicts = [
        sweep_policy(path, examples(300, 1.5, 0.0, seed=seed), max_fpr=0.1).sweep.helps
        for seed in range(8)
    ]
    assert sum(verdicts) <= 1


def test_points_are_what_the_router_makes_of_the_texts(setting: Setting) -> None:
    data = examples(400, 1.5, 2.5)
    frontier = sweep_policy(setting.write(), data, max_fpr=0.05)
    s = frontier.sweep
    assert s.own is not None
    positive_N = data.labels_N == 1
    for point in [s.own, s.chosen, *s.frontier]:
        (below, above), _ = point.bounds
        path = setting.write("point.yaml", below=below, above=above, threshold=point.threshold)
        decisions = load_policy(path, plugins=setting.plugins).decide(data.texts)
        flagged_N = np.array([d.action == "block" for d in decisions])
        assert flagged_N[positive_N].mean() == point.recall
        assert flagged_N[~positive_N].mean() == point.fpr
        asked = np.mean([any(step.member == "backup" for step in d.route) for d in decisions])
        assert asked == pytest.approx(point.asked["backup"])
        assert point is s.own or point.fpr <= 0.05
    assert s.chosen.recall == max(p.recall for p in s.points)
    assert [p.ms for p in s.frontier] == sorted(p.ms for p in s.frontier)
    for point in s.frontier:
        assert not any(p.ms <= point.ms and p.recall > point.recall for p in s.points)
    assert all(point.dominates(s.own) for point in s.better)


def test_a_budget_bounds_what_is_chosen(setting: Setting) -> None:
    data = examples(400, 1.5, 2.5)
    cache = setting.folder / "cache"  # the same times in both sweeps
    free = sweep_policy(setting.write(), data, max_fpr=0.05, cache=cache).sweep
    budget = (free.chosen.ms + min(p.ms for p in free.points)) / 2
    bound = sweep_policy(setting.write(), data, max_fpr=0.05, max_ms=budget, cache=cache).sweep
    assert bound.chosen.ms <= budget < free.chosen.ms
    assert bound.chosen.recall <= free.chosen.recall
    assert bound.frontier[-1].bounds == bound.chosen.bounds
    with pytest.raises(DataError, match="within 0 ms a text"):
        sweep_policy(setting.write(), data, max_fpr=0.05, max_ms=0, cache=cache)


def test_a_second_sweep_runs_no_model(setting: Setting) -> None:
    data, cache = examples(200, 1.5, 2.5), setting.folder / "cache"
    first = sweep_policy(setting.write(), data, max_fpr=0.1, cache=cache)
    assert {cost.scored for cost in first.costs.values()} == {200}
    setting.family.calls.clear()
    again = sweep_policy(setting.write(below=0.3), data, max_fpr=0.1, cache=cache)
    assert setting.family.calls == []
    assert {cost.scored for cost in again.costs.values()} == {0}
    assert again.costs["backup"].ms == first.costs["backup"].ms


def test_a_failure_counts_as_on_error_has_it(setting: Setting) -> None:
    data = examples(200, 3.0, 3.0)
    texts = [re.sub(r"^\S+ \S+", "x x", t) if i < 9 else t for i, t in enumerate(data.texts)]
    broken = Examples(texts, data.labels_N, data.label_names)
    closed = sweep_policy(setting.write(), broken, max_fpr=0.1).sweep
    opened = sweep_policy(setting.write(on_error="open"), broken, max_fpr=0.1).sweep
    assert closed.own is not None
    assert opened.own is not None
    assert closed.own.fpr - opened.own.fpr == pytest.approx(6 / 133, abs=0.002)
    assert closed.own.recall > opened.own.recall


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("- member: specialist\n          settle: {{below: 0, above: 1}}\n        - cascade:\n"
         "          - {{member: backup}}", "a cascade stands inside another"),
        ("- combine: {{how: any, of: [{{member: specialist}}, {{member: backup}}]}}",
         "no stage has bounds"),
    ],
)  # fmt: skip
def test_what_cannot_be_swept_is_refused_and_says_what_can(
    setting: Setting, stages: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sweep_policy(setting.write(stages=stages), examples(200, 1, 2))
    assert "it takes a `cascade` at the top" in str(caught.value)


def test_a_policy_without_a_cascade_is_refused(setting: Setting) -> None:
    path = setting.write()
    text = path.read_text()
    start, end = text.index("    decide:"), text.index("    flag_at")
    alone = text[:start] + "    decide: {combine: {how: all, of: [{member: specialist}, "
    path.write_text(alone + "{member: backup}]}}\n" + text[end:])
    with pytest.raises(UsageError, match="no category has a cascade to sweep"):
        sweep_policy(path, examples(200, 1, 2))
    with pytest.raises(UsageError, match=r"its `decide` is all\(specialist, backup\)"):
        sweep_policy(path, examples(200, 1, 2), category="injection")
    with pytest.raises(UsageError, match="no category 'spam'; there are injection"):
        sweep_policy(path, examples(200, 1, 2), category="spam")


def test_too_few_texts_are_refused(setting: Setting) -> None:
    with pytest.raises(DataError, match=r"134 negative examples .* needs 200 at least"):
        sweep_policy(setting.write(), examples(201, 1, 2))
    with pytest.raises(DataError, match="10 positive examples"):
        sweep_policy(setting.write(), examples(30, 1, 2), max_fpr=0.5)
    with pytest.raises(UsageError, match=r"--max-fpr 1\.5"):
        sweep_policy(setting.write(), examples(30, 1, 2), max_fpr=1.5)


# -- writing, and what is said of a backup ---------------------------------------------------


def test_the_chosen_point_is_written_and_comments_stay(setting: Setting) -> None:
    path, out = setting.write(), setting.folder / "best.yaml"
    frontier = sweep_policy(path, examples(600, 1.0, 3.0), max_fpr=0.05)
    write_policy(frontier, out)
    before, after = path.read_text().splitlines(), out.read_text().splitlines()
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [before[i].split("#")[1] for i in changed] == [" sure either way", " the line"]
    assert all("#" in after[i] for i in changed)
    category = load_policy(out, plugins=setting.plugins).policy.categories["injection"]
    assert isinstance(category.decide, CascadeNode)
    settle = category.decide.cascade[0].settle
    assert settle is not None
    assert (settle.below, settle.above) == frontier.sweep.chosen.bounds[0]
    assert category.flag_at.probability == frontier.sweep.chosen.threshold


def test_a_verdict_stands_until_the_cascade_or_a_model_changes(setting: Setting) -> None:
    path = setting.write()

    def said(policy: Path) -> list[str]:
        router = load_policy(policy, plugins=setting.plugins)
        return list(unproven(router.policy, router.folders))

    assert "has not been shown to help" in said(path)[0]
    write_policy(sweep_policy(path, examples(600, 1.0, 4.0), max_fpr=0.05), path)
    assert read_verdicts(path)["injection"].helps
    assert said(path) == []
    path.write_text(path.read_text().replace("name: test", "name: renamed"))
    assert said(path) == []
    write_model(setting.folder / "new" / "large", scale=2.0)
    text = path.read_text()
    path.write_text(text.replace("model: large", "model: new/large"))
    assert "was measured before it changed (policy.frontier.json)" in said(path)[0]
    path.write_text(re.sub(r"below: [\d.e-]+", "below: 0", text))
    assert "before it changed" in said(path)[0]
    path.write_text(text)
    assert said(path) == []
    verdicts_file(path).write_text("{")
    assert "has not been shown to help" in said(path)[0]


def test_a_backup_measured_not_to_help_is_told_so(setting: Setting) -> None:
    path = setting.write()
    write_policy(sweep_policy(path, examples(600, 2.0, 0.0), max_fpr=0.05), path)
    router = load_policy(path, plugins=setting.plugins)
    (line,) = unproven(router.policy, router.folders)
    assert line.startswith("category 'injection': its backup was not shown to help where it was")


def test_a_cascade_of_one_classifier_has_no_backup_to_prove(setting: Setting) -> None:
    stages = """- pattern: {{re2: MARK}}
        - combine: {{how: any, of: [{{member: specialist}}, {{member: backup}}]}}"""
    router = load_policy(setting.write(stages=stages), plugins=setting.plugins)
    assert list(unproven(router.policy, router.folders)) == []


# -- the command -----------------------------------------------------------------------------


def write_rows(path: Path, data: Examples) -> None:
    labels = [data.label_names[y] for y in data.labels_N]
    rows = [{"text": t, "label": y} for t, y in zip(data.texts, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(setting: Setting, data: Examples, *options: str) -> int:
    setting.write()
    write_rows(setting.folder / "mail.jsonl", data)
    given = ["policy", "frontier", "policy.yaml", "--data", "mail.jsonl", "--cache", "cache"]
    return main([*given, "--max-fpr", "0.05", *options])


@pytest.fixture
def here(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Setting:
    monkeypatch.chdir(setting.folder)
    return setting


def test_policy_frontier_shows_the_choice_and_draws_it(
    here: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(here, examples(600, 1.0, 4.0), "--out", "drawn", "--write", "best.yaml") == 0
    out = capsys.readouterr().out
    assert "THE BACKUP HELPS: recall over specialist alone" in out
    assert "specialist alone" in out
    assert "On texts it was not chosen on" in out
    assert "the policy is in best.yaml" in out
    assert "the verdict on its backup is in best.frontier.json" in out
    record = json.loads(Path("drawn/frontier.json").read_text())
    assert record["helps"] is True
    assert record["costs"]["backup"]["scored"] == 600
    assert len(record["points"]) > 50
    root = ElementTree.parse("drawn/frontier.svg").getroot()
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) > len(record["points"])
    assert {e.get("class") for e in circles} == {"tried", "shown", "single", "file", "chosen"}


def test_policy_frontier_says_plainly_that_a_backup_does_not_help(
    here: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.certificates.json").write_text("{}")
    assert run(here, examples(600, 2.0, 0.0), "--write", "bad.yaml") == 0
    out = capsys.readouterr().out
    assert "THE BACKUP IS NOT SHOWN TO HELP" in out
    assert "`decide: {member: specialist}` is simpler and cheaper" in out
    assert "bad.certificates.json no longer fits; run `guardkit policy certify bad.yaml`" in out
    assert read_verdicts(Path("bad.yaml"))["injection"].helps is False


def test_classify_notes_once_that_a_backup_is_unproven(
    here: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write()
    Path("in.txt").write_text("1 1\n2 2\n")
    assert main(["classify", "in.txt", "--policy", "policy.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("note: category 'injection': its backup has not been shown") == 1
    assert len(captured.out.splitlines()) == 2


def test_policy_check_and_test_note_once_that_a_backup_is_unproven(
    here: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here.write()
    tests = 'tests: [{text: "1 1", expect: {injection: block}}]\n'
    path.write_text(path.read_text() + tests)
    note = "note: category 'injection': its backup has not been shown to help"
    assert main(["policy", "check", "policy.yaml"]) == 0
    checked = capsys.readouterr()
    assert checked.out.splitlines()[1].startswith(note)
    assert (checked.out + checked.err).count(note) == 1
    assert main(["policy", "test", "policy.yaml"]) == 0
    assert capsys.readouterr().err.count(note) == 1
    write_policy(sweep_policy(path, examples(600, 1.0, 4.0), max_fpr=0.05), path)
    assert main(["policy", "check", "policy.yaml"]) == 0
    assert "note:" not in capsys.readouterr().out
