"""The benchmarks' arithmetic, and each side once, tiny, on real digits."""

import math
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives.data import load
from search.events import AttemptInterrupted, AttemptStarted, EpochReported, Event, TrialFinished
from search.state import fold
from search.workspace import Workspace
from tests.benchmarks import (
    bookkeeping,
    engine,
    fused,
    fused_modules,
    gpu,
    kept,
    limit,
    memory,
    release,
    studies,
    validity,
)
from tests.benchmarks.measuring import Burst, Held, Reporter, burst
from tests.benchmarks.sides import SIDES, Places, Setting
from tests.benchmarks.table import Claim, alternating, ratios, rendered, spread
from tests.benchmarks.workloads import WORKLOADS, Workload
from tests.histories import put_mlflow_database

DIGITS = WORKLOADS["digits"]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("digits")
    return Places(path=DIGITS.write(folder, folder), data_dir=folder)


def claim(*values: float, bound: float | None = 2.0, at_most: bool = False, void: str = "") -> Claim:
    return Claim(row="r", title="a row", figure="x usual", values=values, bound=bound, at_most=at_most, void=void)


# ---------------------------------------------------------------- the table


def test_ratio_is_taken_repeat_by_repeat() -> None:
    assert ratios([10.0, 30.0], [5.0, 10.0]) == [2.0, 3.0]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1.0, 2.0], [1.0])


def test_sides_alternate_forth_and_back() -> None:
    assert [side for _, side in alternating("ABC", 3)] == list("ABCCBAABC")


def test_spread_is_the_median_with_the_least_and_the_greatest() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2 (1 to 3)"
    assert spread([1234.5]) == "1,234 (1,234 to 1,234)"
    assert spread([math.inf, 0.07, math.inf]) == "never (0.07 to never)"


def test_verdict_compares_the_median_with_the_bound() -> None:
    assert claim(1.0, 2.0, 9.0).verdict == "met"
    assert claim(1.0, 1.5, 9.0).verdict == "missed (0.75 of it)"
    assert claim(1.0, 1.5, 9.0, at_most=True).verdict == "met"
    assert claim(1.0, 3.0, 9.0, at_most=True).verdict == "missed (1.50 of it)"
    assert claim(1.0, math.inf, math.inf, at_most=True).verdict == "missed (never)"
    assert claim(1.0, bound=None).verdict == ""


def test_void_figure_is_void_however_good() -> None:
    void = claim(100.0, void="fused differs from unfused by 1e-3")
    assert void.verdict == "VOID: fused differs from unfused by 1e-3"
    assert "VOID" in rendered([void], {"cpu": "x"})


def test_results_of_rows_gather_in_one_file_of_one_machine(tmp_path: Path) -> None:
    path, here = tmp_path / "b.json", {"cpu": "a", "date": "2026-01-01"}
    kept.add(path, "one", [claim(1.0)], {}, here)
    kept.add(path, "two", [claim(2.0)], {}, {**here, "date": "2026-01-02"})
    kept.add(path, "one", [claim(3.0)], {}, here)
    assert [c.median for c in kept.claims_of(path)[0]] == [3.0, 2.0]
    kept.add(path, "one", [claim(4.0)], {}, {**here, "cpu": "b"})
    assert [c.median for c in kept.claims_of(path)[0]] == [4.0]


# ---------------------------------------------------------------- our side's pace, from events


def started(trial: int, trainer: int, at: float) -> Event:
    return AttemptStarted(at=at, trial=trial, attempt=1, trainer=trainer, device="cpu", structure="", alone=False)


def reported(trial: int, at: float, epoch: int = 1) -> Event:
    return EpochReported(at=at, trial=trial, attempt=1, epoch=epoch, metrics={})


def test_pace_counts_slot_updates_of_full_trainers_only() -> None:
    events = [started(0, 0, 0.0), started(1, 1, 0.0), reported(0, 1.0), started(2, 0, 1.5)]
    for i in range(1, 6):  # trainer 0 holds two trials and needs two seconds an epoch, trainer 1 one and one second
        events += [reported(0, 2.0 * i), reported(2, 2.0 * i), reported(1, 2.0 * i - 1), reported(1, 2.0 * i)]
    found = fused.steady(events, epoch_updates=10)
    assert found is not None
    assert found.rate == pytest.approx(10 * (2 / 2 + 1))
    assert (found.slots, found.window_s) == (2, 8.0)


