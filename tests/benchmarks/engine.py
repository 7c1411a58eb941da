"""Our engine without the service: an objective on a workload's data, and its slots. Needs torch and numpy only."""

from collections.abc import Mapping
from typing import Any

from objectives.classification import Classification
from objectives.hyperparameters import Value
from objectives.population import Population
from tests.benchmarks.sides import LR, Places
from tests.benchmarks.workloads import Workload

EPOCHS = 9


def objective(workload: Workload, places: Places, *, precision: str, device: str = "cpu") -> Classification:
    return Classification(
        data=workload.table(places.path),
        data_dir=places.data_dir,
        seed=0,
        device=device,
        precision=precision,
        progress=print,
    )


def filled(found: Classification, workload: Workload, n_slots: int) -> Population:
    """A population with so many slots, all at their first update."""
    population = found.build(workload.hyperparameters, epochs=EPOCHS)
    for slot in range(n_slots):
        population.admit(slot, hyperparameters=given(workload, slot), seed=slot, fold=None)
    return population


def given(workload: Workload, slot: int, **changes: Any) -> Mapping[str, Value]:
    """The slot's hyperparameters: of the numbers that are its own, each slot has others."""
    own: dict[str, Value] = {"lr": LR * (0.5 + 0.25 * (slot % 8))}
    if workload.dropout:
        own["dropout"] = workload.dropout * (0.5 + 0.125 * (slot % 8))
    return {**workload.hyperparameters, **own, **changes}
