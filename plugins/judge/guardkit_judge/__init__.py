"""A language model as judge, behind an OpenAI-compatible endpoint: the ``judge`` family.

Hooks only; the client is imported when a member is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from guardkit import Classifier, ClassifierFamily, ConfigError, TrainingData, hookimpl
from guardkit_judge.options import JudgeOptions

_NOT_TRAINED = (
    "plugin 'judge' has no models: it is a member of a policy, with `options` and no `model`; "
    "docs/llm-judge.md shows one"
)


class NoTraining(BaseModel):
    """There is nothing to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class JudgeFamily:
    """Asks a language model a question about each text, answered by yes or no."""

    name: str = "judge"
    summary: str = "a language model behind an OpenAI-compatible endpoint, asked a question a label"
    config: type[NoTraining] = NoTraining
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    builtin: Path | None = None
    options: type[JudgeOptions] = JudgeOptions
    deterministic: bool = False

    def train(self, data: TrainingData, config: NoTraining, out: Path, **how: Any) -> Path:
        raise ConfigError(_NOT_TRAINED)

    def load(self, path: Path, *, device: str, backend: str) -> Classifier:
        raise ConfigError(_NOT_TRAINED)

    def labels_of(self, options: JudgeOptions) -> Sequence[str]:
        return options.labels

    def load_member(
        self,
        path: Path | None,
        options: JudgeOptions,
        *,
        timeout_s: float | None,
        device: str,
        backend: str,
    ) -> Classifier:
        from guardkit_judge.judge import Judge

        if path is not None:
            raise ConfigError(_NOT_TRAINED)
        return Judge(options, timeout_s)


@hookimpl
def register_classifiers() -> Sequence[ClassifierFamily]:
    return [JudgeFamily()]
