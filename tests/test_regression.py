"""What regression adds: squared error against plain torch, networks saved and exported, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import mse_loss

from objectives import models, saved
from objectives.datasets import DataError
from objectives.hyperparameters import Value, completed, number
from objectives.regression import Regression
from objectives.supervised import SupervisedObjective
from tests import toy
from tests.modules import Curve, curve

X = np.random.default_rng(0).normal(3, 2, (30, 4))
Y = X @ [1.0, -2.0, 0.5, 0.0] + np.sin(X[:, 0])
LINEAR: dict[str, Value] = {"depth": 0, "optimizer": "sgd", "momentum": 0.5, "batch_size": 0, "lr": 0.05}
SMALL: dict[str, Value] = {"width": 16, "depth": 2, "optimizer": "adam", "batch_size": 0, "lr": 0.01, "l2": 1e-3}
EPOCHS = 20


@pytest.fixture(scope="module")
def objective() -> SupervisedObjective:
    data = {"x": X.tolist(), "y": Y.tolist(), "test": 2, "validation": 8}
    return Regression(data=data, data_dir=Path(), seed=0, device="cpu", precision="float64", progress=print)


@pytest.mark.parametrize("trial", [LINEAR, SMALL], ids=["linear", "mlp"])
def test_full_batch_training_equals_plain_torch(objective: SupervisedObjective, trial: dict[str, Value]) -> None:
    full, data = completed(trial, Regression.HYPERPARAMETERS), objective._dataset
    net = models.module(full, input_shape=(4,), n_outputs=1).double()
    population = objective.build(trial, epochs=EPOCHS)
    population.admit(0, hyperparameters=trial, seed=0, fold=None)
    network = objective._task(trial).network
    net.load_state_dict(network.plain({n: w.clone() for n, w in population.weights(0).items()}, full))

    x = (data.x_train.double() - data.mean.double()) / data.std.double()
    weights = [{"params": [p], "weight_decay": 2 * number(full, "l2") * (p.ndim > 1)} for p in net.parameters()]
    linear = trial is LINEAR
    optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.5) if linear else torch.optim.Adam(weights, lr=0.01)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        mse_loss(net(x).squeeze(1), data.y_train.double()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    toy.train(population, epochs=EPOCHS)

    assert toy.difference(network.plain(population.weights(0), full), dict(net.state_dict())) < 1e-8


def test_one_s_own_module_learns_numbers_as_plain_torch_does() -> None:
    data = {"x": X.tolist(), "y": Y.tolist(), "test": 2, "validation": 8}
    own = Curve(data=data, data_dir=Path(), seed=0, device="cpu", precision="float64", progress=print)
    trial: dict[str, Value] = {"optimizer": "adam", "batch_size": 0, "lr": 0.01}
    population, loaded = own.build(trial, epochs=EPOCHS), own._dataset
    for slot in (0, 1):
        population.admit(slot, hyperparameters=trial, seed=slot, fold=None)
    full, network = completed(trial, Curve.HYPERPARAMETERS), own._task(trial).network
    net = curve(full, input_shape=(4,), n_outputs=1).double()
    net.load_state_dict(network.plain({n: w.clone() for n, w in population.weights(1).items()}, full))

    x, optimizer = (loaded.x_train.double() - loaded.mean) / loaded.std, torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        optimizer.zero_grad()
        mse_loss(net(x).squeeze(1), loaded.y_train.double()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    toy.train(population, epochs=EPOCHS)

    assert toy.difference(network.plain(population.weights(1), full), dict(net.state_dict())) < 1e-8


def test_saved_and_exported_network_gives_the_validation_loss_of_the_stack(
    objective: SupervisedObjective, tmp_path: Path
) -> None:
    population = objective.build(SMALL, epochs=1)
    population.admit(0, hyperparameters=SMALL, seed=0, fold=None)
    toy.train(population, epochs=1)
    population.keep(0)
    population.save(0, tmp_path / "w.safetensors")
    found = population.evaluate()[0]
    assert found.confusion is None
    measured = objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz").metrics
    assert measured == {"val_loss": pytest.approx(found.metrics["val_loss"], rel=1e-5)}
    predictions = np.load(tmp_path / "p.npz")
    assert np.mean((predictions["outputs"][:, 0] - predictions["targets"]) ** 2) == pytest.approx(measured["val_loss"])
    saved.export(tmp_path / "w.safetensors", tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    outputs = torch.from_numpy(predictions["outputs"])
    torch.testing.assert_close(program(objective._dataset.x_val), outputs, rtol=1e-5, atol=1e-5)


def test_facts_name_no_classes(objective: SupervisedObjective) -> None:
    assert (objective.facts["classes"], objective.facts["n_train"], objective.facts["n_validation"]) == ([], 20, 8)
    assert json.loads(json.dumps(objective.facts)) == objective.facts


def test_data_with_classes_are_refused() -> None:
    with pytest.raises(DataError, match="digits has classes, and no numbers to predict"):
        Regression(data={"name": "digits"}, data_dir=Path(), seed=0, device="cpu", precision="float32", progress=print)
