"""How many trials of a study may be in flight at once, and so how many slots of one kind it can fill.

Trials in flight have taught the sampler nothing yet: what they cost the search is in tests/benchmarks/README.md.
"""

from search.definition import StudyDefinition

LEARNING = ("tpe", "gp", "cmaes")
"""Samplers whose next trial depends on how others ended."""
LEAST_IN_FLIGHT, FLIGHT_SHARE = 4, 12
"""Of a study's trials so many, or one in so many, may be in flight at once where the sampler learns from them."""
FEW_SLOTS = 8
"""Slots that a trainer's population may have in any study: a short one fills those of some structures."""


def most_in_flight(definition: StudyDefinition, n_trainers: int) -> int:
    """Return how many trials may be in flight at once."""
    if definition.sampler not in LEARNING:
        return definition.n_trials
    return max(LEAST_IN_FLIGHT, n_trainers, definition.n_trials // FLIGHT_SHARE)


def most_slots(definition: StudyDefinition, n_trainers: int) -> int:
    """Return how many slots of a trainer's population are worth having: there may be no trials for more."""
    return max(FEW_SLOTS, most_in_flight(definition, n_trainers) * definition.n_replicates // n_trainers)
