"""A family whose members need no model and take options."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tests.support.fake_models import FakeClassifier, FakeFamily


class Retries(BaseModel):
    model_config = ConfigDict(extra="forbid")

    times: int = Field(default=1, ge=0)


class ElsewhereOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field(min_length=1)
    words: list[str] = Field(default=["injection"], min_length=1)
    retries: Retries = Field(default=Retries(), exclude=True)


class Elsewhere(FakeFamily):
    """``logits_of(endpoint, text)`` gives a text's log-odds."""

    options = ElsewhereOptions
    deterministic = False

    def __init__(self, logits_of: Any, name: str = "elsewhere") -> None:
        super().__init__(logits_of, name)
        self.opened: list[tuple[Path | None, Any, float | None]] = []

    def labels_of(self, options: ElsewhereOptions) -> Sequence[str]:
        return options.words

    def load_member(
        self,
        path: Path | None,
        options: ElsewhereOptions,
        *,
        timeout_s: float | None,
        device: str,
        backend: str,
    ) -> FakeClassifier:
        self.opened.append((path, options, timeout_s))
        if path is not None:
            return self.load(path, device=device, backend=backend)
        return FakeClassifier(self, options.endpoint, tuple(options.words))


def asked(family: FakeFamily) -> list[str]:
    """Return the texts that were asked about, in order."""
    return [text for _, texts in family.calls for text in texts]
