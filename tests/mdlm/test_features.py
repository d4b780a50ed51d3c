"""Another model's features beside the label slot: unchanged at the start, used where they help."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.export import export_onnx
from guardkit_mdlm.features import FEATURES, learn_features, load_features
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.scoring import load
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.training.loss import draw, joint_loss, lay_out
from guardkit_mdlm.training.train import train
from safetensors.torch import load_file

from guardkit import ArtefactError, ConfigError, Examples, HasFeatures, TrainingData

from .conftest import TINY, quiet, randomise

SHAPE = NetworkShape(
    vocab_size=50, hidden_dim=32, cond_dim=8, n_blocks=2, n_heads=2, n_classes=2,
    tie_embeddings=True, class_bias=True, wide=True,
)  # fmt: skip
WITH = SHAPE.model_copy(update={"n_features": 3})


class Oracle:
    """Knows each text's label, and says it loudly among other things."""

    feature_size = 3

    def features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        rows = [[500.0 + 20 * label_of(text), 7.0, len(text)] for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), 3)


def label_of(text: str) -> int:
    """Return the label that a text carries and that no word of it shows."""
    return len(text.split()) % 2


class Shelf:
    """What ``guardkit.load_model`` finds: oracles by folder or name, each with a hash."""

    def __init__(self) -> None:
        self.hashes: dict[str, str] = {}
        self.classifier: object = Oracle()

    def __call__(self, reference: str, *, device: str) -> Any:
        if reference not in self.hashes:
            raise ArtefactError(f"{reference}: not a guardkit model: no such folder")
        config = SimpleNamespace(family="fake")
        return SimpleNamespace(
            classifier=self.classifier, config=config, hash=self.hashes[reference]
        )


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    shelf = Shelf()
    shelf.hashes["builtin:oracle"] = "a" * 64
    monkeypatch.setattr("guardkit_mdlm.features.load_model", shelf)
    return shelf


def parity(n: int, seed: int) -> Examples:
    """Texts whose words say nothing of their label."""
    rng = np.random.default_rng(seed)
    words = ["apple", "honey", "party", "cake"]
    texts = [" ".join(rng.choice(words, rng.integers(3, 30))) for _ in range(n)]
    labels_N = np.array([label_of(text) for text in texts])
    return Examples(texts, labels_N, ("benign", "injection"))


def fit(out: Path, features: str | None, n: int = 120, **options: Any) -> Path:
    data = TrainingData(parity(n, 1), parity(30, 2))
    config = TINY.model_copy(update={"features": features, "lr": 1e-2, **options})
    out.mkdir(parents=True, exist_ok=True)
    return train(
        data, config, out, pretrain=None, init=None, resume=False, device="cpu", progress=quiet
    )


def accuracy(folder: Path) -> float:
    held_out = parity(100, 3)
    logits_NC = load(folder, device="cpu", backend="torch").score(held_out.texts).logits_NC
    return float((logits_NC.argmax(1) == held_out.labels_N).mean())


# -- the network -----------------------------------------------------------------------------


