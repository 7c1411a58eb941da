"""A trial does not know its company, and what comes of coming and going."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from objectives.captured import Captured
from objectives.compact import Compact
from objectives.hyperparameters import HyperparameterError, Value
from objectives.rows import MakeRows
from objectives.schedules import lr
from objectives.streams import key, permutation
from objectives.supervised import SupervisedTask
from tests import toy
from tests.recording import Recorded

SAME = 1e-8
SHARED: dict[str, dict[str, Value]] = {
    "plain": {},
    "batch_norm": {"batch_norm": True},
    "batch_norm_after": {"batch_norm": True, "norm_position": "after"},
    "no_norm_after": {"norm_position": "after"},
    "dropout": {},
    "l1": {},
    "l2": {},
    "weight_decay": {"optimizer": "adamw"},
    "momentum": {"optimizer": "sgd", "nesterov": True},
    "schedule": {"schedule": "one_cycle"},
    "augmentation": {},
    "clip": {},
    "everything": {"batch_norm": True, "schedule": "cosine", "optimizer": "adamw"},
}
OWN: dict[str, dict[str, Value]] = {
    "dropout": {"dropout": 0.4},
    "l1": {"l1": 1e-3},
    "l2": {"l2": 1e-2},
    "weight_decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.8},
    "schedule": {"warmup": 0.1},
    "augmentation": {"flip": True, "shift": 2, "rotate": 20.0, "cutout": 3, "noise": 0.1},
    "clip": {"clip_norm": 0.5},
    "everything": {"dropout": 0.3, "l1": 1e-4, "l2": 1e-3, "weight_decay": 0.1, "shift": 1, "label_smoothing": 0.1},
}


def _stranger(i: int, case: str) -> dict[str, Value]:
    """Numbers unlike the trial's in all that a slot may have for itself; every other one has none of it."""
    numbers: dict[str, Value] = {"lr": 2e-2 / (i + 1), "momentum": 0.5 + 0.05 * i}
    if i % 2:
        strengths: dict[str, Value] = {"dropout": 0.1 * i, "l1": 1e-4 * i, "l2": 1e-3 * i, "clip_norm": 0.2 * i}
        numbers |= strengths | {
            "batch_norm": not SHARED[case].get("batch_norm", False),
            "shift": 1,
            "flip": True,
            "noise": 0.2,
            "label_smoothing": 0.1,
            "cutout": 2,
        }
    return SHARED[case] | numbers


ROWS: Mapping[str, MakeRows] = {"compact": Compact, "replayed": partial(Captured, capture=Recorded, room=3)}
either = pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
CNN_CASES = ("plain", "batch_norm", "batch_norm_after", "no_norm_after", "dropout", "augmentation", "everything")


@either
@pytest.mark.parametrize(("model", "case"), [("mlp", case) for case in SHARED] + [("cnn", case) for case in CNN_CASES])
def test_trial_equals_itself_among_strangers_and_admitted_late(model: str, case: str, rows: MakeRows) -> None:
    trial: dict[str, Value] = {"model": model, "width": 6 if model == "cnn" else 12} | SHARED[case] | OWN.get(case, {})
    reference = toy.alone(trial, seed=5)
    company, late = toy.population(trial, rows=rows), toy.population(trial, rows=rows)
    for i in range(8):
        own = trial if i == 3 else trial | _stranger(i, case)
        toy.admit(company, i, own, seed=5 if i == 3 else 100 + i)
    toy.train(company, epochs=10)
    for i in range(3):
        toy.admit(late, i, trial | _stranger(i, case), seed=100 + i)
    toy.train(late, epochs=3)
    toy.admit(late, 7, trial, seed=5)
    toy.train(late, epochs=10)

    assert toy.difference(company.weights(3), reference) < SAME
    assert toy.difference(late.weights(7), reference) < SAME
    assert toy.difference(company.weights(0), reference) > 1e-3


