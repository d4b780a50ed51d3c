"""`--scorer` of classify, evaluate and explain, and what `models show` says of scorers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from guardkit.classify.job import Job
from guardkit.cli.main import main
from tests.support.command_folder import Family, install, logits_of, written
from tests.support.fake_models import ScorersFamily, write_model


class Explaining(ScorersFamily, Family):
    """Offers scorers, and explains."""


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ScorersFamily:
    """A folder with a model "rungs", whose cheap scorer is half as sure as its own."""
    cheap = {"scale": 0.5}
    offered = {"rungs": ("own", "cheap", "dear")}
    made = Explaining(logits_of, builtin=tmp_path / "bundled", offered=offered)
    install(tmp_path, monkeypatch, made)
    write_model(tmp_path / "rungs", scorers={"cheap": cheap})
    return made


def test_classify_gives_the_probabilities_of_the_scorer_that_is_named() -> None:
    found = {}
    for scorer in ("own", "cheap"):
        command = ["classify", "in.jsonl", "--model", "rungs", "--scorer", scorer]
        assert main([*command, "--out", f"{scorer}.jsonl"]) == 0
        found[scorer] = [row["probabilities"]["injection"] for row in written(f"{scorer}.jsonl")]
    assert found["own"] == pytest.approx([0.119203, 0.880797], rel=1e-5)
    assert found["cheap"] == pytest.approx([0.268941, 0.731059], rel=1e-5)


def test_a_run_by_another_scorer_is_another_run() -> None:
    assert Job(model="rungs", scorer="cheap").settings()["--scorer"] == "cheap"
    assert "--scorer" not in Job(model="rungs").settings()


def test_evaluate_says_which_scorer_it_measured() -> None:
    rows = [{"text": f"a cake {i}", "label": "benign"} for i in range(10)]
    rows += [{"text": f"an attack {i}", "label": "injection"} for i in range(10)]
    Path("mail.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", "--model", "rungs", "--data", "mail.jsonl", "--json", "r.json"]
    assert main([*command, "--scorer", "cheap"]) == 0
    report = json.loads(Path("r.json").read_text())
    assert (report["scorer"], report["name"]) == ("cheap", "rungs (fake, cheap)")
    assert main(command) == 0
    assert "scorer" not in json.loads(Path("r.json").read_text())


def test_explain_asks_the_scorer_that_is_named(family: ScorersFamily) -> None:
    assert main(["explain", "an attack", "--model", "rungs", "--scorer", "cheap"]) == 0
    assert {model for model, _ in family.calls} == {"rungs/cheap"}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["classify", "in.jsonl", "--scorer", "cheap"], "of which model? give --model"),
        (["evaluate", "--policy", "policy.yaml", "--data", "x", "--scorer", "cheap"],
         "of which model? give --model"),
        (["explain", "a", "--scorer", "cheap"], "of which model? give --model"),
        (["classify", "in.jsonl", "--model", "rungs", "--scorer", "none"],
         "rungs: no scorer 'none'; offered: own, cheap, dear"),
        (["classify", "in.jsonl", "--model", "rungs", "--scorer", "dear"],
         "rungs: its scorer 'dear' is not calibrated"),
    ],
)  # fmt: skip
def test_a_scorer_that_cannot_be_used_is_refused_in_one_line(
    command: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1


def test_models_show_lists_the_scorers_and_which_are_calibrated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["models", "show", "rungs"]) == 0
    assert "own, cheap, dear (not calibrated); the first is the default" in capsys.readouterr().out
