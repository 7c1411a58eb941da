"""What may be replayed: an update of rows that stay where they are, whoever comes and goes. The graph itself on a GPU.

That replayed updates train what compact rows do, tests/test_population.py claims for every option.
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives.captured import WARM_UPS, Captured
from objectives.classification import Classification, CrossEntropy
from objectives.compact import Compact
from objectives.flat import Tensors
from objectives.folds import Folds
from objectives.hyperparameters import Value
from objectives.numbers import Draws
from objectives.population import Population
from objectives.rows import MakeRows
from objectives.supervised import SupervisedTask
from tests import example_objective, toy
from tests.recording import Recorded, Recorder

SAME = 1e-8
TRIAL: dict[str, Value] = {"batch_norm": True, "dropout": 0.3, "l1": 1e-4, "shift": 1, "clip_norm": 1.0}
PLAIN: dict[str, Value] = {"batch_norm": True, "lr": 3e-3}
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def rows_of(trained: Population) -> Captured:
    rows = trained._rows
    assert isinstance(rows, Captured)
    return rows


def eventful(trained: Population, poison: Callable[[int], None] = lambda row: None) -> None:
    """Slots join and leave within each other's epochs: what is used changes, rows are refilled, and one stays empty."""
    for i in range(3):
        toy.admit(trained, i, PLAIN | {"momentum": 0.1 * i}, seed=i)
    run(trained, 3)
    trained.retire([0, 2])
    poison(0)
    poison(2)
    run(trained, 4)
    toy.admit(trained, 3, TRIAL, seed=3)
    run(trained, 4)
    toy.admit(trained, 4, {"lr": 3e-3} | {"label_smoothing": 0.1, "exempt": "none", "l2": 0.01}, seed=4)
    trained.forget([1])
    poison(1)
    run(trained, 6)
    trained.retire([4])
    poison(2)
    run(trained, 7)


def run(trained: Population, n: int) -> None:
    for _ in range(n):
        trained.update()


def poisoned(trained: Population, row: int) -> None:
    for rows in rows_of(trained)._static.values():
        if rows.is_floating_point():
            rows[row] = math.nan


@pytest.mark.parametrize("model", ["mlp", "cnn"])
@pytest.mark.parametrize("capture", [lambda operations: operations, Recorded], ids=["as they are", "replayed"])
def test_what_lies_in_empty_rows_reaches_nobody(model: str, capture: Callable[..., Callable[[], None]]) -> None:
    structure: dict[str, Value] = {"model": model, "width": 6, "batch_norm": True}
    trained = toy.population(structure, rows=partial(Captured, capture=capture))
    small: dict[str, Value] = {"model": model, "width": 6}
    for i in range(3):
        toy.admit(trained, i, TRIAL | small | {"lr": 1e-2 / (i + 1)}, seed=i)
    run(trained, 3)
    trained.retire([0, 2])
    poisoned(trained, 0)
    poisoned(trained, 2)
    toy.admit(trained, 3, TRIAL | small, seed=3)
    run(trained, 50)
    assert trained.slots == [3, 1]
    assert toy.difference(trained.weights(3), toy.alone(TRIAL | small, seed=3)) < SAME
    assert all(math.isfinite(each.metrics["val_loss"]) for each in trained.evaluate().values())


@pytest.mark.parametrize("room", [0, 2, 5])
def test_events_train_the_same_in_rows_that_stay_and_in_compact_ones(room: int) -> None:
    compact, captured = (
        toy.population({"batch_norm": True}, rows=rows)
        for rows in (Compact, partial(Captured, capture=Recorded, room=room))
    )
    eventful(compact)
    eventful(captured, partial(poisoned, captured))
    assert compact.slots == captured.slots == [3]
    assert toy.difference(captured.weights(3), compact.weights(3)) < SAME
    there, here = captured.evaluate()[3], compact.evaluate()[3]
    assert there.metrics == pytest.approx(here.metrics, rel=1e-7)
    assert there.confusion == here.confusion


