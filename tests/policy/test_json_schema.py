"""The schema takes what guardkit takes, refuses what a schema can, and reads well in an editor."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from guardkit.cli.main import main
from guardkit.policy.json_schema import policy_schema
from guardkit.policy.schema import policies_dir
from guardkit.yamlfile import read_yaml

POLICIES = sorted(policies_dir().glob("*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(policy_schema())


def read(path: Path) -> Any:
    return read_yaml(path.read_bytes()).data


def mistakes(data: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data)]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(policy_schema())


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.name)
def test_every_bundled_policy_fits_the_schema(path: Path) -> None:
    assert mistakes(read(path)) == []


def test_trees_of_any_depth_fit_the_schema() -> None:
    data = read(policies_dir() / "default.yaml")
    node: Any = {"member": "specialist"}
    for _ in range(6):
        stage = node | {"settle": {"below": 0, "above": 0.9}}
        combine = {"how": "any", "of": [stage, {"pattern": {"re2": "x"}}], "quorum": 1}
        node = {"cascade": [{"combine": combine}]}
    data["categories"]["injection"]["decide"] = node
    assert mistakes(data) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("version",), 2),
        (("version",), "1"),
        (("members", "specialist"), {"model": "x"}),
        (("members", "specialist", "modle"), "typo"),
        (("members", "no name!"), {"plugin": "mdlm", "model": "x"}),
        (("categories",), {}),
        (("categories", "injection", "action"), "stop"),
        (("categories", "injection", "flag_at"), {"probability": 1.5}),
        (("categories", "injection", "positive"), []),
        (("categories", "injection", "decide"), {}),
        (("categories", "injection", "decide"), {"member": "a", "pattern": {"re2": "x"}}),
        (("categories", "injection", "decide"), {"cascade": []}),
        (("categories", "injection", "decide"), {"cascade": [{"membr": "a"}]}),
        (("tests", 0, "expect", "injection"), "deny"),
    ],
)
def test_a_broken_policy_does_not_fit_the_schema(place: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(read(policies_dir() / "default.yaml"))
    inner = data
    for part in place[:-1]:
        inner = inner[part]
    inner[place[-1]] = value
    assert mistakes(data) != []


def test_the_schema_shows_nothing_of_how_it_was_made() -> None:
    text = json.dumps(policy_schema())
    assert "\\u0000" not in text
    assert "``" not in text
    schema = policy_schema()
    assert schema["title"] == "guardkit policy"
    assert "title" not in schema["properties"]["version"]
    assert schema["$defs"]["Category"]["properties"]["decide"] == {"$ref": "#/$defs/Node"}
    assert len(schema["$defs"]["Node"]["oneOf"]) == 4


def test_policy_schema_prints_or_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == policy_schema()
    out = tmp_path / "policy.schema.json"
    assert main(["policy", "schema", "--out", str(out)]) == 0
    assert json.loads(out.read_text("utf-8")) == policy_schema()
    assert "yaml-language-server: $schema=policy.schema.json" in capsys.readouterr().out
    assert main(["policy", "schema", "--out", str(tmp_path / "none" / "x.json")]) == 2
    assert "no such folder" in capsys.readouterr().err
