"""Masked language models of transformers, and sentence encoders, as a network to start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from guardkit import ConfigError, read_whole
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.shape import EncoderShape, NetworkShape
from guardkit_mdlm.weights.hub import from_hub

FILES = ("config.json", "*.safetensors", "tokenizer*", "vocab*", "merges.txt", "special_tokens*")


@dataclass(frozen=True)
class MaskedLm:
    """A plain network, its tokenizer, and what stands where the label's slot does."""

    net: Denoiser
    tokenizer: Tokenizer
    slot_D: Tensor
    #: The checkpoint has no head to predict tokens with: it is to be learnt first.
    fresh_head: bool


def architecture_of(folder: Path) -> str | None:
    """Return the ``model_type`` of a folder in transformers' layout, None where there is none."""
    try:
        found = json.loads((folder / "config.json").read_text("utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def find_masked_lm(init: str) -> Path | None:
    """Return the folder of a masked language model on this machine or of the hub; None where
    ``init`` is a folder or a model of another kind."""
    from guardkit_mdlm.trunks.encoder import HEADS

    folder = Path(init) if Path(init).is_dir() else from_hub(init, ["config.json"])
    if architecture_of(folder) not in HEADS:
        return None
    return folder if Path(init).is_dir() else from_hub(init, FILES)


def load_masked_lm(folder: Path) -> MaskedLm:
    """Load a folder in transformers' layout. Weights are safetensors, and no code of the folder
    runs. Raises ConfigError that says what is missing."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    try:
        with _without_reports():
            model, found = AutoModelForMaskedLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32
            )
        reader = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"--init {folder}: cannot be loaded as a masked language model: {error}. The folder "
            "needs config.json, model.safetensors and a tokenizer"
        ) from error
    if reader.mask_token_id is None or reader.cls_token_id is None:
        raise ConfigError(
            f"--init {folder}: its tokenizer has no mask or start token ([MASK], [CLS]), so it is "
            "no masked language model's"
        )
    config = model.config
    shape = NetworkShape(
        vocab_size=config.vocab_size,
        hidden_dim=config.hidden_size,
        cond_dim=0,
        n_blocks=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        tie_embeddings=bool(config.tie_word_embeddings),
        encoder=EncoderShape(
            config=_kept(config),
            mask_id=reader.mask_token_id,
            start_id=reader.cls_token_id,
            end_id=reader.sep_token_id,
        ),
    )
    net = Denoiser(shape)
    net.trunk.load_state_dict({f"model.{n}": t for n, t in model.state_dict().items()})
    slot_D = net.trunk.embedding[reader.cls_token_id].detach().clone()
    own = f"{model.base_model_prefix}."
    fresh = any(not name.startswith(own) for name in found["missing_keys"])
    return MaskedLm(net.eval(), read_whole(reader.backend_tokenizer), slot_D, fresh)


@contextmanager
def _without_reports() -> Iterator[None]:
    """Keep transformers from reporting what is missing, which is told here where it matters, and
    from bars of its own."""
    from transformers import utils

    logging: Any = utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _kept(config: Any) -> dict[str, Any]:
    """Return what rebuilds the network, without what only says where it came from."""
    gone = ("_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype")
    kept = {name: value for name, value in config.to_diff_dict().items() if name not in gone}
    return {"model_type": config.model_type, **kept}
