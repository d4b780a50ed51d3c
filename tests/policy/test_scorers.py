"""Members that are one model by several scorers: checked, loaded once, each its own opinion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.errors import ArtefactError, PolicyError
from guardkit.model.loaded import load_model, load_scorers
from guardkit.model.score_cache import with_score_cache
from guardkit.model.scorers import Source, calibrated_scorers
from guardkit.plugins import Plugins
from guardkit.policy.backup_record import category_hash
from guardkit.policy.certificate import basis_of
from guardkit.policy.router import PolicyRouter, check_policy, load_policy
from tests.support.fake_models import FakeFamily, ScorersFamily, plugins_of, write_model

LOGITS = {"m": 2.0, "m/cheap": -1.0}
CALIBRATED: Mapping[str, Mapping[str, Any]] = {"cheap": {"scale": 3.0, "novelty": [1.0] * 19}}


@pytest.fixture
def family(tmp_path: Path) -> ScorersFamily:
    """A family with a model "m" of three scorers, the last of which was never calibrated."""
    write_model(tmp_path / "m", novelty=[1.0] * 19, scorers=CALIBRATED)
    return ScorersFamily(
        lambda model, text: [0.0, LOGITS[model]],
        offered={"m": ("own", "cheap", "dear")},
        novelty=lambda model, text: 0.0,
    )


@pytest.fixture
def plugins(family: ScorersFamily) -> Plugins:
    return plugins_of(family)


def write(folder: Path, *members: str, flag_at: str = "{probability: 0.5}") -> Path:
    """Write a policy with a cascade of members, each given as its YAML."""
    lines = ["version: 1", "name: rungs", "members:"]
    lines += [f"  m{i}: {{plugin: fake, model: m, {own}}}" for i, own in enumerate(members)]
    lines += ["categories:", "  injection:", "    positive: [injection]", "    decide:"]
    lines += ["      cascade:"]
    lines += [f"        - {{member: m{i}, settle: {{below: 0.0, above: 1.0}}}}"
              for i in range(len(members))]  # fmt: skip
    lines += [f"    flag_at: {flag_at}", "    action: block"]
    path = folder / "policy.yaml"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def opened(path: Path, plugins: Plugins) -> PolicyRouter:
    return load_policy(path, plugins=plugins)


def test_each_scorer_answers_by_its_own_calibration(tmp_path: Path, plugins: Plugins) -> None:
    router = opened(write(tmp_path, "scorer: cheap", "scorer: own"), plugins)
    (decision,) = router.decide(["hello"])
    cheap, own = (step.score for step in decision.route)
    assert cheap == pytest.approx(1 / (1 + np.exp(3.0)), rel=1e-5)  # three times the logit
    assert own == pytest.approx(1 / (1 + np.exp(-2.0)), rel=1e-5)


def test_scorers_of_one_model_are_handed_what_is_loaded(
    tmp_path: Path, family: ScorersFamily, plugins: Plugins
) -> None:
    router = opened(write(tmp_path, "scorer: cheap", "scorer: own", "scorer: own"), plugins)
    router.decide(["hello"])
    assert family.handed == [("m/cheap", []), ("m", ["m/cheap"])]
    assert [(model, len(texts)) for model, texts in family.calls] == [("m/cheap", 1), ("m", 1)]


def test_naming_the_default_scorer_changes_nothing(tmp_path: Path, plugins: Plugins) -> None:
    router = opened(write(tmp_path, "scorer: own", "scorer: cheap"), plugins)
    assert router.sources == {"m0": Source(tmp_path / "m"), "m1": Source(tmp_path / "m", "cheap")}
    assert router.model("m0").scorer is None


@pytest.mark.parametrize(
    ("scorer", "words"),
    [
        ("none", "m: no scorer 'none'; offered: own, cheap, dear"),
        ("dear", "m: its scorer 'dear' is not calibrated, so it gives no probabilities; "
         "`guardkit calibrate` fits all of a model's scorers"),
    ],
)  # fmt: skip
def test_a_scorer_that_cannot_be_used_is_named_on_its_line(
    tmp_path: Path, plugins: Plugins, scorer: str, words: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        check_policy(write(tmp_path, f"scorer: {scorer}"), plugins)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (4, "members.m0.scorer")
    assert words in problem.message


def test_a_model_of_a_family_without_scorers_takes_none(tmp_path: Path) -> None:
    write_model(tmp_path / "m")
    plain = plugins_of(FakeFamily(lambda model, text: [0.0, 0.0]))
    assert opened(write(tmp_path, ""), plain).decide(["hello"])[0].error is None
    with pytest.raises(PolicyError, match="'fake' has one scorer, which is not named"):
        check_policy(write(tmp_path, "scorer: own"), plain)
    with pytest.raises(ArtefactError, match="has one scorer, which is not named"):
        load_model(tmp_path / "m", scorer="own", plugins=plain)


def test_a_model_of_one_calibration_is_its_default_scorer(tmp_path: Path) -> None:
    write_model(tmp_path / "old")
    family = ScorersFamily(lambda model, text: [0.0, 1.0], offered={"old": ("own", "cheap")})
    plugins = plugins_of(family)
    for scorer in (None, "own"):
        model = load_model(tmp_path / "old", scorer=scorer, plugins=plugins)
        assert model.probabilities(["x"])[0, 1] == pytest.approx(1 / (1 + np.exp(-1)))
    with pytest.raises(ArtefactError, match="scorer 'cheap' is not calibrated"):
        load_model(tmp_path / "old", scorer="cheap", plugins=plugins).probabilities(["x"])
    assert calibrated_scorers(tmp_path / "old", family) == {"own": True, "cheap": False}


def test_a_plugin_that_cannot_tell_its_scorers_is_named(
    tmp_path: Path, family: ScorersFamily, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> Any:
        raise KeyError("network")

    monkeypatch.setattr(family, "scorers", broken)
    with pytest.raises(PolicyError, match="plugin 'fake' cannot tell its scorers: KeyError"):
        check_policy(write(tmp_path, "scorer: cheap"), plugins)
    assert opened(write(tmp_path, ""), plugins).decide(["hello"])[0].error is None


def test_novelty_is_asked_of_a_scorer_that_gives_one(tmp_path: Path, plugins: Plugins) -> None:
    path = write(tmp_path, "scorer: dear")
    path.write_text(
        path.read_text().replace("action: block",
                                 "action: block\n    abstain_if: {member: m0, "
                                 "novelty_p_below: 0.1}")
    )  # fmt: skip
    with pytest.raises(PolicyError, match=r"novelty\.json has none of scorer 'dear'"):
        check_policy(path, plugins)
    path.write_text(path.read_text().replace("dear", "cheap"))
    assert opened(path, plugins).decide(["hello"])[0].error is None


def test_another_scorer_voids_a_certificate_and_a_record_of_the_backup(
    tmp_path: Path, plugins: Plugins
) -> None:
    certified = "{max_fpr: 0.01, confidence: 0.95, calibrated_on: benign.jsonl}"

    def hashes(scorer: str) -> tuple[Any, str]:
        path = write(tmp_path, scorer, flag_at=certified)
        policy = check_policy(path, plugins, uncertified=True)
        sources = PolicyRouter(policy, device="cpu", backend="torch", plugins=plugins).sources
        category = policy.categories["injection"]
        return basis_of(category, sources), category_hash(category, sources)

    default, named, cheap = hashes(""), hashes("scorer: own"), hashes("scorer: cheap")
    assert default == named
    assert default[0] != cheap[0]
    assert default[1] != cheap[1]


def test_a_shadow_by_another_scorer_is_handed_what_is_loaded(
    tmp_path: Path, family: ScorersFamily, plugins: Plugins
) -> None:
    live = write(tmp_path, "scorer: own").rename(tmp_path / "live.yaml")
    router = load_policy(live, shadow=write(tmp_path, "scorer: cheap"), plugins=plugins)
    (decision,) = router.decide(["hello"])
    assert decision.shadow is not None
    assert (decision.action, decision.shadow["action"]) == ("block", "allow")
    assert family.handed == [("m/cheap", ["m"])]


def test_each_scorer_has_its_own_file_of_scores(
    tmp_path: Path, family: ScorersFamily, plugins: Plugins
) -> None:
    found = []
    for _ in range(2):
        for scorer in (None, "cheap"):
            model = load_model(tmp_path / "m", scorer=scorer, plugins=plugins)
            cached = with_score_cache(model, tmp_path / "cache")
            found.append(float(cached.score(["hello"]).logits_NC[0, 1]))
            cached.classifier.save()  # type: ignore[attr-defined]
    assert found == [2.0, -1.0] * 2
    assert len(family.calls) == 2
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_all_scorers_of_a_model_are_loaded_the_default_one_first(
    tmp_path: Path, plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardkit.model.loaded.installed_plugins", lambda: plugins)
    models = load_scorers(tmp_path / "m", device="cpu")
    assert [model.scorer for model in models] == [None, "cheap", "dear"]
    assert [model.calibration is None for model in models] == [False, False, True]
