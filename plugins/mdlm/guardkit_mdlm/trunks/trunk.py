"""What every trunk can do: embeddings in, states out, and what the output matrix is applied to.

Shape letters: B sequences, L tokens, S positions (the slot and the tokens), D hidden,
K width of the conditioning, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Trunk(nn.Module, ABC):
    """The part of the network that may have been trained on text before, by anyone.

    It knows nothing of labels: ``Denoiser`` puts a slot for them at position 0 and tells of a
    class by ``condition``. The null class is a row of zeros, so that with it the network computes
    what the trunk alone does.
    """

    @abstractmethod
    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return token embeddings x_BLD, before any position is added."""

    @abstractmethod
    def condition(self, class_BK: Tensor) -> Tensor:
        """Return c_BK, what the layers are told of the classes whose rows are ``class_BK``."""

    @abstractmethod
    def forward(self, x_BSD: Tensor, c_BK: Tensor, seen_BS: Tensor | None) -> Tensor:
        """Return states_BSD. ``seen_BS`` is false on padding; None where there is none."""

    @abstractmethod
    def predictor(self, x_BLD: Tensor, c_BK: Tensor) -> Tensor:
        """Return what the output matrix is applied to; only masked positions need it."""

    @property
    @abstractmethod
    def output_weight(self) -> Tensor:
        """The (V, D) output matrix, the embedding itself where tied."""

    @property
    @abstractmethod
    def output_bias(self) -> Tensor:
        """The output's bias, (V,)."""

    @property
    @abstractmethod
    def embedding(self) -> Tensor:
        """The (V, D) input matrix."""

    @abstractmethod
    def silence(self) -> None:
        """Let the output be its biases alone, as training starts; it must be able to learn."""

    @abstractmethod
    def hidden_matrices(self) -> Sequence[nn.Parameter]:
        """Return the matrices that every token meets in the layers: what Muon may train."""

    def layer_weights(self) -> int:
        """Return how many numbers these are."""
        return sum(p.numel() for p in self.hidden_matrices())