def batch_of(n: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    batch = pad_batch([rng.integers(0, 49, 3 + i, np.int32) for i in range(n)], np.zeros(n))
    features_BF = torch.from_numpy(rng.normal(size=(n, 3)).astype(np.float32))
    return batch.ids_BL, batch.real_BL, features_BF


def test_a_fresh_network_computes_what_it_would_without_features() -> None:
    torch.manual_seed(0)
    plain = Denoiser(SHAPE).eval()
    torch.manual_seed(0)
    wide = Denoiser(WITH).eval()
    extra = wide.state_dict().keys() - plain.state_dict().keys()
    assert extra == {"feature_map.weight"}
    ids_BL, real_BL, features_BF = batch_of()
    for class_B in (torch.zeros(6, dtype=torch.long), torch.arange(6) % 3):
        with torch.no_grad():
            for a, b in zip(
                plain(ids_BL, class_B, real_BL),
                wide(ids_BL, class_B, real_BL, features_BF),
                strict=True,
            ):
                assert torch.equal(a, b)


def test_zeros_are_no_features() -> None:
    net = randomise(Denoiser(WITH))
    ids_BL, real_BL, features_BF = batch_of()
    class_B = torch.zeros(6, dtype=torch.long)
    with torch.no_grad():
        none = net(ids_BL, class_B, real_BL)[0]
        assert torch.equal(none, net(ids_BL, class_B, real_BL, 0 * features_BF)[0])
        assert not torch.allclose(none, net(ids_BL, class_B, real_BL, features_BF)[0])


def test_the_loss_gives_features_to_whole_texts_without_a_label_alone() -> None:
    net = randomise(Denoiser(WITH))
    ids_BL, real_BL, features_BF = batch_of(40)
    lengths = real_BL.sum(1)
    batch = pad_batch(
        [row[:n].numpy().astype(np.int32) for row, n in zip(ids_BL, lengths, strict=True)],
        np.arange(40) % 2,
        features_BF.numpy(),
    )
    step = draw(batch, TINY, 2, torch.Generator().manual_seed(0))
    given = []
    inner = net.forward

    def forward(ids: Any, class_B: Any, real: Any, features_BF: Any = None) -> Any:
        given.append((ids, class_B, features_BF))
        return inner(ids, class_B, real, features_BF)

    net.forward = forward  # type: ignore[method-assign]
    part = lay_out(step, step.counts, TINY, net.shape.mask_id)
    loss, _ = joint_loss(net, part, TINY)
    ((noised_XL, class_X, features_XF),) = given
    has_X = features_XF.abs().sum(1) > 0
    masked_X = (noised_XL == net.shape.mask_id).any(1)
    assert torch.equal(has_X, ~masked_X & (class_X == 0))
    assert 3 < int(has_X.sum()) < 20

    loss.backward()
    gradient = net.feature_map.weight.grad
    assert gradient is not None
    assert gradient.abs().min() > 0
    # and every part of a step has its own rows' features
    parts = [step.part(number, 3).batch.features_BF for number in range(3)]
    rebuilt = torch.zeros_like(features_BF)
    for number, part in enumerate(parts):
        assert part is not None
        rebuilt[number::3] = part
    assert torch.equal(rebuilt, features_BF)


# -- training and the artefact ---------------------------------------------------------------


def test_an_informative_feature_is_learnt_and_kept(shelf: Shelf, tmp_path: Path) -> None:
    without = fit(tmp_path / "without", None)
    informed = fit(tmp_path / "with", "builtin:oracle", epochs=12)
    assert accuracy(without) < 0.75
    assert accuracy(informed) > 0.95

    config = json.loads((informed / "config.json").read_text())
    assert config["network"]["features"] == {"model": "builtin:oracle", "hash": "a" * 64}
    assert config["network"]["shape"]["n_features"] == 3
    own = load_file(informed / FEATURES)
    raw_NF = Oracle().features(parity(120, 1).texts)
    torch.testing.assert_close(own["mean_F"], torch.from_numpy(raw_NF.mean(0)))
    assert own["std_F"][1] == 1  # it never changes

    model = load(informed, device="cpu", backend="torch")
    texts = ["cake honey", "cake honey cake", " ".join(["apple"] * 90)]
    alone = [model.score([text]).logits_NC[0] for text in texts]
    np.testing.assert_allclose(model.score(texts, novelty=True).logits_NC, alone, rtol=2e-3)
    (evidence,) = model.score(texts[:1], evidence=True).evidence or [None]
    assert evidence is not None
    assert np.isfinite(evidence.values_TC).all()


def test_all_windows_of_a_text_share_its_features(shelf: Shelf, tmp_path: Path) -> None:
    model = load(fit(tmp_path / "m", "builtin:oracle", n=40, epochs=1), device="cpu",
                 backend="torch")  # fmt: skip
    texts = [" ".join(["apple"] * 90), "cake"]
    features_WF = model.window_features(texts, np.array([0, 0, 0, 1]))
    assert features_WF is not None
    assert (features_WF[:3] == features_WF[0]).all()
    with pytest.raises(ValueError, match="needs the features of the windows' texts"):
        model.window_logits([np.arange(5, dtype=np.int32)])


def test_scorers_that_mask_text_never_ask_for_features(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fit(tmp_path / "m", "builtin:oracle", n=40, epochs=1, scorer="generative")
    model = load(folder, device="cpu", backend="torch")
    asked: list[Sequence[str]] = []
    monkeypatch.setattr(Oracle, "features", lambda self, texts: asked.append(texts))
    assert np.isfinite(model.score(["cake honey"], evidence=True).logits_NC).all()
    assert asked == []


def test_features_of_another_model_than_at_training_are_refused(
    shelf: Shelf, tmp_path: Path
) -> None:
    folder = fit(tmp_path / "m", "builtin:oracle", n=40, epochs=1)
    shelf.hashes["builtin:oracle"] = "b" * 64
    with pytest.raises(ArtefactError, match=r"hash aaaaaaaaaaaa, but builtin:oracle has bbbb"):
        load(folder, device="cpu", backend="torch")
    del shelf.hashes["builtin:oracle"]
    with pytest.raises(ArtefactError, match="another model, which cannot be loaded"):
        load(folder, device="cpu", backend="torch")


def test_a_model_that_moved_is_found_beside_the_one_that_reads_it(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "gpt2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    shelf.hashes[str(tmp_path / "here" / "gpt2")] = "c" * 64
    features, standardised_NF = learn_features(
        "gpt2", parity(20, 1).texts, device="cpu", progress=quiet
    )
    assert features.model == str(tmp_path / "here" / "gpt2")
    np.testing.assert_allclose(standardised_NF.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(standardised_NF[:, [0, 2]].std(0), 1, atol=1e-4)

    (tmp_path / "here" / "mdlm").mkdir()
    features.save(tmp_path / "here" / "mdlm")
    shutil.move(tmp_path / "here", tmp_path / "there")
    beside = tmp_path / "there" / "gpt2"
    shelf.hashes = {str(beside): "c" * 64}
    found = load_features(tmp_path / "there" / "mdlm", features.record, device="cpu")
    np.testing.assert_array_equal(found(["cake"]), features(["cake"]))
    shelf.hashes = {str(beside): "d" * 64}
    with pytest.raises(ArtefactError, match="put the one it was trained with back"):
        load_features(tmp_path / "there" / "mdlm", features.record, device="cpu")


def test_a_model_without_features_is_refused_before_training(shelf: Shelf, tmp_path: Path) -> None:
    assert isinstance(Oracle(), HasFeatures)
    shelf.classifier = SimpleNamespace()
    with pytest.raises(ConfigError, match="family 'fake' gives no features"):
        fit(tmp_path / "m", "builtin:oracle", n=20)


def test_a_network_with_features_is_not_exported(shelf: Shelf, tmp_path: Path) -> None:
    folder = fit(tmp_path / "m", "builtin:oracle", n=40, epochs=1)
    with pytest.raises(ConfigError, match="reads the features of builtin:oracle"):
        export_onnx(folder, tmp_path / "model.onnx")


def test_a_bundled_gpt2_gives_features(tmp_path: Path) -> None:
    folder = fit(tmp_path / "m", "builtin:gpt2/injection", n=40, epochs=1)
    logits_NC = load(folder, device="cpu", backend="torch").score(["cake", ""]).logits_NC
    assert np.isfinite(logits_NC).all()
