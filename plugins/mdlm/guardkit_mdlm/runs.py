"""Short runs of tokens, each known by a hash of 31 bits; NumPy alone.

Shape letters: L tokens of a window, n lengths of runs, R different runs of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from guardkit_mdlm.token_ids import TokenIds

#: What tells runs apart, a number for each token from the last on, and one for the length. Which
#: numbers does not matter; that they stay does.
MULTIPLIERS, OF_LENGTH = (8_191, 1_000_003, 998_244_353, 122_949_823, 433_494_437), 7_919
PRIME = 2**31 - 1
#: The hash of no run.
NONE = -1


def hashes_of(ids_L: TokenIds, longest: int) -> npt.NDArray[np.int32]:
    """Return the hash of the run of each length from each token on, (n, L), ``NONE`` where it
    would go past the window's end."""
    L = len(ids_L)
    wide_L = ids_L.astype(np.int64)
    found_NL = np.full((longest, L), NONE, np.int32)
    for n in range(1, min(longest, L) + 1):
        runs = L - n + 1
        sum_R = np.full(runs, n * OF_LENGTH, np.int64)
        for i in range(n):
            sum_R += wide_L[i : i + runs] * MULTIPLIERS[n - 1 - i]
        found_NL[n - 1, :runs] = sum_R % PRIME
    return found_NL


def window_hashes(pieces: Sequence[TokenIds], longest: int) -> Iterator[npt.NDArray[np.int32]]:
    """Yield the hashes of each window's runs, each once, in ascending order."""
    for ids_L in pieces:
        known_R = np.unique(hashes_of(ids_L, longest))
        yield known_R[known_R != NONE]
