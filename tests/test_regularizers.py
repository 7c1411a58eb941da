"""Penalties against autograd, slot by slot."""

import math

import pytest
import torch
from torch import Tensor

from objectives import regularizers
from objectives.flat import Layout
from objectives.hyperparameters import Value, number
from tests import toy

SLOTS: list[dict[str, Value]] = [
    toy.full({"l1": 0.1, "l2": 0.2}),
    toy.full({}),
    toy.full({"l1": 0.3, "exempt": "none"}),
    toy.full({"l2": 0.5}),
]


LAYOUT = Layout(shapes={"weight": (300, 250), "bias": (5,)})


def rows() -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(4, LAYOUT.n, generator=draw, dtype=torch.float64)


def expected(rows: Tensor) -> list[Tensor]:
    """Written out for the four slots above."""
    w, b = LAYOUT.views(rows).values()
    first = 0.1 * w[0].abs().sum() + 0.2 * w[0].square().sum()
    return [first, 0 * w[1].sum(), 0.3 * (w[2].abs().sum() + b[2].abs().sum()), 0.5 * w[3].square().sum()]


def test_penalties_are_the_formulas_and_spare_biases() -> None:
    found = regularizers.penalties(rows(), SLOTS, n_weights=LAYOUT.n_weights)
    assert found == pytest.approx([value.item() for value in expected(rows())], rel=1e-12)


def test_gradients_equal_those_of_the_penalties() -> None:
    leaf = rows().requires_grad_()
    (wanted,) = torch.autograd.grad(torch.stack(expected(leaf)).sum(), [leaf])
    for weights, gradients, slot in zip(rows(), wanted, SLOTS, strict=True):
        n = regularizers.n_concerned(slot, weights, LAYOUT.n_weights)
        l1, l2 = number(slot, "l1"), number(slot, "l2")
        found = regularizers.penalized(torch.ones(n, dtype=torch.float64), weights[:n], l1=l1, l2=l2)
        assert torch.allclose(found, 1 + gradients[:n])


def test_infinite_weights_without_a_penalty_have_none() -> None:
    weights = rows()
    weights[1] = math.inf
    found = regularizers.penalties(weights, SLOTS, n_weights=LAYOUT.n_weights)
    assert found[1] == 0
    assert all(map(math.isfinite, found))
