"""What follows when a population raises or a trainer dies: who is trained again, and how. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.contract import Failed
from search.state import Trial

MAX_DEATHS = 3
"""A trial whose trainer died so often while it trained alone is given up. A kill from outside proves nothing against
a trial, so one death is not enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """Either the trials are given up, or they are trained again."""

    give_up: bool = False
    alone_next: bool = False
    max_slots: int | None = None
    """The most slots that populations of this structure may hold from now on."""


def after_failure(failed: Failed, trials: Sequence[Trial], company: Sequence[Trial], *, replicates: int) -> Recovery:
    """A population raised: a trial that was alone is to blame, a memory that was too small is shared less.

    Args:
        trials: those of the population that are still running.
        company: all that run on its trainer, evictions on their way included.
        replicates: slots of a trial.
    """
    if len(failed.trials) == len(company) == 1 or all(trial.attempts[-1].alone for trial in trials):
        return Recovery(give_up=True)
    if failed.out_of_memory and len(failed.trials) > 1:
        return Recovery(max_slots=max(1, len(failed.trials) * replicates // 2))
    return Recovery(alone_next=True)


def after_death(company: Sequence[Trial]) -> Recovery:
    """A trainer's process ended while these trials ran on it."""
    if len(company) == 1 and _deaths_alone(company[0]) >= MAX_DEATHS - 1:
        return Recovery(give_up=True)
    return Recovery(alone_next=True)


def _deaths_alone(trial: Trial) -> int:
    return sum(attempt.alone and attempt.interrupted.startswith("trainer died") for attempt in trial.attempts)
