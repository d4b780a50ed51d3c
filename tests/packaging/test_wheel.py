"""The wheel is built, installed where nothing else of guardkit is, and used from elsewhere."""

from __future__ import annotations

import configparser
import json
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardkit.plugins import installed_plugins

from .conftest import ROOT, Run

pytestmark = pytest.mark.reliability

PACKAGES = {
    "guardkit": ROOT / "guardkit",
    "guardkit_mdlm": ROOT / "plugins" / "mdlm" / "guardkit_mdlm",
    "guardkit_gpt2": ROOT / "plugins" / "gpt2" / "guardkit_gpt2",
    "guardkit_judge": ROOT / "plugins" / "judge" / "guardkit_judge",
}
PROMPTS = ROOT / "examples" / "prompts.jsonl"
Guardkit = Callable[..., Any]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """Build the source distribution, and the wheel from it."""
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], cwd=out)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, run: Run, wheel: Path) -> Path:
    """Return an environment with the wheel; only what it depends on comes from this one.

    A path in a .pth file is added behind the environment's own, and .pth files it holds are not
    read, so that an editable install of this checkout stays out.
    """
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run([*pip, "install", "--quiet", "--no-index", "--no-deps", wheel], cwd=folder)
    (site,) = (folder / "lib").glob("python*/site-packages")
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(here)) + "\n")
    return folder


@pytest.fixture(scope="module")
def guardkit(tmp_path_factory: pytest.TempPathFactory, run: Run, installed: Path) -> Guardkit:
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def guardkit(*arguments: object, code: int = 0) -> Any:
        return run([installed / "bin" / "guardkit", *arguments], cwd=elsewhere, code=code)

    return guardkit


# -- what is in it ---------------------------------------------------------------------------


def test_the_wheel_holds_every_module_of_core_and_both_plugins(names: set[str]) -> None:
    for package, folder in PACKAGES.items():
        modules = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
        assert {f"{package}/{module}" for module in modules} <= names


def test_the_wheel_holds_every_policy_and_nothing_else_from_their_folder(names: set[str]) -> None:
    policies = {path.name for path in (ROOT / "policies").glob("*.yaml")}
    assert "default.yaml" in policies
    inside = {name for name in names if name.startswith("guardkit/policies/")}
    assert inside == {f"guardkit/policies/{name}" for name in policies}


def test_the_wheel_holds_what_the_report_is_made_of(names: set[str]) -> None:
    templates = {path.name for path in (ROOT / "guardkit" / "evaluation" / "templates").iterdir()}
    assert {f"guardkit/evaluation/templates/{name}" for name in templates} <= names


def test_the_wheel_holds_every_file_of_the_bundled_models(names: set[str]) -> None:
    for family in installed_plugins().families.values():
        if family.builtin is None or not family.builtin.is_dir():
            continue
        (package,) = [p for p, f in PACKAGES.items() if family.builtin.is_relative_to(f)]
        for path in family.builtin.rglob("*"):
            if path.is_file():
                inside = path.relative_to(PACKAGES[package]).as_posix()
                assert f"{package}/{inside}" in names


def test_the_wheel_holds_nothing_else(names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in names}
    (info,) = [top for top in tops if top.endswith(".dist-info")]
    assert tops == {*PACKAGES, info}
    assert f"{info}/licenses/LICENSE" in names
    assert f"{info}/licenses/NOTICE" in names, "the bundled network is another project's, changed"
    assert not [name for name in names if name.endswith((".pyc", ".pkl", ".pt", ".partial"))]
    assert not [name for name in names if "test" in name.rpartition("/")[2]]


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size < 60_000_000


def test_the_wheel_names_its_plugins_as_a_third_party_would(wheel: Path, names: set[str]) -> None:
    (path,) = [name for name in names if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(wheel) as archive:
        parser.read_string(archive.read(path).decode())
    names = ("mdlm", "gpt2", "judge")
    assert dict(parser["guardkit"]) == {name: f"guardkit_{name}" for name in names}
    assert dict(parser["console_scripts"]) == {"guardkit": "guardkit.cli.main:main"}


# -- that it runs ----------------------------------------------------------------------------


def test_what_runs_is_the_wheel_and_not_this_checkout(
    installed: Path, run: Run, tmp_path: Path
) -> None:
    code = (
        "import guardkit, guardkit_mdlm, guardkit_gpt2, guardkit_judge as judge\n"
        "for module in (guardkit, guardkit_mdlm, guardkit_gpt2, judge): print(module.__file__)"
    )
    shown = run([installed / "bin" / "python", "-c", code], cwd=tmp_path).stdout.splitlines()
    assert len(shown) == 4
    for path in shown:
        assert Path(path).resolve().is_relative_to(installed.resolve())


def test_the_installed_command_says_its_version(guardkit: Guardkit) -> None:
    assert guardkit("--version").stdout == "guardkit 0.1.0\n"


def test_the_installed_command_finds_its_plugins(guardkit: Guardkit) -> None:
    shown = guardkit("plugins").stdout
    assert "mdlm" in shown
    assert "gpt2" in shown


def bundled_models() -> bool:
    families = installed_plugins().families.values()
    return any(f.builtin and f.builtin.is_dir() and any(f.builtin.iterdir()) for f in families)


@pytest.mark.skipif(not bundled_models(), reason="no model is bundled yet")
def test_the_installed_command_classifies_with_nothing_but_a_file(guardkit: Guardkit) -> None:
    lines = PROMPTS.read_text("utf-8").splitlines()
    decided = [json.loads(line) for line in guardkit("classify", PROMPTS).stdout.splitlines()]
    assert len(decided) == len(lines)
    assert all(d["action"] in ("allow", "flag", "abstain", "block") for d in decided)
