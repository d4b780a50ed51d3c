"""Six significant digits, many at once: those of the standard library, to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from guardkit.rounding import six_digits, six_digits_N


@given(st.lists(st.floats(0, 1) | st.floats()))
@example([0.9999995, 0.00012345650, 0.1, 0.09999999999999999, 1e-17, 1e-18, 5e-324, 0.0, 1.0])
@example([0.1234565, 0.12345650000000001, 0.12345649999999999, 2.5e-7, 1234567.5, -0.5, 1e308])
def test_many_at_once_are_the_same_as_one_by_one(values: list[float]) -> None:
    together = six_digits_N(np.array(values, np.float64)).tolist()
    assert list(map(repr, together)) == [repr(six_digits(value)) for value in values]


def test_probabilities_of_every_size_keep_six_digits() -> None:
    p_N = np.exp(-np.random.default_rng(0).exponential(10, 20_000))
    assert six_digits_N(p_N).tolist() == [float(f"{p:.6g}") for p in p_N.tolist()]
