"""benchmarks/policies/bundled_policies.py: figures are those that the commands print."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.policies import bundled_policies
from benchmarks.tables import policies
from guardkit.cli.main import main

ROOT = Path(__file__).parents[2]
Record = dict[str, Any]


@pytest.fixture(scope="module")
def record() -> Record:
    stored: Record = json.loads(bundled_policies.RESULTS.read_text("utf-8"))
    return stored


PRINTED = """\
│ ok │ What is the capital of France?  │ injection: allow │ injection: allow │       │
split 'train' of texts.parquet: 1,316 texts
┏━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━━━━━━━━┓
┃ category          ┃ positive ┃ recall ┃ 95% interval     ┃ fpr    ┃ 95% interval     ┃
┡━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━━━━━━━━┩
│ injection-certain │ 1,060    │ 0.1667 │ 0.0677 to 0.2787 │ 0.0000 │ 0.0000 to 0.0638 │
│ other             │ 0        │ -      │                  │ 0.0714 │ 0.0169 to 0.1400 │
└───────────────────┴──────────┴────────┴──────────────────┴────────┴──────────────────┘
"""


def test_figures_are_read_off_what_policy_test_prints() -> None:
    first, second = bundled_policies.measured(PRINTED)
    assert (first["category"], first["positives"]) == ("injection-certain", 1060)
    assert first["recall"] == {"value": 0.1667, "low": 0.0677, "high": 0.2787}
    assert second["recall"]["value"] is None
    assert second["fpr"] == {"value": 0.0714, "low": 0.0169, "high": 0.14}


def test_every_bundled_policy_was_checked_tested_and_passed(record: Record) -> None:
    names = bundled_policies.bundled()
    assert [run["output"].split(":")[0] for run in record["check"]] == [
        f"policies/{name}.yaml" for name in names
    ]
    tested = [(run["policy"], run["set"]) for run in record["test"]]
    assert tested == [(name, data) for name in names for data in bundled_policies.SETS]
    for run in record["test"]:
        passed, of = re.findall(r"^(\d+) of (\d+) passed$", run["output"], flags=re.M)[0]
        assert passed == of
        assert run["categories"] == list(bundled_policies.measured(run["output"]))


def test_policy_check_still_prints_what_is_stored(
    record: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    for run in record["check"]:
        assert main(run["command"].split()[1:]) == 0
        assert capsys.readouterr().out.rstrip() == run["output"]


def test_the_verdict_on_the_backup_is_the_one_that_was_printed(record: Record) -> None:
    for run in record["frontier"]:
        said = "THE BACKUP HELPS" if run["helps"] else "THE BACKUP IS NOT SHOWN TO HELP"
        assert said in run["output"]
        assert run["helps"] == (run["gains"]["specialist"]["low"] > 0)


def test_no_path_of_the_machine_and_few_texts_are_stored(record: Record) -> None:
    outputs = [
        run["output"] for kind in ("check", "test", "diff", "frontier") for run in record[kind]
    ]
    assert not any("/tmp" in output for output in outputs)
    quoted = [run for run in record["diff"] if "routes, old and new" in run["output"]]
    assert [run["set"] for run in quoted] == ["ood_safeguard"]
    assert "4 of" in quoted[0]["output"]


def test_every_set_measured_has_a_title_and_the_page_its_picture() -> None:
    assert set(policies.SETS) == set(bundled_policies.SETS)
    page = (ROOT / "docs" / "results" / "policies.md").read_text("utf-8")
    assert f"]({bundled_policies.PICTURE.name})" in page
    assert bundled_policies.PICTURE.is_file()
