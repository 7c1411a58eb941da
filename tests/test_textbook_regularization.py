"""What the textbook claims of regularization, on the studies of it: small versions of them, and the full ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from objectives.datasets import PUBLISHED
from search.definition import StudyDefinition, load
from search.diagnoses import Diagnoses
from search.rules import unsuited
from search.space import extremes
from search.state import State, Trial
from search.workspace import Workspace
from tests.running import PROJECT, coordinate


def study(
    file: str, *, fixed: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **changes: Any
) -> StudyDefinition:
    """A study as its file has it, but for these changes."""
    whole = load(file, Workspace(PROJECT), {}).model_dump()
    whole |= {"fixed": {**whole["fixed"], **(fixed or {})}, "data": {**whole["data"], **(data or {})}, **changes}
    return StudyDefinition.model_validate(whole)


def by(state: State, *names: str) -> dict[Any, Trial]:
    """The trials by their values of these hyperparameters."""
    values = {trial.number: tuple(trial.hyperparameters[name] for name in names) for trial in state.trials.values()}
    return {value if len(names) > 1 else value[0]: state.trials[number] for number, value in values.items()}


def last(trial: Trial, metric: str = "val_accuracy") -> float:
    return trial.reports[-1].metrics[metric]


# ---------------------------------------------------------------- IMDB


@pytest.mark.real_data
def test_l1_l2_and_dropout_each_bring_down_the_test_loss_on_imdb(data_dir: Path, tmp_path: Path) -> None:
    """With a fifth of the reviews the plain network overfits all the more; others of the training set are measured."""
    definition = study("imdb_penalties", fixed={"train_fraction": 0.2}, data={"validation": 4_000}, n_trials=5,
                       trainers=0, slots=8)  # fmt: skip
    trials = by(coordinate(definition, tmp_path, data_dir=data_dir), "l1", "l2", "dropout")
    plain = trials[0.0, 0.0, 0.0]
    assert last(plain, "val_loss") > min(r.metrics["val_loss"] for r in plain.reports) + 0.02
    for regularized in ((1e-3, 0.0, 0.0), (0.0, 1e-3, 0.0), (0.0, 0.0, 0.3)):
        assert last(trials[regularized], "val_loss") < last(plain, "val_loss") - 0.01, regularized


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_imdb_penalties_reach_the_published_test_losses(data_dir: Path, tmp_path: Path) -> None:
    definition = study("imdb_penalties", checkpoints=8, trainers=0, metric="train_loss")
    trials = by(coordinate(definition, tmp_path, data_dir=data_dir), "l1", "l2", "dropout")
    plain = trials[0.0, 0.0, 0.0]
    assert last(plain, "val_loss") == pytest.approx(0.636, abs=0.02)
    published = {(1e-3, 0.0, 0.0): 0.569, (0.0, 1e-3, 0.0): 0.573, (0.0, 0.0, 0.3): 0.571}
    for regularized, loss in published.items():
        assert last(trials[regularized], "val_loss") == pytest.approx(loss, abs=0.015), regularized
        assert last(plain, "val_loss") - last(trials[regularized], "val_loss") >= 0.04
        assert last(trials[regularized]) - last(plain) >= 0.01
    sparse = trials[1e-3, 0.0, 0.0].checkpoint
    assert sparse
    weights = load_file(tmp_path / "studies" / "imdb_penalties" / sparse.path)
    kernels = torch.cat([weights[f"layer{i}.weight"].flatten() for i in (1, 2)])
    assert (kernels.abs() < 1e-3).double().mean() > 0.9


@pytest.mark.real_data
def test_network_far_too_large_overfits_imdb_within_a_few_epochs(data_dir: Path, tmp_path: Path) -> None:
    few: dict[str, Any] = {"train_fraction": 0.1, "batch_size": 100}
    definition = study("imdb_overfit", fixed=few, data={"validation": 2_000}, epochs=8, trainers=0, slots=1)
    state = coordinate(definition, tmp_path, data_dir=data_dir)
    trials = by(state, "hidden")
    large, small = trials[1024, 512, 512, 512], trials[256, 128]
    diagnosis = Diagnoses().of(state)[large.number]
    assert diagnosis is not None
    assert diagnosis.label == "overfit"
    assert last(large, "val_loss") > 1.2 * min(r.metrics["val_loss"] for r in large.reports)
    assert last(large, "val_loss") - last(large, "train_loss") > last(small, "val_loss") - last(small, "train_loss")


# ---------------------------------------------------------------- MNIST and Fashion-MNIST


@pytest.mark.real_data
def test_batch_norm_learns_mnist_faster_and_gains_nothing_from_dropout(data_dir: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"train_fraction": 0.05}
    definition = study(
        "mnist_bn_dropout", fixed=small, data={"validation": 3_000}, epochs=6, replicates=1, trainers=0, slots=4
    )
    trials = by(coordinate(definition, tmp_path, data_dir=data_dir), "batch_norm", "dropout")
    normalized = max(r.metrics["val_accuracy"] for r in trials[True, 0.0].reports)
    assert normalized > 0.9
    for other in ((False, 0.0), (False, 0.4), (True, 0.4)):
        assert normalized > last(trials[other]), other


@pytest.mark.real_data
def test_batch_norm_bounds_what_initial_weights_far_too_large_do_to_the_cnn(data_dir: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"train_fraction": 0.01, "batch_size": 32}
    definition = study("mnist_init", fixed=small, data={"validation": 500}, epochs=2, n_trials=2, trainers=0, slots=1)
    trials = by(coordinate(definition, tmp_path, data_dir=data_dir), "initialization", "batch_norm")
    assert set(trials) == {("uniform", False), ("uniform", True)}
    assert last(trials["uniform", False], "val_loss") > 100 * last(trials["uniform", True], "val_loss")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_textbook_cnn_reaches_98_5_percent_in_five_epochs_and_bad_starts_lag(data_dir: Path, tmp_path: Path) -> None:
    trials = by(coordinate(study("mnist_cnn", trainers=0), tmp_path, data_dir=data_dir), "schedule", "batch_norm")
    assert last(trials["cosine", True]) >= 0.985
    trials = by(
        coordinate(study("mnist_init", trainers=0), tmp_path, data_dir=data_dir), "initialization", "batch_norm"
    )
    for good in ("xavier", "kaiming"):
        assert last(trials[good, False]) > last(trials["uniform", False]) + 0.01


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.real_data
def test_batch_norm_on_the_textbook_mlp_reaches_the_published_accuracy_without_dropout(
    data_dir: Path, tmp_path: Path
) -> None:
    definition = study("mnist_bn_dropout", trainers=0)
    trials = by(coordinate(definition, tmp_path, data_dir=data_dir), "batch_norm", "dropout")
    best = {key: max(r.metrics["val_accuracy"] for r in trial.reports) for key, trial in trials.items()}
    assert 0.975 <= best[True, 0.0] <= 0.99
    assert best[True, 0.4] < best[True, 0.0] + 0.002


@pytest.mark.real_data
def test_batch_norm_makes_accuracy_depend_less_on_the_scale_of_initial_weights(data_dir: Path, tmp_path: Path) -> None:
    small = {"epochs": 3, "replicates": 1, "trainers": 0, "slots": 6}
    definition = study("fashion_bn_init", fixed={"train_fraction": 0.1}, data={"validation": 3_000}, **small)
    trials = by(coordinate(definition, tmp_path, data_dir=data_dir), "init_std", "batch_norm")
    spread = {on: _spread([last(trials[std, on]) for std in (0.001, 0.1, 1.0)]) for on in (False, True)}
    assert spread[True] < 0.5 * spread[False]


def _spread(values: list[float]) -> float:
    return max(values) - min(values)


def test_augmentations_that_suit_digits_are_searched_and_flips_in_their_place_would_be_warned_of() -> None:
    definition, limits = study("mnist_augment"), PUBLISHED["mnist"].label_limits
    searched = {name: extremes(parameter) for name, parameter in definition.space.items()}
    assert not [*unsuited(searched, limits)]
    assert len([*unsuited({**searched, "flip": (True,), "turn": (False, True)}, limits)]) == 2


# ---------------------------------------------------------------- digits


def test_cross_validation_measures_every_example_once_and_tells_the_mean(tmp_path: Path) -> None:
    definition = study("digits_kfold", n_trials=2, epochs=6, trainers=0, slots=5)
    state = coordinate(definition, tmp_path)
    for trial in state.trials.values():
        accuracies = [replicate["val_accuracy"] for replicate in trial.reports[-1].replicates]
        assert len(accuracies) == 5
        assert last(trial) == pytest.approx(sum(accuracies) / 5)
        assert trial.reports[-1].confusion
        assert sum(map(sum, trial.reports[-1].confusion)) == 1438  # 80 % of 1,797: the rest is the test part
    assert last(state.trials[0]) > 0.8


def test_more_digits_cure_overfitting(tmp_path: Path) -> None:
    trials = by(coordinate(study("digits_data", epochs=10, replicates=1, trainers=0), tmp_path), "train_fraction")
    losses = [min(r.metrics["val_loss"] for r in trials[part].reports) for part in sorted(trials)]
    gaps = [last(trials[part], "val_loss") - last(trials[part], "train_loss") for part in sorted(trials)]
    assert losses == sorted(losses, reverse=True)
    assert gaps[0] > 2 * gaps[-1]


def test_pixels_that_tell_most_of_a_digit_suffice_by_the_dozen_and_two_do_not(tmp_path: Path) -> None:
    trials = by(coordinate(study("digits_features", epochs=6, trainers=0, slots=8), tmp_path), "n_features")
    accuracy = {n: last(trial) for n, trial in trials.items()}
    assert accuracy[2] < accuracy[8] < accuracy[32]
    assert accuracy[2] < 0.5
    assert accuracy[32] > accuracy[0] - 0.03