def test_other_seed_gives_another_trial() -> None:
    assert toy.difference(toy.alone({}, seed=1, epochs=2), toy.alone({}, seed=2, epochs=2)) > 1e-2


@either
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_eviction_within_an_epoch_leaves_the_others_unchanged(model: str, rows: MakeRows) -> None:
    trial: dict[str, Value] = {"model": model, "batch_norm": True, "dropout": 0.2, "shift": 1, "width": 8}
    trained = toy.population(trial, rows=rows)
    for i in range(4):
        toy.admit(trained, i, trial | {"lr": 1e-2 / (i + 1)}, seed=i)
    trained.update()
    trained.retire([0, 2])
    trained.update()
    trained.forget([1])
    for _ in range(3 * toy.UPDATES_PER_EPOCH - 2):
        trained.update()

    assert trained.slots == [3]
    assert toy.difference(trained.weights(3), toy.alone(trial | {"lr": 1e-2 / 4}, seed=3, epochs=3) | {}) < SAME


@either
def test_row_admitted_within_an_epoch_completes_its_own_epochs(rows: MakeRows) -> None:
    trained = toy.population({}, rows=rows)
    toy.admit(trained, 0, {}, seed=0)
    trained.update()
    toy.admit(trained, 1, {}, seed=1)
    n = toy.UPDATES_PER_EPOCH
    completed = [list(trained.update()) for _ in range(2 * n)]
    assert [completed.index([0]), completed.index([1])] == [n - 2, n - 1]
    assert sum(map(len, completed)) == 4


def test_population_of_nobody_measures_nobody() -> None:
    trained = toy.population({})
    toy.admit(trained, 0, {}, seed=0)
    trained.retire([0])
    assert trained.evaluate() == {}


@either
def test_diverged_slot_leaves_the_others_unchanged(rows: MakeRows) -> None:
    trained = toy.population({"optimizer": "sgd"}, rows=rows)
    toy.admit(trained, 0, {"optimizer": "sgd", "lr": 1e300}, seed=0)
    toy.admit(trained, 1, {"optimizer": "sgd"}, seed=1)
    toy.train(trained, epochs=10)
    assert not trained.weights(0)["output.weight"].isfinite().all()
    assert toy.difference(trained.weights(1), toy.alone({"optimizer": "sgd"}, seed=1)) < SAME