def test_tensors_stay_where_they_are_whoever_comes_and_goes() -> None:
    trained = toy.population({"batch_norm": True}, rows=partial(Captured, room=3))
    toy.admit(trained, 9, PLAIN, seed=9)
    rows, places = rows_of(trained), []
    for _ in range(2):
        vectors = [rows._numbers[name] for name in rows._plan.names]
        places.append([tensor.data_ptr() for tensor in [*rows._static.values(), *vectors]])
        trained.forget([9])
        eventful(trained)
    assert places[0] == places[1]


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_update_is_the_same_operations_on_the_same_tensors_whoever_came_and_went(model: str) -> None:
    """With the same numbers in the same places, and none that waits for the device: what a replay repeats."""
    structure: dict[str, Value] = {"model": model, "width": 6, "batch_norm": True, "optimizer": "adamw"}
    augmentation: dict[str, Value] = {"flip": True, "shift": 1, "rotate": 20.0, "cutout": 3, "noise": 0.1}
    penalties: dict[str, Value] = {
        "l1": 1e-4,
        "l2": 1e-3,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "label_smoothing": 0.1,
    }
    everything = structure | augmentation | penalties
    traces, recorders = [], []
    trained = toy.population(structure, rows=partial(Captured, room=6))
    for seed in range(3):
        own: dict[str, Value] = {"lr": 0.01 / (seed + 1), "dropout": 0.1 + 0.1 * seed}
        toy.admit(trained, seed, everything | own, seed=seed)
        toy.admit(trained, 10 + seed, everything | own | {"batch_norm": False}, seed=10 + seed)
        run(trained, 2 * seed + 1)
        with Recorder() as recorder, torch.no_grad():
            rows_of(trained)._operations()
        traces.append(recorder.trace())
        recorders.append(recorder)  # what it made must not lend its addresses to the next
        trained.retire([seed - 1, 10 + seed - 1])
    assert traces[0] == traces[1] == traces[2]
    assert len(traces[0]) > 100


def test_update_captures_anew_only_where_something_else_is_used() -> None:
    captured: list[Callable[[], None]] = []

    def capture(operations: Callable[[], None]) -> Callable[[], None]:
        captured.append(operations)
        return operations

    trained, counts = toy.population({}, rows=partial(Captured, capture=capture, room=2)), []
    trials: list[dict[str, Value]] = [{"dropout": 0.2}, {}, {"dropout": 0.1}, {"batch_norm": True}, {"noise": 0.1}]
    for slot, own in enumerate(trials):
        toy.admit(trained, slot, own, seed=slot)
        run(trained, 2)
        trained.retire([slot])
        counts.append(len(captured))
    assert counts == [1, 2, 2, 3, 4]


def test_room_for_all_who_come_together_is_made_at_once() -> None:
    trained = toy.population({}, rows=Captured)
    for slot in range(5):
        toy.admit(trained, slot, {}, seed=slot)
    run(trained, 1)
    assert len(rows_of(trained).parameters) == 5
    trained.retire([1, 4])
    toy.admit(trained, 5, {}, seed=5)
    run(trained, 1)
    assert len(rows_of(trained).parameters) == 5
    assert trained.slots == [0, 5, 2, 3]


def test_slot_evicted_before_its_row_was_written_leaves_nothing() -> None:
    trained = toy.population({}, rows=Captured)
    for slot in range(2):
        toy.admit(trained, slot, {}, seed=slot)
    trained.forget([0])
    toy.admit(trained, 2, {}, seed=2)
    toy.train(trained, epochs=10)
    assert toy.difference(trained.weights(2), toy.alone({}, seed=2)) < SAME
    assert toy.difference(trained.weights(1), toy.alone({}, seed=1)) < SAME


def test_batch_larger_than_the_training_set_is_all_of_it() -> None:
    both = [toy.population({"batch_size": 1000}, rows=rows) for rows in (Compact, Captured)]
    for trained in both:
        toy.admit(trained, 0, {"batch_size": 1000}, seed=0)
        assert [list(trained.update()) for _ in range(3)] == [[0], [0], [0]]
    assert toy.difference(both[0].weights(0), both[1].weights(0)) < SAME


