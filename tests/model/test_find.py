"""A bundled model is found by its name, and one that is not there is told with those that are."""

from __future__ import annotations

from pathlib import Path

import pytest

from guardkit.errors import ArtefactError
from guardkit.model.find import bundled_models, find_model
from guardkit.model.loaded import load_model
from tests.support.fake_models import FakeFamily, plugins_of, write_model


def logits_of(model: str, text: str) -> list[float]:
    return [0.0, 0.0]


def test_a_bundled_model_is_found_by_name(tmp_path: Path) -> None:
    write_model(tmp_path / "spam")
    plugins = plugins_of(FakeFamily(logits_of, builtin=tmp_path))
    assert load_model("builtin:spam", plugins=plugins).path == tmp_path / "spam"
    with pytest.raises(ArtefactError, match=r"builtin:ham: no such .*bundled: builtin:fake/spam"):
        load_model("builtin:ham", plugins=plugins)


def test_without_bundled_models_there_are_none_to_name(tmp_path: Path) -> None:
    plugins = plugins_of(FakeFamily(logits_of, builtin=tmp_path / "absent"))
    with pytest.raises(ArtefactError, match="bundled: none"):
        load_model("builtin:spam", family="fake", plugins=plugins)


def test_a_bundled_model_of_two_families_must_be_named_in_full(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("first", "second")}
    for folder in folders.values():
        (folder / "shared").mkdir(parents=True)
    (folders["first"] / "own").mkdir()
    plugins = plugins_of(*(FakeFamily(logits_of, name, folder) for name, folder in folders.items()))

    def find(ref: str, family: str | None = None) -> Path:
        return find_model(ref, family=family, base=tmp_path, plugins=plugins)

    assert find("builtin:own") == folders["first"] / "own"
    assert find("builtin:shared", "second") == folders["second"] / "shared"
    assert find("builtin:second/shared") == folders["second"] / "shared"
    assert find("builtin:second/shared", "second") == folders["second"] / "shared"
    with pytest.raises(ArtefactError, match="is of plugin 'second', asked for as 'first'"):
        find("builtin:second/shared", "first")
    with pytest.raises(ArtefactError, match=r"more than one family .*first/shared"):
        find("builtin:shared")
    with pytest.raises(ArtefactError, match="no such bundled model; bundled: builtin:first/own"):
        find("builtin:nowhere")
    with pytest.raises(ArtefactError, match="no such bundled"):
        find("builtin:second/own")


def test_bundled_models_are_the_folders_of_each_family(tmp_path: Path) -> None:
    families = [FakeFamily(logits_of, name, tmp_path / name) for name in ("first", "absent")]
    for name in ("b", "a"):
        (tmp_path / "first" / name).mkdir(parents=True)
    (tmp_path / "first" / "README.md").write_text("no model")
    assert bundled_models(families) == [tmp_path / "first" / "a", tmp_path / "first" / "b"]
