"""Running a network over many windows: like lengths together, a bounded number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from guardkit import halved_on_oom
from guardkit_mdlm.batches import pad_batch
from guardkit_mdlm.class_network import ClassNetwork
from guardkit_mdlm.token_ids import TokenIds

Float32 = npt.NDArray[np.float32]
#: Tokens run at once, padding included. On a CPU few enough for activations to stay in its cache
#: and to be allocated without asking the kernel: 6.4 texts/s a core against 5.1 of half pairs with
#: 8192 (256 wide, Zen 4).
BATCH_TOKENS = {"cpu": 2048, "cuda": 262_144}


def batched(
    pieces: Sequence[TokenIds],
    run: Callable[..., np.ndarray],
    shape: tuple[int, ...],
    device: torch.device,
    *more: np.ndarray,
) -> np.ndarray:
    """Return ``run``'s rows, each of ``shape``, in the order of ``pieces``, batch by batch; it is
    given pieces and the same rows of ``more``. A batch that memory does not hold is halved."""
    values_W = np.zeros((len(pieces), *shape), np.float32)

    def fill(rows: Sequence[int]) -> None:
        values_W[rows] = run([pieces[w] for w in rows], *(x_W[rows] for x_W in more))

    for rows in _batches(pieces, BATCH_TOKENS[device.type]):
        halved_on_oom(rows, fill)
    return values_W


def one_pass_logits(
    net: ClassNetwork,
    pieces: Sequence[TokenIds],
    device: torch.device,
    features_WF: Float32 | None = None,
    *,
    ngrams: bool = True,
) -> np.ndarray:
    """Return logits_WC of p(class | window), read from the label slot; ``features_WF`` are those
    of each window's whole text, where the network reads any. ``ngrams`` says whether the network's
    own n-grams, if it has any, are added."""

    def run(chosen: Sequence[TokenIds], features_BF: Float32 | None = None) -> np.ndarray:
        batch = pad_batch(chosen, np.zeros(len(chosen)), features_BF)
        ids_BL, real_BL, there_BF = batch.inputs(device)
        with torch.inference_mode():
            slot_BD, _ = net(ids_BL, torch.zeros_like(ids_BL[:, 0]), real_BL, there_BF)
            logits_BC = net.label_logits(slot_BD, ids_BL, real_BL, ngrams=ngrams)
        result: np.ndarray = logits_BC.float().cpu().numpy()
        return result

    more = () if features_WF is None else (features_WF,)
    return batched(pieces, run, (net.shape.n_classes,), device, *more)


def _batches(pieces: Sequence[TokenIds], budget: int) -> Iterator[list[int]]:
    rows: list[int] = []
    for w in sorted(range(len(pieces)), key=lambda w: len(pieces[w])):
        if rows and (len(rows) + 1) * (len(pieces[w]) + 1) > budget:
            yield rows
            rows = []
        rows.append(w)
    if rows:
        yield rows
