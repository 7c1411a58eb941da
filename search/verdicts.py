"""What comparisons and ablations say in words: does it help, which one to take, what each regularizer does (pure).

Values are a metric, one per seed. A value that is not finite (a training that diverged) is worse than any other in a
ranking; in an ablation, its seed is left out of the effects that need it, and their n says so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from search.statistics import (
    TINY,
    Comparison,
    Interval,
    Paired,
    equivalent,
    holm,
    paired,
    seeds_needed,
    simultaneous,
)

Verdict = Literal["confirmed", "not shown", "it hurts"]
Label = Literal["helps", "hurts", "equivalent", "no evidence"]
Reason = Literal["it is better", "fewer regularizers", "fewer parameters", "the better mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What may be taken."""

    name: str
    n_regularizers: int
    """Active ones."""
    n_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    name: str
    tie: bool
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a regularizer does, positive where it makes the metric better."""

    name: str
    paired: Paired
    """Its interval is this effect's alone, at 95 %; its p-value is not adjusted."""
    interval: Interval
    """All effects lie in theirs at once with 95 % (Bonferroni)."""
    p_value: float
    """Adjusted over all effects (Holm)."""
    label: Label
    seeds_needed: int | None
    """To see an effect as large as the margin, alone, with 80 % power; None but for "no evidence"."""


def verdict(comparison: Comparison) -> Verdict:
    """Return whether the first is better, by the interval over seeds and examples."""
    if comparison.interval.low > 0:
        return "confirmed"
    return "it hurts" if comparison.interval.high < 0 else "not shown"


def ranking(values: Mapping[str, Sequence[float]], *, maximize: bool) -> list[str]:
    """Return the names, the best mean over seeds first; equal ones in the order given."""

    def cost(name: str) -> float:
        mean = math.fsum(values[name]) / len(values[name]) if all(map(math.isfinite, values[name])) else math.nan
        return math.inf if math.isnan(mean) else -mean if maximize else mean

    return sorted(values, key=cost)


def choose(winner: Candidate, runner_up: Candidate, comparison: Comparison) -> Choice:
    """Return which one to take, given the winner against the runner-up.

    The better one, be it the runner-up; on a tie (the interval holds 0) the one with fewer active regularizers, then
    with fewer parameters, then the winner.
    """
    if 0 not in comparison.interval:
        better = winner if comparison.interval.low > 0 else runner_up
        return Choice(name=better.name, tie=False, reason="it is better")
    if winner.n_regularizers != runner_up.n_regularizers:
        simpler = min(winner, runner_up, key=lambda each: each.n_regularizers)
        return Choice(name=simpler.name, tie=True, reason="fewer regularizers")
    if winner.n_parameters != runner_up.n_parameters:
        simpler = min(winner, runner_up, key=lambda each: each.n_parameters)
        return Choice(name=simpler.name, tie=True, reason="fewer parameters")
    return Choice(name=winner.name, tie=True, reason="the better mean")


# ---------------------------------------------------------------- ablation


def effects(
    winner: Sequence[float], without: Mapping[str, Sequence[float]], *, maximize: bool, margin: float
) -> dict[str, Effect]:
    """Return what each regularizer does in the winner: the winner minus the winner without it, seed by seed.

    "helps" and "hurts" where the adjusted p-value is below 0.05, however small the effect; else "equivalent" where two
    one-sided tests at 5 % each, not adjusted, place it within the margin; else "no evidence".

    Args:
        winner: one value per seed.
        without: by regularizer, in the same order of seeds.
        margin: in the units of the metric, positive.
    """
    sign = 1 if maximize else -1
    contrasts = {
        name: [_snapped([sign * own, -sign * other]) for own, other in zip(winner, others, strict=True)]
        for name, others in without.items()
    }
    return dict(zip(contrasts, _labelled(contrasts, margin=margin), strict=True))


def factorial(
    values: Mapping[frozenset[str], Sequence[float]], *, maximize: bool, margin: float
) -> dict[frozenset[str], Effect]:
    """Return the main effects and all interactions of a full factorial, seed by seed; labels as in `effects`.

    A main effect is the mean with a regularizer minus that without it, over all sets of the others. An interaction of
    two is half of what one's effect gains from the other (of three: half of what an interaction of two gains from the
    third), so that all have the same variance; positive: together they do more than apart.

    Args:
        values: one value per seed by set of active regularizers; each subset of them all, the empty one included.

    Raises:
        ValueError: a subset is missing.

    Source: Yates (1937), "The design and analysis of factorial experiments".
    """
    names = sorted(frozenset().union(*values))
    subsets = [frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(names, size)]
    if missing := [sorted(each) for each in subsets if each not in values]:
        raise ValueError(f"a full factorial of {names} needs all {len(subsets)} subsets, not given: {missing}")
    sign = (1 if maximize else -1) * 2 / len(subsets)
    contrasts = {
        " × ".join(sorted(chosen)): [
            _snapped([sign * (-1) ** len(chosen - each) * value for each, value in zip(subsets, row, strict=True)])
            for row in zip(*(values[each] for each in subsets), strict=True)
        ]
        for chosen in subsets[1:]
    }
    return dict(zip(subsets[1:], _labelled(contrasts, margin=margin), strict=True))


def _labelled(contrasts: Mapping[str, Sequence[float]], *, margin: float) -> list[Effect]:
    finite = {name: [each for each in values if math.isfinite(each)] for name, values in contrasts.items()}
    tests = {name: paired(values) for name, values in finite.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    return [
        _effect(name, finite[name], test, p_value=p_value, n_effects=len(tests), margin=margin)
        for (name, test), p_value in zip(tests.items(), adjusted, strict=True)
    ]


def _effect(
    name: str, values: Sequence[float], test: Paired, *, p_value: float, n_effects: int, margin: float
) -> Effect:
    label: Label = "no evidence"
    if p_value < 0.05:
        label = "helps" if test.mean > 0 else "hurts"
    elif equivalent(values, margin=margin):
        label = "equivalent"
    return Effect(
        name=name,
        paired=test,
        interval=simultaneous(values, n_intervals=n_effects),
        p_value=p_value,
        label=label,
        seeds_needed=seeds_needed(test.deviation, effect=margin) if label == "no evidence" else None,
    )


def _snapped(terms: Iterable[float]) -> float:
    """The sum of the terms; 0 where it is rounding, which paired tests would take for a certain effect."""
    terms = list(terms)
    if not all(map(math.isfinite, terms)):
        return math.nan
    total = math.fsum(terms)
    return total if abs(total) > TINY * max(map(abs, terms)) else 0.0
