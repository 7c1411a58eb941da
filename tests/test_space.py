"""The kinds of parameter: what they accept, what they draw, and how raw and effective values turn into each other."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.study import create_study
from pydantic import TypeAdapter, ValidationError

from search.space import Parameter, contains, described, distribution, effective, extremes, is_off, raw_from

DECAY = {"kind": "log_float", "low": 1e-6, "high": 1e-1, "regularizer": True, "off_below": 1.78e-5}
KINDS: dict[str, dict[str, Any]] = {
    "float": {"kind": "float", "low": 0, "high": 0.6, "regularizer": True, "off": 0},
    "log_float": {"kind": "log_float", "low": 1e-4, "high": 3e-2},
    "off_below": DECAY,
    "int": {"kind": "int", "low": 0, "high": 4, "regularizer": True, "off": 0},
    "step": {"kind": "int", "low": 1, "high": 10, "step": 3},
    "power_of_two": {"kind": "power_of_two", "low": 128, "high": 1024},
    "choice": {"kind": "choice", "choices": ["relu", "gelu"]},
    "numbers": {"kind": "choice", "choices": [1, 2, 0.5], "regularizer": True, "off": 1},
    "bool": {"kind": "bool", "regularizer": True, "off": False},
}


def parameter(table: dict[str, Any]) -> Parameter:
    built: Parameter = TypeAdapter(Parameter).validate_python(table)
    return built


def draws(table: dict[str, Any], n: int) -> list[Any]:
    study = create_study(sampler=RandomSampler(seed=0))
    return [study.ask({"x": distribution(parameter(table))}).params["x"] for _ in range(n)]


def complaint(table: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as error:
        parameter(table)
    (each,) = error.value.errors()
    return each["msg"]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("float", FloatDistribution(0.0, 0.6)),
        ("log_float", FloatDistribution(1e-4, 3e-2, log=True)),
        ("off_below", FloatDistribution(1e-6, 1e-1, log=True)),
        ("int", IntDistribution(0, 4)),
        ("step", IntDistribution(1, 10, step=3)),
        ("power_of_two", CategoricalDistribution((128, 256, 512, 1024))),
        ("choice", CategoricalDistribution(("relu", "gelu"))),
        ("bool", CategoricalDistribution((False, True))),
    ],
)
def test_each_kind_is_drawn_from_its_distribution(kind: str, expected: Any) -> None:
    assert distribution(parameter(KINDS[kind])) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_drawn_is_in_the_space_and_comes_back_from_its_effective_value(kind: str) -> None:
    space = {"x": parameter(KINDS[kind])}
    for raw in draws(KINDS[kind], 60):
        trained = effective(space, {"x": raw})
        assert contains(space["x"], trained["x"]), described(space["x"])
        assert effective(space, raw_from(space, trained)) == trained
        if trained["x"] != 0:
            assert raw_from(space, trained) == {"x": raw}


@settings(deadline=None)
@given(st.floats(1e-6, 1e-1))
def test_what_is_drawn_below_off_below_means_zero_and_all_else_itself(raw: float) -> None:
    space = {"weight_decay": parameter(DECAY)}
    trained = effective(space, {"weight_decay": raw})["weight_decay"]
    assert trained == (0.0 if raw < 1.78e-5 else raw)
    assert is_off(space["weight_decay"], trained) == (raw < 1.78e-5)


def test_the_raw_value_of_off_is_low_where_a_log_scale_cannot_hold_zero() -> None:
    assert raw_from({"l2": parameter(DECAY)}, {"l2": 0}) == {"l2": 1e-6}


@pytest.mark.parametrize(
    ("kind", "off", "on"),
    [("float", 0.0, 0.1), ("int", 0, 1), ("bool", False, True), ("numbers", 1, 2), ("off_below", 0.0, 1.78e-5)],
)
def test_a_regularizer_is_off_at_its_off_value_only(kind: str, off: Any, on: Any) -> None:
    assert is_off(parameter(KINDS[kind]), off)
    assert not is_off(parameter(KINDS[kind]), on)


def test_what_is_no_regularizer_is_never_off() -> None:
    assert not is_off(parameter({"kind": "bool"}), False)
    assert not is_off(parameter(KINDS["log_float"]), 0.0)


@pytest.mark.parametrize(
    ("kind", "outside"),
    [
        ("float", [-0.1, 0.61, True, "0.1", None, math.nan]),
        ("log_float", [0.0, 9e-5, 1.0]),
        ("off_below", [1e-6, 1.7e-5, 0.2, False]),
        ("int", [-1, 5, 1.5, True]),
        ("step", [2, 3, 11]),
        ("power_of_two", [64, 200, 256.5, 2048, True]),
        ("choice", ["tanh", 1, None]),
        ("numbers", [True, 3, 1.0]),
        ("bool", [0, 1, "true"]),
    ],
)
def test_what_cannot_be_drawn_is_not_in_the_space(kind: str, outside: list[Any]) -> None:
    assert [value for value in outside if contains(parameter(KINDS[kind]), value)] == []


def test_extremes_are_in_the_space() -> None:
    for table in KINDS.values():
        assert all(contains(parameter(table), value) for value in extremes(parameter(table)))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"kind": "float", "low": 1.0, "high": 1.0}, "low must be less than high, got low = 1.0, high = 1.0"),
        ({"kind": "int", "low": 4, "high": 1}, "low must be less than high, got low = 4, high = 1"),
        (
            {"kind": "log_float", "low": 0.0, "high": 1.0},
            'low must be positive on a log scale, got 0.0. Raise low, or use kind = "float".',
        ),
        ({"kind": "int", "low": 0, "high": 10, "step": 3}, "high must be low plus a multiple of step"),
        (
            {"kind": "power_of_two", "low": 100, "high": 128},
            "low must be a power of two, got 100. Change it, or use kind",
        ),
        ({"kind": "power_of_two", "low": 0, "high": 128}, "low must be a power of two, got 0"),
        ({"kind": "choice", "choices": ["relu"]}, "choices must hold at least two values"),
        ({"kind": "choice", "choices": ["relu", "relu"]}, "choices must differ from each other"),
        (
            {"kind": "bool", "regularizer": True},
            "a regularizer must say what turns it off, got neither. Add off = VALUE.",
        ),
        (DECAY | {"off_below": None}, "Add off = VALUE or off_below = VALUE."),
        ({"kind": "bool", "off": False}, "off and off_below are for regularizers, got regularizer = false"),
        (DECAY | {"regularizer": False}, "off and off_below are for regularizers"),
        (DECAY | {"off": 1e-6}, "off and off_below exclude each other, got 1e-06 and 1.78e-05"),
        (DECAY | {"off_below": 1e-7}, "off_below must lie between low = 1e-06 and high = 0.1, got 1e-07"),
        (DECAY | {"off_below": 1e-6}, "off_below must lie between"),
        (DECAY | {"off_below": 1.0}, "off_below must lie between"),
        (DECAY | {"off_below": None, "off": 0.0}, "got 0.0. Use off_below to turn it off on a log scale."),
        (KINDS["float"] | {"off": 0.7}, "off must be a number from 0 to 0.6, got 0.7"),
        (KINDS["numbers"] | {"off": 3}, "off must be one of 1, 2, 0.5, got 3"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_with_rule_value_and_remedy(table: dict[str, Any], told: str) -> None:
    assert told in complaint(table)


@pytest.mark.parametrize(
    "table",
    [
        {"kind": "float", "low": "0", "high": 1},
        {"kind": "float", "low": 0, "high": math.inf},
        {"kind": "float", "low": math.nan, "high": 1},
        {"kind": "int", "low": 0.0, "high": 4},
        {"kind": "int", "low": 0, "high": True},
        {"kind": "int", "low": 0, "high": 4, "step": 0},
        {"kind": "bool", "off": 0},
        {"kind": "bool", "low": 0},
        {"kind": "choice", "choices": [True, False]},
        {"kind": "float", "low": 0, "hihg": 1},
        {"kind": "flaot", "low": 0, "high": 1},
        {"low": 0, "high": 1},
    ],
)
def test_what_has_the_wrong_type_or_an_unknown_key_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parameter(table)


def test_several_problems_of_a_range_are_told_together() -> None:
    told = complaint({"kind": "log_float", "low": 0.0, "high": -1.0})
    assert "low must be less than high" in told
    assert "low must be positive" in told
