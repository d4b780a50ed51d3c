"""Stacked nodes are fitted on the right texts, to the right weights, and refused where they lie."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from guardkit.cli.main import main
from guardkit.data.hashes import texts_hash
from guardkit.data.splits import FOLDS, HELD_OUT_SHARE, group_folds, split_by_group
from guardkit.errors import DataError, UsageError
from guardkit.model.artefact import METRICS, seal, write_json
from guardkit.policy.router import load_policy
from guardkit.tuning.stacking import StackedFit, fit_stacked_nodes, fit_weights, write_policy
from guardkit.types import Examples
from tests.support.fake_models import FakeFamily, plugins_of, write_model

LABELS = ("benign", "injection")
PRIOR = (0.7, 0.3)  # of both models' calibration data
POLICY = """\
version: 1
name: test
members:
  good: {plugin: fake, model: good}
  weak: {plugin: fake, model: weak}
categories:
  injection:
    positive: [injection]
    decide:
      combine:
        how: stacked # to be fitted
        of: [{member: good}, {member: weak}]
    flag_at: {probability: 0.5}
    action: block
"""


def sigmoid(z: np.ndarray) -> np.ndarray:
    result: np.ndarray = 1 / (1 + np.exp(-z))
    return result


def drawn(
    n: int, weights: list[float], bias: float, share: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return ratios and labels for which logit P(positive) = logit(share) + bias + w . ratio."""
    rng = np.random.default_rng(seed)
    ratio_NP = rng.normal(scale=2.0, size=(n, len(weights)))
    z_N = math.log(share / (1 - share)) + bias + ratio_NP @ weights
    return ratio_NP, rng.random(n) < sigmoid(z_N)


# -- the fit ---------------------------------------------------------------------------------


def test_weights_are_those_of_a_penalised_logistic_regression() -> None:
    ratio_NP, positive_N = drawn(80, [0.7, 0.2, 0.4], 0.3, 0.4)
    weight_P, bias = fit_weights(ratio_NP, positive_N)
    sd_P = ratio_NP.std(axis=0)
    oracle = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(ratio_NP / sd_P, positive_N)
    assert weight_P == pytest.approx(oracle.coef_[0] / sd_P, abs=1e-4)
    prior = math.log(positive_N.mean() / (1 - positive_N.mean()))
    assert bias + prior == pytest.approx(oracle.intercept_[0], abs=1e-4)


def test_the_weights_that_made_the_data_are_found_whatever_the_share_of_positives() -> None:
    for share in (0.5, 0.1):
        ratio_NP, positive_N = drawn(40_000, [0.7, 0.3], 0.0, share)
        # how ratios are spread does not matter, only that the log-odds are linear in them; the
        # data's own share, though, is not `share`, and the bias is what stands between
        weight_P, bias = fit_weights(ratio_NP, positive_N)
        own = math.log(positive_N.mean() / (1 - positive_N.mean()))
        assert weight_P == pytest.approx([0.7, 0.3], abs=0.05)
        assert bias + own == pytest.approx(math.log(share / (1 - share)), abs=0.1)


def test_a_part_that_would_count_against_itself_gets_no_weight() -> None:
    ratio_NP, positive_N = drawn(500, [1.0, -0.5], 0.0, 0.5)
    weight_P, _ = fit_weights(ratio_NP, positive_N)
    assert weight_P[0] > 0.5
    assert weight_P[1] == 0.0


def test_separable_data_gives_finite_weights() -> None:
    positive_N = np.arange(40) % 2 == 0
    ratio_NP = np.where(positive_N, 9.0, -9.0)[:, None] * [1.0, 1.0]
    weight_P, bias = fit_weights(ratio_NP, positive_N)
    assert weight_P[0] == pytest.approx(weight_P[1], rel=1e-3)
    assert 0.1 < weight_P.sum() < 2
    assert abs(bias) < 0.01


