"""A small data set of random images, and ways to train on it in float64: for tests of the engine."""

from collections.abc import Mapping

import torch
from torch import Tensor

from objectives.classification import Classification, CrossEntropy
from objectives.data import Dataset
from objectives.folds import Folds
from objectives.hyperparameters import Value, completed
from objectives.population import Population
from objectives.rows import MakeRows
from objectives.supervised import SupervisedTask

N_TRAIN, N_VAL, N_CLASSES, BATCH = 83, 40, 4, 16
UPDATES_PER_EPOCH = N_TRAIN // BATCH

Hyperparameters = Mapping[str, Value]


def dataset(*, vectors: bool = False) -> Dataset:
    """Images (3, 8, 6) or vectors (7,) whose class shows in their brightness."""
    generator = torch.Generator().manual_seed(0)
    n = N_TRAIN + N_VAL
    y = torch.arange(n) % N_CLASSES
    shape = (n, 7) if vectors else (n, 3, 8, 6)
    noise = torch.randint(0, 160, shape, generator=generator) + 30 * y.view(n, *(1,) * (len(shape) - 1))
    x = noise.float() if vectors else noise.to(torch.uint8)
    unit = x[:N_TRAIN].double() / (1 if vectors else 255)
    dims = [0] if vectors else [0, 2, 3]
    return Dataset(
        name="toy",
        checksum="0" * 32,
        classes=tuple("abcd"),
        x_train=x[:N_TRAIN],
        y_train=y[:N_TRAIN],
        x_val=x[N_TRAIN:],
        y_val=y[N_TRAIN:],
        mean=unit.mean(dims).float(),
        std=unit.std(dims).float(),
        train_index=torch.arange(N_TRAIN),
        val_index=torch.arange(N_TRAIN, n),
    )


def full(hyperparameters: Hyperparameters) -> dict[str, Value]:
    small: dict[str, Value] = {"width": 12, "depth": 2, "batch_size": BATCH, "activation": "gelu", "lr": 1e-2}
    return completed(small | dict(hyperparameters), Classification.HYPERPARAMETERS)


def task(hyperparameters: Hyperparameters, *, vectors: bool = False) -> SupervisedTask:
    return SupervisedTask(
        Folds(dataset(vectors=vectors), seed=0), full(hyperparameters), loss=CrossEntropy(), precision="float64"
    )


def population(
    hyperparameters: Hyperparameters, *, epochs: int = 10, vectors: bool = False, rows: MakeRows | None = None
) -> Population:
    return Population(
        task(hyperparameters, vectors=vectors),
        full(hyperparameters),
        declared=Classification.HYPERPARAMETERS,
        epochs=epochs,
        rows=rows,
    )


def admit(to: Population, slot: int, hyperparameters: Hyperparameters, *, seed: int) -> None:
    to.admit(slot, hyperparameters=full(hyperparameters), seed=seed, fold=None)


def train(trained: Population, *, epochs: int) -> None:
    for _ in range(epochs * trained.n_updates):
        trained.update()


def alone(hyperparameters: Hyperparameters, *, seed: int, epochs: int = 10) -> dict[str, Tensor]:
    """Return the weights of a trial trained alone."""
    trained = population(hyperparameters, epochs=epochs)
    admit(trained, 0, hyperparameters, seed=seed)
    train(trained, epochs=epochs)
    return trained.weights(0)


def difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest max|a - b| / max|b| over the tensors; where b is zero a must be so too."""
    assert a.keys() == b.keys()
    largest = ((a[name] - b[name]).abs().max() / b[name].abs().max() for name in b if not a[name].equal(b[name]))
    return max((each.item() for each in largest), default=0.0)
