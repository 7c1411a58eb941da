"""Intervals, comparisons and power against scipy's, against brute force, and by how often they cover what is true."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from search.statistics import (
    MOST_SEEDS,
    Comparison,
    Interval,
    calibration,
    compare,
    crossed_error,
    equivalent,
    holm,
    paired,
    power,
    proportion,
    seeds_needed,
    simultaneous,
    summary,
    welch,
)
from tests.images import losses, predictions

Floats = NDArray[np.float64]

rng = np.random.default_rng
DIFFERENCES = [0.3, -0.1, 0.8, 0.4, 0.5, 0.2]


def finite(*values: float) -> bool:
    return not any(math.isnan(value) for value in values)


def ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def numbers(comparison: Comparison) -> list[float]:
    intervals = (comparison.interval, comparison.seeds_interval, comparison.probability_interval)
    alone = [comparison.difference, comparison.probability, comparison.detectable]
    return alone + [end for interval in intervals for end in ends(interval)]


# ---------------------------------------------------------------- comparing


def test_the_interval_over_seeds_is_welchs() -> None:
    first, second = rng(0).normal(size=(13, 30)), rng(1).normal(0.2, 2, size=(8, 30))
    reference = stats.ttest_ind(first.mean(axis=1), second.mean(axis=1), equal_var=False).confidence_interval()
    assert ends(compare(first, second, seed=0).seeds_interval) == pytest.approx(tuple(reference))


def test_the_standard_error_is_that_of_the_variance_components_of_a_two_way_analysis() -> None:
    """Each component estimated on its own, by expected mean squares, for one side and for two."""
    first, second = rng(0).normal(size=(5, 1)) + rng(1).normal(size=(5, 40)), rng(2).normal(size=(7, 40))
    first = first + 2 * rng(3).normal(size=40)

    def components(scores: Floats) -> tuple[float, float, float]:
        n_seeds, n = scores.shape
        rest = sum(
            (scores[s, i] - scores[s].mean() - scores[:, i].mean() + scores.mean()) ** 2
            for s in range(n_seeds)
            for i in range(n)
        ) / ((n_seeds - 1) * (n - 1))
        seeds = (n * scores.mean(axis=1).var(ddof=1) - rest) / n
        return seeds, (n_seeds * scores.mean(axis=0).var(ddof=1) - rest) / n_seeds, rest

    seeds, examples, rest = components(first)
    assert crossed_error(first)[0] ** 2 == pytest.approx(seeds / 5 + examples / 40 + rest / (5 * 40))
    others, _, other_rest = components(second)
    shared = (first.mean(axis=0) - second.mean(axis=0)).var(ddof=1) - rest / 5 - other_rest / 7
    noise = rest / (5 * 40) + other_rest / (7 * 40)
    expected = seeds / 5 + others / 7 + shared / 40 + noise
    assert crossed_error(first, second)[0] ** 2 == pytest.approx(expected)


def test_without_variance_among_examples_the_error_over_both_is_that_of_the_seeds() -> None:
    first, second = (rng(i).normal(size=(6, 1)) + np.zeros(50) for i in (0, 1))
    compared = compare(first, second, seed=0)
    assert crossed_error(first, second)[0] == pytest.approx(math.hypot(stats.sem(first[:, 0]), stats.sem(second[:, 0])))
    width = compared.interval.high - compared.interval.low
    assert width == pytest.approx(compared.seeds_interval.high - compared.seeds_interval.low)


def test_with_networks_that_do_not_depend_on_the_seed_the_interval_is_that_of_the_examples() -> None:
    first, second = (np.tile(rng(i).random(400) < 0.7, (5, 1)).astype(float) for i in (0, 1))
    compared = compare(first, second, seed=0)
    reference = stats.ttest_rel(first[0], second[0]).confidence_interval()
    assert compared.interval.high - compared.interval.low == pytest.approx(reference.high - reference.low)
    assert compared.seeds_interval == Interval(compared.difference, compared.difference)
    assert ends(compared.interval) == pytest.approx(tuple(reference), abs=0.004)


def test_an_interval_leans_to_where_the_scores_have_their_tail() -> None:
    scores = rng(0).normal(size=(5, 300)) - 100 * (np.arange(300) < 4)
    found = summary(scores, seed=0)
    assert found.mean - found.interval.low > 1.1 * (found.interval.high - found.mean)


def test_the_other_way_round_a_comparison_says_the_opposite() -> None:
    first, second = predictions(rng(0), n_seeds=(9, 9), n=200)
    there, back = compare(first, second, seed=0), compare(second, first, seed=0)
    assert there.difference == pytest.approx(-back.difference)
    assert ends(there.seeds_interval) == pytest.approx((-back.seeds_interval.high, -back.seeds_interval.low))
    assert there.probability == pytest.approx(1 - back.probability)
    assert there.detectable == pytest.approx(back.detectable)


def test_a_comparison_is_repeated_by_its_seed_alone() -> None:
    first, second = predictions(rng(0), n_seeds=(5, 5), n=100)
    assert compare(first, second, seed=1) == compare(first, second, seed=1) != compare(first, second, seed=2)


def test_probability_of_improvement_counts_pairs_of_seeds_and_halves_ties() -> None:
    first, second = [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]
    assert compare(first, second, seed=0).probability == pytest.approx((0.5 + 1 + 1 + 1 + 0 + 0.5) / 6)


def test_interval_of_the_probability_is_the_bootstrap_over_seeds() -> None:
    first, second = rng(0).normal(0.5, 1, size=(8, 1)) + np.zeros(3), rng(1).normal(size=(6, 1)) + np.zeros(3)
    draw = rng(2)
    draws = [
        stats.mannwhitneyu(draw.choice(first[:, 0], 8), draw.choice(second[:, 0], 6)).statistic / 48
        for _ in range(1500)
    ]
    reference = tuple(np.quantile(draws, [0.025, 0.975]))
    assert ends(compare(first, second, seed=0).probability_interval) == pytest.approx(reference, abs=0.04)


def test_detectable_is_what_is_seen_in_four_of_five_cases() -> None:
    """Where only seeds count: (t_.975 + t_.8) standard errors are 80 % of a t-test, to a point."""
    first, second = rng(0).normal(size=(13, 1)) + np.zeros(2), rng(1).normal(size=(13, 1)) + np.zeros(2)
    compared = compare(first, second, seed=0)
    error = math.hypot(stats.sem(first[:, 0]), stats.sem(second[:, 0]))
    assert power(13, effect=compared.detectable / (error / math.sqrt(2 / 13))) == pytest.approx(0.8, abs=0.01)


# ---------------------------------------------------------------- what degenerates


@pytest.mark.parametrize("n_seeds", [(1, 1), (1, 5), (5, 1)])
def test_a_single_seed_leaves_everything_open(n_seeds: tuple[int, int]) -> None:
    first, second = predictions(rng(0), n_seeds=n_seeds, n=50)
    compared = compare(first, second, seed=0)
    assert ends(compared.interval) == ends(compared.seeds_interval) == (-math.inf, math.inf)
    assert ends(compared.probability_interval) == (0, 1)
    assert compared.detectable == math.inf
    assert finite(*numbers(compared))


def test_a_single_seed_has_a_mean_and_no_known_deviation() -> None:
    found = summary([[1.0, 0.0, 1.0, 1.0]], seed=0)
    assert (found.mean, found.deviation, found.n) == (0.75, math.inf, 1)
    assert ends(found.interval) == (-math.inf, math.inf)


def test_equal_predictions_differ_by_nothing_whatever_the_rounding() -> None:
    once = rng(0).normal(size=300) / 3
    compared = compare(np.tile(once, (13, 1)), np.tile(once, (7, 1)), seed=0)
    assert compared.difference == 0
    assert 0 in compared.interval
    assert 0 in compared.seeds_interval
    assert compared.probability == 0.5
    assert compared.detectable == pytest.approx(0, abs=1e-12)


def test_seeds_that_agree_on_the_mean_by_luck_do_not_make_it_certain() -> None:
    first = [[1, 0, 1, 1, 0, 1], [1, 1, 0, 1, 1, 0], [0, 1, 1, 1, 0, 1]]
    second = [[1, 0, 1, 0, 0, 1], [0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 1]]
    compared = compare(first, second, seed=0)
    assert compared.seeds_interval.high - compared.seeds_interval.low < 1e-9
    assert 0 in compared.interval


def test_sides_on_different_examples_are_refused() -> None:
    with pytest.raises(ValueError, match="same examples, got 3 and 4"):
        compare(np.ones((2, 3)), np.ones((2, 4)), seed=0)
    with pytest.raises(ValueError, match="finite"):
        compare([[math.nan, 0]], [[0, 0]], seed=0)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6)).flatmap(
        lambda shape: st.tuples(
            *(arrays(float, (n, shape[2]), elements=st.sampled_from([0.0, 1.0, 0.125, -3e5])) for n in shape[:2])
        )
    )
)
def test_nothing_is_nan_and_the_interval_holds_the_difference(sides: tuple[Floats, Floats]) -> None:
    compared = compare(*sides, seed=0)
    assert finite(*numbers(compared))
    assert compared.difference in compared.interval
    width = compared.interval.high - compared.interval.low
    assert width >= (compared.seeds_interval.high - compared.seeds_interval.low) * (1 - 1e-9)
    assert compared.probability in compared.probability_interval
    found = summary(sides[0], seed=0)
    assert finite(found.mean, found.deviation, *ends(found.interval))
    assert found.mean in found.interval


# ---------------------------------------------------------------- coverage


def covered(n_seeds: int, n: int, n_simulations: int, scores: Callable[..., tuple[Floats, Floats]]) -> float:
    """How often the interval holds the true difference, 0, over fresh seeds and images."""
    return float(
        np.mean(
            [
                0 in compare(*scores(rng([7, i]), n_seeds=(n_seeds, n_seeds), n=n), seed=i).interval
                for i in range(n_simulations)
            ]
        )
    )


def test_95_percent_cover_as_much_within_what_400_simulations_can_say() -> None:
    """A coverage of 93.5 to 97 % fails this once in 10,000 times at most."""
    n_covered = 400 * covered(5, 120, 400, predictions)
    assert stats.binom.ppf(1e-4, 400, 0.935) <= n_covered <= stats.binom.ppf(1 - 1e-4, 400, 0.97)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("n_seeds", "n", "n_simulations"), [(5, 360, 2000), (13, 360, 2000), (5, 2000, 1000), (13, 2000, 1000)]
)
def test_95_percent_cover_935_to_97(n_seeds: int, n: int, n_simulations: int) -> None:
    """Measured, correct or not and minus the loss: 5 seeds x 360 images 95.0 and 95.8 %, 13 x 360 94.5 and 95.2 %
    (n = 2,000 each); 5 x 2,000 94.8 and 94.7 %, 13 x 2,000 95.9 and 95.1 % (n = 1,000 each).
    """
    for scores in (predictions, losses):
        assert 0.935 <= covered(n_seeds, n, n_simulations, scores) <= 0.97


# ---------------------------------------------------------------- pairs


def test_paired_is_scipys_paired_t_test() -> None:
    found, reference = paired(DIFFERENCES), stats.ttest_rel(DIFFERENCES, np.zeros(6))
    assert found.p_value == pytest.approx(reference.pvalue)
    assert ends(found.interval) == pytest.approx(tuple(reference.confidence_interval()))
    assert (found.mean, found.deviation, found.n) == pytest.approx((0.35, np.std(DIFFERENCES, ddof=1), 6))


def test_simultaneous_intervals_are_wider_by_bonferroni() -> None:
    reference = stats.ttest_1samp(DIFFERENCES, 0).confidence_interval(1 - 0.05 / 4)
    assert ends(simultaneous(DIFFERENCES, n_intervals=4)) == pytest.approx(tuple(reference))
    assert simultaneous(DIFFERENCES, n_intervals=1) == paired(DIFFERENCES).interval


@pytest.mark.parametrize("differences", [[], [0.3]])
def test_less_than_two_pairs_show_nothing(differences: list[float]) -> None:
    found = paired(differences)
    assert (found.p_value, found.deviation, *ends(found.interval)) == (1, math.inf, -math.inf, math.inf)
    assert not equivalent(differences, margin=10)


def test_pairs_that_all_differ_alike_are_certain() -> None:
    assert (paired([0.0] * 3).p_value, paired([0.5] * 3).p_value) == (1, 0)
    assert equivalent([0.0] * 3, margin=0.1)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_steps_down(p_values: list[float]) -> None:
    """The definition: the largest (m - rank) p, ranks from 0, over all p that are as small or smaller."""
    order = sorted(p_values)
    for p, adjusted in zip(p_values, holm(p_values), strict=True):
        steps = [(len(order) - rank) * each for rank, each in enumerate(order) if each <= p]
        assert adjusted == min(1.0, max(steps))


def test_holm_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=8).filter(lambda x: np.std(x) > 1e-3), st.floats(0.01, 2))
def test_equivalence_is_two_one_sided_tests(differences: list[float], margin: float) -> None:
    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    if abs(max(above, below) - 0.05) > 1e-9:
        assert equivalent(differences, margin=margin) == (max(above, below) < 0.05)


# ---------------------------------------------------------------- power


@pytest.mark.parametrize(("n", "known"), [(13, 0.956), (8, 0.80), (6, 0.65)])
def test_power_of_seeds_for_an_effect_of_one_and_a_half_deviations(n: int, known: float) -> None:
    assert power(n, effect=1.5) == pytest.approx(known, abs=0.006)


@given(st.integers(2, 60), st.floats(-3, 3))
@settings(deadline=None)
def test_power_is_that_of_the_noncentral_t(n: int, effect: float) -> None:
    shift, degrees = effect * math.sqrt(n / 2), 2 * n - 2
    critical = stats.t.ppf(0.975, degrees)
    reference = stats.nct.sf(critical, degrees, shift) + np.nan_to_num(stats.nct.cdf(-critical, degrees, shift))
    assert power(n, effect=effect) == pytest.approx(reference, abs=1e-9)


def test_power_is_how_often_a_t_test_sees_the_effect() -> None:
    first, second = rng(0).normal(0.9, size=(20_000, 10)), rng(1).normal(size=(20_000, 10))
    seen = np.mean(stats.ttest_ind(first, second, axis=1).pvalue < 0.05)
    assert power(10, effect=0.9) == pytest.approx(seen, abs=0.012)


@given(st.floats(0.01, 5), st.floats(0.05, 5))
@settings(deadline=None)
def test_seeds_needed_is_the_least_number_with_80_percent(deviation: float, effect: float) -> None:
    def reference(n: int) -> float:
        critical, shift = stats.t.ppf(0.975, n - 1), effect / deviation * math.sqrt(n)
        return float(stats.nct.sf(critical, n - 1, shift))  # the other tail is below 1e-3 where this is near 0.8

    n = seeds_needed(deviation, effect=effect)
    assert n == MOST_SEEDS or reference(n) >= 0.8 - 1e-9
    assert n == 2 or reference(n - 1) < 0.8 + 1e-9


def test_seeds_needed_of_the_textbook_and_at_its_ends() -> None:
    """34 pairs for half a deviation: Cohen (1988), table 2.4.1."""
    assert seeds_needed(1.0, effect=0.5) == 34
    assert (seeds_needed(0.0, effect=0.5), seeds_needed(1.0, effect=-0.5)) == (2, 34)
    assert seeds_needed(math.inf, effect=0.5) == seeds_needed(1.0, effect=1e-6) == MOST_SEEDS == 10_000


# ---------------------------------------------------------------- classification


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None)
def test_proportion_is_wilsons(counts: tuple[int, int]) -> None:
    k, n = counts
    expected = (0, 1) if n == 0 else tuple(stats.binomtest(k, n).proportion_ci(method="wilson"))
    assert ends(proportion(k, n)) == pytest.approx(expected)


def test_calibration_is_what_a_loop_over_bins_finds() -> None:
    logits_NK, targets_N = 2 * rng(0).normal(size=(500, 4)), rng(1).integers(4, size=500)
    probabilities = np.exp(logits_NK) / np.exp(logits_NK).sum(axis=1, keepdims=True)
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets_N
    expected = 0.0
    for b in range(15):
        inside = (b / 15 < confidence) & (confidence <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    nll, ece = calibration(logits_NK, targets_N)
    assert ece == pytest.approx(expected)
    assert nll == pytest.approx(-np.log(probabilities[np.arange(500), targets_N]).mean())


def test_calibration_survives_logits_of_any_size() -> None:
    nll, ece = calibration(np.array([[1e4, 0.0], [0.0, 1e4]], np.float32), [0, 0])
    assert (nll, ece) == (5000, 0.5)


def test_welch_of_equal_sides_is_a_point() -> None:
    assert welch([0.5, 0.5], [0.5, 0.5, 0.5]) == Interval(0, 0)
