"""benchmarks/domains on made-up rows: near-duplicates, the split, a training, the figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from benchmarks.domains import data, specialised

TINY = ("vocab_size=300", "epochs=1", "window_tokens=24", "overlap_tokens=6")
OPTIONS = {
    "mdlm": (*TINY, "hidden_dim=32", "n_blocks=1", "n_heads=2", "cond_dim=8"),
    "gpt2": (*TINY, "init=scratch", "width=32", "layers=1", "heads=2"),
}


@pytest.fixture
def domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specialised, "BUILD", tmp_path / "build")
    monkeypatch.setattr(specialised, "RESULTS", tmp_path / "domains.json")
    monkeypatch.setattr(specialised, "OPTIONS", OPTIONS)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets of the real ones' layout: abstracts of two labels, payloads, messages."""
    folder, rng = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)

    def write(name: str, found: list[tuple[str, str]]) -> None:
        (folder / name).mkdir()
        texts, labels = zip(*found, strict=True)
        table = pa.table({"text": list(texts), "label": list(labels)})
        pq.write_table(table, folder / name / "all.parquet")

    def some(words: str, n: int) -> str:
        return " ".join(rng.choice(words.split(), n))

    heart, tumour = "heart artery pressure blood the of", "tumour cell cancer growth the of"
    abstracts = [(some(heart, 12), "heart") for _ in range(100)]
    abstracts += [(some(tumour, 12), "tumour") for _ in range(100)]
    write("medical-abstracts", [*abstracts, *((text, "tumour") for text, _ in abstracts[:10])])
    sql = "union select sleep null chr concat delay drop table version"
    payloads = [(f"{i}' or {i} = {i} {some(sql, 3)}", "sqli")
                for i in range(300)]  # fmt: skip
    plain = [(some("river stone cloud bread", 4) + f" {i}", "benign") for i in range(100)]
    write("sqli-payloads", payloads + plain)
    spam = [(f"win {i} pounds now {some('call claim prize', 6)}", "spam") for i in range(80)]
    ham = [(some("see you at home later ok", 7), "ham") for _ in range(150)]
    write("sms-spam", [*spam, *ham, ham[0]])
    return folder


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("1' ) or 22 = 22 --", "0 or 0"),
        ('7" or 3=3', "0 or 0"),
        ("SELECT a, b FROM c WHERE id = 'x'", "select w from w where w"),
        ("union all select null,null,NULL#", "union all select null"),
        ("plain  Words", "plain words"),
        ("plain words 7", "plain words 7"),
    ],
)
def test_a_payload_in_other_quotes_with_other_numbers_has_the_same_template(
    text: str, template: str
) -> None:
    assert data.sql_template(text) == template


def test_a_campaigns_messages_differ_in_numbers_and_signs() -> None:
    assert data.words("WIN £100 now!!") == data.words("win 2000 now")
    assert data.words("win 100 then") != data.words("win 100 now")
    assert data.words(":-)") != data.words("!!!")


def test_no_near_duplicate_is_on_both_sides_unless_the_domain_says_so(sets: Path) -> None:
    for name, domain in data.DOMAINS.items():
        train, test = data.split(data.read(sets, domain), None)
        shared = {domain.template(r.text) for r in train} & {domain.template(r.text) for r in test}
        assert bool(shared) == (name == "sqli-random"), name


def test_a_text_of_two_labels_is_kept_where_texts_may_have_several(sets: Path) -> None:
    abstracts = data.read(sets, data.DOMAINS["medical"])
    assert len(abstracts) == len({r.text for r in abstracts}) + 10
    train, test = data.split(abstracts, None)
    assert not {r.text for r in train} & {r.text for r in test}
    train, _ = data.split(abstracts, 30)
    assert len(train) == 30


def test_a_set_that_is_not_there_is_named_before_anything_is_written(
    domains: None, tmp_path: Path
) -> None:
    with pytest.raises(typer.BadParameter, match="no parquet files in medical-abstracts, sms-spam"):
        specialised.prepare(tmp_path)
    assert not specialised.BUILD.exists()


def test_what_is_trained_with_the_one_command_is_measured_beside_the_baselines(
    domains: None, sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    specialised.prepare(sets)
    specialised.train("sms", "mdlm")
    specialised.train("sms", "mdlm")
    assert "trained before" in capsys.readouterr().out
    specialised.measure()
    record = json.loads(specialised.RESULTS.read_text("utf-8"))["domains"]
    sms, medical = record["sms"], record["medical"]
    assert list(sms["scorers"]) == ["tfidf", "nbsvm", "mdlm"]
    assert list(medical["scorers"]) == ["tfidf", "nbsvm"]
    assert "neutral=ham" in sms["scorers"]["mdlm"]["train"]["command"]
    for scorer in ("tfidf", "mdlm"):
        assert sms["scorers"][scorer]["roc_auc"]["value"] > 0.9
    for other, gain in sms["gains"].items():
        auc = [sms["scorers"][name]["roc_auc"]["value"] for name in ("mdlm", other)]
        assert gain["roc_auc"]["value"] == pytest.approx(auc[0] - auc[1])
    assert set(medical["scorers"]["tfidf"]) >= {"accuracy", "macro_f1"}
    assert 0.8 < medical["about"]["ceiling"] < 1
    assert record["sqli"]["about"]["near_duplicate_in_training"] == 0
    assert record["sqli-random"]["about"]["near_duplicate_in_training"] > 0.1
