"""An artefact's network, built from its record and filled with its weights."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from guardkit import WEIGHTS, ArtefactError, check_network_size, read_config
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.record import NetworkRecord
from guardkit_mdlm.weights.separate import SeparateNetworks


def load_network(folder: Path) -> Denoiser:
    """Return the network for all labels of the artefact ``folder``, on the CPU. Raises
    ArtefactError where it has a network for each label."""
    net = load_class_network(folder, NetworkRecord.of(folder, read_config(folder)))
    if not isinstance(net, Denoiser):
        raise ArtefactError(f"{folder}: has a network for each label, and none for all of them")
    return net


def load_class_network(folder: Path, record: NetworkRecord) -> ClassNetwork:
    """Return the network or networks of the artefact ``folder``, on the CPU; its files are read
    one by one."""
    files = sorted(folder.glob("*.safetensors"))
    check_network_size(files or [folder / WEIGHTS], record.shape.least_values)
    net: ClassNetwork
    if record.separate is not None:
        net = SeparateNetworks(record.shape, record.separate.start_id)
    else:
        net = Denoiser(record.shape)
    for name, own in net.weight_files().items():
        own.load_state_dict(load_file(folder / name), strict=True)
    return net
