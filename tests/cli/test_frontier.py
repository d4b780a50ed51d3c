"""``guardkit policy frontier``, and what other commands say of a backup."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from guardkit.cli.main import main
from guardkit.policy.backup_record import read_backup_records
from guardkit.tuning.frontier import sweep_policy, write_policy
from guardkit.types import Examples
from tests.support.cascades import CascadeFolder, random_examples


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CascadeFolder:
    monkeypatch.chdir(tmp_path)
    return CascadeFolder(tmp_path, monkeypatch)


def write_rows(path: Path, data: Examples) -> None:
    labels = [data.label_names[y] for y in data.labels_N]
    rows = [{"text": t, "label": y} for t, y in zip(data.texts, labels, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: CascadeFolder, data: Examples, *options: str) -> int:
    folder.write()
    write_rows(folder.path / "mail.jsonl", data)
    given = ["policy", "frontier", "policy.yaml", "--data", "mail.jsonl", "--cache", "cache"]
    return main([*given, "--max-fpr", "0.05", *options])


def test_policy_frontier_shows_the_choice_and_draws_it(
    here: CascadeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(here, random_examples(600, 1.0, 4.0), "--out", "drawn", "--write", "best.yaml") == 0
    out = capsys.readouterr().out
    assert "THE BACKUP HELPS: recall over specialist alone" in out
    assert "specialist alone" in out
    assert "On texts it was not chosen on" in out
    assert "the policy is in best.yaml" in out
    assert "the verdict on its backup is in best.frontier.json" in out
    record = json.loads(Path("drawn/frontier.json").read_text())
    assert record["helps"] is True
    assert record["costs"]["backup"]["scored"] == 600
    assert len(record["points"]) > 50
    root = ElementTree.parse("drawn/frontier.svg").getroot()
    circles = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(circles) > len(record["points"])
    assert {e.get("class") for e in circles} == {"tried", "shown", "single", "file", "chosen"}


def test_policy_frontier_says_plainly_that_a_backup_does_not_help(
    here: CascadeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.certificates.json").write_text("{}")
    assert run(here, random_examples(600, 2.0, 0.0), "--write", "bad.yaml") == 0
    out = capsys.readouterr().out
    assert "THE BACKUP IS NOT SHOWN TO HELP" in out
    assert "`decide: {member: specialist}` is simpler and cheaper" in out
    assert "bad.certificates.json no longer fits; run `guardkit policy certify bad.yaml`" in out
    assert read_backup_records(Path("bad.yaml"))["injection"].helps is False


def test_classify_notes_once_that_a_backup_is_unproven(
    here: CascadeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    here.write()
    Path("in.txt").write_text("1 1\n2 2\n")
    assert main(["classify", "in.txt", "--policy", "policy.yaml"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("note: category 'injection': its backup has not been shown") == 1
    assert len(captured.out.splitlines()) == 2


def test_policy_check_and_test_note_once_that_a_backup_is_unproven(
    here: CascadeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here.write()
    tests = 'tests: [{text: "1 1", expect: {injection: block}}]\n'
    path.write_text(path.read_text() + tests)
    note = "note: category 'injection': its backup has not been shown to help"
    assert main(["policy", "check", "policy.yaml"]) == 0
    checked = capsys.readouterr()
    assert checked.out.splitlines()[1].startswith(note)
    assert (checked.out + checked.err).count(note) == 1
    assert main(["policy", "test", "policy.yaml"]) == 0
    assert capsys.readouterr().err.count(note) == 1
    write_policy(sweep_policy(path, random_examples(600, 1.0, 4.0), max_fpr=0.05), path)
    assert main(["policy", "check", "policy.yaml"]) == 0
    assert "note:" not in capsys.readouterr().out
