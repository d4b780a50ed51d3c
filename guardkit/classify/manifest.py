"""What a run's output depends on, and how two runs differ."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class InputFile(BaseModel):
    """One file of the input, as it was when the run began."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    size: int = Field(description="bytes; -1 where it cannot be known before it is read")
    sha256: str


class Manifest(BaseModel):
    """What a run's output depends on, and nothing else: two runs with equal manifests write the
    same bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = 1
    inputs: list[InputFile]
    settings: dict[str, Any] = Field(description="hashes of policy and models, options, versions")
    offsets: list[list[int]] = Field(
        description="of each file of lines, where its shards begin, in bytes; empty of others"
    )

    def differences(self, now: Manifest) -> list[str]:
        """Return what is not as it was, in words: the files first."""
        found = []
        if [f.name for f in self.inputs] != [f.name for f in now.inputs]:
            found.append(f"the input is {_names(now)}; it was {_names(self)}")
        else:
            for old, new in zip(self.inputs, now.inputs, strict=True):
                if old != new:
                    found.append(f"{new.name} has changed: {_content(new)}; it had {_content(old)}")
        for key in self.settings | now.settings:
            if key.isupper() and key not in now.settings:
                continue  # an environment variable that no model of this run reads
            before, after = self.settings.get(key), now.settings.get(key)
            if before != after:
                found.append(f"{key} is {_shown(after)}; it was {_shown(before)}")
        return found


def _names(manifest: Manifest) -> str:
    names = [file.name for file in manifest.inputs]
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _content(file: InputFile) -> str:
    size = f"{file.size:,} bytes, " if file.size >= 0 else ""
    return f"{size}SHA-256 {file.sha256[:12]}"


def _shown(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
