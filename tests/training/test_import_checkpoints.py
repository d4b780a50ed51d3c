"""The import flow: what becomes of checkpoints, with and without text to calibrate on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from guardkit.cli.main import main
from guardkit.model import artefact
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.loaded import load_model
from guardkit.types import Progress, SupportsImport
from tests.support.fake_models import FakeFamily, plugins_of

CLASSES = ["--class", "ham=old/ham.ckpt", "--class", "spam=old/spam.ckpt"]
IMPORT = ["models", "import", "--family", "fake", "--out", "new"]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: str = "ema"
    tokenizer: str = "gpt2"
    size: int = 3


class Family(FakeFamily):
    """Imports anything but what is named broken."""

    import_config = Options

    def __init__(self) -> None:
        super().__init__(lambda model, text: [0.0, 4.0 * text.count("win") - 2.0])
        self.imported: list[tuple[Mapping[str, str], Options]] = []

    def import_checkpoints(
        self, checkpoints: Mapping[str, str], config: Options, out: Path, *, progress: Progress
    ) -> Path:
        self.imported.append((checkpoints, config))
        for number, place in enumerate(checkpoints.values()):
            progress("import", number, len(checkpoints))
            (out / f"{number}.safetensors").touch()
            if "broken" in place:
                raise ValueError("half read")
        network = ArtefactConfig(family="fake", labels=list(checkpoints), network={})
        artefact.write_json(out / artefact.CONFIG, network)
        return out


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    family = Family()
    found = plugins_of(family, FakeFamily(lambda model, text: [0.0, 0.0], name="plain"))
    for module in (
        "model.loaded",
        "training.import_checkpoints",
        "plugins",
    ):  # its source last: it is read at import
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: found)
    monkeypatch.chdir(tmp_path)
    return family


def write(path: str, labels: Sequence[str] = ("ham", "spam")) -> str:
    text = {"ham": "a letter", "spam": "win win", "eggs": "an omelette"}
    rows = [{"text": f"{text[x]} {i}", "label": x} for i in range(20) for x in labels]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_flow_is_for_families_that_have_the_method(family: Family) -> None:
    assert isinstance(family, SupportsImport)
    assert not isinstance(FakeFamily(lambda model, text: [0.0]), SupportsImport)


def test_checkpoints_become_a_calibrated_sealed_model(
    family: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = ["--calibration-data", write("held-out.jsonl")]
    options = ["--weights", "raw", "--tokenizer", "here", "--set", "size=5"]
    assert main([*IMPORT, *CLASSES, *calibration, *options]) == 0
    out, _ = capsys.readouterr()
    assert "calibration: 40 texts" in out
    assert out.endswith("try: guardkit classify FILE --model new\n")
    checkpoints, config = family.imported[0]
    assert list(checkpoints.items()) == [("ham", "old/ham.ckpt"), ("spam", "old/spam.ckpt")]
    assert config == Options(weights="raw", tokenizer="here", size=5)
    model = load_model("new")  # its hashes hold
    p = model.probabilities(["a letter", "win win"])[:, 1]
    assert p[0] < 0.2 < 0.8 < p[1]
    assert "| calibration | 40 |" in Path("new", artefact.CARD).read_text()
    assert [p.name for p in Path().iterdir() if p.name.startswith(".")] == []


def test_without_text_to_calibrate_on_a_model_says_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*IMPORT, *CLASSES]) == 0
    assert "Import it again with --calibration-data" in capsys.readouterr().out
    assert main(["models", "verify", "new"]) == 0
    assert main(["models", "show", "new"]) == 0
    assert "--calibration-data SPEC" in capsys.readouterr().out
    data = write("test.jsonl")
    for command in (["evaluate", "--data", data], ["classify", data]):
        assert main([*command, "--model", "new"]) == 2
        assert "--calibration-data" in capsys.readouterr().err


def test_the_card_opens_with_what_its_author_states() -> None:
    Path("card.md").write_text("## Data\n\nLetters of ours.\n")
    assert main([*IMPORT, *CLASSES, "--card", "card.md"]) == 0
    assert "Letters of ours." in Path("new", artefact.CARD).read_text()


def test_a_checkpoint_that_fails_leaves_nothing_behind(family: Family) -> None:
    classes = ["--class", "ham=ok", "--class", "spam=broken"]
    before = sorted(Path().iterdir())
    assert main([*IMPORT, *classes]) == 3
    assert len(family.imported) == 1
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*IMPORT, "--class", "ham=a"], "1 given; a classifier has two labels at least"),
        ([*IMPORT, "--class", "ham"], "--class ham: expected LABEL=CHECKPOINT"),
        ([*IMPORT, "--class", "=a"], "--class =a: expected LABEL=CHECKPOINT"),
        ([*IMPORT, *CLASSES, "--class", "ham=b"], "given twice"),
        ([*IMPORT, *CLASSES, "--set", "size=x"], "options of fake import:\n  size: .*'x'"),
        ([*IMPORT, *CLASSES, "--set", "sise=1"], "sise: no such option; fake import has weights"),
        ([*IMPORT, *CLASSES, "--family", "plain"], "plugin 'plain' imports no checkpoints"),
        ([*IMPORT, *CLASSES, "--out", "old"], "old: exists already"),
        ([*IMPORT, *CLASSES, "--calibration-data", "ham.jsonl"], "no example labelled 'spam'"),
        ([*IMPORT, *CLASSES, "--calibration-data", "eggs.jsonl"], r"\['eggs'\] are not the model"),
    ],
)
def test_a_mistake_is_named_before_any_work(
    family: Family, capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    Path("old").mkdir()
    write("ham.jsonl", ["ham"])
    write("eggs.jsonl", ["ham", "spam", "eggs"])
    assert main(args) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not family.imported
    assert not Path("new").exists()
