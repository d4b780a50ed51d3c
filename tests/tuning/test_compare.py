"""Two policies on one corpus: every text that is treated otherwise is told, with why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guardkit.classify.rows import read_rows
from guardkit.cli.main import main
from guardkit.plugins import Plugins
from guardkit.policy.router import load_policy
from guardkit.tuning.compare import Comparison, compare_policies, comparison_record
from tests.support.fake_models import FakeFamily, plugins_of, write_model
from tests.support.fake_plugins import plugin_module

POLICY = """\
version: 1
name: {name}
mode: {mode}
plugins: [audit]
members:
{members}
categories:
  injection:
    positive: [injection]
    decide: {decide}
    flag_at: {{probability: {threshold}}}
    action: {action}
    on_error: {on_error}
{more}"""
CASCADE = "{cascade: [{member: b, settle: {below: 0.1, above: 0.9}}, {member: a}]}"


def write(path: Path, **values: str) -> Path:
    defaults = {
        "name": path.stem,
        "mode": "enforce",
        "members": "  a: {plugin: fake, model: one}",
        "decide": "{member: a}",
        "threshold": "0.5",
        "action": "block",
        "on_error": "closed",
        "more": "",
    }
    path.write_text(POLICY.format(**defaults | values))
    return path


def two_models(text: str = CASCADE) -> dict[str, str]:
    members = "  b: {plugin: fake, model: two}\n  a: {plugin: fake, model: one}"
    return {"members": members, "decide": text}


def logits_of(model: str, text: str) -> list[float]:
    """A text holds both models' log-odds: "one two | rest"."""
    if "BROKEN" in text:
        raise ValueError("cannot score this")
    return [0.0, float(text.split()[0 if model == "one" else 1])]


