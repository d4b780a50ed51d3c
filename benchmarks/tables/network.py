"""Tables of docs/results/network.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.injection.sets import DEVELOPMENT, REPORTING
from benchmarks.tables.markdown import header, interval, percent, points, row

Record = dict[str, Any]
#: What README names the sources by; none of them was trained on.
OVERVIEW = {
    "ood_safeguard": "safe-guard (development)",
    "ood_deepset_test": "deepset, test split (development)",
    "ood_bipia": "BIPIA, attacks inside documents (development)",
    "ood_notinject": "NotInject, harmless with trigger words (development)",
    "eval_detector_fixtures": "test cases of five other detectors",
    "eval_web_agents": "attacks on web agents",
    "eval_system_prompts": "harmless system prompts, and jailbreaks",
    "frozen_harmless": "everyday harmless texts, a list of our own",
    "frozen_attacks": "short known attacks, a list of our own",
    "frozen_tool_output": "tool output with and without an order, pairs of our own",
}


def development(record: Record) -> str:
    return _parts(record, [name for name in record["sizes"] if name in DEVELOPMENT], "sets")


def reporting(record: Record) -> str:
    return _parts(record, [name for name in record["sizes"] if name in REPORTING], "sets")


def overview(record: Record) -> str:
    """A row a source: what n-grams find, what both find and flag."""
    lines = header(
        "texts", "benign / injection", "found by n-grams alone", "found", "flagged benign", "AUROC"
    )
    ngrams, both = record["parts"]["n-grams alone"]["sets"], record["parts"]["both"]["sets"]
    for name, what in OVERVIEW.items():
        count, one = record["sizes"][name], both[name]
        auroc = interval(one["auroc"]) if "auroc" in one else "-"
        lines.append(
            row(
                what,
                f"{count['benign']} / {count['injection']}",
                percent(ngrams[name]["recall"]), percent(one["recall"]), percent(one["fpr"]), auroc,
            )
        )  # fmt: skip
    return "\n".join(lines)


def frozen(record: Record) -> str:
    """Of the frozen lists, both at the threshold and at a probability of a half."""
    names = [name for name in record["sizes"] if name.startswith("frozen_")]
    lines = header("part", "threshold", *(_heading(record, name) for name in names))
    for part, one in record["parts"].items():
        for key, where in (("sets", "1% of benign validation"), ("deployed", "the policy's")):
            lines.append(row(part, where, *(_cell(one[key][name]) for name in names)))
    return "\n".join(lines)


def gain(record: Record) -> str:
    lines = header("sources", "recall at 1%, both less n-grams alone")
    for name, value in record["gain_of_network"].items():
        lines.append(row(name, points(value)))
    return "\n".join(lines)


def rung(record: Record) -> str:
    """What the default policy's first rung settles, what the policy does at its own threshold,
    beside both on every text, and what it costs where each is held to a threshold at 1%."""
    lines = header(
        "texts", "settled by n-grams alone", "both: found, flagged", "policy: found, flagged",
        "recall at 1%, policy less both",
    )  # fmt: skip
    both, policy = (record["parts"][name]["deployed"] for name in ("both", "default policy"))
    for name, share in record["settled_by_ngrams"].items():
        loss = record["loss_by_rung"].get(name)
        cells = [_cell({k: v for k, v in one[name].items() if k != "auroc"})
                 for one in (both, policy)]  # fmt: skip
        lines.append(row(name, f"{share:.0%}", *cells, points(loss) if loss else "-"))
    return "\n".join(lines)


def cascades(record: Record) -> str:
    """Of each cascade what its stages do alone and together, at 1% of safe-guard's own benign."""
    lines = header(
        "policy", "stages alone: recall, ms a text", "cascade, cross-fitted: recall, ms a text",
        "recall over the first stage", "over the last",
    )  # fmt: skip
    for name, one in record["cascades"].items():
        alone = [
            f"{each['name'].removesuffix(' alone')} {each['recall']:.1%}, {each['ms']:.1f}"
            for each in one["singles"]
        ]
        held_out = one["held_out"]
        ms = held_out["ms"]["value"]
        first, last = (points(value) for value in one["gains"].values())
        lines.append(
            row(name, "; ".join(alone), f"{percent(held_out['recall'])}, {ms:.1f}", first, last)
        )
    return "\n".join(lines)


def cascades_conditions(record: Record) -> str:
    return (
        f"`guardkit policy frontier` on {record['set']}; `{record['script']}` at commit "
        f"{record['commit'][:10]}, {record['machine']}, beside other work; stored in "
        "`benchmarks/results/rungs.json`."
    )


def conditions(record: Record) -> str:
    sizes = ", ".join(
        f"{name} {count['injection']} and {count['benign']}"
        for name, count in record["sizes"].items()
    )
    return (
        f"Attacks and benign texts: {sizes}. {record['conditions']}. Model "
        f"`{record['model'][:12]}`, `{record['script']}` at commit {record['commit'][:10]}, "
        f"{record['machine']}; stored in `benchmarks/results/network.json`."
    )


def _parts(record: Record, names: list[str], key: str) -> str:
    lines = header("part", *(_heading(record, name) for name in names))
    for part, one in record["parts"].items():
        lines.append(row(part, *(_cell(one[key][name]) for name in names)))
    return "\n".join(lines)


def _heading(record: Record, name: str) -> str:
    count = record["sizes"][name]
    has = [what for what, label in (("found", "injection"), ("flagged", "benign")) if count[label]]
    return f"{name}: {', '.join(has)}" + (", AUROC" if len(has) == 2 else "")


def _cell(one: Record) -> str:
    shown = [percent(one[k]) for k in ("recall", "fpr") if one[k]["value"] is not None]
    return ", ".join(shown + ([f"{one['auroc']['value']:.3f}"] if "auroc" in one else []))


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "network_development": ("network.json", development),
    "network_reporting": ("network.json", reporting),
    "network_overview": ("network.json", overview),
    "network_frozen": ("network.json", frozen),
    "network_rung": ("network.json", rung),
    "network_gain": ("network.json", gain),
    "network_cascades": ("rungs.json", cascades),
    "network_cascades_conditions": ("rungs.json", cascades_conditions),
    "network_conditions": ("network.json", conditions),
}
