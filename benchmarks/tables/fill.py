"""Write the READMEs' tables from the stored results, so that no number is typed by hand.

    python -m benchmarks.tables.fill

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.lib.paths import ROOT
from benchmarks.tables import (
    domains,
    engine,
    explanations,
    injection,
    novel_families,
    policies,
    specialists,
)
from benchmarks.tables.intervals import interval, percent, points

RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    ROOT / "examples" / "guardkit-nbsvm" / "README.md",
    ROOT / "docs" / "results" / "imdb.md",
    ROOT / "docs" / "results" / "estimators.md",
    ROOT / "docs" / "policies.md",
    ROOT / "docs" / "results" / "novelty.md",
    ROOT / "docs" / "results" / "engine.md",
    ROOT / "docs" / "results" / "policies.md",
    ROOT / "docs" / "results" / "specialists.md",
    ROOT / "docs" / "results" / "novel-families.md",
    ROOT / "docs" / "results" / "generalisation.md",
    ROOT / "docs" / "results" / "evasion.md",
    ROOT / "docs" / "results" / "explanations.md",
    ROOT / "docs" / "results" / "domains.md",
)
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
    path = RESULTS / source
    if not path.is_file():
        return f"Not measured yet: `benchmarks/results/{source}` is not there."
    return render(json.loads(path.read_text("utf-8")))


def bundled(record: Record) -> str:
    """A row a test set, AUC and recall of each model and of the cascade."""
    scorers = ("mdlm", "gpt2", "mdlm-with-backup")
    lines = [
        "| texts | benign / injection | " + " | ".join(f"{s}: AUC" for s in scorers) + " | "
        "mdlm: recall at 1% FPR | mdlm: flagged benign |",
        "| --- | --- |" + " --- |" * (len(scorers) + 2),
    ]
    for name, result in record["results"].items():
        cells = [interval(result[s]["roc_auc"]) for s in scorers]
        cells += [
            interval(result["mdlm"]["recall_at_fpr_1%"]),
            percent(result["mdlm"]["fpr"]),
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
        f"AUC by {interval(gain['roc_auc'], '+.3f')} and recall at 1% false positives by "
        f"{interval(gain['recall_at_fpr_1%'], '+.3f')}. Of the test set's texts the cascade asked "
        f"its backup about {pooled['mdlm-with-backup']['escalated']:.0%}."
    )


def nbsvm(record: Record) -> str:
    run = next(row for row in record["rows"] if row["name"] == "nbsvm-all")["runs"]["0"]
    tested = record["data"]["test"]["texts"]
    return (
        "| trained on | tested on | accuracy | train | score |\n| --- | --- | --- | --- | --- |\n"
        f"| {run['options']['reviews']:,} reviews | {tested:,} reviews "
        f"| {percent(run['accuracy'])} | {run['training']['seconds']:.0f} s "
        f"| {tested / run['texts_per_s']:.0f} s |\n\n"
        f"95% bootstrap interval over films; `{record['script']}` at commit {run['commit'][:10]}, "
        f"{run['machine']}, scikit-learn {record['versions']['scikit-learn']}."
    )


def imdb(record: Record) -> str:
    """A row a way to classify, the first seed's figures; the other seeds' beside them."""
    lines = [
        "| on the test reviews | accuracy | other seeds | AUC | training | texts/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in record["rows"]:
        if not row["runs"]:
            lines.append(f"| {row['title']} | {row['without']} | | | | |")
            continue
        first, *others = (run for _, run in sorted(row["runs"].items(), key=lambda r: int(r[0])))
        cells = [
            row["title"],
            percent(first["accuracy"], 2),
            ", ".join(f"{run['accuracy']['value']:.2%}" for run in others),
            interval(first["roc_auc"]),
            _training(first.get("training", {})),
            f"{first['texts_per_s']:,.0f}" if first["texts_per_s"] else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def imdb_gains(record: Record) -> str:
    titles = {row["name"]: row["title"] for row in record["rows"]}
    lines = ["| first | second | accuracy of the first, less the second's |", "| --- | --- | --- |"]
    for gain in record["gains"]:
        cell = points(gain["accuracy"], 2)
        lines.append(f"| {titles[gain['first']]} | {titles[gain['second']]} | {cell} |")
    return "\n".join(lines)


def imdb_quick(record: Record) -> str:
    """Those rows that are of the smaller networks."""
    return imdb({**record, "rows": [row for row in record["rows"] if row["runs"]]})


def imdb_conditions(record: Record, stored: str = "imdb") -> str:
    texts = {name: f"{about['texts']:,}" for name, about in record["data"].items()}
    runs = [run for row in record["rows"] for run in row["runs"].values()]
    return (
        f"{texts['test']} test reviews; {texts['train']} to train on, {texts['validation']} for "
        f"early stopping, {texts['calibration']} for probabilities and combinations, split by "
        f"film. 95% intervals: {record['conditions']}. Scored on "
        f"{' and '.join(sorted({run['machine'] for run in runs}))}; `{record['script']}` at commit "
        f"{' and '.join(sorted({run['commit'][:10] for run in runs}))}, stored in "
        f"`benchmarks/results/{stored}.json`, the command that trained each model too."
    )


def certificates(record: Record) -> str:
    """A row a setting: how often the promise was broken, whatever the law of the scores."""
    lines = [
        "| benign texts | max_fpr | confidence | may be broken in | continuous scores "
        "| scores with ties or failures | a cascade, certified whole | the usual way |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    settings = dict.fromkeys((r["n"], r["max_fpr"], r["confidence"]) for r in record["rows"])
    for n, max_fpr, confidence in settings:
        rows = {r["law"]: r for r in record["rows"] if (r["n"], r["max_fpr"]) == (n, max_fpr)}
        whole = rows.pop("cascade", None)
        usual = [r["usual_broken"] for r in rows.values()]
        plain = rows.pop("continuous")
        cells = [
            f"{n:,}",
            f"{100 * max_fpr:g}%",
            f"{confidence:g}",
            f"{plain['promised']:.1%}",
            f"{plain['broken']:.1%}",
            _range([r["broken"] for r in rows.values()]),
            f"{whole['broken']:.1%}" if whole else "",
            _range(usual),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _range(shares: Sequence[float]) -> str:
    return f"{min(shares):.1%} to {max(shares):.1%}"


def estimators(record: Record) -> str:
    """A row a rule; the experiment's with its repeats."""
    lines = ["| rule | accuracy | texts/s |", "| --- | --- | --- |"]
    for name, row in record["rows"].items():
        title = RULES.get(name) or f"half pairs, shared masks, {row['evaluations']} evaluations"
        if "repeats" in row:
            title += f" ({', '.join(f'{r:.1%}' for r in row['repeats'])})"
        speed = f"{row['texts_per_s']:,.1f}" if "texts_per_s" in row else ""
        lines.append(f"| {title} | {percent(row['accuracy'])} | {speed} |")
    return "\n".join(lines)