class WaitingTask(SupervisedTask):
    def gradients(
        self, parameters: Tensors, buffers: Tensors, index_PB: Tensor, draws: Draws, *, into: Tensors
    ) -> None:
        if index_PB[0, 0].item() >= 0:
            super().gradients(parameters, buffers, index_PB, draws, into=into)


def test_recording_refuses_what_waits_for_the_device() -> None:
    task = WaitingTask(Folds(toy.dataset(), seed=0), toy.full({}), loss=CrossEntropy(), precision="float64")
    rows: MakeRows = partial(Captured, capture=Recorded)
    trained = Population(task, toy.full({}), declared=Classification.HYPERPARAMETERS, epochs=1, rows=rows)
    toy.admit(trained, 0, {}, seed=0)
    with pytest.raises(AssertionError, match="cannot be captured"):
        trained.update()


def test_objective_of_ones_own_is_replayed(tmp_path: Path) -> None:
    """Whose gradients torch.func and autograd compute."""
    own = example_objective.TinyConvnet(
        data={"name": "digits"}, data_dir=tmp_path, seed=0, device="cpu", precision="float32", progress=print
    )
    trial: dict[str, Value] = {"lr": 1e-3, "optimizer": "sgd", "batch_size": 64}
    both, kinds = [], (Compact, partial(Captured, capture=Recorded))
    for rows in kinds:
        task = example_objective.Task(own, trial)
        trained = Population(task, trial, declared=own.HYPERPARAMETERS, epochs=10, rows=rows)
        for slot in range(2):
            trained.admit(slot, hyperparameters=trial, seed=slot, fold=None)
        before = {name: tensor.clone() for name, tensor in trained.weights(1).items()}
        run(trained, 20)
        assert toy.difference(trained.weights(1), before) > 1e-3
        both.append(trained)
    assert toy.difference(both[0].weights(1), both[1].weights(1)) < 1e-5


# ---------------------------------------------------------------- on a GPU


def on_device(structure: dict[str, Value], *, rows: MakeRows = Captured, precision: str = "float64") -> Population:
    data = toy.dataset()
    moved: dict[str, Any] = {f.name: v.cuda() for f in fields(data) if isinstance(v := getattr(data, f.name), Tensor)}
    task = SupervisedTask(
        Folds(replace(data, **moved), seed=0), toy.full(structure), loss=CrossEntropy(), precision=precision
    )
    return Population(task, toy.full(structure), declared=Classification.HYPERPARAMETERS, epochs=10, rows=rows)


@cuda
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_graphs_train_what_operations_do_as_they_are(model: str) -> None:
    structure: dict[str, Value] = {"batch_norm": True, "model": model, "width": 6}
    eager = on_device(structure, rows=partial(Captured, capture=lambda operations: operations))
    graphs, cpu = on_device(structure), toy.population(structure)
    for trained in (eager, graphs, cpu):
        for i in range(3):
            toy.admit(trained, i, structure | TRIAL | {"lr": 1e-2 / (i + 1)}, seed=i)
        run(trained, WARM_UPS + 5)
        trained.retire([1])
        toy.admit(trained, 3, structure | TRIAL, seed=3)
        run(trained, 40)
    for slot in (0, 2, 3):
        assert toy.difference(graphs.weights(slot), eager.weights(slot)) < SAME
        there = {name: tensor.cpu() for name, tensor in graphs.weights(slot).items()}
        assert toy.difference(there, cpu.weights(slot)) < 1e-6


@cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_nothing_waits_for_the_device_between_evaluations(precision: str) -> None:
    structure: dict[str, Value] = {"batch_norm": True}
    trained = on_device(structure, precision=precision)
    for i in range(3):
        toy.admit(trained, i, TRIAL, seed=i)
    run(trained, WARM_UPS + 2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        run(trained, 3 * toy.UPDATES_PER_EPOCH)
        trained.retire([1])
        toy.admit(trained, 3, TRIAL, seed=3)
        run(trained, toy.UPDATES_PER_EPOCH)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(math.isfinite(each.metrics["val_loss"]) for each in trained.evaluate().values())
