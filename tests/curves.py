"""Makes the labelled learning curves of tests/data/curves.json: `python -m tests.curves`, resumable.

A curve's label is how it was made: the intervention that causes the condition, before any threshold was set. Two were
chosen on other seeds (100 and 101). `healthy`: networks and budgets whose validation loss ends within 2 % of its best
and in whose last fifth it fell by less, next to the best of them. `overfit`: of those with too much capacity, too many
epochs and little data, the ones whose validation loss ends a fifth above its best. The published data sets lie where
SEARCH_DATA_DIR says.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets as sklearn_datasets

from objectives import imdb
from objectives.classification import Classification
from objectives.datasets import named
from objectives.hyperparameters import Value
from objectives.population import Population
from objectives.regression import Regression
from objectives.supervised import Supervised, SupervisedObjective

PATH = Path(__file__).parent / "data" / "curves.json"
SERIES = ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_loss_se")
Curve = dict[str, list[float]]
"""By name of the metric, from the untrained network on."""
CALIBRATED_ON = ("digits", "fashion_mnist", "imdb")
"""Thresholds are set on the curves of these, and scored on all others: fixed before there were any."""
OTHER_SEEDS = (100, 101)
N_HEALTHY = 3
WITHIN = 0.02
"""How far above its best a healthy validation loss may end, and what its last fifth may bring."""
ABOVE = 0.2
"""How far above its best one that overfits ends at least."""
NEXT = 0.5
"""How far above the best healthy network's another's may end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set, of which a few or many examples are trained on."""

    name: str
    n_val: int
    few: int
    many: int
    batch_size: int = 32
    learnable_by_one_unit: bool = False
    factory: Supervised = Classification


SOURCES = (
    Source(name="digits", n_val=500, few=50, many=1200),
    Source(name="fashion_mnist", n_val=1000, few=300, many=2000, batch_size=64),
    Source(name="imdb", n_val=2000, few=300, many=2000, batch_size=64, learnable_by_one_unit=True),
    Source(name="mnist", n_val=1000, few=300, many=2000, batch_size=64),
    Source(name="cifar10", n_val=1000, few=300, many=2000, batch_size=64),
    Source(name="breast_cancer", n_val=200, few=60, many=350, batch_size=16, learnable_by_one_unit=True),
    Source(name="diabetes", n_val=120, few=60, many=300, batch_size=16, learnable_by_one_unit=True, factory=Regression),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How curves are made: from these seeds; while the epoch `spoilt_at` is measured, the output layer is spoilt."""

    label: str
    because: str
    epochs: int
    n_train: int
    hyperparameters: Mapping[str, Value]
    seeds: Sequence[int] = (0, 1)
    spoilt_at: int | None = None


def recipes(source: Source) -> list[Recipe]:
    """All of a data set; the healthy ones are chosen here."""
    healthy = _chosen(source, _calm(source), _ends_well, next_to_best=NEXT)
    return [
        *_caused(source),
        *_chosen(source, _large(source), _ends_above),
        *healthy[:N_HEALTHY],
        *map(_spiked, healthy[:2]),
    ]


def _caused(source: Source) -> Iterator[Recipe]:
    few, many = source.few, source.many
    sgd: dict[str, Value] = {"optimizer": "sgd", "momentum": 0.0}
    usual: dict[str, Value] = {"width": 128, "depth": 2, "optimizer": "adam"}

    def recipe(label: str, because: str, epochs: int, n_train: int, given: Mapping[str, Value], **more: Any) -> Recipe:
        return Recipe(label=label, because=because, epochs=epochs, n_train=n_train, hyperparameters=given, **more)

    yield recipe("diverged", "lr far too high", 20, few, {"depth": 0, "lr": 1e5, **sgd})
    yield recipe("diverged", "lr far too high", 20, many, {**usual, "lr": 10.0})
    yield recipe("diverged", "lr far too high", 12, few, {**usual, "lr": 100.0, **sgd, "batch_norm": True})
    yield recipe("stalled", "lr far too low", 20, few, {"depth": 0, "lr": 1e-10, **sgd})
    yield recipe("stalled", "lr far too low", 12, few, {**usual, "lr": 1e-9})
    yield recipe("stalled", "lr far too low", 8, few, {**usual, "lr": 1e-7, **sgd, "activation": "tanh", "depth": 3})
    if not source.learnable_by_one_unit:
        tiny: dict[str, Value] = {"hidden": (1,), "activation": "tanh", "optimizer": "adam", "lr": 1e-2}
        yield recipe("underfit", "capacity far too small", 40, many, {**tiny, "schedule": "cosine"})
        yield recipe("underfit", "capacity far too small", 40, many, {**tiny, "hidden": (16, 1), "schedule": "cosine"})
        yield recipe("underfit", "capacity far too small", 30, many, {**tiny, "hidden": (2,), "schedule": "cosine"})
    yield recipe("still improving", "too few epochs", 5, many, {**usual, "lr": 1e-4})
    yield recipe("still improving", "too few epochs", 10, many, {**usual, "lr": 3e-5})
    yield recipe("still improving", "too few epochs", 8, many, {**usual, **sgd, "lr": 1e-3})


