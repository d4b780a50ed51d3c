"""What the one pass makes of a text's windows, and what a model remembers of held-out texts.

The *states* of a window are the label slot's and the mean of its tokens'. A trained model keeps
those of some held-out texts, and no text, so that a row can be added to it later
(``guardkit_mdlm.classrows``) where its data is not at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from guardkit import ArtefactError, Pooling, pool_windows, windows
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.inference import batched, cut_windows
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.tokenizer import TokenIds

STATES = "states.safetensors"
#: Windows whose states a model remembers, at most: at 192 wide 1.5 MB.
REMEMBERED_WINDOWS = 2_000

Float32 = npt.NDArray[np.float32]


def window_states(slot_BD: Tensor, x_BLD: Tensor, real_BL: Tensor | None) -> Tensor:
    """Return the states_BF of windows, float32, F = 2 D; arguments as ``Denoiser.forward`` gives
    and takes them."""
    x_BLD = x_BLD.float()
    if real_BL is None:
        return torch.cat([slot_BD.float(), x_BLD.mean(1)], dim=1)
    real_BL1 = real_BL[..., None]
    total_BD = x_BLD.masked_fill(~real_BL1, 0.0).sum(1)
    return torch.cat([slot_BD.float(), total_BD / real_BL1.sum(1).clamp(min=1)], dim=1)


def logits_and_states(
    net: Denoiser, pieces: Sequence[TokenIds], device: torch.device
) -> tuple[Float32, Float32]:
    """Return logits_WC of the network alone, and states_WF."""
    C, F = net.shape.n_classes, 2 * net.shape.hidden_dim

    def run(chosen: Sequence[TokenIds]) -> np.ndarray:
        batch = pad_batch(chosen, np.zeros(len(chosen)))
        ids_BL, real_BL, _ = batch.inputs(device)
        with torch.inference_mode():
            slot_BD, x_BLD = net(ids_BL, torch.zeros_like(ids_BL[:, 0]), real_BL)
            logits_BC = net.label_logits(slot_BD, ids_BL, real_BL)
            both = torch.cat([logits_BC, window_states(slot_BD, x_BLD, real_BL)], dim=1)
        result: np.ndarray = both.float().cpu().numpy()
        return result

    both = batched(pieces, run, (C + F,), device)
    return both[:, :C].copy(), both[:, C:].copy()


@dataclass(frozen=True)
class Windows:
    """What the network made of N texts, window by window; ``text_W`` says whose each one is.
    ``states_WF`` of a model's own texts are kept in 16 bits."""

    logits_WC: Float32
    states_WF: Float32
    text_W: npt.NDArray[np.int64]
    labels_N: npt.NDArray[np.int64]
    tokens_N: npt.NDArray[np.int64]
    sources: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels_N)

    def pooled(self, how: Pooling, neutral: int | None) -> Float32:
        """Return logits_NC, as the model's own windows are pooled."""
        logits_NC: Float32 = pool_windows(self.logits_WC, self.text_W, len(self), how, neutral)
        return logits_NC

    def of_texts(self, index: Sequence[int]) -> Windows:
        """Return the texts at ``index``, in that order."""
        at = [np.flatnonzero(self.text_W == i) for i in index]
        chosen_W = np.concatenate(at)
        return Windows(
            self.logits_WC[chosen_W],
            self.states_WF[chosen_W],
            np.repeat(np.arange(len(at)), [len(w) for w in at]),
            self.labels_N[list(index)],
            self.tokens_N[list(index)],
            [self.sources[i] for i in index] if self.sources else (),
        )

    def save(self, folder: Path) -> None:
        known = sorted(set(self.sources))
        tensors: dict[str, npt.NDArray[Any]] = {
            "logits_WC": self.logits_WC,
            "states_WF": self.states_WF.astype(np.float16),
            "text_W": self.text_W,
            "labels_N": self.labels_N,
            "tokens_N": self.tokens_N,
            "source_N": np.array([known.index(s) for s in self.sources], np.int64),
        }
        save_file(tensors, folder / STATES, {"sources": "\n".join(known)})


def states_of(
    net: Denoiser,
    ids: Sequence[TokenIds],
    labels_N: npt.NDArray[np.integer],
    *,
    window: int,
    overlap: int,
    device: torch.device,
    sources: Sequence[str] = (),
) -> Windows:
    """Run the network over N tokenised texts."""
    pieces, text_W = cut_windows(ids, window, overlap)
    logits_WC, states_WF = logits_and_states(net, pieces, device)
    tokens_N = np.array([len(i) for i in ids], np.int64)
    return Windows(logits_WC, states_WF, text_W, labels_N.astype(np.int64), tokens_N, sources)


def to_remember(
    ids: Sequence[TokenIds], *, window: int, overlap: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return which texts to keep the states of: at random, as many as their windows allow."""
    order_N = np.random.default_rng(seed).permutation(len(ids))
    counts_N = np.array([len(windows(len(ids[i]), window, overlap)) for i in order_N])
    kept: npt.NDArray[np.int64] = np.sort(order_N[np.cumsum(counts_N) <= REMEMBERED_WINDOWS])
    return kept


def load_states(folder: Path) -> Windows:
    """Return what a model remembers of its held-out texts. Raises ArtefactError where it has
    none."""
    path = folder / STATES
    if not path.is_file():
        raise ArtefactError(
            f"{folder}: remembers no held-out texts ({STATES}), so nothing can be added to it; "
            "models trained by this version do, if they have the one_pass scorer, a network of "
            "their own for all labels and no other model's features"
        )
    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = (file.metadata() or {}).get("sources", "").split("\n")
    return Windows(
        tensors["logits_WC"],
        tensors["states_WF"].astype(np.float32),
        tensors["text_W"],
        tensors["labels_N"],
        tensors["tokens_N"],
        [known[i] for i in tensors["source_N"]],
    )
