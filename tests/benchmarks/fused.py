"""Our side: the whole service, as `python -m search.run` runs it; its pace is read from the ledger.

A study of one structure is begun in a workspace of its own, with both views; it is paused while the other sides train.
"""

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from rich.console import Console

from search.definition import StudyDefinition
from search.events import AttemptInterrupted, AttemptStarted, EpochReported, Event, StudyCreated, TrialFinished
from search.ledger import Ledger
from search.session import Settings, run
from search.workspace import Workspace
from tests.benchmarks.sides import LR, Places
from tests.benchmarks.workloads import Workload

POLL_S = 0.25
GIVE_UP_S = 120.0
"""A study that reaches no steady state until then is stopped all the same."""
N_TRIALS = 100_000
"""More than are ever trained: the study does not run out of them while it is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """A study's steady state: all trainers busy, with as many trials as they ever held together."""

    rate: float
    """Trial-updates per second, summed over the trainers."""
    window_s: float
    slots: int
    """The most trials that a trainer held at once."""
    start_s: float = 0.0
    """From the command to the first report of a trained epoch."""
    views_s: float = 0.0
    """From the command until the views, loaded and connected, step back and follow: until then they take of a core."""


def definition(workload: Workload, path: Path, *, name: str, seed: int, **changes: Any) -> StudyDefinition:
    """A study of this workload's structure: only numbers that sit in a vector are drawn."""
    space: dict[str, Any] = {"lr": {"kind": "log_float", "low": 1e-4, "high": 1e-2}}
    baseline: dict[str, Any] = {"lr": LR}
    if workload.dropout:
        space["dropout"] = {"kind": "float", "low": 0.1, "high": 0.5}
        baseline["dropout"] = workload.dropout
    return StudyDefinition.model_validate(
        {
            "name": name,
            "title": workload.title,
            "question": "How fast?",
            "n_trials": N_TRIALS,
            "epochs": 9,
            "seed": seed,
            "sampler": "random",
            "pruning": {"kind": "none"},
            "data": workload.table(path),
            "fixed": {key: value for key, value in workload.hyperparameters.items() if key not in space},
            "baseline": baseline,
            "space": space,
            **changes,
        }
    )


@contextlib.contextmanager
def service(workload: Workload, places: Places, root: Path, *, name: str, **changes: Any) -> Iterator["Service"]:
    """Run the command in a process group of its own, paused but for its bursts; it is killed in the end."""
    workspace = Workspace(root)
    settings = Settings(
        workspace=workspace,
        data_dir=places.data_dir,
        storage=workspace.optuna_url,
        tracking_uri=workspace.mlflow_url,
        quiet=True,
    )
    chosen = definition(workload, places.path, name=name, seed=0, **changes)
    process = multiprocessing.get_context("spawn").Process(target=_command, args=(chosen, settings))
    begun = time.time()
    process.start()
    try:
        yield Service(process, workspace, name, workload.epoch_updates, begun=begun)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _command(chosen: StudyDefinition, settings: Settings) -> None:
    os.setpgid(0, 0)
    run(chosen, settings, Console(quiet=True))


class Service:
    """A study that trains on for as long as it is wanted."""

    def __init__(
        self, process: SpawnProcess, workspace: Workspace, name: str, epoch_updates: int, *, begun: float
    ) -> None:
        self._process, self._epoch_updates, self._begun = process, epoch_updates, begun
        self._path, self._mlflow, self._name = workspace.ledger(name), workspace.mlruns / "mlflow.db", name
        self._views_s = 0.0

    def burst(self, seconds: float) -> Pace:
        """Let it train until its steady state has lasted for so long, and pause it.

        Raises:
            TimeoutError: there was no steady state.
        """
        deadline = time.monotonic() + GIVE_UP_S
        pace: Pace | None = None
        self._signal(signal.SIGCONT)
        while not self._views_s and self._process.is_alive() and time.monotonic() < deadline:
            time.sleep(POLL_S)
            self._views_s = time.time() - self._begun if has_a_run(self._mlflow, self._name) else 0.0
        since = time.time()
        while self._process.is_alive() and time.monotonic() < deadline:
            # reading takes a core that the service wants: as seldom as can be
            time.sleep(max(POLL_S, seconds - (pace.window_s if pace else 0.0)))
            events = _events(self._path) if self._path.exists() else []
            pace = steady(events, epoch_updates=self._epoch_updates, since=since)
            if pace is not None and pace.window_s >= seconds:
                self._signal(signal.SIGSTOP)
                trained = (event.at for event in events if isinstance(event, EpochReported) and event.epoch > 0)
                return replace(pace, start_s=min(trained) - self._begun, views_s=self._views_s)
        raise TimeoutError(f"{self._path}: no steady state within {GIVE_UP_S:.0f} s, or the command ended before.")

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has not made its group yet: nothing was ever paused
            os.killpg(self._process.pid or 0, number)


def has_a_run(path: Path, study: str) -> bool:
    """Whether MLflow's database holds one of the study: the last of its views has then begun to follow."""
    found = "SELECT EXISTS (SELECT 1 FROM runs JOIN experiments USING (experiment_id) WHERE experiments.name = ?)"
    with (
        contextlib.suppress(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database,
    ):
        return bool(database.execute(found, (study,)).fetchone()[0])
    return False


def steady(events: Iterable[Event], *, epoch_updates: int, since: float = 0.0) -> Pace | None:
    """Measure the steady state in a study's events, without what began before `since`; None where there is none.

    It begins when every trainer has been given as many trials as it ever held and the epochs in progress then are over;
    it ends when the oldest epoch began that is not over yet. An epoch's updates are spread evenly over its time: slots
    that were admitted together report together, and whether such a group falls just within a short window or just
    without would else be much of the figure.
    """
    epochs = 0
    trainer_of: dict[int, int] = {}
    began: dict[int, float] = {}
    """Trial in training -> when its present epoch began."""
    most: dict[int, tuple[int, float]] = {}
    spans: list[tuple[float, float]] = []
    """Of each epoch that is over."""
    for event in events:
        match event:
            case StudyCreated():
                epochs = event.definition["epochs"]
            case AttemptStarted(trial=trial, trainer=trainer, at=at):
                trainer_of[trial], began[trial] = trainer, at
                held = sum(trainer_of[each] == trainer for each in began)
                if held > most.get(trainer, (0, 0.0))[0]:
                    most[trainer] = held, at
            case TrialFinished(trial=trial) | AttemptInterrupted(trial=trial):
                began.pop(trial, None)
            case EpochReported(trial=trial, at=at, epoch=epoch) if trial in began:
                if epoch > 0:
                    spans.append((began[trial], at))
                began[trial] = at
                if 0 < epoch == epochs:
                    del began[trial]  # it is only being saved
    if not most or not spans:
        return None
    full = max(since, *(at for _, at in most.values()))
    start = max((end for begin, end in spans if begin < full <= end), default=full)
    end = min(began.values(), default=max(end for _, end in spans))
    if end <= start:
        return None
    n_epochs = sum(max(0.0, min(end, over) - max(start, begin)) / (over - begin) for begin, over in spans)
    return Pace(
        rate=n_epochs * epoch_updates / (end - start),
        window_s=end - start,
        slots=max(count for count, _ in most.values()),
    )


def _events(path: Path) -> list[Event]:
    ledger = Ledger(path)
    try:
        return list(ledger.events())
    finally:
        ledger.close()