@given(
    offsets=st.lists(st.sampled_from([n / 16 for n in range(16)]), min_size=1, max_size=8),
    epoch_s=st.integers(1, 10),
    n_epochs=st.integers(1, 12),
    since=st.integers(0, 5),
)
def test_pace_does_not_depend_on_when_slots_were_admitted_nor_on_the_window(
    offsets: list[float], epoch_s: int, n_epochs: int, since: int
) -> None:
    events = [started(trial, trial % 2, offset * epoch_s) for trial, offset in enumerate(offsets)]
    events += [
        reported(trial, (offset + n) * epoch_s)
        for trial, offset in enumerate(offsets)
        for n in range(1, n_epochs + 1)
        if offset + n <= n_epochs  # nobody sees what comes later
    ]
    found = fused.steady(sorted(events, key=lambda event: event.at), epoch_updates=10, since=since)
    assert found is None or found.rate == pytest.approx(10 * len(offsets) / epoch_s)
    assert found is not None or n_epochs * epoch_s <= since + 3 * epoch_s


def test_untrained_networks_count_for_nothing_and_no_trainer_may_be_silent() -> None:
    both = [started(0, 0, 0.0), started(1, 1, 0.0), reported(0, 1.0), reported(0, 2.0), reported(1, 1.0, epoch=0)]
    assert fused.steady(both, epoch_updates=1, since=0.5) is None


def test_ended_trials_leave_room_for_the_next() -> None:
    events: list[Event] = [started(0, 0, 0.0), reported(0, 1.0)]
    events.append(AttemptInterrupted(at=1.0, trial=0, attempt=1, reason=""))
    events += [started(1, 0, 1.0), reported(1, 2.0), reported(1, 3.0)]
    done = TrialFinished(at=3.0, trial=1, attempt=1, outcome="complete", reason="epochs", value=1.0, best_epoch=1)
    found = fused.steady([*events, done, started(2, 0, 3.0), reported(2, 4.0)], epoch_updates=1)
    assert found is not None
    assert (found.slots, found.rate) == (1, 1.0)


# ---------------------------------------------------------------- whole studies, release


def test_time_to_a_value_is_the_first_time_it_was_reached() -> None:
    curve = [(5.0, 0.4), (1.0, 0.1), (3.0, 0.4), (4.0, 0.2)]
    assert studies.improvements(curve) == [(1.0, 0.1), (3.0, 0.4)]
    assert studies.reached(curve, 0.3) == 3.0
    assert studies.reached(curve, 0.5) == math.inf


def test_interval_of_paired_differences() -> None:
    mean, half = release.interval([1.0, -1.0] * 25)
    assert mean == 0
    assert half == pytest.approx(2.01 * (50 / 49) ** 0.5 / 50**0.5)


# ---------------------------------------------------------------- each side once, on digits


@pytest.mark.parametrize("side", ["usual", "resident"])
def test_side_learns_digits_and_reports_to_optuna(side: str, places: Places, tmp_path: Path) -> None:
    told: list[float] = []
    training = SIDES[side](DIGITS, Setting(), places, told.append, seed=0)
    held = Held(setting=Setting(), training=training, optuna=Reporter(tmp_path / "o.journal"))
    done = burst(held, Burst(side=side, seconds=0.0, whole=True))
    for _ in range(3):
        burst(held, Burst(side=side, seconds=0.0, whole=True))
    assert done.updates == DIGITS.epoch_updates
    assert told[-1] > 0.85
    assert held.optuna.seconds == 0
    held.optuna(told[-1])
    assert held.optuna.seconds > 0


def test_graphed_side_is_the_same_training_without_a_gpu(places: Places) -> None:
    training = gpu.graphed(DIGITS, Setting(), places)
    assert [next(training) for _ in range(DIGITS.epoch_updates + 1)] == [False] * DIGITS.epoch_updates + [True]


def test_gpu_column_runs_on_the_cpu_with_tiny_sizes(places: Places) -> None:
    effort = gpu.Effort(
        repeats=1, burst_s=0.01, usual_s=0.01, sweep_s=0.01, slots=(2, 3), n_workers=(0,), halving_trials=6
    )
    claims = gpu.row(DIGITS, places, effort, device="cpu", precision="float32")
    claims.append(gpu.refill(DIGITS, places, effort, device="cpu", precision="float32"))
    assert [c.figure for c in claims[:3]] == ["x usual, 2 slots", "x resident, 2 slots", "x graphed, 2 slots"]
    assert all(value > 0 for c in claims for value in c.values)


