"""Warnings on a study's space: what should be known before its best trial is believed, in plain sentences. Pure."""

import math
from collections.abc import Iterator, Sequence
from statistics import median

import numpy as np

from search.definition import StudyDefinition
from search.landscape import number, with_value
from search.result import shown, told
from search.space import Bool, Choice, Float, Int, LogFloat, PowerOfTwo, is_off, options
from search.state import State, Trial

IMPORTANCE_FROM = 50
"""Trials from which on importances are more than a hint."""
PER_PARAMETER = 10
"""Trials a parameter of the space that a study should have: the usual rule of a regression."""
NEAR_BOUND = 0.05
"""Of the range, on the parameter's own scale."""
N_WITNESSES = 5
"""The best trials that are asked whether they lie at a bound as well: one alone may by chance, above all where a
parameter has few values."""
TOO_MANY_INFEASIBLE = 0.25


def warnings(definition: StudyDefinition, state: State) -> list[str]:
    """Return what should be known before the space's result is trusted: where, what was found, what to do.

    An end of a range is taken for a natural one, and not warned of, where it turns a regularizer off, where it is 0,
    and where it is 1 of a float, as of a fraction.
    """
    return [
        *_unbeaten_baseline(definition, state),
        *_near_bounds(definition, state),
        *_infeasible(definition, state),
        *_too_few(definition, state),
    ]


def _unbeaten_baseline(definition: StudyDefinition, state: State) -> Iterator[str]:
    baseline, ranked = state.baseline, state.ranked(maximize=definition.maximize)
    others = [trial for trial in state.finished if not trial.baseline]
    if baseline is None or baseline.outcome is None or not others:
        return
    if baseline.outcome != "complete" or baseline.value is None:
        how = "diverged" if baseline.reason == "diverged" else "failed"
        yield (
            f"baseline: trial {baseline.number} {how}, so no gain can be told. "
            "Correct [baseline], for instance with a lower learning rate, and run the study under another name."
        )
    elif not ranked or ranked[0].baseline:
        yield (
            f"baseline: none of {len(others)} trials beat its {definition.metric} of "
            f"{told(definition.metric, baseline.value)}. Raise n_trials, or change the space: its ranges may not hold "
            "what helps, or nothing in it does."
        )


def _near_bounds(definition: StudyDefinition, state: State) -> Iterator[str]:
    witnesses = state.ranked(maximize=definition.maximize)[:N_WITNESSES]
    if not witnesses or witnesses[0].baseline:
        return
    best = witnesses[0]
    for name, parameter in definition.space.items():
        if isinstance(parameter, Bool | Choice) or len(options(parameter)) == 2:
            continue
        value = number(best.hyperparameters[name])
        if is_off(parameter, value):
            continue
        for end, bound in (("low", parameter.low), ("high", parameter.high)):
            if _near(parameter, value, bound) and not _natural(parameter, end):
                agree = sum(_near(parameter, number(each.raw[name]), bound) for each in witnesses)
                yield (
                    f"space.{name}: the best trial, {best.number}, has {shown(value)}, {_at(value, bound)} {end} = "
                    f"{shown(bound)} (of the best {len(witnesses)} trials: {agree}), so better values may lie beyond. "
                    f"{_widened(parameter, end)}, and run the study under another name."
                )


def _near(parameter: Float | LogFloat | Int | PowerOfTwo, value: float, bound: float) -> bool:
    match parameter:
        case LogFloat() | PowerOfTwo():
            return abs(math.log(value / bound)) <= NEAR_BOUND * math.log(parameter.high / parameter.low)
        case _:
            return abs(value - bound) <= NEAR_BOUND * (parameter.high - parameter.low)


def _natural(parameter: Float | LogFloat | Int | PowerOfTwo, end: str) -> bool:
    bound = parameter.low if end == "low" else parameter.high
    if isinstance(parameter, LogFloat) and parameter.off_below is not None and end == "low":
        return True
    return (
        bound == 0
        or (bound == 1 and isinstance(parameter, Float) and end == "high")
        or (bound == 1 and isinstance(parameter, PowerOfTwo) and end == "low")
        or (parameter.regularizer and bound == parameter.off)
    )


def _at(value: float, bound: float) -> str:
    return "which is" if value == bound else "within 5 % of"


