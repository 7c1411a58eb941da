"""What trainings cost: each trial's share of its trainers' time, from the ledger alone. Pure."""

import math
from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise

from search.state import State


def trainer_seconds(state: State) -> dict[int, float]:
    """Each trial's share of its trainers' time, interrupted attempts included, in seconds.

    What several trained at once is shared equally among them, so that the shares on one trainer add up to the time in
    which it had anything to train. An attempt that still trains counts up to the last time that the state knows of.
    """
    now = max(_times(state), default=0.0)
    changes: defaultdict[int, list[tuple[float, int, int]]] = defaultdict(list)
    for trial in state.trials.values():
        for attempt in trial.attempts:
            ended = now if attempt.ended_at is None else attempt.ended_at
            if ended > attempt.started_at:
                changes[attempt.trainer] += [(attempt.started_at, 1, trial.number), (ended, -1, trial.number)]
    shares = dict.fromkeys(state.trials, 0.0)
    for of_trainer in changes.values():
        training: set[int] = set()
        since = 0.0
        for at, change, number in sorted(of_trainer):
            for each in training:
                shares[each] += (at - since) / len(training)
            since = at
            (training.add if change > 0 else training.discard)(number)
    return shares


def epochs_trained(state: State) -> int:
    """Epochs of all attempts, the interrupted ones included."""
    return sum(
        max((report.epoch for report in attempt.reports), default=0)
        for trial in state.trials.values()
        for attempt in trial.attempts
    )


def epochs_saved(state: State, *, epochs: int) -> int:
    """Epochs that pruned trials had left."""
    return sum(
        epochs - max((report.epoch for report in trial.reports), default=0) for trial in state.with_outcome("pruned")
    )


def wall_seconds(state: State) -> float:
    """The time of all sessions, in seconds; one that was killed, or goes on, lasted until the last that is known."""
    starts = [session.at for session in state.sessions]
    known = [*_times(state), *(closed.at for closed in state.closed)]
    return sum(
        max((at for at in known if start <= at < following), default=start) - start
        for start, following in pairwise([*starts, math.inf])
    )


def _times(state: State) -> Iterable[float]:
    for trial in state.trials.values():
        for attempt in trial.attempts:
            yield attempt.started_at
            yield from (report.at for report in attempt.reports)
            if attempt.ended_at is not None:
                yield attempt.ended_at
