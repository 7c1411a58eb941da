"""Phases of a study whose truth is known: a plan is followed to its end, and a function says what each run reaches."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from search.contract import Value
from search.definition import StudyDefinition
from search.events import (
    AttemptStarted,
    EpochReported,
    Event,
    NetworkTested,
    TestSetUsed,
    TrialAsked,
    TrialFinished,
    in_phase,
)
from search.planned import Plan
from search.state import State, Trial, apply

Truth = Callable[[Trial], float | None]
"""A run's value."""


def follow(
    definition: StudyDefinition,
    search: State,
    phase: str,
    plan: Plan,
    truth: Truth,
    *,
    tested: str = "",
    run_s: float = 1.0,
    n_parameters: Callable[[str], int] = lambda name: 100,
) -> State:
    """Train the phase, one run after another on one trainer, and fold it into the search; return the phase's state.

    Args:
        tested: the stage whose runs are measured on the test set; the test metric equals the value.
        run_s: how long a run takes.
        n_parameters: of a configuration.
    """
    clock = count(1000)

    def record(*events: Event) -> None:
        for event in events:
            apply(search, in_phase(event, phase))

    state = search.phases.setdefault(phase, State(created=search.created))
    while (stage := plan(state)) is not None:
        runs = [(name, seed) for name in stage.configurations for seed in stage.seeds]
        record(stage)
        for name, seed in runs:
            at, number = next(clock) * run_s, len(state.trials)
            values: dict[str, Value] = dict(stage.configurations[name])
            asked = TrialAsked(
                at=at, trial=number, raw=values, hyperparameters=values, baseline=False, stage=stage.stage
            )
            record(
                replace(asked, configuration=name, seeds=(seed,)),
                AttemptStarted(at=at, trial=number, attempt=1, trainer=0, device="cpu", structure="", alone=False),
            )
            value = truth(state.trials[number])
            metrics = {} if value is None else {definition.metric: value}
            record(
                EpochReported(at=at + run_s, trial=number, attempt=1, epoch=definition.epochs, metrics=metrics),
                TrialFinished(
                    at=at + run_s,
                    trial=number,
                    attempt=1,
                    outcome="complete",
                    reason="epochs",
                    value=value,
                    best_epoch=None if value is None else definition.epochs,
                    n_parameters=n_parameters(name),
                ),
            )
    if tested:
        record(TestSetUsed(at=next(clock) * run_s, purpose=phase, checksum=""))
        record(*(_tested(definition, run) for run in state.trials.values() if run.stage == tested and run.value))
    return state


def _tested(definition: StudyDefinition, run: Trial) -> NetworkTested:
    assert run.value is not None
    return NetworkTested(
        at=0,
        trial=run.number,
        metrics={definition.metric.replace("val_", "test_"): run.value},
        predictions="",
        sha256="",
        checksum="7e57",
        n_examples=1000,
    )
