"""Claims of search/importance.py: what matters is found, on the scale that was sampled, and doubt is told."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution

from search.definition import StudyDefinition
from search.importance import Importance, Importances, fanova, importance
from tests.recomputed import forest_shares
from tests.searches import random_search, searched, study

SPACE: dict[str, Any] = {
    "lr": {"kind": "log_float", "low": 1e-4, "high": 1e-1},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.6, "regularizer": True, "off": 0.0},
    "width": {"kind": "power_of_two", "low": 32, "high": 256},
    "batch_norm": {"kind": "bool"},
}
BASELINE: dict[str, Any] = {"lr": 1e-3, "dropout": 0.0, "width": 64, "batch_norm": False}


def truth(raw: Mapping[str, Any]) -> float:
    """Three parts of lr, one of dropout, none of width and batch_norm; each part spans 0 to 1."""
    lr, dropout = (math.log10(raw["lr"]) + 4) / 3, raw["dropout"] / 0.6
    return float(3 * (1 - abs(2 * lr - 1)) + dropout)


def by_name(found: Importances) -> dict[str, Importance]:
    return {each.name: each for each in found.parameters}


@pytest.fixture(scope="module")
def found() -> Importances:
    definition = study(SPACE, BASELINE)
    return importance(definition, random_search(definition, truth, n=100, noise=0.2, seed=0), seed=0, n_bootstrap=50)


def test_the_order_of_a_known_truth_is_found(found: Importances) -> None:
    assert [each.name for each in found.parameters[:2]] == ["lr", "dropout"]
    assert by_name(found)["lr"].ped_anova > 0.5
    assert by_name(found)["lr"].fanova > 0.7
    assert found.n_trials == 100
    assert found.reason == ""


def test_parameters_without_effect_have_intervals_that_lie_low(found: Importances) -> None:
    null = [by_name(found)[name] for name in ("width", "batch_norm")]
    assert all(each.fanova_interval[1] < 0.1 for each in null)
    assert all(each.ped_anova_interval[1] < 0.25 for each in null)
    assert all(each.fanova_interval[1] < by_name(found)["lr"].fanova_interval[0] for each in null)
    assert all(each.ped_anova_interval[1] < by_name(found)["lr"].ped_anova_interval[0] for each in null)


def test_shares_sum_to_one_and_intervals_hold_the_estimates(found: Importances) -> None:
    assert sum(each.ped_anova for each in found.parameters) == pytest.approx(1)
    assert sum(each.fanova for each in found.parameters) == pytest.approx(1)
    for each in found.parameters:
        for share, (low, high) in (
            (each.ped_anova, each.ped_anova_interval),
            (each.fanova, each.fanova_interval),
        ):
            assert 0 <= low <= share <= high <= 1
            assert low < high


def test_fanova_is_the_variance_that_single_parameters_explain() -> None:
    """Of 3 |2 lr - 1| and dropout, each uniform, the variances are 9 to 1."""
    definition = study(SPACE, BASELINE)
    shares = by_name(importance(definition, random_search(definition, truth, n=300, seed=1), seed=0, n_bootstrap=0))
    assert shares["lr"].fanova == pytest.approx(0.9, abs=0.05)
    assert shares["dropout"].fanova == pytest.approx(0.1, abs=0.05)


def test_the_same_seed_gives_the_same_answer() -> None:
    definition = study(SPACE, BASELINE)
    state = random_search(definition, truth, n=50, noise=0.2, seed=0)
    first, again, other = (importance(definition, state, seed=seed, n_bootstrap=5) for seed in (0, 0, 1))
    assert first == again != other


def test_minimizing_the_negative_value_gives_the_same_answer(found: Importances) -> None:
    definition = study(SPACE, BASELINE, metric="val_loss", direction="minimize")
    state = random_search(definition, truth, n=100, noise=0.2, seed=0)
    negative = searched(definition, [(t.raw, -(t.value or 0)) for t in state.trials.values()])
    assert importance(definition, negative, seed=0, n_bootstrap=50) == found


def test_what_makes_the_best_trials_is_not_taken_for_what_makes_the_worst() -> None:
    """One choice alone reaches the top, another parameter alone the bottom: PED-ANOVA must name the first."""
    space: dict[str, Any] = {
        "top": {"kind": "float", "low": 0.0, "high": 1.0},
        "bottom": {"kind": "float", "low": 0.0, "high": 1.0},
    }
    definition = study(space, {"top": 0.5, "bottom": 0.5})

    def value(raw: Mapping[str, Any]) -> float:
        return float(raw["top"] > 0.9) - float(raw["bottom"] < 0.1)

    state = random_search(definition, value, n=200, noise=0.1, seed=0)
    shares = by_name(importance(definition, state, seed=0, n_bootstrap=0))
    assert shares["top"].ped_anova > 0.8


def test_a_logarithmic_parameter_is_judged_over_its_exponents() -> None:
    """The value falls from 1e-6 to 1e-4 and is flat above, where Optuna's fANOVA looks at 99.9 % of the range."""
    space: dict[str, Any] = {
        "l2": {"kind": "log_float", "low": 1e-6, "high": 1e-1},
        "other": {"kind": "float", "low": 0.0, "high": 1.0},
    }
    definition = study(space, {"l2": 1e-3, "other": 0.5})

    def value(raw: Mapping[str, Any]) -> float:
        return float(2 * (raw["l2"] < 1e-4) + raw["other"])

    shares = by_name(importance(definition, random_search(definition, value, n=150, seed=0), seed=0, n_bootstrap=0))
    assert shares["l2"].fanova == pytest.approx(0.96 / (0.96 + 1 / 12), abs=0.03)  # 4 * 0.4 * 0.6 against 1 / 12


