"""Which tokens and pairs of them stand in a window, in a vector of fixed length.

Signed feature hashing (Weinberger et al. 2009, section 2): each distinct run h of one or two
tokens adds its sign to one of K buckets, over the square root of the number of runs R:

    s_k = sum_{h: bucket(h) = k} sign(h) / sqrt(R)

Two windows' inner product is then, in expectation over hash functions, the number of runs that they
share over the geometric mean of their numbers: nothing has to be known beforehand, so a word that
no training text had counts like any other.

Shape letters: W windows, B those of a batch, L tokens, R runs, K buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor

from guardkit_mdlm.ngrams import once, run_hashes
from guardkit_mdlm.runs import window_hashes
from guardkit_mdlm.token_ids import TokenIds

BUCKETS, LONGEST_RUN = 8_192, 2
#: What spreads hashes over buckets, and how much of the product is too regular to be used.
MULTIPLIER, REGULAR = 1_103_515_245, 2**20

Integers = TypeVar("Integers", npt.NDArray[np.int64], Tensor)


def bucket_and_sign(hashes: Integers) -> tuple[Integers, Integers]:
    """Return the bucket of each run, and 1 or -1; of no run, what is to be left out."""
    spread = hashes * MULTIPLIER // REGULAR
    return spread % BUCKETS, 1 - 2 * (spread // BUCKETS % 2)


def sketches(pieces: Sequence[TokenIds]) -> sparse.csr_array:
    """Return sketch_WK of windows, float32."""
    hashes = list(window_hashes(pieces, LONGEST_RUN))
    numbers_W = np.array([len(h) for h in hashes], np.int64)
    bucket_R, sign_R = bucket_and_sign(np.concatenate([*hashes, []]).astype(np.int64))
    value_R = sign_R / np.sqrt(np.repeat(numbers_W, numbers_W))
    whose_R = np.repeat(np.arange(len(hashes)), numbers_W)
    found = sparse.coo_array((value_R, (whose_R, bucket_R)), shape=(len(hashes), BUCKETS))
    return found.tocsr().astype(np.float32)


def weighed(weight_MK: Tensor, ids_BL: Tensor, real_BL: Tensor | None) -> Tensor:
    """Return the windows' sketches times M weight vectors, (B, M), without making the sketches."""
    hash_BR, once_BR = once(run_hashes(ids_BL, real_BL, LONGEST_RUN))
    bucket_BR, sign_BR = bucket_and_sign(hash_BR.clamp(min=0))
    value_MBR = weight_MK[:, bucket_BR] * (sign_BR * once_BR)
    number_B = once_BR.sum(1).clamp(min=1)
    result_BM: Tensor = (value_MBR.sum(2) / number_B.sqrt()).T
    return result_BM