def _widened(parameter: Float | LogFloat | Int | PowerOfTwo, end: str) -> str:
    """Half as much range again, or one more power of two; of a range within 0 to 1 at most half of what is left of it,
    and no number where positive values would end at 0 or below.
    """
    low, high = parameter.low, parameter.high
    match parameter:
        case PowerOfTwo():
            beyond: float = low // 2 if end == "low" else high * 2
        case LogFloat():
            more = math.sqrt(high / low)
            beyond = low / more if end == "low" else high * more
        case Int(step=step):
            more = max(1, (high - low) // step // 2) * step
            beyond = low - more if end == "low" else high + more
        case Float():
            more = (high - low) / 2
            left = (1 - high) / 2 if low >= 0 and high < 1 else more
            beyond = low - more if end == "low" else high + min(more, left)
    verb = "Lower" if end == "low" else "Raise"
    if low > 0 >= beyond:
        return f"{verb} {end}, if the objective accepts it"
    return f"{verb} {end}, for instance to {beyond:.2g}" if isinstance(beyond, float) else f"{verb} {end} to {beyond}"


def _infeasible(definition: StudyDefinition, state: State) -> Iterator[str]:
    finished = [trial for trial in state.finished if not trial.baseline]
    bad = [trial for trial in finished if _is_infeasible(trial)]
    if len(bad) <= TOO_MANY_INFEASIBLE * len(finished):
        return
    good = [trial for trial in finished if not _is_infeasible(trial)]
    n_failed = sum(trial.outcome == "failed" for trial in bad)
    counts = {"diverged": len(bad) - n_failed, "failed": n_failed}
    causes = [f"{count} {word}" for word, count in counts.items() if count]
    yield (
        f"space: {len(bad)} of {len(finished)} trials ended without a usable network ({', '.join(causes)}). "
        f"{_shrunk(definition, bad, good)}"
    )


def _is_infeasible(trial: Trial) -> bool:
    return trial.outcome == "failed" or trial.reason == "diverged"


def _shrunk(definition: StudyDefinition, bad: Sequence[Trial], good: Sequence[Trial]) -> str:
    """What to do, by the parameter that tells the two apart best, if one does in four of five pairs."""
    apart = {
        name: _above(bad, good, name)
        for name, parameter in definition.space.items()
        if good and not isinstance(parameter, Bool | Choice)
    }
    name = max(apart, key=lambda each: abs(apart[each] - 0.5), default="")
    if not name or abs(apart[name] - 0.5) < 0.3:
        return "Shrink the ranges around the trials that trained, or correct what fails."
    way, verb, end = ("high", "Lower", "high") if apart[name] > 0.5 else ("low", "Raise", "low")
    theirs, others = (median([number(t.raw[name]) for t in each]) for each in (bad, good))
    return (
        f"They lie {way} in {name} (a median of {shown(theirs)} against {shown(others)} of the others). "
        f"{verb} space.{name}.{end}, and run the study under another name."
    )


def _above(some: Sequence[Trial], others: Sequence[Trial], name: str) -> float:
    """How often a trial of the first has a greater value than one of the second, over all pairs; half of equals."""
    a, b = (np.array([number(trial.raw[name]) for trial in each], dtype=float) for each in (some, others))
    return float(np.mean((a[:, None] > b) + 0.5 * (a[:, None] == b)))


def _too_few(definition: StudyDefinition, state: State) -> Iterator[str]:
    n_values, n_parameters = len(with_value(state)), len(definition.space)
    wanted = max(IMPORTANCE_FROM, PER_PARAMETER * n_parameters)
    if n_values >= wanted or definition.sampler == "grid":
        return
    worth = (
        f"fewer than the {IMPORTANCE_FROM} from which on importances are more than a hint"
        if n_values < IMPORTANCE_FROM
        else f"few for {n_parameters} parameters, of which a strong one is found and a weak one is not"
    )
    n_trials = math.ceil(wanted * max(1.0, len(state.finished) / max(n_values, 1)))
    do = f"Raise n_trials to {n_trials}" if n_trials > definition.n_trials else "Let the study go on"
    yield (
        f"n_trials: {n_values} trials have a value, {worth}. "
        f"{do}: {PER_PARAMETER} a parameter should have one, and at least {IMPORTANCE_FROM}."
    )
