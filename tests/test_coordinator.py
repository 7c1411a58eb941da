"""Claims of search/coordinator.py: how many trials, what failures cost, what stays on disk. Trainers run in process."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from search import checkpoint
from search.admission import DEBT_SHARE
from search.checkpoint import hash_file
from search.contract import Admit, Admitted, Capacity, Failed, Open, Opened, Order, Refused, Reply, Report, SlotReport
from search.definition import StudyDefinition
from search.errors import StudyStoppedError, TrainerError
from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    CheckpointSaved,
    EpochReported,
    Event,
    ModelExported,
    TrialAsked,
    TrialFinished,
)
from search.executors import Ended, LocalProcesses
from search.flight import foreseen
from search.recovery import MAX_DEATHS
from search.state import State, apply, fold
from tests.fakes import FakeObjective
from tests.running import TABLE, coordinate, events_of, fake_study, faults

ONE_SHAPE = {
    "baseline": {"quality": 0.6, "drop": 0.0},
    "space": {name: TABLE["space"][name] for name in ("quality", "drop")},
}
"""All trials share a population."""


def outcomes(state: State) -> dict[int, str | None]:
    return {trial.number: trial.outcome for trial in state.trials.values()}


# ---------------------------------------------------------------- how many


@pytest.mark.parametrize("n_trainers", [1, 2, 3])
def test_study_is_brought_to_its_number_of_trials_exactly(tmp_path: Path, n_trainers: int) -> None:
    first = coordinate(fake_study(n_trials=7), tmp_path, n_trainers=n_trainers)
    assert (len(first.trials), len(first.finished)) == (7, 7)
    again = coordinate(fake_study(n_trials=7), tmp_path, n_trainers=n_trainers)
    assert again.trials == first.trials
    more = coordinate(fake_study(n_trials=13), tmp_path, n_trainers=n_trainers)
    assert (len(more.trials), len(more.finished)) == (13, 13)
    assert {number: more.trials[number] for number in first.trials} == first.trials


def test_finished_study_adds_no_event(tmp_path: Path) -> None:
    coordinate(fake_study(), tmp_path)
    before = events_of(tmp_path)
    coordinate(fake_study(), tmp_path)
    coordinate(fake_study(n_trials=3), tmp_path)
    assert events_of(tmp_path) == before


def test_trial_0_is_the_baseline_and_is_complete_however_weak(tmp_path: Path) -> None:
    state = coordinate(fake_study(n_trials=12, baseline={"quality": 0.0, "drop": 0.0, "shape": 1}), tmp_path)
    baseline = state.trials[0]
    assert (baseline.baseline, baseline.outcome, baseline.reason) == (True, "complete", "epochs")
    assert baseline.hyperparameters["drop"] == 0.0
    assert not any(trial.baseline for trial in state.trials.values() if trial.number)
    assert state.with_outcome("pruned")


def without_times(events: Sequence[Event]) -> list[Event]:
    return [replace(event, at=0.0) for event in events]


def test_study_with_one_inline_trainer_is_reproducible_as_a_whole(tmp_path: Path) -> None:
    for root in ("a", "b"):
        coordinate(fake_study(n_trials=15, checkpoints=2), tmp_path / root)
    a, b = (without_times(events_of(tmp_path / root)) for root in ("a", "b"))
    assert a == b
    coordinate(fake_study(n_trials=15, checkpoints=2, seed=1), tmp_path / "c")
    assert without_times(events_of(tmp_path / "c")) != a


# ---------------------------------------------------------------- full populations


def slot_use(definition: StudyDefinition, root: Path) -> float | None:
    found: list[float | None] = []
    coordinate(definition, root, on_end=lambda coordinator: found.append(coordinator.slot_use))
    return found[0]


def epochs_before_trials_ran_out(root: Path) -> int:
    events = events_of(root)
    last = max(at for at, event in enumerate(events) if isinstance(event, AttemptStarted))
    return sum(isinstance(event, EpochReported) and event.epoch > 0 for event in events[:last])


def test_slots_are_all_used_where_a_population_has_one(tmp_path: Path) -> None:
    assert slot_use(fake_study(data={"capacity": 1}), tmp_path) == 1.0


def test_only_the_first_trial_s_first_turn_leaves_slots_unused_where_all_share_a_structure(tmp_path: Path) -> None:
    """Its population's capacity, 4, is not known before: 3 slots are unused for an epoch."""
    use = slot_use(fake_study(n_trials=40, **ONE_SHAPE), tmp_path)
    used = epochs_before_trials_ran_out(tmp_path)
    assert used > 100
    assert use == used / (used + 3)


