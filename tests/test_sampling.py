"""The next trial: exact, repeatable, the same after any interruption."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from search import space
from search.contract import Value
from search.definition import StudyDefinition
from search.errors import DefinitionError
from search.events import AttemptStarted, EpochReported, Event, Outcome, Reason, TrialAsked, TrialFinished
from search.sampling import Sampling, trial_seed
from search.state import State, Trial, apply
from tests.studies import definition

SAMPLERS = ("tpe", "random", "qmc", "cmaes", "gp")


def study(sampler: str, **changes: object) -> StudyDefinition:
    return definition(sampler=sampler, epochs=4, **changes)


def record(state: State, *events: Event) -> None:
    for event in events:
        apply(state, event)


def asked(state: State, number: int, raw: dict[str, Value]) -> None:
    record(
        state,
        TrialAsked(at=0.0, trial=number, raw=raw, hyperparameters=raw, baseline=number == 0),
        AttemptStarted(at=0.0, trial=number, attempt=1, trainer=0, device="cpu", structure="s", alone=False),
    )


def ended(state: State, number: int) -> None:
    """End a trial as its number decides: complete, pruned, diverged or failed, all at the same time of day."""
    lr, dropout = (drawn(state.trials[number], name) for name in ("lr", "dropout"))
    value = 1.0 - (math.log10(lr) + 2.0) ** 2 / 10 - dropout / 5
    n_epochs = 4 if number % 3 == 0 else 1
    metrics = [value - 0.1 * (n_epochs - epoch) for epoch in range(1, n_epochs + 1)]
    if number % 7 == 5:
        metrics = [math.nan] * n_epochs
    record(
        state,
        *(
            EpochReported(at=0.0, trial=number, attempt=1, epoch=epoch, metrics={"val_accuracy": metric})
            for epoch, metric in enumerate([0.1, *metrics])
        ),
    )
    best = state.trials[number].best("val_accuracy", maximize=True)
    epoch, top = best or (None, None)
    outcome: Outcome = "failed" if number % 11 == 10 else "complete" if number % 3 == 0 else "pruned"
    failed = outcome == "failed"
    record(state, finished(number, outcome, None if failed else top, None if failed else epoch))


def finished(number: int, outcome: Outcome, value: float | None, epoch: int | None) -> TrialFinished:
    reasons: dict[Outcome, Reason] = {"failed": "error", "complete": "epochs", "pruned": "rung"}
    return TrialFinished(
        at=0.0, trial=number, attempt=1, outcome=outcome, reason=reasons[outcome], value=value, best_epoch=epoch
    )


def drawn(trial: Trial, name: str) -> float:
    value = trial.raw[name]
    assert isinstance(value, float)
    return value


def searched(definition: StudyDefinition, n_trials: int, *, rebuilt: bool) -> State:
    """Ask trials, always with up to three running that end out of order, rebuilding the sampling before each ask."""
    rng, state = np.random.default_rng(3), State()
    sampling = Sampling(definition, state)
    for number in range(n_trials):
        if rebuilt:
            sampling = Sampling(definition, state)
        asked(state, number, sampling.ask(number))
        while len(state.running) > 3 or (state.running and rng.random() < 0.3):
            trial = state.running[int(rng.integers(len(state.running)))].number
            ended(state, trial)
            sampling.tell(state.trials[trial])
    return state


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampling_rebuilt_before_every_ask_asks_what_the_uninterrupted_one_asks(sampler: str) -> None:
    n_trials = 16 if sampler == "gp" else 26
    whole = searched(study(sampler), n_trials, rebuilt=False)
    rebuilt = searched(study(sampler), n_trials, rebuilt=True)
    assert [trial.raw for trial in rebuilt.trials.values()] == [trial.raw for trial in whole.trials.values()]


def reported(state: State, number: int, *values: float) -> None:
    """Let a trial in training report these values, from epoch 1 on."""
    for epoch, value in enumerate(values, start=1):
        record(state, EpochReported(at=0.0, trial=number, attempt=1, epoch=epoch, metrics={"val_accuracy": value}))


def test_tpe_takes_a_trial_in_training_for_one_that_is_complete_with_the_value_it_promises() -> None:
    """After two epochs it promises to be the best of all; the reference is a study in which it was complete as that."""
    wanted, state = study("tpe"), State()
    sampling = Sampling(wanted, state)
    for number in range(9):
        asked(state, number, sampling.ask(number))
        if number < 8:
            ended(state, number)
    reported(state, 8, 5.0, 6.0)
    promised = Sampling(wanted, state).ask(9, state.running)
    assert promised != Sampling(wanted, state).ask(9), "TPE holds trials in training against their neighborhood"
    record(state, finished(8, "complete", 6.1, 2))
    assert promised == Sampling(wanted, state).ask(9)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_held_structure_is_what_the_sampler_knows_and_a_rebuilt_sampling_asks_the_same(sampler: str) -> None:
    """Every second trial is given width 32, whatever was drawn; all else is as drawn."""
    wanted, state = study(sampler), State()
    sampling = Sampling(wanted, state)
    for number in range(24):
        drawn = sampling.ask(number)
        assert Sampling(wanted, state).ask(number) == drawn
        held: dict[str, Value] = {"width": 32} if number % 2 else {}
        sampling.hold(number, held)
        asked(state, number, {**drawn, **held})
        if number > 3:
            ended(state, number - 3)
            sampling.tell(state.trials[number - 3])
    assert [trial.params for trial in sampling._study.trials] == [trial.raw for trial in state.trials.values()]
    assert {trial.raw["width"] for trial in state.trials.values() if trial.number % 2} == {32}
    assert len({trial.raw["width"] for trial in state.trials.values()}) > 1


def test_a_structure_is_held_only_where_each_parameter_is_drawn_on_its_own() -> None:
    held = {sampler for sampler in SAMPLERS if Sampling(study(sampler), State()).can_hold}
    assert held == {"tpe", "random"}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_two_trials_are_alike_and_another_seed_asks_others(sampler: str) -> None:
    first, other = (searched(study(sampler, seed=seed), 12, rebuilt=True) for seed in (0, 1))
    points, other_points = ({tuple(t.raw.items()) for t in state.trials.values()} for state in (first, other))
    assert len(points) == 12
    assert points & other_points == {tuple(first.trials[0].raw.items())}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_drawn_value_lies_in_the_space_and_survives_json(sampler: str) -> None:
    wanted = study(sampler)
    for trial in searched(wanted, 12, rebuilt=False).trials.values():
        assert list(trial.raw) == list(wanted.space)
        assert {type(value) for value in trial.raw.values()} <= {bool, int, float, str}
        effective = space.effective(wanted.space, trial.raw)
        assert all(space.contains(wanted.space[name], value) for name, value in effective.items())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_first_trial_is_the_baseline(sampler: str) -> None:
    wanted = study(sampler)
    raw = Sampling(wanted, State()).ask(0)
    assert space.effective(wanted.space, raw) == wanted.baseline


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_a_sampler_that_learns_finds_better_points_than_chance(sampler: str) -> None:
    """The mean distance of lr from its optimum over the last third of the trials, in decades."""

    def distance(kind: str) -> float:
        state = searched(study(kind), 45, rebuilt=False)
        return float(np.mean([abs(math.log10(drawn(t, "lr")) + 2.0) for t in list(state.trials.values())[30:]]))

    assert distance(sampler) < 0.8 * distance("random")


def gaussian_process_after(diverged_above: float) -> list[float]:
    """log10(lr) of the last 9 of 30 trials. The first 4, complete, are all alike; pruned ones are best at 1e-3."""
    wanted, state = study("gp"), State()
    sampling = Sampling(wanted, state)
    for number in range(30):
        asked(state, number, sampling.ask(number))
        log_lr = math.log10(drawn(state.trials[number], "lr"))
        diverged = number > 3 and log_lr > diverged_above
        reported(
            state, number, *([0.5, 0.6] if number < 4 else [math.nan if diverged else 0.5 - (log_lr + 3.0) ** 2 / 10])
        )
        best = state.trials[number].best("val_accuracy", maximize=True)
        end = finished(number, "complete" if number < 4 else "pruned", *((best[1], best[0]) if best else (None, None)))
        record(state, replace(end, reason="diverged") if diverged else end)
        sampling.tell(state.trials[number])
    return [math.log10(drawn(trial, "lr")) for trial in list(state.trials.values())[21:]]


def test_the_gaussian_process_learns_from_what_pruned_trials_promise() -> None:
    assert np.median(np.abs(np.array(gaussian_process_after(diverged_above=math.inf)) + 3.0)) < 0.3


def test_the_gaussian_process_takes_diverged_trials_for_the_worst() -> None:
    assert np.mean(np.array(gaussian_process_after(diverged_above=-3.2)) > -3.2) < 0.4


def test_qmc_covers_the_range_more_evenly_than_chance() -> None:
    def largest_gap(kind: str) -> float:
        state = searched(study(kind), 33, rebuilt=False)
        points = sorted(drawn(trial, "dropout") for trial in list(state.trials.values())[1:])
        return float(np.max(np.diff([0.0, *points, 0.6])))

    assert largest_gap("qmc") < largest_gap("random")
    assert largest_gap("qmc") <= 2 * 0.6 / 32


def test_about_one_random_draw_in_four_turns_weight_decay_off() -> None:
    wanted = study("random")
    sampling = Sampling(wanted, State())
    effective = [space.effective(wanted.space, sampling.ask(number)) for number in range(400)][1:]
    share = np.mean([each["weight_decay"] == 0.0 for each in effective])
    assert abs(share - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 399)


def test_optuna_is_never_told_what_is_not_finite() -> None:
    state = State()
    sampling = Sampling(study("tpe"), state)
    values = {0: math.inf, 1: math.nan, 2: None, 3: 0.5}
    for number, value in values.items():
        asked(state, number, sampling.ask(number))
        record(
            state,
            EpochReported(at=0.0, trial=number, attempt=1, epoch=1, metrics={"val_accuracy": value or math.nan}),
            EpochReported(at=0.0, trial=number, attempt=1, epoch=2, metrics={"val_loss": 1.0}),
        )
        finished = replace(state.trials[number], outcome="complete", value=value)
        sampling.tell(finished)
    told = sampling._study.trials
    assert [trial.state.name for trial in told] == ["FAIL", "FAIL", "FAIL", "COMPLETE"]
    assert [trial.values for trial in told] == [None, None, None, [0.5]]
    assert [trial.intermediate_values for trial in told] == [{}, {}, {}, {1: 0.5}]


def test_a_pruned_trial_is_told_with_its_reports_also_after_a_rebuild() -> None:
    wanted, state = study("tpe"), State()
    sampling = Sampling(wanted, state)
    for number in (0, 1, 2):
        asked(state, number, sampling.ask(number))
    for number in (1, 0):
        ended(state, number)
        sampling.tell(state.trials[number])
    for each in (sampling, Sampling(wanted, state)):
        baseline, pruned, running = each._study.trials
        assert baseline.state.name == "COMPLETE"
        assert list(baseline.intermediate_values) == [1, 2, 3, 4]
        assert pruned.state.name == "PRUNED"
        assert pruned.value == pruned.intermediate_values[1] == state.trials[1].value
        assert running.state.name == "RUNNING"


def test_what_was_trained_counts_where_another_version_of_optuna_draws_otherwise() -> None:
    wanted = study("cmaes")
    state = searched(wanted, 6, rebuilt=False)
    state.trials[2] = replace(state.trials[2], raw={**state.trials[2].raw, "width": 32, "lr": 1.5e-3})
    adopted = Sampling(wanted, state)._study.trials[2].params
    assert (adopted["width"], adopted["lr"]) == (32, 1.5e-3)


def test_a_grid_has_the_baseline_first_and_then_every_other_combination_once() -> None:
    choices = {"width": (16, 32), "depth": (1, 2, 3), "lr": (0.1, 1e-3), "batch_norm": (False, True)}
    wanted = definition(
        sampler="grid",
        n_trials=24,
        baseline={"width": 32, "depth": 2, "lr": 0.1, "batch_norm": False},
        space={
            "width": {"kind": "power_of_two", "low": 16, "high": 32},
            "depth": {"kind": "int", "low": 1, "high": 3},
            "lr": {"kind": "choice", "choices": [0.1, 1e-3]},
            "batch_norm": {"kind": "bool"},
        },
    )
    state = State()
    for number in range(24):
        asked(state, number, Sampling(wanted, state).ask(number))
    raws = [trial.raw for trial in state.trials.values()]
    assert raws[0] == wanted.baseline
    assert {tuple(raw[name] for name in choices) for raw in raws} == set(itertools.product(*choices.values()))


def test_trials_are_asked_in_order() -> None:
    with pytest.raises(ValueError, match="0 is the next, got 1"):
        Sampling(study("tpe"), State()).ask(1)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DefinitionError, match=r"sampler: cmaes needs cmaes.*pip install cmaes"):
        Sampling(study("cmaes"), State())


def test_a_trial_s_seed_depends_on_study_trial_and_replicate_alone() -> None:
    """Pinned, since a resumed study must train with the seeds it began with."""
    seeds = {trial_seed(study, trial, replicate) for study in range(5) for trial in range(20) for replicate in range(5)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert trial_seed(5, 3) == trial_seed(5, 3, 0)
    assert trial_seed(5, 3, 1) == 2878502885706898237  # sha256 of "trial:5:3:1", the first 63 bits
