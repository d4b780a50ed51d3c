"""Old per-class checkpoints as one classifier: separate networks, compared by likelihood."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from guardkit import (
    TOKENIZER,
    ArtefactConfig,
    ConfigError,
    Progress,
    choose_pooling,
    pick_dtype,
    write_json,
)
from guardkit_mdlm.config import ImportConfig
from guardkit_mdlm.record import NetworkRecord, SeparateRecord
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.tokenizer import check_vocabulary, find_tokenizer, token_id
from guardkit_mdlm.weights.public_mdlm import load_denoiser
from guardkit_mdlm.weights.separate import weights_of_class


def import_checkpoints(
    checkpoints: Mapping[str, str], config: ImportConfig, out: Path, *, progress: Progress
) -> Path:
    """Write the artefact of ``checkpoints``, {label: .ckpt, folder or hub id}, to ``out``.

    One checkpoint is in memory at a time, and only the weights asked for are kept. Raises
    ArtefactError for what cannot be read, ConfigError where the parts do not fit together.
    """
    labels = list(checkpoints)
    pooling, neutral = choose_pooling(labels, config.neutral, config.window_pooling)
    tokenizer = find_tokenizer(config.tokenizer)
    start_id = None
    if config.start_token:
        start_id = token_id(tokenizer, config.start_token, config.tokenizer)
    dtype = pick_dtype(config.dtype, torch.device("cpu"))
    shape: NetworkShape | None = None
    for number, (label, source) in enumerate(checkpoints.items(), start=1):
        progress("import", number - 1, len(labels), label)
        net = load_denoiser(source, weights=config.weights).net
        if shape is None:
            shape = net.shape
            check_vocabulary(tokenizer, shape.mask_id, config.tokenizer)
        elif net.shape != shape:
            raise ConfigError(
                f"{source}: its network is of another shape than the one for {labels[0]!r}: "
                + ", ".join(
                    f"{k} {v}, not {getattr(shape, k)}"
                    for k, v in net.shape
                    if v != getattr(shape, k)
                )
            )
        tensors = {name: tensor.to(dtype) for name, tensor in net.state_dict().items()}
        save_file(tensors, out / weights_of_class(number))
        del net, tensors  # before the next is read
    progress("import", len(labels), len(labels))
    assert shape is not None
    tokenizer.save(str(out / TOKENIZER))
    key = hashlib.sha256((tokenizer.to_str() + config.model_dump_json()).encode())
    artefact = ArtefactConfig(
        family="mdlm",
        labels=labels,
        neutral=neutral,
        window_pooling=pooling,
        network=NetworkRecord(
            shape=shape.model_copy(update={"n_classes": len(labels)}),
            separate=SeparateRecord(start_id=start_id),
            # two networks' rounding does not cancel, and is as large as what a token tells of its
            # class: weights kept in float32 are multiplied so, too
            dtype="float32" if config.dtype == "float32" else "auto",
            **config.scoring(),
            mask_key=key.hexdigest()[:32],
        ).stored(),
        training={"imported": dict(checkpoints), "options": config.model_dump()},
    )
    write_json(out / "config.json", artefact)
    return out
