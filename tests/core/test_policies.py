"""Every policy that comes with guardkit loads, checks and passes the tests written in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardkit.policy import policies_dir
from guardkit.router import DEFAULT_POLICY, check_policy, load_policy

POLICIES = sorted(policies_dir().glob("*.yaml"))


def test_the_policies_that_the_documentation_names_are_there() -> None:
    names = {path.name for path in POLICIES}
    assert {DEFAULT_POLICY, "mdlm-with-backup.yaml", "shadow.yaml", "two-opinions.yaml"} <= names


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
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
