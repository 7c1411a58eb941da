"""Claims of search/capacity.py: what a sweep finds where time and memory are known, and what is remembered."""

import itertools
import json
import multiprocessing
import os
import random
import subprocess
import sys
import weakref
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.classification import Classification
from objectives.supervised import SupervisedObjective
from search.capacity import (
    GAIN,
    LONGEST_S,
    STEP,
    SWEEPS,
    Found,
    Sweep,
    fits,
    joined,
    out_of_memory,
    pays,
    recall,
    remember,
    swept,
    tells,
)
from search.contract import (
    Admit,
    Admitted,
    Evaluation,
    Failed,
    Hyperparameters,
    Open,
    Order,
    Population,
    Replicate,
    Reply,
    Report,
)
from search.device import Device, device_named
from search.events import AttemptInterrupted, AttemptStarted, TrialFinished
from search.executors import CPU_TRAINER_ENVIRONMENT, QueueChannel
from search.trainer import Trainer
from tests.running import PROJECT, TABLE, coordinate, events_of, fake_study, faults

SIZES = (1, 2, 4, 8, 16)
KEY: Mapping[str, object] = {"structure": "width=64", "device": "a processor", "input_shape": [1, 8, 8]}


class Machine:
    """A clock and a memory that the populations on it move: an update takes `overhead` + slots x `own`, with noise."""

    def __init__(
        self, *, overhead: float = 0.0, own: float = 0.0, noise: float = 0.0, holds: int = 10**9, raises: int = 10**9
    ) -> None:
        self.overhead, self.own, self.noise, self.raises = overhead, own, noise, raises
        self.clock, self.n_slots, self.most = 0.0, 0, 0
        self.rng = random.Random(0)
        self.device = Device(
            now=lambda: self.clock,
            spent=lambda: self.clock,
            held_bytes=lambda: 1000 * self.n_slots,
            peak_bytes=lambda: 1000 * self.n_slots,
            free_bytes=lambda: 1000 * (holds - self.n_slots),
            warm_ups=2,
        )

    def sweep(self, limit: int) -> Sweep:
        return swept(lambda: Simulated(self), {}, limit=limit, least_bytes=1, device=self.device)


class Simulated:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.slots: list[int] = []
        self.kept: set[int] = set()
        self.n_updates = 10**9

    def admit(self, slot: int, *, hyperparameters: Hyperparameters, seed: int, fold: int | None) -> None:
        self.slots.append(slot)
        self.machine.n_slots += 1
        self.machine.most = max(self.machine.most, len(self.slots))

    def update(self) -> Collection[int]:
        machine = self.machine
        assert self.kept == set(self.slots)
        if len(self.slots) > machine.raises:
            raise MemoryError
        seconds = machine.overhead + machine.own * len(self.slots)
        machine.clock += seconds * (1 + machine.noise * machine.rng.uniform(-1, 1))
        return ()

    def keep(self, slot: int) -> None:
        self.kept.add(slot)

    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, Evaluation]:
        raise AssertionError("a sweep measures no metrics")

    def retire(self, slots: Collection[int]) -> None: ...
    def forget(self, slots: Collection[int]) -> None: ...
    def save(self, slot: int, path: Path) -> None: ...


# ---------------------------------------------------------------- what pays


@given(st.dictionaries(st.sampled_from(SIZES), st.floats(1e-6, 1e3), min_size=1))
def test_answer_is_the_least_measured_size_that_is_nearly_as_good_as_the_best(seconds: Mapping[int, float]) -> None:
    shares = {size: seconds[size] / size for size in seconds}
    near = [size for size, share in shares.items() if share * (1 - GAIN) <= min(shares.values())]
    assert pays(seconds) == min(near)


@given(
    overhead=st.floats(1e-6, 1), own=st.floats(1e-6, 1), errors=st.lists(st.floats(0.96, 1.04), min_size=5, max_size=5)
)
def test_noise_between_two_sizes_costs_no_more_than_it_adds_up_to(
    overhead: float, own: float, errors: list[float]
) -> None:
    sizes = [2**i for i in range(6)]
    true = {size: overhead + own * size for size in sizes}
    noisy = {1: true[1]}
    for (size, larger), error in zip(itertools.pairwise(sizes), errors, strict=True):
        noisy[larger] = noisy[size] * true[larger] / true[size] * error
    share = true[pays(noisy)] / pays(noisy)
    assert share <= min(true[size] / size for size in sizes) / (1 - GAIN) * (1.04 / 0.96) ** 5