def test_slots_beyond_what_may_be_in_flight_count_as_unused(tmp_path: Path) -> None:
    """Four trials are in flight, but for the first turn, of one epoch."""
    definition = fake_study(n_trials=8, data={"capacity": 8}, **ONE_SHAPE, pruning={"kind": "none"})
    use = slot_use(definition, tmp_path)
    n_turns = 1 + (epochs_before_trials_ran_out(tmp_path) - 1) / 4
    assert use == (1 + 4 * (n_turns - 1)) / (8 * n_turns)


def test_what_is_trained_after_the_last_admission_is_not_counted(tmp_path: Path) -> None:
    """All four are in training after one epoch of the first of them."""
    assert slot_use(fake_study(n_trials=4, **ONE_SHAPE), tmp_path) == 1 / 4


def test_a_structure_is_given_no_more_trials_than_have_survived_the_first_rung_with_it(tmp_path: Path) -> None:
    """Where most are pruned there is most room: it must not be filled with more of the same."""
    space = {**TABLE["space"], "shape": {"kind": "int", "low": 1, "high": 5}}
    pruning = {"kind": "successive_halving", "min_epochs": 1}
    coordinate(fake_study(n_trials=150, space=space, pruning=pruning), tmp_path, n_trainers=2)
    state, owed, at_its_limit = State(), Counter[object](), 0
    for event in events_of(tmp_path):
        if isinstance(event, TrialAsked) and event.drawn:
            survivors = Counter(t.raw["shape"] for t in state.trials.values() if t.reports and t.reports[-1].epoch > 1)
            assert owed[event.raw["shape"]] < survivors[event.raw["shape"]]
            owed[event.raw["shape"]] += 1
            owed[event.drawn["shape"]] -= 1
            at_its_limit += owed[event.raw["shape"]] == survivors[event.raw["shape"]]
        apply(state, event)
    assert at_its_limit


@pytest.mark.parametrize("stops", [[], [3, 20]])
def test_a_structure_is_held_for_its_population_and_never_owes_the_sampler_more_than_it_may(
    tmp_path: Path, stops: list[int]
) -> None:
    space = {**TABLE["space"], "shape": {"kind": "int", "low": 1, "high": 5}}
    definition = fake_study(n_trials=75, space=space)
    for after in stops:
        coordinate(definition, tmp_path, stop=lambda state, n=after: "timeout" if len(state.finished) > n else None)  # type: ignore[misc]
    state = coordinate(definition, tmp_path, n_trainers=2)
    owed, most = Counter[object](), 75 // DEBT_SHARE
    for trial in state.trials.values():
        if trial.drawn:
            assert list(trial.drawn) == ["shape"]
            assert trial.raw["shape"] == trial.hyperparameters["shape"]
            owed[trial.raw["shape"]] += 1
            owed[trial.drawn["shape"]] -= 1
        assert max(owed.values(), default=0) <= foreseen(definition, trial.number) // DEBT_SHARE
    assert sum(trial.drawn != {} for trial in state.trials.values()) > 10
    assert max(owed.values()) == most


def test_a_short_study_or_one_of_a_joint_sampler_trains_what_was_drawn(tmp_path: Path) -> None:
    for definition in (fake_study(n_trials=DEBT_SHARE - 1), fake_study(n_trials=60, sampler="qmc")):
        state = coordinate(definition, tmp_path / definition.sampler)
        assert not any(trial.drawn for trial in state.trials.values())


# ---------------------------------------------------------------- interruption


