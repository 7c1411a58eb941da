"""Which trainer takes a trial."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.cohort import AHEAD, TrainerLoad, load, place, refill

CAPACITY = {"small": 8, "middle": 4, "large": 1}


def trainer(number: int, *, alone: bool = False, pending: bool = False, **populations: int) -> TrainerLoad:
    return TrainerLoad(trainer=number, populations=populations, alone=alone, pending=pending)


def placed(structure: str | None, *loads: TrainerLoad, alone: bool = False, replicates: int = 1) -> int | None:
    return place(structure, alone=alone, loads=loads, capacity=CAPACITY, replicates=replicates)


def test_load_is_how_full_the_fullest_population_is_and_1_for_an_unknown_capacity() -> None:
    assert load(trainer(0), CAPACITY) == 0
    assert load(trainer(0, small=2, middle=2), CAPACITY) == 0.5
    assert load(trainer(0, unknown=1), CAPACITY) == 1


def test_a_trial_joins_the_population_of_its_structure() -> None:
    assert placed("small", trainer(0, middle=1), trainer(1, small=3)) == 1


def test_a_trainer_that_trains_nothing_comes_before_company() -> None:
    assert placed("small", trainer(0, small=3), trainer(1)) == 1


def test_of_two_populations_of_its_structure_the_less_loaded_is_joined() -> None:
    assert placed("small", trainer(0, small=5), trainer(1, small=3)) == 1


def test_without_company_the_least_loaded_trainer_takes_it() -> None:
    assert placed("large", trainer(0, small=2), trainer(1, middle=3), trainer(2, small=1)) == 2


def test_of_equals_the_lowest_number_takes_it() -> None:
    assert placed("small", trainer(2), trainer(1)) == 1


def test_nobody_waits_for_company() -> None:
    assert placed("large", trainer(0, small=7)) == 0


@pytest.mark.parametrize("full", [trainer(0, large=1), trainer(0, small=8), trainer(0, small=8, middle=2)])
def test_a_trainer_with_a_full_population_takes_no_further_structure(full: TrainerLoad) -> None:
    for structure in ("other", None):
        assert placed(structure, full) is None


def test_a_population_is_filled_whatever_else_its_trainer_still_trains() -> None:
    assert placed("small", trainer(0, small=5, middle=3)) == 0
    assert placed("small", trainer(0, small=8, middle=3)) is None


def test_a_trial_that_joins_goes_to_a_population_of_its_structure_only() -> None:
    loads = [trainer(0, small=8), trainer(1)]
    assert place("small", alone=False, loads=loads, capacity=CAPACITY) == 1
    assert place("small", alone=False, loads=loads, capacity=CAPACITY, joins=True) is None
    loads = [trainer(0, small=7), trainer(1)]
    assert place("small", alone=False, loads=loads, capacity=CAPACITY, joins=True) == 0


def test_what_is_spread_goes_to_the_least_loaded_trainer_and_waits_while_that_one_starts() -> None:
    def spread(*loads: TrainerLoad) -> int | None:
        return place("small", alone=False, loads=loads, capacity=CAPACITY, spread=True)

    assert spread(trainer(0, small=3), trainer(1)) == 1
    assert spread(trainer(0, small=3), trainer(1, small=3)) == 0
    assert spread(trainer(0, small=3), trainer(1, middle=1)) == 1
    assert spread(trainer(0, middle=2), trainer(1, small=4)) == 1  # equally loaded: company decides
    assert spread(trainer(0, small=8), trainer(1, small=8)) is None
    assert spread(trainer(0), trainer(1, pending=True)) == 0
    assert spread(trainer(0, small=1), trainer(1, pending=True)) is None


@pytest.mark.parametrize("closed", [trainer(0, pending=True), trainer(0, small=1, alone=True)])
def test_a_trainer_that_is_pending_or_holds_a_lone_trial_takes_nothing(closed: TrainerLoad) -> None:
    assert placed("small", closed) is None
    assert placed(None, closed) is None
    assert placed("small", closed, trainer(1, middle=3)) == 1


def test_a_lone_trial_goes_to_an_empty_trainer_only() -> None:
    assert placed("small", trainer(0, small=1), trainer(1), alone=True) == 1
    assert placed("small", trainer(0, small=1), alone=True) is None


def test_a_population_never_exceeds_its_capacity_by_a_trial_s_replicates() -> None:
    assert placed("small", trainer(0, small=6), replicates=2) == 0
    assert placed("small", trainer(0, small=7), replicates=2) is None
    assert placed("small", trainer(0, small=7), trainer(1, middle=3), replicates=2) == 1


def test_more_replicates_than_capacity_go_to_a_trainer_without_the_structure() -> None:
    assert placed("large", trainer(0), replicates=3) == 0


POPULATIONS = st.dictionaries(st.sampled_from([*CAPACITY, "unknown"]), st.integers(1, 8), max_size=3)
LOADS = st.lists(st.tuples(POPULATIONS, st.booleans(), st.booleans()), max_size=5).map(
    lambda each: [TrainerLoad(trainer=i, populations=p, alone=a, pending=w) for i, (p, a, w) in enumerate(each)]
)


@settings(deadline=None)
@given(
    loads=LOADS,
    structure=st.sampled_from([*CAPACITY, "unknown"]),
    alone=st.booleans(),
    replicates=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
)
def test_a_placed_trial_finds_room_and_the_order_of_trainers_means_nothing(
    loads: list[TrainerLoad],
    structure: str,
    alone: bool,
    replicates: int,
    order: random.Random,
) -> None:
    number = place(structure, alone=alone, loads=loads, capacity=CAPACITY, replicates=replicates)
    shuffled = list(loads)
    order.shuffle(shuffled)
    assert place(structure, alone=alone, loads=shuffled, capacity=CAPACITY, replicates=replicates) == number
    if number is not None:
        chosen = loads[number]
        assert not chosen.pending
        assert not chosen.alone
        held = chosen.populations.get(structure, 0)
        assert held or load(chosen, CAPACITY) < 1
        assert held == 0 or held + replicates <= CAPACITY.get(structure, 1)
        assert not alone or not chosen.populations


# ---------------------------------------------------------------- which structure is held at an ask


def refilled(*loads: TrainerLoad, waiting: dict[str, int] | None = None, **debts: int) -> str | None:
    return refill(loads, capacity=CAPACITY, waiting=waiting or {}, debts=debts, limits=dict.fromkeys(CAPACITY, 3))


def test_the_emptiest_trainer_s_fullest_population_is_refilled_first() -> None:
    assert refilled(trainer(0, small=7)) == "small"
    assert refilled(trainer(0, small=7), trainer(1, middle=3)) == "middle"
    assert refilled(trainer(0, small=7, middle=1), trainer(1, middle=3)) == "middle"
    assert refilled(trainer(0, small=7, middle=1)) == "small"
    assert refilled(trainer(0, small=1, middle=3)) == "middle"
    assert refilled(trainer(0)) is None


def test_nothing_is_held_for_company_while_a_trainer_trains_nothing() -> None:
    assert refilled(trainer(0, small=7), trainer(1)) is None
    starting = TrainerLoad(trainer=1, populations={}, alone=False, pending=True)
    assert refilled(trainer(0, small=7), starting) == "small"


def test_one_trial_is_asked_ahead_of_room_and_after_all_that_find_room_now() -> None:
    assert refilled(trainer(0, small=8)) == "small"
    assert refilled(trainer(0, small=8), waiting={"small": 1}) is None
    assert refilled(trainer(0, small=4), trainer(1, middle=4)) == "small"


def test_a_structure_that_owes_the_sampler_enough_is_not_held() -> None:
    assert refilled(trainer(0, small=1), small=2) == "small"
    assert refilled(trainer(0, small=1), small=3) is None
    assert refilled(trainer(0, small=1), trainer(1, middle=3), small=3) == "middle"


def test_nothing_is_held_for_company_where_a_population_has_one_slot_or_an_unknown_capacity() -> None:
    assert refilled(trainer(0, large=1)) is None
    assert refilled(trainer(0, unknown=1)) is None


@settings(deadline=None)
@given(
    loads=LOADS,
    waiting=st.dictionaries(st.sampled_from(list(CAPACITY)), st.integers(0, 3)),
    debts=st.dictionaries(st.sampled_from(list(CAPACITY)), st.integers(-3, 5)),
    limits=st.dictionaries(st.sampled_from(list(CAPACITY)), st.integers(0, 4)),
    replicates=st.integers(1, 3),
    order=st.randoms(use_true_random=False),
)
def test_a_structure_is_held_exactly_if_a_population_of_it_can_take_more_and_it_owes_little(
    loads: list[TrainerLoad],
    waiting: dict[str, int],
    debts: dict[str, int],
    limits: dict[str, int],
    replicates: int,
    order: random.Random,
) -> None:
    def wanted(structure: str) -> int:
        """How many trials of the structure could be used, those ahead included; none where it may not be held."""
        if any(not t.populations and not t.pending for t in loads):
            return 0
        open_to_it = [t for t in loads if structure in t.populations and not t.pending and not t.alone]
        if not open_to_it or CAPACITY[structure] == 1 or debts.get(structure, 0) >= limits.get(structure, 0):
            return 0
        room = sum((CAPACITY[structure] - t.populations[structure]) // replicates for t in open_to_it)
        return room + AHEAD - waiting.get(structure, 0)

    def held(of: list[TrainerLoad]) -> str | None:
        return refill(of, capacity=CAPACITY, waiting=waiting, debts=debts, limits=limits, replicates=replicates)

    chosen, shuffled = held(loads), list(loads)
    order.shuffle(shuffled)
    assert held(shuffled) == chosen
    if chosen is None:
        assert all(wanted(structure) <= 0 for structure in CAPACITY)
    else:
        assert wanted(chosen) > 0
        if wanted(chosen) <= AHEAD:  # nothing has room now
            assert all(wanted(structure) <= AHEAD for structure in CAPACITY)
