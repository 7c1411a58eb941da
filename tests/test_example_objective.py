"""An objective outside the package trains through the contract like our own."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from objectives import OBJECTIVES
from objectives.classification import Classification
from search import contract
from tests.example_objective import TinyConvnet
from tests.modules import Transformer

FACTORIES: list[contract.ObjectiveFactory] = [TinyConvnet, Classification, Transformer]
"""mypy checks here that all satisfy the contract."""


def opened(factory: contract.ObjectiveFactory, tmp_path: Path) -> contract.Objective:
    return factory(
        data={"name": "digits"}, data_dir=tmp_path, seed=0, device="cpu", precision="float32", progress=print
    )


@pytest.mark.parametrize("factory", FACTORIES, ids=["example", "own", "fused"])
def test_objective_trains_through_the_contract(factory: contract.ObjectiveFactory, tmp_path: Path) -> None:
    objective = opened(factory, tmp_path)
    trial: dict[str, contract.Value] = {"width": 32, "lr": 0.01, "batch_size": 64}
    population = objective.build(trial, epochs=4)
    population.admit(0, hyperparameters=trial, seed=1, fold=None)
    for _ in range(2):
        completed = [population.update() for _ in range(1150 // 64)]
        assert [bool(slots) for slots in completed] == [False] * 16 + [True]
    population.admit(1, hyperparameters=trial, seed=2, fold=None)
    for _ in range(2):
        completed = [population.update() for _ in range(1150 // 64)]
        assert [bool(slots) for slots in completed] == [False] * 16 + [True]
    found = population.evaluate()
    assert set(found) == {0, 1}
    assert set(found[0].metrics) == set(factory.METRICS)
    assert found[0].metrics["val_accuracy"] > 0.8

    population.keep(0)
    population.retire([0])
    assert list(population.slots) == [1]
    population.save(0, tmp_path / "weights.safetensors")
    measured = objective.measure(tmp_path / "weights.safetensors", tmp_path / "predictions.npz").metrics
    assert measured == pytest.approx({name: found[0].metrics[name] for name in measured}, rel=1e-5)
    predictions = np.load(tmp_path / "predictions.npz")
    assert (predictions["outputs"].argmax(1) == predictions["targets"]).mean() == measured["val_accuracy"]
    assert predictions["index"].shape == predictions["targets"].shape == (objective.facts["n_validation"],)

    tested = objective.measure(tmp_path / "weights.safetensors", tmp_path / "tested", part="test")
    with (tmp_path / "tested").open("rb") as file:  # exactly this path: the trainer gives a temporary one
        predictions = dict(np.load(file))
    assert (predictions["outputs"].argmax(1) == predictions["targets"]).mean() == tested.metrics["test_accuracy"] > 0.8
    assert predictions["index"].shape == predictions["targets"].shape == (tested.n_examples,) == (359,)
    assert tested.checksum

    objective.export_model(tmp_path / "weights.safetensors", tmp_path / "model.pt2")
    example = torch.from_numpy(np.load(tmp_path / "model.npy"))
    program = torch.export.load(tmp_path / "model.pt2").module()
    assert program(example).shape == (2, 10)
    assert program(example.repeat(3, 1, 1, 1)).shape == (6, 10)


def test_every_named_objective_exists() -> None:
    for target in OBJECTIVES.values():
        module, name = target.split(":")
        assert getattr(importlib.import_module(module), name).METRICS
