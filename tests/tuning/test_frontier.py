"""A sweep of a policy finds the best bounds, and does not flatter the backup."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from guardkit.errors import DataError, UsageError
from guardkit.policy.router import load_policy
from guardkit.policy.schema import CascadeNode, EscalateIf, MemberNode
from guardkit.tuning.frontier import sweep_policy, write_policy
from guardkit.types import Examples
from tests.support.cascades import ESCALATING, TWO, CascadeFolder, random_examples


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CascadeFolder:
    return CascadeFolder(tmp_path, monkeypatch)


def test_a_good_backup_is_shown_to_help_and_a_bad_one_is_not(folder: CascadeFolder) -> None:
    path = folder.write()
    good = sweep_policy(path, random_examples(900, 1.0, 4.0), max_fpr=0.05).sweep
    assert good.helps
    assert good.gains["specialist"]["low"] > 0.3
    # no better, and of the same opinion; deferring to it can only lose
    bad = sweep_policy(path, random_examples(900, 2.0, 1.0, together=0.9), max_fpr=0.05).sweep
    assert not bad.helps
    assert bad.gains["specialist"]["value"] < 0.05


def test_useless_backups_are_seldom_said_to_help(folder: CascadeFolder) -> None:
    path = folder.write()
    verdicts = [
        sweep_policy(path, random_examples(300, 1.5, 0.0, seed=seed), max_fpr=0.1).sweep.helps
        for seed in range(8)
    ]
    assert sum(verdicts) <= 1


@pytest.mark.parametrize("on_truncated", ["closed", "open"])
@pytest.mark.parametrize(("stages", "strange"), [(TWO, 0.0), (ESCALATING, 0.3)])
def test_points_are_what_the_router_makes_of_the_texts(
    folder: CascadeFolder, stages: str, strange: float, on_truncated: str
) -> None:
    data = random_examples(400, 1.5, 2.5, strange=strange)
    unread = {0: "CUT", 50: "UNREAD:small", 100: "UNREAD:large", 101: "a" * 80, 151: "a" * 80}
    texts = [f"{text} {unread.get(i, '')}" for i, text in enumerate(data.texts)]
    data = Examples(texts, data.labels_N, data.label_names)
    limits = {"on_truncated": f"on_truncated: {on_truncated}", "max_characters": 60}
    frontier = sweep_policy(folder.write(stages=stages, **limits), data, max_fpr=0.05)
    s = frontier.sweep
    assert s.own is not None
    positive_N = data.labels_N == 1
    for point in [s.own, s.chosen, *s.frontier]:
        (below, above), _ = point.bounds
        values = {"below": below, "above": above, "threshold": point.threshold, **limits}
        path = folder.write("point.yaml", stages, **values)
        decisions = load_policy(path, plugins=folder.plugins).decide(data.texts)
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


def test_a_budget_bounds_what_is_chosen(folder: CascadeFolder) -> None:
    data = random_examples(400, 1.5, 2.5)
    cache = folder.path / "cache"  # the same times in both sweeps
    free = sweep_policy(folder.write(), data, max_fpr=0.05, cache=cache).sweep
    budget = (free.chosen.ms + min(p.ms for p in free.points)) / 2
    bound = sweep_policy(folder.write(), data, max_fpr=0.05, max_ms=budget, cache=cache).sweep
    assert bound.chosen.ms <= budget < free.chosen.ms
    assert bound.chosen.recall <= free.chosen.recall
    assert bound.frontier[-1].bounds == bound.chosen.bounds
    with pytest.raises(DataError, match="within 0 ms a text"):
        sweep_policy(folder.write(), data, max_fpr=0.05, max_ms=0, cache=cache)


@pytest.mark.parametrize("stages", [TWO, ESCALATING])
def test_a_second_sweep_runs_no_model(folder: CascadeFolder, stages: str) -> None:
    data, cache = random_examples(200, 1.5, 2.5), folder.path / "cache"
    path = folder.write(stages=stages)
    first = sweep_policy(path, data, max_fpr=0.1, cache=cache)
    assert {cost.scored for cost in first.costs.values()} == {200}
    folder.family.calls.clear()
    same = sweep_policy(path, data, max_fpr=0.1, cache=cache)
    sweep_policy(folder.write(stages=stages, below=0.3), data, max_fpr=0.1, cache=cache)
    assert folder.family.calls == []
    assert {cost.scored for cost in same.costs.values()} == {0}
    assert same.costs["backup"].ms == first.costs["backup"].ms
    assert same.sweep == first.sweep


def test_members_that_share_a_model_cost_it_once(folder: CascadeFolder) -> None:
    path = folder.write()
    path.write_text(path.read_text().replace("model: large", "model: small"))
    frontier = sweep_policy(path, random_examples(400, 1.5, 2.5), max_fpr=0.05)
    assert frontier.costs["backup"] == frontier.costs["specialist"]
    assert {point.ms for point in frontier.sweep.points} == {frontier.sweep.singles[0].ms}
    assert not frontier.sweep.helps


def test_what_is_strange_to_the_specialist_is_asked_of_the_backup(folder: CascadeFolder) -> None:
    data = random_examples(400, 1.5, 2.5, strange=0.3)
    strange = sum(" 0 | " not in text for text in data.texts) / len(data.texts)
    path = folder.write(stages=ESCALATING)
    for point in sweep_policy(path, data, max_fpr=0.05).sweep.points:
        assert point.asked["backup"] >= strange > 0.2


def test_the_chosen_point_keeps_escalate_if(folder: CascadeFolder) -> None:
    path, out = folder.write(stages=ESCALATING), folder.path / "best.yaml"
    write_policy(sweep_policy(path, random_examples(400, 1.0, 3.0), max_fpr=0.05), out)
    category = load_policy(out, plugins=folder.plugins).policy.categories["injection"]
    assert isinstance(category.decide, CascadeNode)
    stage = category.decide.cascade[0]
    assert isinstance(stage, MemberNode)
    assert stage.escalate_if == EscalateIf(novelty_p_below=0.1)


def test_a_failure_counts_as_on_error_has_it(folder: CascadeFolder) -> None:
    data = random_examples(200, 3.0, 3.0)
    texts = [re.sub(r"^\S+ \S+", "x x", t) if i < 9 else t for i, t in enumerate(data.texts)]
    broken = Examples(texts, data.labels_N, data.label_names)
    closed = sweep_policy(folder.write(), broken, max_fpr=0.1).sweep
    opened = sweep_policy(folder.write(on_error="open"), broken, max_fpr=0.1).sweep
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
    folder: CascadeFolder, stages: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        sweep_policy(folder.write(stages=stages), random_examples(200, 1, 2))
    assert "it takes a `cascade` at the top" in str(caught.value)


def test_a_policy_without_a_cascade_is_refused(folder: CascadeFolder) -> None:
    path = folder.write()
    text = path.read_text()
    start, end = text.index("    decide:"), text.index("    flag_at")
    alone = text[:start] + "    decide: {combine: {how: all, of: [{member: specialist}, "
    path.write_text(alone + "{member: backup}]}}\n" + text[end:])
    with pytest.raises(UsageError, match="no category has a cascade to sweep"):
        sweep_policy(path, random_examples(200, 1, 2))
    with pytest.raises(UsageError, match=r"its `decide` is all\(specialist, backup\)"):
        sweep_policy(path, random_examples(200, 1, 2), category="injection")
    with pytest.raises(UsageError, match="no category 'spam'; there are injection"):
        sweep_policy(path, random_examples(200, 1, 2), category="spam")


def test_too_few_texts_are_refused(folder: CascadeFolder) -> None:
    with pytest.raises(DataError, match=r"134 negative examples .* needs 200 at least"):
        sweep_policy(folder.write(), random_examples(201, 1, 2))
    with pytest.raises(DataError, match="10 positive examples"):
        sweep_policy(folder.write(), random_examples(30, 1, 2), max_fpr=0.5)
    with pytest.raises(UsageError, match=r"--max-fpr 1\.5"):
        sweep_policy(folder.write(), random_examples(30, 1, 2), max_fpr=1.5)


def test_the_chosen_point_is_written_and_comments_stay(folder: CascadeFolder) -> None:
    path, out = folder.write(), folder.path / "best.yaml"
    frontier = sweep_policy(path, random_examples(600, 1.0, 3.0), max_fpr=0.05)
    write_policy(frontier, out)
    before, after = path.read_text().splitlines(), out.read_text().splitlines()
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert [before[i].split("#")[1] for i in changed] == [" sure either way", " the line"]
    assert all("#" in after[i] for i in changed)
    category = load_policy(out, plugins=folder.plugins).policy.categories["injection"]
    assert isinstance(category.decide, CascadeNode)
    settle = category.decide.cascade[0].settle
    assert settle is not None
    assert (settle.below, settle.above) == frontier.sweep.chosen.bounds[0]
    assert category.flag_at.probability == frontier.sweep.chosen.threshold
