"""The command line: what it prints where, and which code it exits with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_models import FakeClassifier, FakeFamily, plugins_of, write_model

import guardkit
from guardkit import artefact
from guardkit.cli import app, main
from guardkit.errors import OutputError, TrainingInterrupted
from guardkit.plugins import Plugins
from guardkit.types import Evidence, RawScores

POLICY = """\
version: 1
name: test
members:
  only: {plugin: fake, model: model}
categories:
  injection:
    positive: [injection]
    decide: {member: only}
    flag_at: {probability: 0.5}
    action: flag
tests:
  - {text: "an attack", expect: {injection: flag}}
  - {text: "a cake", expect: {injection: allow}}
"""
TRAIN = ["train", "--plugin", "fake", "--data", "reviews/", "--out", "new"]


def answer(model: str, text: str) -> list[float]:
    if "BROKEN" in text:
        raise ValueError("cannot score this")
    return [0.0, 2.0 if "attack" in text else -2.0]


class Explaining(FakeClassifier):
    """Gives each word evidence: attack speaks for injection, the others against it."""

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        scores = super().score(texts)
        if not evidence:
            return scores
        found = []
        for text in texts:
            words = list(re.finditer(r"\S+", text))
            values = [[0.0, 1.5 if word.group() == "attack" else -0.5] for word in words]
            spans = [word.span() for word in words]
            found.append(Evidence("posterior", spans, np.array(values, np.float32)))
        return replace(scores, evidence=found)


class Family(FakeFamily):
    def load(self, path: Path, *, device: str, backend: str) -> Explaining:
        loaded = super().load(path, device=device, backend=backend)
        return Explaining(self, loaded.id, loaded.labels)


@pytest.fixture(autouse=True)
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    """Work in a folder with a model and a policy, with one plugin installed and one broken."""
    family = Family(answer, builtin=tmp_path / "bundled")
    write_model(tmp_path / "bundled" / "injection")
    write_model(tmp_path / "model")
    found = plugins_of(family, broken={"torn": "ImportError: No module named 'torn'"})
    for module in (
        "models",
        "router",
        "engine",
        "train",
        "plugins",
    ):  # its source last: read at import
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: found)
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(POLICY)
    Path("in.jsonl").write_text('{"text": "a cake"}\n{"text": "an attack", "id": "x", "k": [1]}\n')
    return found


def written(path: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_classify_writes_decisions_and_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "in.jsonl", "--policy", "policy.yaml"]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["action"] for line in out.splitlines()] == ["allow", "flag"]
    assert re.fullmatch(r"2 lines in [\d.]+ s \([\d,]+ texts/s\): 1 allow, 1 flag\n", err)


def test_classify_into_a_file_keeps_fields(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["classify", "in.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl", "--keep", "k"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("-> out.jsonl\n")
    assert [line.get("k") for line in written()] == [None, [1]]


def test_a_terminal_sees_progress_where_it_does_not_run_into_the_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    args = ["classify", "in.jsonl", "--policy", "policy.yaml"]
    assert main([*args, "--out", "out.jsonl"]) == 0
    assert "classify" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(args) == 0
    assert capsys.readouterr().err.startswith("2 lines in")


def test_classify_with_a_model_gives_probabilities(capsys: pytest.CaptureFixture[str]) -> None:
    for model in ("model", "builtin:injection"):
        assert main(["classify", "in.jsonl", "--model", model, "--out", "out.jsonl"]) == 0
        assert [line["probabilities"]["injection"] for line in written()] == [0.119203, 0.880797]
    assert "action" not in written()[0]


@pytest.mark.parametrize("judge", [["--model", "model"], ["--policy", "policy.yaml"]])
def test_classify_runs_models_on_the_backend_it_is_given(
    judge: list[str], plugins: Plugins, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, backends = plugins.families["fake"], []
    load = family.load

    def noting(path: Path, *, device: str, backend: str) -> Any:
        backends.append(backend)
        return load(path, device=device, backend=backend)

    monkeypatch.setattr(family, "load", noting)
    assert main(["classify", "in.jsonl", *judge, "--backend", "onnx"]) == 0
    assert backends == ["onnx"]


@pytest.mark.parametrize(
    ("lines", "fail_on", "code"),
    [
        (['{"text": "a cake"}'], None, 0),
        (['{"text": "a cake"}'], "flag", 0),
        (['{"text": "an attack"}'], None, 0),
        (['{"text": "an attack"}'], "flag", 1),
        (['{"text": "an attack"}'], "abstain", 0),
        (['{"text": "an attack"}'], "block", 0),
        (["not json"], None, 3),
        (['{"text": "BROKEN"}'], None, 3),
        (["not json", '{"text": "an attack"}'], "flag", 3),
    ],
)
def test_the_exit_code_says_how_a_run_ended(
    lines: list[str], fail_on: str | None, code: int
) -> None:
    Path("in.jsonl").write_text("\n".join(lines))
    args = ["classify", "in.jsonl", "--policy", "policy.yaml", "--out", "out.jsonl"]
    assert main(args + (["--fail-on", fail_on] if fail_on else [])) == code
    assert len(written()) == len(lines)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["classify"], "Missing argument"),
        (["classify", "in.jsonl", "--nonsense"], "No such option"),
        (["classify", "in.jsonl", "--fail-on", "maybe"], "--fail-on"),
        (["nonsense"], "No such command"),
        (["classify", "none.jsonl", "--policy", "policy.yaml"], "error: none.jsonl: cannot be op"),
        (["classify", "in.jsonl", "--policy", "none.yaml"], "none.yaml"),
        (["classify", "in.jsonl", "--model", "none"], "not a guardkit model: no such folder"),
        (
            ["classify", "in.jsonl", "--model", "model", "--policy", "policy.yaml"],
            "error: give --policy or --model, not both",
        ),
        (["classify", "in.jsonl", "--model", "model", "--fail-on", "flag"], "--fail-on needs a po"),
        (["classify", "in.jsonl", "--out", "in.jsonl"], "error: --out in.jsonl: is the input its"),
        (["classify", "in.jsonl", "--keep", "action"], "error: --keep action: the output has a f"),
        (["evaluate", "--data", "x.csv"], "error: give one of --model and --policy"),
        (
            ["evaluate", "--data", "x.csv", "--model", "model", "--no-texts"],
            "error: --no-texts: there is no report to leave them out of; give --report DIR",
        ),
        (["evaluate", "--data", "x.csv", "--model", "model"], "error: x.csv: no such file"),
        (
            ["train", "--plugin", "fake", "--data", "x", "--out", "o", "--set", "a"],
            "error: --set a: expected KEY=VALUE",
        ),
        (["train", "--plugin", "torn", "--data", "x", "--out", "o"], "No module named 'torn'"),
        ([*TRAIN, "--config", "none.yaml"], "'none.yaml' does not exist"),
        (
            ["evaluate", "--data", "x.csv", "--model", "model", "--json", "none/r.json"],
            "error: --json none/r.json: no such folder",
        ),
        (["models", "verify", "."], "has no config.json"),
        (
            ["models", "show", "builtin:none"],
            "no such bundled model; bundled: builtin:fake/injection",
        ),
    ],
)
def test_a_mistake_exits_with_2_and_says_what_is_wrong(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_other_failures_exit_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr("guardkit.batch.classify", fail)
    args = ["classify", "in.jsonl", "--policy", "policy.yaml"]
    failure: Exception = OutputError("out.jsonl: cannot be written: No space left on device")
    assert main(args) == 3
    assert capsys.readouterr().err == f"error: {failure}\n"
    monkeypatch.setenv("GUARDKIT_TRACEBACK", "1")
    assert main(args) == 3
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.delenv("GUARDKIT_TRACEBACK")
    failure = KeyError("a bug")
    assert main(args) == 3
    assert "KeyError: 'a bug'" in capsys.readouterr().err
    failure = KeyboardInterrupt()  # type: ignore[assignment]
    assert main(args) == 130


def test_a_reader_that_has_gone_ends_the_run_quietly(tmp_path: Path) -> None:
    Path("many.jsonl").write_text('{"text": "a cake"}\n' * 5000)
    script = (
        "import sys, guardkit.router, guardkit.models, test_cli\n"
        "from pathlib import Path\n"
        "plugins = test_cli.plugins_of(test_cli.Family(test_cli.answer))\n"
        "guardkit.router.installed_plugins = lambda: plugins\n"
        "sys.exit(test_cli.main(['classify', 'many.jsonl', '--policy', 'policy.yaml']))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stderr is not None
        assert json.loads(run.stdout.readline())["action"] == "allow"
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141


Call = dict[str, Any]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Replace the training by one that remembers how it was called."""
    from guardkit.train import TrainResult

    calls: list[Call] = []

    def train_model(plugin: str, data: str, out: Path, **options: Any) -> TrainResult:
        calls.append({"plugin": plugin, "data": data, "out": out, **options})
        options["progress"]("train", 1, 2, "loss 0.5")
        metrics = {"accuracy": {"value": 0.9, "low": 0.85, "high": 0.95}}
        return TrainResult(out, {"data": {}, "test": {"n": 1234, "metrics": metrics}})

    monkeypatch.setattr("guardkit.train.train_model", train_model)
    return calls