@pytest.mark.parametrize(
    ("overhead", "own", "limit", "best"),
    [
        (1e-3, 0.0, 16, 16),
        (0.0, 1e-3, 16, 1),
        (1e-3, 5e-3, 16, 4),
        (1e-3, 0.0, 1, 1),
        (1e-3, 0.0, 6, 6),
        (1e-6, 1e-6, 16, 16),
    ],
    ids=["all overhead", "no overhead", "a sixth", "limit of one", "limit of six", "too short to tell"],
)
def test_sweep_finds_where_more_slots_stop_to_pay(overhead: float, own: float, limit: int, best: int) -> None:
    machine = Machine(overhead=overhead, own=own)
    assert pays(machine.sweep(limit).seconds) == best
    assert machine.most <= min(STEP * best, limit), "it went on although the step before did not pay"


@given(
    overhead=st.floats(1e-3, 1e-2),
    own=st.floats(1e-3, 1e-2),
    noise=st.floats(0, 1),
    limit=st.integers(1, 40),
)
def test_sweep_stays_within_its_limit_whatever_the_noise(overhead: float, own: float, noise: float, limit: int) -> None:
    found = Machine(overhead=overhead, own=own, noise=noise).sweep(limit)
    assert 1 <= pays(found.seconds) <= max(found.seconds) <= found.limit == limit


@pytest.mark.parametrize(("own", "tried"), [(0.06, 1), (0.015, 4), (0.002, 16)])
def test_sweep_of_a_slow_network_takes_no_step_that_takes_long(own: float, tried: int) -> None:
    machine = Machine(own=own, overhead=own)
    assert pays(machine.sweep(16).seconds) == machine.most == tried
    assert machine.clock <= 2 * LONGEST_S


def test_sweep_of_an_objective_that_only_waits_comes_to_an_end() -> None:
    machine = Machine(overhead=1e-3, own=1e-3)
    machine.device = replace(machine.device, spent=lambda: 0.0)
    machine.sweep(16)
    assert machine.clock <= 2 * LONGEST_S


def test_what_others_take_of_the_core_does_not_change_what_pays() -> None:
    alone, beside = Machine(overhead=1e-3, own=1e-3), Machine(overhead=1e-3, own=1e-3)
    beside.device = replace(beside.device, now=lambda: beside.clock + beside.rng.uniform(0, 0.1))
    assert beside.sweep(16).seconds == pytest.approx(alone.sweep(16).seconds)


# ---------------------------------------------------------------- several sweeps


SECONDS = st.lists(st.floats(0.5, 4), min_size=5, max_size=5)
"""How much longer an update takes from each size to the next."""


def sweep_of(times_longer: list[float], *, n_sizes: int = 6, limit: int = 32) -> Sweep:
    seconds = {1: 1.0}
    for times in times_longer[: n_sizes - 1]:
        seconds[2 * max(seconds)] = seconds[max(seconds)] * times
    return Sweep(seconds=seconds, limit=limit, slot_bytes=1000)


@given(SECONDS, st.integers(1, 6), st.integers(1, 5))
def test_sweeps_that_agree_are_joined_to_what_each_of_them_says(times: list[float], n_sizes: int, n: int) -> None:
    one = sweep_of(times, n_sizes=n_sizes)
    assert joined([one] * n) == pytest.approx(one.seconds)


@given(SECONDS, SECONDS, st.integers(1, 6))
def test_one_sweep_of_three_that_is_wrong_changes_nothing(times: list[float], wrong: list[float], n_sizes: int) -> None:
    right = sweep_of(times)
    for sweeps in itertools.permutations([right, right, sweep_of(wrong, n_sizes=n_sizes)]):
        assert joined(sweeps) == pytest.approx(right.seconds)


def test_sweep_that_ended_early_has_its_say_on_the_sizes_it_tried() -> None:
    short, long = sweep_of([2.2, 2.2], n_sizes=3), sweep_of([1.8, 1.4, 1.5, 1.5, 1.5])
    assert joined([short, long, short]) == pytest.approx({1: 1, 2: 2.2, 4: 4.84, 8: 7.26, 16: 10.89, 32: 16.335})


