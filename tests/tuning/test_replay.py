"""A cascade replayed over known log-odds decides, and asks, as the router does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardkit.model.score_cache import with_score_cache
from guardkit.policy.router import load_policy
from guardkit.tuning.frontier import _asks, _cascade, _CategoryScores
from guardkit.tuning.replay import NEVER, Stages, replay
from tests.support.cascades import TWO, CascadeFolder

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
    """- member: specialist
          settle: {{below: {below}, above: {above}}}
          escalate_if: {{novelty_p_below: 0.1}}
        - member: backup""",
    """- combine: {{how: all, of: [{{member: specialist}}, {{member: backup}}]}}
          settle: {{below: {below}, above: {above}}}
        - member: specialist
          settle: {{below: {below}, above: {above}}}
          escalate_if: {{novelty_p_below: 0.1}}
        - member: backup
          settle: {{below: {below}, above: {above}}}
          escalate_if: {{novelty_p_below: 0.5}}
        - pattern: {{re2: MARK}}""",
]
#: 0 is familiar, p = 1; 17.5 is on a bound, p = 0.1; of 99 p = 0.05.
NOVELTIES = st.sampled_from(["0", "9", "17.5", "99", "x"])
#: Who does not read a text to its end: one model, both, or either if asked, for it is too long.
MAX_CHARACTERS = 60
UNREAD = st.sampled_from(["", "", "UNREAD:small", "UNREAD:large", "CUT", "a" * MAX_CHARACTERS])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CascadeFolder:
    return CascadeFolder(tmp_path, monkeypatch)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None
)
@given(
    st.lists(st.tuples(SCORES, SCORES, NOVELTIES, st.booleans(), UNREAD), min_size=1, max_size=12),
    st.sampled_from(SHAPES),
    st.sampled_from([0.0, 0.1, 0.3775406687981454, 0.5]),  # one is the sigmoid of -0.5
    st.sampled_from([0.5, 0.7310585786300049, 0.9, 1.0]),
    st.sampled_from([0.5, 0.5000001]),
    st.sampled_from(["closed", "open"]),
    st.sampled_from(["", "on_truncated: closed", "on_truncated: open"]),
)
def test_the_replay_decides_and_asks_as_the_router_does(
    folder: CascadeFolder,
    scores: list[tuple[str, str, str, bool, str]],
    shape: str,
    below: float,
    above: float,
    threshold: float,
    on_error: str,
    on_truncated: str,
) -> None:
    threshold = min(max(threshold, below), above)
    path = folder.write(
        stages=shape, below=below, above=above, threshold=threshold, on_error=on_error,
        on_truncated=on_truncated, max_characters=MAX_CHARACTERS,
    )  # fmt: skip
    texts = [f"{a} {b} {n} | {unread} {'MARK' if mark else ''}" for a, b, n, mark, unread in scores]
    router = load_policy(path, plugins=folder.plugins)
    category = router.policy.categories["injection"]
    cascade = _cascade(path, "injection", category)
    models = {name: with_score_cache(router.model(name)) for name in ("specialist", "backup")}
    asked = _CategoryScores("injection", router.policy, models, folder.plugins)
    told = asked.values(cascade.cascade, texts, None)
    asks_SM = np.stack([_asks(stage, models) for stage in cascade.cascade])
    ms_MN = np.array([[1.0], [10.0]]) * np.ones(len(texts))
    stages = Stages(*told, asks_SM, ms_MN, closed=on_error == "closed")
    bounds = [
        (stage.settle.below, stage.settle.above) if stage.settle else NEVER
        for stage in cascade.cascade
    ]
    run = replay(stages, bounds)
    for i, text in enumerate(texts):  # one at a time, so that calls say who was asked
        folder.family.calls.clear()
        (decision,) = router.decide([text])
        assert run.flagged_N(threshold)[i] == (decision.action == "block"), text
        called = {model for model, _ in folder.family.calls}
        assert run.asked_MN[:, i].tolist() == ["small" in called, "large" in called], text
        assert run.ms_N[i] == ("small" in called) + 10 * ("large" in called)
