"""README.md and the pages under docs/, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
INDEX = ROOT / "docs" / "index.md"
#: Pages for users and contributors; those under docs/results/ report what was measured.
GUIDES = [README, *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, *sorted((ROOT / "docs" / "results").glob("*.md"))]


def named(page: Path) -> str:
    """Return the page's path from the root, as a test's name shows it."""
    return page.relative_to(ROOT).as_posix()


def blocks(language: str, page: Path) -> list[str]:
    """Return the code blocks of ``language`` in ``page``."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), flags=re.M | re.S)


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def code_spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_blocks(page))


def shell_lines(page: Path) -> list[str]:
    """Return the commands in the shell blocks of ``page``, in order."""
    return [line for block in blocks("sh", page) for line in block.splitlines() if line.strip()]