def test_sweeps_with_limits_between_two_doublings_are_joined_too() -> None:
    first = Sweep(seconds={1: 1.0, 2: 1.2, 3: 1.5}, limit=3, slot_bytes=1)
    second = Sweep(seconds={1: 1.0, 2: 1.2, 4: 1.8, 6: 2.7}, limit=6, slot_bytes=1)
    assert joined([first, second]) == pytest.approx({1: 1.0, 2: 1.2, 3: 1.5, 4: 1.8, 6: 2.7})


def test_three_joined_sweeps_of_a_noisy_machine_lose_less_than_one() -> None:
    machine = Machine(overhead=2e-3, own=4e-3, noise=0.3)

    def lost(sweeps: list[Sweep]) -> float:
        """Of a slot's share of an update of 32."""
        n = pays(joined(sweeps))
        return (machine.overhead / n + machine.own) / (machine.overhead / 32 + machine.own) - 1

    each = [[machine.sweep(32) for _ in range(SWEEPS)] for _ in range(100)]
    assert sum(map(lost, each)) < 0.7 * sum(lost([one]) for one, *_ in each)


@pytest.mark.parametrize(
    ("n_sizes", "limit", "says"),
    [(3, 4, {2: True, 4: True, 8: False}), (4, 32, {2: True, 8: True, 32: True, 64: True})],
    ids=["stopped by its limit", "ended because more does not pay"],
)
def test_sweep_tells_what_pays_up_to_its_limit_or_beyond_where_it_saw_the_end(
    n_sizes: int, limit: int, says: Mapping[int, bool]
) -> None:
    times = [1.5, 1.5, 2.5, 2.5, 2.5]
    assert {up_to: tells(sweep_of(times, n_sizes=n_sizes, limit=limit), up_to) for up_to in says} == says


# ---------------------------------------------------------------- what fits


@given(st.integers(1, 2**40), st.integers(0, 2**45))
def test_population_that_fits_leaves_memory_free_unless_it_is_of_one(slot_bytes: int, free_bytes: int) -> None:
    n = fits(slot_bytes, free_bytes)
    assert n >= 1
    assert n == 1 or n * slot_bytes < free_bytes


def test_sweep_measures_the_memory_of_a_slot_and_stays_within_what_is_free() -> None:
    machine = Machine(overhead=1e-3, holds=20)
    found = machine.sweep(64)
    assert found.slot_bytes == 1000
    assert pays(found.seconds) == found.limit == 8
    assert machine.n_slots < 20


def test_sweep_that_runs_out_of_memory_stays_with_what_it_could_train() -> None:
    found = Machine(overhead=1e-3, raises=4).sweep(16)
    assert (pays(found.seconds), found.limit) == (4, 4)


def test_other_errors_of_a_sweep_are_not_taken_for_a_lack_of_memory() -> None:
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    assert not out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_peak_of_this_process_tells_what_was_taken_and_given_back_meanwhile() -> None:
    code = """
from search.device import device_named
import os
device = device_named("cpu", n_trainers=2)
freed = [bytes(50_000) for _ in range(2000)]
del freed
held = device.held_bytes()
some = [os.urandom(50_000) for _ in range(1000)]
del some
print(device.peak_bytes() - held)
assert device.free_bytes() < 1.1 * device_named("cpu", n_trainers=1).free_bytes() / 2
"""
    environment = {**os.environ, **CPU_TRAINER_ENVIRONMENT}
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=PROJECT, capture_output=True, check=True
    )
    assert 0.9 * 50_000_000 < int(printed.stdout) < 1.5 * 50_000_000


# ---------------------------------------------------------------- what is remembered


FOUND = Found(sweeps=(Sweep(seconds={1: 1.0, 2: 1.5, 4: 2.5}, limit=16, slot_bytes=1000),), most=8)


def test_what_is_remembered_is_found_again_under_its_key_alone(tmp_path: Path) -> None:
    folder = str(tmp_path / "new" / "folder")
    remember(folder, KEY, FOUND)
    assert recall(folder, KEY) == FOUND
    for name in KEY:
        assert recall(folder, {**KEY, name: "another"}) == Found()
    assert recall("", KEY) == Found()


