"""What is said in words, against a linear model and by hand."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.statistics import Comparison, Interval, holm, paired, seeds_needed, simultaneous
from search.verdicts import Candidate, choose, effects, factorial, ranking, verdict

rng = np.random.default_rng


def compared(low: float, high: float) -> Comparison:
    return Comparison(
        difference=(low + high) / 2,
        interval=Interval(low, high),
        seeds_interval=Interval(-1, 1),
        probability=0.5,
        probability_interval=Interval(0, 1),
        detectable=1,
        n_first=13,
        n_second=13,
    )


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((0.1, 0.3), "confirmed"),
        ((0.0, 0.3), "not shown"),
        ((-0.1, 0.3), "not shown"),
        ((-0.3, 0.0), "not shown"),
        ((-0.3, -0.1), "it hurts"),
        ((-math.inf, math.inf), "not shown"),
    ],
)
def test_a_gain_is_confirmed_where_its_interval_lies_above_0(interval: tuple[float, float], said: str) -> None:
    assert verdict(compared(*interval)) == said


def test_ranking_is_by_the_mean_and_then_by_the_order_given() -> None:
    values = {"a": [1.0, 2.0], "b": [3.0, 0.0], "c": [2.0], "d": [math.nan, 9.0]}
    assert ranking(values, maximize=True) == ["c", "a", "b", "d"]
    assert ranking(values, maximize=False) == ["a", "b", "c", "d"]


def candidate(name: str, n_regularizers: int, n_parameters: int) -> Candidate:
    return Candidate(name=name, n_regularizers=n_regularizers, n_parameters=n_parameters)


@pytest.mark.parametrize(
    ("interval", "winner", "runner_up", "taken", "tie", "reason"),
    [
        ((0.1, 0.2), (3, 900), (1, 100), "winner", False, "it is better"),
        ((-0.2, -0.1), (1, 100), (3, 900), "runner-up", False, "it is better"),
        ((-0.1, 0.2), (3, 100), (1, 900), "runner-up", True, "fewer regularizers"),
        ((-0.1, 0.2), (1, 900), (3, 100), "winner", True, "fewer regularizers"),
        ((-0.1, 0.2), (2, 900), (2, 100), "runner-up", True, "fewer parameters"),
        ((-0.1, 0.2), (2, 100), (2, 100), "winner", True, "the better mean"),
    ],
)
def test_a_tie_takes_the_simpler_one(
    interval: tuple[float, float],
    winner: tuple[int, int],
    runner_up: tuple[int, int],
    taken: str,
    tie: bool,
    reason: str,
) -> None:
    found = choose(candidate("winner", *winner), candidate("runner-up", *runner_up), compared(*interval))
    assert (found.name, found.tie, found.reason) == (taken, tie, reason)


# ---------------------------------------------------------------- ablation

WINNER = [0.80, 0.81, 0.79, 0.80, 0.82, 0.80, 0.81, 0.79, 0.80, 0.81]
LUCK = [0.001, -0.001, 0.002, 0.0, -0.002, 0.001, 0.0, -0.001, 0.0, 0.001]
WITHOUT = {
    "dropout": [value - 0.02 - luck for value, luck in zip(WINNER, LUCK, strict=True)],
    "mixup": [value + 0.02 - luck for value, luck in zip(WINNER, LUCK, strict=True)],
    "l1": [value - luck for value, luck in zip(WINNER, LUCK, strict=True)],
    "l2": [value - 12 * luck for value, luck in zip(WINNER, LUCK, strict=True)],
}


def test_each_regularizer_gets_the_label_its_seeds_allow() -> None:
    found = effects(WINNER, WITHOUT, maximize=True, margin=0.005)
    assert {name: effect.label for name, effect in found.items()} == {
        "dropout": "helps",
        "mixup": "hurts",
        "l1": "equivalent",
        "l2": "no evidence",
    }
    assert [effect.name for effect in found.values()] == list(found) == list(WITHOUT)
    assert found["dropout"].paired.mean == pytest.approx(0.0201)


def test_effects_are_paired_tests_adjusted_over_all_of_them() -> None:
    found = effects(WINNER, WITHOUT, maximize=True, margin=0.005)
    tests = {name: paired(list(np.subtract(WINNER, others))) for name, others in WITHOUT.items()}
    adjusted = holm([test.p_value for test in tests.values()])
    for (name, test), p_value in zip(tests.items(), adjusted, strict=True):
        assert found[name].p_value == pytest.approx(p_value)
        assert found[name].paired.interval.low == pytest.approx(test.interval.low)
        wide = simultaneous(list(np.subtract(WINNER, WITHOUT[name])), n_intervals=4)
        assert found[name].interval.high == pytest.approx(wide.high)


def test_no_evidence_says_how_many_seeds_would_see_the_margin() -> None:
    found = effects(WINNER, WITHOUT, maximize=True, margin=0.005)
    deviation = float(np.std(12 * np.array(LUCK), ddof=1))
    assert found["l2"].seeds_needed == seeds_needed(deviation, effect=0.005)
    assert all(found[name].seeds_needed is None for name in ("dropout", "mixup", "l1"))


def test_of_a_loss_less_is_better() -> None:
    negative = {name: [-value for value in others] for name, others in WITHOUT.items()}
    there = effects([-value for value in WINNER], negative, maximize=False, margin=0.005)
    assert there == effects(WINNER, WITHOUT, maximize=True, margin=0.005)


def test_a_training_that_diverged_leaves_its_seed_out() -> None:
    found = effects([0.8, 0.9, 0.7], {"a": [0.7, math.nan, 0.65], "b": [math.nan] * 3}, maximize=True, margin=0.01)
    assert found["a"].paired.n == 2
    assert found["a"].paired.mean == pytest.approx(0.075)
    assert (found["b"].paired.n, found["b"].label) == (0, "no evidence")


def test_rounding_is_no_effect() -> None:
    """0.9 - 0.8 and 0.8 - 0.7 differ by 1e-16, for each seed."""
    values = {"": 0.7, "a": 0.8, "b": 0.8, "ab": 0.9}
    found = factorial({frozenset(key): [value] * 4 for key, value in values.items()}, maximize=True, margin=0.01)
    assert found[frozenset("ab")].paired.mean == 0
    assert found[frozenset("ab")].label == "equivalent"
    assert found[frozenset("a")].label == "helps"


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(2, 5), st.integers(0, 1000), st.booleans())
def test_factorial_is_the_regression_on_levels_of_plus_and_minus_one(
    k: int, n_seeds: int, seed: int, maximize: bool
) -> None:
    """An effect is twice the coefficient of the product of its columns, seed by seed."""
    names = "abc"[:k]
    levels = np.array(list(product([-1, 1], repeat=k)))
    values = rng(seed).normal(size=(len(levels), n_seeds))
    subsets = [frozenset(name for name, level in zip(names, row, strict=True) if level > 0) for row in levels]
    found = factorial(
        {subset: list(row) for subset, row in zip(subsets, values, strict=True)}, maximize=maximize, margin=0.1
    )
    columns = {
        subset: np.prod([levels[:, names.index(name)] for name in subset] or [np.ones(len(levels))], axis=0)
        for subset in subsets
    }
    fitted, *_ = np.linalg.lstsq(np.stack(list(columns.values()), axis=1), values, rcond=None)
    assert set(found) == set(subsets) - {frozenset()}
    for subset, coefficients in zip(columns, fitted, strict=True):
        if subset:
            expected = 2 * (1 if maximize else -1) * coefficients
            assert found[subset].paired.mean == pytest.approx(expected.mean())
            assert found[subset].paired.deviation == pytest.approx(expected.std(ddof=1))
    assert [effect.p_value for effect in found.values()] == pytest.approx(
        holm([effect.paired.p_value for effect in found.values()])
    )


def test_a_regularizer_that_helps_only_with_another_is_an_interaction() -> None:
    noise = rng(0).normal(scale=0.001, size=(4, 10))
    base = {"": 0.7, "dropout": 0.7, "mixup": 0.7, "dropout mixup": 0.74}
    values = {frozenset(key.split()): list(mean + noise[i]) for i, (key, mean) in enumerate(base.items())}
    found = factorial(values, maximize=True, margin=0.005)[frozenset({"dropout", "mixup"})]
    assert (found.name, found.label) == ("dropout × mixup", "helps")
    assert found.paired.mean == pytest.approx(0.02, abs=0.002)


def test_a_factorial_with_a_gap_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs all 4 subsets, not given: \[\['b'\]\]"):
        factorial({frozenset(): [1], frozenset("a"): [1], frozenset("ab"): [1]}, maximize=True, margin=0.1)


def test_no_regularizer_has_no_effect_to_label() -> None:
    assert effects([0.1], {}, maximize=True, margin=0.1) == {}
    assert factorial({frozenset(): [0.1]}, maximize=True, margin=0.1) == {}