def test_our_fanova_equals_optunas_where_all_scales_are_linear() -> None:
    rng = np.random.default_rng(0)
    positions = rng.random((60, 4))
    values = 3 * positions[:, 0] + np.sin(6 * positions[:, 2]) + 0.1 * rng.standard_normal(60)
    distributions: dict[str, BaseDistribution] = {f"p{i}": FloatDistribution(0, 1) for i in range(4)}
    theirs = optuna.create_study()
    theirs.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(distributions, map(float, row), strict=True)), distributions=distributions, value=value
            )
            for row, value in zip(positions, values, strict=True)
        ]
    )
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=8, seed=3)
    expected = np.array([evaluator.evaluate(theirs)[name] for name in distributions])
    assert fanova(positions, values, n_trees=8, seed=3) == pytest.approx(expected / expected.sum(), abs=1e-9)


def test_fanova_equals_what_the_forest_says_on_the_whole_grid() -> None:
    """By brute force: every cell between the thresholds of a tree, whole numbers and ties among the positions."""
    rng = np.random.default_rng(0)
    positions = np.column_stack([rng.random(25), rng.integers(0, 3, 25) / 3 + 1 / 6, rng.random(25).round(1)])
    values = positions[:, 0] * positions[:, 1] + np.abs(positions[:, 2] - 0.5)
    expected = forest_shares(positions, values, n_trees=8, seed=3)
    assert fanova(positions, values, n_trees=8, seed=3) == pytest.approx(expected, abs=1e-9)


def test_one_exploded_trial_does_not_decide() -> None:
    definition = study(SPACE, BASELINE, metric="val_loss", direction="minimize")
    state = random_search(definition, lambda raw: -truth(raw), n=60, seed=0)
    trials = [(t.raw, t.value) for t in state.trials.values()]
    spoiled = [*trials, ({"lr": 3e-3, "dropout": 0.3, "width": 256, "batch_norm": True}, 1e30)]
    ends: Any = {60: ("pruned", "diverged")}
    shares = by_name(importance(definition, searched(definition, spoiled, ends=ends), seed=0, n_bootstrap=0))
    assert shares["lr"].fanova > 0.7


def test_pruned_trials_count_and_those_without_a_finite_value_do_not() -> None:
    definition = study(SPACE, BASELINE)
    state = random_search(definition, truth, n=30, seed=0)
    trials = [(t.raw, t.value) for t in state.trials.values()]
    pruned: Any = dict.fromkeys(range(5, 25), ("pruned", "rung"))
    nothing = [(trials[1][0], None), (trials[2][0], math.nan), (trials[3][0], math.inf)]
    ends: Any = pruned | {30: ("failed", "error"), 31: ("pruned", "diverged"), 32: ("pruned", "diverged")}
    found = importance(definition, searched(definition, [*trials, *nothing], ends=ends), seed=0, n_bootstrap=5)
    assert found == importance(definition, state, seed=0, n_bootstrap=5)


def one_parameter() -> StudyDefinition:
    return study({"lr": SPACE["lr"]}, {"lr": 1e-3})


@pytest.mark.parametrize(
    ("definition", "n", "value", "reason"),
    [
        (one_parameter(), 20, truth, "a single parameter"),
        (study(SPACE, BASELINE), 3, truth, "3 trials have a value"),
        (study(SPACE, BASELINE), 20, lambda raw: 0.5, "the same value"),
    ],
    ids=["one parameter", "three trials", "equal values"],
)
def test_where_nothing_can_be_said_there_is_a_reason(
    definition: StudyDefinition, n: int, value: Any, reason: str
) -> None:
    known = value if "dropout" in definition.space else lambda raw: math.log(raw["lr"])
    found = importance(definition, random_search(definition, known, n=n, seed=0), seed=0)
    assert found.parameters == ()
    assert reason in found.reason


def test_few_trials_with_two_values_and_a_constant_parameter_do_not_crash() -> None:
    definition = study(SPACE, BASELINE)
    raw = {"lr": 1e-3, "dropout": 0.1, "width": 64, "batch_norm": True}
    trials = [(raw | {"lr": 10.0 ** -(1 + i % 3)}, 0.5 + (i == 0)) for i in range(10)]
    found = importance(definition, searched(definition, trials), seed=0, n_bootstrap=20)
    assert by_name(found)["width"].fanova == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "limit_s"), [(40, 20), (200, 60)])
def test_a_study_of_eleven_parameters_takes_seconds(n: int, limit_s: float) -> None:
    space: dict[str, Any] = {f"p{i}": {"kind": "float", "low": 0.0, "high": 1.0} for i in range(11)}
    definition = study(space, dict.fromkeys(space, 0.5))
    state = random_search(definition, lambda raw: 3 * raw["p0"] + raw["p1"], n=n, noise=0.3, seed=0)
    begin = time.process_time()
    importance(definition, state, seed=0)
    assert time.process_time() - begin < limit_s
