"""One network per label, as the first MDLM classifiers were: p(text | class) and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.trunk import Trunk


class SeparateNetworks(ClassNetwork):
    """C classes, each of which is a plain network of its own.

    There is no null class, no label slot and hence no one-pass posterior. ``start_id`` opens
    every window as it did every training chunk of the public code: always visible, never
    scored. None leaves it out.
    """

    has_label_slot = False

    def __init__(self, shape: NetworkShape, start_id: int | None) -> None:
        super().__init__()
        self.shape = shape
        self.start_id = start_id
        plain = shape.model_copy(update={"n_classes": 0})
        self.networks = nn.ModuleList(Denoiser(plain) for _ in range(shape.n_classes))

    @property
    def record(self) -> dict[str, Any]:
        return {"separate": {"start_id": self.start_id}}

    def trunks(self) -> Sequence[Trunk]:
        return [network.trunk for network in self._denoisers()]

    def weight_files(self) -> Mapping[str, nn.Module]:
        return {weights_of_class(n): own for n, own in enumerate(self.networks, start=1)}

    def forward(
        self,
        ids_BL: Tensor,
        class_B: Tensor,
        real_BL: Tensor | None,
        features_BF: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the first position's state_BD, of no use here, and text states_BLD.

        Raises ValueError for the null class, 0, and for features, which have no slot to go to.
        """
        if features_BF is not None or bool((class_B == 0).any()):
            raise ValueError("separate networks have no null class and no label slot")
        skipped = 0
        if self.start_id is not None:
            ids_BL = F.pad(ids_BL, (1, 0), value=self.start_id)
            real_BL = None if real_BL is None else F.pad(real_BL, (1, 0), value=True)
            skipped = 1
        weight = next(self.parameters())
        x_BLD = weight.new_zeros(*ids_BL.shape, self.shape.hidden_dim)
        for number, network in enumerate(self.networks, start=1):
            own_B = class_B == number
            if bool(own_B.any()):
                own_BL = None if real_BL is None else real_BL[own_B]
                _, x_BLD[own_B] = network(ids_BL[own_B], class_B[own_B], own_BL)
        return x_BLD[:, 0], x_BLD[:, skipped:]

    def token_log_probs(self, x_ND: Tensor, class_N: Tensor, target_N: Tensor) -> Tensor:
        """Return log p(target_N) under SUBS by each position's own network, float32."""
        values_N = torch.zeros(len(x_ND), device=x_ND.device)
        for number, network in enumerate(self._denoisers(), start=1):
            own_N = class_N == number
            if bool(own_N.any()):
                values_N[own_N] = network.token_log_probs(
                    x_ND[own_N], class_N[own_N], target_N[own_N]
                )
        return values_N

    def _denoisers(self) -> Sequence[Denoiser]:
        return [network for network in self.networks if isinstance(network, Denoiser)]


def weights_of_class(number: int) -> str:
    """Return the file of an artefact with the weights of class ``number``, 1..C."""
    return f"class_{number}.safetensors"
