"""The options of a training: from a preset, a file and the command line, checked at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from guardkit.errors import ConfigError
from guardkit.training.options import build_config
from tests.support.fake_models import FakeFamily


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(3, ge=1)
    loud: bool = False


class Family(FakeFamily):
    config = Options
    presets: Mapping[str, Mapping[str, Any]] = {"big": {"size": 9}}


@pytest.fixture
def family() -> Family:
    return Family(lambda model, text: (0.0, 0.0))


def test_options_come_from_preset_then_file_then_command_line(
    family: Family, tmp_path: Path
) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("size: 5\nloud: true\n")
    assert build_config(family, "big", None, {}).size == 9
    assert build_config(family, "big", file, {}) == Options(size=5, loud=True)
    assert build_config(family, "big", file, {"size": "7"}).size == 7


@pytest.mark.parametrize("content", ["size: 1\nsize: 2\n", "- 1\n", "size: &a 1\nloud: *a\n"])
def test_a_broken_option_file_is_refused(family: Family, tmp_path: Path, content: str) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=r"options\.yaml"):
        build_config(family, None, file, {})
