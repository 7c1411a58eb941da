"""The state: what a history means, wherever it was cut and resumed."""

import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    CheckpointRemoved,
    CheckpointSaved,
    EpochReported,
    Event,
    ModelExported,
    SessionClosed,
    SessionOpened,
    StudyCreated,
    TrialAsked,
    TrialFinished,
)
from search.ledger import Ledger
from search.state import State, apply, fold

CREATED = StudyCreated(
    at=0.0, study="s", definition={}, fingerprint="f", precision="float32", facts={}, versions={}, commit=""
)


def asked(trial: int) -> TrialAsked:
    return TrialAsked(at=1.0, trial=trial, raw={"lr": 0.1}, hyperparameters={"lr": 0.1}, baseline=trial == 0)


def started(trial: int, attempt: int = 1, *, structure: str = "s") -> AttemptStarted:
    return AttemptStarted(
        at=2.0, trial=trial, attempt=attempt, trainer=0, device="cpu", structure=structure, alone=False
    )


def reported(trial: int, epoch: int, value: float, *, attempt: int = 1, **changes: Any) -> EpochReported:
    return EpochReported(at=3.0, trial=trial, attempt=attempt, epoch=epoch, metrics={"val_accuracy": value}, **changes)


def interrupted(trial: int, attempt: int = 1, **changes: Any) -> AttemptInterrupted:
    return AttemptInterrupted(at=4.0, trial=trial, attempt=attempt, reason="killed", **changes)


def finished(trial: int, attempt: int = 1, *, value: float | None = 0.5, **changes: Any) -> TrialFinished:
    given: dict[str, Any] = {"outcome": "complete", "reason": "epochs", "best_epoch": 1} | changes
    return TrialFinished(at=5.0, trial=trial, attempt=attempt, value=value, **given)


