"""What it takes to build a network: its sizes, as an artefact's ``config.json`` records them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

#: Deeper than any encoder known; a hundred thousand take minutes to make, all of them empty.
MAX_BLOCKS = 256
#: What transformers call the number of blocks, by architecture.
LAYERS = ("num_hidden_layers", "n_layers")
MAX_SIZE = 2**22
MAX_CLASSES = 10_000


class EncoderShape(BaseModel):
    """A masked language model of transformers as the trunk, and its special tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: dict[str, Any]  # transformers' own, as its config.json has it
    mask_id: int
    start_id: int  # stands where the label's slot does
    end_id: int | None  # after the last token

    @field_validator("config")
    @classmethod
    def _bounded(cls, config: dict[str, Any]) -> dict[str, Any]:
        for name, value in config.items():
            if name in LAYERS and isinstance(value, int | float) and value > MAX_BLOCKS:
                raise ValueError(f"{name} {value}: at most {MAX_BLOCKS}")
        return config


class NetworkShape(BaseModel):
    """What it takes to build a Denoiser. ``vocab_size`` includes MASK."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(ge=1, le=MAX_SIZE)
    hidden_dim: int = Field(ge=1, le=MAX_SIZE)
    cond_dim: int = Field(ge=0, le=MAX_SIZE)
    n_blocks: int = Field(ge=0, le=MAX_BLOCKS)
    n_heads: int = Field(ge=1, le=MAX_SIZE)
    n_classes: int = Field(default=0, ge=0, le=MAX_CLASSES)  # 0: no label slot
    dropout: float = 0.0
    tie_embeddings: bool = False
    class_bias: bool = False
    wide: bool = False
    mean_readout: bool = False  # the label is read from the tokens' mean too
    n_features: int = Field(default=0, ge=0, le=MAX_SIZE)  # of whole texts, by another model
    ngrams: int = Field(default=0, ge=0, le=5)  # longest run of the linear model
    ngram_terms: int = Field(default=0, ge=0, le=2**30)
    encoder: EncoderShape | None = None  # None: the trunk is a DiT

    @property
    def least_values(self) -> int:
        """So many weights a network of this shape has at least, for each label if separate."""
        width, sizes = self.hidden_dim, [self.vocab_size, self.cond_dim, self.n_features]
        blocks = self.n_blocks
        if self.encoder is not None:  # its positions, its hidden layers, its embeddings
            own = {name: v for name, v in self.encoder.config.items() if type(v) is int}
            sizes += own.values()
            width = max(width, own.get("hidden_size", 0), own.get("dim", 0))
            blocks = max([blocks, *(v for name, v in own.items() if name in LAYERS)])
        return max(max(*sizes, 4 * blocks * width) * width, self.ngram_terms * self.n_classes)

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1 if self.encoder is None else self.encoder.mask_id

    @property
    def n_text_ids(self) -> int:
        """Ids that a text's tokens may have are below this."""
        return self.vocab_size - 1 if self.encoder is None else self.vocab_size
