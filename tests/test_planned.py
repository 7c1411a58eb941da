"""Claims of search/planned.py and of phases in the ledger: each run once, where is room, apart from the search."""

from dataclasses import replace
from itertools import count

import click
import pytest

from search.cohort import TrainerLoad
from search.contract import HyperparameterRule
from search.events import AttemptStarted, Event, StagePlanned, TrialFinished, in_phase, phase_of
from search.options import Duration
from search.planned import Planned
from search.state import State, apply, fold
from tests.fakes import FakeObjective
from tests.histories import history
from tests.running import fake_study

STUDY = fake_study()
RULES: dict[str, HyperparameterRule] = dict(FakeObjective.HYPERPARAMETERS)
WIDE, NARROW = {"quality": 0.5, "drop": 0.0, "shape": 2}, {"quality": 0.6, "drop": 0.1, "shape": 1}
STAGES = [
    StagePlanned(at=0, stage="first", configurations={"wide": WIDE, "narrow": NARROW}, seeds=(11, 12, 13)),
    StagePlanned(at=0, stage="second", configurations={"narrow": NARROW}, seeds=(21,)),
]


def planned(state: State) -> Planned:
    def record(*events: Event) -> None:
        for event in events:
            apply(state, event)

    def plan(state: State) -> StagePlanned | None:
        return next((stage for stage in STAGES if stage.stage not in state.stages), None)

    ticks = count()
    return Planned(
        definition=STUDY, state=state, rules=RULES, plan=plan, record=record, clock=lambda: float(next(ticks))
    )


def load(state: State) -> list[TrainerLoad]:
    populations: dict[str, int] = {}
    for trial in state.running:
        structure = trial.attempts[-1].structure
        populations[structure] = populations.get(structure, 0) + 1
    return [TrainerLoad(trainer=0, populations=populations, alone=False, pending=False)]


def start(admission: Planned, state: State) -> list[tuple[str, tuple[int, ...]]]:
    """Start whatever finds a place; return what did."""
    started = []
    for trial, trainer in admission.fill(lambda: load(state)):
        key = admission.structure(trial)
        apply(
            state,
            AttemptStarted(
                at=0,
                trial=trial.number,
                attempt=len(trial.attempts) + 1,
                trainer=trainer,
                device="cpu",
                structure=key,
                alone=False,
            ),
        )
        started.append((trial.configuration, trial.seeds))
    return started


def finish(state: State) -> None:
    for trial in state.running:
        apply(
            state,
            TrialFinished(
                at=1, trial=trial.number, attempt=1, outcome="complete", reason="epochs", value=0.5, best_epoch=1
            ),
        )


def test_run_without_a_place_does_not_hold_up_those_that_have_one() -> None:
    stage = StagePlanned(at=0, stage="only", configurations={"n": NARROW, "w": WIDE, "m": NARROW}, seeds=(1, 2))
    state = State()
    admission = replace(planned(state), plan=lambda state: None if state.stages else stage)
    admission.capacity |= {"shape=2": 1, "default": 3}
    assert start(admission, state) == [("n", (1,)), ("n", (2,)), ("w", (1,)), ("m", (1,))]  # the second w waits
    finish(state)
    assert start(admission, state) == [("w", (2,))]  # it fills the trainer
    finish(state)
    assert start(admission, state) == [("m", (2,))]


def test_next_stage_waits_for_the_last_run_of_the_one_before_and_then_there_is_no_more() -> None:
    state = State()
    admission = planned(state)
    admission.capacity |= {"shape=2": 3, "default": 3}
    n_started = 0
    while not admission.exhausted:
        assert (len(state.trials) == 7) == ("second" in state.stages)
        n_started += len(start(admission, state))
        if "second" not in state.stages:
            assert not admission.exhausted
        finish(state)
    assert n_started == len(state.trials) == 7
    assert [trial.stage for trial in state.trials.values()] == ["first"] * 6 + ["second"]
    assert state.trials[6].hyperparameters["drop"] == 0.1


def test_phase_and_search_are_folded_apart_whatever_their_order() -> None:
    events = list(history())
    inside = [in_phase(replace(event, at=event.at), "confirm-1") for event in events]
    apart = fold(events)
    both = [each for pair in zip(events, inside, strict=True) for each in pair]
    mixed = fold(each for i, each in enumerate(both) if i % 2 == 0 or phase_of(each))
    assert mixed.trials == apart.trials
    assert mixed.finish_order == apart.finish_order
    assert list(mixed.phases) == ["confirm-1"]
    within = mixed.phases["confirm-1"]
    assert {n: replace(t, attempts=()) for n, t in within.trials.items()} == {
        n: replace(t, attempts=()) for n, t in apart.trials.items()
    }
    assert within.created == apart.created
    assert not within.phases


def test_event_of_a_phase_says_so_and_one_of_the_whole_study_never_does() -> None:
    for event in history():
        told = in_phase(event, "ablate-1")
        assert phase_of(told) in ("ablate-1", "")
        assert (phase_of(told) == "") == (not hasattr(event, "phase"))
        assert in_phase(event, "") == event


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("0.5s", 0.5)])
def test_duration_has_a_unit(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["20", "m", "-1m", "0m", "1 h", "1e9s", "soon", ""])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"must be a time such as 90s, 20m or 1\.5h"):
        Duration().convert(text, None, None)


def test_run_is_asked_with_the_values_that_the_stage_gives() -> None:
    state = State()
    start(planned(state), state)
    asked = state.trials[0]
    assert isinstance(asked.hyperparameters["quality"], float)
    assert {name: asked.hyperparameters[name] for name in WIDE} == WIDE