@pytest.mark.parametrize("stop_after", [1, 5, 9, 14])
def test_stopped_and_continued_study_has_the_parameters_and_seeds_of_an_uninterrupted_one(
    tmp_path: Path, stop_after: int
) -> None:
    """Sampled at random, that is: TPE learns from what was finished when it asks."""
    definition = fake_study(n_trials=10, sampler="random")
    whole = coordinate(definition, tmp_path / "whole")
    ticks = iter(range(stop_after))
    cut = coordinate(
        definition, tmp_path / "cut", stop=lambda state: "interrupted" if next(ticks, None) is None else None
    )
    assert not cut.running
    assert len(cut.finished) < 10
    continued = coordinate(definition, tmp_path / "cut")
    assert len(continued.trials) == len(continued.finished) == 10
    for n, trial in continued.trials.items():
        assert trial.raw == whole.trials[n].raw
        curve, reference = ([report.metrics for report in t.reports] for t in (trial, whole.trials[n]))
        shared = min(len(curve), len(reference))  # a rung may judge otherwise, the seed decides what it judges
        assert curve[:shared] == reference[:shared]


# ---------------------------------------------------------------- a trial that raises


def test_what_was_asked_before_an_interruption_is_trained_after_it(tmp_path: Path) -> None:
    definition = fake_study(n_trials=14)
    cut = coordinate(definition, tmp_path, stop=lambda state: "interrupted" if len(state.trials) > 9 else None)
    asked = {n: trial.hyperparameters for n, trial in cut.trials.items()}
    assert cut.waiting
    assert not cut.running
    continued = coordinate(definition, tmp_path)
    assert len(continued.trials) == len(continued.finished) == 14
    assert {n: continued.trials[n].hyperparameters for n in asked} == asked
    for trial in cut.waiting:
        assert len(continued.trials[trial.number].attempts) == len(trial.attempts) + 1


def test_trial_that_raises_alone_is_failed_with_its_traceback_and_the_study_goes_on(tmp_path: Path) -> None:
    state = coordinate(fake_study(data=faults({2: "raise"}) | {"capacity": 1}, pruning={"kind": "none"}), tmp_path)
    failed = state.trials[2]
    assert failed.outcome == "failed"
    assert failed.error == "ValueError: this trial always raises"
    assert "Traceback" in failed.traceback
    assert "tests/fakes.py" in failed.traceback
    assert len(state.finished) == 6
    assert len(state.with_outcome("failed")) == 1


def test_failed_trial_was_retried_alone_and_harmed_no_other(tmp_path: Path) -> None:
    definition = fake_study(
        n_trials=8, sampler="random", data=faults({2: "raise"}), **ONE_SHAPE, pruning={"kind": "none"}
    )
    state = coordinate(definition, tmp_path)
    assert state.trials[2].outcome == "failed"
    assert state.trials[2].attempts[-1].alone
    assert [n for n, outcome in outcomes(state).items() if outcome == "complete"] == [0, 1, 3, 4, 5, 6, 7]
    undisturbed = coordinate(definition.model_copy(update={"data": {"capacity": 4}}), tmp_path / "reference")
    for n in (0, 1, 3, 4, 5, 6, 7):
        assert [r.metrics for r in state.trials[n].reports] == [r.metrics for r in undisturbed.trials[n].reports]


def test_trial_that_raises_only_in_company_completes_alone(tmp_path: Path) -> None:
    state = coordinate(fake_study(pruning={"kind": "none"}, data=faults({1: "raise in company"})), tmp_path)
    assert set(outcomes(state).values()) == {"complete"}
    assert len(state.trials[1].attempts) >= 1


def test_same_error_three_times_in_a_row_stops_the_study_with_it(tmp_path: Path) -> None:
    definition = fake_study(
        n_trials=12, data=faults(dict.fromkeys(range(2, 12), "raise")) | {"capacity": 1}, pruning={"kind": "none"}
    )
    with pytest.raises(StudyStoppedError, match=r"(?s)fake: 3 trials in a row .* always raises\nMend .*Traceback"):
        coordinate(definition, tmp_path)
    state = fold(events_of(tmp_path))
    assert len(state.with_outcome("failed")) == 3
    assert not state.running


def test_errors_that_are_not_in_a_row_do_not_stop_the_study(tmp_path: Path) -> None:
    definition = fake_study(
        n_trials=9, data=faults({1: "raise", 3: "raise", 5: "raise"}) | {"capacity": 1}, pruning={"kind": "none"}
    )
    assert len(coordinate(definition, tmp_path).with_outcome("failed")) == 3


