"""What the plugin is before any model is trained or loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from guardkit_gpt2.config import PRESETS, Gpt2Options
from pydantic import ValidationError

from guardkit.plugins import installed_plugins


def options(**given: Any) -> Gpt2Options:
    return Gpt2Options.model_validate(given)


def test_the_family_is_found_as_any_plugin_is() -> None:
    family = installed_plugins().family("gpt2")
    assert family.config is Gpt2Options
    assert {"tiny", "small", "finetune"} <= family.presets.keys()


def test_importing_the_plugin_and_asking_for_its_options_imports_no_torch() -> None:
    code = (
        "import sys, guardkit_gpt2; [f] = guardkit_gpt2.register_classifiers(); f.config(); "
        "print(*{'torch', 'transformers', 'tokenizers', 'safetensors'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_valid(name: str) -> None:
    Gpt2Options.model_validate(PRESETS[name])


def test_every_option_says_what_it_is() -> None:
    silent = [name for name, field in Gpt2Options.model_fields.items() if not field.description]
    assert silent == []


def test_no_preset_but_init_scratch_is_the_tiny_preset() -> None:
    assert options(init="scratch") == Gpt2Options.model_validate(PRESETS["tiny"])


def test_rates_and_epochs_follow_from_where_training_starts() -> None:
    scratch, tuned = options(init="scratch").resolved(None), options().resolved("distilgpt2")
    assert tuned.init == "distilgpt2"
    assert scratch.lr is not None
    assert tuned.lr is not None
    assert scratch.lr > tuned.lr
    assert options(lr=3e-4, epochs=9).resolved("scratch").model_dump(
        include={"lr", "epochs", "init"}
    ) == {"lr": 3e-4, "epochs": 9, "init": "scratch"}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"widht": 8}, "widht"),
        ({"width": 50, "heads": 3}, "width 50 must be a multiple of heads 3"),
        ({"window_tokens": 16, "overlap_tokens": 15}, "overlap_tokens 15 must be below"),
        ({"rule": "vote"}, "rule"),
    ],
)
def test_a_wrong_option_is_refused_by_name(given: dict[str, object], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        Gpt2Options.model_validate(given)
