"""Realistic histories of a study for tests: what a coordinator appends, as events, without training anything.

The trials run two at a time; their fates, by number (then again from 1):
0 baseline, complete   1 pruned at a rung   2 complete, checkpoint kept   3 failed with a traceback
4 interrupted after four epochs, then trained again and pruned earlier     5 diverged (non-finite), without a value
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.contract import Confusion, Value
from search.definition import StudyDefinition
from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    CheckpointRemoved,
    CheckpointSaved,
    EpochReported,
    Event,
    ModelExported,
    Outcome,
    Reason,
    SessionClosed,
    SessionOpened,
    StudyCreated,
    TrialAsked,
    TrialFinished,
)
from search.mlflow_view import connect
from search.workspace import sqlite_url

CLASSES = ["airplane", "automobile", "bird", "cat"]
BEGIN = 1_700_000_000.0
EPOCHS = 5
DEFINITION: dict[str, Any] = {
    "name": "small_reg",
    "title": "A small study",
    "question": "Which regularization helps?",
    "objective": "classification",
    "data": {"name": "digits"},
    "metric": "val_accuracy",
    "direction": "maximize",
    "n_trials": 6,
    "epochs": EPOCHS,
    "baseline": {"lr": 1e-3, "l1": 0.0, "batch_norm": False, "width": 64},
    "space": {
        "lr": {"kind": "log_float", "low": 1e-4, "high": 3e-2},
        "l1": {"kind": "log_float", "low": 1e-7, "high": 1e-3, "regularizer": True, "off_below": 1e-6},
        "batch_norm": {"kind": "bool", "regularizer": True, "off": False},
        "width": {"kind": "power_of_two", "low": 64, "high": 256},
    },
}


def history(*, study: str = "small_reg", n_trials: int = 6, seed: int = 0, done: bool = True) -> list[Event]:
    """Return a study's events in order, two seconds apart; the same for the same arguments."""
    rng = random.Random(seed)
    events: list[Event] = [_created(study), _opened()]
    for first in range(0, n_trials, 2):
        pair = [_trial(number, rng) for number in range(first, min(first + 2, n_trials))]
        for together in zip_longest(*pair):
            events += [event for event in together if event is not None]
    if done:
        events += [
            CheckpointRemoved(at=0, trial=0),
            ModelExported(at=0, trial=2, path="champion.pt2"),
            SessionClosed(at=0, reason="done", trained_s=9.0, waited_s=1.0),
        ]
    return [replace(event, at=BEGIN + 2.0 * step) for step, event in enumerate(events)]


def trained(number: int, epochs: Sequence[Mapping[str, float]], *, outcome: Outcome = "complete") -> list[Event]:
    """Return the events of a trial, a second apart, that reports these metrics from the untrained network on."""
    reports = [
        EpochReported(at=0, trial=number, attempt=1, epoch=epoch, metrics=metrics)
        for epoch, metrics in enumerate(epochs)
    ]
    reason: Reason = "epochs" if outcome == "complete" else "rung"
    value, last = epochs[-1]["val_accuracy"], len(epochs) - 1
    finished = TrialFinished(
        at=0, trial=number, attempt=1, outcome=outcome, reason=reason, value=value, best_epoch=last
    )
    events: list[Event] = [_asked(number, random.Random(number)), _started(number, 1), *reports, finished]
    return [replace(event, at=BEGIN + 1000.0 * (number + 1) + step) for step, event in enumerate(events)]


def put_files(study_folder: Path) -> None:
    """Write what the history's CheckpointSaved events name."""
    folder = study_folder / "checkpoints"
    folder.mkdir(parents=True)
    for number in (0, 2):
        (folder / f"trial_{number}.safetensors").write_bytes(b"weights of %d" % number)
        (folder / f"trial_{number}.safetensors.sha256").write_text("5" * 64)


def put_champion(study_folder: Path) -> None:
    """Write the network that the history's ModelExported names: a real one, tiny, for images (N, 1, 4, 4)."""
    import numpy as np
    import torch

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, len(CLASSES)))
    example = torch.zeros(2, 1, 4, 4)
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, study_folder / "champion.pt2")
    np.save(study_folder / "champion.npy", example.numpy())


def put_mlflow_database(mlruns: Path) -> None:
    """Write an empty MLflow database, which takes MLflow itself some five seconds."""
    mlruns.mkdir(parents=True, exist_ok=True)
    (mlruns / "mlflow.db").write_bytes(_mlflow_database())


@cache
def _mlflow_database() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mlflow.db"
        connect(sqlite_url(path)).search_experiments()
        return path.read_bytes()


def _created(study: str) -> StudyCreated:
    definition = StudyDefinition.model_validate(DEFINITION | {"name": study})
    return StudyCreated(
        at=0,
        study=study,
        definition=definition.model_dump(mode="json"),
        fingerprint="abc",
        precision="float32",
        facts={"data_set": "digits", "checksum": "c0ffee", "n_train": 900, "n_validation": 100, "classes": CLASSES},
        versions={"torch": "2.11.0", "optuna": "5.0.0"},
        commit="0123abcd",
    )


