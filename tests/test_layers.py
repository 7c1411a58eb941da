"""What the whole networks of test_models.py do not show: dropout's statistics, and products in bfloat16."""

import pytest
import torch
from torch import Tensor

from objectives.layers import BatchNorm, Bias, Dropout, Linear
from objectives.numbers import Draws, Numbers
from objectives.streams import key
from tests import toy

P, B = 3, 5


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def draws(rates: list[float], *, seeds: list[int] | None = None) -> Draws:
    roots = torch.tensor([key(seed, "draws") for seed in seeds or range(len(rates))])
    slots = [toy.full({"dropout": rate, "batch_norm": True}) for rate in rates]
    numbers = Numbers(slots, ["dropout", "batch_norm"], device=roots.device, switches=["batch_norm"])
    return Draws(numbers=numbers, roots=roots, counts=torch.zeros_like(roots))


def dropped(x: Tensor, drawn: Draws) -> Tensor:
    return Dropout(name="dropout").forward(x, {}, {}, drawn)


@pytest.mark.parametrize("transposed", [False, True])
def test_linear_in_bfloat16_is_near_and_its_gradients_have_the_weights_type(transposed: bool) -> None:
    x, dy = draw(P, B, 64).float(), draw(P, B, 6).float()
    parameters = {"a.weight": draw(P, *((6, 64) if transposed else (64, 6))).float(), "a.bias": draw(P, 6).float()}
    found = []
    for product in (torch.float32, torch.bfloat16):
        layer = Linear(name="a", bias=Bias(name="a.bias"), transposed=transposed)
        gradients = {name: torch.empty_like(stack) for name, stack in parameters.items()}
        y = layer.forward(x.to(product), parameters, {}, draws([0.0] * P))
        dx = layer.backward(dy.to(product), parameters, gradients)
        assert y.dtype == dx.dtype == product
        found.append([y, dx, *gradients.values()])
    for exact, near in zip(*found, strict=True):
        assert ((near - exact).norm() / exact.norm()).item() < 0.01
    assert not found[0][0].equal(found[1][0])


def test_running_statistics_move_also_where_they_lie_apart() -> None:
    x, weight, bias = draw(P, B, 4), torch.ones(P, 4).double(), torch.zeros(P, 4).double()
    rows = torch.zeros(P, 11, dtype=torch.float64)
    buffers = {"a.running_mean": rows[:, 1:5], "a.running_var": rows[:, 5:9]}
    BatchNorm(name="a", shifts=True).forward(x, {"a.weight": weight, "a.bias": bias}, buffers, draws([0.0] * P))
    assert torch.allclose(buffers["a.running_mean"], 0.1 * x.mean(dim=1))
    assert torch.allclose(buffers["a.running_var"], 0.1 * x.var(dim=1))
    assert rows[:, [0, 9, 10]].eq(0).all()


def test_dropout_drops_at_each_slots_rate_and_keeps_the_mean() -> None:
    rates = [0.0, 0.25, 0.6, 0.999999]
    y = dropped(torch.ones(4, 100, 500), draws(rates))
    share = (y == 0).double().mean(dim=(1, 2)).tolist()
    assert share == pytest.approx(rates, abs=0.01)
    assert y[0].eq(1).all()
    assert y[:3].mean(dim=(1, 2)).tolist() == pytest.approx([1, 1, 1], abs=0.01)
    assert sorted(set(y[1].flatten().tolist())) == pytest.approx([0, 1 / 0.75])


def test_dropout_passes_gradients_where_it_passed_numbers() -> None:
    layer = Dropout(name="dropout")
    y = layer.forward(torch.ones(2, 4, 50), {}, {}, draws([0.5, 0.2]))
    assert layer.backward(torch.ones(2, 4, 50), {}, {}).equal(y)


def test_dropout_masks_depend_on_the_slots_seed_alone() -> None:
    x = torch.ones(3, 4, 50)
    y = dropped(x, draws([0.5] * 3))
    assert y[1:2].equal(dropped(x[1:2], draws([0.5], seeds=[1])))
    assert not y[1].equal(y[0])
    assert not y[1, 0].equal(y[1, 1])


def test_dropout_keeps_its_input_where_all_rates_are_zero_and_in_eval_mode() -> None:
    x = torch.ones(2, 3)
    assert dropped(x, draws([0.0, 0.0])) is x
    assert dropped(x, Draws(numbers=draws([0.5, 0.5]).numbers)) is x
