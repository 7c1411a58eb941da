"""What a trial in training promises, worked out by hand."""

import math

import optuna
import pytest
from optuna.trial import TrialState

from search.events import AttemptStarted, EpochReported, TrialAsked, TrialFinished
from search.promise import Promises, PromisingStorage
from search.state import State, Trial, fold


def trial(*values: float, complete: bool = False, maximize: bool = True) -> Trial:
    """A trial that reported these values from epoch 1 on."""
    state = fold(
        [
            TrialAsked(at=0.0, trial=0, raw={}, hyperparameters={}, baseline=False),
            AttemptStarted(at=0.0, trial=0, attempt=1, trainer=0, device="cpu", structure="s", alone=False),
            *(
                EpochReported(at=0.0, trial=0, attempt=1, epoch=epoch, metrics={"metric": value})
                for epoch, value in enumerate([math.nan, *values])
            ),
        ],
        State(),
    )
    best = state.trials[0].best("metric", maximize=maximize)
    if complete and best:
        epoch, value = best
        end = TrialFinished(
            at=0.0, trial=0, attempt=1, outcome="complete", reason="epochs", value=value, best_epoch=epoch
        )
        fold([end], state)
    return state.trials[0]


def promises(*complete: Trial, maximize: bool = True) -> Promises:
    learned = Promises(metric="metric", maximize=maximize)
    for each in complete:
        learned.learn(each)
    return learned


def test_a_trial_promises_its_best_and_what_complete_trials_gained_from_its_epoch_on_on_average() -> None:
    learned = promises(trial(0.1, 0.5, 0.6, complete=True), trial(0.3, 0.2, 0.4, complete=True))
    assert learned.of(trial(0.2)) == pytest.approx(0.2 + (0.5 + 0.1) / 2)
    assert learned.of(trial(0.7, 0.2)) == pytest.approx(0.7 + (0.1 + 0.1) / 2)


def test_a_loss_promises_to_fall() -> None:
    learned = promises(trial(3.0, 1.0, complete=True, maximize=False), maximize=False)
    assert learned.of(trial(4.0)) == pytest.approx(2.0)


def test_nothing_is_promised_before_an_epoch_or_beyond_what_was_ever_completed() -> None:
    learned = promises(trial(0.1, 0.2, complete=True))
    assert learned.of(trial()) is None
    assert learned.of(trial(math.nan)) is None
    assert learned.of(trial(0.1, 0.1, 0.1)) is None
    assert promises().of(trial(0.5)) is None


def test_storage_shows_what_promises_something_as_complete_and_all_others_as_they_are() -> None:
    storage = PromisingStorage()
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler())
    trials = [study.ask() for _ in range(5)]
    study.tell(trials[0], 7.0)
    for promised in ({2: 3.0, 3: 4.0}, {4: 5.0}, {}):
        storage.promise(study._study_id, promised)
        seen = storage.get_all_trials(study._study_id, deepcopy=False)
        assert [trial.number for trial in seen] == [0, 1, 2, 3, 4]
        complete = (TrialState.COMPLETE,)
        values = {t.number: t.value for t in storage.get_all_trials(study._study_id, states=complete)}
        assert values == {0: 7.0} | promised
        running = storage.get_all_trials(study._study_id, states=(TrialState.RUNNING,))
        assert [trial.number for trial in running] == [n for n in range(1, 5) if n not in promised]
    assert all(trial.value is None for trial in seen[1:])