def test_out_of_memory_halves_the_slots_and_goes_on(tmp_path: Path) -> None:
    everyone = faults(dict.fromkeys(range(8), "memory"))  # more than two slots do not fit
    state = coordinate(fake_study(n_trials=8, data=everyone, **ONE_SHAPE, pruning={"kind": "none"}), tmp_path)
    assert set(outcomes(state).values()) == {"complete"}
    interrupted = [event for event in events_of(tmp_path) if isinstance(event, AttemptInterrupted)]
    together = len([event for event in interrupted if event.at == interrupted[0].at])
    assert together > 2
    assert {event.max_slots for event in interrupted} == {together // 2} == set(state.max_slots.values())
    assert not any(event.alone_next for event in interrupted)


# ---------------------------------------------------------------- messages that cross each other


class Scripted:
    """An executor whose one trainer answers each admission as it is told."""

    beside = False

    def __init__(self, opened: Opened, on_admit: Callable[[Admit], Sequence[Reply | Ended]]) -> None:
        self._opened, self._on_admit = opened, on_admit
        self._replies: list[Reply | Ended] = []

    def start(self, trainer: int) -> None: ...

    def send(self, trainer: int, order: Order) -> None:
        match order:
            case Open():
                self._replies.append(self._opened)
            case Admit():
                self._replies += self._on_admit(order)

    def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply | Ended]]:
        replies, self._replies = self._replies, []
        return [(0, reply) for reply in replies]

    def stop(self) -> None: ...


def opened() -> Opened:
    return Opened(
        hyperparameters=FakeObjective.HYPERPARAMETERS,
        metrics=FakeObjective.METRICS,
        facts={"checksum": "f00d"},
        device="cpu",
        device_name="cpu",
        n_devices=0,
        precision="float32",
        probe="",
        versions={},
    )


def admitted(order: Admit) -> Admitted:
    return Admitted(trial=order.trial, attempt=order.attempt, capacity=Capacity(slots=4), n_parameters=1)


def report(order: Admit, *, epoch: int, value: float) -> Report:
    metrics = {"val_accuracy": value}
    slot = SlotReport(trial=order.trial, attempt=order.attempt, epoch=epoch, metrics=metrics, replicates=())
    return Report(structure=order.structure, slots=(slot,), updates=4, epoch_updates=4, wait_s=0.0)


def trained(order: Admit, *, epochs: int) -> list[Reply | Ended]:
    value = 0.5 + 0.01 * order.trial
    return [admitted(order), *(report(order, epoch=epoch, value=value) for epoch in range(epochs + 1))]


def test_each_trial_is_trained_on_every_fold_by_each_of_its_seeds(tmp_path: Path) -> None:
    orders: list[Admit] = []

    def answer(order: Admit) -> Sequence[Reply | Ended]:
        orders.append(order)
        return trained(order, epochs=3)

    definition = fake_study(n_trials=2, epochs=3, folds=3, replicates=2)
    coordinate(definition, tmp_path, executor=Scripted(opened(), answer))
    for order in orders:
        assert [replicate.fold for replicate in order.replicates] == [0, 1, 2, 0, 1, 2]
    assert len({replicate.seed for order in orders for replicate in order.replicates}) == 12


def test_trial_is_not_blamed_for_a_failure_in_the_company_of_one_that_was_just_pruned(tmp_path: Path) -> None:
    """The eviction is on its way when the population raises: its members were two, the study's running trials one."""
    orders: list[Admit] = []

    def answer(order: Admit) -> Sequence[Reply | Ended]:
        orders.append(order)
        if len(orders) == 1:
            return trained(order, epochs=1)
        if len(orders) == 2:
            both = tuple((each.trial, each.attempt) for each in orders)
            failed = Failed(trials=both, error="ValueError: one of you", traceback="Traceback ...")
            return [admitted(order), report(order, epoch=1, value=0.0), failed]
        return trained(order, epochs=9)

    state = coordinate(fake_study(n_trials=2), tmp_path, executor=Scripted(opened(), answer))
    assert outcomes(state) == {0: "complete", 1: "pruned"}
    assert (orders[2].trial, orders[2].alone) == (0, True)