def test_epoch_uses_every_example_at_most_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a slot that moved to another's row, and of one admitted in the middle of others' epochs."""
    seen: list[torch.Tensor] = []
    gradients = SupervisedTask.gradients

    def noting(self: SupervisedTask, *given: Any, into: Any) -> None:
        seen.append(given[2].clone())
        gradients(self, *given, into=into)

    monkeypatch.setattr(SupervisedTask, "gradients", noting)
    trained = toy.population({}, rows=Compact)
    toy.admit(trained, 0, {}, seed=0)
    trained.update()
    toy.admit(trained, 1, {}, seed=1)
    trained.update()
    trained.forget([0])
    for i in range(2 * toy.UPDATES_PER_EPOCH - 1):
        assert list(trained.update()) == ([1] if i % toy.UPDATES_PER_EPOCH == toy.UPDATES_PER_EPOCH - 2 else [])
    epochs = torch.cat([seen[1][1], *(batches[0] for batches in seen[2:])]).view(2, toy.UPDATES_PER_EPOCH * toy.BATCH)
    for epoch, drawn in enumerate(epochs):
        assert len(drawn.unique()) == len(drawn)
        assert drawn.equal(permutation(key(1, "order", epoch), toy.N_TRAIN, device=drawn.device)[: len(drawn)])


def test_retired_slot_is_saved_with_its_best_weights(tmp_path: Path) -> None:
    trained = toy.population({"optimizer": "sgd"})
    toy.admit(trained, 0, {"optimizer": "sgd"}, seed=0)
    toy.train(trained, epochs=1)
    trained.keep(0)
    best = trained.weights(0)["output.bias"].clone()
    toy.train(trained, epochs=1)
    trained.retire([0])
    trained.save(0, tmp_path / "best.safetensors")
    assert load_file(tmp_path / "best.safetensors")["output.bias"].equal(best)
    trained.forget([0])
    with pytest.raises(KeyError):
        trained.save(0, tmp_path / "again.safetensors")


@either
def test_evaluation_of_some_slots_equals_theirs_in_the_evaluation_of_all(rows: MakeRows) -> None:
    trained = toy.population({"batch_norm": True}, rows=rows)
    for i in range(3):
        toy.admit(trained, i, {"batch_norm": True, "l1": 1e-3 * i}, seed=i)
    toy.train(trained, epochs=1)
    assert trained.evaluate([1])[1].metrics == pytest.approx(trained.evaluate()[1].metrics, rel=1e-12)


def test_evaluation_reports_the_lr_of_the_last_update_and_at_first_of_the_first() -> None:
    trial: dict[str, Value] = {"schedule": "one_cycle", "lr": 0.1}
    trained = toy.population(trial, epochs=4)
    toy.admit(trained, 0, trial, seed=0)
    n = toy.UPDATES_PER_EPOCH
    for update in (0, n - 1, 2 * n - 1):
        expected = lr(toy.full(trial), update=update, n_updates=4 * n, updates_per_epoch=n)
        assert trained.evaluate()[0].metrics["lr"] == expected
        toy.train(trained, epochs=1)


def test_evaluation_changes_nothing() -> None:
    trial: dict[str, Value] = {"batch_norm": True, "dropout": 0.5}
    trained = toy.population(trial)
    toy.admit(trained, 0, trial, seed=0)
    for _ in range(10):
        toy.train(trained, epochs=1)
        first = trained.evaluate()
        assert trained.evaluate() == first
    assert toy.difference(trained.weights(0), toy.alone(trial, seed=0)) == 0


def test_batch_size_0_makes_one_update_of_all_examples_an_epoch() -> None:
    assert toy.population({"batch_size": 0}).n_updates == 1
    assert toy.difference(toy.alone({"batch_size": 0}, seed=0), toy.alone({"batch_size": toy.N_TRAIN}, seed=0)) == 0


def test_global_generator_is_never_touched() -> None:
    before = torch.get_rng_state()
    toy.alone({"dropout": 0.5, "shift": 1, "noise": 0.1, "model": "cnn", "width": 4}, seed=0, epochs=1)
    assert torch.get_rng_state().equal(before)


def test_plain_adam_refuses_weight_decay() -> None:
    trained = toy.population({"optimizer": "adam"})
    with pytest.raises(HyperparameterError, match="adamw"):
        toy.admit(trained, 0, {"optimizer": "adam", "weight_decay": 0.1}, seed=0)
    assert trained.slots == []


def test_unknown_hyperparameter_is_refused() -> None:
    with pytest.raises(HyperparameterError, match="droput"):
        toy.population({"droput": 0.1})


def test_norm_of_the_weights_is_told_relative_to_initialization() -> None:
    trials: list[dict[str, Value]] = [
        {"init_std": 0.1, "initialization": "normal", "lr": 0.05},
        {"l2": 1.0, "lr": 0.05},
    ]
    population = toy.population({})

    def norm(slot: int) -> float:
        weights = [w.flatten() for name, w in population.weights(slot).items() if w.ndim > 1 and "running" not in name]
        return float(torch.linalg.vector_norm(torch.cat(weights)))

    for slot, trial in enumerate(trials):
        toy.admit(population, slot, trial, seed=slot)
    initial = [norm(0), norm(1)]
    assert [found.metrics["weight_norm"] for found in population.evaluate().values()] == pytest.approx([1, 1])
    toy.train(population, epochs=5)
    told = [found.metrics["weight_norm"] for found in population.evaluate().values()]
    assert told == pytest.approx([norm(0) / initial[0], norm(1) / initial[1]])
    assert told[1] < 0.5 < 1 < told[0]
