"""The main job, start to end: train a small MDLM, classify a file under the default policy.

    python examples/demo.py        (or `make demo`; a few minutes on 2 cores, no network)

Writes build/demo/decisions.jsonl, one decision for each line of examples/prompts.jsonl.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = "examples/prompts.jsonl"
MODEL = "build/demo/model"
DECISIONS = "build/demo/decisions.jsonl"
PROBABILITIES = "build/demo/probabilities.jsonl"
LOG_WIDTH = 140
STYLES = {"allow": "green", "flag": "yellow", "abstain": "yellow", "block": "bold red"}

Record = dict[str, Any]


def main() -> int:
    """Run the commands, print the table; 1 if a line has lost its decision."""
    shutil.rmtree(ROOT / "build/demo", ignore_errors=True)
    (ROOT / "build/demo").mkdir(parents=True)
    guardkit("train", "--plugin", "mdlm", "--preset", "demo", "--data", "examples/sample",
             "--out", MODEL)  # fmt: skip
    guardkit("classify", PROMPTS, "--out", DECISIONS)
    guardkit("classify", PROMPTS, "--model", MODEL, "--out", PROBABILITIES)

    prompts, decisions, scored = map(read_lines, (PROMPTS, DECISIONS, PROBABILITIES))
    ids = [prompt["id"] for prompt in prompts]
    for path, records in ((DECISIONS, decisions), (PROBABILITIES, scored)):
        if [record["id"] for record in records] != ids:
            print(f"{path}: {len(records)} lines do not answer the {len(ids)} of {PROMPTS}")
            return 1
    show(prompts, decisions, scored)
    print(f"{len(decisions)} decisions for {len(prompts)} lines are in {DECISIONS}")
    return 0


def guardkit(*arguments: str) -> None:
    """Run a guardkit command from the root of the repository, as a user would."""
    print("\n$ guardkit", *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", "guardkit", *arguments], cwd=ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def read_lines(path: str) -> list[Record]:
    return [json.loads(line) for line in (ROOT / path).read_text("utf-8").splitlines()]


def show(prompts: list[Record], decisions: list[Record], scored: list[Record]) -> None:
    """Print what the policy decided beside what the model just trained thinks."""
    table = Table("id", "action", "score", "decided by", "new model", "text", title=PROMPTS)
    for prompt, decision, guess in zip(prompts, decisions, scored, strict=True):
        category = decision["categories"]["injection"]
        table.add_row(
            prompt["id"],
            Text(decision["action"], STYLES[decision["action"]]),
            f"{category['score']:.3f}",
            category["decided_by"],
            f"{guess['probabilities']['injection']:.3f}",
            Text(text_of(prompt), no_wrap=True, overflow="ellipsis"),
        )
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
    console.print()
    console.print(table)
    console.print(
        "score: the default policy's probability of an injection; new model: that of the model "
        "trained a moment ago"
    )


def text_of(prompt: Record) -> str:
    messages = prompt.get("messages") or [{"content": prompt.get("text") or prompt.get("prompt")}]
    return " / ".join(" ".join(message["content"].split()) for message in messages)


if __name__ == "__main__":
    sys.exit(main())
