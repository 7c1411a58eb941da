"""Claims of search/landscape.py: dose and response as the trials gave them, and what a budget brings."""

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.definition import baseline_raw
from search.landscape import DoseResponse, dose_response, expected_best, position
from search.space import Bool, Choice, Float, Int, LogFloat, Parameter, PowerOfTwo, is_off
from search.state import State
from tests.searches import random_search, searched
from tests.studies import definition

DEFINITION = definition()


def by_name(found: list[DoseResponse]) -> dict[str, DoseResponse]:
    return {each.name: each for each in found}


# ---------------------------------------------------------------- positions


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (Float(kind="float", low=1.0, high=3.0), 2.5, 0.75),
        (LogFloat(kind="log_float", low=1e-4, high=1e-2), 1e-3, 0.5),
        (Int(kind="int", low=2, high=8, step=2), 2, 0.125),
        (PowerOfTwo(kind="power_of_two", low=32, high=256), 256, 0.875),
        (Choice(kind="choice", choices=("relu", "tanh")), "tanh", 0.75),
        (Bool(kind="bool"), False, 0.25),
    ],
)
def test_position_is_on_the_scale_that_is_drawn(parameter: Parameter, value: Any, expected: float) -> None:
    assert position(parameter, value) == pytest.approx(expected)


# ---------------------------------------------------------------- dose and response


@pytest.fixture(scope="module")
def state() -> State:
    return random_search(DEFINITION, lambda raw: raw["dropout"] - raw["dropout"] ** 2, n=60, noise=0.01, seed=0)


def test_only_declared_regularizers_have_a_dose(state: State) -> None:
    found = dose_response(DEFINITION, state)
    assert [each.name for each in found] == ["weight_decay", "dropout", "batch_norm"]
    assert [each.off for each in found] == [0.0, 0.0, False]
    assert [each.log for each in found] == [True, False, False]
    assert [each.kind for each in found] == ["log_float", "float", "bool"]


def test_points_are_the_effective_values_of_all_trials_with_a_value(state: State) -> None:
    for each in dose_response(DEFINITION, state):
        assert [(p.trial, p.value, p.response) for p in each.points] == [
            (t.number, t.hyperparameters[each.name], t.value) for t in state.trials.values()
        ]


def test_trial_without_a_finite_value_is_no_point_and_a_pruned_one_is() -> None:
    raw = baseline_raw(DEFINITION)
    trials = [(raw, 0.5), (raw, None), (raw, math.nan), (raw, math.inf), (raw, 0.4)]
    ends: Any = {1: ("failed", "error"), 2: ("pruned", "diverged"), 3: ("pruned", "diverged"), 4: ("pruned", "rung")}
    found = dose_response(DEFINITION, searched(DEFINITION, trials, ends=ends))
    assert [(p.trial, p.outcome) for p in found[0].points] == [(0, "complete"), (4, "pruned")]


def test_trend_starts_with_off_and_holds_every_trial_once_in_ascending_order(state: State) -> None:
    for each in dose_response(DEFINITION, state):
        parameter = DEFINITION.space[each.name]
        first, *others = each.trend
        assert first.off
        assert is_off(parameter, first.low)
        assert not any(part.off for part in others)
        assert sum(part.n_trials for part in each.trend) == len(each.points)
        assert all(a.high < b.low for a, b in itertools.pairwise(others))  # type: ignore[operator]


def test_bins_of_a_continuous_dose_are_equally_full_and_their_means_are_their_trials(state: State) -> None:
    dose = by_name(dose_response(DEFINITION, state))["weight_decay"]
    sizes = [part.n_trials for part in dose.trend if not part.off]
    assert len(sizes) == 5
    assert max(sizes) - min(sizes) <= 1
    for part in dose.trend:
        inside = [p.response for p in dose.points if part.low <= p.value <= part.high]  # type: ignore[operator]
        assert part.mean == pytest.approx(statistics.fmean(inside))
        assert part.standard_error == pytest.approx(statistics.stdev(inside) / math.sqrt(len(inside)))


