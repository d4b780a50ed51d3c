"""The exported network answers as the trained one, and a hostile file does nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from guardkit_mdlm.scoring import MdlmClassifier, load
from onnx import TensorProto, helper

from guardkit import ArtefactError, ConfigError
from guardkit.model.artefact import seal, verify
from guardkit.model.export import export_model
from guardkit.model.onnx import MODEL

from .conftest import make_examples

TEXTS = ["", "cake", "please bake a cake with apples and honey " * 12, *make_examples(20, 7).texts]


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    sealed = tmp_path_factory.mktemp("sealed") / "model"
    shutil.copytree(folder, sealed)
    seal(sealed)
    return export_model(sealed, sealed.with_name("exported"))


def score(folder: Path, backend: str) -> np.ndarray:
    classifier: MdlmClassifier = load(folder, device="cpu", backend=backend)
    if backend == "torch":
        classifier._net = classifier._net.float()  # the exported network is float32
    return classifier.score(TEXTS).logits_NC


def test_onnx_runtime_gives_torchs_logits(exported: Path) -> None:
    np.testing.assert_allclose(score(exported, "onnx"), score(exported, "torch"), atol=1e-4)


def test_an_exported_model_is_sealed_and_whole(exported: Path) -> None:
    verify(exported)
    assert {"model.onnx", "model.safetensors", "config.json"} <= {
        p.name for p in exported.iterdir()
    }
    with pytest.raises(ArtefactError, match="exists already"):
        export_model(exported, exported)


def test_a_model_that_was_not_exported_says_how(folder: Path) -> None:
    with pytest.raises(ArtefactError, match="guardkit models export"):
        load(folder, device="cpu", backend="onnx")


def test_the_generative_scorer_needs_torch(exported: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(exported, tmp_path / "copy")
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"one_pass"', '"generative"'))
    with pytest.raises(ConfigError, match="one_pass scorer only"):
        load(copy, device="cpu", backend="onnx")


def hostile(kind: str, secret: Path) -> onnx.ModelProto:
    """A model whose weights lie in a file elsewhere, or that calls an operator of its own."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    if kind == "external":
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=f"../{secret.name}")
        node = helper.make_node("Identity", ["w"], ["y"])
    else:
        weights.float_data.extend([0.0] * 4)
        node = helper.make_node("Run", ["w"], ["y"], domain="com.example")
    graph = helper.make_graph([node], "g", [], [output], [weights])
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize("kind", ["external", "operator"])
def test_a_hostile_onnx_file_is_refused(exported: Path, tmp_path: Path, kind: str) -> None:
    copy = shutil.copytree(exported, tmp_path / "model")
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 16)
    (copy / MODEL).write_bytes(hostile(kind, secret).SerializeToString())
    with pytest.raises(ArtefactError, match="ONNX Runtime cannot run it"):
        load(copy, device="cpu", backend="onnx")


def test_a_damaged_onnx_file_is_refused(exported: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(exported, tmp_path / "model")
    (copy / MODEL).write_bytes((copy / MODEL).read_bytes()[:1000])
    with pytest.raises(ArtefactError, match="cannot run it"):
        load(copy, device="cpu", backend="onnx")
