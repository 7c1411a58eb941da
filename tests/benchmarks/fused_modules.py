"""`python -m tests.benchmarks.fused_modules`: one's own modules fused, beside plain modules trained one after another.

Each side trains the same module on the same data set with AdamW, dropout in each trial at a rate of its own. "plain" is
what one would write: resident, normalized examples, an index per batch, torch.optim.AdamW(fused=True). "together" and
"one by one" are our populations: the layers of all slots at once, and a loop over the slots; which of the two the
service takes is marked.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from objectives.data import Dataset, load
from objectives.folds import Folds
from objectives.fused import FusedNetwork
from objectives.hyperparameters import Value, completed
from objectives.network import Build
from objectives.own_network import classification_of
from objectives.population import Population
from objectives.supervised import SupervisedTask
from search.workspace import default_data_dir
from tests import modules
from tests.benchmarks.measuring import machine
from tests.benchmarks.table import alternating, spread

SIDES = ("plain", "together", "one by one")
MODULES: dict[str, tuple[Build, str, int]] = {
    "digits_mlp": (modules.perceptron, "digits", 64),
    "mnist_mlp": (modules.wide_perceptron, "mnist", 64),
    "transformer": (modules.transformer, "cifar10", 32),
    "small_cnn": (modules.small_cnn, "cifar10", 32),
    "resnet18": (modules.residual, "cifar10", 8),
}
"""Name -> (what builds it, data set, batch size)."""
RATES = [0.1 * (i % 4) for i in range(8)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fused_modules", description=__doc__)
    parser.add_argument("--only", action="append", choices=MODULES)
    parser.add_argument("--slots", type=int, action="append", help="1, 2, 4 and 8 by default")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.3, help="least time of a burst")
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| module | slots | plain, CPU ms an update and slot | together, x plain | one by one, x plain |")
    print("|---|---|---|---|---|")
    for name in given.only or MODULES:
        build, data_set, batch = MODULES[name]
        data = load({"name": data_set}, data_dir=given.data_dir, seed=0, device="cpu", progress=print)
        for slots in given.slots or (1, 2, 4, 8):
            found = measured(build, data, batch, slots, repeats=given.repeats, seconds=given.seconds)
            print(f"| {name}, batch {batch} | {slots} | {found} |", flush=True)
    print("\nMachine: " + ", ".join(f"{key} {value}" for key, value in machine().items() if value))
    return 0


def measured(build: Build, data: Dataset, batch: int, slots: int, *, repeats: int, seconds: float) -> str:
    """The cells of a row: CPU milliseconds of the plain loop, and how many times faster the others are."""
    ours = {side: filled(build, data, batch, slots, side) for side in SIDES[1:]}
    chosen = next(side for side in SIDES[1:] if ours[side].chosen)
    updates: dict[str, Callable[[], object]] = {side: each.population.update for side, each in ours.items()}
    updates["plain"] = plain(build, data, batch, slots)
    for update in updates.values():
        update()
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _, side in alternating(SIDES, repeats):
        times[side].append(timed(updates[side], seconds) / slots)
    cells = [spread([1e3 * each for each in times["plain"]])]
    for side in SIDES[1:]:
        ratio = spread([a / b for a, b in zip(times["plain"], times[side], strict=True)])
        cells.append(f"**{ratio}**" if side == chosen else ratio)
    return " | ".join(cells)


def timed(update: Callable[[], object], seconds: float) -> float:
    """CPU seconds of one update of one thread, in a burst of at least so many: others on the machine count for less."""
    started, n = time.process_time(), 0
    while time.process_time() - started < seconds:
        update()
        n += 1
    return (time.process_time() - started) / n


@dataclass(frozen=True, slots=True)
class Filled:
    population: Population
    chosen: bool
    """It trains as the service would have it."""


def filled(build: Build, data: Dataset, batch: int, slots: int, side: str) -> Filled:
    """A population of so many slots that runs as this side says."""
    family = classification_of(build, modules.DROPOUT)
    own: dict[str, Value] = {"batch_size": batch, "optimizer": "adamw"}
    full = completed(own, family.HYPERPARAMETERS)
    task = SupervisedTask(Folds(data, seed=0), full, loss=family.loss, networks=family.networks, precision="float32")
    assert isinstance(task.network, FusedNetwork)
    alone = bool(task.network.why_alone)
    task.network._found = replace(task.network._found, why_alone=side if side == "one by one" else "")
    population = Population(task, full, declared=family.HYPERPARAMETERS, epochs=100)
    for i in range(slots):
        population.admit(i, hyperparameters=own | {"dropout": RATES[i]}, seed=i, fold=None)
    return Filled(population, alone == (side == "one by one"))


def plain(build: Build, data: Dataset, batch: int, slots: int) -> Callable[[], None]:
    """An update of so many plain modules, one after another."""
    shape = tuple(data.x_train.shape[1:])
    each = (-1, *(1,) * (len(shape) - 1))
    x_train = (data.x_train[:5000].float() / 255 - data.mean.view(each)) / data.std.view(each)
    nets = [build({"dropout": RATES[i]}, input_shape=shape, n_outputs=len(data.classes)) for i in range(slots)]
    trained = [(net, torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=0.0, fused=True)) for net in nets]

    def update() -> None:
        for net, optimizer in trained:
            index = torch.randint(len(x_train), (batch,))
            step(net, optimizer, x_train[index], data.y_train[index])

    return update


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(net(x), y).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
