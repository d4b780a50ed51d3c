"""Which trunk a network has."""

from __future__ import annotations

from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.dit import DitTrunk
from guardkit_mdlm.trunks.trunk import Trunk


def build_trunk(shape: NetworkShape) -> Trunk:
    """Return the trunk that ``shape`` asks for, its weights at random."""
    if shape.encoder is None:
        return DitTrunk(shape)
    from guardkit_mdlm.trunks.encoder import EncoderTrunk  # transformers takes seconds to import

    return EncoderTrunk(shape)
