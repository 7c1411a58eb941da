"""What a study found, in plain words and as a table: pure functions of its state."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.contract import Value
from search.definition import StudyDefinition
from search.diagnoses import Diagnoses, counted
from search.errors import DefinitionError
from search.space import is_off
from search.state import State, Trial

EXPORT_SUFFIXES = (".csv", ".parquet", ".json")


def sentences(definition: StudyDefinition, state: State) -> list[str]:
    """The outcome so far, a sentence or a short block each."""
    return [
        _counts(state, definition.n_trials),
        *_best(definition, state),
        *_saved_by_pruning(definition, state),
        *_diagnosed(state),
        *_failures(state),
    ]


def _counts(state: State, n_trials: int) -> str:
    outcomes = {name: len(state.with_outcome(name)) for name in ("complete", "pruned", "failed")}
    listed = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    return f"{len(state.finished)} of {max(n_trials, len(state.trials))} trials finished: {listed}."


def _best(definition: StudyDefinition, state: State) -> list[str]:
    best = next(iter(state.ranked(maximize=definition.maximize)), None)
    if best is None or best.value is None:
        return ["No trial is complete yet, so there is no result."]
    value = told(definition.metric, best.value)
    lines = [
        f"Best: trial {best.number}, {definition.metric} {value} at epoch {best.best_epoch}"
        f"{_gain(state, best, definition)}."
    ]
    regularizes = any(parameter.regularizer for parameter in definition.space.values())
    if best.baseline:
        told_more = ": no regularization is the best found so far." if regularizes else "."
        lines.append(f"Nothing beat the baseline{told_more}")
    lines.append(_settings(definition, best))
    if (found := Diagnoses().of(state)[best.number]) is not None:
        lines.append(f"Diagnosis of its learning curves: {found.told}")
    lines.append(_caution(state))
    return lines


def _caution(state: State) -> str:
    match state.measured_on:
        case "train":
            return "It was measured on the training examples themselves: it says nothing of new data."
        case "original_test":
            checksums = ", ".join(used.checksum for used in state.tests)
            return (
                f"It was measured on the published test set (checksum {checksums}), as the figure that it reproduces: "
                "the ledger says so, and no data are left to confirm it on."
            )
    return (
        f"It is the best of {len(state.finished)} trials on the same validation set, so the number flatters: "
        "expect somewhat less on new data."
    )


def examples(facts: Mapping[str, Any]) -> str:
    """The data set, and how many examples are for what."""
    name, n_train, n_validation = (facts[key] for key in ("data_set", "n_train", "n_validation"))
    if facts.get("validation") == "train":
        return f"{name}, {n_train} training examples, which are measured as well"
    kind = "published test" if facts.get("validation") == "original_test" else "validation"
    return f"{name}, {n_train} training and {n_validation} {kind} examples"


def _gain(state: State, best: Trial, definition: StudyDefinition) -> str:
    baseline = state.baseline
    if baseline is None or baseline.value is None or best.value is None or baseline.number == best.number:
        return ""
    gain = best.value - baseline.value
    return f" ({difference(definition.metric, gain)} against the baseline's {told(definition.metric, baseline.value)})"


def _settings(definition: StudyDefinition, trial: Trial) -> str:
    on, off, others = [], [], []
    for name, parameter in definition.space.items():
        value = trial.hyperparameters[name]
        if not parameter.regularizer:
            others.append(f"{name} = {shown(value)}")
        elif is_off(parameter, value):
            off.append(name)
        else:
            on.append(f"{name} = {shown(value)}")
    measured = [
        f"{name} {told(name, value)}"
        for name, value in _best_metrics(trial).items()
        if name.startswith(("train_", "val_")) and name not in (definition.metric, "val_loss_se")
    ]
    rows = (("regularizers on", on), ("regularizers off", off), ("the rest", others), ("also measured", measured))
    shown_rows = rows if on or off else rows[2:]
    return "\n".join(f"  {title + ':':<18}{', '.join(entries) or 'none'}" for title, entries in shown_rows)


def _saved_by_pruning(definition: StudyDefinition, state: State) -> list[str]:
    pruned = state.with_outcome("pruned")
    n_diverged = sum(trial.reason == "diverged" for trial in pruned)
    n_pruned = len(pruned) - n_diverged
    causes = ([f"Pruning ended {n_pruned} trials early"] if n_pruned else []) + (
        [f"{n_diverged} of {len(state.finished)} trials diverged"] if n_diverged else []
    )
    if not causes:
        return []
    trained, full = (sum(epochs_of(t) for t in state.finished), definition.epochs * len(state.finished))
    return [
        f"{', and '.join(causes)}: {trained} epochs were trained instead of {full} ({1 - trained / full:.0%} saved)."
    ]


def _diagnosed(state: State) -> list[str]:
    counts = counted(Diagnoses().of(state).values())
    return [f"Diagnoses of all trials, of those that ended early so far: {counts}."] if counts else []


def _failures(state: State) -> list[str]:
    failed = state.with_outcome("failed")
    return [f"Trial {trial.number} failed: {trial.error}" for trial in failed[:3]] + (
        [f"... and {len(failed) - 3} more."] if len(failed) > 3 else []
    )


def epochs_of(trial: Trial) -> int:
    """Epochs the counted attempt of a trial trained."""
    return max((report.epoch for report in trial.reports), default=0)


def told(metric: str, value: float) -> str:
    """A value of the metric for people: accuracies as percent."""
    return f"{value:.2%}".replace("%", " %") if metric.endswith("accuracy") else f"{value:.4g}"


def difference(metric: str, value: float) -> str:
    return f"{value * 100:+.2f} points" if metric.endswith("accuracy") else f"{value:+.4g}"


def shown(value: Value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


# ---------------------------------------------------------------- all trials, as a table


def rows(state: State) -> list[dict[str, Any]]:
    """One record per trial; missing is None."""
    found = Diagnoses().of(state)
    return [
        {
            "trial": trial.number,
            "state": trial.outcome or ("running" if trial.running else "waiting"),
            "reason": trial.reason,
            "value": trial.value,
            "best_epoch": trial.best_epoch,
            "epochs": epochs_of(trial),
            "attempts": len(trial.attempts),
            "baseline": trial.baseline,
            "seconds": _seconds(trial),
            "diagnosis": each.label if (each := found.get(trial.number)) else None,
            "diagnosis_evidence": each.told if each else None,
            **{f"param_{name}": trial.hyperparameters[name] for name in trial.raw},
            **{f"best_{name}": value for name, value in _best_metrics(trial).items()},
            "error": trial.error or None,
        }
        for trial in state.trials.values()
    ]


def _seconds(trial: Trial) -> float | None:
    if not trial.attempts or trial.finished_at is None:
        return None
    return trial.finished_at - trial.attempts[-1].started_at


def _best_metrics(trial: Trial) -> Mapping[str, float]:
    report = next((r for r in trial.reports if r.epoch == trial.best_epoch), None)
    return {} if report is None else {name: v for name, v in report.metrics.items() if math.isfinite(v)}


def check_export(path: Path) -> None:
    """Refuse, before anything is trained, an export that could not be written.

    Raises:
        DefinitionError: unknown ending, or no such folder.
    """
    if path.suffix not in EXPORT_SUFFIXES:
        raise DefinitionError(
            f"--export: the name must end in {', '.join(EXPORT_SUFFIXES)}, got {path.name!r}. Rename it."
        )
    folder = path.resolve().parent
    if not folder.is_dir():
        raise DefinitionError(f"--export: the folder {folder} does not exist. Create it.")
    if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
        raise DefinitionError(f"--export: {path} cannot be written. Name a file in a folder that is yours.")


def export(state: State, path: Path) -> None:
    """Write all trials as CSV, Parquet or JSON, by the ending of the name.

    A parameter whose values are of several types is written as text, since a column of a Parquet file has one type.
    """
    if path.suffix == ".json":  # pandas would keep ten decimals: too few for a weight decay
        path.write_text(json.dumps(rows(state), indent=1))
        return
    import pandas as pd

    frame = pd.DataFrame(rows(state))
    for name in frame.columns:
        if len({type(value) for value in frame[name] if value is not None}) > 1 and frame[name].dtype == object:
            frame[name] = [None if value is None else str(value) for value in frame[name]]
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
