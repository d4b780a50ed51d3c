"""The public names: sorted, importable, and the same to mypy as at run time."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

import pytest

import guardkit


def declared() -> dict[str, str]:
    """Return name -> module from the TYPE_CHECKING block, which type checkers read."""
    assert guardkit.__file__ is not None
    tree = ast.parse(Path(guardkit.__file__).read_text("utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name, "`import X as X` marks a re-export"
            names[alias.name] = node.module.removeprefix("guardkit.")
    return names


def test_exported_names_are_sorted() -> None:
    assert guardkit.__all__ == sorted(guardkit.__all__)


@pytest.mark.parametrize("name", guardkit.__all__)
def test_every_exported_name_can_be_imported(name: str) -> None:
    module = import_module(f"guardkit.{guardkit._HOME[name]}")
    assert getattr(guardkit, name) is getattr(module, name)


def test_type_checkers_see_the_names_that_exist() -> None:
    assert declared() == guardkit._HOME


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'guardkit' has no attribute 'load_modle'"):
        _ = guardkit.load_modle
