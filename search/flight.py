"""How many trials of a study may be in flight at once, and so how many slots of one kind it can fill.

Trials in flight have taught the sampler nothing yet: what they cost the search is in tests/benchmarks/README.md.
"""

from search.contract import Capacity
from search.definition import StudyDefinition

LEARNING = ("tpe", "gp", "cmaes")
"""Samplers whose next trial depends on how others ended."""
LEAST_IN_FLIGHT, FLIGHT_SHARE = 4, 12
"""Of a study's trials so many, or one in so many, may be in flight at once where the sampler learns from them."""
FORESIGHT = 4
"""A study is taken to have so many times the trials that it has asked, if not all: for how many there is time, nobody
knows, and what a long study could afford costs a short one its start (tests/benchmarks/README.md)."""
FEW_SLOTS = 8
"""Slots that a trainer's population may have in any study: a short one fills those of some structures."""
LEAST_SAVING = 1 / 3
"""Of a lone slot's update, that company must save where the sampler learns: a trial in company takes longer to teach it
something (tests/benchmarks/README.md)."""


def foreseen(definition: StudyDefinition, n_asked: int) -> int:
    """Return how many trials a study that has asked so many is taken to have."""
    if definition.sampler not in LEARNING:
        return definition.n_trials
    return min(definition.n_trials, FORESIGHT * n_asked)


def most_in_flight(definition: StudyDefinition, n_trainers: int, *, n_asked: int) -> int:
    """Return how many trials may be in flight at once."""
    if definition.sampler not in LEARNING:
        return definition.n_trials
    return max(LEAST_IN_FLIGHT, n_trainers, foreseen(definition, n_asked) // FLIGHT_SHARE)


def slots_wanted(definition: StudyDefinition, capacity: Capacity) -> int:
    """Return how many slots of a structure are to train at once, of those that pay: one where company hardly does."""
    return capacity.slots if definition.sampler not in LEARNING or capacity.saves >= LEAST_SAVING else 1


def most_slots(definition: StudyDefinition, n_trainers: int) -> int:
    """Return how many slots of a trainer's population are worth having: there may be no trials for more."""
    in_flight = most_in_flight(definition, n_trainers, n_asked=definition.n_trials)
    return max(FEW_SLOTS, in_flight * definition.n_replicates // n_trainers)
