"""Which example may be used for what: no text in two sets, groups whole, every label everywhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from guardkit.data.examples import load_examples
from guardkit.data.splits import (
    HELD_OUT_SHARE,
    OneLabelError,
    group_names,
    halve,
    hold_out,
    load_data_splits,
    normalised,
    split_by_group,
)
from guardkit.errors import DataError
from guardkit.types import Examples


def write(path: Path, rows: Sequence[tuple[str, str | None]]) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
    path.write_text("".join(lines))
    return path


def rows(prefix: str, n: int) -> list[tuple[str, str | None]]:
    ham = [(f"{prefix} letter number {i}", "ham") for i in range(n)]
    return ham + [(f"{prefix} spam spam number {i}", "spam") for i in range(n)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for split, n in (("train", 30), ("validation", 20), ("test", 10)):
        write(tmp_path / "data" / f"{split}.jsonl", rows(split, n))
    return tmp_path / "data"


def test_no_text_is_in_two_sets(folder: Path) -> None:
    splits = load_data_splits(str(folder))
    names = ("train", "validation", "calibration", "test")
    sets = {name: {normalised(t) for t in getattr(splits, name).texts} for name in names}
    for one in names:
        for other in names:
            assert one == other or not sets[one] & sets[other]
    assert len(sets["validation"]) + len(sets["calibration"]) == 40
    assert min(len(sets["validation"]), len(sets["calibration"])) > 5


def test_a_text_in_two_sets_stays_in_the_later_one_only(folder: Path) -> None:
    repeated = [("Test  LETTER number 1", "ham"), ("validation spam spam number 2", "spam")]
    write(folder / "train.jsonl", rows("train", 30) + repeated)
    splits = load_data_splits(str(folder))
    assert len(splits.train) == 60
    assert splits.test is not None
    assert len(splits.test) == 20


def test_without_a_validation_split_whole_groups_are_held_out(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"{i} {label}", "label": label, "group": f"g{i // 4}"})
        for i in range(400) for label in ("ham", "spam")
    ]  # fmt: skip
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(lines))
    splits = load_data_splits(str(path))
    held_out = {*splits.validation.groups, *splits.calibration.groups}
    assert not held_out & set(splits.train.groups)
    assert not set(splits.validation.groups) & set(splits.calibration.groups)
    assert 4 <= len(held_out) <= 20
    assert len(splits.validation) >= 8
    assert len(splits.calibration) >= 8
    assert splits.test is None


def test_calibration_data_of_ones_own_is_used_alone(folder: Path, tmp_path: Path) -> None:
    own = write(tmp_path / "own.jsonl", rows("own", 5))
    splits = load_data_splits(str(folder), None, str(own))
    assert sorted(splits.calibration.texts) == sorted(text for text, _ in rows("own", 5))
    assert len(splits.validation) == 40
    odd = write(tmp_path / "odd.jsonl", [("text", "eggs")])
    with pytest.raises(DataError, match="eggs"):
        load_data_splits(str(folder), None, str(odd))


def test_examples_of_one_label_are_refused_and_the_label_is_named(folder: Path) -> None:
    only = write(folder / "only.jsonl", [(f"letter {i}", "ham") for i in range(20)])
    with pytest.raises(OneLabelError, match=r"only.jsonl: one label only, ham") as refused:
        load_data_splits(str(only))
    assert refused.value.label == "ham"


def many(n: int, groups: int) -> Examples:
    return Examples(
        texts=[f"text {i}" for i in range(n)],
        labels_N=np.arange(n) % 2,
        label_names=("a", "b"),
        groups=[f"g{i % groups}" for i in range(n)],
    )


def test_a_group_is_never_split_and_the_share_is_about_right() -> None:
    rest, part = split_by_group(many(3000, 1000), 0.2, seed=7)
    assert len(rest) + len(part) == 3000
    assert not set(rest.groups) & set(part.groups)
    assert 0.16 < len(set(part.groups)) / 1000 < 0.24
    assert set(split_by_group(many(3000, 1000), 0.2, seed=8)[1].groups) != set(part.groups)


def test_adding_rows_moves_no_group() -> None:
    _, before = split_by_group(many(300, 100), 0.3, seed=1)
    rest, after = split_by_group(many(900, 200), 0.3, seed=1)
    assert set(before.groups) <= set(after.groups)
    assert not set(before.groups) & set(rest.groups)


def test_without_groups_equal_texts_stay_together() -> None:
    texts = [f"{'Text' if i % 2 else ' text '} {i // 2}" for i in range(400)]
    examples = Examples(texts, np.zeros(400, np.int64), ("a", "b"))
    rest, part = split_by_group(examples, 0.5, seed=0)
    assert 100 < len(part) < 300
    assert not set(group_names(rest)) & set(group_names(part))


def shuffled(ham: int, spam: int, seed: int) -> list[tuple[str, str | None]]:
    """Return rows whose texts, and so hashes, are others for each seed."""
    return [(f"{seed} letter {i}", "ham") for i in range(ham)] + [
        (f"{seed} spam {i}", "spam") for i in range(spam)
    ]


def of_label(examples: Examples, name: str) -> int:
    return int((examples.labels_N == examples.label_names.index(name)).sum())


@pytest.mark.parametrize("seed", range(20))
def test_a_rare_label_is_in_every_set_whatever_the_hashes(tmp_path: Path, seed: int) -> None:
    notes: list[str] = []
    path = write(tmp_path / "mail.jsonl", shuffled(400, 8, seed))
    splits = load_data_splits(str(path), note=notes.append)
    parts = (splits.train, splits.validation, splits.calibration)
    assert [of_label(part, "spam") for part in parts] == [4, 2, 2]
    assert all(of_label(part, "ham") >= 10 for part in parts)
    (note,) = notes
    assert "label 'spam' has 2 texts to calibrate on" in note
    assert "all 2 judged right, the share judged right in truth could still be 34% (95%)" in note


@pytest.mark.parametrize("seed", range(20))
def test_enough_of_every_label_is_split_by_hash_alone_and_nothing_is_noted(
    tmp_path: Path, seed: int
) -> None:
    path, notes = write(tmp_path / "mail.jsonl", shuffled(2000, 600, seed)), []
    splits = load_data_splits(str(path), note=notes.append)
    all_of_it = load_examples(str(path))["train"]
    train, held_out = split_by_group(all_of_it, HELD_OUT_SHARE, seed=0)
    validation, calibration = split_by_group(held_out, 0.5, seed=1)
    found = (splits.train.texts, splits.validation.texts, splits.calibration.texts)
    assert found == (train.texts, validation.texts, calibration.texts)
    assert notes == []


def test_too_few_rows_of_a_label_are_refused_with_how_many_it_takes(tmp_path: Path) -> None:
    for spam in (1, 2, 3):
        path = write(tmp_path / "mail.jsonl", shuffled(400, spam, 0))
        with pytest.raises(DataError) as refused:
            load_data_splits(str(path))
        has = "label 'spam' has 1 text" if spam > 1 else "no example labelled 'spam'"
        assert f"{path}: {has} to calibrate on" in str(refused.value)
        assert "2 are the least" in str(refused.value)
        assert "it takes 4 rows of a label" in str(refused.value)
    load_data_splits(str(write(path, shuffled(400, 4, 0))))
    folder = tmp_path / "data"
    write(folder / "train.jsonl", shuffled(40, 40, 0))
    write(folder / "validation.jsonl", shuffled(40, 1, 1))
    with pytest.raises(DataError, match=r"'spam' has 1 text .* 2 rows of a label there"):
        load_data_splits(str(folder))
    own = write(tmp_path / "own.jsonl", shuffled(40, 1, 2))
    with pytest.raises(DataError, match=rf"{own}: label 'spam' has 1 text .* Add such rows there"):
        load_data_splits(str(folder), None, str(own))


@pytest.mark.parametrize("seed", range(10))
def test_stratifying_keeps_groups_whole_and_every_label_on_both_sides(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, groups = 600, 90
    group_N = random.integers(0, groups, n)
    # labels follow their group, but for some, so that groups have several
    labels_N = np.where(random.random(n) < 0.8, group_N % 10 == 0, random.random(n) < 0.05)
    examples = Examples(
        [f"{seed} {i}" for i in range(n)],
        labels_N.astype(np.int64),
        ("often", "rare"),
        [f"{seed} g{g}" for g in group_N],
    )
    train, held_out = hold_out(examples)
    validation, calibration = halve(held_out)
    parts = [set(part.groups) for part in (train, validation, calibration)]
    assert len(set.union(*parts)) == sum(map(len, parts)) == len(set(examples.groups))
    for part in (train, validation, calibration):
        for label in (0, 1):
            there = {g for g, y in zip(part.groups, part.labels_N, strict=True) if y == label}
            assert len(there) >= 2


def test_labels_that_differ_by_case_or_space_are_refused_and_named(tmp_path: Path) -> None:
    for other in ("Spam", "spam ", " SPAM", "spam\u00a0", "\uff53pam"):
        path = write(tmp_path / "mail.jsonl", [*rows("a", 30), ("odd", other)])
        with pytest.raises(DataError, match="differ by case or space alone") as refused:
            load_data_splits(str(path))
        assert "'spam'" in str(refused.value)
        assert repr(other) in str(refused.value)


def test_a_text_under_two_labels_is_named(tmp_path: Path) -> None:
    path, notes = tmp_path / "mail.jsonl", []
    write(path, [*rows("a", 300), ("A letter  number 7", "spam"), ("a letter number 7", "spam")])
    load_data_splits(str(path), note=notes.append)
    (note,) = notes
    assert note.startswith(
        "1 text of the train split (compared without case and white space) stands under two "
        "labels; the first: 'A letter  number 7' is 'ham' and 'spam'."
    )
