"""The options that a user gives a family to train with and the card's opening."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from guardkit.bounds import MAX_CARD_OPENING_BYTES
from guardkit.errors import ConfigError
from guardkit.types import ClassifierFamily
from guardkit.yamlfile import read_yaml


def build_config(
    family: ClassifierFamily,
    preset: str | None,
    config_file: Path | None,
    overrides: Mapping[str, str],
) -> Any:
    """Return the family's options: preset, then file (YAML), then ``key=value``, later wins.

    Raises ConfigError that lists every mistake and what was allowed.
    """
    options: dict[str, Any] = {}
    if preset is not None:
        if preset not in family.presets:
            raise ConfigError(
                f"--preset {preset!r}: {family.name} has {', '.join(family.presets) or 'none'}"
            )
        options |= family.presets[preset]
    if config_file is not None:
        options |= _read_options(config_file)
    return check_options(family.name, family.config, options | dict(overrides))


def check_options(of: str, config: type[BaseModel], options: Mapping[str, Any]) -> Any:
    """Return ``options`` as a ``config``, or raise ConfigError with every mistake."""
    try:
        # from the command line every value is text: lax mode reads "3" as 3, "true" as True
        return config.model_validate(options)
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            name = ".".join(map(str, detail["loc"])) or "options"
            if detail["type"] == "extra_forbidden":
                lines.append(f"{name}: no such option; {of} has {', '.join(config.model_fields)}")
            else:
                lines.append(f"{name}: {detail['msg']} (got {detail['input']!r:.80})")
        raise ConfigError(f"options of {of}:\n  " + "\n  ".join(lines)) from error


def read_card(path: Path) -> str:
    """Return the Markdown that opens a model card. Raises ConfigError."""
    try:
        if (size := path.stat().st_size) > MAX_CARD_OPENING_BYTES:
            limit = f"at most {MAX_CARD_OPENING_BYTES:,} are read"
            raise ConfigError(f"--card {path}: {size:,} bytes; {limit}. Link what is longer")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--card {path}: cannot be read: {error}") from error


def _read_options(path: Path) -> dict[str, Any]:
    try:
        document = read_yaml(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from error
    if document.problems:
        lines = [f"{path}:{p.line}: {p.message}" for p in document.problems]
        raise ConfigError("--config: " + "\n".join(lines))
    if not isinstance(document.data, dict):
        raise ConfigError(f"--config {path}: expected a mapping of option names to values")
    return document.data