class PolicyPair:
    """A folder with two models and the policies that a test compares."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.family = FakeFamily(logits_of)
        self.told = 0

        def decided(texts: Any, decisions: Any, policy: Any) -> None:
            self.told += 1

        module = plugin_module(decided=decided)
        self.plugins: Plugins = plugins_of(self.family, modules={"audit": module})
        for model in ("one", "two"):
            write_model(folder / model)

    def compare(self, old: Path, new: Path, rows: list[dict[str, Any]]) -> Comparison:
        data = self.folder / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return compare_policies(old, new, str(data), plugins=self.plugins)


@pytest.fixture
def pair(tmp_path: Path) -> PolicyPair:
    return PolicyPair(tmp_path)


def test_every_flip_is_told_with_its_label_and_both_routes(pair: PolicyPair) -> None:
    old = write(pair.folder / "old.yaml")
    new = write(pair.folder / "new.yaml", threshold="0.9")
    rows = [
        {"id": "sure", "text": "5 0 | x", "label": "injection"},
        {"id": "missed", "text": "1 0 | y", "label": "injection"},
        {"id": "freed", "text": "1.5 0 | z", "label": "benign"},
        {"id": "odd", "text": "2 0 | z", "label": "whatever"},
        {"id": "calm", "text": "-3 0 | z", "label": "benign"},
    ]
    result = pair.compare(old, new, rows)
    assert result.rows == 5
    assert result.labelled == 4
    assert [f.label for f in result.flips] == ["injection", "benign", "whatever"]
    assert [dict(f.verdicts) for f in result.flips] == [
        {"injection": "worse"},
        {"injection": "better"},
        {},
    ]
    assert result.categories["injection"] == {
        ("block", "block"): 1,
        ("block", "allow"): 3,
        ("allow", "allow"): 1,
    }
    assert result.verdicts("injection", ("block", "allow")) == {"worse": 1, "better": 1}
    record = comparison_record(result, "rows.jsonl")
    assert [flip["id"] for flip in record["flips"]] == ["missed", "freed", "odd"]
    assert record["flips"][0]["texts"] == ["1 0 | y"]
    assert record["flips"][0]["new"]["route"][0]["member"] == "a"
    json.dumps(record)


def test_a_model_that_both_policies_use_reads_each_text_once(pair: PolicyPair) -> None:
    old = write(pair.folder / "old.yaml")
    new = write(pair.folder / "new.yaml", **two_models())
    texts = ["1 1 | x", "1 5 | x", "-2 0 | y", "1 1 | x"]
    result = pair.compare(old, new, [{"text": text} for text in texts])
    read = [text for model, texts in pair.family.calls for text in texts if model == "one"]
    assert sorted(read) == sorted(set(texts))
    assert pair.family.loads == ["one", "two"]
    assert result.rows == 4


def test_a_policy_compared_with_itself_flips_nothing(pair: PolicyPair) -> None:
    policy = write(pair.folder / "same.yaml", **two_models())
    rows: list[dict[str, Any]] = [{"text": "1 1"}, {"text": "BROKEN"}, {"no": "text"}]
    assert pair.compare(policy, policy, rows).flips == []


def test_what_cannot_be_read_or_judged_flips_by_on_error(pair: PolicyPair) -> None:
    old = write(pair.folder / "old.yaml")
    new = write(pair.folder / "new.yaml", on_error="open")
    result = pair.compare(old, new, [{"text": "BROKEN"}, {"id": 7}, {"text": "3 0"}])
    assert [(f.row.line, f.changes["injection"]) for f in result.flips] == [
        (1, ("block", "allow")),
        (2, ("block", "allow")),
    ]


def test_shadow_mode_is_compared_by_what_it_would_have_done(pair: PolicyPair) -> None:
    old = write(pair.folder / "old.yaml")
    new = write(pair.folder / "new.yaml", mode="shadow")
    result = pair.compare(old, new, [{"text": "3 0"}, {"text": "-3 0"}])
    assert result.flips == []
    assert result.actions == {("block", "block"): 1, ("allow", "allow"): 1}


def test_a_stricter_action_is_a_flip_but_neither_better_nor_worse(pair: PolicyPair) -> None:
    old = write(pair.folder / "old.yaml", action="flag")
    new = write(pair.folder / "new.yaml")
    (flip,) = pair.compare(old, new, [{"text": "3 0", "label": "injection"}]).flips
    assert flip.changes == {"injection": ("flag", "block")}
    assert flip.verdicts == {}


def test_a_category_of_one_policy_alone_is_counted_and_can_flip_the_whole(
    pair: PolicyPair,
) -> None:
    more = """\
  strict:
    positive: [injection]
    decide: {member: a}
    flag_at: {probability: 0.2}
    action: flag