def contents() -> list[bytes]:
    sweep = {"seconds": {"1": 1.0, "2": 1.5}, "limit": 16, "slot_bytes": 1000}
    whole = json.dumps({"key": KEY, "found": {"sweeps": [sweep], "most": None}}).encode()
    sweeps = [
        sweep | {"more": 1},
        {"seconds": {"1": 1.0}, "limit": 16},
        *(sweep | {"seconds": seconds} for seconds in ({}, {"2": 1.5}, {"1": -1.0}, {"1": 1e999}, {"one": 1.0}, 3)),
        *(sweep | {"limit": limit} for limit in (0, "many", 1e999, None)),
        sweep | {"slot_bytes": 0},
    ]
    foreign: list[object] = [
        None,
        [],
        "text",
        {},
        {"key": KEY},
        {"key": KEY, "found": 3},
        {"key": KEY, "found": {"pays": 4, "limit": 16, "slot_bytes": 1000}},
        {"key": KEY, "found": {"sweeps": [], "most": 0}},
        *({"key": KEY, "found": {"sweeps": [each], "most": None}} for each in sweeps),
        {"key": {**KEY, "device": "another"}, "found": {"sweeps": [sweep], "most": None}},
    ]
    return [
        b"",
        b"\x00\xff\xfe",
        *(whole[:n] for n in range(0, len(whole), 7)),
        *(json.dumps(f).encode() for f in foreign),
    ]


@pytest.mark.parametrize("content", contents())
def test_damaged_or_foreign_file_is_as_good_as_none_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    remember(str(tmp_path), KEY, FOUND)
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert recall(str(tmp_path), KEY) == Found()
    remember(str(tmp_path), KEY, FOUND)
    assert recall(str(tmp_path), KEY) == FOUND
    assert list(tmp_path.iterdir()) == [path]


def write_and_read(folder: str, n: int) -> None:
    for i in range(300):
        remember(folder, KEY, Found(most=10 ** (i % 9) + n))
        if recall(folder, KEY) == Found():
            os._exit(1)