def test_a_count_stands_for_so_many_equal_texts() -> None:
    ratio_NP, positive_N = drawn(60, [0.5, 0.5], 0.0, 0.5)
    ratio_NP /= ratio_NP.std(axis=0)  # the penalty's unit, equal for both
    count_N = np.random.default_rng(1).integers(0, 4, 60)
    again_NP, again_N = np.repeat(ratio_NP, count_N, axis=0), np.repeat(positive_N, count_N)
    weight_P, bias = fit_weights(ratio_NP, positive_N, count_N.astype(np.float64))
    sd_P = again_NP.std(axis=0)
    oracle = LogisticRegression(C=1.0, tol=1e-10).fit(again_NP, again_N)
    assert weight_P == pytest.approx(oracle.coef_[0], abs=1e-3)
    assert sd_P == pytest.approx([1, 1], abs=0.3)
    own = math.log(again_N.mean() / (1 - again_N.mean()))
    assert bias + own == pytest.approx(oracle.intercept_[0], abs=1e-3)


def test_folds_keep_groups_whole_and_classes_even() -> None:
    rng = np.random.default_rng(0)
    groups = [f"g{i}" for i in rng.integers(0, 60, 300)]
    positive_N = np.array([int(g[1:]) % 3 == 0 for g in groups])
    fold_N = group_folds(positive_N.astype(np.int64), groups, seed=0)
    for group in set(groups):
        assert len({int(f) for f, g in zip(fold_N, groups, strict=True) if g == group}) == 1
    for wanted in (True, False):
        counts = [
            len({g for g, f, y in zip(groups, fold_N, positive_N, strict=True)
                 if f == fold and y == wanted})
            for fold in range(FOLDS)
        ]  # fmt: skip
        assert max(counts) - min(counts) <= 1


# -- the flow --------------------------------------------------------------------------------


def logits_of(model: str, text: str) -> list[float]:
    """A text holds both models' log-odds: "good weak | rest"."""
    if "BROKEN" in text and model == "weak":
        raise ValueError("cannot score this")
    good, weak = text.split("|")[0].split()
    return [0.0, float({"good": good, "weak": weak}[model])]


def mail(n: int = 400, seed: int = 0) -> Examples:
    """Texts on which 0.8 of what ``good`` says and 0.1 of what ``weak`` says is right."""
    ratio_NP, positive_N = drawn(n, [0.8, 0.1], 0.0, 0.5, seed)
    prior = math.log(PRIOR[1] / PRIOR[0])
    texts = [
        f"{good + prior:.6f} {weak + prior:.6f} | {i}" for i, (good, weak) in enumerate(ratio_NP)
    ]
    return Examples(texts, positive_N.astype(np.int64), LABELS)


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    """Work in a folder with two models and a policy that stacks them."""
    monkeypatch.chdir(tmp_path)
    for name in ("good", "weak"):
        write_model(tmp_path / name, prior=PRIOR)
    Path("policy.yaml").write_text(POLICY)
    family = FakeFamily(logits_of)
    plugins = plugins_of(family)
    for module in ("tuning.stacking", "policy.router"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: plugins)
    return family


def fit(examples: Examples, **options: Any) -> StackedFit:
    (stack,) = fit_stacked_nodes(Path("policy.yaml"), examples, **options)
    return stack


def test_a_node_is_fitted_written_and_decides_as_it_was_fitted(family: FakeFamily) -> None:
    examples = mail(2000)
    stack = fit(examples)
    assert sorted(family.loads) == ["good", "weak"]
    assert (stack.n, stack.left_out) == (2000, 0)
    assert list(stack.weights) == pytest.approx([0.8, 0.1], abs=0.1)
    assert stack.positives == int(examples.labels_N.sum())

    write_policy(Path("policy.yaml"), [stack], Path("fitted.yaml"))
    weights = ", ".join(f"{w:.4g}" for w in stack.weights)
    added = f"        weights: [{weights}]\n        bias: {stack.bias:.4g}\n"
    assert Path("fitted.yaml").read_text() == POLICY.replace("        of:", f"{added}        of:")

    (decision,) = load_policy("fitted.yaml").decide(["2.5 -1.0 | new"])
    prior = math.log(0.3 / 0.7)
    z = prior + stack.bias + stack.weights[0] * (2.5 - prior) + stack.weights[1] * (-1.0 - prior)
    assert decision.categories["injection"].score == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-3)

    write_policy(Path("fitted.yaml"), [stack], Path("fitted.yaml"))  # a second fit replaces
    assert Path("fitted.yaml").read_text().count("weights:") == 1


