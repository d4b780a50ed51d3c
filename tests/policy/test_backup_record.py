"""A cascade whose backup is not known to help says so, until it is measured to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from guardkit.policy.backup_record import backup_records_path, read_backup_records, unproven
from guardkit.policy.router import load_policy
from guardkit.tuning.frontier import sweep_policy, write_policy
from tests.support.cascades import CascadeFolder, random_examples
from tests.support.fake_models import write_model


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CascadeFolder:
    return CascadeFolder(tmp_path, monkeypatch)


def test_a_verdict_stands_until_the_cascade_or_a_model_changes(folder: CascadeFolder) -> None:
    path = folder.write()

    def said(policy: Path) -> list[str]:
        router = load_policy(policy, plugins=folder.plugins)
        return list(unproven(router.policy, router.sources))

    assert "has not been shown to help" in said(path)[0]
    write_policy(sweep_policy(path, random_examples(600, 1.0, 4.0), max_fpr=0.05), path)
    assert read_backup_records(path)["injection"].helps
    assert said(path) == []
    path.write_text(path.read_text().replace("name: test", "name: renamed"))
    assert said(path) == []
    write_model(folder.path / "new" / "large", scale=2.0)
    text = path.read_text()
    path.write_text(text.replace("model: large", "model: new/large"))
    assert "was measured before it changed (policy.frontier.json)" in said(path)[0]
    path.write_text(re.sub(r"below: [\d.e-]+", "below: 0.00001", text))
    assert "before it changed" in said(path)[0]
    path.write_text(text)
    assert said(path) == []
    backup_records_path(path).write_text("{")
    assert "has not been shown to help" in said(path)[0]


def test_a_backup_measured_not_to_help_is_told_so(folder: CascadeFolder) -> None:
    path = folder.write()
    write_policy(sweep_policy(path, random_examples(600, 2.0, 0.0), max_fpr=0.05), path)
    router = load_policy(path, plugins=folder.plugins)
    (line,) = unproven(router.policy, router.sources)
    assert line.startswith("category 'injection': its backup was not shown to help where it was")


def test_a_cascade_of_one_classifier_has_no_backup_to_prove(folder: CascadeFolder) -> None:
    stages = """- pattern: {{re2: MARK}}
        - combine: {{how: any, of: [{{member: specialist}}, {{member: backup}}]}}"""
    router = load_policy(folder.write(stages=stages), plugins=folder.plugins)
    assert list(unproven(router.policy, router.sources)) == []
