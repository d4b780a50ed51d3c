"""A trained model on disk: published whole, verified, never code."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from guardkit.errors import ArtefactError
from guardkit.model import artefact
from guardkit.model.artefact import ArtefactConfig, publish, read_config, verify, write_json


def write_artefact(folder: Path) -> Path:
    folder.mkdir()
    write_json(folder / artefact.CONFIG, config())
    (folder / artefact.WEIGHTS).write_bytes(b"weights")
    artefact.seal(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_artefact(tmp_path / "model")


def unsealed(folder: Path, weights: bytes = b"weights") -> Path:
    write_artefact(folder)
    (folder / artefact.SUMS).unlink()
    (folder / artefact.WEIGHTS).write_bytes(weights)
    return folder


# -- verify ----------------------------------------------------------------------------------


def test_a_sealed_model_verifies_to_one_stable_hash(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    assert verify(model) == verify(copy) == artefact.model_hash(model)
    assert len(verify(model)) == 64


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not installed")
def test_sha256sum_can_check_a_model(model: Path) -> None:
    def check() -> int:
        command = ["sha256sum", "--check", "--strict", artefact.SUMS]
        return subprocess.run(command, cwd=model, capture_output=True).returncode

    assert check() == 0
    (model / artefact.WEIGHTS).write_bytes(b"changed")
    assert check() == 1


def test_a_changed_file_is_refused_by_name(model: Path) -> None:
    (model / artefact.WEIGHTS).write_bytes(b"WEIGHTS")
    with pytest.raises(ArtefactError, match=r"model\.safetensors: its SHA-256 is not the one"):
        verify(model)


def test_a_missing_file_is_refused_by_name(model: Path) -> None:
    (model / artefact.WEIGHTS).unlink()
    with pytest.raises(ArtefactError, match=r"model\.safetensors: missing, though listed"):
        verify(model)


def test_an_added_file_is_refused_by_name(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ArtefactError, match=r"tokenizer\.json: in the folder but not in"):
        verify(model)


def test_a_linked_file_is_refused(model: Path, tmp_path: Path) -> None:
    weights = model / artefact.WEIGHTS
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="plain files only"):
        verify(model)


def test_a_linked_list_of_hashes_is_refused(model: Path, tmp_path: Path) -> None:
    (model / artefact.SUMS).rename(tmp_path / "sums")
    (model / artefact.SUMS).symlink_to(tmp_path / "sums")
    with pytest.raises(ArtefactError, match="plain files only"):
        verify(model)


def test_a_folder_in_a_model_is_refused(model: Path) -> None:
    (model / "extra").mkdir()
    with pytest.raises(ArtefactError, match="plain files only"):
        verify(model)


@pytest.mark.parametrize("name", ["model.pkl", "model.pt", "pytorch_model.bin", "code.py", "x"])
def test_a_file_that_may_hold_code_is_refused_even_when_listed(model: Path, name: str) -> None:
    (model / name).write_bytes(b"")
    with pytest.raises(ArtefactError, match=r"may hold code and are never loaded; allowed: \.json"):
        artefact.seal(model)
    with pytest.raises(ArtefactError, match="may hold code"):
        verify(model)


def test_a_folder_that_is_not_there_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no such folder"):
        verify(tmp_path / "nowhere")


def test_a_model_without_hashes_is_refused(model: Path) -> None:
    (model / artefact.SUMS).unlink()
    with pytest.raises(ArtefactError, match=r"no SHA256SUMS; .* the model is incomplete"):
        verify(model)


@pytest.mark.parametrize("content", [b"nonsense\n", b"\xff\xfe\n", b"\n", b""])
def test_a_damaged_list_of_hashes_is_refused(model: Path, content: bytes) -> None:
    (model / artefact.SUMS).write_bytes(content)
    with pytest.raises(ArtefactError, match=str(model)):
        verify(model)


# -- publish ---------------------------------------------------------------------------------


def test_publishing_seals_and_moves_the_model_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    publish(unsealed(tmp_path / "made"), out)
    assert verify(out)
    assert os.listdir(tmp_path) == ["out"]


def test_whoever_may_read_the_folder_may_read_a_published_model(tmp_path: Path) -> None:
    folder = unsealed(tmp_path / "work")
    folder.chmod(0o755)
    (folder / artefact.WEIGHTS).chmod(0o600)
    publish(folder, tmp_path / "out")
    assert (tmp_path / "out" / artefact.WEIGHTS).stat().st_mode & 0o777 == 0o644


def test_publishing_replaces_an_older_model_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    out = write_artefact(tmp_path / "out")
    (out / "tokenizer.json").write_text("{}")
    publish(unsealed(tmp_path / "made", b"new"), out)
    assert (out / artefact.WEIGHTS).read_bytes() == b"new"
    assert not (out / "tokenizer.json").exists()
    assert os.listdir(tmp_path) == ["out"]


def test_a_model_that_cannot_be_sealed_leaves_the_older_one_alone(tmp_path: Path) -> None:
    out = write_artefact(tmp_path / "out")
    before = verify(out)
    made = unsealed(tmp_path / "made", b"new")
    (made / "model.pkl").write_bytes(b"")
    with pytest.raises(ArtefactError, match="may hold code"):
        publish(made, out)
    assert verify(out) == before


@pytest.mark.parametrize("renamed", [True, False])
def test_what_a_crash_left_behind_is_cleared_by_the_next_publish(
    tmp_path: Path, renamed: bool
) -> None:
    out = tmp_path / "out"
    if not renamed:
        write_artefact(out)
    write_artefact(tmp_path / ".out.old")
    publish(unsealed(tmp_path / "made", b"new"), out)
    assert verify(out)
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("failing", [0, 1])
def test_an_interrupted_publish_leaves_an_older_model_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    out, made = write_artefact(tmp_path / "out"), unsealed(tmp_path / "made", b"new")
    before = verify(out)
    rename, steps = Path.rename, itertools.count()

    def power_cut(self: Path, target: Path) -> Path:
        if next(steps) == failing:
            raise OSError("power cut")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", power_cut)
    with pytest.raises(OSError, match="power cut"):
        publish(made, out)
    assert verify(out if out.exists() else tmp_path / ".out.old") == before


# -- config.json -----------------------------------------------------------------------------


def config(**changes: Any) -> ArtefactConfig:
    values = {"family": "fake", "labels": ["benign", "injection"], "network": {}}
    return ArtefactConfig(**(values | changes))


def test_a_config_survives_writing_and_reading(tmp_path: Path) -> None:
    written = config(neutral="benign", window_pooling="max", network={"width": 8, "é": "ü"})
    write_json(tmp_path / artefact.CONFIG, written)
    assert read_config(tmp_path) == written
    assert written.neutral_index == 0
    assert "é" in (tmp_path / artefact.CONFIG).read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["only"]}, "labels"),
        ({"labels": ["a", "a"]}, "labels repeat"),
        ({"neutral": "clean"}, "neutral 'clean' is not among the labels"),
        ({"window_pooling": "max"}, "needs a neutral label"),
        ({"window_pooling": "median"}, "window_pooling.*'median'"),
        ({"task": "ranking"}, "task.*'ranking'"),
        ({"format": 2}, "format.*2"),
        ({"colour": "blue"}, "colour.*'blue'"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_with_file_field_and_value(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    values = {"family": "fake", "labels": ["benign", "injection"], "network": {}} | changes
    (tmp_path / artefact.CONFIG).write_text(json.dumps(values))
    with pytest.raises(ArtefactError, match=message) as raised:
        read_config(tmp_path)
    assert str(tmp_path / artefact.CONFIG) in str(raised.value)


def test_a_folder_that_is_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"it has no config\.json"):
        read_config(tmp_path)
    with pytest.raises(ArtefactError, match="no such folder"):
        read_config(tmp_path / "nowhere")


def test_broken_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / artefact.CONFIG).write_bytes(b'{"family": ')
    with pytest.raises(ArtefactError, match=r"config\.json: .*JSON"):
        read_config(tmp_path)


def test_a_value_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "metrics.json", {"auc": float("nan")})


@pytest.mark.parametrize("name", ["out", ".out.old"])
@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_no_model_is_not_removed_to_publish_one(
    tmp_path: Path, name: str, kind: str
) -> None:
    made = unsealed(tmp_path / "made")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("kept")
    if kind == "link":
        (tmp_path / name).symlink_to(mine)
    else:
        mine = mine.rename(tmp_path / name)
    with pytest.raises(ArtefactError, match="is in the way, and is no model"):
        artefact.publish(made, tmp_path / "out")
    assert (mine / "notes.txt").read_text() == "kept"
