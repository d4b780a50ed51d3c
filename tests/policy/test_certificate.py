"""A certificate counts for the very policy, texts and models it was made with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from guardkit.errors import PolicyError, UsageError
from guardkit.model.artefact import seal
from guardkit.policy.certificate import certificates_path
from guardkit.policy.router import check_policy, load_policy
from guardkit.tuning.certify import add_certificates
from tests.support.certified_policies import (
    POLICY_FILE,
    certify_one,
    edit_policy,
    enter_folder,
    random_texts,
    write_texts,
)
from tests.support.fake_models import FakeFamily


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    return enter_folder(tmp_path, monkeypatch)


def test_nothing_is_decided_by_a_promise_without_a_certificate(family: FakeFamily) -> None:
    with pytest.raises(PolicyError, match=r"policy.yaml:14: .*flag_at: max_fpr 0.05 has no cert"):
        load_policy(POLICY_FILE)
    policy = check_policy(POLICY_FILE, uncertified=True)
    with pytest.raises(UsageError, match="no certificate yet"):
        _ = policy.categories["injection"].threshold


def reseal(model: str) -> None:
    (Path(model) / "SHA256SUMS").unlink()
    (Path(model) / "notes.txt").write_text("retrained")
    seal(Path(model))


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "max_fpr": (
        lambda: edit_policy("max_fpr: 0.05", "max_fpr: 0.04"),
        r"max_fpr was 0.05, is 0.04",
    ),
    "confidence": (lambda: edit_policy("0.9\n", "0.95\n"), r"confidence was 0.9, is 0.95"),
    "data spec": (
        lambda: edit_policy("texts/benign", "texts/others"),
        r"calibrated_on was texts/benign",
    ),
    "settle": (lambda: edit_policy("below: 0.02", "below: 0.03"), r"fits: decide changed\. "),
    "members": (lambda: edit_policy("member: second", "member: first"), r"decide changed"),
    "prevalence": (
        lambda: edit_policy("    decide:", "    prevalence: 0.01\n    decide:"),
        r"prevalence was None, is 0.01",
    ),
    "on_error": (
        lambda: edit_policy("action: block", "action: block\n    on_error: open"),
        r"on_error was closed, is open",
    ),
    "model": (lambda: reseal("second"), r"fits: the model of member 'second' changed\. "),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_certificate_of_anything_else_is_refused_and_says_what_changed(
    family: FakeFamily, what: str
) -> None:
    add_certificates(POLICY_FILE, [certify_one()])
    change, said = CHANGES[what]
    change()
    if what == "members":
        edit_policy("  second: {plugin: fake, model: second}\n", "")
    with pytest.raises(PolicyError, match=said) as caught:
        check_policy(POLICY_FILE)
    (problem,) = caught.value.problems
    assert problem.field == "categories.injection.flag_at"
    assert "`guardkit policy certify policy.yaml` makes a new one" in problem.message
    if what != "data spec":
        add_certificates(POLICY_FILE, [certify_one()])
        check_policy(POLICY_FILE)


def test_what_does_not_move_a_score_keeps_the_certificate(family: FakeFamily) -> None:
    add_certificates(POLICY_FILE, [certify_one()])
    family.loads.clear()
    before = check_policy(POLICY_FILE)
    edit_policy("action: block", "action: flag # changed")
    edit_policy("settle: {below: 0.02, above: 0.999}", "settle: {above: 0.999, below: 0.020}")
    edit_policy("name: test", "name: other")
    after = check_policy(POLICY_FILE)
    assert after.categories["injection"].threshold == before.categories["injection"].threshold
    assert family.loads == [], "no model is loaded to check a certificate"


def test_the_policys_hash_covers_the_thresholds(family: FakeFamily) -> None:
    add_certificates(POLICY_FILE, [certify_one()])
    before = check_policy(POLICY_FILE).hash
    assert check_policy(POLICY_FILE).hash == before
    write_texts(random_texts(seed=1))
    add_certificates(POLICY_FILE, [certify_one()])
    assert check_policy(POLICY_FILE).hash != before


@pytest.mark.parametrize("content", ["", "{", '{"format": 2, "certificates": {}}', "[]"])
def test_a_damaged_certificates_file_is_refused_and_can_be_written_anew(
    family: FakeFamily, content: str
) -> None:
    add_certificates(POLICY_FILE, [certify_one()])
    certificates_path(POLICY_FILE).write_text(content)
    with pytest.raises(PolicyError, match=r"policy.certificates.json: cannot be read as cert"):
        check_policy(POLICY_FILE)
    add_certificates(POLICY_FILE, [certify_one()])
    check_policy(POLICY_FILE)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"log_odds": 1.0, "probability": 0.9}, "contradict each other"),
        ({"log_odds": 9.0, "probability": 1 / (1 + math.exp(-9))}, "not between the bounds of a"),
    ],
)
def test_an_edited_threshold_is_refused(
    family: FakeFamily, changed: dict[str, float], said: str
) -> None:
    path = add_certificates(POLICY_FILE, [certify_one()])
    content = json.loads(path.read_text())
    content["certificates"]["injection"]["threshold"] = changed
    path.write_text(json.dumps(content))
    with pytest.raises(PolicyError, match=said):
        check_policy(POLICY_FILE)


def test_a_model_without_its_sums_is_refused(family: FakeFamily) -> None:
    add_certificates(POLICY_FILE, [certify_one()])
    Path("second/SHA256SUMS").unlink()
    with pytest.raises(PolicyError, match=r"second/SHA256SUMS: No such file"):
        check_policy(POLICY_FILE)
