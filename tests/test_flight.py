"""How many trials may be in flight, and slots be filled."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.contract import Capacity
from search.definition import StudyDefinition
from search.flight import (
    FEW_SLOTS,
    FORESIGHT,
    LEARNING,
    LEAST_IN_FLIGHT,
    LEAST_SAVING,
    foreseen,
    most_in_flight,
    most_slots,
    slots_wanted,
)
from search.launch import first_order
from search.state import State
from tests.studies import definition

SAMPLERS = st.sampled_from(["tpe", "random", "gp", "cmaes", "qmc"])
COUNTS, TRAINERS = st.integers(1, 10_000), st.integers(1, 16)


def study(sampler: str, n_trials: int) -> StudyDefinition:
    return definition().model_copy(update={"sampler": sampler, "n_trials": n_trials})


@given(sampler=SAMPLERS, n_trials=COUNTS, n_trainers=TRAINERS, n_asked=st.integers(0, 10_000))
def test_a_sampler_that_learns_has_few_trials_in_flight_and_enough_for_all_trainers(
    sampler: str, n_trials: int, n_trainers: int, n_asked: int
) -> None:
    found = most_in_flight(study(sampler, n_trials), n_trainers, n_asked=n_asked)
    if sampler not in LEARNING:
        assert found == n_trials
    else:
        assert max(LEAST_IN_FLIGHT, n_trainers) <= found <= max(LEAST_IN_FLIGHT, n_trainers, n_trials / 12)


@given(n_asked=st.integers(0, 500))
def test_how_a_study_begins_does_not_depend_on_trials_that_it_may_never_come_to(n_asked: int) -> None:
    one, other = (study("tpe", FORESIGHT * 500 * times) for times in (1, 100))
    assert foreseen(one, n_asked) == foreseen(other, n_asked)
    assert most_in_flight(one, 2, n_asked=n_asked) == most_in_flight(other, 2, n_asked=n_asked)


@given(sampler=SAMPLERS, slots=st.integers(1, 64), saves=st.floats(0, 1))
def test_a_sampler_that_learns_wants_company_only_where_that_saves_much(sampler: str, slots: int, saves: float) -> None:
    wanted = slots_wanted(study(sampler, 100), Capacity(slots=slots, saves=saves))
    assert wanted == (1 if sampler in LEARNING and saves < LEAST_SAVING else slots)


@given(sampler=SAMPLERS, n_trials=COUNTS, n_trainers=TRAINERS)
def test_slots_beyond_a_few_are_no_more_than_flight_can_fill(sampler: str, n_trials: int, n_trainers: int) -> None:
    chosen = study(sampler, n_trials)
    slots = most_slots(chosen, n_trainers)
    assert slots >= FEW_SLOTS
    assert slots == FEW_SLOTS or slots * n_trainers <= most_in_flight(chosen, n_trainers, n_asked=n_trials)


@pytest.mark.parametrize(("sampler", "n_trials", "slots"), [("tpe", 200, 8), ("tpe", 1200, 50), ("random", 400, 200)])
def test_trainers_are_told(sampler: str, n_trials: int, slots: int, tmp_path: Path) -> None:
    two = study(sampler, n_trials).model_copy(update={"trainers": 2})
    assert first_order(two, tmp_path, State()).most_slots == slots
