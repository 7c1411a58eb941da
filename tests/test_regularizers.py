"""Penalties against autograd, slot by slot."""

import math

import pytest
import torch

from objectives import regularizers
from objectives.hyperparameters import Value
from tests import toy

SLOTS: list[dict[str, Value]] = [
    toy.full({"l1": 0.1, "l2": 0.2}),
    toy.full({}),
    toy.full({"l1": 0.3, "exempt": "none"}),
    toy.full({"l2": 0.5}),
]


def stacks() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "weight": torch.randn(4, 300, 250, generator=draw, dtype=torch.float64),
        "bias": torch.randn(4, 5, generator=draw, dtype=torch.float64),
    }


def expected(weights: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Written out for the four slots above."""
    w, b = weights["weight"], weights["bias"]
    first = 0.1 * w[0].abs().sum() + 0.2 * w[0].square().sum()
    return [first, 0 * w[1].sum(), 0.3 * (w[2].abs().sum() + b[2].abs().sum()), 0.5 * w[3].square().sum()]


def test_penalties_are_the_formulas_and_spare_biases() -> None:
    found = regularizers.penalties(stacks(), SLOTS)
    assert found.tolist() == pytest.approx([value.item() for value in expected(stacks())], rel=1e-12)


def test_gradients_equal_those_of_the_penalties() -> None:
    leaves = {name: stack.requires_grad_() for name, stack in stacks().items()}
    wanted = torch.autograd.grad(torch.stack(expected(leaves)).sum(), list(leaves.values()))
    gradients = {name: torch.zeros_like(stack) for name, stack in leaves.items()}
    regularizers.add_gradients(stacks(), gradients, SLOTS)
    assert all(torch.allclose(g, w) for g, w in zip(gradients.values(), wanted, strict=True))


def test_infinite_weights_without_a_penalty_have_none() -> None:
    weights = stacks()
    weights["weight"][1] = math.inf
    found = regularizers.penalties(weights, SLOTS).tolist()
    assert found[1] == 0
    assert all(map(math.isfinite, found))


def test_stacked_operations_equal_the_ones_in_pieces() -> None:
    gradients = [torch.zeros(4, 300, 250, dtype=torch.float64) for _ in range(2)]
    weight, l1, l2 = stacks()["weight"], [0.1, 0.0, 0.3, 0.0], [0.0, 0.0, 0.2, 0.5]
    regularizers._add_stacked(gradients[0], weight, l1, l2)
    for row in range(4):
        regularizers._add_in_pieces(gradients[1][row], weight[row], l1[row], l2[row])
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-12)
