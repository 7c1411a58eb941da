"""Which trainer takes a trial: what trains together, and what fills a free slot. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLoad:
    """What a trainer holds at this moment."""

    trainer: int
    populations: Mapping[str, int]
    """Structure -> slots in training."""
    alone: bool
    """It trains a trial that must share the trainer with nobody."""
    pending: bool
    """It cannot be given a trial now: it is starting, or an admission is unanswered."""


def load(trainer_load: TrainerLoad, capacity: Mapping[str, int]) -> float:
    """How full a trainer is: 0 is empty, 1 or more is full; a structure of unknown capacity counts as capacity 1."""
    return sum(slots / capacity.get(structure, 1) for structure, slots in trainer_load.populations.items())


def place(
    structure: str | None,
    *,
    alone: bool,
    loads: Sequence[TrainerLoad],
    capacity: Mapping[str, int],
    replicates: int = 1,
) -> int | None:
    """Return the trainer that takes a trial, or None where it has to wait.

    A population that trains the structure and has room is preferred, then the least loaded trainer, then the lowest
    number. Nobody waits for company: any structure goes to any trainer that is not full. `alone` asks for an empty one.

    Args:
        structure: None asks whether any trainer could take some trial now.
        replicates: slots the trial needs; more than the capacity are given a trainer without this structure.
    """
    candidates = [
        each
        for each in loads
        if not each.pending
        and not each.alone
        and (not each.populations if alone else load(each, capacity) < 1)
        and (structure not in each.populations or _has_room(each, structure, capacity, replicates))
    ]
    best = min(
        candidates,
        key=lambda each: (structure not in each.populations, load(each, capacity), each.trainer),
        default=None,
    )
    return None if best is None else best.trainer


def _has_room(each: TrainerLoad, structure: str | None, capacity: Mapping[str, int], replicates: int) -> bool:
    return structure is not None and each.populations[structure] + replicates <= capacity.get(structure, 1)
