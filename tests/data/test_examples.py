"""Examples to train on: hub layout, folders and files give the same thing, or say why not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from guardkit.data.examples import load_examples, load_split
from guardkit.errors import DataError
from guardkit.types import UNLABELLED, Examples


@pytest.fixture(autouse=True)
def _own_cache_and_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("local data must not touch the network")

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write ``rows`` in the format that the name of ``path`` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return path
    if name.endswith(".csv"):
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        data = text.getvalue().encode()
    else:
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def labels_of(examples: Examples) -> list[str | None]:
    return [None if y == UNLABELLED else examples.label_names[y] for y in examples.labels_N]


def review(text: str, label: str | None, movie: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "label": label, "id": f"x/{text}", "movie": movie, **more}


def imdb(folder: Path) -> Path:
    """Write the layout of the real IMDB files: unsup has null labels and no rating."""
    write(
        folder / "train.parquet",
        [review("good<br />", "pos", "tt1", rating=9), review("bad", "neg", "tt2", rating=1)],
    )
    write(folder / "test.parquet", [review("fine", "pos", "tt3", rating=7)])
    write(folder / "unsup.parquet", [review("so so", None, "tt4"), review("hm", None, "tt4")])
    return folder


def test_the_imdb_files_load_with_groups_and_without_the_missing_labels(tmp_path: Path) -> None:
    splits = load_examples(str(imdb(tmp_path / "imdb")))
    assert list(splits) == ["train", "test", "unsup"]
    assert {e.label_names for e in splits.values()} == {("neg", "pos")}
    assert splits["train"].texts == ["good<br />", "bad"]
    assert labels_of(splits["train"]) == ["pos", "neg"]
    assert splits["train"].groups == ["tt1", "tt2"]
    assert splits["train"].sources == ()
    assert splits["unsup"].labels_N.tolist() == [UNLABELLED, UNLABELLED]


def hub_folder(folder: Path) -> Path:
    """Write a data set as the hub stores ``stanfordnlp/imdb``: labels are numbers with names."""
    import datasets

    names = datasets.ClassLabel(names=["neg", "pos"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    content: dict[str, tuple[list[str], list[int]]] = {
        "train": (["good", "bad"], [1, 0]),
        "test": (["fine"], [1]),
        "unsupervised": (["so so"], [-1]),
    }
    (folder / "data").mkdir(parents=True)
    for split, (texts, labels) in content.items():
        table = datasets.Dataset.from_dict({"text": texts, "label": labels}, features=features)
        pq.write_table(table.data.table, folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.mark.parametrize("prefix", ["hf:", ""], ids=["as a hub name", "as a folder"])
def test_a_folder_in_hub_layout_loads_as_the_hub_would(tmp_path: Path, prefix: str) -> None:
    splits = load_examples(f"{prefix}{hub_folder(tmp_path / 'tiny-imdb')}")
    assert list(splits) == ["train", "test", "unsup"]
    assert splits["train"].label_names == ("neg", "pos")
    assert labels_of(splits["train"]) == ["pos", "neg"]
    assert labels_of(splits["unsup"]) == [None]


def test_one_split_of_a_hub_folder_can_be_asked_for_by_either_name(tmp_path: Path) -> None:
    spec = f"hf:{hub_folder(tmp_path / 'tiny-imdb')}"
    for name in ("unsup", "unsupervised"):
        assert [*load_examples(f"{spec}?split={name}")] == ["unsup"]
    with pytest.raises(DataError, match=r"no split 'nope'; there are train, test, unsupervised"):
        load_examples(f"{spec}?split=nope")


@pytest.mark.parametrize(
    "name",
    ["a.parquet", "a.csv", "a.jsonl", "a.json", "a.csv.gz", "a.jsonl.gz", "a.json.gz"],
)
def test_every_format_gives_the_same_examples(tmp_path: Path, name: str) -> None:
    rows = [
        {"prompt": 'a, "b"\nc', "sentiment": "x", "group": "g1", "source": "web"},
        {"prompt": "None", "sentiment": "y", "group": "g2", "source": "mail"},
    ]
    examples = load_examples(str(write(tmp_path / name, rows)))["train"]
    assert examples.texts == ['a, "b"\nc', "None"]
    assert labels_of(examples) == ["x", "y"]
    assert examples.groups == ["g1", "g2"]
    assert examples.sources == ["web", "mail"]


def test_numbers_become_label_names_in_their_own_order(tmp_path: Path) -> None:
    rows = [{"text": f"t{i}", "label": i} for i in (10, 2, -1, 1)]
    for name in ("n.parquet", "n.csv", "n.jsonl"):
        examples = load_examples(str(write(tmp_path / name, rows)))["train"]
        assert examples.label_names == ("1", "2", "10")
        assert labels_of(examples) == ["10", "2", None, "1"]


def test_numbers_beside_missing_labels_stay_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "n.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": None}])
    assert labels_of(load_examples(str(path))["train"]) == ["1", None]
    (tmp_path / "n.csv").write_text("text,label\na,1\nb,\n")
    assert labels_of(load_examples(str(tmp_path / "n.csv"))["train"]) == ["1", None]


def test_every_split_knows_the_labels_of_all(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "z"}, {"text": "b", "label": "m"}])
    write(tmp_path / "dev.csv", [{"text": "c", "label": "a"}])
    splits = load_examples(str(tmp_path))
    assert list(splits) == ["train", "validation"]
    assert {e.label_names for e in splits.values()} == {("a", "m", "z")}
    assert labels_of(splits["validation"]) == ["a"]


def test_where_keeps_the_rows_that_fit_every_condition(tmp_path: Path) -> None:
    rows = [
        {"text": "1", "label": "p", "source": "a", "lang": "en"},
        {"text": "2", "label": "q", "source": "b", "lang": "en"},
        {"text": "3", "label": "p", "source": "a|c", "lang": "en"},
        {"text": "4", "label": "p", "source": "b", "lang": "de"},
    ]
    path = write(tmp_path / "w.jsonl", rows)
    spec = f"{path}?where=source:a|b&where=lang:en"
    assert load_examples(spec)["train"].texts == ["1", "2"]
    assert load_examples(f"{spec}&where=label:p")["train"].label_names == ("p",)
    with pytest.raises(DataError, match="no row fits where=lang:fr"):
        load_examples(f"{path}?where=lang:fr")
    with pytest.raises(DataError, match="no such column; its columns: text, label, source, lang"):
        load_examples(f"{path}?where=language:en")


def test_where_sees_the_names_of_hub_labels(tmp_path: Path) -> None:
    spec = f"hf:{hub_folder(tmp_path / 'tiny-imdb')}?where=label:pos"
    assert {k: v.texts for k, v in load_examples(spec).items()} == {
        "train": ["good"],
        "test": ["fine"],
    }


def test_a_split_that_where_empties_is_left_out(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "p", "source": "x"}])
    write(tmp_path / "test.jsonl", [{"text": "b", "label": "p", "source": "y"}])
    assert [*load_examples(f"{tmp_path}?where=source:y")] == ["test"]


def test_other_files_of_a_folder_are_there_when_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [{"text": "a", "label": "p"}])
    write(tmp_path / "ood_mail.jsonl", [{"text": "b", "label": "q"}])
    assert [*load_examples(str(tmp_path))] == ["train"]
    assert load_examples(f"{tmp_path}?split=ood_mail")["ood_mail"].texts == ["b"]
    with pytest.raises(DataError, match=r"no split 'nope'; there are ood_mail, train"):
        load_examples(f"{tmp_path}?split=nope")


def test_files_given_by_name_are_one_split_unless_called_after_several(tmp_path: Path) -> None:
    one = write(tmp_path / "one.jsonl", [{"text": "a", "label": "p"}])
    two = write(tmp_path / "two.csv", [{"text": "b", "label": "q"}])
    train = write(tmp_path / "train.jsonl", [{"text": "c", "label": "p"}])
    test = write(tmp_path / "test.jsonl", [{"text": "d", "label": "q"}])
    both = load_examples(f"{one},{two}")
    assert both["train"].texts == ["a", "b"]
    assert labels_of(both["train"]) == ["p", "q"]
    assert {k: v.texts for k, v in load_examples(f"{test},{train}").items()} == {
        "train": ["c"],
        "test": ["d"],
    }
    assert load_examples(str(test))["train"].texts == ["d"]


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "valid.jsonl", [{"text": "a", "label": "p"}])
    write(tmp_path / "dev.jsonl", [{"text": "b", "label": "p"}])
    with pytest.raises(DataError, match=r"'dev' and 'valid' both mean 'validation'"):
        load_examples(str(tmp_path))
    assert load_examples(f"{tmp_path}?split=dev")["validation"].texts == ["b"]


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"text": "wrong", "body": "right", "kind": "k", "thread": "t", "list": "l"}]
    path = write(tmp_path / "c.jsonl", rows)
    examples = load_examples(f"{path}?text=body&label=kind&group=thread&source=list")["train"]
    assert (examples.texts, labels_of(examples)) == (["right"], ["k"])
    assert (examples.groups, examples.sources) == (["t"], ["l"])


def test_text_without_labels_loads_where_that_will_do(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", [{"text": "a"}, {"text": "b"}])
    assert load_examples(str(path), need_labels=False)["train"].labels_N.tolist() == [-1, -1]
    with pytest.raises(DataError, match=r"no label column .* its columns: text\."):
        load_examples(str(path))
    write(tmp_path / "d" / "unsup.jsonl", [{"text": "a"}])
    assert [*load_examples(str(tmp_path / "d"))] == ["unsup"]


def test_a_missing_text_is_named_by_file_split_and_row(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "label": "p"}, {"text": None, "label": "p"}]
    path = write(tmp_path / "d" / "test.parquet", rows)
    with pytest.raises(DataError) as error:
        load_examples(str(path.parent))
    assert f"{path}, split test, row 2: column 'text' holds None" in str(error.value)


def test_mistakes_in_a_spec_say_what_was_expected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"body": "a", "label": "p", "score": 0.5}])
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"\n')
    (tmp_path / "a.xlsx").touch()
    for spec, message in {
        f"{path}?txt=body": r"unknown option 'txt'; known: text, label, group, source, split",
        f"{path}?text": r"expected key=value or where=COLUMN:VALUE, got 'text'",
        f"{path}?where=label": r"expected key=value or where=COLUMN:VALUE",
        f"{path}?split=test": r"split= chooses from a folder or a hub data set",
        str(path): r"no text column \(text or prompt or .*\); its columns: body, label, score",
        f"{path}?text=body&group=g": r"no group column \(g\)",
        f"{path}?text=body&label=score": r"row 1: column 'score' holds 0.5; a label is a name",
        f"{path}?text=score": r"row 1: column 'score' holds 0.5, not a text",
        f"{tmp_path}/none.jsonl": r"none.jsonl: no such file",
        f"{tmp_path}/a.xlsx": r"cannot read this kind of file; known: .parquet, .csv, .jsonl",
        str(empty): r"the file is empty",
        str(broken): r"broken.jsonl: ArrowInvalid",
        "hf:": r"names no data set",
    }.items():
        with pytest.raises(DataError, match=message):
            load_examples(spec)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    for text in ("one", "two", "six"):  # of one length, within one second
        path = write(tmp_path / "a.jsonl", [{"text": text, "label": "p"}])
        assert load_examples(str(path))["train"].texts == [text]


@pytest.mark.parametrize("on", [True, False])
def test_progress_bars_are_as_they_were(tmp_path: Path, on: bool) -> None:
    import datasets

    (datasets.enable_progress_bars if on else datasets.disable_progress_bars)()
    try:
        load_examples(str(write(tmp_path / "a.jsonl", [{"text": "a", "label": "p"}])))
        assert datasets.are_progress_bars_disabled() != on
    finally:
        datasets.enable_progress_bars()


def test_a_split_to_evaluate_is_test_or_the_only_one_or_the_one_named(tmp_path: Path) -> None:
    spec = str(imdb(tmp_path / "imdb"))
    assert load_split(spec, None)[0] == "test"
    assert load_split(spec, "train")[0] == "train"
    assert load_split(f"{spec}?split=train", None)[1].texts == ["good<br />", "bad"]
    (tmp_path / "imdb" / "test.parquet").unlink()
    with pytest.raises(DataError, match="has train, unsup; choose one with --split"):
        load_split(spec, None)
