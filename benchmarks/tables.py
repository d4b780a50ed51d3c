"""Write the READMEs' tables from the stored results, so that no number is typed by hand.

    python benchmarks/tables.py

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", ROOT / "examples" / "guardkit-nbsvm" / "README.md")
BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Record = dict[str, Any]


def main() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text("utf-8")), "utf-8")


def filled(text: str) -> str:
    """Return ``text`` with every table made anew from its results."""
    return BLOCK.sub(lambda m: f"{m[1]}{table(m[2])}\n{m[3]}", text)


def table(name: str) -> str:
    source, render = TABLES[name]
    return render(json.loads((RESULTS / source).read_text("utf-8")))


def bundled(record: Record) -> str:
    """A row a test set, AUC and recall of each model and of the cascade."""
    scorers = ("mdlm", "gpt2", "mdlm-with-backup")
    lines = [
        "| texts | benign / injection | " + " | ".join(f"{s}: AUC" for s in scorers) + " | "
        "mdlm: recall at 1% FPR | mdlm: flagged benign |",
        "| --- | --- |" + " --- |" * (len(scorers) + 2),
    ]
    for name, result in record["results"].items():
        cells = [_cell(result[s]["roc_auc"]) for s in scorers]
        cells += [
            _cell(result["mdlm"]["recall_at_fpr_1%"]),
            _cell(result["mdlm"]["fpr"], percent=True),
        ]
        about = SETS.get(name, name)
        lines.append(
            f"| {about} | {result['benign']} / {result['injection']} | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def bundled_conditions(record: Record) -> str:
    gain = record["comparison"]["gain_over_mdlm"]["mdlm-with-backup"]
    pooled = record["results"]["test"]
    return (
        f"95% bootstrap intervals; `{record['script']}` at commit {record['commit'][:10]}, "
        f"{record['machine']}, torch {record['versions']['torch']}, stored in "
        "`benchmarks/results/bundled_models.json`. Putting GPT-2 behind MDLM changes the pooled "
        f"AUC by {_signed(gain['roc_auc'])} and recall at 1% false positives by "
        f"{_signed(gain['recall_at_fpr_1%'])}. A text of the test set took "
        f"{pooled['mdlm']['ms_per_text']:.1f} ms with mdlm, {pooled['gpt2']['ms_per_text']:.1f} ms "
        f"with gpt2, {pooled['mdlm-with-backup']['ms_per_text']:.1f} ms with the cascade, which "
        f"asked its backup about {pooled['mdlm-with-backup']['escalated']:.0%} of them."
    )


def nbsvm(record: Record) -> str:
    versions = record["versions"]
    return (
        "| trained on | tested on | accuracy | train | score |\n| --- | --- | --- | --- | --- |\n"
        f"| {record['texts']['train']:,} reviews | {record['texts']['test']:,} reviews "
        f"| {_cell(record['accuracy'], percent=True)} | {record['train_s']:.0f} s "
        f"| {record['score_s']:.0f} s |\n\n"
        f"95% bootstrap interval over films; `{record['script']}` at commit "
        f"{record['commit'][:10]}, {record['machine']}, scikit-learn {versions['scikit-learn']}."
    )


def _cell(value: Record, *, percent: bool = False) -> str:
    if value["value"] is None:
        return "-"
    form = "{:.1%}" if percent else "{:.3f}"
    v, low, high = (form.format(value[k]) for k in ("value", "low", "high"))
    return f"{v} ({low} to {high})"


def _signed(value: Record) -> str:
    return f"{value['value']:+.3f} ({value['low']:+.3f} to {value['high']:+.3f})"


SETS = {
    "test": "test, all sources",
    "test_permissive": "test, the sources trained on",
    "test_jackhhao": "jackhhao, its own test split",
    "own_test": "written for guardkit (`examples/sample`)",
    "certificate": "benign set aside before training",
    "ood_deepset_test": "deepset: never trained on",
    "ood_safeguard": "safe-guard: never trained on",
    "ood_notinject": "NotInject: benign with trigger words, never trained on",
    "ood_bipia": "BIPIA: attacks inside documents, never trained on",
}
TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "bundled": ("bundled_models.json", bundled),
    "nbsvm": ("nbsvm_imdb.json", nbsvm),
    "bundled_conditions": ("bundled_models.json", bundled_conditions),
}

if __name__ == "__main__":
    main()
