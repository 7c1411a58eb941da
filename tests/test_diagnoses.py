"""The diagnoses of a study's trials, kept up to date."""

from dataclasses import replace

import pytest

from search.diagnoses import Diagnoses, counted, interrupted
from search.diagnosis import Yardstick, diagnose
from search.events import EpochReported, Event, StudyCreated
from search.pruning import has_diverged
from search.state import Trial, fold
from tests.histories import history, trained

EVENTS = history(n_trials=16)
STATE = fold(EVENTS)


def test_every_finished_trial_with_a_trained_epoch_has_one_and_so_far_where_it_ended_early() -> None:
    found = Diagnoses().of(STATE)
    assert found.keys() == STATE.trials.keys()
    for number, each in found.items():
        trial = STATE.trials[number]
        assert (each is None) == (max(report.epoch for report in trial.reports) == 0)
        assert each is None or each.so_far == (trial.outcome != "complete")
    labels = [each.label for each in found.values() if each]
    told = [entry.partition(" ") for entry in counted(found.values()).split(", ")]
    assert {label: int(n) for n, _, label in told} == {label: labels.count(label) for label in labels}


def test_what_is_remembered_equals_what_is_found_anew_after_every_event() -> None:
    remembering = Diagnoses()
    for n in range(1, len(EVENTS) + 1):
        state = fold(EVENTS[:n])
        assert dict(remembering.of(state)) == dict(Diagnoses().of(state))


def test_classes_are_counted_in_the_trial_s_own_confusion() -> None:
    """A network that names one class of four, 25 examples each, has stalled; two errors more, and it has not."""
    counts = tuple((25, 0, 0, 0) for _ in range(4))
    untrained = {"train_loss": 1.4, "val_loss": 1.4, "val_accuracy": 0.1}
    for accuracy, label in ((0.33, "stalled"), (0.34, "healthy")):
        events: list[Event] = [
            replace(event, confusion=counts) if isinstance(event, EpochReported) else event
            for event in trained(0, [untrained, untrained | {"val_accuracy": accuracy}])
        ]
        found = Diagnoses().of(fold([EVENTS[0], *events]))[0]
        assert found is not None
        assert found.label == label


def test_what_is_trained_on_is_no_sample() -> None:
    created = EVENTS[0]
    assert isinstance(created, StudyCreated)
    losses = [1.3, 1.2, 1.1, 1.0, 0.95, 0.92]
    epochs = [{"train_loss": loss, "val_loss": loss, "val_loss_se": 0.1, "val_accuracy": 0.5} for loss in losses]
    for validation, label in (("train", "still improving"), ("held_out", "healthy")):
        facts = dict(created.facts) | {"validation": validation}
        found = Diagnoses().of(fold([replace(created, facts=facts), *trained(0, epochs)]))[0]
        assert found is not None
        assert found.label == label


def test_a_trial_that_was_stopped_as_diverged_is_diagnosed_so() -> None:
    stopped = [trial for trial in STATE.trials.values() if trial.reason == "diverged"]
    assert stopped
    found = Diagnoses().of(STATE)
    assert {each.label for trial in stopped if (each := found[trial.number])} == {"diverged"}


@pytest.mark.parametrize("first", [0.1, 2.3, -1.0])
@pytest.mark.parametrize("last", [0.5, 5.0, 22.0, 24.0, 1e6, float("inf"), float("nan")])
def test_whoever_would_be_stopped_is_diagnosed_diverged(first: float, last: float) -> None:
    epochs = [{"train_loss": loss, "val_loss": loss, "val_accuracy": 0.1} for loss in (first, first / 2, last)]
    state = fold([EVENTS[0], *trained(0, epochs)])
    found = Diagnoses().of(state)[0]
    assert found is not None
    assert not has_diverged(state.trials[0]) or found.label == "diverged"


def test_an_interrupted_attempt_is_diagnosed_by_itself() -> None:
    trial: Trial = STATE.trials[4]
    reports = trial.attempts[0].reports
    found = interrupted(reports, STATE)
    alone = diagnose([report.metrics for report in reports], Yardstick(), so_far=True)
    assert found == alone
    assert found is not None
    assert found.so_far
