"""Rows of a CPU's population: one pass over gradients in a narrower type does what torch.optim does with whole ones."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from objectives import compact, optimizers
from objectives.classification import Classification, CrossEntropy
from objectives.compact import Compact
from objectives.flat import Layout
from objectives.folds import Folds
from objectives.hyperparameters import Value
from objectives.optimizers import RowUpdate
from objectives.population import Population
from objectives.rows import Plan
from objectives.supervised import SupervisedTask
from objectives.task import Task
from tests import toy

LR, DECAY = 0.01, 0.2
BY_TORCH: dict[str, Callable[[list[dict[str, object]]], Optimizer]] = {
    "adamw": lambda groups: AdamW(groups, lr=LR),
    "adam": lambda groups: Adam(groups, lr=LR, betas=(0.9, 0.999)),
    "sgd": lambda groups: SGD(groups, lr=LR, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("product", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", BY_TORCH)
@settings(deadline=None)  # torch sets itself up in the first case
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    exempt=st.sampled_from(["none", "output", "biases_and_norms"]),
    l1=st.sampled_from([0.0, 0.1]),
    l2=st.sampled_from([0.0, 0.1]),
    max_norm=st.sampled_from([0.0, 0.3, 1e6]),
    piece=st.integers(1, 50),
    seed=st.integers(0, 2**20),
)
def test_a_rows_update_equals_torchs_optimizer(
    kind: str, product: torch.dtype, sizes: list[int], exempt: str, l1: float, l2: float, max_norm: float,
    piece: int, seed: int,
) -> None:  # fmt: skip
    """For every option, of layers of any sizes cut anywhere; the copies are the weights."""
    draw = torch.Generator().manual_seed(seed)
    shapes = {f"layer{i}.weight": (size, 2) for i, size in enumerate(sizes)}
    biases = {f"layer{i}.bias": (size,) for i, size in enumerate(sizes)}
    start = {name: torch.randn(shape, generator=draw) for name, shape in (shapes | biases).items()}
    layout = Layout.of(start, exempt_output=exempt == "output")
    trial: dict[str, Value] = {"optimizer": kind, "l1": l1, "l2": l2, "clip_norm": max_norm, "momentum": 0.9}
    trial |= {"weight_decay": DECAY} if kind == "adamw" else {}
    trial |= {"nesterov": kind == "sgd", "exempt": exempt}
    all_drawn = [
        {name: torch.randn(p.shape, generator=draw).to(product) for name, p in start.items()} for _ in range(3)
    ]

    row = layout.row(start)
    gradients = {name: torch.empty_like(p, dtype=product) for name, p in start.items()}
    copies = {name: start[name].to(product, copy=True) for name in shapes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizers, "PIECE", piece)
        rows = [row, *(torch.zeros(layout.n) for _ in range(optimizers.n_moments(kind)))]
        update = RowUpdate.of(
            toy.full(trial), layout, rows, gradients=gradients, copies=copies, scratch=torch.empty(piece)
        )
    for count, drawn in enumerate(all_drawn, start=1):
        for name, gradient in gradients.items():
            gradient.copy_(drawn[name])
        update(lr=LR, count=torch.tensor(count))
        assert all(gradients[name].equal(drawn[name]) for name in drawn)

    leaves = {name: nn.Parameter(p.clone()) for name, p in start.items()}
    concerned = [
        name for name in start
        if exempt == "none" or (name in shapes and not (exempt == "output" and name == f"layer{len(sizes) - 1}.weight"))
    ]  # fmt: skip
    groups: list[dict[str, object]] = [
        {"params": [p], "weight_decay": DECAY if kind == "adamw" and name in concerned else 0.0}
        for name, p in leaves.items()
    ]
    stepper = BY_TORCH[kind](groups)
    for drawn in all_drawn:
        for name, p in leaves.items():
            w = p.detach()
            p.grad = drawn[name].float() + (name in concerned) * (l1 * w.sign() + 2 * l2 * w)
        if max_norm:
            nn.utils.clip_grad_norm_(leaves.values(), max_norm)
        stepper.step()
    for name, found in layout.views(row).items():
        assert torch.allclose(found, leaves[name].detach(), rtol=1e-4, atol=1e-6)
        assert name not in copies or copies[name].equal(found.to(product))


class Kept:
    """Makes a population's rows, and shows them."""

    def __call__(self, task: Task, plan: Plan, *, layout: Layout, buffer_layout: Layout, dtype: torch.dtype) -> Compact:
        self.rows = Compact(task, plan, layout=layout, buffer_layout=buffer_layout, dtype=dtype)
        return self.rows


def in_bfloat16(kept: Kept) -> Population:
    task = SupervisedTask(Folds(toy.dataset(), seed=0), toy.full({}), loss=CrossEntropy(), precision="bfloat16")
    return Population(
        task, toy.full({}), declared=Classification.HYPERPARAMETERS, epochs=3, product=task.network.product, rows=kept
    )


def test_products_see_the_weights_that_were_updated_last() -> None:
    """Whoever came, went or moved: what is multiplied is the row's parameters, cast."""
    kept = Kept()
    trained = in_bfloat16(kept)
    for slot in range(5):
        toy.admit(trained, slot, {"lr": 0.01 * (slot + 1), "batch_norm": slot % 2 == 0, "l1": 0.01 * slot}, seed=slot)
        assert_same(kept.rows)
        trained.update()
        assert_same(kept.rows)
    trained.retire([0, 3])
    assert_same(kept.rows)
    trained.update()
    assert_same(kept.rows)
    toy.admit(trained, 9, {}, seed=9)
    assert_same(kept.rows)


def assert_same(rows: Compact) -> None:
    n = len(rows.slots)
    wanted: Tensor = rows.parameters[:n].bfloat16()
    stack = rows.stack()
    assert stack.gradients["layer1.weight"].dtype == torch.bfloat16
    shown = {name: tensor for name, tensor in stack.parameters.items() if tensor.ndim > 2}
    assert shown
    for name, tensor in shown.items():
        assert tensor.equal(rows.layout.views(wanted)[name])


def test_a_slot_starts_anew_in_a_row_that_another_left() -> None:
    kept = Kept()
    trained = in_bfloat16(kept)
    toy.admit(trained, 0, {"lr": 0.1}, seed=0)
    toy.train(trained, epochs=1)
    trained.forget([0])
    toy.admit(trained, 1, {}, seed=1)
    toy.train(trained, epochs=1)
    alone = in_bfloat16(Kept())
    toy.admit(alone, 1, {}, seed=1)
    toy.train(alone, epochs=1)
    assert toy.difference(trained.weights(1), alone.weights(1)) == 0


def test_rows_that_outgrow_their_room_keep_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "RESERVED_ROWS", 1)
    kept = Kept()
    trained = toy.population({}, rows=kept)
    rooms = []
    for slot in range(5):
        toy.admit(trained, slot, {"lr": 0.01 / (slot + 1)}, seed=slot)
        rooms.append(len(kept.rows.parameters))
        trained.update()
    for _ in range(toy.UPDATES_PER_EPOCH - 5):
        trained.update()
    assert rooms == [1, 2, 4, 4, 8]
    assert toy.difference(trained.weights(0), toy.alone({"lr": 0.01}, seed=0, epochs=1)) < 1e-8
