"""A guaranteed false-positive rate is kept as often as promised, and refused where it cannot be."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import FakeFamily, plugins_of, write_model
from hypothesis import given
from hypothesis import strategies as st
from mapie.risk_control import BinaryClassificationController
from scipy.stats import beta, binom, norm

from guardkit.artefact import METRICS, seal, write_json
from guardkit.certificate import certificates_path, read_certificates
from guardkit.certify import Certified, certify, write
from guardkit.cli import main
from guardkit.errors import DataError, PolicyError, UsageError
from guardkit.guarantee import (
    REPEATABLE,
    allowed_false_positives,
    choose_threshold,
    least_sample_size,
    upper_bound,
)
from guardkit.models import texts_hash
from guardkit.router import check_policy, load_policy

# -- the rule --------------------------------------------------------------------------------

rates = st.floats(0.001, 0.6)
sizes = st.integers(1, 400)
confidences = st.floats(0.3, 0.999)


@given(k=st.integers(0, 400), n=sizes, confidence=confidences)
def test_the_upper_bound_is_the_rate_at_which_so_few_would_be_seen_too_rarely(
    k: int, n: int, confidence: float
) -> None:
    k = min(k, n)
    bound = upper_bound(k, n, confidence)
    if k == n:
        assert bound == 1
    else:
        assert binom.cdf(k, n, bound) == pytest.approx(1 - confidence, abs=1e-9)
        assert bound == pytest.approx(beta(k + 1, n - k).ppf(confidence))


@given(n=st.integers(0, 400), max_fpr=rates, confidence=confidences)
def test_the_false_positives_allowed_are_those_whose_bound_keeps_the_rate(
    n: int, max_fpr: float, confidence: float
) -> None:
    k = allowed_false_positives(n, max_fpr, confidence)
    rounding = 1e-9  # a bound may be the rate itself
    assert k == -1 or upper_bound(k, n, confidence) <= max_fpr + rounding
    assert k + 1 >= n or upper_bound(k + 1, n, confidence) > max_fpr - rounding
    assert (k >= 0) == (n >= least_sample_size(max_fpr, confidence))


@pytest.mark.parametrize(
    ("max_fpr", "confidence", "n"),
    [
        (0.01, 0.95, 299),
        (0.001, 0.95, 2995),
        (0.05, 0.9, 45),
        (0.5, 0.75, 2),
        (1e-6, 0.5, 693147),
    ],
)
def test_the_least_sample_size_is_that_of_the_closed_form(
    max_fpr: float, confidence: float, n: int
) -> None:
    assert least_sample_size(max_fpr, confidence) == n
    assert (1 - max_fpr) ** n <= 1 - confidence + 1e-12 < (1 - max_fpr) ** (n - 1)


scores = st.lists(
    st.one_of(st.integers(-3, 3).map(float), st.floats(-9, 9), st.just(-math.inf)),
    min_size=60,
    max_size=90,
)


@given(scores)
def test_the_threshold_is_the_loosest_that_flags_no_more_than_allowed(given_: list[float]) -> None:
    score_N = np.array(given_)
    choice = choose_threshold(score_N, 0.1, 0.9)
    assert (score_N > choice.log_odds).sum() <= choice.allowed
    assert choice.bound == upper_bound(choice.allowed, len(score_N), 0.9) <= 0.1
    # anything looser than the score it stands on flags too many
    below = choice.log_odds - REPEATABLE - 1e-9
    if choice.log_odds > -math.inf:
        assert (score_N > below).sum() > choice.allowed


@pytest.mark.parametrize(("n", "max_fpr"), [(300, 0.02), (700, 0.02), (500, 0.1)])
def test_the_threshold_flags_what_the_loosest_one_flags_that_mapie_finds(
    n: int, max_fpr: float
) -> None:
    """MAPIE tests thresholds one after another, stricter ones first, until one is rejected."""
    p_N = np.round(np.random.default_rng(n).random(n), 2)  # with ties
    controller = BinaryClassificationController(
        predict_function=lambda p_N: np.stack([1 - p_N, p_N], axis=1),
        risk="fpr",
        target_level=max_fpr,
        confidence_level=0.95,
        list_predict_params=np.linspace(1.005, 0.005, 101),  # between the scores
        fwer_method="fixed_sequence",
    ).calibrate(p_N, np.zeros(n, int))
    choice = choose_threshold(p_N, max_fpr, 0.95)
    flagged = (p_N > choice.log_odds).sum()
    assert flagged == (p_N >= min(controller.valid_predict_params)).sum()
    assert 0 < flagged <= choice.allowed


def test_too_few_texts_are_refused_with_the_number_that_is_needed() -> None:
    with pytest.raises(DataError, match=r"takes 299 benign texts at least .*; there are 298"):
        choose_threshold(np.zeros(298), 0.01, 0.95)
    assert choose_threshold(np.zeros(299), 0.01, 0.95).allowed == 0


def test_texts_flagged_at_any_threshold_count_and_may_be_too_many() -> None:
    score_N = np.arange(600.0)
    allowed = allowed_false_positives(600, 0.01, 0.95)
    score_N[:allowed] = math.inf
    choice = choose_threshold(score_N, 0.01, 0.95)
    assert choice.log_odds == 599 + REPEATABLE
    score_N[allowed] = math.inf
    with pytest.raises(DataError, match=f"{allowed + 1} of 600 benign texts are flagged at any"):
        choose_threshold(score_N, 0.01, 0.95)


# Laws of scores: how to draw n, and the true rate F(t) = P(S > t).
LAWS: dict[str, tuple[Callable[[np.random.Generator, int], Any], Callable[[float], float]]] = {
    "normal": (lambda rng, n: rng.normal(size=n), lambda t: float(norm.sf(t))),
    "geometric": (
        lambda rng, n: rng.geometric(0.3, n).astype(float),
        lambda t: 0.7 ** max(math.floor(t), 0),
    ),
    "two values": (
        lambda rng, n: (rng.random(n) < 0.06).astype(float),
        lambda t: 0.06 if 0 <= t < 1 else float(t < 0),
    ),
    "some always flagged": (
        lambda rng, n: np.where(rng.random(n) < 0.02, np.inf, rng.normal(size=n)),
        lambda t: 0.02 + 0.98 * float(norm.sf(t)),
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_the_promise_is_broken_no_more_often_than_it_says(law: str) -> None:
    draw, rate = LAWS[law]
    rng = np.random.default_rng(0)
    runs, broken = 2000, 0
    for _ in range(runs):
        try:
            choice = choose_threshold(draw(rng, 120), 0.05, 0.9)
        except DataError:
            continue  # refused: nothing is promised
        broken += rate(choice.log_odds) > 0.05
    assert broken <= 0.1 * runs + 3 * math.sqrt(runs * 0.1 * 0.9)
    if law == "normal":  # and where scores do not tie, as often as can be: the rule is not slack
        exact = binom.cdf(allowed_false_positives(120, 0.05, 0.9), 120, 0.05)
        assert abs(broken - exact * runs) <= 3 * math.sqrt(runs * exact * (1 - exact)) + 1


# -- the flow --------------------------------------------------------------------------------

POLICY = """\
version: 1
name: test
members:
  first: {plugin: fake, model: first}
  second: {plugin: fake, model: second}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - member: first
          settle: {below: 0.02, above: 0.999}
        - member: second
    flag_at:
      max_fpr: 0.05
      confidence: 0.9
      calibrated_on: texts/benign.jsonl
    action: block
