"""What it takes to build a network: its sizes, as an artefact's ``config.json`` records them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class EncoderShape(BaseModel):
    """A masked language model of transformers as the trunk, and its special tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: dict[str, Any]  # transformers' own, as its config.json has it
    mask_id: int
    start_id: int  # stands where the label's slot does
    end_id: int | None  # after the last token


class NetworkShape(BaseModel):
    """What it takes to build a Denoiser. ``vocab_size`` includes MASK."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int
    hidden_dim: int
    cond_dim: int
    n_blocks: int
    n_heads: int
    n_classes: int = 0  # 0: a plain language model without a label slot
    dropout: float = 0.0
    tie_embeddings: bool = False
    class_bias: bool = False
    wide: bool = False
    n_features: int = 0  # of whole texts, by another model, beside the slot
    ngrams: int = 0  # the longest run of tokens in the linear model beside the network
    ngram_terms: int = 0
    encoder: EncoderShape | None = None  # None: the trunk is a DiT

    @property
    def mask_id(self) -> int:
        return self.vocab_size - 1 if self.encoder is None else self.encoder.mask_id

    @property
    def n_text_ids(self) -> int:
        """Ids that a text's tokens may have are below this."""
        return self.vocab_size - 1 if self.encoder is None else self.vocab_size
