"""Which trainer takes a trial, and which structure the next one should have: what trains together. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

AHEAD = 1
"""Trials asked before their population has room for them: asking takes longer than many an epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLoad:
    """What a trainer holds at this moment."""

    trainer: int
    populations: Mapping[str, int]
    """Structure -> slots in training."""
    alone: bool
    """It trains a trial that must share the trainer with nobody."""
    pending: bool
    """It is starting, and cannot be given a trial yet."""


def load(trainer_load: TrainerLoad, capacity: Mapping[str, int]) -> float:
    """How full a trainer's fullest population is, 0 to 1. A structure of unknown capacity counts as capacity 1."""
    fills = (slots / capacity.get(structure, 1) for structure, slots in trainer_load.populations.items())
    return max(fills, default=0.0)


def idle(loads: Sequence[TrainerLoad]) -> bool:
    """Whether a trainer trains nothing, and could."""
    return any(not each.populations and not each.pending for each in loads)


def place(
    structure: str | None,
    *,
    alone: bool,
    loads: Sequence[TrainerLoad],
    capacity: Mapping[str, int],
    replicates: int = 1,
    joins: bool = False,
    spread: bool = False,
) -> int | None:
    """Return the trainer that takes a trial, or None where it has to wait.

    A trainer that trains nothing is preferred, since an idle core loses more than company saves; then a population that
    trains the structure and has room, whatever else its trainer still trains; then the least loaded trainer, if it is
    not full, then the lowest number. `alone` asks for an empty trainer.

    Args:
        structure: None asks whether any trainer could take some trial of another structure now.
        replicates: slots the trial needs; more than the capacity are given a trainer without this structure.
        joins: only a population of this structure will do.
        spread: the least loaded trainer takes it, whatever it trains, and is waited for while it starts: all that is
            to come waits already, so that a trainer that is left idle for the sake of company stays idle.
    """
    candidates = [
        each
        for each in loads
        if (not each.pending or spread)
        and not each.alone
        and (not each.populations if alone else _takes(each, structure, capacity, replicates))
        and (structure in each.populations or not joins)
    ]
    best = min(
        candidates,
        key=lambda each: (
            bool(each.populations),
            structure not in each.populations and not spread,
            load(each, capacity),
            structure not in each.populations,
            each.trainer,
        ),
        default=None,
    )
    return None if best is None or best.pending else best.trainer


def refill(
    loads: Sequence[TrainerLoad],
    *,
    capacity: Mapping[str, int],
    waiting: Mapping[str, int],
    debts: Mapping[str, int],
    limits: Mapping[str, int],
    replicates: int = 1,
) -> str | None:
    """Return the structure that the next trial is to have so that populations are full, or None.

    Of the emptiest trainer it is the fullest population's: one full population is better than two that are half full.
    None while a trainer trains nothing: a trial that is to have company would leave it idle. A structure is held while
    it owes the sampler fewer trials than its limit. What has room for one now comes before what will need one later.

    Args:
        capacity: of the structures for which it is known; others are not refilled.
        waiting: structure -> trials that were asked and are not in training.
        debts: structure -> trials that were given it, less those the sampler drew with it.
        limits: structure -> how many it may owe; none where it is absent.
    """
    if idle(loads):
        return None
    found = []
    for structure, slots in capacity.items():
        holders = [each for each in loads if structure in each.populations and _may_join(each)]
        room = sum((slots - each.populations[structure]) // replicates for each in holders) - waiting.get(structure, 0)
        if holders and slots > 1 and room > -AHEAD and debts.get(structure, 0) < limits.get(structure, 0):
            first = min((load(each, capacity), -each.populations[structure] / slots) for each in holders)
            found.append((room <= 0, *first, structure))
    return min(found)[-1] if found else None


def _may_join(each: TrainerLoad) -> bool:
    return not each.pending and not each.alone


def _takes(each: TrainerLoad, structure: str | None, capacity: Mapping[str, int], replicates: int) -> bool:
    if structure is not None and structure in each.populations:
        return each.populations[structure] + replicates <= capacity.get(structure, 1)
    return load(each, capacity) < 1
