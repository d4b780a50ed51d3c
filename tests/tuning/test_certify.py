"""A threshold is certified on benign texts as they are decided, or refused, saying why."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta

from guardkit.cli.main import main
from guardkit.data.hashes import texts_hash
from guardkit.errors import DataError, PolicyError, UsageError
from guardkit.guarantee import REPEATABLE, allowed_false_positives
from guardkit.model.artefact import METRICS, seal, write_json
from guardkit.policy.certificate import read_certificates
from guardkit.policy.router import check_policy, load_policy
from guardkit.tuning.certify import add_certificates, certify
from tests.support.certified_policies import (
    POLICY,
    POLICY_FILE,
    N,
    cascade_log_odds,
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


def test_the_certified_threshold_is_the_one_texts_are_decided_by(family: FakeFamily) -> None:
    result = certify_one()
    found = result.certificate
    score_N = np.array(cascade_log_odds(random_texts()))
    allowed = allowed_false_positives(N, 0.05, 0.9)
    t = sorted(score_N)[-allowed - 1]
    assert found.threshold.log_odds == pytest.approx(t + REPEATABLE, abs=1e-6)
    assert (found.n, found.allowed, found.false_positives) == (N, allowed, allowed)
    assert found.bound == pytest.approx(beta(allowed + 1, N - allowed).ppf(0.9))
    assert found.data == texts_hash(random_texts())
    add_certificates(POLICY_FILE, [result])

    router = load_policy(POLICY_FILE)
    decisions = router.decide(random_texts())
    flagged_N = np.array([d.action == "block" for d in decisions])
    assert (flagged_N == (score_N > t + REPEATABLE / 2)).all()
    assert flagged_N.sum() == allowed
    shown = decisions[0].categories["injection"].threshold
    assert shown == found.threshold.probability == pytest.approx(1 / (1 + math.exp(-t)), abs=1e-4)
    unread = router.decide_rows([])
    assert unread == []


def test_the_same_texts_and_models_give_the_same_certificate_byte_for_byte(
    family: FakeFamily,
) -> None:
    first = add_certificates(POLICY_FILE, [certify_one()]).read_bytes()
    assert add_certificates(POLICY_FILE, [certify_one()]).read_bytes() == first
    assert sorted(p.name for p in Path().iterdir() if p.is_file()) == [
        "policy.certificates.json",
        "policy.yaml",
    ]


def test_every_model_reads_every_text_at_most_once(family: FakeFamily) -> None:
    second = POLICY[POLICY.index("  injection:\n") :].replace("injection:\n", "again:\n", 1)
    POLICY_FILE.write_text(POLICY + second)
    assert [c.category for c in certify(POLICY_FILE)] == ["injection", "again"]
    asked = [(model, text) for model, texts in family.calls for text in texts]
    assert len(asked) == len(set(asked))


def test_one_category_is_certified_and_the_others_keep_theirs(family: FakeFamily) -> None:
    second = POLICY[POLICY.index("  injection:\n") :].replace("injection:\n", "again:\n", 1)
    POLICY_FILE.write_text(POLICY + second)
    add_certificates(POLICY_FILE, certify(POLICY_FILE, category="injection"))
    with pytest.raises(PolicyError, match=r"again.flag_at: max_fpr 0.05 has no") as caught:
        check_policy(POLICY_FILE)
    assert len(caught.value.problems) == 1
    add_certificates(POLICY_FILE, certify(POLICY_FILE, category="again"))
    assert list(read_certificates(POLICY_FILE)) == ["injection", "again"]
    POLICY_FILE.write_text(POLICY)
    add_certificates(POLICY_FILE, [certify_one()])
    assert list(read_certificates(POLICY_FILE)) == ["injection"]
    for wrong in ("none",):
        with pytest.raises(UsageError, match="no category 'none'; there are injection"):
            certify(POLICY_FILE, category=wrong)


def test_a_policy_that_promises_nothing_has_nothing_to_certify(family: FakeFamily) -> None:
    start, end = POLICY.index("    flag_at:"), POLICY.index("    action")
    POLICY_FILE.write_text(POLICY[:start] + "    flag_at: {probability: 0.5}\n" + POLICY[end:])
    check_policy(POLICY_FILE)
    with pytest.raises(UsageError, match="so there is nothing to certify"):
        certify(POLICY_FILE)


def test_a_group_of_near_duplicates_counts_once(family: FakeFamily) -> None:
    texts = random_texts()
    write_texts([*texts, *(f"{text.upper()}  " for text in texts[:50])])
    result = certify_one()
    assert (result.certificate.n, result.duplicates) == (N, 50)
    assert result.certificate.data == texts_hash(texts)
    write_texts(texts, thread=[f"{i // 2}" for i in range(N)])
    edit_policy("benign.jsonl", "benign.jsonl?group=thread")
    assert certify_one().certificate.n == N // 2


def test_too_few_texts_are_refused_before_a_model_is_loaded(family: FakeFamily) -> None:
    write_texts(random_texts(44))
    with pytest.raises(DataError, match=r"takes 45 benign texts at least .*; there are 44"):
        certify_one()
    assert family.loads == []


def test_a_text_that_cannot_be_judged_is_flagged_where_on_error_is_closed(
    family: FakeFamily,
) -> None:
    texts = random_texts()
    for i in (3, 30):
        texts[i] = f"{texts[i]} BROKEN first BROKEN second"
    write_texts(texts)
    whole = np.array(cascade_log_odds(texts))
    closed = certify_one().certificate
    whole[[3, 30]] = math.inf
    assert closed.threshold.log_odds == pytest.approx(
        sorted(whole)[-closed.allowed - 1] + REPEATABLE, abs=1e-6
    )
    assert (closed.unjudged, closed.false_positives) == (2, closed.allowed)
    edit_policy("action: block", "action: block\n    on_error: open")
    opened = certify_one().certificate
    whole[[3, 30]] = -math.inf
    assert opened.threshold.log_odds == pytest.approx(
        sorted(whole)[-closed.allowed - 1] + REPEATABLE, abs=1e-6
    )
    assert opened.unjudged == 2

    write_texts(
        [f"{text} BROKEN first BROKEN second" for text in texts[: closed.allowed + 1]] + texts
    )
    POLICY_FILE.write_text(POLICY)
    with pytest.raises(DataError, match="benign texts are flagged at any threshold"):
        certify_one()


def test_what_is_flagged_at_the_threshold_is_what_was_counted_failures_and_all(
    family: FakeFamily,
) -> None:
    """With a part failed, an interval stands on one side of the threshold or across it."""
    start, end = POLICY.index("      cascade:"), POLICY.index("    flag_at")
    for how, failures in (("any", 3), ("all", 90)):
        node = f"      combine: {{how: {how}, of: [{{member: first}}, {{member: second}}]}}\n"
        POLICY_FILE.write_text(POLICY[:start] + node + POLICY[end:])
        texts = random_texts()
        for i in range(failures):
            texts[i] += f" BROKEN {('first', 'second')[i % 2]}"
        write_texts(texts)
        result = certify_one()
        add_certificates(POLICY_FILE, [result])
        decisions = load_policy(POLICY_FILE).decide(texts)
        assert sum(d.action == "block" for d in decisions) == result.certificate.false_positives
        assert sum(d.error is not None for d in decisions) == result.certificate.unjudged > 0


def test_a_pattern_that_flags_benign_texts_uses_up_what_is_allowed(family: FakeFamily) -> None:
    edit_policy("      cascade:\n", "      cascade:\n        - pattern: {re2: SYSTEM}\n")
    texts = random_texts()
    texts[:3] = [f"{text} SYSTEM" for text in texts[:3]]
    write_texts(texts)
    found = certify_one().certificate
    score_N = np.array(cascade_log_odds(texts))
    score_N[:3] = math.inf
    assert found.false_positives == found.allowed
    assert found.threshold.log_odds == pytest.approx(
        sorted(score_N)[-found.allowed - 1] + REPEATABLE, abs=1e-6
    )


def test_patterns_alone_can_be_certified(family: FakeFamily) -> None:
    text = POLICY.replace("members:\n", "").replace("    positive: [injection]\n", "")
    text = "\n".join(line for line in text.splitlines() if "plugin: fake" not in line)
    start, end = text.index("        - member"), text.index("    flag_at")
    POLICY_FILE.write_text(f"{text[:start]}        - pattern: {{re2: SYSTEM}}\n{text[end:]}\n")
    write_texts([f"{text} SYSTEM" if i < 2 else text for i, text in enumerate(random_texts())])
    found = certify_one().certificate
    assert (found.false_positives, found.threshold.log_odds) == (2, 0.0)


def test_a_threshold_below_a_stages_lower_bound_is_raised_to_it(family: FakeFamily) -> None:
    edit_policy("below: 0.02", "below: 0.97")
    result = certify_one()
    t = result.certificate.threshold
    assert t.probability == pytest.approx(0.97)
    assert result.raised_from is not None
    assert result.raised_from < t.log_odds == math.log(0.97) - math.log1p(-0.97)
    assert result.certificate.false_positives <= result.certificate.allowed
    add_certificates(POLICY_FILE, [result])
    check_policy(POLICY_FILE)


def test_a_threshold_above_a_stages_upper_bound_is_refused_with_the_bound_to_set(
    family: FakeFamily,
) -> None:
    edit_policy("above: 0.999", "above: 0.6")
    with pytest.raises(
        PolicyError, match=r"policy.yaml:12: .*settle.above: 0.6 is below"
    ) as caught:
        certify_one()
    message = caught.value.problems[0].message
    bound = message.partition("set it to ")[2].split()[0]
    edit_policy("above: 0.6", f"above: {bound}")
    with_bound = certify_one()  # what was settled goes on now, so the threshold may well be another
    assert with_bound.certificate.threshold.probability <= float(bound)


def test_labels_say_which_texts_are_benign_and_the_others_give_the_recall(
    family: FakeFamily,
) -> None:
    texts, attacks = random_texts(), [f"{2 + i / 20} {2 + i / 20} | attack" for i in range(40)]
    labels = ["benign"] * N + ["injection"] * 40 + [None]
    write_texts([*texts, *attacks, "0 0 | unlabelled"], label=labels)
    result = certify_one()
    found = result.certificate
    assert (found.n, result.labels, result.unlabelled) == (N, {"benign": N}, 1)
    assert found.data == texts_hash(texts)
    t = found.threshold.log_odds
    assert result.positives == 40
    assert result.flagged_positives == sum(2 + i / 20 > t for i in range(40)) > 0


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["benign"] * 150 + ["jailbreak"] * 50, "has label 'jailbreak', unknown to category"),
        (["injection"] * N, "takes 45 benign texts at least .*; there are 0"),
    ],
)
def test_labels_that_leave_it_open_what_is_benign_are_refused(
    family: FakeFamily, labels: list[str], said: str
) -> None:
    write_texts(random_texts(), label=labels)
    with pytest.raises(DataError, match=said):
        certify_one()


def test_one_label_that_no_member_has_makes_all_texts_benign(family: FakeFamily) -> None:
    write_texts(random_texts(), label=["chat"] * N)
    assert certify_one().labels == {"chat": N}


@pytest.mark.parametrize("use", ["train", "pretrain", "calibration"])
def test_texts_that_a_member_learnt_from_are_refused(family: FakeFamily, use: str) -> None:
    own = texts_hash(random_texts(), ["-1"] * N)
    (Path("second") / "SHA256SUMS").unlink()
    if use == "calibration":
        path = Path("second/calibration.json")
        path.write_text(path.read_text().replace("0" * 64, own))
    else:
        write_json(Path("second") / METRICS, {"data": {use: own}})
    seal(Path("second"))
    with pytest.raises(DataError, match=r"benign.jsonl: member 'second' .* was .* on these texts"):
        certify_one()
    write_texts(random_texts(seed=1))
    certify_one()


def test_splits_are_not_mixed(family: FakeFamily) -> None:
    write_texts(random_texts(), "texts/train.jsonl")
    write_texts(random_texts(seed=1), "texts/test.jsonl")
    edit_policy("texts/benign.jsonl", "texts")
    with pytest.raises(DataError, match=r"texts: has train, test; choose one with \?split=NAME"):
        certify_one()
    edit_policy("on: texts", "on: texts?split=test")
    assert certify_one().certificate.data == texts_hash(random_texts(seed=1))


def test_texts_are_found_from_the_policys_folder(
    family: FakeFamily, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = certify_one().certificate
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    (result,) = certify(tmp_path / POLICY_FILE)
    assert result.certificate == found
    assert (
        add_certificates(tmp_path / POLICY_FILE, [result]) == tmp_path / "policy.certificates.json"
    )


def test_the_command_certifies_shows_and_writes(
    family: FakeFamily, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, attacks = random_texts(), [f"5 {2 + i / 20} | attack" for i in range(40)]
    write_texts([*texts, *attacks], label=["benign"] * N + ["injection"] * 40)
    assert main(["policy", "check", "policy.yaml"]) == 2
    assert "guardkit policy certify policy.yaml" in capsys.readouterr().err

    write_texts(random_texts(seed=9), "other.jsonl")
    assert main(["policy", "certify", "policy.yaml", "--data", "other.jsonl"]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert main(["policy", "check", "policy.yaml"]) == 2
    capsys.readouterr()

    assert main(["policy", "certify", "policy.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "certify 0/240" in err
    for words in ("200 (benign 200)", "of 5 allowed", "recall", "certified: policy.certificates"):
        assert words in out, out
    assert main(["policy", "check", "policy.yaml"]) == 0
    assert "at most 0.05 of benign texts are, with confidence 0.9" in capsys.readouterr().out