def test_train_passes_its_options_on_and_shows_what_was_measured(
    trained: list[Call], capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--preset", "tiny", "--set", "steps=5", "--set", "note=a=b", "--resume"]
    assert main([*TRAIN, *more, "--init", "model", "--device", "cpu"]) == 0
    (call,) = trained
    assert (call["plugin"], call["data"], call["out"]) == ("fake", "reviews/", Path("new"))
    assert (call["preset"], call["init"], call["device"]) == ("tiny", "model", "cpu")
    assert call["overrides"] == {"steps": "5", "note": "a=b"}
    assert call["resume"] is True
    assert call["config_file"] is call["pretrain_data"] is call["calibration_data"] is None
    out, err = capsys.readouterr()
    assert "test: 1,234 texts" in out
    assert "0.8500 to 0.9500" in out
    assert "guardkit classify FILE --model new" in out
    assert err == "train 1/2 loss 0.5\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_training_between_steps_and_the_second_would_kill(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = []

    def train_model(*_: Any, progress: Any, **__: Any) -> None:
        progress("train", 3, 10)
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
        try:
            progress("train", 4, 10)
        except TrainingInterrupted:
            saved.append(4)
            raise

    monkeypatch.setattr("guardkit.train.train_model", train_model)
    before = signal.getsignal(number)
    assert main(TRAIN) == 130
    assert saved == [4]
    assert signal.getsignal(number) == before
    assert capsys.readouterr().err.splitlines()[-1] == (
        "training stopped (train 4 of 10); the same command with --resume goes on from here"
    )


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


def test_explain_shows_what_each_token_adds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["explain", "an attack \x1b[31m", "--model", "model"]) == 0
    out, _ = capsys.readouterr()
    assert "probabilities: benign 0.119, injection 0.881" in out
    assert "evidence for 'injection' (posterior)" in out
    assert re.search(r"'attack' +│ \+1\.500", out)
    assert re.search(r"'an' +│ -0\.500", out)
    assert "\x1b" not in out  # a text cannot drive the terminal
    monkeypatch.setattr("guardkit.router.policies_dir", Path)
    Path("default.yaml").write_text(POLICY)
    assert main(["explain", "a cake"]) == 0
    assert "injection 0.119" in capsys.readouterr().out


