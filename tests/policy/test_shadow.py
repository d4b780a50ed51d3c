"""A policy in the shadow of another decides too, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from guardkit.classify.records import by_policy, classify
from guardkit.cli.main import main
from guardkit.errors import UsageError
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import Row
from tests.support.fake_models import FakeFamily, Panic, plugins_of, write_model

LIVE = """
version: 1
name: live
members: {one: {plugin: fake, model: one}}
categories:
  injection:
    positive: [injection]
    decide: {member: one}
    flag_at: {probability: 0.5}
    action: block
"""
STRICTER = """
version: 1
name: stricter
members: {same: {plugin: fake, model: one}, other: {plugin: fake, model: two}}
categories:
  attack:
    positive: [injection]
    decide: {combine: {how: any, of: [{member: same}, {member: other}]}}
    flag_at: {probability: 0.1}
    action: flag
"""
LogOdds = float | Exception


class TwoModels:
    """Two models whose log-odds are looked up by text, and policies over them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.table = folder, dict[tuple[str, str], LogOdds]()
        for name in ("one", "two"):
            write_model(folder / name)
        self.family = FakeFamily(self._logits_of)
        self.plugins = plugins_of(self.family)

    def set_log_odds(self, text: str, one: LogOdds = -3.0, two: LogOdds = -3.0) -> None:
        self.table |= {("one", text): one, ("two", text): two}

    def router(self, live: str = LIVE, shadow: str | None = STRICTER) -> PolicyRouter:
        (self.folder / "live.yaml").write_text(live, "utf-8")
        if shadow is None:
            return load_policy(self.folder / "live.yaml", plugins=self.plugins)
        (self.folder / "shadow.yaml").write_text(shadow, "utf-8")
        return load_policy(
            self.folder / "live.yaml", shadow=self.folder / "shadow.yaml", plugins=self.plugins
        )

    def _logits_of(self, model: str, text: str) -> list[float]:
        value = self.table.get((model, text), -3.0)
        if isinstance(value, Exception):
            raise value
        return [0.0, value]


@pytest.fixture
def models(tmp_path: Path) -> TwoModels:
    return TwoModels(tmp_path)


def test_the_shadow_says_what_it_would_have_done_and_the_action_stays(models: TwoModels) -> None:
    models.set_log_odds("odd", one=-1.0)
    router = models.router()
    (decision,) = router.decide(["odd"])
    assert decision.action == "allow"
    assert decision.shadow is not None
    assert decision.shadow["action"] == "flag"
    assert decision.shadow["categories"]["attack"]["decided_by"] == "any(same, other)"
    assert decision.shadow["policy"] != decision.policy == router.hash[:12]


def test_a_model_that_both_policies_ask_is_loaded_once_and_reads_a_text_once(
    models: TwoModels,
) -> None:
    models.router().decide(["a", "b CUT"])
    assert sorted(models.family.loads) == ["one", "two"]
    assert [texts for name, texts in models.family.calls if name == "one"] == [["a", "b CUT"]]


answers = st.one_of(st.floats(-6, 6), st.just(RuntimeError("boom")))


@settings(
    max_examples=60, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(st.lists(st.tuples(answers, answers), min_size=1, max_size=5))
def test_the_live_decision_is_the_one_without_a_shadow_and_the_shadows_is_its_own(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[LogOdds, LogOdds]]
) -> None:
    models = TwoModels(tmp_path_factory.mktemp("models"))
    texts = [f"text {i}" for i in range(len(pairs))]
    for text, (one, two) in zip(texts, pairs, strict=True):
        models.set_log_odds(text, one=one, two=two)
    alone, own = models.router(shadow=None), models.router(live=STRICTER, shadow=None)
    rows = [Row(1, 1, tuple(texts)), Row(2, 2, (texts[0],)), Row(3, 3, error="bad")]
    both = models.router().decide_rows(rows)
    assert [replace(d, shadow=None) for d in both] == alone.decide_rows(rows)
    for decision, expected in zip(both, own.decide_rows(rows), strict=True):
        shadow = decision.shadow
        assert shadow is not None
        assert (shadow["action"], shadow["error"]) == (expected.action, expected.error)
        category = expected.categories["attack"]
        assert shadow["categories"]["attack"]["score"] == category.score


