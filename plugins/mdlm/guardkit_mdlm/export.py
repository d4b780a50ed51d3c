"""A trained network's one pass as ONNX, beside the weights it came from."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from guardkit import ConfigError, read_config
from guardkit_mdlm.adaptation.class_rows import AddedRows, load_rows
from guardkit_mdlm.loading import load_network
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.record import NetworkRecord

#: Names of the exported network's inputs, int64 (B, L) and bool (B, L).
INPUTS = ("ids_BL", "real_BL")


class OnePass(nn.Module):
    """logits_BC of p(class | text), from tokens alone; where rows were added, the network's own
    logits and then those with the rows, side by side."""

    def __init__(self, net: Denoiser, rows: AddedRows | None) -> None:
        super().__init__()
        self.net, self.rows = net, rows

    def forward(self, ids_BL: Tensor, real_BL: Tensor) -> Tensor:
        slot_BD, _ = self.net(ids_BL, torch.zeros_like(ids_BL[:, 0]), real_BL)
        logits_BC: Tensor = self.net.label_logits(slot_BD, ids_BL, real_BL)
        if self.rows is None:
            return logits_BC
        raised_BC = self.rows(logits_BC, ids_BL, real_BL)
        return torch.cat([logits_BC, raised_BC], dim=1)


def export_onnx(folder: Path, out: Path) -> None:
    """Write the one-pass network of the artefact ``folder`` to ``out``, float32, any B and L.

    Raises ConfigError for networks without one pass or with another model's features, or where
    torch's exporter is not installed.
    """
    record = NetworkRecord.of(folder, read_config(folder))
    if record.features is not None:
        raise ConfigError(
            f"{folder}: reads the features of {record.features.model}, which would "
            "have to run beside the exported network; only networks without features are exported"
        )
    if record.separate is not None:
        raise ConfigError(
            f"{folder}: has a network for each label, imported; only the one pass of a trained "
            "mdlm model is exported"
        )
    net = load_network(folder).float().eval()
    ids_BL = torch.arange(12).view(2, 6) % net.shape.mask_id
    real_BL = torch.arange(6)[None] < torch.tensor([[6], [4]])
    free = {0: torch.export.Dim("B"), 1: torch.export.Dim("L")}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # what it skips is not ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own deprecations
            program = torch.onnx.export(
                OnePass(net, load_rows(folder)),
                (ids_BL, real_BL),
                dynamo=True,
                verbose=False,
                dynamic_shapes=dict.fromkeys(INPUTS, free),
                input_names=list(INPUTS),
                output_names=["logits_BC"],
            )
    except ImportError as error:
        raise ConfigError(f"{error}; install it with: pip install 'guardkit[export]'") from error
    assert program is not None
    program.save(out, external_data=False)