def _opened() -> SessionOpened:
    return SessionOpened(at=0, host="here", pid=1, device="cpu", n_trainers=2, probe="float32")


def _trial(number: int, rng: random.Random) -> Iterator[Event]:
    yield _asked(number, rng)
    fate = number if number < 6 else (number - 1) % 5 + 1
    if fate in (0, 2):
        yield from _finished(number, 1, EPOCHS, "complete", "epochs", rng)
        yield _saved(number)
    elif fate == 1:
        yield from _finished(number, 1, 2, "pruned", "rung", rng)
    elif fate == 3:
        yield _started(number, 1)
        yield _report(number, 1, 0, rng)
        error = "RuntimeError: no network of this width"
        yield TrialFinished(
            at=0,
            trial=number,
            attempt=1,
            outcome="failed",
            reason="error",
            value=None,
            best_epoch=None,
            error=error,
            traceback=f"Traceback (most recent call last):\n  ...\n{error}\n",
        )
    elif fate == 4:
        yield _started(number, 1)
        for epoch in range(5):
            yield _report(number, 1, epoch, rng)
        yield AttemptInterrupted(at=0, trial=number, attempt=1, reason="the trainer ended")
        yield from _finished(number, 2, 3, "pruned", "rung", rng)
    else:
        yield from _diverged(number, rng)


def _asked(number: int, rng: random.Random) -> TrialAsked:
    raw: dict[str, Value] = {
        "lr": 1e-4 * 300 ** rng.random(),
        "l1": 1e-7 * 10_000 ** rng.random(),
        "batch_norm": rng.random() < 0.5,
        "width": rng.choice([64, 128, 256]),
    }
    if number == 0:
        raw = {"lr": 1e-3, "l1": 1e-7, "batch_norm": False, "width": 64}
    l1 = raw["l1"]
    assert isinstance(l1, float)
    effective = raw | {"l1": l1 if l1 >= 1e-6 else 0.0, "hidden": (64, 32), "activation": "relu"}
    return TrialAsked(at=0, trial=number, raw=raw, hyperparameters=effective, baseline=number == 0)


def _started(number: int, attempt: int) -> AttemptStarted:
    return AttemptStarted(
        at=0, trial=number, attempt=attempt, trainer=number % 2, device="cpu", structure="mlp 64-32", alone=False
    )


def _finished(
    number: int, attempt: int, epochs: int, outcome: Outcome, reason: Reason, rng: random.Random
) -> Iterator[Event]:
    yield _started(number, attempt)
    reports = [_report(number, attempt, epoch, rng) for epoch in range(epochs + 1)]
    yield from reports
    best = max(reports[1:], key=lambda report: report.metrics["val_accuracy"])
    yield TrialFinished(
        at=0,
        trial=number,
        attempt=attempt,
        outcome=outcome,
        reason=reason,
        value=best.metrics["val_accuracy"],
        best_epoch=best.epoch,
    )


def _diverged(number: int, rng: random.Random) -> Iterator[Event]:
    yield _started(number, 1)
    yield _report(number, 1, 0, rng)
    report = _report(number, 1, 1, rng)
    bad = {"train_loss": math.inf, "val_loss": math.nan, "val_accuracy": math.nan, "penalty": math.inf}
    yield replace(report, metrics=dict(report.metrics) | bad, confusion=None)
    yield TrialFinished(at=0, trial=number, attempt=1, outcome="pruned", reason="diverged", value=None, best_epoch=None)


def _report(number: int, attempt: int, epoch: int, rng: random.Random) -> EpochReported:
    counts = _counts(0.25 + 0.1 * epoch, rng)
    accuracy = sum(row[k] for k, row in enumerate(counts)) / sum(map(sum, counts))
    loss = 2.3 * math.exp(-0.3 * epoch) + 0.01 * rng.random()
    metrics = {
        "train_loss": loss,
        "val_loss": loss + 0.05 * epoch,
        "train_accuracy": min(1.0, accuracy + 0.02 * epoch),
        "val_accuracy": accuracy,
        "penalty": 0.01,
        "lr": 1e-3,
    }
    return EpochReported(at=0, trial=number, attempt=attempt, epoch=epoch, metrics=metrics, confusion=counts)


def _counts(correct: float, rng: random.Random) -> Confusion:
    """25 examples of each class, about the given share of them on the diagonal; the last is never predicted."""
    rows = [[0] * len(CLASSES) for _ in CLASSES]
    for k in range(len(CLASSES)):
        for _ in range(25):
            right = rng.random() < correct and k < len(CLASSES) - 1
            rows[k][k if right else rng.randrange(len(CLASSES) - 1)] += 1
    return tuple(map(tuple, rows))


def _saved(number: int) -> CheckpointSaved:
    path = f"checkpoints/trial_{number}.safetensors"
    return CheckpointSaved(at=0, trial=number, attempt=1, path=path, sha256="5" * 64)