def test_a_shadow_that_breaks_does_not_reach_the_live_decision(models: TwoModels) -> None:
    models.set_log_odds("attack", one=3.0)
    router = models.router()
    (models.folder / "two" / "calibration.json").write_text("{}", "utf-8")  # found out when loaded
    (decision,) = router.decide(["attack"])
    assert (decision.action, decision.error) == ("block", None)
    assert decision.shadow is not None
    assert "SHA-256" in decision.shadow["error"]
    assert decision.shadow["action"] == "flag"  # its on_error is closed: it never reads as safe


def test_a_shadow_that_panics_does_not_reach_the_live_decision(
    models: TwoModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    models.set_log_odds("attack", one=3.0)
    router = models.router()
    assert router.shadow is not None

    def panicking(*_: object) -> None:
        raise Panic("a None value")

    monkeypatch.setattr(router.shadow, "_decide", panicking)
    (decision,) = router.decide(["attack"])
    assert (decision.action, decision.error) == ("block", None)
    assert decision.shadow is not None
    assert decision.shadow["error"] == "PanicException: a None value"
    assert decision.shadow["action"] == "flag"


def test_nothing_stands_in_the_shadow_of_a_policy_that_enforces_nothing(models: TwoModels) -> None:
    with pytest.raises(UsageError, match=r"live\.yaml: has `mode: shadow`.*policy diff"):
        models.router(live=LIVE.replace("name: live", "name: live\nmode: shadow"))


def test_a_shadow_policys_own_mode_hides_nothing(models: TwoModels) -> None:
    models.set_log_odds("odd", one=-1.0)
    router = models.router(shadow=STRICTER.replace("name: stricter", "name: s\nmode: shadow"))
    (decision,) = router.decide(["odd"])
    assert decision.shadow is not None
    assert decision.shadow["action"] == "flag"


def test_the_output_holds_the_shadow_and_the_summary_counts_what_would_differ(
    models: TwoModels, tmp_path: Path
) -> None:
    models.set_log_odds("odd", one=-1.0)
    rows = [Row(1, 1, ("odd",)), Row(2, 2, ("plain",))]
    summary = classify(rows, by_policy(models.router()), tmp_path / "out.jsonl")
    odd, plain = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert (odd["action"], odd["shadow"]["action"]) == ("allow", "flag")
    assert odd["shadow"]["categories"]["attack"]["score"] == 0.268941
    assert plain["shadow"]["action"] == "allow"
    assert summary.differing == 1


@pytest.fixture
def installed(models: TwoModels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in the models's folder, its family installed, both policies written."""
    for module in ("model.loaded", "policy.router", "classify.job"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: models.plugins)
    monkeypatch.chdir(models.folder)
    models.router()


@pytest.mark.usefixtures("installed")
def test_a_shadow_never_changes_the_exit_code(
    models: TwoModels, capsys: pytest.CaptureFixture[str]
) -> None:
    models.set_log_odds("odd", one=-1.0, two=RuntimeError("boom"))
    Path("in.jsonl").write_text('{"text": "odd"}\n', "utf-8")
    args = ["classify", "in.jsonl", "--policy", "live.yaml", "--fail-on", "flag"]
    assert main([*args, "--shadow", "shadow.yaml"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["shadow"]["action"] == "flag"
    assert err.rstrip().endswith("1 allow, 1 would differ under the shadow policy")
    assert main(["classify", "in.jsonl", "--model", "one", "--shadow", "shadow.yaml"]) == 2
    assert "--shadow" in capsys.readouterr().err


@pytest.mark.usefixtures("installed")
def test_a_mistake_in_the_shadow_policy_is_reported_before_anything_runs(
    models: TwoModels, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.jsonl").write_text('{"text": "odd"}\n', "utf-8")
    Path("shadow.yaml").write_text(STRICTER.replace("action: flag", "action: flog"), "utf-8")
    args = ["classify", "in.jsonl", "--policy", "live.yaml", "--shadow", "shadow.yaml"]
    assert main(args) == 2
    assert "shadow.yaml:10: categories.attack.action" in capsys.readouterr().err
    assert models.family.calls == []