def test_reports_of_an_attempt_that_has_ended_are_dropped(tmp_path: Path) -> None:
    def answer(order: Admit) -> Sequence[Reply | Ended]:
        stale = report(replace(order, attempt=order.attempt + 1), epoch=1, value=1.0)
        beyond = report(order, epoch=10, value=1.0)
        return [admitted(order), stale, *trained(order, epochs=9)[1:], beyond]

    state = coordinate(fake_study(n_trials=1), tmp_path, executor=Scripted(opened(), answer))
    assert state.trials[0].value == 0.5
    assert [each.epoch for each in state.trials[0].reports] == list(range(10))


def test_trial_whose_trainer_dies_again_and_again_is_given_up_only_after_trying_alone(tmp_path: Path) -> None:
    attempts: list[Admit] = []

    def answer(order: Admit) -> Sequence[Reply | Ended]:
        if order.trial != 1:
            return trained(order, epochs=9)
        attempts.append(order)
        return [admitted(order), Ended(reason="trainer died (SIGKILL)")]

    state = coordinate(fake_study(n_trials=3), tmp_path, executor=Scripted(opened(), answer))
    assert outcomes(state) == {0: "complete", 1: "failed", 2: "complete"}
    assert "trainer died (SIGKILL), 3 times" in state.trials[1].error
    assert [order.alone for order in attempts] == [False] + [True] * MAX_DEATHS


def test_trainer_that_dies_before_it_trains_ends_the_run(tmp_path: Path) -> None:
    class Dying(Scripted):
        def start(self, trainer: int) -> None:
            if trainer == 1:
                self.others.append((1, Ended(reason="trainer died (exit status 1)")))

        others: list[tuple[int, Reply | Ended]]

        def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply | Ended]]:
            others, self.others = self.others, []
            return [*super().receive(timeout_s), *others]

    executor = Dying(opened(), lambda order: [admitted(order)])
    executor.others = []
    with pytest.raises(TrainerError, match="trainer 1 ended 3 times in a row before it trained"):
        coordinate(fake_study(), tmp_path, executor=executor, n_trainers=2)
    assert not fold(events_of(tmp_path)).running


def test_trainer_that_refuses_the_study_later_than_the_first_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    class Refusing(Scripted):
        def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply | Ended]]:
            return [*super().receive(timeout_s), (1, Refused(message="this GPU is taken"))]

    executor = Refusing(opened(), lambda order: [admitted(order)])
    with pytest.raises(TrainerError, match="this GPU is taken"):
        coordinate(fake_study(), tmp_path, executor=executor, n_trainers=2)
    assert not fold(events_of(tmp_path)).running


# ---------------------------------------------------------------- trainers that die, as real processes


def test_trial_whose_trainer_died_once_is_trained_again_to_the_same_curve(tmp_path: Path) -> None:
    definition = fake_study(
        n_trials=3, pruning={"kind": "none"}, data=faults({1: "die once"}) | {"marks": str(tmp_path)}
    )
    state = coordinate(definition, tmp_path, executor=LocalProcesses({}))
    assert set(outcomes(state).values()) == {"complete"}
    first, *_, last = state.trials[1].attempts
    assert first.interrupted == "trainer died (SIGKILL)"
    reference = coordinate(definition.model_copy(update={"data": {}}), tmp_path / "reference")
    for n in range(3):
        assert [r.metrics for r in state.trials[n].reports] == [r.metrics for r in reference.trials[n].reports]
    assert last.reports == state.trials[1].reports


@pytest.mark.slow
def test_trial_that_always_kills_its_trainer_is_given_up_and_harms_no_other(tmp_path: Path) -> None:
    definition = fake_study(n_trials=4, pruning={"kind": "none"}, data=faults({1: "die"}))
    state = coordinate(definition, tmp_path, executor=LocalProcesses({}), n_trainers=2)
    assert outcomes(state) == {0: "complete", 1: "failed", 2: "complete", 3: "complete"}
    assert "3 times while this trial trained alone" in state.trials[1].error


@pytest.mark.slow
def test_trainer_that_cannot_be_opened_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    definition = fake_study(data={"opens": 1, "marks": str(tmp_path / "marks"), "update_s": 1.0})
    with pytest.raises(TrainerError, match=r"trainer 1 ended 3 times in a row before it trained: .*SIGKILL"):
        coordinate(definition, tmp_path, executor=LocalProcesses({}), n_trainers=2)
    assert not fold(events_of(tmp_path)).running


# ---------------------------------------------------------------- weights


