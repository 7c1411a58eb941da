"""Every stacked layer against torch's own, slot by slot; and dropout's statistics."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from objectives import layers
from objectives.streams import key

P, B = 3, 5


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_linear_equals_torch() -> None:
    x, weight, bias = draw(P, B, 4), draw(P, 4, 6), draw(P, 6)
    y = layers.linear(x, weight, bias, product=torch.float64)
    for p in range(P):
        assert torch.allclose(y[p], functional.linear(x[p], weight[p].t(), bias[p]), rtol=1e-12)


def test_linear_in_bfloat16_returns_the_weights_type_and_is_near() -> None:
    x, weight = draw(P, B, 64).float(), draw(P, 64, 6).float()
    y = layers.linear(x, weight, None, product=torch.bfloat16)
    exact = layers.linear(x, weight, None, product=torch.float32)
    assert y.dtype == torch.float32
    assert 0 < ((y - exact).norm() / exact.norm()).item() < 0.01


def test_conv2d_equals_torch() -> None:
    x, weight, bias = draw(P, B, 8, 6, 2), draw(P, 4, 3, 3, 2), draw(P, 4)
    y = layers.conv2d(x, weight, bias, product=torch.float64)
    for p in range(P):
        expected = functional.conv2d(x[p].permute(0, 3, 1, 2), weight[p].permute(0, 3, 1, 2), bias[p], padding=1)
        assert torch.allclose(y[p].permute(0, 3, 1, 2), expected, rtol=1e-10)


def test_max_pool2d_equals_torch() -> None:
    x = draw(P, B, 7, 6, 2)
    y = layers.max_pool2d(x)
    for p in range(P):
        assert y[p].permute(0, 3, 1, 2).equal(functional.max_pool2d(x[p].permute(0, 3, 1, 2), 2))


@pytest.mark.parametrize("training", [True, False])
def test_batch_norm_equals_torch_with_its_running_statistics(training: bool) -> None:
    x, weight, bias, mean, var = draw(P, B, 4), draw(P, 4), draw(P, 4), draw(P, 4), draw(P, 4).square()
    own_mean, own_var = mean.clone(), var.clone()
    y = layers.batch_norm(x, weight, bias, running_mean_PD=own_mean, running_var_PD=own_var, training=training)
    for p in range(P):
        expected = functional.batch_norm(x[p], mean[p], var[p], weight[p], bias[p], training=training)
        assert torch.allclose(y[p], expected, rtol=1e-10)
    assert torch.allclose(own_mean, mean)
    assert torch.allclose(own_var, var)


def test_dropout_drops_at_each_slots_rate_and_keeps_the_mean() -> None:
    rates = [0.0, 0.25, 0.6, 0.999999]
    y = layers.dropout(torch.ones(4, 100, 500), rates=rates, keys=[key(i, "dropout") for i in range(4)])
    dropped = (y == 0).double().mean(dim=(1, 2)).tolist()
    assert dropped == pytest.approx(rates, abs=0.01)
    assert y[0].eq(1).all()
    assert y[:3].mean(dim=(1, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.01)
    assert sorted(set(y[1].flatten().tolist())) == pytest.approx([0, 1 / 0.75])


def test_dropout_masks_depend_on_the_slots_key_alone() -> None:
    x = torch.ones(3, 4, 50)
    keys = [key(i, "dropout") for i in range(3)]
    y = layers.dropout(x, rates=[0.5] * 3, keys=keys)
    assert y[1:2].equal(layers.dropout(x[1:2], rates=[0.5], keys=keys[1:2]))
    assert not y[1].equal(y[0])
    assert not y[1, 0].equal(y[1, 1])


def test_dropout_keeps_its_input_where_all_rates_are_zero() -> None:
    x = torch.ones(2, 3)
    assert layers.dropout(x, rates=[0.0, 0.0], keys=[1, 2]) is x
