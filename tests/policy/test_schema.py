"""What a policy file without mistakes is read as."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardkit.errors import PolicyError
from guardkit.policy.router import check_policy
from guardkit.policy.schema import CascadeNode, MemberNode, Policy, node_name
from tests.support.broken_policies import GOOD
from tests.support.policy_folder import Desk, check, desk_in


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return desk_in(tmp_path_factory.mktemp("desk"))


def test_a_good_policy_passes_without_loading_a_model(desk: Desk) -> None:
    policy = check(desk, GOOD)
    assert policy.categories["injection"].on_error == "closed"
    assert policy.path == desk[0] / "policy.yaml"
    assert len(policy.hash) == 64
    assert desk[2].loads == []


def test_novelty_may_hand_on_and_abstain_by_any_member_that_has_one(desk: Desk) -> None:
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
    policy = check(desk, text)
    assert policy.novelty_members == {"specialist", "strange"}
    assert check(desk, GOOD).novelty_members == set()
    assert desk[2].loads == []
    with pytest.raises(PolicyError, match="gives allow, abstain or block, never flag"):
        check(desk, text.replace("injection: abstain", "injection: flag"))
    with pytest.raises(PolicyError, match="gives allow or block, never abstain"):
        check(desk, GOOD.replace("injection: allow", "injection: abstain"))


def test_patterns_alone_need_no_members_and_no_bounds(desk: Desk) -> None:
    policy = check(
        desk,
        "version: 1\nname: words\ncategories:\n  secret:\n    decide:\n      cascade:\n"
        "        - pattern: {re2: AKIA}\n"
        "        - combine: {how: any, of: [{pattern: {re2: a}}, {pattern: {re2: b}}]}\n"
        "    flag_at: {probability: 0.5}\n    action: flag\n",
    )
    assert node_name(policy.categories["secret"].decide) == (
        "cascade(pattern(AKIA), any(pattern(a), pattern(b)))"
    )


def test_a_plugins_combiner_is_known(desk: Desk) -> None:
    check(desk, GOOD.replace("how: weighted", "how: median").replace("weights: [1, 2]", ""))


def test_a_model_is_found_from_the_policys_folder_whatever_the_current_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check(desk, GOOD)
    monkeypatch.chdir(tmp_path)
    assert check_policy(desk[0] / "policy.yaml", desk[1]).name == "test"
    monkeypatch.chdir(desk[0])
    assert check_policy("policy.yaml", desk[1]).path.is_absolute()


def test_a_policy_is_frozen_and_can_be_built_and_written_in_python(desk: Desk) -> None:
    policy = check(desk, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        policy.name = "other"
    node = CascadeNode(cascade=[MemberNode(member="a"), MemberNode(member="b")])
    assert node_name(node) == "cascade(a, b)"
    assert Policy.model_validate(policy.model_dump(exclude_unset=True)).name == policy.name
    assert "cascade" in str(Policy.model_json_schema())


def test_two_files_with_one_content_have_one_hash(desk: Desk) -> None:
    first = check(desk, GOOD).hash
    assert check(desk, GOOD).hash == first
    assert check(desk, GOOD + "# changed\n").hash != first
