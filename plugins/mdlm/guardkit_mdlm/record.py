"""What an artefact says of its network: ``network`` in its ``config.json``, one checked model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardkit import ArtefactConfig, ArtefactError
from guardkit_mdlm.config import EstimatorName
from guardkit_mdlm.shape import NetworkShape


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class SeparateRecord(_Frozen):
    """There is a network for each label."""

    start_id: int | None = Field(None, description="the token that opens every window, if any does")


class FeaturesRecord(_Frozen):
    """The model whose features are read beside the label slot."""

    model: str = Field(description="where it is, as ``guardkit.load_model`` takes it")
    hash: str = Field(description="which one it must be")


class TextNgramsRecord(_Frozen):
    """N-grams with a tokenizer of their own are beside the network."""

    longest: int = Field(ge=1, le=5, description="tokens in the longest run")


class NetworkRecord(_Frozen):
    """What rebuilds the network, and how it reads and scores texts."""

    shape: NetworkShape
    separate: SeparateRecord | None = None
    window_tokens: int
    overlap_tokens: int
    scorer: Literal["one_pass", "generative"]
    estimator: EstimatorName
    evaluations: int
    shared_masks: bool
    length_exponent: float
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    novelty: Literal["unigram", "energy", "density"] = "energy"
    features: FeaturesRecord | None = None
    text_ngrams: TextNgramsRecord | None = None
    mask_key: str

    @model_validator(mode="before")
    @classmethod
    def _of_older_versions(cls, data: Any) -> Any:
        """Read ``pairs`` of half-and-half masks, all that artefacts of 0.1.0 had."""
        if isinstance(data, Mapping) and "pairs" in data and "estimator" not in data:
            rest = {name: value for name, value in data.items() if name != "pairs"}
            pairs = {"estimator": "half_pairs", "evaluations": 2 * int(data["pairs"])}
            return rest | pairs | {"shared_masks": True}
        return data

    @classmethod
    def of(cls, folder: Path, config: ArtefactConfig) -> NetworkRecord:
        """Read the record of the artefact ``folder``. Raises ArtefactError that names what is
        missing, unknown or wrong: another version wrote it."""
        try:
            return cls.model_validate(config.network)
        except ValidationError as error:
            mistakes = error.errors()
            names = [".".join(map(str, ("network", *e["loc"]))) for e in mistakes[:10]]
            first = f"{mistakes[0]['msg']} (got {mistakes[0]['input']!r:.80})"
            raise ArtefactError(
                f"{folder}: in its config.json, {', '.join(names)}: not as this version of the "
                "mdlm plugin writes it. Train the model anew, or install the version that made it. "
                f"{names[0]}: {first}"
            ) from error

    def stored(self) -> dict[str, Any]:
        """Return what ``config.json`` holds."""
        return self.model_dump(exclude_none=True)