def test_a_node_is_measured_against_its_parts_their_refits_and_the_mean(
    family: FakeFamily,
) -> None:
    stack = fit(mail(1000))
    names = ["good", "weak", "good, refitted", "weak, refitted", "mean", "stacked"]
    assert list(stack.log_loss) == names
    loss = {name: float(m["value"] or 0) for name, m in stack.log_loss.items()}
    assert loss["stacked"] < loss["mean"] < loss["weak"]
    assert loss["weak, refitted"] < loss["weak"]
    assert stack.best_other == min(names[:-1], key=loss.__getitem__)
    assert stack.gain["value"] == pytest.approx(loss[stack.best_other] - loss["stacked"])
    for name, m in stack.parameters.items():
        assert float(m["low"] or 0) < float(m["value"] or 0) < float(m["high"] or 0), name
    assert fit(mail(1000)) == stack, "the same command gives the same numbers"


def test_two_opinions_with_errors_of_their_own_gain_when_stacked(family: FakeFamily) -> None:
    ratio_NP, positive_N = drawn(1500, [1.0, 1.0], 0.0, 0.5)
    texts = [f"{a:.4f} {b:.4f} | {i}" for i, (a, b) in enumerate(ratio_NP)]
    stack = fit(Examples(texts, positive_N.astype(np.int64), LABELS))
    assert float(stack.gain["low"] or 0) > 0


def test_a_text_that_a_part_cannot_judge_is_left_out_and_counted(family: FakeFamily) -> None:
    examples = mail()
    broken = Examples([*examples.texts, "9 9 | BROKEN"], np.append(examples.labels_N, 0), LABELS)
    stack = fit(broken)
    assert (stack.n, stack.left_out) == (400, 1)
    assert stack.weights == fit(examples).weights


def test_unlabelled_texts_are_no_examples(family: FakeFamily) -> None:
    examples = mail()
    more = Examples([*examples.texts, "9 9 | x"], np.append(examples.labels_N, -1), LABELS)
    assert fit(more).n == 400


def test_several_nodes_are_fitted_at_once_and_each_text_is_read_once(family: FakeFamily) -> None:
    second = POLICY[POLICY.index("  injection:\n") :].replace("injection:\n", "again:\n", 1)
    second = second.replace("      combine:", "      combine: # again")
    Path("policy.yaml").write_text(POLICY + second)
    examples = mail()
    first, again = fit_stacked_nodes(Path("policy.yaml"), examples)
    assert (first.category, again.category) == ("injection", "again")
    assert first.weights == again.weights
    asked = [(model, text) for model, texts in family.calls for text in texts]
    assert len(asked) == len(set(asked)) == 2 * len(examples)
    write_policy(Path("policy.yaml"), [first, again], Path("fitted.yaml"))
    assert load_policy("fitted.yaml").policy.categories.keys() == {"injection", "again"}
    assert [
        s.category for s in fit_stacked_nodes(Path("policy.yaml"), examples, category="again")
    ] == ["again"]


def test_a_node_inside_a_cascade_is_found_and_fitted_on_all_texts(family: FakeFamily) -> None:
    start, end = POLICY.index("combine:"), POLICY.index("    flag_at")
    node = POLICY[start:end].rstrip().replace("\n", "\n    ")
    cascade = f"""cascade:
        - {{member: good, settle: {{below: 0.4, above: 0.6}}}}
        - {node}
"""
    Path("policy.yaml").write_text(POLICY[:start] + cascade + POLICY[end:])
    stack = fit(mail())
    assert stack.n == 400
    assert stack.place == ("categories", "injection", "decide", "cascade", 1)
    write_policy(Path("policy.yaml"), [stack], Path("fitted.yaml"))
    assert "how: stacked # to be fitted" in Path("fitted.yaml").read_text()
    load_policy("fitted.yaml")


def trained_on(model: str, **record: str) -> None:
    (Path(model) / "SHA256SUMS").unlink()
    write_json(Path(model) / METRICS, {"data": record})
    seal(Path(model))


def hash_of(examples: Examples) -> str:
    return texts_hash(examples.texts, [str(y) for y in examples.labels_N])


@pytest.mark.parametrize("use", ["train", "pretrain", "kept"])
def test_examples_that_a_member_was_trained_on_are_refused(family: FakeFamily, use: str) -> None:
    examples = mail()
    trained_on("good", train="0" * 64, validation=hash_of(examples))
    fit(examples)  # validation texts may be fitted on
    record = {
        "train": {"train": hash_of(examples)},
        "pretrain": {"pretrain": texts_hash(examples.texts, ["-1"] * len(examples))},
        "kept": {"train": hash_of(split_by_group(examples, HELD_OUT_SHARE, seed=0)[0])},
    }[use]
    trained_on("good", **record)
    with pytest.raises(DataError, match=r"'good' .* was trained on these examples"):
        fit(examples)


