"""A batch that memory does not hold is halved; every row is done, and nothing else is caught."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardkit import halved_on_oom
from guardkit.model.memory import out_of_memory

pytestmark = pytest.mark.filterwarnings("ignore:out of memory:RuntimeWarning")


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect() -> None:
    """Each halving collects garbage, of which a process of many tests has much."""
    gc.freeze()


@settings(deadline=None)
@given(n=st.integers(1, 60), holds=st.integers(1, 60))
def test_every_row_is_done_once_in_order_by_batches_that_fit(n: int, holds: int) -> None:
    done: list[int] = []

    def run(rows: Sequence[int]) -> None:
        if len(rows) > holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(rows)

    halved_on_oom(range(n), run)
    assert done == list(range(n))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory"),
        RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested bytes"),
    ],
)
def test_each_library_s_way_to_say_it_is_understood(error: Exception) -> None:
    assert out_of_memory(error)


def test_a_cpu_that_has_no_more_memory_says_so_in_these_words() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert out_of_memory(raised.value)


def test_another_error_and_a_row_too_large_alone_are_passed_on() -> None:
    def broken(rows: Sequence[int]) -> None:
        raise ValueError("something else")

    def too_large(rows: Sequence[int]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ValueError, match="something else"):
        halved_on_oom([1, 2, 3], broken)
    with pytest.raises(torch.OutOfMemoryError):
        halved_on_oom([1, 2, 3], too_large)


def test_what_the_failed_batch_held_is_free_before_the_next_try() -> None:
    class Tensor:
        pass

    held: list[weakref.ref[Tensor]] = []

    def run(rows: Sequence[int]) -> None:
        assert not [ref for ref in held if ref() is not None]
        tensor = Tensor()
        held.append(weakref.ref(tensor))
        if len(rows) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()  # it must not be chance that frees it
    try:
        halved_on_oom([1, 2, 3, 4], run)
    finally:
        gc.enable()


def test_the_user_is_told() -> None:
    def run(rows: Sequence[int]) -> None:
        if len(rows) > 2:
            raise MemoryError

    with pytest.warns(RuntimeWarning, match="out of memory with 4 .* at once; going on with 2"):
        halved_on_oom([1, 2, 3, 4], run)
