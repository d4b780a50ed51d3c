"""``policies/medical-abstracts.yaml``: its model is made by the command in its comment."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from guardkit.cli.main import main
from guardkit.policy.schema import policies_dir
from guardkit.yamlfile import read_yaml

POLICY = policies_dir() / "medical-abstracts.yaml"
#: Classes without a text of their own among the policy's tests.
OTHERS = {
    "digestive system diseases": "bleeding from gastric ulcer and endoscopy of the bowel in liver "
    "cirrhosis with hepatitis was treated by biliary drainage of the stomach",
    "nervous system diseases": "seizures and epilepsy in children with brain lesions of the spinal "
    "cord and cerebral palsy after stroke with headache and nerve injury",
    "general pathological conditions": "fever and pain after injury of the hip with infection of "
    "wounds in trauma care and edema of unknown cause in the intensive unit",
}
#: So small that it learns these texts in seconds.
SMALL = (
    "hidden_dim=32", "n_blocks=1", "cond_dim=8", "vocab_size=1024", "batch_tokens=1024", "epochs=8",
    "dtype=float32",
)  # fmt: skip


def make_data(path: Path, n: int, seed: int) -> Path:
    """Write abstracts of words that the policy's tests expect to be flagged, and of ``OTHERS``."""
    tests = read_yaml(POLICY.read_bytes()).data["tests"]
    flagged = {c: t["text"] for t in tests for c, action in t["expect"].items() if action == "flag"}
    sentences = {
        **OTHERS,
        "neoplasms": flagged["neoplasms"],
        "cardiovascular diseases": flagged["cardiovascular"],
    }
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(n):
        label = list(sentences)[i % len(sentences)]
        text = " ".join(rng.choice(sentences[label].split(), rng.integers(20, 70)))
        lines.append(json.dumps({"text": text, "label": label}))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the command in the policy's comment was run, on little data."""
    import datasets

    folder = tmp_path_factory.mktemp("medical")
    (folder / "policies").mkdir()
    shutil.copy(POLICY, folder / "policies")
    (command,) = re.findall(r"^#   guardkit (train .*)$", POLICY.read_text("utf-8"), re.M)
    data = make_data(folder / "train.jsonl", 200, 0)
    calibration = make_data(folder / "calibration.jsonl", 120, 1)
    arguments = shlex.split(command.replace("medical-abstracts.csv", str(data)))
    small = [word for option in SMALL for word in ("--set", option)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.chdir(folder)
        assert main([*arguments, *small, "--calibration-data", str(calibration)]) == 0
        yield folder


def test_with_the_model_it_passes_the_tests_written_in_it(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "check", "policies/medical-abstracts.yaml"]) == 0
    assert main(["policy", "test", "policies/medical-abstracts.yaml"]) == 0
    assert "4 of 4 passed" in capsys.readouterr().out


def test_a_text_of_other_words_gets_no_verdict(made: Path) -> None:
    """Without ``abstain_if`` it would be allowed: no class is likely enough to be flagged."""
    strange = ["def main(): print('hello world')", "Whisk three eggs with sugar, then bake."]
    known = make_data(made / "new.jsonl", 50, 2).read_text("utf-8")
    lines = "".join(json.dumps({"text": text}) + "\n" for text in strange)
    (made / "in.jsonl").write_text(lines + known, "utf-8")
    policy = "policies/medical-abstracts.yaml"
    assert main(["classify", "in.jsonl", "--policy", policy, "--out", "out.jsonl"]) == 0
    decisions = [json.loads(line) for line in (made / "out.jsonl").read_text("utf-8").splitlines()]
    assert [d["action"] for d in decisions[:2]] == ["abstain", "abstain"]
    assert all(
        category["action"] == "flag" or category["decided_by"] == "abstain_if"
        for decision in decisions[:2]
        for category in decision["categories"].values()
    )
    assert sum(d["action"] == "abstain" for d in decisions[2:]) <= 5  # 1 in 100, give or take


@pytest.mark.parametrize(
    "command", [["policy", "check"], ["policy", "test"], ["classify", "in.jsonl", "--policy"]]
)
def test_without_the_model_every_command_says_how_to_make_it(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(POLICY, tmp_path)
    (tmp_path / "in.jsonl").write_text('{"text": "hello"}\n')
    assert main([*command, "medical-abstracts.yaml"]) == 2
    out, err = capsys.readouterr()
    folder = tmp_path / "models" / "medical-abstracts"
    assert "error: medical-abstracts.yaml: 1 mistake\n" in err
    assert f": members.topics.model: {folder}: not a guardkit model: no such folder" in err
    assert f"`guardkit train --plugin mdlm --data DATA --out {folder}`" in err
    assert "Traceback" not in err
    assert out == ""
