"""Timing of one trial per process: processes that stay, trained in bursts so that the sides can alternate."""

import contextlib
import multiprocessing
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from search.executors import CPU_TRAINER_ENVIRONMENT
from tests.benchmarks.sides import SIDES, Places, Setting, Training
from tests.benchmarks.workloads import Workload

T = TypeVar("T")
WARM_UP_UPDATES = 3
EPOCHS = 9
"""After so many epochs a trial is told to Optuna and the next one asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Begin to train this; replied to when the first updates are done."""

    side: str
    """ "usual" or "resident"; what follows a blank tells apart two settings of one side."""
    workload: Workload
    setting: Setting
    places: Places
    journal: Path | None
    """Optuna's journal, to which each epoch's accuracy is reported; None: reported to nobody."""
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Train on for so long, then to the end of the epoch if `whole`."""

    side: str
    seconds: float
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a burst did."""

    updates: int
    seconds: float
    reporting_s: float = 0.0

    @property
    def rate(self) -> float:
        return self.updates / self.seconds


def burst(held: "Held", order: Burst) -> Done:
    """Count the updates of a burst; the end of an epoch is a yield that is no update."""
    reported_s, updates, started = held.optuna.seconds, 0, time.perf_counter()
    while True:
        is_end = next(held.training)
        updates += not is_end
        if time.perf_counter() - started >= order.seconds and (is_end or not order.whole):
            seconds = time.perf_counter() - started
            return Done(updates=updates, seconds=seconds, reporting_s=held.optuna.seconds - reported_s)


class Reporter:
    """Reports to Optuna as a user's loop would: a value per epoch, then the next trial."""

    def __init__(self, journal: Path | None) -> None:
        self.seconds, self._epoch, self._study = 0.0, 0, None
        if journal is not None:
            import optuna
            from optuna.storages.journal import JournalFileBackend

            optuna.logging.set_verbosity(optuna.logging.ERROR)
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))
            self._study = optuna.create_study(
                storage=storage, study_name=journal.stem, load_if_exists=True, direction="maximize"
            )

    def __call__(self, value: float) -> None:
        if self._study is None:
            return
        started = time.perf_counter()
        if self._epoch % EPOCHS == 0:
            self._trial = self._study.ask()
        self._epoch += 1
        self._trial.report(value, self._epoch)
        self._trial.should_prune()
        if self._epoch % EPOCHS == 0:
            self._study.tell(self._trial, value)
        self.seconds += time.perf_counter() - started


# ---------------------------------------------------------------- processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A side's training, at rest between two bursts."""

    setting: Setting
    training: Training
    optuna: Reporter


def serve(connection: Connection, core: int | None) -> None:
    """Do what the orders say until None comes; one training per side is held."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # the sweep tries too many on purpose
    held: dict[str, Held] = {}
    while (order := connection.recv()) is not None:
        match order:
            case Prepare(side=side, setting=setting):
                held.pop(side, None)  # its DataLoaders end their workers
                torch.set_num_threads(setting.threads)
                optuna = Reporter(order.journal)
                training = SIDES[side.partition(" ")[0]](order.workload, setting, order.places, optuna, seed=order.seed)
                for _ in range(WARM_UP_UPDATES):
                    next(training)
                held[side] = Held(setting=setting, training=training, optuna=optuna)
                connection.send(True)
            case Burst(side=side):
                torch.set_num_threads(held[side].setting.threads)
                connection.send(burst(held[side], order))


@dataclass(frozen=True, slots=True)
class Pool:
    """Processes that are told the same thing at the same time."""

    connections: Sequence[Connection]

    def prepare(self, order: Prepare) -> None:
        """Begin in as many processes as the setting leaves cores for."""
        self._ask([(each, replace(order, seed=seed)) for seed, each in enumerate(self._used(order.setting))])

    def burst(self, setting: Setting, order: Burst) -> list[Done]:
        return [cast("Done", reply) for reply in self._ask([(each, order) for each in self._used(setting)])]

    def _used(self, setting: Setting) -> Sequence[Connection]:
        return self.connections[: max(1, len(self.connections) // setting.threads)]

    def _ask(self, orders: Sequence[tuple[Connection, object]]) -> list[object]:
        for connection, order in orders:
            connection.send(order)
        return [connection.recv() for connection, _ in orders]


@contextlib.contextmanager
def pool(cores: Sequence[int], *, tuned: bool) -> Iterator[Pool]:
    """A process per core; `tuned` ones are pinned, with the allocator set as our trainers' is.

    The others run where the system puts them: their DataLoaders' workers inherit the cores.
    """
    context, connections, processes = multiprocessing.get_context("spawn"), [], []
    with _environment(CPU_TRAINER_ENVIRONMENT if tuned else {"OMP_NUM_THREADS": str(len(cores))}):
        for core in cores:
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=serve, args=(theirs, core if tuned else None)))
            processes[-1].start()
            theirs.close()
            connections.append(ours)
    try:
        yield Pool(connections)
    finally:
        for connection, process in zip(connections, processes, strict=True):
            with contextlib.suppress(OSError):
                connection.send(None)
            process.join(10)
            process.kill()


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def in_fresh_process(function: Callable[..., T], *arguments: object, core: int | None = None) -> T:
    """Return what the function returns in a process like a trainer's: one thread, the allocator set."""
    context = multiprocessing.get_context("spawn")
    with (
        _environment(CPU_TRAINER_ENVIRONMENT),
        ProcessPoolExecutor(1, mp_context=context, initializer=_settle, initargs=(core,)) as executor,
    ):
        return executor.submit(function, *arguments).result()


def _settle(core: int | None) -> None:
    torch.set_num_threads(1)
    if core is not None:
        os.sched_setaffinity(0, {core})


# ---------------------------------------------------------------- the machine


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        **{name: _version(name) for name in ("torch", "torchvision", "optuna", "mlflow", "ray")},
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
