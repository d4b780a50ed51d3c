"""Few examples become a row of their label, told from what a model remembers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.adaptation.adapt import adapt
from guardkit_mdlm.adaptation.class_rows import KEPT, ROWS, AddedRows, Contrast, fit_row, load_rows
from guardkit_mdlm.adaptation.remembered import REMEMBERED, Windows, load_remembered, read_windows
from guardkit_mdlm.adaptation.sketch import BUCKETS, weighed
from guardkit_mdlm.scoring import MdlmClassifier, load
from guardkit_mdlm.tokenizer import encode
from guardkit_mdlm.training.train import train
from safetensors.torch import save_file
from scipy import sparse
from scipy.stats import norm

from guardkit import ArtefactError, DataError, Examples, TrainingData
from guardkit.model.artefact import seal
from guardkit.model.export import export_model
from guardkit.model.onnx import MODEL

from .conftest import TINY, WORDS, make_examples, quiet

NEW = [
    f"zebra quartz {word} zebra" for word in ["violin", "jukebox", "pixel", "waltz", "fjord", "vex"]
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained artefact that remembers enough to be adapted."""
    data = TrainingData(make_examples(160, 1), make_examples(260, 2))
    out = tmp_path_factory.mktemp("base")
    folder = train(
        data, TINY, out, pretrain=None, init=None, resume=False, device="cpu", progress=quiet
    )
    seal(folder)
    return folder


def examples(texts: list[str], label: str = "injection") -> Examples:
    return Examples(texts, np.zeros(len(texts), np.int64), (label,))


def read(classifier: MdlmClassifier, texts: list[str]) -> Windows:
    """What the network alone, without its rows, makes of texts."""
    ids, none = encode(classifier._tokenizer, texts), np.zeros(len(texts), np.int64)
    cut = {"window": TINY.window_tokens, "overlap": TINY.overlap_tokens}
    return read_windows(classifier._joint, ids, none, device=torch.device("cpu"), **cut)


