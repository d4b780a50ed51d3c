"""Join the linear model of n-grams to a network that was trained before there was one.

    python benchmarks/join_ngrams.py PATH/TO/imdb OLD NEW

The network's weights stay; ``guardkit train`` does the same at its end. Calibrated anew on the same
texts. The card and metrics are those of the held-out sets: rows of ``benchmarks/imdb.py`` measure
the test set.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import torch
import typer
from guardkit_mdlm.batches import Tokenised
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.ngram_fit import add_ngrams
from guardkit_mdlm.scoring import load_network
from guardkit_mdlm.tokenizer import encode, read_tokenizer
from guardkit_mdlm.training import write_artefact
from provenance import machine

from guardkit import read_config
from guardkit.train import fingerprint, finish_model, load_parts
from guardkit.types import Examples


def join(data: str, old: Path, new: Path) -> None:
    config, net, tokenizer = read_config(old), load_network(old).eval(), read_tokenizer(old)
    parts = load_parts(data, None, None)
    known = {"train": fingerprint(parts.train), "validation": fingerprint(parts.validation)}

    def tokenised(examples: Examples) -> Tokenised:
        return Tokenised(encode(tokenizer, examples.texts), examples.labels_N)

    train = tokenised(parts.train)
    started = time.perf_counter()
    found = add_ngrams(
        net,
        train,
        tokenised(parts.validation),
        longest=MdlmConfig.model_fields["ngrams"].default,
        most=MdlmConfig.model_fields["ngram_terms"].default,
        window=int(config.network["window_tokens"]),
        overlap=int(config.network["overlap_tokens"]),
        pooling=config.window_pooling,
        neutral=config.neutral_index,
        device=torch.device("cpu"),
    )
    found |= {"seconds": time.perf_counter() - started, "machine": machine()}
    print(found)
    network = {**config.network, "shape": net.shape.model_dump()}
    stages = {**config.training["stages"], "ngrams": found}
    training = {**config.training, "stages": stages}
    with tempfile.TemporaryDirectory(dir=new.parent) as work:
        folder = Path(work) / "artefact"
        update = {"network": network, "training": training}
        # token frequencies, where novelty is told by them
        counted = None if config.network.get("novelty", "energy") == "energy" else train.ids
        write_artefact(folder, config.model_copy(update=update), net, tokenizer, counted)
        measured = {"validation": parts.validation, "calibration": parts.calibration}
        finish_model(
            folder, new, calibration=parts.calibration, measured=measured, data=known,
            opening=None, device="cpu", progress=lambda *_: None,
        )  # fmt: skip


if __name__ == "__main__":
    typer.run(join)
