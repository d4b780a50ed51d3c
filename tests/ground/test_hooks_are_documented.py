"""docs/hooks.md says what hookspecs.py says, and its examples are real."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from guardkit import hookspecs

ROOT = Path(__file__).parents[2]
HOOKS = [name for name in vars(hookspecs) if hasattr(getattr(hookspecs, name), "guardkit_spec")]
DOCS = (ROOT / "docs" / "hooks.md").read_text("utf-8")


def sections() -> dict[str, str]:
    parts = re.split(r"^## ", DOCS, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_under_its_exact_signature(hook: str) -> None:
    signature = str(inspect.signature(getattr(hookspecs, hook))).replace("'", "")
    assert f"`{hook}{signature}`" in sections()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_shown_by_code_of_an_example_plugin(hook: str) -> None:
    (section,) = [text for title, text in sections().items() if title.startswith(f"`{hook}(")]
    blocks = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
    sources = [path.read_text("utf-8") for path in ROOT.glob("examples/*/*.py")]
    assert any(f"def {hook}(" in block for block in blocks)
    for block in blocks:
        assert any(block in source for source in sources), f"not in examples/:\n{block}"


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    tree = ast.parse(Path(__file__).with_name("test_plugins.py").read_text("utf-8"))
    tests = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert any(name.startswith(f"test_{hook}_") for name in tests)


def test_the_documentation_names_no_hook_that_does_not_exist() -> None:
    titles = [title for title in sections() if title.startswith("`")]
    assert sorted(title.strip("`").partition("(")[0] for title in titles) == sorted(HOOKS)