@pytest.fixture(scope="module")
def adapted(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapted")
    folder = adapt(base, examples(NEW), out, device="cpu", progress=quiet).folder
    seal(folder)
    return folder


def some_windows(n: int, seed: int, label: int, at: float = 0.0, filled: int = 3) -> Windows:
    """One window a text, its first buckets around ``at`` and of unlike scales, all others empty."""
    rng = np.random.default_rng(seed)
    values = rng.normal(at, [2.0, 0.7, 0.1], (n, filled))
    sketch_WK = sparse.csr_array(np.pad(values, [(0, 0), (0, BUCKETS - filled)]), dtype=np.float32)
    logits_WC = rng.normal([1.0, -1.0], 1.0, (n, 2)).astype(np.float32)
    return Windows(logits_WC, sketch_WK, np.arange(n), np.full(n, label), np.full(n, 9))


def log_odds(texts: Windows) -> np.ndarray:
    logits_NC = texts.pooled("max", 0)
    return logits_NC[:, 1] - logits_NC[:, 0]


def test_a_row_is_the_log_ratio_of_two_gaussians_of_independent_buckets() -> None:
    others, new = some_windows(400, 0, 0), some_windows(8, 1, 1, at=0.7)
    rows = fit_row(new, Contrast(others, 1, "max", 0), AddedRows(0))

    all_WK = others.sketch_WK.toarray().astype(np.float64)
    deviation_K = np.sqrt(all_WK.var(0) + all_WK.var(0).mean())
    x = np.zeros((20, BUCKETS))
    x[:, :3] = np.random.default_rng(2).normal(size=(20, 3))
    ratio = (
        norm.logpdf(x, new.sketch_WK.toarray().mean(0), deviation_K)
        - norm.logpdf(x, all_WK.mean(0), deviation_K)
    ).sum(1)
    score = x @ rows.weight_RK.numpy()[0]
    slope = (score[1] - score[0]) / (ratio[1] - ratio[0])
    assert slope > 0
    np.testing.assert_allclose(score - score[0], slope * (ratio - ratio[0]), rtol=1e-3, atol=1e-3)


def two_rows(bound: float = 9.0) -> AddedRows:
    weight_RK = np.random.default_rng(5).normal(size=(2, BUCKETS)).astype(np.float32)
    rows = AddedRows(0).with_row(weight_RK[0], 0.3, 9.0, 0.1, 1)
    return rows.with_row(weight_RK[1], -0.7, bound, 0.2, 2)


def test_a_row_raises_its_label_by_logaddexp_and_no_other() -> None:
    rows, rng = two_rows(bound=0.5), np.random.default_rng(0)
    logits, sketch = rng.normal(size=(5, 3)), rng.normal(size=(5, BUCKETS)) / 40
    expected = logits.copy()
    for r, (label, b, bound, shift) in enumerate(((1, 0.3, 9.0, 0.1), (2, -0.7, 0.5, 0.2))):
        rest = np.logaddexp.reduce(np.delete(expected, label, 1), axis=1)
        score = np.minimum(sketch @ rows.weight_RK.numpy()[r] + b, bound)
        expected[:, label] = np.logaddexp(expected[:, label], rest + score) - shift
    logits_WC, sketch_WK = logits.astype(np.float32), sparse.csr_array(sketch, dtype=np.float32)
    found = rows.of(logits_WC, sketch_WK)
    assert (sketch @ rows.weight_RK.numpy()[1] - 0.7 > 0.5).any(), "the bound is met"
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    first = AddedRows(0).with_row(rows.weight_RK.numpy()[0], 0.3, 9.0, 0.1, 1)
    later = rows.since(1).of(first.of(logits_WC, sketch_WK), sketch_WK)
    np.testing.assert_allclose(later, found, rtol=1e-6)


def test_evidence_of_rows_is_what_a_small_change_of_each_tokens_worth_does() -> None:
    rows, ids_L = two_rows(), torch.tensor([5, 9, 5, 9, 30])
    rng = np.random.default_rng(1)
    values_LC = torch.from_numpy(rng.normal(size=(5, 3)))
    logits_C = torch.from_numpy(rng.normal(size=3))
    rows = rows.double()
    found_LC = rows.evidence(values_LC, logits_C, ids_L)
    score_1R = weighed(rows.weight_RK, ids_L[None], None)

    # all tokens by a little: their values' sum, and the rows' scores, are what is moved
    def raised(by: float) -> torch.Tensor:
        moved_1C = (logits_C + by * values_LC.sum(0))[None]
        return rows.raised(moved_1C, (1 + by) * score_1R)[0]

    slope_C = (raised(1e-5) - raised(-1e-5)) / 2e-5
    torch.testing.assert_close(found_LC.sum(0), slope_C, rtol=1e-4, atol=1e-6)


def test_evidence_of_a_row_at_its_bound_adds_up_to_the_bound() -> None:
    weight_K = np.ones(BUCKETS, np.float32)
    ids_L = torch.tensor([3, 1, 4])
    (score,) = weighed(torch.ones(1, BUCKETS), ids_L[None], None)[0].tolist()
    scale = np.float32(np.sign(score) * 40)  # far beyond the bound, and far above the network
    row = AddedRows(0).with_row(scale * weight_K, -1.0, 30.0, 0.0, 1)
    found_LC = row.evidence(torch.zeros(3, 2), torch.zeros(2), ids_L)
    assert found_LC.sum(0).tolist() == pytest.approx([0.0, 31.0], rel=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_as_many_remembered_texts_lie_above_the_threshold_as_before(seed: int) -> None:
    others, new = some_windows(500, seed, 0), some_windows(6, seed + 50, 1, at=1.0)
    rows = fit_row(new, Contrast(others, 1, "max", 0), AddedRows(0))
    before_N = log_odds(others)
    after_N = log_odds(replace(others, logits_WC=rows.of(others.logits_WC, others.sketch_WK)))
    threshold = np.quantile(before_N, KEPT)
    assert (before_N > threshold).sum() == 5
    assert (after_N > threshold).sum() <= 7
    fresh = some_windows(500, seed + 100, 1, at=1.0)
    gained = replace(fresh, logits_WC=rows.of(fresh.logits_WC, fresh.sketch_WK))
    assert (log_odds(gained) > threshold).mean() > (log_odds(fresh) > threshold).mean() + 0.1


def test_a_model_remembers_held_out_texts_by_their_sketches_and_no_text(base: Path) -> None:
    remembered = load_remembered(base)
    assert len(remembered) == 260
    assert remembered.sketch_WK.shape == (len(remembered.text_W), BUCKETS)
    classifier: MdlmClassifier = load(base, device="cpu", backend="torch")
    logits_NC = classifier.score(make_examples(260, 2).texts).logits_NC
    # they were scored before the weights were rounded to 16 bits for the file
    np.testing.assert_allclose(remembered.pooled("max", 0), logits_NC, rtol=0.01, atol=0.05)
    content = (base / REMEMBERED).read_bytes()
    assert not [word for words in WORDS.values() for word in words.split()
                if len(word) > 4 and word.encode() in content]  # fmt: skip


def test_what_is_like_the_examples_is_found_and_what_was_known_still_is(
    base: Path, adapted: Path
) -> None:
    old: MdlmClassifier = load(base, device="cpu", backend="torch")
    new: MdlmClassifier = load(adapted, device="cpu", backend="torch")
    like_them = ["zebra quartz nymph zebra", "zebra quartz sphinx zebra"]
    known = make_examples(200, 9)

    def odds(classifier: MdlmClassifier, texts: list[str]) -> np.ndarray:
        logits_NC = classifier.score(texts).logits_NC
        difference_N: np.ndarray = logits_NC[:, 1] - logits_NC[:, 0]
        return difference_N

    assert (odds(new, like_them) > odds(old, like_them) + 1).all()
    benign = [t for t, y in zip(known.texts, known.labels_N, strict=True) if y == 0]
    attacks = [t for t, y in zip(known.texts, known.labels_N, strict=True) if y == 1]
    assert (odds(new, benign) > 0).mean() <= (odds(old, benign) > 0).mean() + 0.02
    assert (odds(new, attacks) > 0).mean() >= (odds(old, attacks) > 0).mean() - 0.02
    assert (adapted / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


def test_novelty_stays_that_of_the_network(base: Path, adapted: Path) -> None:
    old: MdlmClassifier = load(base, device="cpu", backend="torch")
    new: MdlmClassifier = load(adapted, device="cpu", backend="torch")
    texts = [*NEW, *make_examples(20, 5).texts]
    before, after = (c.score(texts, novelty=True).novelty_N for c in (old, new))
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after, before, atol=0.02)


def test_an_example_is_measured_without_its_own_help(base: Path, tmp_path: Path) -> None:
    alone = adapt(base, examples(NEW[:1]), tmp_path, device="cpu", progress=quiet).examples
    np.testing.assert_array_equal(alone.after_NC, alone.before_NC)
    (tmp_path / "odd").mkdir()
    odd = [*NEW[:4], "please bake a cake with apples and honey for the summer party"]
    found = adapt(base, examples(odd), tmp_path / "odd", device="cpu", progress=quiet).examples
    gain_N = (found.after_NC - found.before_NC)[:, 1] - (found.after_NC - found.before_NC)[:, 0]
    assert gain_N[:4].min() > gain_N[4]


def test_rows_are_added_one_after_the_other(adapted: Path, tmp_path: Path) -> None:
    more = ["umbrella koala", "umbrella koala drum", "koala umbrella"]
    twice = adapt(adapted, examples(more), tmp_path, device="cpu", progress=quiet)
    rows = load_rows(twice.folder)
    assert rows is not None
    assert len(rows) == 2
    first = load_rows(adapted)
    assert first is not None
    assert torch.equal(rows.weight_RK[0], first.weight_RK[0])
    one: MdlmClassifier = load(adapted, device="cpu", backend="torch")
    two: MdlmClassifier = load(twice.folder, device="cpu", backend="torch")
    np.testing.assert_allclose(one.score(more).logits_NC, twice.examples.before_NC, rtol=0.02)
    plain = read(two, more)
    both = replace(plain, logits_WC=rows.of(plain.logits_WC, plain.sketch_WK))
    np.testing.assert_allclose(two.score(more).logits_NC, both.pooled("max", 0), atol=1e-4)


def test_the_exported_network_has_its_rows(adapted: Path, tmp_path: Path) -> None:
    exported = export_model(adapted, tmp_path / "exported")
    assert (exported / MODEL).is_file()
    onnx: MdlmClassifier = load(exported, device="cpu", backend="onnx")
    plain: MdlmClassifier = load(exported, device="cpu", backend="torch")
    plain._net = plain._net.float()  # the exported network is float32
    texts = [*NEW, "", *make_examples(10, 3).texts]
    by_onnx, by_torch = (c.score(texts, novelty=True) for c in (onnx, plain))
    np.testing.assert_allclose(by_onnx.logits_NC, by_torch.logits_NC, rtol=1e-4, atol=1e-4)
    assert by_onnx.novelty_N is not None
    np.testing.assert_allclose(by_onnx.novelty_N, by_torch.novelty_N, atol=1e-4)


def test_evidence_explains_the_rows_too(base: Path, adapted: Path) -> None:
    text = NEW[0]

    def evidence(folder: Path) -> np.ndarray:
        loaded: MdlmClassifier = load(folder, device="cpu", backend="torch")
        found = loaded.score([text], evidence=True).evidence
        assert found
        return found[0].values_TC

    assert np.abs(evidence(adapted) - evidence(base))[:, 1].max() > 0.05


def test_a_model_that_remembers_nothing_or_too_little_says_so(base: Path, tmp_path: Path) -> None:
    forgetful = shutil.copytree(base, tmp_path / "forgetful")
    (forgetful / REMEMBERED).unlink()
    with pytest.raises(ArtefactError, match="remembers no held-out texts"):
        adapt(forgetful, examples(NEW), tmp_path, device="cpu", progress=quiet)
    few = load_remembered(base).of_texts(range(60))
    few.save(forgetful)
    with pytest.raises(DataError, match="100 are needed"):
        adapt(forgetful, examples(NEW), tmp_path, device="cpu", progress=quiet)


def test_rows_of_another_version_are_refused_in_words(adapted: Path, tmp_path: Path) -> None:
    old = shutil.copytree(adapted, tmp_path / "old")
    shapes = {"weight_RF": (1, 48), "bias_R": (1,), "shift_R": (1,), "label_R": (1,)}
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, old / ROWS)
    with pytest.raises(ArtefactError, match="another version; adapt the model"):
        load(old, device="cpu", backend="torch")
