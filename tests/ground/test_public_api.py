"""The public names: sorted, importable, and the same to type checkers as at run time."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import guardkit


def declared() -> dict[str, str]:
    """Return name -> module from the stub, the one place that lists them."""
    assert guardkit.__file__ is not None
    names = {}
    for node in ast.parse(Path(guardkit.__file__).with_suffix(".pyi").read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                assert alias.asname == alias.name, "`import X as X` marks a re-export"
                names[alias.name] = f"guardkit.{node.module}"
    return names


def test_exported_names_are_sorted() -> None:
    assert guardkit.__all__ == sorted(guardkit.__all__)
    assert dir(guardkit) == guardkit.__all__


@pytest.mark.parametrize(("name", "module"), declared().items())
def test_every_exported_name_can_be_imported(name: str, module: str) -> None:
    assert getattr(guardkit, name) is getattr(import_module(module), name)


def test_every_name_that_type_checkers_see_is_exported() -> None:
    assert sorted(declared()) == guardkit.__all__


def test_what_loading_returns_is_public() -> None:
    assert isinstance(guardkit.load_policy(), guardkit.PolicyRouter)
    assert isinstance(guardkit.load_model("builtin:mdlm/spam"), guardkit.Model)


def test_every_optional_protocol_of_a_plugin_is_public() -> None:
    types = import_module("guardkit.types")
    optional = {
        name for name, value in vars(types).items()
        if name.startswith(("Has", "Supports")) and value.__module__ == "guardkit.types"
    }  # fmt: skip
    assert len(optional) == 8
    assert optional <= set(guardkit.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="load_modle"):
        _ = guardkit.load_modle  # type: ignore[attr-defined]