def few(examples: Examples) -> Examples:
    return examples.select(range(30))


def unlabelled(examples: Examples) -> Examples:
    return Examples(examples.texts, np.full(len(examples), -1), LABELS)


def mostly_broken(examples: Examples) -> Examples:
    texts = [t if i < 30 else f"{t} BROKEN" for i, t in enumerate(examples.texts)]
    return Examples(texts, examples.labels_N, LABELS)


def grouped(examples: Examples) -> Examples:
    groups = [f"thread {i % 15}" for i in range(len(examples))]
    return Examples(examples.texts, examples.labels_N, LABELS, groups=groups)


def renamed(examples: Examples) -> Examples:
    return Examples(examples.texts, examples.labels_N, ("benign", "attack"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (few, "needs 20 of each class at least"),
        (mostly_broken, "needs 20 of each class at least"),
        (unlabelled, "0 positive examples for category 'injection'"),
        (grouped, "15 positive examples for category 'injection' .groups counted once."),
        (renamed, "label 'attack', unknown to the members that are stacked"),
    ],
)
def test_examples_that_do_not_fit_are_refused(
    family: FakeFamily, change: Callable[[Examples], Examples], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        fit(change(mail()))


NESTED = "{combine: {how: stacked, weights: [1], of: [{member: good}]}}"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("how: stacked", "how: product", "no node says `how: stacked`"),
        ("{member: weak}]", "{member: weak}, {member: good}]", "lists 'good' twice"),
        ("[{member: good}", f"[{NESTED}", "holds another"),
    ],
)
def test_a_policy_with_nothing_sensible_to_fit_is_refused(
    family: FakeFamily, old: str, new: str, said: str
) -> None:
    Path("policy.yaml").write_text(POLICY.replace(old, new))
    with pytest.raises(UsageError, match=said):
        fit(mail())


def test_a_part_without_weight_is_not_written_but_named(family: FakeFamily) -> None:
    ratio_NP, positive_N = drawn(500, [1.0, -0.5], 0.0, 0.5)
    texts = [f"{a:.4f} {b:.4f} | {i}" for i, (a, b) in enumerate(ratio_NP)]
    stack = fit(Examples(texts, positive_N.astype(np.int64), LABELS))
    assert stack.weights[1] == 0
    with pytest.raises(UsageError, match="'weak' adds nothing to the others"):
        write_policy(Path("policy.yaml"), [stack], Path("fitted.yaml"))
    assert not Path("fitted.yaml").exists()


def test_a_policy_is_not_written_where_its_models_would_not_be_found(family: FakeFamily) -> None:
    stack = fit(mail())
    Path("other").mkdir()
    with pytest.raises(UsageError, match="model 'good' is looked for from the policy's own folder"):
        write_policy(Path("policy.yaml"), [stack], Path("other/fitted.yaml"))


def test_the_command_fits_shows_and_writes(
    family: FakeFamily, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    Path("mail").mkdir()
    for split, n in (("train", 50), ("validation", 200)):
        examples = mail(n, seed=n)
        rows = [
            {"text": text, "label": LABELS[y]}
            for text, y in zip(examples.texts, examples.labels_N, strict=True)
        ]
        Path(f"mail/{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert main(["policy", "check", "policy.yaml"]) == 2
    assert "`guardkit policy stack` fits them" in capsys.readouterr().err
    args = ["policy", "stack", "policy.yaml", "--data", "mail/"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert "fitting on split 'validation' of mail/" in err
    assert "injection: stacked(good, weak), 200 texts" in out
    assert "log-loss, cross-validated" in out
    assert "gain over" in out
    (shown,) = [line for line in out.splitlines() if line.startswith("weights: [")]
    assert "bias: " in shown

    assert main([*args, "--out", "fitted.yaml"]) == 0
    assert capsys.readouterr().out.endswith("the policy is in fitted.yaml\n")
    assert main(["policy", "check", "fitted.yaml"]) == 0
    assert main([*args, "--category", "none"]) == 2
    assert "no category 'none'; there are injection" in capsys.readouterr().err
