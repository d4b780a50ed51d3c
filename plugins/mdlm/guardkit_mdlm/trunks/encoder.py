"""Any masked language model of transformers as the trunk: BERT and its kin.

A masked language model tells masked tokens from visible ones without being told how many are
masked, which is all that a diffusion model's network does: the optimal one needs no noise level
(Ou et al. 2024), and its loss is a masked language model's at every share of masks (Sahoo et al.
2024, equation 8). DiffusionBERT (He et al. 2023) and dLLM's BERT-Chat start there.

    [CLS] x_1 ... x_L [SEP]        the label's slot is [CLS]; neither it nor [SEP] is ever masked

The weights keep transformers' own names below ``model.``. With the null class the trunk's output
is the checkpoint's.

Shape letters: B sequences, L tokens, S = L + 1 positions with the slot, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM

from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.trunk import Trunk


@dataclass(frozen=True)
class Head:
    """What stands between the states and the output matrix: how it is run, and its last norm."""

    run: Callable[[Any, Tensor], Tensor]
    norm: str


def _with_gelu(model: Any, x: Tensor) -> Tensor:
    head: Tensor = model.lm_head.layer_norm(F.gelu(model.lm_head.dense(x)))
    return head


def _distilbert(model: Any, x: Tensor) -> Tensor:
    head: Tensor = model.vocab_layer_norm(model.activation(model.vocab_transform(x)))
    return head


_BERT = Head(
    lambda model, x: model.cls.predictions.transform(x), "cls.predictions.transform.LayerNorm"
)
_ROBERTA = Head(_with_gelu, "lm_head.layer_norm")
#: Of each architecture of transformers that can be a trunk, by its ``model_type``.
HEADS: Mapping[str, Head] = {
    "bert": _BERT,
    "deberta-v2": _BERT,
    "distilbert": Head(_distilbert, "vocab_layer_norm"),
    "electra": Head(
        lambda model, x: model.generator_predictions(x), "generator_predictions.LayerNorm"
    ),
    "modernbert": Head(lambda model, x: model.head(x), "head.norm"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
#: The names that they give their dropout by.
DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout",
    "embedding_dropout", "mlp_dropout",
)  # fmt: skip


class EncoderTrunk(Trunk):
    """The layers and the head of a masked language model. The class is told at the slot alone:
    the layers have no place for it."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        assert shape.encoder is not None
        options = dict(shape.encoder.config)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, shape.dropout)
        make: Any = AutoModelForMaskedLM.from_config
        self.model: Any = make(config)
        self.end_id = shape.encoder.end_id
        self._head = HEADS[config.model_type]
        self._tied = self._tied_names()
        self.register_state_dict_post_hook(_leave_out_tied)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_in_tied)  # type: ignore[no-untyped-call]

    def train(self, mode: bool = True) -> EncoderTrunk:
        super().train(mode)
        # on a CPU the gradient of fused attention is slower than that of its plain form
        plain = mode and self.embedding.device.type == "cpu"
        self.model.set_attn_implementation("eager" if plain else "sdpa")
        return self

    def embed(self, ids_BL: Tensor) -> Tensor:
        return F.embedding(ids_BL, self.embedding)

    def condition(self, class_BK: Tensor) -> Tensor:
        return class_BK

    def forward(self, x_BSD: Tensor, c_BK: Tensor, seen_BS: Tensor | None) -> Tensor:
        S = x_BSD.shape[1]
        if self.end_id is not None:
            x_BSD, seen_BS = self._ended(x_BSD, seen_BS)
        layers: Any = self.model.base_model
        states = layers(
            inputs_embeds=x_BSD, attention_mask=None if seen_BS is None else seen_BS.long()
        )
        x_BSD = states.last_hidden_state
        return x_BSD[:, :S]

    def predictor(self, x_BLD: Tensor, c_BK: Tensor) -> Tensor:
        return self._head.run(self.model, x_BLD)

    @property
    def output_weight(self) -> Tensor:
        return self._decoder.weight

    @property
    def output_bias(self) -> Tensor:
        bias: Tensor | None = self._decoder.bias
        return self.output_weight.new_zeros(len(self.output_weight)) if bias is None else bias

    @property
    def embedding(self) -> Tensor:
        layer = self.model.get_input_embeddings()
        assert isinstance(layer, nn.Embedding)
        return layer.weight

    @torch.no_grad()
    def silence(self) -> None:
        self.model.get_submodule(self._head.norm).weight.zero_()

    def hidden_matrices(self) -> Sequence[nn.Parameter]:
        layers = self._layers()
        return [p for p in layers.parameters() if p.ndim == 2]

    def _ended(self, x_BSD: Tensor, seen_BS: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Put [SEP] after each sequence's last token."""
        end_D = self.embedding[self.end_id].to(x_BSD.dtype)
        if seen_BS is None:
            return torch.cat([x_BSD, end_D.expand(len(x_BSD), 1, -1)], 1), None
        length_B = seen_BS.sum(1)
        at_end = torch.arange(x_BSD.shape[1] + 1, device=x_BSD.device) == length_B[:, None]
        x_BSD = torch.where(at_end[..., None], end_D, F.pad(x_BSD, (0, 0, 0, 1)))
        return x_BSD, F.pad(seen_BS, (0, 1), value=False) | at_end

    @property
    def _decoder(self) -> nn.Linear:
        decoder = self.model.get_output_embeddings()
        assert isinstance(decoder, nn.Linear)
        return decoder

    def _tied_names(self) -> Mapping[str, str]:
        """Return the parameters that are others once more, with those."""
        first: dict[int, str] = {}
        tied = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            if first.setdefault(id(parameter), name) != name:
                tied[name] = first[id(parameter)]
        return tied

    def _layers(self) -> nn.ModuleList:
        lists = [m for m in self.model.base_model.modules() if isinstance(m, nn.ModuleList)]
        return max(lists, key=len)


def _leave_out_tied(
    trunk: nn.Module, state: dict[str, Tensor], prefix: str, _metadata: Any
) -> None:
    """Write each weight once: safetensors takes no tensor under two names."""
    assert isinstance(trunk, EncoderTrunk)
    for name in trunk._tied:
        state.pop(prefix + name, None)


def _put_in_tied(trunk: nn.Module, state: dict[str, Tensor], prefix: str, *_rest: Any) -> None:
    assert isinstance(trunk, EncoderTrunk)
    for name, other in trunk._tied.items():
        if prefix + other in state:
            state[prefix + name] = state[prefix + other]
