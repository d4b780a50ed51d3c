"""One network per label, as the first MDLM classifiers were: p(text | class) and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from guardkit import ArtefactConfig
from guardkit_mdlm.model import Denoiser, NetworkShape


class SeparateNetworks(nn.Module):
    """Read like a ``Denoiser`` with C classes, each of which is a plain network of its own.

    There is no null class, no label slot and hence no one-pass posterior. ``start_id`` opens
    every window as it did every training chunk of the public code: always visible, never
    scored. None leaves it out.
    """

    def __init__(self, shape: NetworkShape, start_id: int | None) -> None:
        super().__init__()
        self.shape = shape
        self.start_id = start_id
        plain = shape.model_copy(update={"n_classes": 0})
        self.networks = nn.ModuleList(Denoiser(plain) for _ in range(shape.n_classes))

    @property
    def record(self) -> dict[str, Any]:
        """What an artefact's ``network`` says of these beside their shape."""
        return {"separate": {"start_id": self.start_id}}

    def forward(
        self, ids_BL: Tensor, class_B: Tensor, real_BL: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the first position's state_BD, of no use here, and text states_BLD.

        Classes are numbered 1..C. Raises ValueError for the null class, 0.
        """
        if bool((class_B == 0).any()):
            raise ValueError("separate networks have no null class")
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
        for number, network in enumerate(self.networks, start=1):
            own_N = class_N == number
            if bool(own_N.any()):
                assert isinstance(network, Denoiser)
                values_N[own_N] = network.token_log_probs(
                    x_ND[own_N], class_N[own_N], target_N[own_N]
                )
        return values_N


def is_separate(config: ArtefactConfig) -> bool:
    """Return whether an artefact holds a network for each label."""
    return "separate" in config.network


def class_weights(folder: Path, number: int) -> Path:
    """Return where an artefact keeps the weights of class ``number``, 1..C."""
    return folder / f"class_{number}.safetensors"


def load_separate(folder: Path, network: Mapping[str, Any]) -> SeparateNetworks:
    """Build an artefact's networks and fill in their weights, one file at a time."""
    shape = NetworkShape.stored(folder, network)
    net = SeparateNetworks(shape, network["separate"]["start_id"])
    for number, own in enumerate(net.networks, start=1):
        own.load_state_dict(load_file(class_weights(folder, number)), strict=True)
    return net