def estimators_gaps(record: Record) -> str:
    lines = ["| first | second | accuracy of the first, less the second's |", "| --- | --- | --- |"]
    for name, (first, second) in GAPS.items():
        lines.append(f"| {first} | {second} | {points(record['gaps'][name])} |")
    return "\n".join(lines)


def estimators_curve(record: Record) -> str:
    """A row an estimator and number of evaluations, shared masks beside separate ones."""
    points = {(p["estimator"], p["evaluations"], p["shared"]): p for p in record["curve"]["points"]}
    lines = [
        "| estimator | evaluations | shared: accuracy | correlation | texts/s | separate: accuracy "
        "| correlation |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for estimator, evaluations in sorted(
        {(e, n) for e, n, _ in points}, key=lambda key: (ESTIMATOR_TITLES.index(key[0]), key[1])
    ):
        shared, own = (points[estimator, evaluations, s] for s in (True, False))
        lines.append(
            f"| {estimator} | {evaluations} | {percent(shared['accuracy'])} "
            f"| {shared['correlation']:.3f} | {shared['texts_per_s']:,.1f} "
            f"| {percent(own['accuracy'])} | {own['correlation']:.3f} |"
        )
    limit = record["curve"]["limit"]
    lines.append(
        f"| half_pairs, the others' limit | {limit['evaluations']} "
        f"| {percent(limit['accuracy'])} | | | | |"
    )
    return "\n".join(lines)


def estimators_stopping(record: Record) -> str:
    stop = record["early_stopping"]
    return (
        "| alpha | evaluations at most | evaluations, mean | stopped early | of all texts, "
        "stopped on another class than at most | accuracy | accuracy at most |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
        f"| {stop['alpha']} | {stop['cap']} | {stop['evaluations']:.1f} "
        f"| {stop['stopped_early']:.1%} | {stop['flipped']:.1%} "
        f"| {percent(stop['accuracy'])} "
        f"| {percent(stop['capped_accuracy'])} |"
    )


def estimators_conditions(record: Record) -> str:
    data = record["data"]
    return (
        f"{data['texts']:,} test texts drawn at random (seed {data['seed']}), "
        f"{data['tokens']:,} tokens; the curves and early stopping on the first "
        f"{record['curve']['texts']:,} of them. Model `{record['model']['name']}`, "
        f"SHA-256 {record['model']['hash'][:10]}. 95% intervals: {record['conditions']}. "
        f"`{record['script']}` at commit {record['commit'][:10]}, {record['machine']}, torch "
        f"{record['versions']['torch']}; stored in `benchmarks/results/estimators_imdb.json`."
    )


