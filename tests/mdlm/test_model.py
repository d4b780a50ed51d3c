"""The network against the public research code's outputs, and what classes add to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from guardkit_mdlm.model import Denoiser
from guardkit_mdlm.shape import NetworkShape
from guardkit_mdlm.trunks.dit import _attend
from safetensors.torch import load_file
from torch import Tensor

REFERENCE = Path(__file__).parent / "reference"


def reference_net() -> Denoiser:
    shape = NetworkShape(vocab_size=65, hidden_dim=48, cond_dim=16, n_blocks=2, n_heads=3)
    net = Denoiser(shape)
    weights = load_file(REFERENCE / "model.safetensors")
    weights.pop("backbone.rotary_emb.inv_freq")  # a constant, computed where it is used
    net.load_state_dict({k.removeprefix("backbone."): v for k, v in weights.items()})
    return net.eval()


@torch.no_grad()
def test_logits_are_those_of_the_public_code() -> None:
    golden = np.load(REFERENCE / "golden.npz")
    ids_BL = torch.from_numpy(golden["xt"])
    B, L = ids_BL.shape
    net = reference_net()
    _, x_BLD = net(
        ids_BL, torch.zeros(B, dtype=torch.long), torch.ones_like(ids_BL, dtype=torch.bool)
    )
    logits = net.token_logits(x_BLD.flatten(0, 1), torch.zeros(B * L, dtype=torch.long))
    np.testing.assert_allclose(logits.view(B, L, -1).numpy(), golden["logits"], atol=1e-4)


@torch.no_grad()
def test_log_probabilities_of_masked_tokens_are_those_of_the_public_code() -> None:
    golden = np.load(REFERENCE / "golden.npz")
    noised_BL, ids_BL = torch.from_numpy(golden["xt"]), torch.from_numpy(golden["x0"])
    net = reference_net()
    masked_BL = noised_BL == net.shape.mask_id
    _, x_BLD = net(
        noised_BL, torch.zeros(len(ids_BL), dtype=torch.long), torch.ones_like(masked_BL)
    )
    zero_N = torch.zeros(int(masked_BL.sum()), dtype=torch.long)
    log_p_N = net.token_log_probs(x_BLD[masked_BL], zero_N, ids_BL[masked_BL])
    np.testing.assert_allclose(log_p_N.numpy(), golden["log_p_x0"][masked_BL.numpy()], atol=1e-4)


def full(B: int, L: int, V: int = 49) -> tuple[Tensor, Tensor]:
    ids_BL = torch.randint(0, V, (B, L), generator=torch.Generator().manual_seed(1))
    return ids_BL, torch.ones(B, L, dtype=torch.bool)


@torch.no_grad()
def test_before_training_every_class_computes_what_the_null_class_does() -> None:
    shape = NetworkShape(
        vocab_size=50, hidden_dim=32, cond_dim=8, n_blocks=2, n_heads=2, n_classes=3
    )
    net = Denoiser(shape).eval()
    ids_BL, real_BL = full(2, 7)
    results = [net(ids_BL, torch.full((2,), c), real_BL) for c in range(4)]
    for slot, x in results[1:]:
        torch.testing.assert_close(slot, results[0][0])
        torch.testing.assert_close(x, results[0][1])


@torch.no_grad()
def test_once_trained_classes_differ_and_the_null_row_stays_zero(net: Denoiser) -> None:
    ids_BL, real_BL = full(2, 7)
    x = [net(ids_BL, torch.full((2,), c), real_BL)[1] for c in range(4)]
    assert min(float((x[0] - other).abs().max()) for other in x[1:]) > 1e-3
    logits = net.token_logits(x[0].flatten(0, 1), torch.zeros(14, dtype=torch.long))
    expected = x[0].flatten(0, 1) @ net.trunk.output_weight.T + net.trunk.output_bias
    torch.testing.assert_close(logits, expected)  # no class bias for the null class


@torch.no_grad()
def test_padding_and_neighbours_do_not_change_a_row(net: Denoiser) -> None:
    ids_BL, real_BL = full(1, 5)
    class_B = torch.tensor([2])
    alone_slot, alone_x = net(ids_BL, class_B, real_BL)
    padded = torch.cat([ids_BL, torch.full((1, 4), 7)], dim=1)
    longer, _ = full(1, 9)
    both = torch.cat([padded, longer])
    seen = torch.tensor([[True] * 5 + [False] * 4, [True] * 9])
    slot, x = net(both, torch.tensor([2, 1]), seen)
    torch.testing.assert_close(slot[:1], alone_slot, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(x[:1, :5], alone_x, atol=1e-5, rtol=1e-5)
    logits = net.label_logits(slot, both, seen)
    torch.testing.assert_close(
        logits[:1], net.label_logits(alone_slot, ids_BL, real_BL), atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_mask_has_no_probability_and_the_rest_sums_to_one(net: Denoiser) -> None:
    ids_BL, real_BL = full(1, 4)
    _, x_BLD = net(ids_BL, torch.tensor([1]), real_BL)
    state_ND = x_BLD[0, :1].expand(49, -1)
    log_p_N = net.token_log_probs(state_ND, torch.ones(49, dtype=torch.long), torch.arange(49))
    torch.testing.assert_close(log_p_N.exp().sum(), torch.tensor(1.0), atol=1e-5, rtol=0)


@torch.no_grad()
def test_bfloat16_keeps_the_evidence_of_a_token(net: Denoiser) -> None:
    """The rounding of one token's log-probability stays well below 0.03, bfloat16's own."""
    state_ND = torch.randn(400, 32, generator=torch.Generator().manual_seed(3))
    target_N = torch.arange(400) % 49
    class_N = torch.ones(400, dtype=torch.long)
    low = net.to(torch.bfloat16)
    rounded = low.token_log_probs(state_ND.bfloat16(), class_N, target_N)
    exact = low.float().token_log_probs(state_ND.bfloat16().float(), class_N, target_N)
    assert float((rounded - exact).abs().mean()) < 0.01


@pytest.mark.parametrize("padded", [False, True])
def test_attention_in_bfloat16_on_a_cpu_is_that_of_the_fused_kernel(padded: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    exact = [torch.randn(3, 2, 9, 16, generator=generator).bfloat16().float() for _ in range(3)]
    low = [x.bfloat16() for x in exact]
    seen = None
    if padded:
        seen = (torch.arange(9) < torch.tensor([[9], [6], [1]]))[:, None, None]
    for x in (*exact, *low):
        x.requires_grad_()
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, attn_mask=seen)
    found = _attend(*low, seen)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    expected.square().sum().backward()  # type: ignore[no-untyped-call]
    found.square().sum().backward()  # type: ignore[no-untyped-call]
    for x, y in zip(low, exact, strict=True):
        assert x.grad is not None
        assert y.grad is not None
        torch.testing.assert_close(x.grad.float(), y.grad, atol=0.2, rtol=0.1)


@torch.no_grad()
def test_no_padding_is_read_as_padding_that_is_nowhere(net: Denoiser) -> None:
    ids_BL, real_BL = full(3, 7)
    class_B = torch.tensor([0, 1, 3])
    slot, x = net(ids_BL, class_B, real_BL)
    same_slot, same_x = net(ids_BL, class_B, None)
    torch.testing.assert_close(same_slot, slot)
    torch.testing.assert_close(same_x, x)
    torch.testing.assert_close(
        net.label_logits(slot, ids_BL, None), net.label_logits(slot, ids_BL, real_BL)
    )
