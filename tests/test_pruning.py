"""Which trials end at a report: the rules, against a reference that follows their text."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.contract import Confusion
from search.definition import Pruning, StudyDefinition
from search.events import AttemptInterrupted, AttemptStarted, EpochReported, TrialAsked
from search.pruning import Decision, decide, rungs
from search.state import Attempt, State, apply
from tests.studies import definition

Curve = list[float]
"""val_accuracy of epochs 1, 2, ...; epoch 0 is added."""


def state_of(curves: dict[int, Curve], *, losses: dict[int, Curve] | None = None, baseline: int = 0) -> State:
    """A state in which each trial has reported epoch 0 and its curve."""
    state = State()
    for number, curve in curves.items():
        start(state, number, baseline=number == baseline)
        report(state, number, 0, {"val_accuracy": 0.1})
        for epoch, value in enumerate(curve, start=1):
            loss = {} if losses is None or number not in losses else {"train_loss": losses[number][epoch - 1]}
            report(state, number, epoch, {"val_accuracy": value, **loss})
    return state


def start(state: State, number: int, *, attempt: int = 1, baseline: bool = False) -> None:
    if number not in state.trials:
        apply(state, TrialAsked(at=0.0, trial=number, raw={}, hyperparameters={}, baseline=baseline))
    apply(
        state,
        AttemptStarted(at=0.0, trial=number, attempt=attempt, trainer=0, device="cpu", structure="s", alone=False),
    )


def report(
    state: State,
    number: int,
    epoch: int,
    metrics: dict[str, float],
    *,
    attempt: int = 1,
    confusion: Confusion | None = None,
) -> None:
    event = EpochReported(at=0.0, trial=number, attempt=attempt, epoch=epoch, metrics=metrics, confusion=confusion)
    apply(state, event)


def pruned(state: State, trials: list[int], wanted: StudyDefinition) -> set[int]:
    return {number for number, decision in decide(state, trials, wanted).items() if decision.reason == "rung"}


# ---------------------------------------------------------------- successive halving


@pytest.mark.parametrize(
    ("eta", "min_epochs", "epochs", "expected"),
    [
        (3, 1, 9, (1, 3)),
        (3, 1, 10, (1, 3, 9)),
        (3, 1, 27, (1, 3, 9)),
        (2, 2, 9, (2, 4, 8)),
        (3, 9, 9, ()),
        (2, 1, 1, ()),
    ],
)
def test_rungs_are_powers_of_eta_below_the_last_epoch(
    eta: int, min_epochs: int, epochs: int, expected: tuple[int, ...]
) -> None:
    assert rungs(Pruning(eta=eta, min_epochs=min_epochs), epochs=epochs) == expected


def reference(state: State, trials: list[int], wanted: StudyDefinition) -> set[int]:
    """Those pruned at a rung, as the rule says it, by comparing every pair."""
    sign = 1 if wanted.maximize else -1

    def score(number: int, rung: int) -> float:
        values = [r.metrics["val_accuracy"] * sign for r in state.trials[number].reports if 0 < r.epoch <= rung]
        return max((value for value in values if math.isfinite(value)), default=-math.inf)

    out = set()
    for number in trials:
        rung = state.trials[number].reports[-1].epoch
        ladder = [wanted.pruning.min_epochs * wanted.pruning.eta**k for k in range(20)]
        if state.trials[number].baseline or rung >= wanted.epochs or rung not in ladder:
            continue
        recorded = [score(n, rung) for n in state.trials if any(r.epoch == rung for r in state.trials[n].reports)]
        better = sum(value > score(number, rung) for value in recorded)
        if better >= max(1, len(recorded) // wanted.pruning.eta):
            out.add(number)
    return out


VALUES = st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5, math.nan, math.inf, -math.inf])
CURVES = st.lists(st.lists(VALUES, min_size=0, max_size=9), min_size=1, max_size=12)
DEFINITIONS = st.builds(
    lambda eta, min_epochs, direction: definition(
        pruning={"kind": "successive_halving", "eta": eta, "min_epochs": min_epochs}, direction=direction
    ),
    st.integers(2, 4),
    st.integers(1, 3),
    st.sampled_from(["maximize", "minimize"]),
)


@settings(deadline=None)
@given(curves=CURVES, wanted=DEFINITIONS)
def test_successive_halving_agrees_with_the_reference(curves: list[Curve], wanted: StudyDefinition) -> None:
    state = state_of(dict(enumerate(curves)))
    assert pruned(state, list(state.trials), wanted) == reference(state, list(state.trials), wanted)


@settings(deadline=None)
@given(curves=CURVES, wanted=DEFINITIONS, shuffled=st.randoms(use_true_random=False))
def test_the_order_of_a_report_s_trials_never_changes_a_decision(
    curves: list[Curve], wanted: StudyDefinition, shuffled: random.Random
) -> None:
    forward = dict(enumerate(curves))
    order = list(forward)
    shuffled.shuffle(order)
    backward = {number: forward[number] for number in order}
    one, other = decide(state_of(forward), list(forward), wanted), decide(state_of(backward), order, wanted)
    assert one == other


@settings(deadline=None)
@given(curves=CURVES, wanted=DEFINITIONS)
def test_one_more_trial_no_better_than_any_ends_nobody_who_survived(
    curves: list[Curve], wanted: StudyDefinition
) -> None:
    before = state_of(dict(enumerate(curves)))
    after = state_of({**dict(enumerate(curves)), len(curves): [math.nan] * 9})
    assert pruned(after, list(before.trials), wanted) <= pruned(before, list(before.trials), wanted)


@settings(deadline=None)
@given(curves=CURVES, wanted=DEFINITIONS, chosen=st.integers(0, 11), gain=st.sampled_from([0.05, 0.5]))
def test_a_trial_that_does_better_is_never_pruned_for_it(
    curves: list[Curve], wanted: StudyDefinition, chosen: int, gain: float
) -> None:
    chosen %= len(curves)
    better = [value + (gain if wanted.maximize else -gain) for value in curves[chosen]]
    before, after = (state_of({**dict(enumerate(curves)), chosen: curve}) for curve in (curves[chosen], better))
    if chosen not in pruned(before, list(before.trials), wanted):
        assert chosen not in pruned(after, list(after.trials), wanted)


@settings(deadline=None)
@given(curves=CURVES, wanted=DEFINITIONS)
def test_the_best_at_a_rung_always_survives_it(curves: list[Curve], wanted: StudyDefinition) -> None:
    state = state_of({0: [], **dict(enumerate(curves, start=1))})
    gone = pruned(state, list(state.trials), wanted)
    for rung in rungs(wanted.pruning, epochs=wanted.epochs):
        there = [n for n, t in state.trials.items() if t.reports[-1].epoch == rung]
        past = [n for n, t in state.trials.items() if t.reports[-1].epoch > rung]
        assert past or not there or set(there) - gone


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_of_trials_that_report_together_exactly_one_in_eta_survives(eta: int) -> None:
    wanted = definition(pruning={"kind": "successive_halving", "eta": eta, "min_epochs": 1})
    curves = {number: [0.1 + number / 1000] for number in range(1, 61)}
    assert pruned(state_of(curves), list(curves), wanted) == set(range(1, 61 - 60 // eta))


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_of_trials_that_come_one_by_one_about_one_in_eta_survives(eta: int) -> None:
    """Those who come early meet few others, so a few more; the share is binomial, 1/eta, in the long run."""
    rng, state, n = random.Random(eta), State(), 300
    wanted = definition(pruning={"kind": "successive_halving", "eta": eta, "min_epochs": 1})
    survived = 0
    for number in range(1, n + 1):
        start(state, number)
        report(state, number, 1, {"val_accuracy": rng.random()})
        survived += number not in decide(state, [number], wanted)
    assert abs(survived / n - 1 / eta) < 4 * math.sqrt((1 / eta) * (1 - 1 / eta) / n) + 5 / n


def test_equals_survive_together() -> None:
    state = state_of({number: [0.5] for number in range(1, 9)})
    assert pruned(state, list(state.trials), definition()) == set()


def test_a_trial_s_value_at_a_rung_is_its_best_so_far() -> None:
    state = state_of({1: [0.9, 0.1, 0.1], 2: [0.5, 0.5, 0.5], 3: [0.4, 0.4, 0.4]})
    assert pruned(state, [1, 2, 3], definition()) == {2, 3}


def test_later_epochs_do_not_count_at_an_earlier_rung() -> None:
    state = state_of({1: [0.3, 0.9, 0.9, 0.9], 2: [0.4]})
    assert pruned(state, [2], definition()) == set()


def test_epoch_0_is_ignored() -> None:
    state = state_of({1: [], 2: [0.9]})
    report(state, 1, 0, {"val_accuracy": 0.0, "train_loss": math.nan})
    assert decide(state, [1], definition()) == {}


def test_an_interrupted_attempt_s_reports_do_not_count_at_a_rung() -> None:
    state = state_of({1: [0.9], 2: [0.5]})
    assert pruned(state, [2], definition()) == {2}
    apply(state, AttemptInterrupted(at=0.0, trial=1, attempt=1, reason="killed"))
    assert pruned(state, [2], definition()) == set()
    start(state, 1, attempt=2)
    report(state, 1, 1, {"val_accuracy": 0.6}, attempt=2)
    assert pruned(state, [2], definition()) == {2}


def test_without_pruning_every_trial_reaches_its_last_epoch() -> None:
    wanted = definition(pruning={"kind": "none"})
    assert decide(state_of({1: [0.1], 2: [0.9]}), [1, 2], wanted) == {}


# ---------------------------------------------------------------- the baseline


def test_the_baseline_is_never_pruned_or_stopped_early_but_its_values_count() -> None:
    patient = definition(pruning={"kind": "successive_halving", "eta": 3, "min_epochs": 1, "patience": 1})
    assert decide(state_of({0: [0.3, 0.1, 0.1], 1: [0.9, 0.9, 0.9]}), [0], patient) == {}
    assert pruned(state_of({0: [0.5], 1: [0.4]}), [0, 1], definition()) == {1}


def test_a_diverged_baseline_ends_like_any_other() -> None:
    state = state_of({0: [0.1]}, losses={0: [math.nan]})
    assert decide(state, [0], definition())[0].reason == "diverged"


# ---------------------------------------------------------------- the last epoch and patience


def test_the_last_epoch_completes_a_trial_with_its_best_value() -> None:
    state = state_of({1: [0.2, 0.7, 0.6] + [0.5] * 6})
    expected = Decision(outcome="complete", reason="epochs", value=0.7, best_epoch=2)
    assert decide(state, [1], definition()) == {1: expected}


def test_a_trial_without_a_finite_value_completes_without_one() -> None:
    state = state_of({1: [math.nan] * 9})
    assert decide(state, [1], definition()) == {
        1: Decision(outcome="complete", reason="epochs", value=None, best_epoch=None)
    }


@pytest.mark.parametrize(
    ("curve", "ends"),
    [([0.5, 0.4], False), ([0.5, 0.4, 0.4], True), ([0.4, 0.3, 0.5], False), ([0.5, 0.5, 0.5], True)],
)
def test_patience_completes_a_trial_that_has_not_improved_for_so_many_epochs(curve: Curve, ends: bool) -> None:
    wanted = definition(pruning={"kind": "none", "patience": 2})
    expected = {1: Decision(outcome="complete", reason="patience", value=0.5, best_epoch=1)} if ends else {}
    assert decide(state_of({1: curve}), [1], wanted) == expected


def test_less_is_better_where_the_metric_is_minimized() -> None:
    wanted = definition(direction="minimize", pruning={"kind": "successive_halving", "eta": 2, "min_epochs": 1})
    assert pruned(state_of({1: [0.2], 2: [0.3], 3: [0.4]}), [1, 2, 3], wanted) == {2, 3}


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize("name", ["train_loss", "val_loss"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_a_trial_as_pruned_with_its_best_finite_value(name: str, value: float) -> None:
    state = state_of({1: [0.4, 0.6]})
    report(state, 1, 3, {"val_accuracy": math.nan, name: value})
    expected = Decision(outcome="pruned", reason="diverged", value=0.6, best_epoch=2)
    assert decide(state, [1], definition()) == {1: expected}


@pytest.mark.parametrize(
    ("untrained", "trained", "ends"),
    [(2.3, 22.9, False), (2.3, 23.1, True), (0.1, 6.9, False), (0.1, 7.0, True), (math.inf, 7.0, True)],
)
def test_a_training_loss_ten_times_the_untrained_one_or_that_of_the_class_prior_has_diverged(
    untrained: float, trained: float, ends: bool
) -> None:
    """Of two classes of the same size the prior has the loss log 2."""
    state = State()
    start(state, 1)
    report(state, 1, 0, {"val_accuracy": 0.1, "train_loss": untrained}, confusion=((5, 0), (3, 2)))
    report(state, 1, 1, {"val_accuracy": 0.1, "train_loss": trained, "val_loss": 1e9})
    assert [d.reason for d in decide(state, [1], definition()).values()] == ["diverged"] * ends


def test_the_unit_of_a_loss_without_classes_does_not_matter() -> None:
    for unit in (1e-6, 1.0, 1e6):
        state = state_of({1: [0.4] * 3}, losses={1: [9.9 * unit, 10.1 * unit, 9.9 * unit]})
        for epoch, ends in ((1, []), (2, ["diverged"])):
            so_far = State(trials={1: replace(state.trials[1], attempts=(_until(state, 1, epoch, unit),))})
            assert [d.reason for d in decide(so_far, [1], definition(pruning={"kind": "none"})).values()] == ends


def _until(state: State, number: int, epoch: int, first: float) -> Attempt:
    attempt = state.trials[number].attempts[-1]
    untrained = replace(attempt.reports[0], metrics={"val_accuracy": 0.1, "train_loss": first})
    return replace(attempt, reports=(untrained, *attempt.reports[1 : epoch + 1]))


def test_divergence_goes_before_the_last_epoch() -> None:
    state = state_of({1: [0.4] * 9}, losses={1: [1.0] * 8 + [math.inf]})
    assert decide(state, [1], definition())[1].reason == "diverged"


def test_a_diverged_trial_trains_on_where_the_study_wants_it() -> None:
    state = state_of({1: [0.4]}, losses={1: [math.nan]})
    assert decide(state, [1], definition(stop_diverged=False)) == {}


def test_an_objective_without_losses_never_diverges() -> None:
    state = state_of({1: [1e9]})
    assert decide(state, [1], definition()) == {}


# ---------------------------------------------------------------- cost


def test_a_report_looks_at_every_trial_of_the_study_at_most_once_a_rung() -> None:
    looked, n = 0, 5000

    class Counted(dict[int, Any]):
        def values(self) -> Any:
            nonlocal looked
            looked += 1
            return super().values()

    state = state_of({number: [number / n] for number in range(1, n + 1)})
    state.trials = Counted(state.trials)
    assert len(pruned(state, list(range(1, 65)), definition())) == 64
    assert looked == 1
