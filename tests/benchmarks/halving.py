"""Successive halving with refill against the same engine without: how long the same trials take.

Without refill an array of P trials is trained until its last survivor ends, then the next array begins, as HFTA and
Hydro do; pruned rows are dropped there too. Both arms use search.pruning.decide, one process on one core.
"""

import time
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

from objectives.classification import Classification
from search.definition import StudyDefinition, hyperparameters
from search.events import AttemptStarted, EpochReported, TrialAsked, TrialFinished
from search.pruning import decide
from search.sampling import Sampling, trial_seed
from search.state import State, apply
from tests.benchmarks.engine import objective
from tests.benchmarks.fused import definition
from tests.benchmarks.sides import Places
from tests.benchmarks.workloads import Workload

EPOCHS, ETA = 27, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    seconds: float
    updates: int
    """Updates of the population."""
    slot_updates: int
    finished: int

    def used(self, slots: int) -> float:
        """The part of the rows that had a trial in them."""
        return self.slot_updates / (slots * self.updates)


def arms(workload: Workload, places: Places, n_trials: int, slots: int, repeats: int) -> list[tuple[Arm, Arm]]:
    """Return (with refill, without) for each repeat, in the order A B B A."""
    study = definition(
        workload,
        places.path,
        name="halving",
        seed=0,
        n_trials=n_trials,
        epochs=EPOCHS,
        pruning={"kind": "successive_halving", "eta": ETA},
    )
    found = objective(workload, places, precision="float32")
    pairs = []
    for repeat in range(repeats):
        order = (True, False) if repeat % 2 == 0 else (False, True)
        by_refill = {refill: _arm(found, study, slots, refill=refill) for refill in order}
        pairs.append((by_refill[True], by_refill[False]))
    return pairs


def _arm(found: Classification, study: StudyDefinition, slots: int, *, refill: bool) -> Arm:
    state = State()
    sampling = Sampling(study, state)
    rules = cast("Any", Classification.HYPERPARAMETERS)
    drawn = [hyperparameters(study, sampling.ask(number), rules) for number in range(study.n_trials)]
    waiting = deque(enumerate(drawn))
    population = found.build(drawn[0], epochs=study.epochs)
    updates = slot_updates = 0
    started = time.perf_counter()
    while waiting or population.slots:
        free = slots - len(population.slots) if refill or not population.slots else 0
        for number, chosen in [waiting.popleft() for _ in range(min(free, len(waiting)))]:
            _admitted(state, number, chosen)
            population.admit(number, hyperparameters=chosen, seed=trial_seed(study.seed, number), fold=None)
        slot_updates += len(population.slots)
        updates += 1
        if done := population.update():
            for number, evaluation in population.evaluate(done).items():
                _reported(state, number, evaluation.metrics)
                population.keep(number)
            population.forget(_ended(state, done, study))
    seconds = time.perf_counter() - started
    return Arm(seconds=seconds, updates=updates, slot_updates=slot_updates, finished=len(state.finished))


def _admitted(state: State, number: int, chosen: Any) -> None:
    asked = TrialAsked(at=0, trial=number, raw={}, hyperparameters=chosen, baseline=number == 0)
    begun = AttemptStarted(at=0, trial=number, attempt=1, trainer=0, device="cpu", structure="", alone=False)
    apply(state, asked)
    apply(state, begun)


def _reported(state: State, number: int, metrics: Any) -> None:
    epoch = len(state.trials[number].reports) + 1
    apply(state, EpochReported(at=0, trial=number, attempt=1, epoch=epoch, metrics=metrics))


def _ended(state: State, numbers: Any, study: StudyDefinition) -> list[int]:
    """Decide as the coordinator does; return the trials that end."""
    decisions = decide(state, numbers, study)
    for number, decision in decisions.items():
        apply(
            state,
            TrialFinished(
                at=0,
                trial=number,
                attempt=1,
                outcome=decision.outcome,
                reason=decision.reason,
                value=decision.value,
                best_epoch=decision.best_epoch,
            ),
        )
    return list(decisions)
