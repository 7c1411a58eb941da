"""What classification adds: metrics, saved networks, what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from objectives import saved
from objectives.classification import Classification, CrossEntropy
from objectives.folds import Folds
from objectives.hyperparameters import HyperparameterError, Value
from objectives.population import Population
from objectives.supervised import SupervisedObjective, SupervisedTask
from tests import toy


@pytest.fixture(scope="module")
def digits() -> SupervisedObjective:
    return Classification(
        data={"name": "digits"}, data_dir=Path(), seed=0, device="cpu", precision="float32", progress=print
    )


def trained(
    trial: dict[str, Value], *, epochs: int = 3, vectors: bool = False, company: dict[str, Value] | None = None
) -> Population:
    population = toy.population(trial, epochs=epochs, vectors=vectors)
    toy.admit(population, 0, trial, seed=0)
    if company is not None:
        toy.admit(population, 1, company, seed=1)
    toy.train(population, epochs=epochs)
    population.keep(0)
    return population


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("norm_position", ["before", "after"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_saved_network_gives_the_losses_accuracy_and_confusion_of_the_stack(
    model: str, norm_position: str, batch_norm: bool, tmp_path: Path
) -> None:
    trial: dict[str, Value] = {"model": model, "norm_position": norm_position, "dropout": 0.3}
    population = trained(trial | {"batch_norm": batch_norm}, company=trial | {"batch_norm": not batch_norm})
    population.save(0, tmp_path / "w.safetensors")
    data, found = toy.dataset(), population.evaluate()[0]
    network = saved.network(tmp_path / "w.safetensors")
    assert batch_norm == any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())
    with torch.inference_mode():
        outputs = network(data.x_val.float() / 255)
    predicted = outputs.argmax(1)
    assert found.metrics["val_loss"] == pytest.approx(functional.cross_entropy(outputs, data.y_val).item(), rel=1e-5)
    assert found.metrics["val_accuracy"] == (predicted == data.y_val).double().mean().item()
    assert found.confusion is not None
    for true, row in enumerate(found.confusion):
        assert list(row) == predicted[data.y_val == true].bincount(minlength=toy.N_CLASSES).tolist()


def test_saved_network_of_vectors_takes_raw_features(tmp_path: Path) -> None:
    population = trained({}, vectors=True)
    population.save(0, tmp_path / "w.safetensors")
    data = toy.dataset(vectors=True)
    outputs = saved.network(tmp_path / "w.safetensors")(data.x_val)
    expected = population.evaluate()[0].metrics["val_loss"]
    assert functional.cross_entropy(outputs, data.y_val).item() == pytest.approx(expected, rel=1e-5)


def test_exported_network_equals_the_saved_one(tmp_path: Path) -> None:
    trained({"model": "cnn", "batch_norm": True}).save(0, tmp_path / "w.safetensors")
    saved.export(tmp_path / "w.safetensors", tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2").module()
    x = torch.rand(11, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(program(x), saved.network(tmp_path / "w.safetensors")(x), rtol=1e-4, atol=1e-5)
    assert np.load(tmp_path / "model.npy").shape == (2, 3, 8, 6)


def test_saved_network_says_how_it_was_made(tmp_path: Path) -> None:
    trained({"dropout": 0.3}).save(0, tmp_path / "w.safetensors")
    found = saved.configuration(tmp_path / "w.safetensors")
    assert found["hyperparameters"] == json.loads(json.dumps(toy.full({"dropout": 0.3})))
    assert (found["data_set"], found["classes"]) == ("toy", ["a", "b", "c", "d"])


def test_weights_of_other_data_are_not_measured(digits: SupervisedObjective, tmp_path: Path) -> None:
    trained({}).save(0, tmp_path / "w.safetensors")
    with pytest.raises(saved.CheckpointError, match=r"trained on toy .*digits"):
        digits.measure(tmp_path / "w.safetensors", tmp_path / "p.npz")


def test_losses_are_logged_without_smoothing_and_penalty() -> None:
    """Of the same weights: the first evaluation, before any update, knows no regularizer but in `penalty`."""
    found = []
    trials: list[dict[str, Value]] = [{}, {"label_smoothing": 0.2, "l1": 0.1, "l2": 0.1, "dropout": 0.5, "noise": 1.0}]
    for trial in trials:
        population = toy.population(trial)
        toy.admit(population, 0, trial, seed=0)
        found.append(dict(population.evaluate()[0].metrics))
    plain, regularized = (metrics.pop("penalty") for metrics in found)
    assert found[0] == found[1]
    assert plain == 0 < regularized


def test_measured_part_of_the_training_set_is_stratified_and_as_large_as_the_validation_set() -> None:
    part = Folds(toy.dataset(), seed=0).of(1.0)[0].measured
    counts = toy.dataset().y_train[part].bincount()
    assert counts.sum() == toy.N_VAL
    assert counts.max() - counts.min() <= 1


def test_digits_are_learned(digits: SupervisedObjective) -> None:
    trial: dict[str, Value] = {"width": 64, "lr": 0.01, "batch_norm": True, "schedule": "one_cycle", "batch_size": 64}
    population = digits.build(trial, epochs=5)
    population.admit(0, hyperparameters=trial, seed=0, fold=None)
    toy.train(population, epochs=5)
    metrics = population.evaluate()[0].metrics
    assert metrics["val_accuracy"] > 0.93
    assert metrics["train_accuracy"] > 0.95


@pytest.mark.parametrize("as_copies", [True, False], ids=["weights as copies", "weights cast by each layer"])
@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_bfloat16_trains_float32_weights_to_nearly_the_same_network(model: str, as_copies: bool) -> None:
    trial: dict[str, Value] = {"model": model, "batch_norm": True, "width": 8, "lr": 1e-3}
    weights, losses = [], []
    for precision in ("float32", "bfloat16"):
        task = SupervisedTask(Folds(toy.dataset(), seed=0), toy.full(trial), loss=CrossEntropy(), precision=precision)
        population = Population(
            task,
            toy.full(trial),
            declared=Classification.HYPERPARAMETERS,
            epochs=4,
            product=task.network.product if as_copies else None,
        )
        toy.admit(population, 0, trial, seed=0)
        toy.train(population, epochs=4)
        weights.append(population.weights(0))
        losses.append(population.evaluate()[0].metrics["train_loss"])
    assert {tensor.dtype for tensor in weights[1].values()} == {torch.float32}
    assert 0 < toy.difference(weights[1], weights[0]) < 0.2
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_validation_is_computed_in_float32_whatever_the_precision_of_training(model: str) -> None:
    trial: dict[str, Value] = {"model": model, "batch_norm": True, "width": 8}
    found = {}
    for precision in ("bfloat16", "float32"):
        task = SupervisedTask(Folds(toy.dataset(), seed=0), toy.full(trial), loss=CrossEntropy(), precision=precision)
        population = Population(task, toy.full(trial), declared=Classification.HYPERPARAMETERS, epochs=4)
        toy.admit(population, 0, trial, seed=0)  # both begin with the same weights
        found[precision] = population.evaluate()[0]
    rounded, exact = found["bfloat16"].metrics, found["float32"].metrics
    assert (rounded["val_loss"], rounded["val_accuracy"]) == (exact["val_loss"], exact["val_accuracy"])
    assert found["bfloat16"].confusion == found["float32"].confusion
    assert rounded["train_loss"] != exact["train_loss"]
    assert rounded["train_loss"] == pytest.approx(exact["train_loss"], rel=0.01)


def test_facts_count_what_is_loaded(digits: SupervisedObjective) -> None:
    facts = digits.facts
    assert (facts["n_train"], facts["n_validation"], facts["input_shape"]) == (1150, 288, [1, 8, 8])
    assert json.loads(json.dumps(facts)) == facts


def test_convolutions_train_one_by_one_on_a_cpu(digits: SupervisedObjective) -> None:
    assert digits.capacity({"width": 64}) == 32
    assert digits.capacity({"model": "cnn", "width": 8}) == 1


def test_folds_are_refused(digits: SupervisedObjective) -> None:
    with pytest.raises(HyperparameterError, match="fold = 2"):
        digits.build({}, epochs=1).admit(0, hyperparameters={}, seed=0, fold=2)


def test_every_default_is_within_its_rule() -> None:
    for name, rule in Classification.HYPERPARAMETERS.items():
        if rule.kind == "choice":
            assert rule.default in rule.choices, name
        elif isinstance(rule.default, (int, float)) and rule.kind in ("int", "float"):
            assert rule.low is None or rule.low <= rule.default, name
            assert rule.high is None or rule.default <= rule.high, name
