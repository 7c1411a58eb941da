"""Pictures and tables of one trial: confusion matrix, learning curves, precision and recall."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from search.contract import Confusion
from search.drawing import confusion_matrix, learning_curves
from search.state import Trial

_DRAWING = threading.Lock()
"""Two views draw from two threads."""


def confusion_file(folder: Path, trial: Trial, classes: Sequence[str]) -> Path | None:
    """The finished trial's confusion matrix as a PNG, drawn at the first call; None where it has none."""
    counts = trial.confusion
    if counts is None:
        return None
    names, title = _names(classes, len(counts)), f"trial {trial.number}, epoch {trial.best_epoch}, validation set"
    return _drawn_once(_place(folder, trial, "confusion_matrix.png"), lambda: confusion_matrix(counts, names, title))


def curves_file(folder: Path, trial: Trial) -> Path | None:
    """The finished trial's learning curves as a PNG, drawn at the first call; None without a report."""
    if not trial.reports:
        return None
    reports, best, title = trial.reports, trial.best_epoch, f"trial {trial.number}: {trial.outcome} ({trial.reason})"
    return _drawn_once(_place(folder, trial, "learning_curves.png"), lambda: learning_curves(reports, best, title))


def precision_recall(counts: Confusion, classes: Sequence[str]) -> list[dict[str, str | int | float | None]]:
    """Each class's precision and recall; None where it was never predicted, or has no examples (support 0)."""
    predicted = [sum(column) for column in zip(*counts, strict=True)]
    return [
        {
            "class": name,
            "precision": row[k] / predicted[k] if predicted[k] else None,
            "recall": row[k] / sum(row) if sum(row) else None,
            "support": sum(row),
        }
        for k, (name, row) in enumerate(zip(_names(classes, len(counts)), counts, strict=True))
    ]


def _place(folder: Path, trial: Trial, name: str) -> Path:
    return folder / f"trial_{trial.number:04d}_attempt_{trial.attempts[-1].number}" / name


def _drawn_once(path: Path, draw: Callable[[], bytes]) -> Path:
    with _DRAWING:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            partial.write_bytes(draw())
            os.replace(partial, path)
    return path


def _names(classes: Sequence[str], n: int) -> list[str]:
    return list(classes) if len(classes) == n else [str(k) for k in range(n)]