def test_policy_check_lists_every_mistake_and_loads_no_model(
    plugins: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "check", "policy.yaml"]) == 0
    assert capsys.readouterr().out == (
        "policy.yaml: ok: 'test'; categories: injection; members: only\n"
    )
    bad = POLICY.replace("action: flag", "action: shout").replace("version: 1", "version: 7")
    Path("bad.yaml").write_text(bad)
    assert main(["policy", "check", "bad.yaml"]) == 2
    err = capsys.readouterr().err
    assert "error: bad.yaml: 2 mistakes" in err
    assert "bad.yaml:1: version" in err
    assert "bad.yaml:10: categories.injection.action" in err
    family = plugins.families["fake"]
    assert isinstance(family, Family)
    assert family.loads == []


def test_policy_test_runs_the_tests_of_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "test", "policy.yaml"]) == 0
    assert "2 of 2 passed" in capsys.readouterr().out
    Path("policy.yaml").write_text(POLICY.replace("injection: allow", "injection: flag"))
    assert main(["policy", "test", "policy.yaml"]) == 1
    out, _ = capsys.readouterr()
    assert re.search(r"FAILED │ a cake +│ injection: flag +│ injection: allow", out)
    assert "1 of 2 passed" in out
    Path("policy.yaml").write_text(POLICY[: POLICY.index("tests:")])
    assert main(["policy", "test", "policy.yaml"]) == 2
    assert "has no tests" in capsys.readouterr().err


def test_models_are_listed_shown_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert re.search(r"builtin:fake/injection │ fake +│ benign, injection", capsys.readouterr().out)
    assert main(["models", "show", "builtin:injection"]) == 0
    assert "It has no model card." in capsys.readouterr().out
    (Path("model") / artefact.CARD).write_text("# A card\n\nIt is small.\n")
    assert main(["models", "verify", "model"]) == 2
    assert "README.md: in the folder but not in SHA256SUMS" in capsys.readouterr().err
    artefact.seal(Path("model"))
    assert main(["models", "show", "model"]) == 0
    assert "It is small." in capsys.readouterr().out
    assert main(["models", "verify", "model"]) == 0
    digest = artefact.model_hash(Path("model"))
    assert capsys.readouterr().out == f"{Path('model').resolve()}: ok, {digest}\n"


def test_plugins_are_listed_with_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["plugins"], ["plugins", "list"]):
        assert main(args) == 0
        out, _ = capsys.readouterr()
        assert re.search(r"fake +│ fake 1", out)
        assert "No module named 'torn'" in out
        assert "fake: answers from a table (presets: none)" in out


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"guardkit {guardkit.__version__}\n"
    commands = [[c.name or c.callback.__name__] for c in app.registered_commands if c.callback]
    groups = [(g.name, g.typer_instance) for g in app.registered_groups]
    commands += [[str(name), str(c.name)] for name, g in groups if g for c in g.registered_commands]
    assert ["policy", "check"] in commands
    for command in commands:
        assert main([*command, "--help"]) == 0
        example = re.search(r"Example: (.*\s.*)", capsys.readouterr().out)
        assert example, command
        assert example[1].startswith(f"guardkit {' '.join(command)}")


def test_help_answers_within_half_a_second() -> None:
    def seconds() -> float:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "guardkit", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 0.5
