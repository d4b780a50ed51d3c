"""What a policy file without mistakes is read as."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardkit.errors import PolicyError
from guardkit.policy.router import check_policy
from guardkit.policy.schema import CascadeNode, MemberNode, Policy, node_name
from tests.support.broken_policies import GOOD
from tests.support.policy_folder import PolicyFolder, check, policy_folder_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PolicyFolder:
    return policy_folder_in(tmp_path_factory.mktemp("policies"))


def test_a_good_policy_passes_without_loading_a_model(folder: PolicyFolder) -> None:
    policy = check(folder, GOOD)
    assert policy.categories["injection"].on_error == "closed"
    assert policy.path == folder.path / "policy.yaml"
    assert len(policy.hash) == 64
    assert folder.family.loads == []


def test_novelty_may_hand_on_and_abstain_by_any_member_that_has_one(folder: PolicyFolder) -> None:
    text = GOOD.replace(
        "- member: specialist\n          settle",
        "- member: specialist\n          escalate_if: {novelty_p_below: 0.05}\n          settle",
    ).replace(
        "    action: block\n",
        "    abstain_if: {member: strange, novelty_p_below: 0.05}\n    action: block\n",
    )
    text = text.replace(
        "categories:", "  strange: {plugin: fake, model: models/specialist}\ncategories:", 1
    ).replace("injection: allow", "injection: abstain")
    policy = check(folder, text)
    assert policy.novelty_members == {"specialist", "strange"}
    assert check(folder, GOOD).novelty_members == set()
    assert folder.family.loads == []
    with pytest.raises(PolicyError, match="gives allow, abstain or block, never flag"):
        check(folder, text.replace("injection: abstain", "injection: flag"))
    with pytest.raises(PolicyError, match="gives allow or block, never abstain"):
        check(folder, GOOD.replace("injection: allow", "injection: abstain"))


def test_patterns_alone_need_no_members_and_no_bounds(folder: PolicyFolder) -> None:
    policy = check(
        folder,
        "version: 1\nname: words\ncategories:\n  secret:\n    decide:\n      cascade:\n"
        "        - pattern: {re2: AKIA}\n"
        "        - combine: {how: any, of: [{pattern: {re2: a}}, {pattern: {re2: b}}]}\n"
        "    flag_at: {probability: 0.5}\n    action: flag\n",
    )
    assert node_name(policy.categories["secret"].decide) == (
        "cascade(pattern(AKIA), any(pattern(a), pattern(b)))"
    )


def test_a_plugins_combiner_is_known(folder: PolicyFolder) -> None:
    check(folder, GOOD.replace("how: weighted", "how: median").replace("weights: [1, 2]", ""))


def test_a_model_is_found_from_the_policys_folder_whatever_the_current_one(
    folder: PolicyFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check(folder, GOOD)
    monkeypatch.chdir(tmp_path)
    assert check_policy(folder.path / "policy.yaml", folder.plugins).name == "test"
    monkeypatch.chdir(folder.path)
    assert check_policy("policy.yaml", folder.plugins).path.is_absolute()


def test_a_policy_is_frozen_and_can_be_built_and_written_in_python(folder: PolicyFolder) -> None:
    policy = check(folder, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        policy.name = "other"
    node = CascadeNode(cascade=[MemberNode(member="a"), MemberNode(member="b")])
    assert node_name(node) == "cascade(a, b)"
    assert Policy.model_validate(policy.model_dump(exclude_unset=True)).name == policy.name
    assert "cascade" in str(Policy.model_json_schema())


def test_two_files_with_one_content_have_one_hash(folder: PolicyFolder) -> None:
    first = check(folder, GOOD).hash
    assert check(folder, GOOD).hash == first
    assert check(folder, GOOD + "# changed\n").hash != first
