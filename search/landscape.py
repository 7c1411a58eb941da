"""What a study's trials say of its space: each regularizer's dose and response, and what a budget brings. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from search.contract import Value
from search.definition import StudyDefinition
from search.events import Outcome
from search.result import epochs_of
from search.space import Float, LogFloat, Parameter, PowerOfTwo, is_off, options
from search.state import State, Trial

N_BINS = 5
"""A continuous regularizer's bins where it is on: 40 trials fill them with some six each."""
ROUNDING = 1e-12
"""Of a sum of chances."""


def with_value(state: State) -> list[Trial]:
    """The trials that have an outcome and a finite value, the baseline among them, by number."""
    return [trial for trial in state.finished if trial.value is not None and math.isfinite(trial.value)]


def position(parameter: Parameter, value: Value) -> float:
    """Where a raw value lies in its range, 0 to 1, on the scale on which it is drawn.

    One of finitely many values has the middle of its own part: the first of four lies at 1/8.
    """
    if listed := options(parameter):
        return (listed.index(value) + 0.5) / len(listed)
    assert isinstance(parameter, Float | LogFloat)
    if isinstance(parameter, LogFloat):
        return math.log(number(value) / parameter.low) / math.log(parameter.high / parameter.low)
    return (number(value) - parameter.low) / (parameter.high - parameter.low)


def number(value: Value) -> int | float:
    """The value of a parameter that has a scale."""
    assert isinstance(value, int | float)
    return value


# ---------------------------------------------------------------- dose and response


@dataclass(frozen=True, slots=True, kw_only=True)
class Dose:
    """One trial."""

    value: Value
    """Of the regularizer, as it was trained."""
    response: float
    """The trial's value."""
    outcome: Outcome
    trial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Trials of like dose."""

    low: Value
    high: Value
    """The smallest and the greatest dose among them; of a choice both are that one."""
    off: bool
    mean: float
    standard_error: float | None
    """None for a single trial."""
    n_trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseResponse:
    """What trials gave at each strength of one regularizer."""

    name: str
    kind: str
    log: bool
    """Whether its strengths belong on a logarithmic scale, on which 0 has no place."""
    off: Value
    points: tuple[Dose, ...]
    trend: tuple[Bin, ...]
    """Off first, then by dose."""
    best: Dose | None
    """The best complete trial's."""


def dose_response(definition: StudyDefinition, state: State) -> list[DoseResponse]:
    """Return what each declared regularizer's strength gave, over all trials with an outcome and a finite value.

    The trend is the mean of bins: one of the trials that have it off, and of the others one a value where there are
    finitely many, otherwise quantiles, N_BINS of about equally many trials. It is marginal: the trials of a bin differ
    in everything else as well, and the sampler tried more where it was promising, so it shows where to look, not what
    a strength does (that is what an ablation is for). Pruned trials count with the best value that they had, which
    pulls the trend down where many were pruned; their outcome is told, so that they can be drawn apart.
    """
    trials = with_value(state)
    best = next(iter(state.ranked(maximize=definition.maximize)), None)
    found = []
    for name, parameter in definition.space.items():
        if not parameter.regularizer:
            continue
        points = tuple(_dose(trial, name) for trial in trials)
        found.append(
            DoseResponse(
                name=name,
                kind=parameter.kind,
                log=isinstance(parameter, LogFloat | PowerOfTwo),
                off=_off(parameter),
                points=points,
                trend=tuple(_trend(parameter, points)),
                best=None if best is None else next((each for each in points if each.trial == best.number), None),
            )
        )
    return found


def _dose(trial: Trial, name: str) -> Dose:
    assert trial.value is not None
    assert trial.outcome is not None
    return Dose(value=trial.hyperparameters[name], response=trial.value, outcome=trial.outcome, trial=trial.number)


def _off(parameter: Parameter) -> Value:
    if isinstance(parameter, LogFloat) and parameter.off_below is not None:
        return 0.0
    assert parameter.off is not None
    return parameter.off


def _trend(parameter: Parameter, points: Sequence[Dose]) -> Iterator[Bin]:
    if off := [point for point in points if is_off(parameter, point.value)]:
        yield _bin(off, off=True)
    on = [point for point in points if not is_off(parameter, point.value)]
    if listed := options(parameter):
        for value in listed:
            if same := [point for point in on if point.value == value]:
                yield _bin(same)
    else:
        on.sort(key=lambda point: number(point.value))
        for part in np.array_split(np.arange(len(on)), N_BINS):
            if len(part):
                yield _bin([on[i] for i in part])


def _bin(points: Sequence[Dose], *, off: bool = False) -> Bin:
    responses = [point.response for point in points]
    return Bin(
        low=points[0].value,
        high=points[-1].value,
        off=off,
        mean=fmean(responses),
        standard_error=stdev(responses) / math.sqrt(len(responses)) if len(responses) > 1 else None,
        n_trials=len(responses),
    )


# ---------------------------------------------------------------- what a budget brings


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedBest:
    """Of a search of so many trials."""

    n_trials: int
    epochs: float
    """What they train, summed: the mean of this study's trials, those included that ended without a value."""
    expected: float
    low: float
    high: float
    """In 95 % of such searches the best lies from low to high, both inclusive."""


def expected_best(definition: StudyDefinition, state: State) -> list[ExpectedBest]:
    """Return the best value to expect of 1, 2, ... trials, up to as many as this study has with a finite value.

    It is the exact mean, and 2.5th and 97.5th percentile, of the best of n of this study's trials, drawn without
    replacement (unbiased, where drawing with replacement, as Dodge et al. do, expects too little). The baseline, which
    is not drawn, is left out. It takes the trials for exchangeable: a sampler that learns found its better ones late,
    so the curve rises earlier than its own did. At the end low = expected = high, since all were drawn: the curve says
    nothing of other searches as long as this one.

    Source: Dodge et al. (2019), "Show your work"; Tang et al. (2020), "Showing your work doesn't always work".
    """
    drawn = [trial for trial in state.finished if not trial.baseline]
    values = np.array([t.value for t in with_value(state) if not t.baseline], dtype=float)
    size = len(values)
    if not size:
        return []
    ascending = np.sort(values if definition.maximize else -values)
    epochs = sum(epochs_of(trial) for trial in drawn) / size
    rank = np.arange(1, size + 1)
    chance = np.full(size, 1 / size)  # that the best of n is the one of this rank: C(rank - 1, n - 1) / C(size, n)
    found = []
    for n in rank:
        ends = np.searchsorted(np.cumsum(chance), [0.025 - ROUNDING, 0.975 - ROUNDING])
        low, expected, high = (float(x) for x in (ascending[ends[0]], chance @ ascending, ascending[ends[1]]))
        if not definition.maximize:
            low, expected, high = -high, -expected, -low
        found.append(ExpectedBest(n_trials=int(n), epochs=float(n * epochs), expected=expected, low=low, high=high))
        if n < size:
            chance *= np.maximum(rank - n, 0) / n * (n + 1) / (size - n)
            chance /= chance.sum()  # rounding adds up, and may tell the last expected value one digit below the best
    return found