def novelty(record: Record) -> str:
    """A row a network and score, a column a source: AUROC within like lengths."""
    columns = list(NOVELTY_SOURCES)
    lines = [
        "| network | score | " + " | ".join(NOVELTY_SOURCES.values()) + " |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for family, model in record["models"].items():
        for score, rows in model["scores"].items():
            cells = [interval(rows[c]["within_length"]) for c in columns]
            lines.append(f"| {family} | {_novelty_title(family, score)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def novelty_used(record: Record) -> str:
    """A row a network and score, all unseen sources together: what a policy would see."""
    lines = [
        "| network | score | AUROC | like lengths | less that of msp | sure texts | less that "
        "of msp | p <= 0.05: unseen | known | p <= 0.01: unseen | known |",
        "| --- |" + " --- |" * 10,
    ]
    for family, model in record["models"].items():
        for score, rows in model["scores"].items():
            pooled, alarms = rows["pooled"], rows["false_alarms"]
            cells = [interval(pooled["auroc"])]
            for x in ("within_length", "sure"):
                gain = "" if score == "msp" else interval(pooled["over_msp"][x], "+.3f")
                cells += [interval(pooled[x]), gain]
            for bound in ("0.05", "0.01"):
                cells += [f"{pooled['found_at'][bound]:.1%}", f"{alarms[bound]:.1%}"]
            lines.append(f"| {family} | {_novelty_title(family, score)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def novelty_conditions(record: Record) -> str:
    texts = record["texts"]
    unseen = ", ".join(f"{number} of {name}" for name, number in texts.items())
    runs = record["models"].items()
    return (
        f"Known texts: the test split of the sources trained on. Unseen: {unseen}, "
        f"{record['cap']} a source at most, chosen by hash. Sure: the largest probability is "
        f"{record['sure']} or more. 95% intervals: {record['conditions']}. `{record['script']}`, "
        + "; ".join(
            f"{family} (SHA-256 {run['hash'][:10]}; {run['known']} known texts, p-values among "
            f"{run['calibration']} calibration texts) at commit {run['commit'][:10]}, "
            f"{run['machine']}, torch {run['versions']['torch']}"
            for family, run in runs
        )
        + "; stored in `benchmarks/results/novelty.json`."
    )


def _novelty_title(family: str, score: str) -> str:
    return f"{score} (the model's own)" if NOVELTY_OF_MODEL[family] == score else score


def _training(about: Record) -> str:
    """Return how long a training took, and on what."""
    seconds = about.get("seconds")
    if seconds is None:
        return ""
    hours, minutes = seconds / 3600, seconds / 60
    if hours >= 2:
        took = f"{hours:.1f} h"
    else:
        took = f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
    return ", ".join([took, *([about["machine"]] if "machine" in about else [])])


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
NOVELTY_SOURCES = {
    "bipia": "BIPIA", "safeguard": "safe-guard", "medical": "medical abstracts",
    "sql": "SQL injection", "pooled": "all of them",
}  # fmt: skip
#: What each of these models gives where it is asked for novelty.
NOVELTY_OF_MODEL = {"mdlm": "unigram", "gpt2": "likelihood"}
RULES = {
    "experiment": "one Bernoulli mask of its own for each class, the mean of repeats",
    "one_pass": "one pass, the label slot",
    "naive_bayes": "no network: naive Bayes, which half pairs give before training",
    "wide": "no network: the wide term of the one pass",
}
GAPS = {
    "sharing": ("half pairs, shared masks, 8 evaluations", "one mask of its own for each class"),
    "network": ("half pairs, shared masks, 8 evaluations", "naive Bayes"),
    "network_one_pass": ("one pass", "the wide term"),
    "second_look": ("half pairs, shared masks, 8 evaluations", "one pass"),
}
ESTIMATOR_TITLES = (
    "bernoulli", "fixed_k", "systematic_k", "complementary", "half_pairs", "partition",
)  # fmt: skip


TABLES: dict[str, tuple[str, Callable[[Record], str]]] = {
    "bundled": ("bundled_models.json", bundled),
    "nbsvm": ("imdb.json", nbsvm),
    "imdb": ("imdb.json", imdb),
    "imdb_gains": ("imdb.json", imdb_gains),
    "imdb_conditions": ("imdb.json", imdb_conditions),
    "imdb_quick": ("imdb_quick.json", imdb_quick),
    "imdb_quick_gains": ("imdb_quick.json", imdb_gains),
    "imdb_quick_conditions": (
        "imdb_quick.json",
        lambda record: imdb_conditions(record, "imdb_quick"),
    ),
    "estimators": ("estimators_imdb.json", estimators),
    "estimators_gaps": ("estimators_imdb.json", estimators_gaps),
    "estimators_curve": ("estimators_imdb.json", estimators_curve),
    "estimators_stopping": ("estimators_imdb.json", estimators_stopping),
    "estimators_conditions": ("estimators_imdb.json", estimators_conditions),
    "certificates": ("certificates.json", certificates),
    "novelty": ("novelty.json", novelty),
    "novelty_used": ("novelty.json", novelty_used),
    "novelty_conditions": ("novelty.json", novelty_conditions),
    "bundled_conditions": ("bundled_models.json", bundled_conditions),
    **engine.TABLES,
    **policies.TABLES,
    **specialists.TABLES,
    **novel_families.TABLES,
    **injection.TABLES,
    **explanations.TABLES,
    **domains.TABLES,
}

if __name__ == "__main__":
    main()
