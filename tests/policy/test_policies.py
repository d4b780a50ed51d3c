"""Every policy that comes with guardkit loads, checks and passes the tests written in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.data.examples import load_split
from guardkit.guarantee import least_sample_size
from guardkit.policy.router import DEFAULT_POLICY, check_policy, load_policy
from guardkit.policy.schema import CombineNode, policies_dir
from guardkit.tuning.certify import certify
from guardkit.tuning.stacking import fit_stacked_nodes

ROOT = Path(__file__).parents[2]
POLICIES = sorted(policies_dir().glob("*.yaml"))
#: The model of this one is trained by who wants it: tests/mdlm/test_medical_policy.py.
TRAINED = "medical-abstracts.yaml"
#: This one asks an endpoint: tests/judge/test_policy.py.
ASKS = "mdlm-with-llm.yaml"


def test_the_policies_that_the_documentation_names_are_there() -> None:
    names = {path.name for path in POLICIES}
    assert {DEFAULT_POLICY, "mdlm-with-backup.yaml", "shadow.yaml", "two-opinions.yaml"} <= names
    assert {"specialists.yaml", "edge.yaml", TRAINED, ASKS} <= names


@pytest.mark.parametrize(
    "path",
    [path for path in POLICIES if path.name not in (TRAINED, ASKS)],
    ids=lambda path: path.name,
)
def test_a_bundled_policy_has_no_mistake_and_passes_its_own_tests(path: Path) -> None:
    policy = check_policy(path)
    assert policy.name == path.stem
    assert 3 <= len(policy.tests) <= 6
    results = load_policy(path, device="cpu").run_tests()
    assert [(r.text, r.got, r.error) for r in results if not r.passed] == []


def test_without_a_path_the_default_policy_is_loaded() -> None:
    router = load_policy(device="cpu")
    assert router.policy.path == (policies_dir() / DEFAULT_POLICY).absolute()
    assert router.policy.mode == "enforce"
    assert all(category.on_error == "closed" for category in router.policy.categories.values())


def test_the_documented_stack_is_what_its_command_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    docs = (ROOT / "docs" / "policies.md").read_text("utf-8")
    (source,) = [
        b for b in re.findall(r"^```yaml\n(.*?)^```$", docs, re.M | re.S) if "stacked" in b
    ]
    path = tmp_path / "stacked.yaml"
    path.write_text(source, "utf-8")
    node = check_policy(path).categories["injection"].decide
    assert isinstance(node, CombineNode)
    _, examples = load_split(str(ROOT / "examples" / "sample"), None, default="validation")
    (stack,) = fit_stacked_nodes(path, examples, device="cpu")
    assert stack.weights == pytest.approx(node.combine.weights, abs=0.002)
    assert stack.bias == pytest.approx(node.combine.bias, abs=0.002)
    losses = {name: f"{m['value']:.3f}" for name, m in stack.log_loss.items()}
    assert f"log-loss of {losses['stacked']}. The plain mean has {losses['mean']}" in docs
    value, low, high = (f"{stack.gain[x]:.3f}" for x in ("value", "low", "high"))
    assert f"{value} ({low} to {high}), is none" in docs
    assert stack.gain["low"] < 0 < stack.gain["high"]


def test_the_documented_certificate_is_what_its_command_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    docs = (ROOT / "docs" / "policies.md").read_text("utf-8")
    (source,) = [
        b for b in re.findall(r"^```yaml\n(.*?)^```$", docs, re.M | re.S) if "max_fpr" in b
    ]
    path = tmp_path / "certified.yaml"
    path.write_text(source, "utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (result,) = certify(path, device="cpu")
    found = result.certificate
    assert f"{found.n} (benign {found.n})" in docs
    assert f"{found.false_positives} of {found.allowed} allowed" in docs
    assert f"at most {found.bound:.2%}" in docs
    recall = result.flagged_positives / result.positives
    assert f"{recall:.1%} of {result.positives} positive texts" in docs
    (probability, log_odds) = re.findall(r"│ ([\d.]+) \(log-odds (-?[\d.]+)\)", docs)[0]
    assert found.threshold.probability == pytest.approx(float(probability), abs=1e-3)
    assert found.threshold.log_odds == pytest.approx(float(log_odds), abs=5e-3)
    assert [least_sample_size(rate, 0.95) for rate in (0.05, 0.01, 0.001)] == [59, 299, 2995]
    assert "at least 59 texts for 5%, 299 for 1%, and 2,995 for 0.1%" in docs
