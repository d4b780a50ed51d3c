"""Every mistake a policy file can hold is reported, all at once, each on its line."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import pytest

from guardkit.errors import PolicyError
from guardkit.model.artefact import NOVELTY
from guardkit.policy.router import check_policy
from tests.support.broken_policies import BROKEN, GOOD, HOSTILE
from tests.support.fake_models import write_model
from tests.support.policy_folder import PolicyFolder, check, policy_folder_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> PolicyFolder:
    return policy_folder_in(tmp_path_factory.mktemp("policies"))


@pytest.mark.parametrize("name", BROKEN)
def test_a_mistake_is_reported_on_its_line(folder: PolicyFolder, name: str) -> None:
    old, new, expected = BROKEN[name]
    assert old in GOOD
    with pytest.raises(PolicyError) as caught:
        check(folder, GOOD.replace(old, new, 1))
    problems = caught.value.problems
    assert sorted((p.line, p.field) for p in problems) == sorted((e[0], e[1]) for e in expected)
    text = str(caught.value)
    for line, field, words in expected:
        assert any(words in p.message for p in problems if (p.line, p.field) == (line, field)), text
    assert f"{folder.path / 'policy.yaml'}:{problems[0].line}: " in text


def test_a_damaged_record_of_novelty_is_reported_on_its_line(
    folder: PolicyFolder, tmp_path: Path
) -> None:
    write_model(tmp_path / "m", novelty=[1.0])
    (tmp_path / "m" / NOVELTY).write_text("[]")
    text = GOOD.replace("models/specialist", str(tmp_path / "m")).replace(
        "action: block", "action: block\n    abstain_if: {member: specialist, novelty_p_below: 0.5}"
    )
    with pytest.raises(PolicyError, match=r":26: .*novelty\.json: not a record of novelty"):
        check(folder, text)


@pytest.mark.parametrize("name", [*BROKEN, *HOSTILE])
def test_a_broken_file_is_refused_in_under_100_ms_and_50_mb(
    folder: PolicyFolder, name: str
) -> None:
    path, plugins = folder.path / "policy.yaml", folder.plugins
    path.write_bytes(HOSTILE.get(name) or GOOD.replace(*BROKEN[name][:2], 1).encode())
    seconds = []
    for _ in range(3):  # the machine may be busy: the best of three
        started = time.process_time()
        with pytest.raises(PolicyError):
            check_policy(path, plugins)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.1
    tracemalloc.start()
    try:
        with pytest.raises(PolicyError):
            check_policy(path, plugins)
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_every_mistake_in_a_file_is_reported_at_once(folder: PolicyFolder) -> None:
    text = GOOD
    for name in (
        "name of a number",
        "unknown audit plugin",
        "no such bundled model",
        "positive covers everything",
        "bounds the wrong way round",
        "unknown combiner",
        "a quorum of none",
        "no action",
        "on_error by a 1.1 habit",
        "a test of no category",
    ):
        old, new, _ = BROKEN[name]
        text = text.replace(old, new, 1)
    text += "extra: &anchor 1\n"
    with pytest.raises(PolicyError) as caught:
        check(folder, text)
    assert [(p.line, p.field.rpartition(".")[2]) for p in caught.value.problems] == [
        (2, "name"),
        (5, "plugins[0]"),
        (8, "model"),
        (10, "action"),
        (11, "positive"),
        (17, "settle"),
        (19, "how"),
        (23, "weights"),
        (24, "quorum"),
        (26, "on_error"),
        (28, "injektion"),
        (29, "extra"),
        (29, "extra"),
    ]
    assert "13 mistakes" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[]", "1", "categories: 1", "members: [a]\ncategories: {a: b, c: [d], e: {decide: 3}}"]
)
def test_a_file_of_another_shape_is_only_a_policy_error(folder: PolicyFolder, text: str) -> None:
    with pytest.raises(PolicyError):
        check(folder, text)
