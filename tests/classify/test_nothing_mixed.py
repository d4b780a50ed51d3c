"""A run's policy, models and input are what its manifest says, whenever a process reads them."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardkit.classify import engine, shards, worker
from guardkit.classify.engine import classify_into
from guardkit.classify.job import Job
from guardkit.classify.manifest import Manifest
from guardkit.classify.shards import Input
from guardkit.errors import ArtefactError, ChangedError
from guardkit.model import loaded
from guardkit.types import Row
from tests.support.fake_models import FakeFamily, plugins_of, write_model

POLICY = """
version: 1
name: lazy
members: {only: {plugin: fake, model: model}, late: {plugin: fake, model: late}}
categories:
  injection:
    positive: [injection]
    decide:
      cascade:
        - {member: only, settle: {below: 0.2, above: 0.8}}
        - {member: late}
    flag_at: {probability: 0.5}
    action: flag
"""
JOB = Job(policy="policy.yaml")


def answer(model: str, text: str) -> list[float]:
    unsure = model == "model" and "UNSURE" in text
    return [0.0, 0.0 if unsure else (2.0 if "attack" in text else -2.0)]


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFamily:
    """Work in a folder with two models, the second asked from the third shard on."""
    family = FakeFamily(answer)
    for module in ("model.loaded", "policy.router", "classify.job"):
        monkeypatch.setattr(f"guardkit.{module}.installed_plugins", lambda: plugins_of(family))
    monkeypatch.setattr(shards, "SHARD_ROWS", 7)
    monkeypatch.chdir(tmp_path)
    write_model(Path("model"))
    write_model(Path("late"))
    Path("policy.yaml").write_text(POLICY, "utf-8")
    texts = [f"a cake {i}" for i in range(14)] + [f"UNSURE {i}" for i in range(14)]
    Path("in.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    return family


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object], at: int = 0) -> None:
    """Do ``change`` just before shard ``at`` is read."""
    read = worker.Worker.read

    def reading(self: worker.Worker, shard: shards.Shard) -> Any:
        if shard.index == at:
            change()
        return read(self, shard)

    monkeypatch.setattr(worker.Worker, "read", reading)


def another(model: str) -> None:
    shutil.rmtree(model)
    write_model(Path(model), scale=2.0)


def stopped(source: str = "in.jsonl", job: Job = JOB) -> str:
    with pytest.raises(ChangedError) as error:
        classify_into(Path("out.jsonl"), Input(source), replace(job))
    assert not Path("out.jsonl").exists()
    return str(error.value)


def test_a_model_swapped_before_its_lazy_load_stops_the_run_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meanwhile(monkeypatch, lambda: another("late"))
    assert stopped().startswith(f"{Path('late').resolve()}: has changed since this run began")


def test_a_model_damaged_before_its_lazy_load_stops_the_run_by_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    damaged = Path("late/calibration.json")
    meanwhile(monkeypatch, lambda: damaged.write_text(damaged.read_text() + " "))
    assert stopped().startswith(f"{damaged.resolve()}: its SHA-256 is not the one in SHA256SUMS")


def test_a_model_of_the_shadow_policy_stops_the_run_too(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("shadow.yaml").write_text(POLICY.replace("name: lazy", "name: shadow"), "utf-8")
    Path("policy.yaml").write_text(POLICY.replace("model: late", "model: model"), "utf-8")
    meanwhile(monkeypatch, lambda: another("late"))
    said = stopped(job=Job(policy="policy.yaml", shadow="shadow.yaml"))
    assert said.startswith(f"{Path('late').resolve()}: has changed")


def test_the_model_of_a_run_with_a_model_alone_is_the_one_it_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meanwhile(monkeypatch, lambda: another("model"))
    assert stopped(job=Job(model="model")).startswith(f"{Path('model').resolve()}: has changed")


def test_a_process_that_reads_another_policy_stops_the_run_by_name() -> None:
    Path("policy.yaml").write_text(POLICY.replace("0.5", "0.6"), "utf-8")
    began_with = replace(JOB).settings()
    Path("policy.yaml").write_text(POLICY, "utf-8")
    with pytest.raises(ChangedError, match=r"policy.yaml: has changed since this run began"):
        replace(JOB).load(began_with)  # a worker's own copy reads the file again


@pytest.mark.parametrize("keep_times", [False, True])
def test_an_input_edited_in_place_stops_the_run_by_name(
    keep_times: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("in.jsonl")

    def edit() -> None:
        times = path.stat()
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(b"UNSURE 8"))
            file.write(b"unsure 8")  # not a line and not a byte more
        if keep_times:
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    meanwhile(monkeypatch, edit)
    assert stopped().startswith("in.jsonl, lines 22 to 28: has changed since this run began")


@pytest.mark.parametrize("name", ["in.jsonl", "in.txt"])
def test_an_input_edited_and_put_back_while_it_is_read_stops_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(name)
    path.write_bytes(before := Path("in.jsonl").read_bytes())
    read_lines = shards.read_lines

    def reading(*place: Any, **how: Any) -> list[Row]:
        path.write_bytes(before.replace(b"cake 3", b"CAKE 3"))
        rows = list(read_lines(*place, **how))
        path.write_bytes(before)
        return rows

    monkeypatch.setattr(shards, "read_lines", reading)
    assert stopped(name).startswith(f"{name}, lines 1 to 7: has changed")


def test_an_input_that_lost_lines_stops_the_run_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("in.jsonl")
    meanwhile(monkeypatch, lambda: path.write_bytes(path.read_bytes()[:-40]), at=1)
    assert stopped().startswith("in.jsonl, lines 22 to 28: has changed")


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl.gz"])
def test_an_input_that_is_read_from_its_start_is_checked_as_it_is_read(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"text number {i}" for i in range(28)]
    csv = ("text\n" + "\n".join(lines) + "\n").encode()
    jsonl = Path("in.jsonl").read_bytes()
    whole = csv if name.endswith("csv") else gzip.compress(jsonl)
    Path(name).write_bytes(whole)
    begin = engine._begin_or_go_on

    def then_edit(*args: Any) -> None:
        begin(*args)
        other = csv.replace(b"number 9", b"numbre 9") if name.endswith("csv") else \
            gzip.compress(jsonl.replace(b"cake 9", b"kace 9"))  # fmt: skip
        Path(name).write_bytes(other)

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_begin_or_go_on", then_edit)
        assert stopped(name).startswith(f"{name}: has changed since this run began")
    Path(name).write_bytes(whole)
    os.chmod(name, 0o600)  # a mode or a link more is no other content
    assert (
        classify_into(Path("out.jsonl"), Input(name), replace(JOB), resume=True).summary.rows == 28
    )


def test_a_model_that_changes_while_it_is_loaded_is_refused(
    family: FakeFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = family.load

    def slowly(path: Path, **how: Any) -> Any:
        write_model(Path("new"), scale=2.0)
        shutil.copy("new/calibration.json", path / "calibration.json")
        return load(path, **how)

    monkeypatch.setattr(family, "load", slowly)
    with pytest.raises(ArtefactError, match="was changed while it was loaded"):
        loaded.load_model("model")


@pytest.fixture
def with_environment(family: FakeFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family, "environment", ("FAKE_KEY",), raising=False)
    monkeypatch.setenv("FAKE_KEY", "secret")


@pytest.mark.usefixtures("with_environment")
@pytest.mark.parametrize("job", [JOB, Job(model="model")])
def test_a_run_keeps_a_hash_of_the_variables_its_models_depend_on(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(job)  # which has read no policy yet
    kept = job.settings()
    assert kept["FAKE_KEY"] == "2bb80d537b1d"  # sha256("secret")
    assert "secret" not in json.dumps(kept)
    monkeypatch.delenv("FAKE_KEY")
    assert job.settings()["FAKE_KEY"] is None


@pytest.mark.usefixtures("with_environment")
def test_a_variable_that_no_model_of_the_run_declares_is_not_kept() -> None:
    Path("policy.yaml").write_text(
        POLICY.partition("members")[0]
        + "categories: {odd: {positive: [odd], decide: {pattern: {re2: x}}, "
        + "flag_at: {probability: 0.5}, action: flag}}\n"
    )
    assert "FAKE_KEY" not in replace(JOB).settings()


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        ({"GUARDKIT_MASK_KEY": None}, {}, False),  # of a version that always kept it
        ({"GUARDKIT_MASK_KEY": "2bb80d537b1d"}, {}, False),
        ({"GUARDKIT_MASK_KEY": "2bb80d537b1d"}, {"GUARDKIT_MASK_KEY": "2bb80d537b1d"}, False),
        ({"GUARDKIT_MASK_KEY": "2bb80d537b1d"}, {"GUARDKIT_MASK_KEY": None}, True),
        ({}, {"FAKE_KEY": "2bb80d537b1d"}, True),
        ({"shadow policy": "0" * 64}, {}, True),
    ],
)
def test_a_manifest_written_before_still_resumes(
    before: dict[str, Any], now: dict[str, Any], differs: bool
) -> None:
    manifests = [Manifest(inputs=[], settings=own, offsets=[]) for own in (before, now)]
    assert bool(manifests[0].differences(manifests[1])) == differs
