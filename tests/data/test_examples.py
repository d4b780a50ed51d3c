"""Examples to train on: hub layout, folders and files give the same thing, or say why not."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import socket
import subprocess
import sys
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
    ["a.parquet", "a.csv", "a.jsonl", "a.json", "a.csv.gz", "a.jsonl.gz", "a.json.gz", "a.ndjson"],
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
        f"{tmp_path}/a.xlsx": r"cannot read this kind of file; known: .jsonl, .ndjson, .json, .csv",
        str(empty): r"the file is empty",
        str(broken): r"broken.jsonl, split train, row 1: not JSON: ",
        "hf:": r"names no data set",
    }.items():
        with pytest.raises(DataError, match=message):
            load_examples(spec)


def read(path: Path, data: str | bytes, options: str = "") -> Examples:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return load_examples(f"{path}{options}", need_labels=False)["train"]


def refused(path: Path, data: str | bytes, options: str = "") -> str:
    """Return why the file is refused, without its name, which must stand first."""
    with pytest.raises(DataError) as error:
        read(path, data, options)
    assert str(error.value).startswith(f"{path}")
    return str(error.value).removeprefix(f"{path}")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("Dear team, order 1 is late,ham", "3 fields where the header has 2; a text with commas"),
        ("order 1 is late,ham,", "3 fields where the header has 2; a text with commas"),
        ("order 1 is late", "1 field where the header has 2; 'label' is missing"),
        ("", "0 fields where the header has 2; the line is empty"),
        ('"a"b,ham', "not CSV, near line 3: ',' expected after '\"'"),
        ('"a,ham', "not CSV, near line 4: unexpected end of data"),
    ],
)
def test_a_csv_row_that_does_not_fit_the_header_is_named_and_shifts_nothing(
    tmp_path: Path, row: str, why: str
) -> None:
    said = refused(tmp_path / "mail.csv", f"text,label\nfine,ham\n{row}\nlast,spam\n")
    assert said.startswith(f", split train, row 2: {why}")


@pytest.mark.parametrize("cell", ["01", "TRUE", "1e1", "1.0", "NA", "null", "2024-05-01", " x "])
def test_a_label_is_what_the_file_says(tmp_path: Path, cell: str) -> None:
    assert labels_of(read(tmp_path / "a.csv", f"text,label\na,{cell}\n")) == [cell]
    assert labels_of(read(tmp_path / "a.tsv", f"text\tlabel\na\t{cell}\n")) == [cell]
    line = json.dumps({"text": "a", "label": cell})
    assert labels_of(read(tmp_path / "a.jsonl", line)) == [cell]


def test_what_looks_like_a_date_or_a_number_is_text_to_where_and_in_groups(tmp_path: Path) -> None:
    rows = [
        {"text": "2024-05-01", "label": "x", "day": "2024-05-01", "group": "2024-05-01T10:00:00Z"},
        {"text": "2024-05-02", "label": "x", "day": "2024-05-02", "group": "007"},
    ]
    for name in ("a.jsonl", "a.csv", "a.json", "a.parquet"):
        path = write(tmp_path / name, rows)
        examples = load_examples(f"{path}?where=day:2024-05-01")["train"]
        assert (examples.texts, examples.groups) == (["2024-05-01"], ["2024-05-01T10:00:00Z"])
        assert load_examples(f"{path}?where=group:007")["train"].groups == ["007"]


def test_json_that_is_no_string_is_a_name_as_it_was_written(tmp_path: Path) -> None:
    lines = (
        '{"text": "a", "label": true, "group": 1.50}\n{"text": "b", "label": 2.0, "group": null}'
    )
    examples = read(tmp_path / "a.jsonl", lines)
    assert (labels_of(examples), examples.groups) == (["true", "2"], ["1.50", ""])
    assert read(tmp_path / "a.jsonl", lines, "?where=label:true").texts == ["a"]


def test_a_column_that_nobody_asked_for_may_hold_anything(tmp_path: Path) -> None:
    ids = "".join(f"t{i},x,{i}\n" for i in range(30_000))
    examples = read(tmp_path / "a.csv", f"text,label,id\n{ids}last,y,abc\n")
    assert (len(examples), examples.texts[-1]) == (30_001, "last")
    lines = '{"text": "a", "id": 1}\n{"text": "b", "id": {"x": []}, "new": "é"}\n'
    assert read(tmp_path / "a.jsonl", lines).texts == ["a", "b"]
    assert read(tmp_path / "b.csv", "text,x,x\na,1,2\n").texts == ["a"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_what_separates_the_fields_is_found_in_the_header(
    tmp_path: Path, delimiter: str, quote: str
) -> None:
    header = delimiter.join(f"{quote}{name}{quote}" for name in ("id", "text", "label"))
    row = delimiter.join(("1", '"a, b; c\td|e"', "x"))
    examples = read(tmp_path / "a.csv", f"\ufeff{header}\r\n{row}\r\n")
    assert (examples.texts, labels_of(examples)) == (["a, b; c\td|e"], ["x"])


def test_what_separates_the_fields_can_be_named(tmp_path: Path) -> None:
    path, data = tmp_path / "a.csv", "text^label\na,b^x\n"
    assert "?delimiter=" in refused(path, data)
    for options in ("?delimiter=^", "?delimiter=%5E"):
        assert labels_of(read(path, data, options)) == ["x"]
    assert read(path, "text\tlabel\na\tx\n", "?delimiter=tab").texts == ["a"]
    assert read(tmp_path / "a.tsv", "text;label\na;x\n", "?delimiter=;").texts == ["a"]
    for wrong in ("::", '"'):
        with pytest.raises(DataError, match="expected one character that separates fields"):
            load_examples(f"{path}?delimiter={wrong}")
    with pytest.raises(DataError, match="for CSV files, not for a hub data set"):
        load_examples("hf:x/y?delimiter=;")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.json", "a.csv.gz"])
@pytest.mark.parametrize("at", [1, 2])
def test_a_blank_line_is_named_in_every_format(tmp_path: Path, name: str, at: int) -> None:
    row, header = ('{"text": "a", "label": "x"}', [])
    if "json" not in name:
        mark = "\t" if "tsv" in name else ","
        row, header = f"a{mark}x", [f"text{mark}label"]
    rows = [row, row]
    rows.insert(at, "")
    data = "\n".join([*header, *rows, ""]).encode()
    said = refused(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    assert said.startswith(f", split train, row {at + 1}: ")
    assert "empty" in said


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.csv", b"text,label\nfine,x\ncaf\xe9,\n", ", split train, row 2: not UTF-8; column 'te"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "caf\xe9"}\n', ", split train, row 2: not UTF-8"),
        ("a.json", b'[{"text": "a"},\n{"text": "caf\xe9"}]', ", split train, row 2: not UTF-8"),
        ("a.csv", "text,label\na,x\n".encode("utf-16"), ": UTF-16; save it as UTF-8"),
        ("a.csv", b"text,t\xeft\na,x\n", ": the header row is not UTF-8"),
        ("a.json", b'[{"text": "a"}', ": not a JSON array of objects: Input data was truncated"),
        ("a.json", b'[{"text": "a"}, 5]', ", split train, row 2: expected an object"),
        ("a.jsonl", b'{"text": "a", "label": "x", "label": "y"}', ", split train, row 1: 'label'"),
        ("a.jsonl", b'{"text": "a", "label":1, "\\u006cabel": 2}', ", split train, row 1: 'label'"),
        ("a.csv", b"text,label,text\na,x,b\n", ": a column's name repeats: 'text'"),
        ("a.csv", b"text,label,%s" % (b"a" * 2**21), ": cannot read the header row: a line"),
        ("a.parquet", b"plain", ": cannot read it as parquet"),
        ("a.csv.gz", b"plain", ": cannot be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(b"text\n" + b"abc\n" * 99)[:-9], ", split train, row "),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named_by_file_row_and_field(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    assert refused(tmp_path / name, data).startswith(said)


def test_conversations_can_be_learnt_from_as_what_classify_judges_of_them(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    messages = [{"role": "user", "content": "a"}, {"role": "tool", "content": parts}]
    rows = [{"messages": messages, "label": "p"}]
    for name in ("a.jsonl", "a.json"):
        examples = load_examples(str(write(tmp_path / name, rows)))["train"]
        assert examples.texts == ["a\n\nx\ny"]
    path = write(tmp_path / "a.parquet", [{"chat": messages[:1] * 2, "label": "p"}])
    assert load_examples(f"{path}?text=chat")["train"].texts == ["a\n\na"]
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    write(tmp_path / "a.jsonl", [*rows, {"messages": image, "label": "p"}])
    with pytest.raises(DataError, match=r"row 2: column 'messages': .*not text"):
        load_examples(str(tmp_path / "a.jsonl"))


def test_reading_files_needs_no_home_and_leaves_no_copy_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    for name in ("train.jsonl", "validation.csv", "test.parquet", "ood.json"):
        write(folder / name, [{"text": "secret", "label": "p"}])
    before = {*tmp_path.rglob("*")}
    code = (
        "import sys; from guardkit.data.examples import load_examples; "
        "print(*load_examples(sys.argv[1])); print(*load_examples(sys.argv[1] + '?split=ood')); "
        "assert not {'datasets', 'pandas'} & set(sys.modules)"
    )
    homeless = {**os.environ, "HOME": "/proc/none", "HF_HOME": "/proc/none"}
    ran = subprocess.run(
        [sys.executable, "-c", code, str(folder)], env=homeless, capture_output=True, check=False
    )
    assert (ran.stdout, ran.stderr) == (b"train validation test\nood\n", b"")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "data"))
    monkeypatch.setattr("tempfile.tempdir", None)
    load_examples(str(hub_folder(tmp_path / "hub")))
    assert {*tmp_path.rglob("*")} - before == {
        tmp_path / "hub", *(tmp_path / "hub").rglob("*")
    }  # fmt: skip


def test_numbers_with_names_in_a_parquet_file_are_their_names(tmp_path: Path) -> None:
    path = next((hub_folder(tmp_path / "hub") / "data").glob("train*"))
    assert labels_of(load_examples(str(path))["train"]) == ["pos", "neg"]


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