def test_processes_that_write_at_once_never_leave_half_a_file(tmp_path: Path) -> None:
    processes = [
        multiprocessing.get_context("fork").Process(target=write_and_read, args=(str(tmp_path), n)) for n in (1, 2, 3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 1


def test_where_nothing_can_be_written_nothing_is_remembered_and_work_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    remember(str(tmp_path / "file"), KEY, FOUND)
    assert recall(str(tmp_path / "file"), KEY) == Found()


# ---------------------------------------------------------------- in a trainer


DIGITS: Hyperparameters = {"lr": 1e-3, "model": "mlp", "hidden": (32,), "batch_size": 64, "dropout": 0.2}
ONE_SHAPE = {
    "baseline": {"quality": 0.6, "drop": 0.0},
    "space": {name: TABLE["space"][name] for name in ("quality", "drop")},
}
N_TRIALS = 40
"""Enough that a coordinator has several of them in training at once."""
FAKE: Hyperparameters = {"quality": 0.5, "drop": 0.0, "shape": 1, "fault": "none"}


class Opened:
    """A trainer that remembers in a folder, and has opened an objective."""

    def __init__(
        self, folder: Path, *, objective: str = "tests.fakes:FakeObjective", slots: int | None = None, **data: object
    ) -> None:
        self.channel = QueueChannel()
        self.trainer = Trainer(self.channel)
        order = Open(
            objective=objective,
            data=data,
            data_dir="/nonexistent",
            seed=0,
            device="cpu",
            precision="float32",
            epochs=2,
            metric="val_accuracy",
            maximize=True,
            slots=slots,
            capacity_dir=str(folder),
        )
        self.send(order)

    def send(self, order: Order) -> list[Reply]:
        self.channel.orders.append(order)
        self.trainer.step()
        replies, self.channel.replies = self.channel.replies, []
        return replies

    def capacity(self, trial: int, given: Hyperparameters = FAKE, *, alone: bool = False) -> int:
        admitted = self.send(admit(trial, given, alone=alone))[0]
        assert isinstance(admitted, Admitted), admitted
        return admitted.capacity.slots


def admit(trial: int, given: Hyperparameters, *, alone: bool = False) -> Admit:
    return Admit(
        trial=trial,
        attempt=1,
        hyperparameters=given,
        structure="the only one",
        replicates=(Replicate(seed=100 + trial),),
        alone=alone,
    )


def digits() -> SupervisedObjective:
    return Classification(
        data={"name": "digits"}, data_dir=Path(), seed=0, device="cpu", precision="float32", progress=print
    )


def test_network_on_digits_gets_a_capacity_within_its_limit_and_the_next_trainer_knows_it(tmp_path: Path) -> None:
    objective = digits()
    limit = objective.capacity(DIGITS)
    assert limit > 1
    first = Opened(tmp_path, objective="classification", name="digits")
    assert 1 <= first.capacity(0, DIGITS) <= limit
    (path,) = tmp_path.iterdir()
    held = json.loads(path.read_text())
    (sweep,) = held["found"]["sweeps"]
    assert sweep["limit"] == limit
    assert sweep["slot_bytes"] >= 4 * 5 * objective.n_parameters(DIGITS)
    assert held["key"]["torch"] == torch.__version__
    rewrite(path, sweeps=[sweep | {"seconds": {"1": 1.0, str(limit - 1): 1.0, str(limit): 9.0}}] * SWEEPS)
    assert Opened(tmp_path, objective="classification", name="digits").capacity(0, DIGITS) == limit - 1


def rewrite(path: Path, **found: object) -> None:
    held = json.loads(path.read_text())
    path.write_text(json.dumps(held | {"found": held["found"] | found}))


def n_sweeps(folder: Path) -> int:
    (path,) = folder.iterdir()
    return len(json.loads(path.read_text())["found"]["sweeps"])


def test_sweep_changes_no_trial(tmp_path: Path) -> None:
    curves = []
    for slots in (8, None):  # without and with a sweep
        trainer = Opened(tmp_path, objective="classification", slots=slots, name="digits")
        curves.append([r.slots for r in trainer.send(admit(0, DIGITS)) if isinstance(r, Report)])
    assert len(curves[0]) == 2
    assert curves[0] == curves[1]


def test_sweep_leaves_no_population_behind() -> None:
    objective = digits()
    built: list[weakref.ref[Population]] = []

    def build() -> Population:
        population: Population = objective.build(DIGITS, epochs=2)
        built.append(weakref.ref(population))
        return population

    swept(build, DIGITS, limit=4, least_bytes=1, device=device_named("cpu", n_trainers=1))
    assert [each() for each in built] == [None, None]


def test_each_trainer_adds_a_sweep_until_there_are_enough(tmp_path: Path) -> None:
    kept = []
    for _ in range(SWEEPS + 2):
        assert Opened(tmp_path, capacity=4).capacity(0) == 4
        kept.append(n_sweeps(tmp_path))
    assert kept == [*range(1, SWEEPS + 1), SWEEPS, SWEEPS]


def test_first_sweep_that_was_wrong_is_outvoted(tmp_path: Path) -> None:
    Opened(tmp_path, capacity=4).capacity(0)
    (path,) = tmp_path.iterdir()
    wrong = {"seconds": {"1": 1.0, "2": 9.0}, "limit": 4, "slot_bytes": 1000}
    rewrite(path, sweeps=[wrong])
    answers = [Opened(tmp_path, capacity=4).capacity(0) for _ in range(SWEEPS)]
    assert answers[1:] == [4] * (SWEEPS - 1)


def test_trainer_measures_a_structure_once(tmp_path: Path) -> None:
    trainer = Opened(tmp_path, capacity=4)
    assert trainer.capacity(0) == 4
    (path,) = tmp_path.iterdir()
    path.unlink()
    assert trainer.capacity(1) == 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("slots", "capacity"), [(3, 4), (None, 1)], ids=["the study says slots", "one slot at most"])
def test_nothing_is_measured_where_nothing_is_to_be_found_out(tmp_path: Path, slots: int | None, capacity: int) -> None:
    assert Opened(tmp_path, slots=slots, capacity=capacity).capacity(0) == capacity
    assert list(tmp_path.iterdir()) == []


def test_trial_that_must_be_alone_is_not_tried_in_company(tmp_path: Path) -> None:
    trainer = Opened(tmp_path)
    assert trainer.capacity(0, {**FAKE, "fault": "raise in company"}, alone=True) == 1
    assert list(tmp_path.iterdir()) == []


def test_limit_that_has_risen_is_measured_anew_only_where_more_might_pay(tmp_path: Path) -> None:
    for _ in range(SWEEPS):
        assert Opened(tmp_path, capacity=2).capacity(0) == 2
    assert Opened(tmp_path, capacity=8).capacity(0) == 8
    assert n_sweeps(tmp_path) == 1, "those that ended at two slots say nothing of eight"
    assert Opened(tmp_path, capacity=4).capacity(0) == 4
    (path,) = tmp_path.iterdir()
    ended = {"seconds": {"1": 1.0, "2": 1.0, "4": 1.0, "8": 9.0}, "limit": 8, "slot_bytes": 1000}
    rewrite(path, sweeps=[ended] * SWEEPS)
    assert Opened(tmp_path, capacity=16).capacity(0) == 4
    assert n_sweeps(tmp_path) == SWEEPS
    rewrite(path, most=2)
    assert Opened(tmp_path, capacity=16).capacity(0) == 2, "memory ran out with more"


def test_what_raises_in_a_sweep_fails_the_trial_and_not_the_trainer(tmp_path: Path) -> None:
    trainer = Opened(tmp_path)
    (failed,) = trainer.send(admit(0, {**FAKE, "fault": "raise"}))
    assert isinstance(failed, Failed)
    assert failed.trials == ((0, 1),)
    assert trainer.capacity(1) == 4


@pytest.mark.parametrize(
    ("sampler", "four", "together"), [("tpe", 3.6, 1), ("tpe", 2.0, 4), ("random", 3.6, 4)], ids=str
)
def test_trials_of_a_sampler_that_learns_have_company_only_where_that_saves_much(
    sampler: str, four: float, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_CACHE_DIR", str(tmp_path / "cache"))
    study = fake_study(n_trials=N_TRIALS, epochs=3, sampler=sampler, pruning={"kind": "none"}, **ONE_SHAPE)
    coordinate(study, tmp_path / "before")
    (path,) = (tmp_path / "cache" / "capacity").iterdir()
    rewrite(path, sweeps=[{"seconds": {"1": 1.0, "4": four}, "limit": 4, "slot_bytes": 1000}] * SWEEPS)
    coordinate(study, tmp_path)
    training, most = set[int](), 0
    for event in events_of(tmp_path):
        match event:
            case AttemptStarted(trial=trial):
                training.add(trial)
            case TrialFinished(trial=trial):
                training.discard(trial)
        most = max(most, len(training))
    assert most == together


# ---------------------------------------------------------------- memory that is too small


def test_population_that_ran_out_of_memory_is_smaller_in_the_next_study_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_CACHE_DIR", str(tmp_path / "cache"))
    everyone = faults(dict.fromkeys(range(N_TRIALS), "memory"))  # from the second epoch on, two slots fit and not more
    definition = fake_study(n_trials=N_TRIALS, epochs=3, data=everyone, pruning={"kind": "none"}, **ONE_SHAPE)
    for study, runs_out in (("first", True), ("next", False)):
        state = coordinate(definition, tmp_path / study)
        assert len(state.with_outcome("complete")) == N_TRIALS
        assert interrupted(tmp_path / study) is runs_out


@pytest.mark.parametrize("slots", [None, 8], ids=["measured", "the study says slots"])
def test_study_whose_memory_is_too_small_goes_on_with_fewer_slots(tmp_path: Path, slots: int | None) -> None:
    data = {"capacity": 8, "room": 2}
    definition = fake_study(n_trials=N_TRIALS, epochs=3, data=data, slots=slots, pruning={"kind": "none"}, **ONE_SHAPE)
    state = coordinate(definition, tmp_path)
    assert len(state.with_outcome("complete")) == N_TRIALS
    assert interrupted(tmp_path) is (slots is not None), "a sweep finds out what a study would run into"


def interrupted(root: Path) -> bool:
    return any(isinstance(event, AttemptInterrupted) for event in events_of(root))
