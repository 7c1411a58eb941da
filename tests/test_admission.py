"""Claims of search/admission.py that a whole study shows seldom; the others are in tests/test_coordinator.py."""

import pytest

from search.admission import sampled
from search.cohort import TrainerLoad
from search.events import AttemptStarted, TrialAsked
from search.state import State, apply
from tests.fakes import FakeObjective
from tests.running import fake_study


@pytest.mark.parametrize(("in_training", "placed"), [([0], [(1, 1)]), ([0, 2], [])], ids=["idle", "busy"])
def test_trial_that_waits_for_company_does_not_wait_while_a_trainer_trains_nothing(
    in_training: list[int], placed: list[tuple[int, int]]
) -> None:
    """Trial 1 was given the structure of trial 0, whose population is full; trial 2 may be on trainer 1."""
    state, shapes = State(), [1, 1, 2]
    admission = sampled(fake_study(n_trials=3), state, FakeObjective.HYPERPARAMETERS, aside=False, clock=lambda: 0.0)(
        lambda event: apply(state, event)
    )
    for trial in {*in_training, 1}:
        raw = {"quality": 0.5, "drop": 0.0, "shape": shapes[trial]}
        drawn = {"shape": 2} if trial == 1 else {}
        apply(state, TrialAsked(at=0, trial=trial, raw=raw, hyperparameters=raw, baseline=trial == 0, drawn=drawn))
    loads = [TrainerLoad(trainer=number, populations={}, alone=False, pending=False) for number in (0, 1)]
    for trainer, trial in enumerate(in_training):
        structure = admission.structure(state.trials[trial])
        loads[trainer] = TrainerLoad(trainer=trainer, populations={structure: 1}, alone=False, pending=False)
        admission.capacity[structure] = 1
        apply(
            state,
            AttemptStarted(
                at=0, trial=trial, attempt=1, trainer=trainer, device="cpu", structure=structure, alone=False
            ),
        )
    first = next(iter(admission.fill(lambda: loads)), None)
    assert placed == ([] if first is None else [(first[0].number, first[1])])
