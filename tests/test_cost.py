"""Claims of search/cost.py: the shares of a trainer's trials add up to the time in which it trained."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.cost import epochs_saved, epochs_trained, trainer_seconds, wall_seconds
from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    EpochReported,
    Event,
    SessionClosed,
    SessionOpened,
    TrialAsked,
    TrialFinished,
)
from search.state import State, fold

ATTEMPT = st.tuples(st.integers(0, 100), st.integers(0, 50), st.integers(0, 2))
"""When it began, how long it took, where."""


def state_of(attempts: list[tuple[int, int, int]]) -> State:
    events: list[Event] = []
    for number, (began, length, trainer) in enumerate(attempts):
        events += [
            TrialAsked(at=0, trial=number, raw={}, hyperparameters={}, baseline=False),
            _started(began, number, 1, trainer),
            TrialFinished(
                at=began + length,
                trial=number,
                attempt=1,
                outcome="complete",
                reason="epochs",
                value=None,
                best_epoch=None,
            ),
        ]
    return fold(events)


def _started(at: float, trial: int, attempt: int, trainer: int) -> AttemptStarted:
    return AttemptStarted(at=at, trial=trial, attempt=attempt, trainer=trainer, device="cpu", structure="", alone=False)


@given(st.lists(ATTEMPT, max_size=12))
def test_shares_add_up_to_the_time_in_which_trainers_trained(attempts: list[tuple[int, int, int]]) -> None:
    shares = trainer_seconds(state_of(attempts))
    busy = {(trainer, second) for began, length, trainer in attempts for second in range(began, began + length)}
    assert sum(shares.values()) == pytest.approx(len(busy))
    assert all(0 <= shares[number] <= length + 1e-9 for number, (_, length, _) in enumerate(attempts))


def test_company_shares_equally_and_an_interrupted_attempt_counts() -> None:
    shares = trainer_seconds(state_of([(0, 10, 0), (5, 10, 0), (0, 10, 1)]))
    assert shares == pytest.approx({0: 7.5, 1: 7.5, 2: 10})
    again = fold(
        [
            TrialAsked(at=0, trial=0, raw={}, hyperparameters={}, baseline=False),
            _started(0, 0, 1, 0),
            AttemptInterrupted(at=4, trial=0, attempt=1, reason="killed"),
            _started(10, 0, 2, 1),
            AttemptInterrupted(at=13, trial=0, attempt=2, reason="killed"),
        ]
    )
    assert trainer_seconds(again) == {0: 7}


def test_a_killed_session_lasted_until_its_last_sign_of_life_and_the_time_between_sessions_counts_for_nothing() -> None:
    opened = SessionOpened(at=0, host="", pid=1, device="cpu", n_trainers=1, probe="")
    asked = TrialAsked(at=1, trial=0, raw={}, hyperparameters={}, baseline=False)
    killed = AttemptInterrupted(at=101, trial=0, attempt=1, reason="")
    report = EpochReported(at=5, trial=0, attempt=1, epoch=2, metrics={})
    closed = SessionClosed(at=110, reason="done", trained_s=0, waited_s=0)
    state = fold([opened, asked, _started(2, 0, 1, 0), report, replace(opened, at=100), killed, closed])
    assert wall_seconds(state) == 5 + 10
    assert wall_seconds(fold([opened])) == 0


def test_epochs_count_every_attempt_and_pruning_saves_those_that_were_left() -> None:
    def reported(attempt: int, epoch: int) -> EpochReported:
        return EpochReported(at=epoch, trial=0, attempt=attempt, epoch=epoch, metrics={})

    events: list[Event] = [
        TrialAsked(at=0, trial=0, raw={}, hyperparameters={}, baseline=False),
        *(_started(0, 0, 1, 0), reported(1, 1), reported(1, 2)),
        AttemptInterrupted(at=3, trial=0, attempt=1, reason=""),
        *(_started(3, 0, 2, 0), reported(2, 1), reported(2, 2), reported(2, 3)),
        TrialFinished(at=4, trial=0, attempt=2, outcome="pruned", reason="rung", value=None, best_epoch=None),
    ]
    assert epochs_trained(fold(events)) == 2 + 3
    assert epochs_saved(fold(events), epochs=9) == 9 - 3
    assert epochs_saved(fold(events[:-1]), epochs=9) == 0
