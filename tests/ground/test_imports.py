"""Imports go one way, core names no plugin, and starting up loads no heavy library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import guardkit

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "guardkit").glob("**/*.py"))
PLUGINS = sorted((ROOT / "plugins").glob("*/guardkit_*/**/*.py"))
EXAMPLES = sorted((ROOT / "examples").glob("guardkit-*/*.py"))

#: Each package imports only from those above its own; ``ground`` is the modules in guardkit/.
ORDER = (
    ("ground",),
    ("text",),
    ("data",),
    ("audit", "calibration"),
    ("model",),
    ("policy",),
    ("classify", "evaluation"),
    ("training",),
    ("tuning",),
    ("serve",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
#: What the extra `serve` brings: imported by the server, and by nothing before it starts.
SERVER = ("fastapi", "starlette", "uvicorn", "prometheus_client")
HEAVY = ("torch", "transformers", "datasets", "onnxruntime", "scipy", "pyarrow", "sklearn", "ray")


def at_module_level(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run when the module is imported."""
    pending: list[ast.AST] = [*tree.body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):  # a class's either
            pending += ast.iter_child_nodes(node)


def anywhere(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node


def modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Return the full names of what ``node`` imports, submodules of guardkit included."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.module is not None
    assert node.level == 0, "absolute imports only"
    if node.module == "guardkit":
        return [f"guardkit.{alias.name}" for alias in node.names]
    return [node.module]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted(path: Path) -> str:
    """Return a module's name: ``guardkit.policy.router``, ``guardkit_mdlm.training.loop``."""
    top = next(i for i, part in enumerate(path.parts) if part.startswith("guardkit_")
               or path.parts[: i + 1] == (*ROOT.parts, "guardkit"))  # fmt: skip
    return ".".join(path.with_suffix("").parts[top:]).removesuffix(".__init__")


def package_of(module: str) -> str:
    """Return the package of core that a module is in: ``policy``, or ``ground``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in RANK else "ground"


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "guardkit").parts[:-1] or ("ground",)
    assert own[0] in RANK, f"give the package {own[0]!r} its place in ORDER"
    assert len(own) == 1, "packages stand side by side"
    if path.name == "__main__.py":  # ``python -m guardkit`` is the command line
        return
    for node in at_module_level(parse(path)):
        for module in modules(node):
            other = package_of(module)
            if module.partition(".")[0] == "guardkit" and other != own[0]:
                assert RANK[other] < RANK[own[0]], f"{own[0]} imports {module} (line {node.lineno})"


def imports_among(paths: Sequence[Path]) -> dict[str, set[str]]:
    """Return which of the modules each of them imports when it is imported itself."""
    names = {dotted(path) for path in paths}
    return {
        dotted(path): {
            found
            for node in at_module_level(parse(path))
            for module in named_by(node)
            for found in (module, module.rpartition(".")[0])
            if found in names
        }
        for path in paths
    }


def named_by(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circle_in(imports: Mapping[str, set[str]]) -> Sequence[str]:
    """Return modules each of which imports the next one, the last one the first; or nothing."""
    try:
        list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


@pytest.mark.parametrize("paths", [CORE, PLUGINS], ids=["core", "plugins"])
def test_no_module_imports_itself_by_way_of_others(paths: Sequence[Path]) -> None:
    imports = imports_among(paths)
    assert sum(map(len, imports.values())) > 100, "the imports were found"
    assert circle_in(imports) == []


def test_a_circle_is_seen() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) in (
        ["a", "c", "b", "a"], ["b", "a", "c", "b"], ["c", "b", "a", "c"]
    )  # fmt: skip


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_never_imports_a_heavy_library_at_module_level(path: Path) -> None:
    for node in at_module_level(parse(path)):
        for module in modules(node):
            assert module.partition(".")[0] not in HEAVY, f"line {node.lineno}"


@pytest.mark.parametrize("path", CORE, ids=name_of)
def test_core_never_imports_a_plugin(path: Path) -> None:
    for node in anywhere(parse(path)):
        for module in modules(node):
            assert not module.startswith("guardkit_"), f"line {node.lineno}"


@pytest.mark.parametrize("path", PLUGINS + EXAMPLES, ids=name_of)
def test_a_plugin_uses_only_public_names_and_no_other_plugin(path: Path) -> None:
    own = next((part for part in path.parts if part.startswith("guardkit_")), "").split(".")[0]
    tree = parse(path)
    for node in anywhere(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "guardkit":
            used = {alias.name for alias in node.names}
            assert used <= {*guardkit.__all__, "__version__"}, f"line {node.lineno}"
            continue
        for module in modules(node):
            assert not module.startswith("guardkit."), f"line {node.lineno}: {module}"
            if module.startswith("guardkit_"):
                assert module.partition(".")[0] == own, f"line {node.lineno}: {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "guardkit":
            assert node.attr in (*guardkit.__all__, "__version__"), f"line {node.lineno}"


def loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(run.stdout)}


@pytest.mark.parametrize(
    "code",
    [
        "import guardkit, guardkit.cli.main",
        "from guardkit.plugins import installed_plugins; installed_plugins()",
        "import guardkit; [getattr(guardkit, name) for name in guardkit.__all__]",
    ],
    ids=["command line", "installed plugins", "every public name"],
)
def test_starting_up_loads_no_heavy_library(code: str) -> None:
    assert loaded_by(code).isdisjoint((*HEAVY, *SERVER))


def test_a_policy_of_patterns_classifies_without_a_heavy_library(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nname: words\ncategories:\n  secret:\n    decide: {pattern: {re2: AKIA}}\n"
        "    flag_at: {probability: 0.5}\n    action: flag\n"
    )
    (tmp_path / "in.jsonl").write_text('{"text": "the key is AKIA"}\n' * 10)
    args = ["classify", tmp_path / "in.jsonl", "--policy", tmp_path / "policy.yaml",
            "--out", tmp_path / "out.jsonl"]  # fmt: skip
    loaded = loaded_by(f"from guardkit.cli.main import main; assert main({[*map(str, args)]}) == 0")
    assert loaded.isdisjoint(HEAVY)
    assert '"flag"' in (tmp_path / "out.jsonl").read_text()


def test_checking_a_policy_loads_no_heavy_library() -> None:
    args = ["policy", "check", str(ROOT / "policies" / "default.yaml")]
    code = (
        "import contextlib, sys; from guardkit.cli.main import main\n"
        f"with contextlib.redirect_stdout(sys.stderr): assert main({args}) == 0"
    )
    assert loaded_by(code).isdisjoint(HEAVY)


def test_the_checks_above_see_what_they_should() -> None:
    tree = ast.parse(
        "import torch\n"
        "try:\n    import scipy.stats\nexcept ImportError:\n    pass\n"
        "class A:\n    from datasets import x\n"
        "def f():\n    import pyarrow\n"
        "if TYPE_CHECKING:\n    import sklearn\n"
        "else:\n    import onnxruntime\n"
    )
    seen = {module for node in at_module_level(tree) for module in modules(node)}
    assert seen == {"torch", "scipy.stats", "datasets", "onnxruntime"}
