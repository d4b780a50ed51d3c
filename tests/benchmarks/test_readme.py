"""benchmarks/README.md lists what can be run, and commands elsewhere name what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
README = (BENCHMARKS / "README.md").read_text("utf-8")
#: By its path and not as a module: where it runs guardkit is not installed.
BY_PATH = "python benchmarks/gpu/run.py"
COMMAND = re.compile(rf"python -m (benchmarks(?:\.\w+)+)|{re.escape(BY_PATH)}")


def modules() -> set[str]:
    """Return every module that can be run."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in BENCHMARKS.rglob("*.py")
        if re.search(r'^if __name__ == "__main__":$', path.read_text("utf-8"), flags=re.M)
    }


def named(text: str) -> list[str]:
    return [found[1] or "benchmarks.gpu.run" for found in COMMAND.finditer(text)]


def test_each_module_that_can_be_run_has_one_row_under_its_folder() -> None:
    rows: list[str] = []
    for section in README.split("\n## ")[1:]:
        folder = section.partition("/\n")[0]
        for row in re.findall(r"^\| (`python .*?) \|", section, flags=re.M):
            (module,) = named(row)
            assert module.startswith(f"benchmarks.{folder}."), row
            rows.append(module)
    assert sorted(rows) == sorted(modules())


def test_every_folder_is_explained() -> None:
    folders = {path.name for path in BENCHMARKS.iterdir() if path.is_dir()} - {"__pycache__"}
    assert {name for name in folders if f"{name}/" not in README} == set()


def test_every_command_names_a_module_that_can_be_run() -> None:
    pages = [ROOT / "README.md", ROOT / "Makefile", *BENCHMARKS.rglob("*.py")]
    for folder in ("docs", "benchmarks", "examples"):
        pages += (ROOT / folder).rglob("*.md")
    texts = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in pages}
    missing = {page: set(named(text)) - modules() for page, text in texts.items()}
    assert {page: names for page, names in missing.items() if names} == {}
    by_path = r"python benchmarks/(?!gpu/run\.py)"
    assert [page for page, text in texts.items() if re.search(by_path, text)] == []
