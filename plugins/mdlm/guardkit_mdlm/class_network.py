"""What knows log p(x_i | visible tokens, class): one network for all classes, or one for each.

Shape letters: B sequences, L text tokens, N masked tokens, D hidden, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from guardkit import ConfigError
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.trunk import Trunk


class ClassNetwork(nn.Module, ABC):
    """Classes are numbered 1..C."""

    shape: NetworkShape
    #: Whether it has a label slot to read p(class | text) from in one pass, and a null class, 0.
    has_label_slot: ClassVar[bool]

    @abstractmethod
    def forward(
        self,
        ids_BL: Tensor,
        class_B: Tensor,
        real_BL: Tensor | None,
        features_BF: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the state_BD of position 0, and text states_BLD for ``token_log_probs``.

        ``real_BL`` is false on padding; None where there is none, which is faster.
        """

    @abstractmethod
    def token_log_probs(self, x_ND: Tensor, class_N: Tensor, target_N: Tensor) -> Tensor:
        """Return log p(target_N) under SUBS (MASK has probability 0), float32."""

    @abstractmethod
    def trunks(self) -> Sequence[Trunk]:
        """Return the trunks, each of which may start from a language model."""

    @abstractmethod
    def weight_files(self) -> Mapping[str, nn.Module]:
        """Return the files of an artefact that hold the weights, and whose they are."""

    def label_logits(
        self, slot_BD: Tensor, ids_BL: Tensor, real_BL: Tensor | None, *, ngrams: bool = True
    ) -> Tensor:
        """Return logits_BC of p(class | text), float32, of the state of position 0 under the null
        class; with ``ngrams`` also of those within the network. Raises ConfigError where there is
        no label slot."""
        raise ConfigError("a network for each label has no label slot for one pass to read")

    def start_slot(self, slot_D: Tensor) -> None:
        """Let the label's slot start from an embedding, where there is one."""

    @property
    def pair_scale(self) -> Tensor:
        """What a difference of log-likelihoods is multiplied with in PAIR, in training only."""
        return torch.ones(())

    @property
    def record(self) -> dict[str, Any]:
        """What an artefact's ``network`` says of it beside its shape."""
        return {}
