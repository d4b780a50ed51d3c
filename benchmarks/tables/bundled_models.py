"""Tables of README.md about the bundled injection detectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.tables.markdown import header, interval, percent, row

Record = dict[str, Any]
SETS = {
    "test": "test, all sources",
    "test_permissive": "test, the sources mdlm was trained on",
    "test_jackhhao": "jackhhao, its own test split",
    "own_test": "written for guardkit (`examples/sample`)",
    "certificate": "benign set aside before training",
    "ood_deepset_test": "deepset, its own test split",
    "ood_safeguard": "safe-guard: never trained on",
    "ood_notinject": "NotInject: benign with trigger words, never trained on",
    "ood_bipia": "BIPIA: attacks inside documents, never trained on",
}


def bundled(record: Record) -> str:
    """A row a test set, AUC and recall of each model and of the cascade."""
    scorers = ("mdlm", "gpt2", "mdlm-with-backup")
    lines = header(
        "texts", "benign / injection", *(f"{s}: AUC" for s in scorers),
        "mdlm: recall at 1% FPR", "mdlm: flagged benign",
    )  # fmt: skip
    for name, result in record["results"].items():
        cells = [interval(result[s]["roc_auc"]) for s in scorers]
        cells += [
            interval(result["mdlm"]["recall_at_fpr_1%"]),
            percent(result["mdlm"]["fpr"]),
        ]
        about = SETS.get(name, name)
        lines.append(row(about, f"{result['benign']} / {result['injection']}", *cells))
    return "\n".join(lines)


def bundled_conditions(record: Record) -> str:
    gain = record["comparison"]["gain_over_mdlm"]["mdlm-with-backup"]
    pooled = record["results"]["test"]
    return (
        f"95% bootstrap intervals; `{record['script']}` at commit {record['commit'][:10]}, "
        f"{record['machine']}, torch {record['versions']['torch']}, stored in "
        "`benchmarks/results/bundled_models.json`. Putting GPT-2 behind MDLM changes the pooled "
        f"AUC by {interval(gain['roc_auc'], '+.3f')} and recall at 1% false positives by "
        f"{interval(gain['recall_at_fpr_1%'], '+.3f')}. Of the test set's texts the cascade asked "
        f"its backup about {pooled['mdlm-with-backup']['escalated']:.0%}."
    )


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "bundled": ("bundled_models.json", bundled),
    "bundled_conditions": ("bundled_models.json", bundled_conditions),
}
