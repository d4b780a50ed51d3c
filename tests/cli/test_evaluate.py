"""`guardkit evaluate`: numbers, JSON and the report."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import guardkit
from guardkit.cli.main import main
from guardkit.model import artefact
from guardkit.plugins import Plugins
from tests.support.command_folder import install


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    return install(tmp_path, monkeypatch)


def labelled(path: str, n: int = 40) -> str:
    rows = [
        {
            "text": f"{'an attack' if i % 2 else 'a cake'} {i}",
            "label": ("benign", "injection")[i % 2],
        }
        for i in range(n)
    ]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.usefixtures("own_cache")
def test_evaluate_shows_and_writes_the_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    data = labelled("mail.jsonl")
    assert main(["evaluate", "--model", "model", "--data", data, "--json", "report.json"]) == 0
    out, err = capsys.readouterr()
    assert "40 texts (positive: injection)" in out
    assert re.search(r"accuracy +│ 1\.0000 │ 1\.0000 to 1\.0000", out)
    assert "evaluating on split 'train' of mail.jsonl" in err
    report = json.loads(Path("report.json").read_text())
    assert report["metrics"]["accuracy"]["value"] == 1.0
    assert report["model_hash"] == artefact.model_hash(Path("model"))


@pytest.mark.usefixtures("own_cache")
def test_evaluate_measures_a_policy(capsys: pytest.CaptureFixture[str]) -> None:
    data = labelled("mail.jsonl")
    args = ["evaluate", "--policy", "policy.yaml", "--data", data, "--json", "report.json"]
    assert main(args) == 0
    out, _ = capsys.readouterr()
    assert "injection: 40 texts, 20 positive (injection)" in out
    assert re.search(r"only +│ 100\.0%", out)
    report = json.loads(Path("report.json").read_text())
    assert report["categories"]["injection"]["metrics"]["fpr"]["value"] == 0.0
    assert report["models"] == {"only": artefact.model_hash(Path("model"))}


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("of", [["--model", "model"], ["--policy", "policy.yaml"]])
def test_evaluate_writes_a_report(of: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    data = labelled("mail.jsonl")
    args = ["evaluate", *of, "--data", data, "--report", "new/report"]
    assert main([*args, "--json", "numbers.json"]) == 0
    out, _ = capsys.readouterr()
    assert "the report is new/report/report.html" in out
    assert re.search(r"40 texts in \d+\.\d s: [\d,]+ texts/s, [\d.]+ ms per text", out)
    page = Path("new/report/report.html").read_text("utf-8")
    assert "Measured on <bdi>mail.jsonl</bdi>, split <bdi>train</bdi>: 40 labelled texts" in page
    full = json.loads(Path("new/report/report.json").read_text())
    numbers = json.loads(Path("numbers.json").read_text())
    categories = numbers.pop("categories", {})
    assert numbers.items() <= full.items()
    for name, category in categories.items():
        assert category.items() <= full["categories"][name].items()
    assert full["guardkit"] == guardkit.__version__
    assert full["data_hash"] == numbers["data_hash"]


@pytest.mark.usefixtures("own_cache")
def test_a_report_quotes_no_text_where_none_is_wanted() -> None:
    rows = [{"text": f"an attack on SECRET {i}", "label": "benign"} for i in range(12)]
    Path("mail.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ["evaluate", "--model", "model", "--data", "mail.jsonl", "--report", "report"]
    files = [Path("report/report.html"), Path("report/report.json")]
    assert main(args) == 0
    assert all("SECRET" in file.read_text("utf-8") for file in files)
    assert main([*args, "--no-texts"]) == 0
    assert not any("SECRET" in file.read_text("utf-8") for file in files)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("of", [["--model", "model"], ["--policy", "policy.yaml"]])
def test_invariances_add_a_table_to_the_output_the_json_and_the_report(
    of: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["evaluate", *of, "--data", labelled("mail.jsonl"), "--report", "report"]
    args += ["--json", "numbers.json"]
    assert main(args) == 0
    assert "must not flip" not in capsys.readouterr().out
    without = json.loads(Path("numbers.json").read_text())
    assert main([*args, "--invariances", "--invariance-texts", "7"]) == 0
    out, err = capsys.readouterr()
    assert "must not flip a verdict: 7 of 20 benign, 7 of 20 injection texts" in out
    assert "--invariance-texts 7" in out
    assert re.search(r"any of these +│ 14", out)
    assert "invariances 0/" in err
    assert "Changes that must not flip a verdict" in Path("report/report.html").read_text("utf-8")
    found = json.loads(Path("numbers.json").read_text())
    parts = list(found.get("categories", {"": found}).values())
    rows = parts[0].pop("invariances")["transforms"]
    assert rows["upper case"]["to_passed"]["value"] == 1.0  # `attack` is found in small letters
    assert list(found) == list(without)


def test_a_number_of_texts_for_no_change_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["evaluate", "--model", "model", "--data", "mail.jsonl", "--invariance-texts", "5"]
    assert main(args) == 2
    assert "--invariance-texts 5: no text is to be changed; give --invariances" in (
        capsys.readouterr().err
    )