def test_trend_follows_a_known_response(state: State) -> None:
    trend = by_name(dose_response(DEFINITION, state))["dropout"].trend
    means = [part.mean for part in trend]
    assert means[0] == min(means)
    assert max(means) == pytest.approx(0.25, abs=0.02)
    assert means.index(max(means)) >= 4


def test_best_is_the_best_complete_trial() -> None:
    raw = baseline_raw(DEFINITION)
    trials = [(raw, 0.5), (raw | {"dropout": 0.3}, 0.7), (raw | {"dropout": 0.1}, 0.9)]
    found = by_name(dose_response(DEFINITION, searched(DEFINITION, trials, ends={2: ("pruned", "rung")})))
    best = found["dropout"].best
    assert best is not None
    assert (best.trial, best.value, best.response) == (1, 0.3, 0.7)


def test_state_without_a_trial_gives_empty_doses_and_no_curve() -> None:
    assert all(each.points == () and each.trend == () for each in dose_response(DEFINITION, State()))
    assert all(each.best is None for each in dose_response(DEFINITION, State()))
    assert expected_best(DEFINITION, State()) == []


# ---------------------------------------------------------------- what a budget brings


def drawn(values: Sequence[float | None], *, maximize: bool = True, **changes: Any) -> tuple[Any, State]:
    """A study of a baseline, better than all, and trials of these values."""
    study = DEFINITION if maximize else definition(metric="val_loss", direction="minimize")
    raw = baseline_raw(study)
    return study, searched(study, [(raw, 1e9 if maximize else -1e9), *((raw, value) for value in values)], **changes)


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.floats(-10, 10) | st.sampled_from([0.5, 0.25]), min_size=1, max_size=8),
    maximize=st.booleans(),
)
def test_expected_best_is_that_of_all_subsets(values: list[float], maximize: bool) -> None:
    """By brute force: the best of every n of the trials."""
    curve = expected_best(*drawn(values, maximize=maximize))
    assert [each.n_trials for each in curve] == list(range(1, len(values) + 1))
    for each in curve:
        bests = [(max if maximize else min)(some) for some in itertools.combinations(values, each.n_trials)]
        assert each.expected == pytest.approx(statistics.fmean(bests), abs=1e-9)
        inside = sum(each.low <= best <= each.high for best in bests)
        assert inside >= 0.95 * len(bests)
        assert {each.low, each.high} <= set(bests)
        sign = 1 if maximize else -1
        ends = sign * np.quantile(sign * np.array(bests), [0.025, 0.975], method="inverted_cdf")
        assert [each.low, each.high] == sorted(ends)


def test_expected_best_is_unbiased_for_what_further_trials_would_give() -> None:
    """Of 20 uniform numbers, the mean curve over 400 studies is n / (n + 1), the best of n of the distribution."""
    rng = np.random.default_rng(0)
    curves = [
        [each.expected for each in expected_best(*drawn(list(rng.random(20)), epochs=dict.fromkeys(range(21), 0)))]
        for _ in range(400)
    ]
    n = np.arange(1, 21)
    spread = np.std(curves, axis=0) / math.sqrt(400)
    assert (np.abs(np.mean(curves, axis=0) - n / (n + 1)) < 4 * spread).all()


def test_expected_best_never_falls_and_ends_at_the_best() -> None:
    values = [float(v) for v in np.random.default_rng(0).normal(size=300)]
    curve = expected_best(*drawn(values))
    assert curve[0].expected == pytest.approx(statistics.fmean(values))
    assert curve[-1].low == curve[-1].high == curve[-1].expected == max(values)
    assert all(b.expected >= a.expected - 1e-12 for a, b in itertools.pairwise(curve))


def test_budget_in_epochs_is_what_the_trials_trained_those_without_a_value_included() -> None:
    ends: Any = {3: ("failed", "error")}
    curve = expected_best(*drawn([0.1, 0.2, None], ends=ends, epochs={1: 1, 2: 3, 3: 2}))
    assert [(each.n_trials, each.epochs) for each in curve] == [(1, 3.0), (2, 6.0)]
