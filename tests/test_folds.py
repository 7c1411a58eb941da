"""Folds, fractions and kept features: what a slot learns from is its own training part alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from sklearn.feature_selection import mutual_info_classif

from objectives.classification import Classification, CrossEntropy
from objectives.data import DataError, Dataset
from objectives.folds import Folds, nested
from objectives.hyperparameters import HyperparameterError, Value
from objectives.population import Population
from objectives.supervised import SupervisedObjective, SupervisedTask
from tests import toy

N_FOLDS = 3


def population(
    trial: dict[str, Value], *, n: int | None = N_FOLDS, dataset: Dataset | None = None, vectors: bool = False
) -> Population:
    folds, full = Folds(dataset or toy.dataset(vectors=vectors), seed=0, n=n), toy.full(trial)
    task = SupervisedTask(folds, full, loss=CrossEntropy(), precision="float64")
    return Population(task, full, declared=Classification.HYPERPARAMETERS, epochs=10)


def apart(folds: Folds, fold: int) -> Dataset:
    """One fold as a data set of its own, its statistics computed here."""
    part = folds.of(1.0)[fold]
    unit = folds.x[part.train].double() / 255
    return replace(
        folds.dataset,
        x_train=folds.x[part.train],
        y_train=folds.y[part.train],
        x_val=part.x_val,
        y_val=part.y_val,
        mean=unit.mean([0, 2, 3]).float(),
        std=unit.std([0, 2, 3], correction=0).float(),
    )


# ---------------------------------------------------------------- what is in which part


@pytest.mark.parametrize("n", [2, 3, 7])
def test_each_example_is_validated_on_once_and_trained_on_by_all_other_folds(n: int) -> None:
    folds = Folds(toy.dataset(), seed=0, n=n)
    parts = folds.of(1.0)
    assert sorted(torch.cat([part.val_index for part in parts]).tolist()) == list(range(toy.N_TRAIN + toy.N_VAL))
    for part in parts:
        assert not set(part.train.tolist()) & set(part.val_index.tolist())  # here positions are indices
        assert folds.y[part.val_index].equal(part.y_val)
        assert part.y_val.bincount(minlength=4).max() - part.y_val.bincount(minlength=4).min() <= 2
    assert len({len(part.train) for part in parts}) == 1
    assert toy.N_TRAIN + toy.N_VAL - len(parts[0].train) - len(parts[0].y_val) <= 1


@given(
    npst.arrays(np.int64, st.integers(1, 100), elements=st.integers(0, 4)),
    st.floats(0, 1, exclude_min=True),
    st.floats(0, 1, exclude_min=True),
)
def test_a_smaller_fraction_is_within_a_larger_one_and_has_each_class_in_its_share(
    classes: NDArray[np.int64], one: float, other: float
) -> None:
    small, large = (nested(classes, fraction=each, seed=3) for each in sorted((one, other)))
    assert set(small) <= set(large)
    shares = min(one, other) * np.bincount(classes)
    counts = np.bincount(classes[small], minlength=len(shares))
    assert ((counts >= shares - 1e-6) & (counts < shares + 1)).all()


def test_fraction_of_the_training_part_has_its_own_statistics_and_shorter_epochs() -> None:
    half = population({"train_fraction": 0.5}, n=None)
    assert (half.n_updates, population({}, n=None).n_updates) == (42 // toy.BATCH, toy.N_TRAIN // toy.BATCH)
    folds = Folds(toy.dataset(), seed=0)
    (part,) = folds.of(0.5)
    unit = folds.x[part.train].double() / 255
    assert torch.allclose(part.mean.double(), unit.mean([0, 2, 3]), atol=1e-6)
    assert part.x_val.equal(toy.dataset().x_val)


# ---------------------------------------------------------------- what is learned


@pytest.mark.parametrize("trial", [{}, {"dropout": 0.3, "shift": 1}, {"batch_norm": True}])
def test_fused_folds_train_as_each_fold_alone_as_a_data_set_of_its_own(trial: dict[str, Value]) -> None:
    together, folds = population(trial), Folds(toy.dataset(), seed=0, n=N_FOLDS)
    for fold in range(N_FOLDS):
        together.admit(fold, hyperparameters=toy.full(trial), seed=fold, fold=fold)
    toy.train(together, epochs=3)
    for fold in range(N_FOLDS):
        alone = population(trial, n=None, dataset=apart(folds, fold))
        toy.admit(alone, 0, trial, seed=fold)
        toy.train(alone, epochs=3)
        assert toy.difference(together.weights(fold), alone.weights(0)) < 1e-8
        for name, value in alone.evaluate()[0].metrics.items():
            assert together.evaluate()[fold].metrics[name] == pytest.approx(value, rel=1e-6), name


def test_left_out_features_change_nothing_and_are_those_that_tell_least_of_the_class_in_the_fold() -> None:
    trial: dict[str, Value] = {"n_features": 3}
    folds = Folds(toy.dataset(vectors=True), seed=0, n=N_FOLDS)
    part = folds.of(1.0)[1].train
    information = mutual_info_classif(folds.x[part], folds.y[part], discrete_features=True, random_state=0)
    kept = sorted(np.argsort(-information, kind="stable")[:3])
    assert sorted(torch.nonzero(folds.ranks(1.0, 1) < 3).flatten().tolist()) == kept
    trained = population(trial, vectors=True)
    trained.admit(0, hyperparameters=toy.full(trial), seed=0, fold=1)
    before = trained.weights(0)["layer1.weight"].clone()
    toy.train(trained, epochs=2)
    moved = (trained.weights(0)["layer1.weight"] != before).any(dim=1)  # (in, out)
    assert moved.nonzero().flatten().tolist() == kept


def test_saved_network_of_a_fold_gives_its_losses_with_and_without_all_features(tmp_path: Path) -> None:
    for trial in ({}, {"n_features": 40}):
        objective = SupervisedObjective(
            Folds(toy.dataset(), seed=0, n=N_FOLDS), Classification, precision="float32", load_test_set=pytest.fail
        )
        trained = objective.build(toy.full(trial), epochs=2)
        trained.admit(0, hyperparameters=toy.full(trial), seed=0, fold=2)
        toy.train(trained, epochs=2)
        trained.keep(0)
        trained.save(0, tmp_path / "w.safetensors")
        found = objective.measure(tmp_path / "w.safetensors", tmp_path / "p.npz").metrics
        assert found["val_loss"] == pytest.approx(trained.evaluate()[0].metrics["val_loss"], rel=1e-5)


# ---------------------------------------------------------------- what is refused


def test_folds_where_something_else_is_validated_on_are_refused() -> None:
    with pytest.raises(DataError, match=r"folds = 3: .*'original_test'"):
        Folds(replace(toy.dataset(), validation="original_test"), seed=0, n=3)
    with pytest.raises(HyperparameterError, match="fold = 3"):
        population({}).admit(0, hyperparameters=toy.full({}), seed=0, fold=3)
