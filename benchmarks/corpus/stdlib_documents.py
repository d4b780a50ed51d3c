"""Real documents to plant instructions in: manuals and code of Python's standard library.

They come with every Python and may be passed on (PSF licence), so that who makes the training text
again has them, of a like version. A document is some paragraphs in a row.
"""

from __future__ import annotations

import ast
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

#: Characters of a document; of a paragraph that counts as one.
SHORT, LONG, PARAGRAPH = 300, 3000, 40
#: Documents of one module, at most: a few modules hold half of all text.
OF_MODULE = 6
CODE, MANUAL = "code", "manual"


def documents(seed: int = 0) -> list[tuple[str, list[str]]]:
    """Return (kind, paragraphs) of each document, the same for the same Python and seed."""
    rng = random.Random(seed)
    found = []
    for name in sorted(sys.stdlib_module_names):
        path = Path(sysconfig.get_path("stdlib")) / f"{name}.py"
        if name.startswith("_") or not path.is_file():
            continue
        source = path.read_text("utf-8")
        for kind, text in ((MANUAL, "\n\n".join(_docstrings(source))), (CODE, source)):
            own = list(_cut(text, rng))
            found += [(kind, parts) for parts in rng.sample(own, min(OF_MODULE, len(own)))]
    return found


def _docstrings(source: str) -> Iterator[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, kinds) and (text := ast.get_docstring(node)):
            yield text


def _cut(text: str, rng: random.Random) -> Iterator[list[str]]:
    """Yield runs of paragraphs, each run of a length drawn at random."""
    parts: list[str] = []
    wanted = rng.uniform(SHORT, LONG)
    for paragraph in text.split("\n\n"):
        if len(paragraph.strip()) < PARAGRAPH:
            continue
        parts.append(paragraph.strip("\n"))
        if sum(map(len, parts)) >= wanted:
            if len(parts) > 1 and sum(map(len, parts)) <= 2 * LONG:
                yield parts
            parts, wanted = [], rng.uniform(SHORT, LONG)
