"""Join a linear model of n-grams to a trained network, in the place of one that it may have.

    python -m benchmarks.imdb.join_ngrams PATH/TO/imdb OLD NEW
    python -m benchmarks.imdb.join_ngrams build/bundled OLD NEW \\
        --calibration-data build/bundled/calibration.jsonl --card benchmarks/cards/injection.md

What the network has learnt stays; ``guardkit train`` does the same at its end. Calibrated anew on
the same texts. The card and metrics are those of the held-out sets: ``benchmarks.imdb.measure`` and
``benchmarks.injection.bundled_models`` measure others.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Optional

import torch
import typer
from guardkit_mdlm.adaptation.remembered import REMEMBERED
from guardkit_mdlm.config import MdlmConfig
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.tokenizer import encode, read_tokenizer
from guardkit_mdlm.training.artefact import remember, save_weights
from guardkit_mdlm.training.corpus import Tokenised
from guardkit_mdlm.training.ngram_fit import add_ngrams
from guardkit_mdlm.unigram import BACKGROUND
from safetensors.torch import load_file

from benchmarks.lib.provenance import machine
from guardkit import TOKENIZER, WEIGHTS, read_config
from guardkit.data.splits import load_data_splits
from guardkit.model.artefact import CONFIG, METRICS, write_json
from guardkit.training.finish import finish_model
from guardkit.types import Examples

CPU = torch.device("cpu")


def join(
    data: str,
    old: Path,
    new: Path,
    calibration_data: Optional[str] = None,  # noqa: UP045 - read by typer
    card: Optional[Path] = None,  # noqa: UP045
) -> None:
    config, net, tokenizer = read_config(old), network_of(old), read_tokenizer(old)
    parts = load_data_splits(data, None, calibration_data)
    options = {
        name: value
        for name, value in config.training["options"].items()
        if name in MdlmConfig.model_fields and not name.startswith("ngram")
    }
    trained = MdlmConfig.model_validate(options)

    def tokenised(examples: Examples) -> Tokenised:
        ids = encode(tokenizer, examples.texts)
        return Tokenised(ids, examples.labels_N, sources=examples.sources or ())

    known = json.loads((old / METRICS).read_text("utf-8"))
    measured = {name: getattr(parts, name) for name in known if name != "data"}
    held_out = tokenised(parts.validation)
    started = time.perf_counter()
    found = add_ngrams(
        net,
        tokenised(parts.train),
        held_out,
        longest=trained.ngrams,
        most=trained.ngram_terms,
        window=trained.window_tokens,
        overlap=trained.overlap_tokens,
        pooling=config.window_pooling,
        neutral=config.neutral_index,
        device=CPU,
    )
    found |= {"seconds": time.perf_counter() - started, "machine": machine()}
    print(found)
    training = {
        **config.training,
        "options": trained.model_dump(),
        "stages": {**config.training["stages"], "ngrams": found},
    }
    network = {**config.network, "shape": net.shape.model_dump()}
    joined = config.model_copy(update={"network": network, "training": training})
    with tempfile.TemporaryDirectory(dir=new.parent) as work:
        folder = Path(work) / "artefact"
        folder.mkdir()
        tokenizer.save(str(folder / TOKENIZER))
        save_weights(net, folder)
        write_json(folder / CONFIG, joined)
        if (old / BACKGROUND).is_file():
            shutil.copy(old / BACKGROUND, folder)
        if (old / REMEMBERED).is_file():
            remember(net, held_out, trained).save(folder)
        finish_model(
            folder, new, calibration=parts.calibration, measured=measured, data=known["data"],
            opening=None if card is None else card.read_text("utf-8"),
            device="cpu", progress=lambda *_: None,
        )  # fmt: skip


def network_of(folder: Path) -> Denoiser:
    """Build an artefact's network, without n-grams whatever their form."""
    stored = read_config(folder).network["shape"]
    shape = {name: value for name, value in stored.items() if not name.startswith("ngram")}
    net = Denoiser(NetworkShape.model_validate(shape))
    weights = load_file(folder / WEIGHTS)
    net.load_state_dict({n: t for n, t in weights.items() if not n.startswith("ngrams.")})
    return net.eval()


if __name__ == "__main__":
    typer.run(join)