def kept(state: State) -> dict[str, str]:
    """Path -> SHA-256 of the weights the study keeps."""
    return {t.checkpoint.path: t.checkpoint.sha256 for t in state.trials.values() if t.checkpoint is not None}


def on_disk(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in (folder / "checkpoints").iterdir()}


def test_only_the_best_trials_keep_their_weights_whole_and_hashed(tmp_path: Path) -> None:
    state = coordinate(fake_study(n_trials=20, checkpoints=2, pruning={"kind": "none"}), tmp_path)
    best = state.ranked(maximize=True)[:2]
    assert {trial.number for trial in best} == {t.number for t in state.trials.values() if t.checkpoint is not None}
    folder = tmp_path / "studies" / "fake"
    assert on_disk(folder) == {name for path in kept(state) for name in (path, f"{path}.sha256")}
    for path, digest in kept(state).items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest
        assert hash_file(folder / path).read_text() == f"{digest}  {Path(path).name}\n"
    assert json.loads((folder / checkpoint.name(best[0].number)).read_text())["epoch"] == best[0].best_epoch


def test_trial_that_keeps_its_weights_is_finished_only_once_they_are_on_disk(tmp_path: Path) -> None:
    state = coordinate(fake_study(n_trials=20, checkpoints=3, pruning={"kind": "none"}), tmp_path)
    position = {(type(e), e.trial): i for i, e in enumerate(events_of(tmp_path)) if hasattr(e, "trial")}
    saved = [trial for kind, trial in position if kind is CheckpointSaved]
    assert len(saved) >= 3
    assert {n for n in saved if position[CheckpointSaved, n] > position[TrialFinished, n]} == set()
    assert len(kept(state)) == 3


def test_disk_that_is_full_once_costs_a_retry_and_no_weights(tmp_path: Path) -> None:
    (tmp_path / "marks").mkdir()
    data = faults({1: "disk full once"}) | {"marks": str(tmp_path / "marks")}
    state = coordinate(fake_study(n_trials=4, checkpoints=4, pruning={"kind": "none"}, data=data), tmp_path)
    assert set(outcomes(state).values()) == {"complete"}
    assert len(state.trials[1].attempts) == 2
    assert on_disk(tmp_path / "studies" / "fake") == {name for p in kept(state) for name in (p, f"{p}.sha256")}


def test_disk_that_stays_full_fails_the_trial_and_leaves_no_stump(tmp_path: Path) -> None:
    data = faults({1: "disk full"}) | {"capacity": 1}
    state = coordinate(fake_study(n_trials=4, checkpoints=4, pruning={"kind": "none"}, data=data), tmp_path)
    assert outcomes(state) == {0: "complete", 1: "failed", 2: "complete", 3: "complete"}
    assert "No space left" in state.trials[1].error
    assert len(on_disk(tmp_path / "studies" / "fake")) == 2 * 3


def test_what_a_killed_run_left_among_the_weights_is_swept_up(tmp_path: Path) -> None:
    """Killed between a file and its event, either way round, or in the middle of a file."""
    state = coordinate(fake_study(n_trials=4, checkpoints=1, pruning={"kind": "none"}), tmp_path)
    folder = tmp_path / "studies" / "fake"
    for name in ("trial-00099.safetensors", "trial-00099.safetensors.sha256", ".trial-00002.safetensors.7.partial"):
        (folder / "checkpoints" / name).write_text("left behind")
    coordinate(fake_study(n_trials=5, checkpoints=1, pruning={"kind": "none"}), tmp_path)
    state = fold(events_of(tmp_path))
    assert on_disk(folder) == {name for path in kept(state) for name in (path, f"{path}.sha256")}


def test_champion_is_exported_once_and_again_when_it_is_beaten(tmp_path: Path) -> None:
    better = fake_study(checkpoints=1, n_trials=30)
    first = coordinate(better.model_copy(update={"n_trials": 3}), tmp_path)
    state = coordinate(better, tmp_path)
    exported = [event for event in events_of(tmp_path) if isinstance(event, ModelExported)]
    assert [first.ranked(maximize=True)[0].number, state.ranked(maximize=True)[0].number] == [e.trial for e in exported]
    assert (tmp_path / "studies" / "fake" / exported[-1].path).exists()