def _large(source: Source) -> Iterator[Recipe]:
    """Far too much capacity and far too many epochs for little data."""
    because = "capacity and epochs far too large, little data; chosen on seeds 100 and 101"
    for width, epochs, activation in ((1024, 80, "relu"), (1024, 80, "tanh"), (512, 60, "relu")):
        given: dict[str, Value] = {"width": width, "depth": 3, "optimizer": "adam", "lr": 3e-3}
        given["activation"] = activation
        yield Recipe(label="overfit", because=because, epochs=epochs, n_train=source.few, hyperparameters=given)


def _calm(source: Source) -> Iterator[Recipe]:
    """Networks and budgets that may be healthy."""
    because = "regularized, its lr annealed; chosen on seeds 100 and 101"
    for dropout, lr, epochs in product((0.3, 0.6), (1e-3, 3e-3), (20, 40)):
        given: dict[str, Value] = {"depth": 1, "dropout": dropout, "lr": lr, "weight_decay": 0.05, "schedule": "cosine"}
        yield Recipe(label="healthy", because=because, epochs=epochs, n_train=source.many, hyperparameters=given)


def _spiked(calm: Recipe) -> Recipe:
    """The same, with one spike of the loss early on."""
    because = "as healthy, but with the output layer spoilt while the epoch after a fifth of all was measured"
    return replace(calm, because=because, spoilt_at=calm.epochs // 5, seeds=(2, 3))


def _chosen(
    source: Source,
    candidates: Iterable[Recipe],
    ends: Callable[[Sequence[float]], bool],
    *,
    next_to_best: float = math.inf,
) -> list[Recipe]:
    """The candidates whose validation losses end so on other seeds, those of the lowest first."""
    found = []
    for recipe in candidates:
        losses = [curve["val_loss"] for curve in trained(source, recipe, OTHER_SEEDS)]
        if all(ends(each) for each in losses):
            found.append((sum(each[-1] for each in losses), recipe))
    found.sort(key=lambda pair: pair[0])
    return [recipe for last, recipe in found if last <= found[0][0] * (1 + next_to_best)]


def _ends_well(losses: Sequence[float]) -> bool:
    best, before = min(losses), min(losses[: len(losses) - (len(losses) - 1) // 5])
    return max(losses[-1], before) <= best * (1 + WITHIN)


def _ends_above(losses: Sequence[float]) -> bool:
    return losses[-1] >= min(losses) * (1 + ABOVE)


# ---------------------------------------------------------------- training


def trained(source: Source, recipe: Recipe, seeds: Sequence[int]) -> list[Curve]:
    """The curves of each seed."""
    given = {"batch_size": source.batch_size, **recipe.hyperparameters}
    population = objective(source, recipe.n_train).build(given, epochs=recipe.epochs)
    for slot, seed in enumerate(seeds):
        population.admit(slot, hyperparameters=given, seed=seed, fold=None)
    return _measured(population, epochs=recipe.epochs, spoilt_at=recipe.spoilt_at)


def _measured(population: Population, *, epochs: int, spoilt_at: int | None = None) -> list[Curve]:
    measured = [population.evaluate()]
    for epoch in range(1, epochs + 1):
        for _ in range(population.n_updates):
            population.update()
        outputs = [population.weights(slot)["output.weight"] for slot in population.slots]
        if epoch == spoilt_at:
            torch._foreach_mul_(outputs, -16)
        measured.append(population.evaluate())
        if epoch == spoilt_at:
            torch._foreach_div_(outputs, -16)
    names = [name for name in SERIES if name in measured[0][0].metrics]
    return [{name: [each[slot].metrics[name] for each in measured] for name in names} for slot in population.slots]


@cache
def objective(source: Source, n_train: int) -> SupervisedObjective:
    x, y = examples(source.name)
    n_test = 10  # what is set apart anyway
    n = n_train + source.n_val + n_test
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{source.name}.npz"
        np.savez(path, x=x[:n], y=y[:n])
        return _opened(source.factory, {"path": str(path), "validation": source.n_val, "test": n_test})


def _opened(factory: Supervised, data: Mapping[str, object]) -> SupervisedObjective:
    return factory(data=data, data_dir=Path(), seed=0, device="cpu", precision="float32", progress=lambda text: None)


@cache
def examples(name: str) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """All examples in an order of no meaning; targets of a regression in units of their deviation."""
    data_dir = Path(os.environ.get("SEARCH_DATA_DIR", ""))
    if name in ("breast_cancer", "diabetes"):
        x, y = getattr(sklearn_datasets, f"load_{name}")(return_X_y=True)
        y = y if name == "breast_cancer" else (y - y.mean()) / y.std()
    elif name == "imdb":
        found = imdb.reviews("train", n_words=100, data_dir=data_dir)
        x, y = found.x, found.y
    else:
        found = named(name, size=None, data_dir=data_dir, progress=print)
        x, y = found.x, found.y
    order = np.random.default_rng(0).permutation(len(y))
    return x[order], y[order]


# ---------------------------------------------------------------- a textbook's


def textbook() -> Iterator[dict[str, Any]]:
    """Softmax regression at three learning rates, and linear regression of what is not standardized.

    All are measured on what they train on, in one batch, from the weights that torch draws after `manual_seed(1)`.
    """
    x = [[1, 2, 1], [1, 3, 2], [1, 3, 4], [1, 5, 5], [1, 7, 5], [1, 2, 5], [1, 6, 6], [1, 7, 7]]
    y = [2, 2, 2, 1, 1, 1, 0, 0]
    scores, marks = [[73, 80, 75], [93, 88, 93], [89, 91, 90], [96, 98, 100], [73, 66, 70]], [152, 185, 180, 196, 142]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = [torch.nn.Linear(3, n_outputs) for n_outputs in (3, 3, 3, 3, 1)]
    for k, lr, label in ((1, 1e5, "diverged"), (2, 1e-10, "stalled"), (3, 0.1, "still improving")):
        because = {"diverged": "lr far too high", "stalled": "lr far too low"}.get(label, "too few epochs")
        yield _textbook("lr_softmax", layers[k], _opened(Classification, _whole(x, y)), lr, label, because)
    linear = _opened(Regression, _whole(scores, marks))
    yield _textbook("lr_linear", layers[4], linear, 0.1, "diverged", "inputs not standardized")


def _whole(x: object, y: object) -> Mapping[str, object]:
    return {"x": x, "y": y, "validation": "train", "scaling": "none"}


def _textbook(
    name: str, layer: torch.nn.Linear, opened: SupervisedObjective, lr: float, label: str, because: str
) -> dict[str, Any]:
    n, epochs = len(opened._dataset.y_train), 19
    given: dict[str, Value] = {"depth": 0, "batch_size": n, "optimizer": "sgd", "momentum": 0.0, "lr": lr}
    population = opened.build(given, epochs=epochs)
    population.admit(0, hyperparameters=given, seed=0, fold=None)
    weights = population.weights(0)
    weights["output.weight"].copy_(layer.weight.detach())
    weights["output.bias"].copy_(layer.bias.detach())
    recipe = Recipe(label=label, because=because, epochs=epochs, n_train=n, hyperparameters=given)
    return _entry(name, recipe, opened, seed=1, curve=_measured(population, epochs=epochs)[0])


# ---------------------------------------------------------------- the file


def main() -> None:
    torch.set_num_threads(1)
    curves: list[dict[str, Any]] = json.loads(PATH.read_text())["curves"] if PATH.exists() else []
    PATH.parent.mkdir(exist_ok=True)
    makers: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {"lr_softmax": textbook}
    makers |= {source.name: partial(_all_of, source) for source in SOURCES}
    done = {curve["data"] for curve in curves}
    for name, make in makers.items():
        if name not in done:
            curves += make()
            _write(curves)
            print(name, len(curves), "curves", flush=True)


def _all_of(source: Source) -> Iterator[dict[str, Any]]:
    for recipe in recipes(source):
        opened = objective(source, recipe.n_train)
        for seed, curve in zip(recipe.seeds, trained(source, recipe, recipe.seeds), strict=True):
            yield _entry(source.name, recipe, opened, seed=seed, curve=curve)


def _entry(name: str, recipe: Recipe, opened: SupervisedObjective, *, seed: int, curve: Curve) -> dict[str, Any]:
    """One curve as it is written, rounded, with where it came from."""
    facts, targets = opened.facts, opened._dataset.y_val
    classes = facts["classes"]
    made = {key: value for key, value in asdict(recipe).items() if key != "seeds" and value is not None}
    return {
        "data": name,
        **made,
        "seed": seed,
        "validation": facts["validation"],
        "n_validation": facts["n_validation"],
        "class_counts": torch.bincount(targets).tolist() if classes else [],
        **{name: [float(f"{value:.5g}") for value in values] for name, values in curve.items()},
    }


def _write(curves: Sequence[Mapping[str, Any]]) -> None:
    lines = ",\n".join(json.dumps(curve, separators=(",", ":")) for curve in curves)
    partial = PATH.with_suffix(".partial")
    partial.write_text(f'{{"curves":[\n{lines}\n]}}\n')
    partial.replace(PATH)


if __name__ == "__main__":
    main()
