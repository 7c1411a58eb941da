"""Our side: the whole service, as `python -m search.run` runs it; its pace is read from the ledger.

A study of one structure is begun in a workspace of its own, with both views, and stopped as by Ctrl-C when its steady
state has lasted long enough.
"""

import io
import os
import signal
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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
from tests.histories import put_mlflow_database

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
    total_s: float = 0.0
    """Of the command, the views' last work included."""


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


def study(workload: Workload, places: Places, root: Path, *, seconds: float, seed: int, **changes: Any) -> Pace:
    """Run the command until its steady state has lasted for `seconds`, and return its pace.

    Must be called in the main thread: the run is ended by a signal.

    Raises:
        TimeoutError: there was no steady state.
    """
    name = f"{workload.name}-{seed}"
    workspace = Workspace(root)
    settings = Settings(
        workspace=workspace,
        data_dir=places.data_dir,
        storage=workspace.optuna_url,
        tracking_uri=workspace.mlflow_url,
    )
    path = workspace.ledger(name)
    ending, started = _Ending(path, workload.epoch_updates, seconds), time.time()
    thread = threading.Thread(target=ending.watch, daemon=True)
    thread.start()
    try:
        run(definition(workload, places.path, name=name, seed=seed, **changes), settings, Console(file=io.StringIO()))
    finally:
        ending.over.set()
        thread.join()
    total_s = time.time() - started
    events = _events(path)
    pace = steady(events, epoch_updates=workload.epoch_updates)
    if pace is None:
        raise TimeoutError(f"{name}: no steady state within {GIVE_UP_S:.0f} s; its ledger is {path}.")
    first = min(event.at for event in events if isinstance(event, EpochReported) and event.epoch > 0)
    return replace(pace, start_s=first - started, total_s=total_s)


def warm_up(workload: Workload, places: Places, root: Path) -> None:
    """Import what a run imports, and create both views' databases, as the first study of a workspace does."""
    put_mlflow_database(root / "mlruns")
    study(workload, places, root, seconds=0.5, seed=N_TRIALS)


def steady(events: Iterable[Event], *, epoch_updates: int) -> Pace | None:
    """Measure the steady state in a study's events; None where there is none.

    It begins with the first report after every trainer has been given as many trials as it ever held, and ends with
    the last one of the trainer that was first to fall silent. A trainer's pace is counted from report to report.
    """
    epochs = 0
    trainer_of: dict[int, int] = {}
    training: set[int] = set()
    most: dict[int, tuple[int, float]] = {}
    reports: dict[int, dict[float, int]] = {}
    for event in events:
        match event:
            case StudyCreated():
                epochs = event.definition["epochs"]
            case AttemptStarted(trial=trial, trainer=trainer, at=at):
                trainer_of[trial] = trainer
                training.add(trial)
                held = sum(trainer_of[each] == trainer for each in training)
                if held > most.get(trainer, (0, 0.0))[0]:
                    most[trainer] = held, at
            case TrialFinished(trial=trial) | AttemptInterrupted(trial=trial):
                training.discard(trial)
            case EpochReported(trial=trial, at=at, epoch=epoch) if epoch > 0:
                own = reports.setdefault(trainer_of[trial], {})
                own[at] = own.get(at, 0) + 1
                if epoch == epochs:
                    training.discard(trial)  # it is only being saved
    if not most or reports.keys() != most.keys():
        return None
    later = {t: {at: n for at, n in own.items() if at > most[t][1]} for t, own in reports.items()}
    if not all(later.values()):
        return None
    start, end = max(min(own) for own in later.values()), min(max(own) for own in later.values())
    paces = [_pace({at: n for at, n in own.items() if start <= at <= end}) for own in later.values()]
    if not all(paces):
        return None
    return Pace(rate=sum(paces) * epoch_updates, window_s=end - start, slots=max(count for count, _ in most.values()))


def _pace(reports: Mapping[float, int]) -> float:
    """Slot-epochs per second between the first report and the last; 0 where there are not two."""
    times = sorted(reports)
    if len(times) < 2:
        return 0.0
    return sum(reports[at] for at in times[1:]) / (times[-1] - times[0])


class _Ending:
    """Watches a ledger and stops this process's study when it has been steady for long enough."""

    def __init__(self, path: Path, epoch_updates: int, seconds: float) -> None:
        self.over = threading.Event()
        self._path, self._epoch_updates, self._seconds = path, epoch_updates, seconds

    def watch(self) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        while not self.over.wait(POLL_S):
            events = _events(self._path) if self._path.exists() else []
            pace = steady(events, epoch_updates=self._epoch_updates)
            if (pace is not None and pace.window_s >= self._seconds) or (time.monotonic() > deadline and events):
                os.kill(os.getpid(), signal.SIGINT)
                return


def _events(path: Path) -> list[Event]:
    ledger = Ledger(path)
    try:
        return list(ledger.events())
    finally:
        ledger.close()
