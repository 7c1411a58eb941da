"""Claims of search/cautions.py: what is wrong with a space is told, with what to do, and what is right is not."""

from collections.abc import Mapping
from typing import Any

import pytest

from search.cautions import warnings
from search.contract import Value
from search.definition import StudyDefinition
from search.state import State
from tests.searches import random_search, searched
from tests.studies import definition

SPACE: dict[str, Any] = {
    "lr": {"kind": "log_float", "low": 1e-4, "high": 1e-1},
    "decay": {"kind": "log_float", "low": 1e-6, "high": 1e-1, "regularizer": True, "off_below": 1e-5},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.6, "regularizer": True, "off": 0.0},
    "keep": {"kind": "float", "low": 0.5, "high": 0.9, "regularizer": True, "off": 0.9},
    "momentum": {"kind": "float", "low": 0.2, "high": 0.8},
    "fraction": {"kind": "float", "low": 0.0, "high": 1.0},
    "width": {"kind": "power_of_two", "low": 32, "high": 256},
    "depth": {"kind": "int", "low": 1, "high": 6},
    "batch_norm": {"kind": "bool"},
    "activation": {"kind": "choice", "choices": ["relu", "tanh", "gelu"]},
    "size": {"kind": "power_of_two", "low": 64, "high": 128},
}
MIDDLE: dict[str, Value] = {
    "lr": 3e-3,
    "decay": 1e-3,
    "dropout": 0.3,
    "keep": 0.7,
    "momentum": 0.5,
    "fraction": 0.5,
    "width": 64,
    "depth": 3,
    "batch_norm": True,
    "activation": "tanh",
    "size": 64,
}
DEFINITION = definition(space=SPACE, baseline=MIDDLE)


def told(best: Mapping[str, Value], study: StudyDefinition = DEFINITION) -> list[str]:
    """The warnings on bounds where the best trial is in the middle but for this."""
    state = searched(study, [(MIDDLE, 0.5), ({**MIDDLE, **best}, 0.6)])
    return [each for each in warnings(study, state) if each.startswith("space.")]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "lr",
            0.09,
            "the best trial, 1, has 0.09, within 5 % of high = 0.1 (of the best 2 trials: 1), so better",
        ),
        ("lr", 1.3e-4, "better values may lie beyond. Lower low, for instance to 3.2e"),
        ("decay", 0.06, "within 5 % of high = 0.1"),
        ("dropout", 0.58, "Raise high, for instance to 0.8, and run the study under another name."),
        ("keep", 0.51, "within 5 % of low = 0.5"),
        ("momentum", 0.8, "has 0.8, which is high = 0.8"),
        (
            "width",
            256,
            "which is high = 256 (of the best 2 trials: 1), so better values may lie beyond. Raise high to 512",
        ),
        ("width", 32, "Lower low to 16"),
        ("depth", 6, "Raise high to 8"),
        ("depth", 1, "Lower low, if the objective accepts it"),
    ],
)
def test_best_at_a_bound_is_warned_of(name: str, value: Value, words: str) -> None:
    (warning,) = told({name: value})
    assert warning.startswith(f"space.{name}: ")
    assert words in warning


def test_warning_tells_how_many_of_the_best_agree() -> None:
    wide, narrow = MIDDLE | {"width": 256}, MIDDLE | {"width": 64}
    trials = [(MIDDLE, 0.1), (wide, 0.9), (narrow, 0.8), (wide, 0.7), (wide, 0.6), (narrow, 0.5), (wide, 0.4)]
    (warning,) = [each for each in warnings(DEFINITION, searched(DEFINITION, trials)) if each.startswith("space.")]
    assert "(of the best 5 trials: 3)" in warning


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.06),  # 0.6 of the range, but 7 % of the exponents away
        ("lr", 1.5e-4),  # 0.0005 of the range away
        ("decay", 1e-6),
        ("decay", 1.1e-5),
        ("dropout", 0.0),
        ("dropout", 0.01),
        ("keep", 0.9),
        ("keep", 0.89),
        ("fraction", 0.0),
        ("fraction", 1.0),
        ("width", 128),
        ("depth", 5),
        ("batch_norm", False),
        ("activation", "gelu"),
        ("size", 128),
    ],
)
def test_best_elsewhere_or_at_a_natural_end_is_not_warned_of(name: str, value: Value) -> None:
    assert told({name: value}) == []


def test_baseline_at_a_bound_is_not_warned_of() -> None:
    study = definition(space=SPACE, baseline={**MIDDLE, "lr": 0.1})
    state = searched(study, [({**MIDDLE, "lr": 0.1}, 0.5), (MIDDLE, 0.4)])
    assert not [each for each in warnings(study, state) if each.startswith("space.")]


