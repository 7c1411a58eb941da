"""Our engine without the service: an objective on a workload's data, and its slots. Needs torch and numpy only."""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from objectives.classification import Classification
from objectives.hyperparameters import Value
from objectives.population import Population
from objectives.supervised import SupervisedObjective
from tests.benchmarks.sides import LR, Places
from tests.benchmarks.workloads import Workload

EPOCHS = 9


def objective(workload: Workload, places: Places, *, precision: str, device: str = "cpu") -> SupervisedObjective:
    return Classification(
        data=workload.table(places.path),
        data_dir=places.data_dir,
        seed=0,
        device=device,
        precision=precision,
        progress=print,
    )


def filled(found: SupervisedObjective, workload: Workload, n_slots: int) -> Population:
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


# ---------------------------------------------------------------- successive halving, with refill and without


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A race that is over."""

    seconds: float
    updates: int
    """Updates of the population."""
    slot_updates: int

    def used(self, slots: int) -> float:
        """The part of the rows that had a trial in them."""
        return self.slot_updates / (slots * self.updates)


Ending = Callable[[Mapping[int, float]], Collection[int]]
"""Is told the validation accuracies of trials that completed an epoch; returns those that end."""


def race(
    found: SupervisedObjective,
    trials: Sequence[Mapping[str, Value]],
    slots: int,
    *,
    epochs: int,
    refill: bool,
    ending: Ending,
) -> Arm:
    """Train all trials, at most so many at once, and time it.

    Without refill an array of trials is trained until its last survivor ends, then the next array begins, as HFTA and
    Hydro do; pruned rows are dropped there too.
    """
    waiting = deque(enumerate(trials))
    population = found.build(trials[0], epochs=epochs)
    updates = slot_updates = 0
    started = time.perf_counter()
    while waiting or population.slots:
        free = slots - len(population.slots) if refill or not population.slots else 0
        for number, given_here in [waiting.popleft() for _ in range(min(free, len(waiting)))]:
            population.admit(number, hyperparameters=given_here, seed=number, fold=None)
        slot_updates += len(population.slots)
        updates += 1
        if done := population.update():
            evaluations = population.evaluate(done)
            for number in done:
                population.keep(number)
            population.forget(ending({n: e.metrics["val_accuracy"] for n, e in evaluations.items()}))
    return Arm(seconds=time.perf_counter() - started, updates=updates, slot_updates=slot_updates)
