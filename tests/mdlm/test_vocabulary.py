"""Log-probabilities a few rows at a time, held against torch's own log-softmax."""

from __future__ import annotations

import pytest
import torch
from guardkit_mdlm import vocabulary
from guardkit_mdlm.vocabulary import TokenLogProbs
from torch import Tensor


def given() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x_ND, weight_VD = torch.randn(10, 6), torch.randn(17, 6)
    return x_ND.requires_grad_(), weight_VD.requires_grad_(), torch.randint(0, 17, (10,))


@pytest.mark.parametrize("rows", [1, 3, 256])
def test_values_and_gradients_are_those_of_log_softmax(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "ROWS", {"cpu": rows})
    outward_N = torch.linspace(-2, 3, 10)
    found, expected = given(), given()
    values_N = TokenLogProbs.apply(*found)
    (values_N * outward_N).sum().backward()
    log_p_NV = (expected[0] @ expected[1].T).log_softmax(1)
    own_N = log_p_NV.gather(1, expected[2][:, None])[:, 0]
    (own_N * outward_N).sum().backward()
    torch.testing.assert_close(values_N, own_N)
    torch.testing.assert_close(found[0].grad, expected[0].grad)
    torch.testing.assert_close(found[1].grad, expected[1].grad)


def test_without_gradients_the_values_are_the_same_to_the_last_bit() -> None:
    x_ND, weight_VD, target_N = given()
    learning_N = TokenLogProbs.apply(x_ND, weight_VD, target_N)
    with torch.inference_mode():
        assert torch.equal(TokenLogProbs.apply(x_ND, weight_VD, target_N), learning_N)