# ---------------------------------------------------------------- any history, cut anywhere


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What coordinators may append: trials asked, trained, interrupted and ended in any order that can happen."""
    events: list[Event] = [CREATED]
    state = fold(events)
    for number in range(draw(st.integers(0, 40))):
        event = draw(st.sampled_from(_possible(state, draw, number)))
        apply(state, event)
        events.append(event)
    return events


def _possible(state: State, draw: st.DrawFn, at: int) -> Sequence[Event]:
    value = draw(st.floats() | st.sampled_from([0.25, 0.5]))
    events: list[Event] = [
        asked(len(state.trials)),
        SessionOpened(at=at, host="h", pid=at, device="cpu", n_trainers=2, probe=""),
        SessionClosed(at=at, reason="interrupted", trained_s=value, waited_s=0.0),
    ]
    events += [started(t.number, len(t.attempts) + 1, structure=f"s{t.number % 2}") for t in state.waiting]
    for trial in state.running:
        number, attempt = trial.number, len(trial.attempts)
        limit = draw(st.none() | st.integers(1, 8))
        events += [
            reported(number, len(trial.reports), value, attempt=attempt, confusion=((1, 2), (3, 4))),
            reported(number, len(trial.reports), 0.5, attempt=attempt, replicates=({"a": value}, {"a": math.nan})),
            interrupted(number, attempt, alone_next=value > 0, max_slots=limit),
            CheckpointSaved(at=at, trial=number, attempt=attempt, path="p", sha256="0"),
            finished(number, attempt, value=None if math.isnan(value) else value),
            finished(number, attempt, value=None, outcome="failed", reason="error", error="E", traceback="T"),
        ]
    for trial in state.finished:
        events += [CheckpointRemoved(at=at, trial=trial.number), ModelExported(at=at, trial=trial.number, path="m")]
    return events


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories(), cuts=st.lists(st.integers(0, 41), max_size=4))
def test_a_history_cut_and_resumed_anywhere_folds_into_the_uninterrupted_state(
    history: list[Event], cuts: list[int]
) -> None:
    """Each piece is appended by a coordinator of its own, to a ledger that is opened again and read from its start."""
    edges = [0, *sorted(min(cut, len(history)) for cut in cuts), len(history)]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        live = State()
        for begin, end in pairwise(edges):
            ledger = Ledger(path, create=True)
            live = fold(ledger.events())
            for event in history[begin:end]:
                ledger.append(event)
                apply(live, event)
            ledger.close()
        ledger = Ledger(path)
        resumed = fold(ledger.events())
        followed = State()
        for begin, end in pairwise(edges):  # as a view does: from its cursor on
            fold((event for seq, event in ledger.read(after=begin) if seq <= end), followed)
        ledger.close()
    expected = repr(fold(history))  # NaN differs from itself, its repr does not
    assert repr(live) == expected
    assert repr(resumed) == expected
    assert repr(followed) == expected


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(history=histories())
def test_every_trial_is_finished_running_or_waiting_and_counted_once(history: list[Event]) -> None:
    state = fold(history)
    sorted_out = [t.number for t in (*state.finished, *state.running, *state.waiting)]
    assert sorted(sorted_out) == list(range(sum(isinstance(event, TrialAsked) for event in history)))
    assert state.finish_order == [event.trial for event in history if isinstance(event, TrialFinished)]
    assert list(state.unfinished) == [trial.number for trial in state.trials.values() if trial.outcome is None]
    for trial in state.trials.values():
        assert [attempt.number for attempt in trial.attempts] == list(range(1, len(trial.attempts) + 1))
        assert [report.epoch for report in trial.reports] == list(range(len(trial.reports)))
        assert all(report.attempt == len(trial.attempts) for report in trial.reports)


# ---------------------------------------------------------------- attempts


def test_an_interrupted_attempt_s_reports_no_longer_count() -> None:
    state = fold([CREATED, asked(0), started(0), reported(0, 0, 0.1), reported(0, 1, 0.9)])
    assert state.trials[0].best("val_accuracy", maximize=True) == (1, 0.9)
    fold([interrupted(0)], state)
    assert state.trials[0].reports == ()
    assert state.trials[0].best("val_accuracy", maximize=True) is None
    assert [trial.number for trial in state.waiting] == [0]
    fold([started(0, 2), reported(0, 0, 0.1, attempt=2), reported(0, 1, 0.3, attempt=2)], state)
    assert state.trials[0].best("val_accuracy", maximize=True) == (1, 0.3)
    assert len(state.trials[0].attempts[0].reports) == 2  # kept, for the run of the dead attempt


def test_a_late_report_of_an_interrupted_attempt_does_not_count_for_the_next() -> None:
    state = fold([CREATED, asked(0), started(0), interrupted(0), started(0, 2), reported(0, 1, 0.9, attempt=1)])
    assert state.trials[0].reports == ()


def test_an_interrupted_attempt_s_checkpoint_is_forgotten() -> None:
    saved = CheckpointSaved(at=1.0, trial=0, attempt=1, path="p", sha256="0")
    state = fold([CREATED, asked(0), started(0), saved])
    assert state.trials[0].checkpoint is not None
    assert fold([interrupted(0)], state).trials[0].checkpoint is None


def test_an_attempt_that_may_have_brought_others_down_is_repeated_alone() -> None:
    state = fold([CREATED, asked(0), started(0), interrupted(0, alone_next=True)])
    assert state.trials[0].alone_next
    assert not fold([started(0, 2), interrupted(0, 2)], state).trials[0].alone_next


def test_memory_limits_of_a_structure_only_ever_shrink() -> None:
    state = fold([CREATED, asked(0), started(0), asked(1), started(1), asked(2), started(2, structure="other")])
    assert fold([interrupted(0, max_slots=2)], state).max_slots == {"s": 2}
    assert fold([interrupted(1, max_slots=4)], state).max_slots == {"s": 2}
    assert fold([interrupted(2, max_slots=3)], state).max_slots == {"s": 2, "other": 3}


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("values", "maximize", "until", "expected"),
    [
        ([0.9, 0.2, 0.5, 0.5], True, None, (2, 0.5)),
        ([0.0, 0.2, 0.1, 0.1], False, None, (2, 0.1)),
        ([0.9, 0.2, 0.5, 0.7], True, 2, (2, 0.5)),
        ([0.9, math.nan, math.inf, 0.3], True, None, (3, 0.3)),
        ([0.9, math.nan, -math.inf], False, None, None),
        ([0.9], True, None, None),
        ([0.9, 0.0, -0.0], True, None, (1, 0.0)),
    ],
)
def test_the_best_epoch_is_the_first_of_the_best_finite_ones_after_epoch_0(
    values: list[float], maximize: bool, until: int | None, expected: tuple[int, float] | None
) -> None:
    reports = [reported(0, epoch, value) for epoch, value in enumerate(values)]
    trial = fold([CREATED, asked(0), started(0), *reports]).trials[0]
    assert trial.best("val_accuracy", maximize=maximize, until=until) == expected
    assert trial.best("no_such_metric", maximize=maximize) is None


def test_complete_trials_are_ranked_best_first_and_the_earlier_of_equals_first() -> None:
    ended = [finished(0, value=0.5), finished(1, value=0.7), finished(2, value=0.7), finished(3, value=None)]
    ended.append(finished(4, value=0.9, outcome="pruned", reason="rung"))
    state = fold([CREATED, *(event for number in range(5) for event in (asked(number), started(number))), *ended])
    assert [trial.number for trial in state.ranked(maximize=True)] == [1, 2, 0]
    assert [trial.number for trial in state.ranked(maximize=False)] == [0, 1, 2]


def test_the_confusion_counts_are_those_of_the_best_epoch() -> None:
    counts = [((epoch,),) for epoch in range(3)]
    reports = [reported(0, epoch, 0.5, confusion=counts[epoch]) for epoch in range(3)]
    state = fold([CREATED, asked(0), started(0), *reports])
    assert state.trials[0].confusion is None
    assert fold([finished(0, best_epoch=1)], state).trials[0].confusion == ((1,),)


def test_a_trial_knows_how_many_were_finished_when_it_was_asked() -> None:
    events: list[Event] = [asked(0), asked(1), started(0), started(1), finished(1), asked(2), finished(0), asked(3)]
    state = fold([CREATED, *events])
    assert [trial.asked_after for trial in state.trials.values()] == [0, 0, 1, 2]
    assert state.finish_order == [1, 0]
