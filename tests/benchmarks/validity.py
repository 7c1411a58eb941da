"""Whether what is timed is the same training: fused parameters against a plain module and torch.optim, in float64.

B examples, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from objectives import models
from objectives.data import Dataset
from objectives.hyperparameters import Value, number
from objectives.layers import Dropout
from objectives.numbers import Draws, Numbers
from objectives.streams import key, permutation
from tests.benchmarks.engine import given, objective
from tests.benchmarks.sides import Places, network, split
from tests.benchmarks.workloads import Workload

CPU = torch.device("cpu")
SAME = 1e-8
"""The greatest max|a - b| / max|b| of a tensor."""
N_UPDATES = 50
ADMITTED_AFTER = (0, 3, 50)
"""Updates of the population: at once, in the middle of another's epoch, and into the row that the first one left."""


def difference(workload: Workload, folder: Path, data_dir: Path) -> float:
    """Return the largest difference of any slot's parameters and buffers after its 50 updates.

    The structure is the workload's; batches and data are small, so that an epoch ends within the 50 updates.
    """
    small = replace(
        workload,
        name=f"{workload.name}_small",
        n_train=192,
        n_val=40,
        hyperparameters={**workload.hyperparameters, "batch_size": 32},
    )
    places = Places(path=small.write(folder, data_dir), data_dir=data_dir)
    dataset = split(small, places)
    population = objective(small, places, precision="float64").build(small.hyperparameters, epochs=100)
    admitted: dict[int, tuple[int, Mapping[str, Tensor]]] = {}
    found = 0.0
    for update in range(max(ADMITTED_AFTER) + N_UPDATES):
        for slot in (slot for slot, after in enumerate(ADMITTED_AFTER) if after == update):
            population.admit(slot, hyperparameters=_given(small, slot), seed=slot, fold=None)
            admitted[slot] = update, {name: t.clone() for name, t in population.weights(slot).items()}
        population.update()
        for slot in [slot for slot, (first, _) in admitted.items() if update + 1 - first == N_UPDATES]:
            _, initial = admitted.pop(slot)
            reference = unfused(small, dataset, _given(small, slot), seed=slot, initial=_plain(small, initial))
            found = max(found, largest(_plain(small, population.weights(slot)), reference))
            population.forget([slot])
    assert not admitted
    return found


def _given(workload: Workload, slot: int) -> Mapping[str, Value]:
    """Every other slot of a workload with dropout has none."""
    return given(workload, slot, **({"dropout": 0.0} if workload.dropout and slot % 2 else {}))


def _plain(workload: Workload, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return models.plain(weights, batch_norm=bool(workload.hyperparameters.get("batch_norm", False)))


def unfused(
    workload: Workload, dataset: Dataset, trial: Mapping[str, Value], *, seed: int, initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Train a plain module with torch.optim.Adam from these weights, with the slot's own order and masks."""
    net = network(workload, dataset).double()
    net.load_state_dict(initial, strict=False)
    optimizer, criterion = torch.optim.Adam(net.parameters(), lr=number(trial, "lr")), nn.CrossEntropyLoss()
    mean, std = (t.double().view(-1, 1, 1) for t in (dataset.mean, dataset.std))
    n_epoch = len(dataset.y_train) // workload.batch_size
    for update in range(N_UPDATES):
        epoch, within = divmod(update, n_epoch)
        order = permutation(key(seed, "order", epoch), len(dataset.y_train), device=CPU)
        index = order[within * workload.batch_size :][: workload.batch_size]
        x = (dataset.x_train[index].double() / 255 - mean) / std
        logits = _forward(net, x, masks=_masks(float(str(trial.get("dropout", 0.0))), seed, update))
        optimizer.zero_grad()
        criterion(logits, dataset.y_train[index]).backward()
        optimizer.step()
    return {name: t for name, t in net.state_dict().items() if "num_batches" not in name}


def _forward(net: nn.Sequential, x: Tensor, *, masks: Callable[[Tensor, int], Tensor]) -> Tensor:
    """The module's own forward, but for the masks of its dropout layers."""
    for name, module in net.named_children():
        x = masks(x, int(name.removeprefix("dropout"))) if isinstance(module, nn.Dropout) else module(x)
    return x


def _masks(rate: float, seed: int, update: int) -> Callable[[Tensor, int], Tensor]:
    """The slot's own masks: which numbers are drawn is the engine's to choose, what becomes of them is not."""
    drawn = Draws(
        numbers=Numbers([{"dropout": rate}], ["dropout"], device=CPU),
        roots=torch.tensor([key(seed, "draws")]),
        counts=torch.tensor([update]),
    )

    def drop(x_BD: Tensor, layer: int) -> Tensor:
        return Dropout(name=f"dropout {layer}").forward(x_BD.unsqueeze(0), {}, {}, drawn)[0]

    return drop


def largest(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest max|a - b| / max|b| over the tensors; infinite where anything is not finite."""
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    found = max(((a[name] - b[name]).abs().max() / b[name].abs().max()).item() for name in b)
    return found if found == found else float("inf")