def test_race_trains_the_same_trials_with_refill_and_without(places: Places) -> None:
    found = engine.objective(DIGITS, places, precision="float32")
    trials = [engine.given(DIGITS, i) for i in range(5)]
    ended: dict[bool, list[int]] = {True: [], False: []}
    for refill, order in ended.items():

        def ending(accuracies: dict[int, float], order: list[int] = order) -> list[int]:
            order += accuracies
            return list(accuracies)

        arm = engine.race(found, trials, 2, epochs=1, refill=refill, ending=ending)  # type: ignore[arg-type]
        assert arm.slot_updates == 5 * DIGITS.epoch_updates
    assert sorted(ended[True]) == sorted(ended[False]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.3}, {"batch_norm": True}])
def test_fused_equals_unfused_also_admitted_late(changes: dict[str, float], tmp_path: Path) -> None:
    workload = replace(DIGITS, hyperparameters={**DIGITS.hyperparameters, "hidden": (16,), **changes})
    assert validity.difference(workload, tmp_path, tmp_path) < validity.SAME


def test_difference_sees_what_differs(places: Places) -> None:
    found = engine.objective(DIGITS, places, precision="float64")
    one, other = (engine.filled(found, DIGITS, 1).weights(0) for _ in range(2))
    assert validity.largest(one, other) == 0
    other["output.weight"][0, 0] += 1e-3
    assert validity.largest(one, other) > 1e-4


def test_memory_that_must_be_taken_grows_with_the_slots(places: Places) -> None:
    one, two = (memory.must_bytes(DIGITS, places, n, precision="float32") for n in (1, 20))
    n_parameters = 64 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10
    assert one > 20 * n_parameters
    assert two > 20 * 20 * n_parameters


def test_fraction_of_the_limit_is_positive_and_finite(places: Places) -> None:
    found = limit.fractions(DIGITS, places, 64, "float32", 1, 2)
    assert 0 < found.values[0] < math.inf


def test_service_has_a_pace_and_pauses_between_bursts(tmp_path: Path, places: Places) -> None:
    workload: Workload = replace(DIGITS, hyperparameters={**DIGITS.hyperparameters, "hidden": (8,)})
    put_mlflow_database(tmp_path / "mlruns")
    with fused.service(workload, places, tmp_path, name="pace", trainers=1) as service:
        first = service.burst(0.1)
        ledger = Workspace(tmp_path).ledger("pace")
        time.sleep(0.5)  # what was under way when it was paused
        n_events = len(fused._events(ledger))
        time.sleep(0.5)
        assert len(fused._events(ledger)) == n_events
        second = service.burst(0.1)
    assert first.rate > 0
    assert second.rate > 0
    assert first.views_s == second.views_s > 0
    assert first.start_s == second.start_s > 0


def test_modules_of_ones_own_are_measured_beside_plain_ones() -> None:
    data = load({"name": "digits"}, data_dir=Path(), seed=0, device="cpu", progress=print)
    build, _, batch = fused_modules.MODULES["digits_mlp"]
    cells = fused_modules.measured(build, data, batch, 2, repeats=1, seconds=0.01).split(" | ")
    assert [cell.startswith("**") for cell in cells] == [False, True, False]


# ---------------------------------------------------------------- bookkeeping


def test_made_trials_end_at_rungs_as_a_study_s_do() -> None:
    definition = bookkeeping.study(40, epochs=9)
    made = bookkeeping.Made(definition, {1: [], 3: []}, random.Random(0))
    state = fold([made.created()])
    for _ in range(40):
        fold(made.trial(), state)
    fold(made.trial(until=2), state)
    assert {trial.outcome for trial in state.finished} == {"complete", "pruned"}
    assert [len(trial.reports) for trial in state.running] == [3]
    for trial in state.finished:
        last = trial.reports[-1].epoch
        assert last == 9 if trial.outcome == "complete" else last in (1, 3)
        assert trial.best(definition.metric, maximize=True) == (trial.best_epoch, trial.value)


@pytest.mark.parametrize("part", ["asking", "ledger"])
def test_costs_of_bookkeeping_are_positive(part: str) -> None:
    lines = bookkeeping.measured(part, [8]).splitlines()
    assert lines[0] == f"| {part} | 8 trials |"
    assert all(float(line.split("|")[2]) > 0 for line in lines[2:])