"""
    old = write(pair.folder / "old.yaml")
    new = write(pair.folder / "new.yaml", more=more)
    result = pair.compare(old, new, [{"text": "3 0"}, {"text": "-1 0"}, {"text": "-5 0"}])
    assert result.only_new == {"strict": 2}
    assert [(f.row.line, dict(f.changes)) for f in result.flips] == [(2, {})]
    assert result.actions["allow", "flag"] == 1


def test_no_plugin_is_told_of_a_comparison(pair: PolicyPair) -> None:
    policy = write(pair.folder / "same.yaml")
    pair.compare(policy, policy, [{"text": "3 0"}])
    assert pair.told == 0
    load_policy(policy, plugins=pair.plugins).decide(["3 0"])
    assert pair.told == 1


UNREAD = st.sampled_from(["", "", "UNREAD:one", "CUT", "a" * 50])


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None
)
@given(
    st.lists(st.tuples(st.integers(-6, 6), st.integers(-6, 6), UNREAD), max_size=12),
    st.sampled_from([0.2, 0.5, 0.8]),
    st.sampled_from(["open", "closed"]),
    st.sampled_from([40, 1000]),
)
def test_flips_are_where_the_two_routers_differ(
    pair: PolicyPair,
    scores: list[tuple[int, int, str]],
    threshold: float,
    on_truncated: str,
    max_characters: int,
) -> None:
    on_error = f"closed\n    on_truncated: {on_truncated}"
    old = write(pair.folder / "old.yaml", threshold=str(threshold), on_error=on_error)
    mode = f"enforce\nmax_characters: {max_characters}"
    new = write(pair.folder / "new.yaml", mode=mode, **two_models())
    result = pair.compare(old, new, [{"text": f"{a} {b} {more}"} for a, b, more in scores])
    with read_rows(pair.folder / "rows.jsonl") as rows:
        texts = [row.texts[0] for row in rows]
    decided = [load_policy(p, plugins=pair.plugins).decide(texts) for p in (old, new)]
    differing = [
        i + 1 for i, (a, b) in enumerate(zip(*decided, strict=True)) if a.action != b.action
    ]
    assert [flip.row.line for flip in result.flips] == differing
    for flip in result.flips:
        for decision, own in zip((flip.old, flip.new), decided, strict=True):
            assert decision.categories == own[flip.row.line - 1].categories
            assert decision.route == own[flip.row.line - 1].route


# -- the command -----------------------------------------------------------------------------


@pytest.fixture
def command(pair: PolicyPair, monkeypatch: pytest.MonkeyPatch) -> PolicyPair:
    monkeypatch.chdir(pair.folder)
    for module in ("guardkit.policy.router", "guardkit.tuning.compare"):
        monkeypatch.setattr(f"{module}.installed_plugins", lambda: pair.plugins)
    write(pair.folder / "old.yaml")
    write(pair.folder / "new.yaml", **two_models())
    return pair


def test_policy_diff_prints_counts_and_routes(
    command: PolicyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mail.csv").write_text("text,label\n1 -5 | long,injection\n3 3,benign\n1 -6,benign\n")
    args = ["policy", "diff", "old.yaml", "new.yaml", "--data", "mail.csv"]
    assert main([*args, "--json", "diff.json", "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "old (old.yaml) -> new (new.yaml): 2 of 3 rows flip" in out
    assert [line.split()[1::2] for line in out.splitlines() if "block -> allow │ 2" in line]
    assert "a 0.731" in out
    assert "b 0.007" in out
    assert "1 of 2 shown; --show N shows more, --json FILE has them all" in out
    record = json.loads(Path("diff.json").read_text())
    assert record["categories"]["injection"]["worse"] == 1
    assert record["categories"]["injection"]["better"] == 1
    assert len(record["flips"]) == 2


def test_policy_diff_fails_on_change_only_when_asked(command: PolicyPair) -> None:
    Path("rows.csv").write_text("text\n1 -5\n")  # no label column
    args = ["policy", "diff", "old.yaml", "new.yaml", "--data", "rows.csv"]
    assert main(args) == 0
    assert main([*args, "--fail-on-change"]) == 1
    same = ["policy", "diff", "old.yaml", "old.yaml", "--data", "rows.csv", "--fail-on-change"]
    assert main(same) == 0
    assert main(["policy", "diff", "old.yaml", "new.yaml", "--data", "none.csv"]) == 2
    assert main([*args, "--json", "none/x.json"]) == 2


def test_policy_test_measures_on_labelled_text_and_fails_on_tests_alone(
    command: PolicyPair, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mail.csv").write_text(
        "text,label\n1 1,injection\n2 2,benign\n-1 3,injection\n-3 0,benign\n"
    )
    assert main(["policy", "test", "old.yaml", "--data", "mail.csv"]) == 0
    out = capsys.readouterr().out
    assert "passed" not in out
    assert "4 texts" in out
    (line,) = [line for line in out.splitlines() if line.startswith("│ injection")]
    assert line.split("│")[2].strip() == "2"
    assert line.count("│ 0.5000 │") == 2  # recall and false-positive rate
    with Path("old.yaml").open("a") as file:
        file.write('tests:\n  - {text: "3 3", expect: {injection: allow}}\n')
    assert main(["policy", "test", "old.yaml", "--data", "mail.csv"]) == 1
    assert "0.5000" in capsys.readouterr().out
