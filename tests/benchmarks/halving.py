"""Successive halving with refill against the same engine without: how long the same trials take.

Both arms decide with search.pruning, as the coordinator does; one process on one core.
"""

from collections.abc import Mapping
from typing import Any, cast

from objectives.classification import Classification
from search.contract import Value
from search.definition import StudyDefinition, hyperparameters
from search.events import AttemptStarted, EpochReported, TrialAsked, TrialFinished
from search.pruning import decide
from search.sampling import Sampling
from search.state import State, apply
from tests.benchmarks.engine import Arm, Ending, objective, race
from tests.benchmarks.fused import definition
from tests.benchmarks.sides import Places
from tests.benchmarks.workloads import Workload

EPOCHS, ETA = 27, 3


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
    found, sampling = objective(workload, places, precision="float32"), Sampling(study, State())
    rules = cast("Any", Classification.HYPERPARAMETERS)
    trials = [hyperparameters(study, sampling.ask(number), rules) for number in range(n_trials)]
    pairs = []
    for repeat in range(repeats):
        by_refill = {
            refill: race(found, trials, slots, epochs=EPOCHS, refill=refill, ending=deciding(study, trials))
            for refill in ((True, False) if repeat % 2 == 0 else (False, True))
        }
        pairs.append((by_refill[True], by_refill[False]))
    return pairs


def deciding(study: StudyDefinition, trials: list[dict[str, Value]]) -> Ending:
    """Which trials end, from a state that is told of every report."""
    state = State()
    for number, chosen in enumerate(trials):
        apply(state, TrialAsked(at=0, trial=number, raw={}, hyperparameters=chosen, baseline=number == 0))
        apply(
            state,
            AttemptStarted(at=0, trial=number, attempt=1, trainer=0, device="cpu", structure="", alone=False),
        )

    def ended(accuracies: Mapping[int, float]) -> list[int]:
        for number, value in accuracies.items():
            epoch, metrics = len(state.trials[number].reports) + 1, {study.metric: value}
            apply(state, EpochReported(at=0, trial=number, attempt=1, epoch=epoch, metrics=metrics))
        decisions = decide(state, accuracies.keys(), study)
        for number, decision in decisions.items():
            finished = TrialFinished(
                at=0,
                trial=number,
                attempt=1,
                outcome=decision.outcome,
                reason=decision.reason,
                value=decision.value,
                best_epoch=decision.best_epoch,
            )
            apply(state, finished)
        return list(decisions)

    return ended