"""
N = 200
FILE = Path("policy.yaml")


def answer(model: str, text: str) -> list[float]:
    """A text holds both models' log-odds: "first second | rest"."""
    if f"BROKEN {model}" in text:
        raise ValueError("cannot score this")
    first, second = text.split("|")[0].split()
    return [0.0, float({"first": first, "second": second}[model])]


def drawn(n: int = N, seed: int = 0, more: str = "") -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{a:.4f} {b:.4f} | {i}{more}" for i, (a, b) in enumerate(rng.normal(size=(n, 2)))]


def roots(texts: Sequence[str]) -> list[float]:
    """Return what the cascade makes of each text, worked out by hand."""
    low, high = math.log(0.02 / 0.98), math.log(0.999 / 0.001)
    values = []
    for text in texts:
        first, second = map(float, text.split("|")[0].split())
        values.append(first if first <= low or first >= high else second)
    return values


def store(texts: Sequence[str], name: str = "texts/benign.jsonl", **columns: Any) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    rows = [
        {"text": text, **{key: values[i] for key, values in columns.items()}}
        for i, text in enumerate(texts)
    ]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    """Work in a folder with two models, benign texts and a policy that promises something."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for name in ("first", "second"):
        write_model(tmp_path / name)
    FILE.write_text(POLICY)
    store(drawn())
    family = FakeFamily(answer)
    plugins = plugins_of(family)
    for module in ("certify", "router"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: plugins)
    return family


def edit(old: str, new: str) -> None:
    text = FILE.read_text()
    assert text.count(old) == 1
    FILE.write_text(text.replace(old, new))


def one(**options: Any) -> Certified:
    (result,) = certify(FILE, **options)
    return result


def test_the_certified_threshold_is_the_one_texts_are_decided_by(family: FakeFamily) -> None:
    result = one()
    found = result.certificate
    score_N = np.array(roots(drawn()))
    allowed = allowed_false_positives(N, 0.05, 0.9)
    t = sorted(score_N)[-allowed - 1]
    assert found.threshold.log_odds == pytest.approx(t + REPEATABLE, abs=1e-6)
    assert (found.n, found.allowed, found.false_positives) == (N, allowed, allowed)
    assert found.bound == pytest.approx(beta(allowed + 1, N - allowed).ppf(0.9))
    assert found.data == texts_hash(drawn())
    write(FILE, [result])

    router = load_policy(FILE)
    decisions = router.decide(drawn())
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
    first = write(FILE, [one()]).read_bytes()
    assert write(FILE, [one()]).read_bytes() == first
    assert sorted(p.name for p in Path().iterdir() if p.is_file()) == [
        "policy.certificates.json",
        "policy.yaml",
    ]


def test_every_model_reads_every_text_at_most_once(family: FakeFamily) -> None:
    second = POLICY[POLICY.index("  injection:\n") :].replace("injection:\n", "again:\n", 1)
    FILE.write_text(POLICY + second)
    assert [c.category for c in certify(FILE)] == ["injection", "again"]
    asked = [(model, text) for model, texts in family.calls for text in texts]
    assert len(asked) == len(set(asked))


def test_nothing_is_decided_by_a_promise_without_a_certificate(family: FakeFamily) -> None:
    with pytest.raises(PolicyError, match=r"policy.yaml:14: .*flag_at: max_fpr 0.05 has no cert"):
        load_policy(FILE)
    policy = check_policy(FILE, uncertified=True)
    with pytest.raises(UsageError, match="no certificate yet"):
        _ = policy.categories["injection"].threshold


def reseal(model: str) -> None:
    (Path(model) / "SHA256SUMS").unlink()
    (Path(model) / "notes.txt").write_text("retrained")
    seal(Path(model))


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "max_fpr": (lambda: edit("max_fpr: 0.05", "max_fpr: 0.04"), r"max_fpr was 0.05, is 0.04"),
    "confidence": (lambda: edit("0.9\n", "0.95\n"), r"confidence was 0.9, is 0.95"),
    "data spec": (lambda: edit("texts/benign", "texts/others"), r"calibrated_on was texts/benign"),
    "settle": (lambda: edit("below: 0.02", "below: 0.03"), r"fits: decide changed\. "),
    "members": (lambda: edit("member: second", "member: first"), r"decide changed"),
    "prevalence": (
        lambda: edit("    decide:", "    prevalence: 0.01\n    decide:"),
        r"prevalence was None, is 0.01",
    ),
    "on_error": (
        lambda: edit("action: block", "action: block\n    on_error: open"),
        r"on_error was closed, is open",
    ),
    "model": (lambda: reseal("second"), r"fits: the model of member 'second' changed\. "),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_certificate_of_anything_else_is_refused_and_says_what_changed(
    family: FakeFamily, what: str
) -> None:
    write(FILE, [one()])
    change, said = CHANGES[what]
    change()
    if what == "members":
        edit("  second: {plugin: fake, model: second}\n", "")
    with pytest.raises(PolicyError, match=said) as caught:
        check_policy(FILE)
    (problem,) = caught.value.problems
    assert problem.field == "categories.injection.flag_at"
    assert "`guardkit policy certify policy.yaml` makes a new one" in problem.message
    if what != "data spec":
        write(FILE, [one()])
        check_policy(FILE)


def test_what_does_not_move_a_score_keeps_the_certificate(family: FakeFamily) -> None:
    write(FILE, [one()])
    family.loads.clear()
    before = check_policy(FILE)
    edit("action: block", "action: flag # changed")
    edit("settle: {below: 0.02, above: 0.999}", "settle: {above: 0.999, below: 0.020}")
    edit("name: test", "name: other")
    after = check_policy(FILE)
    assert after.categories["injection"].threshold == before.categories["injection"].threshold
    assert family.loads == [], "no model is loaded to check a certificate"


def test_the_policys_hash_covers_the_thresholds(family: FakeFamily) -> None:
    write(FILE, [one()])
    before = check_policy(FILE).hash
    assert check_policy(FILE).hash == before
    store(drawn(seed=1))
    write(FILE, [one()])
    assert check_policy(FILE).hash != before


@pytest.mark.parametrize("content", ["", "{", '{"format": 2, "certificates": {}}', "[]"])
def test_a_damaged_certificates_file_is_refused_and_can_be_written_anew(
    family: FakeFamily, content: str
) -> None:
    write(FILE, [one()])
    certificates_path(FILE).write_text(content)
    with pytest.raises(PolicyError, match=r"policy.certificates.json: cannot be read as cert"):
        check_policy(FILE)
    write(FILE, [one()])
    check_policy(FILE)


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
    path = write(FILE, [one()])
    content = json.loads(path.read_text())
    content["certificates"]["injection"]["threshold"] = changed
    path.write_text(json.dumps(content))
    with pytest.raises(PolicyError, match=said):
        check_policy(FILE)


def test_a_model_without_its_sums_is_refused(family: FakeFamily) -> None:
    write(FILE, [one()])
    Path("second/SHA256SUMS").unlink()
    with pytest.raises(PolicyError, match=r"second/SHA256SUMS: No such file"):
        check_policy(FILE)


def test_one_category_is_certified_and_the_others_keep_theirs(family: FakeFamily) -> None:
    second = POLICY[POLICY.index("  injection:\n") :].replace("injection:\n", "again:\n", 1)
    FILE.write_text(POLICY + second)
    write(FILE, certify(FILE, category="injection"))
    with pytest.raises(PolicyError, match=r"again.flag_at: max_fpr 0.05 has no") as caught:
        check_policy(FILE)
    assert len(caught.value.problems) == 1
    write(FILE, certify(FILE, category="again"))
    assert list(read_certificates(FILE)) == ["injection", "again"]
    FILE.write_text(POLICY)
    write(FILE, [one()])
    assert list(read_certificates(FILE)) == ["injection"]
    for wrong in ("none",):
        with pytest.raises(UsageError, match="no category 'none'; there are injection"):
            certify(FILE, category=wrong)


def test_a_policy_that_promises_nothing_has_nothing_to_certify(family: FakeFamily) -> None:
    start, end = POLICY.index("    flag_at:"), POLICY.index("    action")
    FILE.write_text(POLICY[:start] + "    flag_at: {probability: 0.5}\n" + POLICY[end:])
    check_policy(FILE)
    with pytest.raises(UsageError, match="so there is nothing to certify"):
        certify(FILE)


def test_a_group_of_near_duplicates_counts_once(family: FakeFamily) -> None:
    texts = drawn()
    store([*texts, *(f"{text.upper()}  " for text in texts[:50])])
    result = one()
    assert (result.certificate.n, result.duplicates) == (N, 50)
    assert result.certificate.data == texts_hash(texts)
    store(texts, thread=[f"{i // 2}" for i in range(N)])
    edit("benign.jsonl", "benign.jsonl?group=thread")
    assert one().certificate.n == N // 2


def test_too_few_texts_are_refused_before_a_model_is_loaded(family: FakeFamily) -> None:
    store(drawn(44))
    with pytest.raises(DataError, match=r"takes 45 benign texts at least .*; there are 44"):
        one()
    assert family.loads == []


def test_a_text_that_cannot_be_judged_is_flagged_where_on_error_is_closed(
    family: FakeFamily,
) -> None:
    texts = drawn()
    for i in (3, 30):
        texts[i] = f"{texts[i]} BROKEN first BROKEN second"
    store(texts)
    whole = np.array(roots(texts))
    closed = one().certificate
    whole[[3, 30]] = math.inf
    assert closed.threshold.log_odds == pytest.approx(
        sorted(whole)[-closed.allowed - 1] + REPEATABLE, abs=1e-6
    )
    assert (closed.unjudged, closed.false_positives) == (2, closed.allowed)
    edit("action: block", "action: block\n    on_error: open")
    opened = one().certificate
    whole[[3, 30]] = -math.inf
    assert opened.threshold.log_odds == pytest.approx(
        sorted(whole)[-closed.allowed - 1] + REPEATABLE, abs=1e-6
    )
    assert opened.unjudged == 2

    store([f"{text} BROKEN first BROKEN second" for text in texts[: closed.allowed + 1]] + texts)
    FILE.write_text(POLICY)
    with pytest.raises(DataError, match="benign texts are flagged at any threshold"):
        one()


def test_what_is_flagged_at_the_threshold_is_what_was_counted_failures_and_all(
    family: FakeFamily,
) -> None:
    """With a part failed, an interval stands on one side of the threshold or across it."""
    start, end = POLICY.index("      cascade:"), POLICY.index("    flag_at")
    for how, failures in (("any", 3), ("all", 90)):
        node = f"      combine: {{how: {how}, of: [{{member: first}}, {{member: second}}]}}\n"
        FILE.write_text(POLICY[:start] + node + POLICY[end:])
        texts = drawn()
        for i in range(failures):
            texts[i] += f" BROKEN {('first', 'second')[i % 2]}"
        store(texts)
        result = one()
        write(FILE, [result])
        decisions = load_policy(FILE).decide(texts)
        assert sum(d.action == "block" for d in decisions) == result.certificate.false_positives
        assert sum(d.error is not None for d in decisions) == result.certificate.unjudged > 0


def test_a_pattern_that_flags_benign_texts_uses_up_what_is_allowed(family: FakeFamily) -> None:
    edit("      cascade:\n", "      cascade:\n        - pattern: {re2: SYSTEM}\n")
    texts = drawn()
    texts[:3] = [f"{text} SYSTEM" for text in texts[:3]]
    store(texts)
    found = one().certificate
    score_N = np.array(roots(texts))
    score_N[:3] = math.inf
    assert found.false_positives == found.allowed
    assert found.threshold.log_odds == pytest.approx(
        sorted(score_N)[-found.allowed - 1] + REPEATABLE, abs=1e-6
    )


def test_patterns_alone_can_be_certified(family: FakeFamily) -> None:
    text = POLICY.replace("members:\n", "").replace("    positive: [injection]\n", "")
    text = "\n".join(line for line in text.splitlines() if "plugin: fake" not in line)
    start, end = text.index("        - member"), text.index("    flag_at")
    FILE.write_text(f"{text[:start]}        - pattern: {{re2: SYSTEM}}\n{text[end:]}\n")
    store([f"{text} SYSTEM" if i < 2 else text for i, text in enumerate(drawn())])
    found = one().certificate
    assert (found.false_positives, found.threshold.log_odds) == (2, 0.0)


def test_a_threshold_below_a_stages_lower_bound_is_raised_to_it(family: FakeFamily) -> None:
    edit("below: 0.02", "below: 0.97")
    result = one()
    t = result.certificate.threshold
    assert t.probability == pytest.approx(0.97)
    assert result.raised_from is not None
    assert result.raised_from < t.log_odds == math.log(0.97) - math.log1p(-0.97)
    assert result.certificate.false_positives <= result.certificate.allowed
    write(FILE, [result])
    check_policy(FILE)


def test_a_threshold_above_a_stages_upper_bound_is_refused_with_the_bound_to_set(
    family: FakeFamily,
) -> None:
    edit("above: 0.999", "above: 0.6")
    with pytest.raises(
        PolicyError, match=r"policy.yaml:12: .*settle.above: 0.6 is below"
    ) as caught:
        one()
    message = caught.value.problems[0].message
    bound = message.partition("set it to ")[2].split()[0]
    edit("above: 0.6", f"above: {bound}")
    with_bound = one()  # what was settled goes on now, so the threshold may well be another
    assert with_bound.certificate.threshold.probability <= float(bound)


def test_labels_say_which_texts_are_benign_and_the_others_give_the_recall(
    family: FakeFamily,
) -> None:
    texts, attacks = drawn(), [f"{2 + i / 20} {2 + i / 20} | attack" for i in range(40)]
    labels = ["benign"] * N + ["injection"] * 40 + [None]
    store([*texts, *attacks, "0 0 | unlabelled"], label=labels)
    result = one()
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
    store(drawn(), label=labels)
    with pytest.raises(DataError, match=said):
        one()


def test_one_label_that_no_member_has_makes_all_texts_benign(family: FakeFamily) -> None:
    store(drawn(), label=["chat"] * N)
    assert one().labels == {"chat": N}


@pytest.mark.parametrize("use", ["train", "pretrain", "calibration"])
def test_texts_that_a_member_learnt_from_are_refused(family: FakeFamily, use: str) -> None:
    own = texts_hash(drawn(), ["-1"] * N)
    (Path("second") / "SHA256SUMS").unlink()
    if use == "calibration":
        path = Path("second/calibration.json")
        path.write_text(path.read_text().replace("0" * 64, own))
    else:
        write_json(Path("second") / METRICS, {"data": {use: own}})
    seal(Path("second"))
    with pytest.raises(DataError, match=r"benign.jsonl: member 'second' .* was .* on these texts"):
        one()
    store(drawn(seed=1))
    one()


def test_splits_are_not_mixed(family: FakeFamily) -> None:
    store(drawn(), "texts/train.jsonl")
    store(drawn(seed=1), "texts/test.jsonl")
    edit("texts/benign.jsonl", "texts")
    with pytest.raises(DataError, match=r"texts: has train, test; choose one with \?split=NAME"):
        one()
    edit("on: texts", "on: texts?split=test")
    assert one().certificate.data == texts_hash(drawn(seed=1))


def test_texts_are_found_from_the_policys_folder(
    family: FakeFamily, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = one().certificate
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    (result,) = certify(tmp_path / FILE)
    assert result.certificate == found
    assert write(tmp_path / FILE, [result]) == tmp_path / "policy.certificates.json"


def test_the_command_certifies_shows_and_writes(
    family: FakeFamily, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, attacks = drawn(), [f"5 {2 + i / 20} | attack" for i in range(40)]
    store([*texts, *attacks], label=["benign"] * N + ["injection"] * 40)
    assert main(["policy", "check", "policy.yaml"]) == 2
    assert "guardkit policy certify policy.yaml" in capsys.readouterr().err

    store(drawn(seed=9), "other.jsonl")
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
