"""States of searches whose truth is known: trials at given points of a space, with given values, nothing trained."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from search import space
from search.contract import Value
from search.definition import StudyDefinition, baseline_raw
from search.events import AttemptStarted, EpochReported, Event, Outcome, Reason, TrialAsked, TrialFinished
from search.state import State, fold
from tests.studies import definition


def study(parameters: Mapping[str, Any], baseline: Mapping[str, Value], **changes: Any) -> StudyDefinition:
    """A definition with this space."""
    return definition(space=dict(parameters), baseline=dict(baseline), **changes)


def uniform(parameter: space.Parameter, rng: np.random.Generator) -> Value:
    """A raw value, as a random search draws it."""
    if listed := space.options(parameter):
        return listed[int(rng.integers(len(listed)))]
    assert isinstance(parameter, space.Float | space.LogFloat)
    if isinstance(parameter, space.LogFloat):
        return float(parameter.low * (parameter.high / parameter.low) ** rng.random())
    return float(rng.uniform(parameter.low, parameter.high))


def random_search(
    definition: StudyDefinition, truth: Callable[[Mapping[str, Any]], float], *, n: int, noise: float = 0.0, seed: int
) -> State:
    """The baseline and n - 1 random points, all complete: `truth` gives the value of raw parameters."""
    rng = np.random.default_rng(seed)
    raws = [
        baseline_raw(definition),
        *({name: uniform(p, rng) for name, p in definition.space.items()} for _ in range(n - 1)),
    ]
    return searched(definition, [(raw, truth(raw) + noise * rng.standard_normal()) for raw in raws])


def searched(
    definition: StudyDefinition,
    trials: Sequence[tuple[Mapping[str, Value], float | None]],
    *,
    ends: Mapping[int, tuple[Outcome, Reason]] | None = None,
    epochs: Mapping[int, int] | None = None,
) -> State:
    """A study of these raw parameters and values; trial 0 is the baseline.

    Args:
        ends: how some trials ended that are not complete.
        epochs: what some trials trained that did not train to their last epoch.
    """
    events: list[Event] = []
    for number, (raw, value) in enumerate(trials):
        outcome, reason = (ends or {}).get(number, ("complete", "epochs"))
        effective = space.effective(definition.space, raw)
        last = (epochs or {}).get(number, definition.epochs)
        events += [
            TrialAsked(at=0, trial=number, raw=raw, hyperparameters=effective, baseline=number == 0),
            AttemptStarted(at=1, trial=number, attempt=1, trainer=0, device="cpu", structure="", alone=False),
            *(EpochReported(at=2, trial=number, attempt=1, epoch=epoch, metrics={}) for epoch in range(last + 1)),
            TrialFinished(
                at=3, trial=number, attempt=1, outcome=outcome, reason=reason, value=value, best_epoch=last or None
            ),
        ]
    return fold(events)
