"""Pictures and tables of one trial: confusion matrix, learning curves, precision and recall.

Matplotlib is used without pyplot, whose figures are global, and behind one lock: two views draw from two threads.
"""

import math
import os
import threading
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from search.contract import Confusion
from search.events import EpochReported
from search.state import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWING = threading.RLock()
N_NUMBERED = 20
"""Up to so many classes every cell carries its count; beyond, colors alone are readable."""
N_NAMED = 50
"""Up to so many classes every row and column is named; beyond, every k-th one."""


def confusion_file(folder: Path, trial: Trial, classes: Sequence[str]) -> Path | None:
    """The finished trial's confusion matrix as a PNG, drawn at the first call; None where it has none."""
    counts = trial.confusion
    if counts is None:
        return None
    title = f"trial {trial.number}, epoch {trial.best_epoch}, validation set"
    return _drawn_once(_place(folder, trial, "confusion_matrix.png"), lambda: confusion_matrix(counts, classes, title))


def curves_file(folder: Path, trial: Trial) -> Path | None:
    """The finished trial's learning curves as a PNG, drawn at the first call; None without a report."""
    if not trial.reports:
        return None
    reports, best, title = trial.reports, trial.best_epoch, f"trial {trial.number}: {trial.outcome} ({trial.reason})"
    return _drawn_once(_place(folder, trial, "learning_curves.png"), lambda: learning_curves(reports, best, title))


def confusion_matrix(counts: Confusion, classes: Sequence[str], title: str) -> bytes:
    """Draw counts [true class][predicted class] as a PNG, colored by the share of each true class."""
    names = _names(classes, len(counts))
    size = min(max(4.5, 0.55 * len(counts) + 2.5), 14.0)
    with _DRAWING:
        figure = _figure(size, size)
        margin = (0.058 * max(map(len, names)) + 0.55) / size  # set by hand: a layout engine doubles the time
        figure.subplots_adjust(left=margin, bottom=margin, right=1 - 0.15 / size, top=1 - 0.55 / size)
        axes = figure.subplots()
        shares = [[count / max(sum(row), 1) for count in row] for row in counts]
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        every = math.ceil(len(names) / N_NAMED)
        ticks = range(0, len(names), every)
        axes.set_xticks(ticks, [names[k] for k in ticks], rotation=90 if _crowded(names) else 0, fontsize=8)
        axes.set_yticks(ticks, [names[k] for k in ticks], fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        total, correct = sum(map(sum, counts)), sum(row[k] for k, row in enumerate(counts))
        axes.set_title(f"{title}\n{correct} of {total} correct ({correct / max(total, 1):.2%})", fontsize=10)
        if len(counts) <= N_NUMBERED:
            _write_counts(axes, counts, shares)
        return _png(figure)


def learning_curves(reports: Sequence[EpochReported], best_epoch: int | None, title: str) -> bytes:
    """Draw losses (log scale) and, where there are any, accuracies by epoch as a PNG, with the best epoch marked.

    Values that are not finite leave a gap.
    """
    from matplotlib.ticker import LogLocator

    with _DRAWING:
        panels = [name for name in ("loss", "accuracy") if any(f"val_{name}" in r.metrics for r in reports)]
        width = 5.0 * max(len(panels), 1)
        figure = _figure(width, 3.8)
        figure.subplots_adjust(left=0.65 / width, right=1 - 0.15 / width, bottom=0.13, top=0.9, wspace=0.17)
        for axes, name in zip(figure.subplots(1, max(len(panels), 1), squeeze=False)[0], panels, strict=False):
            for split, color in (("train", "tab:blue"), ("val", "tab:orange")):
                points = [(r.epoch, r.metrics.get(f"{split}_{name}", math.nan)) for r in reports]
                drawn = [value if math.isfinite(value) else math.nan for _, value in points]
                label = "training" if split == "train" else "validation"
                axes.plot([epoch for epoch, _ in points], drawn, color=color, marker=".", label=label)
            if name == "loss" and any(r.metrics.get("val_loss", 0.0) > 0 for r in reports):
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            _finish_curves(axes, name, best_epoch)
        figure.suptitle(title, fontsize=10)
        return _png(figure)


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


def _crowded(names: Sequence[str]) -> bool:
    return len(names) > N_NUMBERED or max(map(len, names)) > 3


def _write_counts(axes: "Axes", counts: Confusion, shares: Sequence[Sequence[float]]) -> None:
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            color = "white" if shares[i][j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", fontsize=7, color=color)


def _finish_curves(axes: "Axes", name: str, best_epoch: int | None) -> None:
    from matplotlib.ticker import MaxNLocator

    if best_epoch is not None:
        axes.axvline(best_epoch, color="gray", linestyle="--", linewidth=1, label=f"best epoch ({best_epoch})")
    axes.set_xlabel("epoch")
    axes.set_ylabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=8)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110)


def _png(figure: "Figure") -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