def only_lr(optimum: float, *, direction: Any = "maximize") -> list[str]:
    """The warnings of a random search of 300 trials whose value depends on how near momentum is to an optimum."""
    study = definition(space=SPACE, baseline=MIDDLE, direction=direction, n_trials=300)
    sign = 1 if direction == "maximize" else -1
    state = random_search(study, lambda raw: -sign * abs(raw["momentum"] - optimum), n=300, seed=0)
    return [each for each in warnings(study, state) if each.startswith("space.momentum")]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_planted_optimum_beyond_a_bound_is_found_and_one_in_the_middle_is_not(direction: Any) -> None:
    (warning,) = only_lr(0.95, direction=direction)
    assert "high = 0.8" in warning
    assert only_lr(0.55, direction=direction) == []


# ---------------------------------------------------------------- infeasible, too few, baseline


def diverging(share: float) -> tuple[StudyDefinition, State]:
    """100 random trials after the baseline; those of the highest learning rates diverged."""
    study = definition(space=SPACE, baseline=MIDDLE, n_trials=101)
    state = random_search(study, lambda raw: 0.4, n=101, seed=0)
    raws = [t.raw for t in state.trials.values()]
    highest = sorted(range(1, 101), key=lambda i: -float(str(raws[i]["lr"])))[: round(100 * share)]
    ends: Any = dict.fromkeys(highest, ("pruned", "diverged"))
    return study, searched(study, [(raw, None if i in ends else 0.4) for i, raw in enumerate(raws)], ends=ends)


def infeasible(study: StudyDefinition, state: State) -> list[str]:
    return [each for each in warnings(study, state) if each.startswith("space:")]


def test_many_diverged_trials_are_told_with_the_bound_to_move() -> None:
    (warning,) = infeasible(*diverging(0.3))
    assert "30 of 100 trials ended without a usable network (30 diverged)" in warning
    assert "They lie high in lr" in warning
    assert "Lower space.lr.high" in warning


def test_a_quarter_of_diverged_trials_is_not_too_many() -> None:
    assert infeasible(*diverging(0.25)) == []


def test_failures_that_no_parameter_explains_name_none() -> None:
    study = definition(space=SPACE, baseline=MIDDLE)
    state = random_search(study, lambda raw: 0.4, n=100, seed=0)
    ends: Any = dict.fromkeys(range(1, 100, 3), ("failed", "error"))
    trials = [(t.raw, None if t.number in ends else 0.4) for t in state.trials.values()]
    (warning,) = infeasible(study, searched(study, trials, ends=ends))
    assert "33 of 99 trials" in warning
    assert "(33 failed). Shrink the ranges around the trials that trained" in warning


def test_study_in_which_everything_failed_is_told() -> None:
    ends: Any = dict.fromkeys(range(4), ("failed", "error"))
    state = searched(DEFINITION, [(MIDDLE, None)] * 4, ends=ends)
    told_all = "\n".join(warnings(DEFINITION, state))
    assert "3 of 3 trials ended without a usable network (3 failed)" in told_all
    assert "baseline: trial 0 failed, so no gain can be told" in told_all


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (40, "40 trials have a value, fewer than the 50 from which on importances are more than a hint. "),
        (60, "60 trials have a value, few for 11 parameters"),
        (110, None),
    ],
)
def test_too_few_trials_are_told_with_the_number_it_takes(n: int, words: str | None) -> None:
    state = random_search(DEFINITION, lambda raw: 0.4, n=n, seed=0)
    found = [each for each in warnings(DEFINITION, state) if each.startswith("n_trials:")]
    if words is None:
        assert found == []
    else:
        assert words in found[0]
        assert "Raise n_trials to 110: 10 a parameter should have one, and at least 50." in found[0]


def test_study_that_is_not_done_is_asked_to_go_on() -> None:
    study = definition(space=SPACE, baseline=MIDDLE, n_trials=200)
    state = random_search(study, lambda raw: 0.4, n=20, seed=0)
    assert any("Let the study go on: 10 a parameter" in each for each in warnings(study, state))


@pytest.mark.parametrize(("direction", "better"), [("maximize", 0.6), ("minimize", 0.4)])
def test_baseline_that_nothing_beat_is_told_and_another_is_not(direction: Any, better: float) -> None:
    study = definition(space=SPACE, baseline=MIDDLE, direction=direction)
    unbeaten = searched(study, [(MIDDLE, better), (MIDDLE, 0.5), (MIDDLE, 0.5)])
    assert any("baseline: none of 2 trials beat its val_accuracy" in each for each in warnings(study, unbeaten))
    beaten = searched(study, [(MIDDLE, 0.5), (MIDDLE, better)])
    assert not any(each.startswith("baseline") for each in warnings(study, beaten))


def test_study_without_a_trial_says_only_that_it_has_too_few() -> None:
    (warning,) = warnings(DEFINITION, State())
    assert warning.startswith("n_trials: 0 trials have a value")
