"""Six significant digits: what is written of a probability, one at a time or many at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_Float64 = npt.NDArray[np.float64]
_POWERS_OF_TEN = np.array([float(f"1e{k}") for k in range(23)])  # a double holds these exactly


def six_digits(value: float) -> float:
    """Return the double nearest to ``value`` in six significant digits."""
    return float(f"{value:.6g}")


def six_digits_N(x_N: _Float64) -> _Float64:
    """Return ``six_digits`` of each, NaN for NaN."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        places_N = 5 - np.floor(np.log10(np.abs(x_N)))
        sure_N = (places_N >= 0) & (places_N < len(_POWERS_OF_TEN))
        power_N = _POWERS_OF_TEN[np.where(sure_N, places_N, 0).astype(np.int64)]
        scaled_N = x_N * power_N
        whole_N = np.rint(scaled_N)
        # Both operands are exact, so the quotient is the double nearest to the decimal. Which
        # decimal that is the product's own error could change only close to a tie.
        sure_N &= np.abs(np.abs(scaled_N - whole_N) - 0.5) > 1e-6
        rounded_N: _Float64 = whole_N / power_N
    for i in (~sure_N).nonzero()[0].tolist():
        rounded_N[i] = six_digits(x_N[i])
    return rounded_N
