"""Muon's update against singular values, and its steps against torch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from guardkit_mdlm.training.muon import ITERATIONS, A, B, C, Muon, orthogonal

SHAPES = [(24, 8), (8, 24), (16, 16)]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_update_keeps_singular_vectors_and_sends_singular_values_through_the_quintic(
    shape: tuple[int, int],
) -> None:
    x_NRC = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, s, vt = torch.linalg.svd(x_NRC, full_matrices=False)
    s = s / x_NRC.norm(dim=(1, 2))[:, None]
    for _ in range(ITERATIONS):
        s = A * s + B * s**3 + C * s**5
    expected_NRC = u * s[:, None] @ vt
    torch.testing.assert_close(orthogonal(x_NRC, torch.float64), expected_NRC)
    torch.testing.assert_close(
        orthogonal(x_NRC.float(), torch.float32), expected_NRC.float(), atol=1e-4, rtol=1e-3
    )


def test_a_matrix_of_zeros_is_no_reason_to_divide_by_zero() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 3, 4), torch.float32), torch.zeros(2, 3, 4))


def test_steps_are_those_of_torchs_muon_to_the_rounding_of_bfloat16() -> None:
    torch.manual_seed(0)
    start = [torch.randn(shape) for shape in [*SHAPES, *SHAPES]]
    ours, theirs = ([x.clone().requires_grad_() for x in start] for _ in range(2))
    options = {"lr": 0.02, "momentum": 0.95, "weight_decay": 0.1}
    own = Muon(ours, dtype=torch.float32, **options)
    peer = torch.optim.Muon(theirs, **options)
    for _ in range(5):
        for mine, its in zip(ours, theirs, strict=True):
            its.grad = torch.randn(its.shape)
            mine.grad = its.grad.clone()
        own.step()
        peer.step()
    for x, mine, its in zip(start, ours, theirs, strict=True):
        moved = (its - x).norm()
        assert (mine - its).norm() < 0.02 * moved
        assert moved > 0.1


def test_what_has_no_gradient_stays_and_what_was_saved_goes_on() -> None:
    torch.manual_seed(0)
    still, moving = (torch.randn(4, 6).requires_grad_() for _ in range(2))
    before = still.detach().clone()
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "dtype": torch.float32}
    grads = [torch.randn(4, 6) for _ in range(4)]
    optimiser = Muon([still, moving], **options)
    for grad in grads[:2]:
        moving.grad = grad
        optimiser.step()
    other = moving.detach().clone().requires_grad_()
    resumed = Muon([before.clone().requires_grad_(), other], **options)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for grad in grads[2:]:
        moving.grad, other.grad = grad, grad
        optimiser.step()
        resumed.step()
    assert torch.equal(still, before)
    assert torch.equal(moving, other)
