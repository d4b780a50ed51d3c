"""Classifying rows into JSON lines: one for each, in order, whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guardkit.classify import records
from guardkit.classify.records import (
    CHUNK_ROWS,
    by_model,
    by_policy,
    classify,
    decision_record,
)
from guardkit.classify.rows import read_rows
from guardkit.errors import ArtefactError, ClassifierError, OutputError, RunError, UsageError
from guardkit.model.loaded import Model, load_model
from guardkit.policy.router import PolicyRouter, load_policy
from guardkit.types import CategoryDecision, Decision, RouteStep, Row
from tests.support.fake_models import FakeFamily, plugins_of, write_model
from tests.support.one_member import POLICY, logits_of


@pytest.fixture
def family() -> FakeFamily:
    return FakeFamily(logits_of)


@pytest.fixture
def router(tmp_path: Path, family: FakeFamily) -> PolicyRouter:
    write_model(tmp_path / "model")
    (tmp_path / "policy.yaml").write_text(POLICY)
    return load_policy(tmp_path / "policy.yaml", plugins=plugins_of(family))


@pytest.fixture
def model(tmp_path: Path, family: FakeFamily) -> Model:
    return load_model(write_model(tmp_path / "alone"), plugins=plugins_of(family))


def rows_of(*texts: str) -> list[Row]:
    return [Row(i, i, (text,)) for i, text in enumerate(texts, start=1)]


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_one_line_is_written_for_each_line_read_and_in_order(
    tmp_path: Path, router: PolicyRouter
) -> None:
    bad = {i * 97 % 1000 for i in range(10)}
    lines = [
        "{broken" if i in bad else json.dumps({"id": f"row-{i}", "text": f"attack {i}" * (i % 2)})
        for i in range(1000)
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    summary = classify(read_rows(tmp_path / "in.jsonl"), by_policy(router), tmp_path / "out.jsonl")
    out = written(tmp_path / "out.jsonl")
    assert [line["id"] for line in out] == [i + 1 if i in bad else f"row-{i}" for i in range(1000)]
    assert {i for i, line in enumerate(out) if line["error"]} == bad
    assert all(out[i]["action"] == "block" for i in bad)  # on_error: closed
    assert [line["action"] for i, line in enumerate(out) if i not in bad] == [
        ("allow", "block")[i % 2] for i in range(1000) if i not in bad
    ]
    assert (summary.rows, summary.texts, summary.unreadable, summary.undecided) == (
        1000, 990, 10, 0,
    )  # fmt: skip
    assert summary.actions == {
        a: sum(line["action"] == a for line in out) for a in ("allow", "block")
    }
    assert summary.reached("flag")
    assert summary.reached("block")
    assert summary.texts_per_s > 0


def test_batches_depend_on_the_input_alone(
    tmp_path: Path, router: PolicyRouter, family: FakeFamily
) -> None:
    classify(rows_of(*map(str, range(600))), by_policy(router), tmp_path / "out.jsonl")
    assert [len(texts) for _, texts in family.calls] == [CHUNK_ROWS, CHUNK_ROWS, 88]


def test_a_line_of_output_holds_the_decision_and_what_was_kept(
    tmp_path: Path, router: PolicyRouter
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "attack", "id": 1.50, "user": {"n": 1}}\n')
    rows = read_rows(tmp_path / "in.jsonl", keep=["user"])
    classify(rows, by_policy(router), tmp_path / "out.jsonl")
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert line.startswith('{"id":1.50,"action":"block",')
    assert line.endswith(',"user":{"n": 1}}')
    assert (
        json.loads(line)
        == {
            "id": 1.5,
            "action": "block",
            "categories": {
                "injection": {
                    "action": "block",
                    "score": 0.880797,  # sigmoid(2)
                    "threshold": 0.5,
                    "decided_by": "only",
                }
            },
            "error": None,
            "truncated": False,
            "route": [
                {"category": "injection", "member": "only", "score": 0.880797, "why": "decides"}
            ],
            "policy": router.hash[:12],
            "models": {"only": router.model("only").hash[:12]},
            "user": {"n": 1},
        }
    )


def test_a_shadow_decision_is_written_where_there_is_one() -> None:
    step = RouteStep("c", "m", None, "failed: x")
    category = CategoryDecision("block", None, 0.123456789, "on_error")
    decision = Decision(1, "allow", {"c": category}, "x", True, [step], "h", {"action": "block"})
    record = decision_record(decision)
    assert record["shadow"] == {"action": "block"}
    assert record["categories"]["c"] == {
        "action": "block", "score": None, "threshold": 0.123457, "decided_by": "on_error",
    }  # fmt: skip
    assert record["truncated"] is True


def test_a_text_that_cannot_be_scored_fails_alone(tmp_path: Path, router: PolicyRouter) -> None:
    rows = rows_of("fine", "BROKEN", "attack")
    summary = classify(rows, by_policy(router), tmp_path / "out.jsonl")
    out = written(tmp_path / "out.jsonl")
    assert [line["action"] for line in out] == ["allow", "block", "block"]
    assert "cannot score this" in out[1]["error"]
    assert (summary.unreadable, summary.undecided) == (0, 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_model_whose_calibration_is_not_finite_gives_an_error_and_no_probability(
    bad: float, tmp_path: Path, model: Model
) -> None:
    assert model.calibration is not None
    broken = model.calibration.model_copy(update={"scale": [bad, 1.0], "bias": [0.0, bad]})
    model = replace(model, calibration=broken)
    summary = classify(rows_of("fine"), by_model(model), tmp_path / "out.jsonl")
    (out,) = written(tmp_path / "out.jsonl")
    assert (out["probabilities"], summary.undecided) == (None, 1)
    assert out["error"] == "its calibrated log-odds are not finite"
    with pytest.raises(ClassifierError, match="text 0: its calibrated log-odds are not finite"):
        model.probabilities(["fine"])


def test_a_model_alone_gives_probabilities_and_flags_nothing(tmp_path: Path, model: Model) -> None:
    rows = [
        Row(1, "a", ("attack",), kept={"k": 1}),
        Row(2, 2, (), "line 2: not JSON"),
        Row(3, 3, ("fine", "attack CUT")),
        Row(4, 4, ("fine", "BROKEN")),
    ]
    summary = classify(rows, by_model(model), tmp_path / "out.jsonl")
    out = written(tmp_path / "out.jsonl")
    assert [line["probabilities"] for line in out] == [
        {"benign": 0.119203, "injection": 0.880797},
        None,
        {"benign": 0.880797, "injection": 0.880797},  # each label's highest over the messages
        None,
    ]
    assert out[0] == {
        "id": "a",
        "probabilities": out[0]["probabilities"],
        "error": None,
        "truncated": False,
        "model": model.hash[:12],
        "k": 1,
    }
    assert [line["truncated"] for line in out] == [False, False, True, False]
    assert out[1]["error"] == "line 2: not JSON"
    assert out[3]["error"] == "ValueError: cannot score this"
    assert (summary.unreadable, summary.undecided, dict(summary.actions)) == (1, 1, {})
    assert not summary.reached("flag")


def test_a_chunk_without_a_text_is_fine(tmp_path: Path, model: Model, router: PolicyRouter) -> None:
    rows = [Row(1, 1, (), "line 1: not JSON")]
    for decide in (by_model(model), by_policy(router)):
        assert classify(rows, decide, tmp_path / "out.jsonl").unreadable == 1
    assert classify([], by_model(model), tmp_path / "out.jsonl").rows == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_model_without_calibration_is_refused_before_any_work(
    tmp_path: Path, family: FakeFamily
) -> None:
    folder = write_model(tmp_path / "raw", calibrated=False)
    with pytest.raises(ArtefactError, match="gives no probabilities"):
        by_model(load_model(folder, plugins=plugins_of(family)))


def test_output_goes_to_standard_output_by_default(
    router: PolicyRouter, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    classify(rows_of("fine", "attack"), by_policy(router), None)
    out = capsysbinary.readouterr().out.splitlines()
    assert [json.loads(line)["action"] for line in out] == ["allow", "block"]


def failing(rows: Sequence[Row]) -> Iterator[Row]:
    yield from rows
    raise RunError("the run failed")


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path, router: PolicyRouter) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(RunError):
        classify(failing(rows_of("a")), by_policy(router), out)
    with pytest.raises(RunError):
        classify(failing(rows_of("a")), by_policy(router), inside / "new.jsonl")
    assert out.read_text() == "before"
    assert list(inside.iterdir()) == []


def test_a_link_stays_a_link_and_a_device_a_device(tmp_path: Path, router: PolicyRouter) -> None:
    (tmp_path / "real.jsonl").touch()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real.jsonl")
    classify(rows_of("a"), by_policy(router), tmp_path / "link.jsonl")
    assert (tmp_path / "link.jsonl").is_symlink()
    assert len(written(tmp_path / "real.jsonl")) == 1
    classify(rows_of("a"), by_policy(router), Path(os.devnull))
    assert Path(os.devnull).is_char_device()


def test_what_cannot_be_written_names_the_file(
    tmp_path: Path, router: PolicyRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "none" / "out.jsonl"
    with pytest.raises(OutputError, match=r"none/out.jsonl: cannot be written: No such file"):
        classify(rows_of("a"), by_policy(router), missing)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"out.jsonl: cannot be written: No space left"):
        classify(rows_of("a"), by_policy(router), tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("*.jsonl"))
    assert not list(tmp_path.glob(".*.partial"))


def test_an_error_of_what_decides_is_not_taken_for_one_of_the_output(tmp_path: Path) -> None:
    def decide(_: Sequence[Row]) -> list[records.Record]:
        raise OSError(errno.EIO, "the plugin's own")

    with pytest.raises(OSError, match="the plugin's own"):
        classify(rows_of("a"), decide, tmp_path / "out.jsonl")


def test_a_reader_that_has_gone_is_passed_on(
    router: PolicyRouter, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.BytesIO):
        def write(self, _: Any) -> int:
            raise BrokenPipeError(errno.EPIPE, "gone")

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(Gone()))
    with pytest.raises(BrokenPipeError):
        classify(rows_of("a"), by_policy(router), None)


def test_progress_counts_rows(tmp_path: Path, router: PolicyRouter) -> None:
    seen: list[tuple[str, int, int]] = []

    def progress(stage: str, done: int, total: int, note: str = "") -> None:
        seen.append((stage, done, total))

    rows = rows_of(*map(str, range(CHUNK_ROWS + 1)))
    classify(rows, by_policy(router), tmp_path / "out.jsonl", progress=progress)
    assert seen == [("classify", CHUNK_ROWS, 0), ("classify", CHUNK_ROWS + 1, 0)]


def test_probabilities_are_rounded_to_six_digits(tmp_path: Path) -> None:
    family = FakeFamily(lambda model, text: [0.0, float(text)])
    model = load_model(write_model(tmp_path / "m"), plugins=plugins_of(family))
    values = [-30.0, -1.0, 0.123, 12.0]
    classify(rows_of(*map(str, values)), by_model(model), tmp_path / "out.jsonl")
    for line, x in zip(written(tmp_path / "out.jsonl"), values, strict=True):
        expected = 1 / (1 + np.exp(-np.float64(x)))
        assert line["probabilities"]["injection"] == pytest.approx(expected, rel=1e-5)
        assert len(repr(line["probabilities"]["injection"]).strip("0.").split("e")[0]) <= 7


@pytest.mark.parametrize("name", ["id", "action", "error", "probabilities", "model", "shadow"])
def test_a_kept_field_cannot_overwrite_the_output(name: str) -> None:
    records.check_kept(["text", "user"])
    with pytest.raises(UsageError, match=f"--keep {name}: the output has a field of this name"):
        records.check_kept(["user", name])


def test_every_field_of_the_output_is_protected(model: Model) -> None:
    shadow = Decision(1, "allow", {}, None, False, [], "h", {"action": "block"})
    (of_model,) = by_model(model)(rows_of("a"))
    for name in {*decision_record(shadow), *of_model.__struct_fields__}:
        with pytest.raises(UsageError):
            records.check_kept([name])
