"""Claims of search/result.py: what a study found, in words and as a table."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from search import events
from search.contract import Value
from search.definition import StudyDefinition
from search.errors import DefinitionError
from search.events import AttemptStarted, EpochReported, Event, TrialAsked, TrialFinished
from search.result import check_export, difference, export, rows, sentences, shown, told
from search.state import State, fold
from tests.running import TABLE, coordinate, fake_study, faults


@pytest.fixture(scope="module")
def definition() -> StudyDefinition:
    return fake_study(n_trials=12, data=faults({3: "raise"}) | {"capacity": 1})


@pytest.fixture(scope="module")
def state(definition: StudyDefinition, tmp_path_factory: pytest.TempPathFactory) -> State:
    return coordinate(definition, tmp_path_factory.mktemp("study"))


def text(definition: StudyDefinition, state: State) -> str:
    return "\n".join(sentences(definition, state))


def test_words_name_best_trial_gain_parameters_and_what_pruning_saved(
    definition: StudyDefinition, state: State
) -> None:
    told_text = text(definition, state)
    complete = [t for t in state.trials.values() if t.outcome == "complete"]
    best = max(complete, key=lambda trial: trial.value or 0)
    baseline = state.trials[0]
    assert best.value is not None
    assert baseline.value is not None
    pruned = sum(trial.outcome == "pruned" for trial in state.trials.values())
    assert f"12 of 12 trials finished: {len(complete)} complete, {pruned} pruned, " in told_text
    assert f"Best: trial {best.number}, val_accuracy {100 * best.value:.2f} % at epoch {best.best_epoch}" in told_text
    assert (
        f"({100 * (best.value - baseline.value):+.2f} points against the baseline's {100 * baseline.value:.2f} %)"
        in told_text
    )
    assert f"quality = {best.hyperparameters['quality']:.3g}" in told_text
    trained = sum(max(report.epoch for report in trial.reports) for trial in state.trials.values() if trial.reports)
    assert f"Pruning ended {pruned} trials early: {trained} epochs were trained instead of {12 * 9}" in told_text
    assert "the number flatters" in told_text


@pytest.mark.parametrize(
    ("facts", "caution"),
    [
        ({}, "the number flatters"),
        ({"validation": "train"}, "measured on the training examples themselves"),
        ({"validation": "original_test"}, "published test set (checksum 0a1b), as the figure that it reproduces"),
    ],
)
def test_words_say_what_was_measured(
    definition: StudyDefinition, state: State, facts: dict[str, str], caution: str
) -> None:
    assert state.created is not None
    used = events.TestSetUsed(at=0.0, purpose="validation", checksum="0a1b")
    told_text = text(definition, replace(state, created=replace(state.created, facts=facts), tests=[used]))
    assert caution in told_text
    assert ("the number flatters" in told_text) == (not facts)


def test_regularizer_that_is_off_is_listed_as_off(tmp_path: Path) -> None:
    definition = fake_study(n_trials=1)
    told_text = text(definition, coordinate(definition, tmp_path))
    assert "regularizers on:  none" in told_text
    assert "regularizers off: drop" in told_text
    assert "Nothing beat the baseline" in told_text


def test_study_without_a_complete_trial_says_so(definition: StudyDefinition) -> None:
    assert text(definition, State()).splitlines() == [
        "0 of 12 trials finished: 0 complete, 0 pruned, 0 failed.",
        "No trial is complete yet, so there is no result.",
    ]


def test_failures_are_told_with_their_error(tmp_path: Path) -> None:
    definition = fake_study(n_trials=3, pruning={"kind": "none"}, data=faults({1: "raise"}) | {"capacity": 1})
    assert "Trial 1 failed: ValueError: this trial always raises" in text(definition, coordinate(definition, tmp_path))


def test_trials_that_diverged_are_told_apart_from_those_that_pruning_ended(tmp_path: Path) -> None:
    definition = fake_study(n_trials=2, pruning={"kind": "none"}, fixed={"fault": "diverge"})
    told_text = text(definition, coordinate(definition, tmp_path))
    assert "2 of 2 trials diverged: " in told_text
    assert "Pruning ended" not in told_text


def test_study_that_has_more_trials_than_asked_for_counts_them(definition: StudyDefinition, state: State) -> None:
    fewer = definition.model_copy(update={"n_trials": 3})
    assert text(fewer, state).startswith("12 of 12 trials finished: ")


def test_accuracies_are_percent_and_points_and_other_metrics_are_themselves() -> None:
    assert told("val_accuracy", 0.12345) == "12.35 %" or told("val_accuracy", 0.12345) == "12.34 %"
    assert difference("val_accuracy", -0.05) == "-5.00 points"
    assert told("val_loss", 0.123456) == "0.1235"
    assert difference("val_loss", 0.5) == "+0.5"
    assert [shown(value) for value in (True, False, 0.000123456, 3, "relu")] == ["on", "off", "0.000123", "3", "relu"]


# ---------------------------------------------------------------- the table

READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".csv": pd.read_csv,
    ".parquet": pd.read_parquet,
    ".json": lambda path: pd.DataFrame(json.loads(path.read_text())),
}
ODD: tuple[str | int, ...] = ("=1+1", "a,b", 'say "no"', "@sum", 7)


def odd_study(tmp_path: Path) -> tuple[StudyDefinition, State]:
    """A history with a parameter whose values are texts that spreadsheets and commas trip over, and a number."""
    space: dict[str, Any] = {**TABLE["space"], "opt,=x": {"kind": "choice", "choices": list(ODD)}}
    definition = fake_study(space=space, baseline={**TABLE["baseline"], "opt,=x": ODD[0]}, n_trials=len(ODD))
    events: list[Event] = []
    for number, value in enumerate(ODD):
        raw: dict[str, Value] = {"quality": 0.5, "drop": 0.0, "shape": 1, "opt,=x": value}
        events += [
            TrialAsked(at=0, trial=number, raw=raw, hyperparameters=raw, baseline=number == 0),
            AttemptStarted(at=1.0, trial=number, attempt=1, trainer=0, device="cpu", structure="", alone=False),
            EpochReported(at=2, trial=number, attempt=1, epoch=1, metrics={"val_accuracy": 0.5, "val_loss": math.nan}),
            TrialFinished(
                at=4.0, trial=number, attempt=1, outcome="complete", reason="epochs", value=0.5, best_epoch=1
            ),
        ]
    return definition, fold(events)


def test_csv_gives_back_odd_names_and_values(tmp_path: Path) -> None:
    _, state = odd_study(tmp_path)
    export(state, tmp_path / "all.csv")
    with (tmp_path / "all.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["param_opt,=x"] for row in read] == [str(value) for value in ODD]
    assert [row["trial"] for row in read] == ["0", "1", "2", "3", "4"]
    assert {row["seconds"] for row in read} == {"3.0"}


def test_parquet_and_json_hold_every_trial_of_a_study_with_values_of_several_types(tmp_path: Path) -> None:
    _, state = odd_study(tmp_path)
    for name in ("all.parquet", "all.json"):
        export(state, tmp_path / name)
        frame = READERS[Path(name).suffix](tmp_path / name)
        assert [str(value) for value in frame["param_opt,=x"]] == [str(value) for value in ODD]
        assert list(frame["value"]) == [0.5] * len(ODD)


@pytest.mark.parametrize("name", ["all.csv", "all.parquet", "all.json"])
def test_every_format_holds_every_trial_finished_or_not(state: State, tmp_path: Path, name: str) -> None:
    events = TrialAsked(at=0, trial=12, raw={"quality": 0.1}, hyperparameters={"quality": 0.1}, baseline=False)
    unfinished = fold([events], replace(state, trials=dict(state.trials)))
    export(unfinished, tmp_path / name)
    frame = READERS[Path(name).suffix](tmp_path / name)
    assert list(frame["trial"]) == list(range(13))
    assert list(frame["state"]) == [*(t.outcome for t in state.trials.values()), "waiting"]
    for trial, row in zip(state.trials.values(), frame.to_dict("records"), strict=False):
        assert row["param_quality"] == pytest.approx(trial.hyperparameters["quality"], rel=1e-15)
        assert row["value"] == trial.value or (trial.value is None and pd.isna(row["value"]))
    assert pd.isna(frame["value"].iloc[12])


def test_study_without_trials_is_exported_as_an_empty_table(tmp_path: Path) -> None:
    for name in ("all.csv", "all.parquet", "all.json"):
        export(State(), tmp_path / name)
    assert json.loads((tmp_path / "all.json").read_text()) == []


def test_rows_count_attempts_and_hold_the_metrics_of_the_best_epoch(state: State) -> None:
    table = rows(state)
    for trial, row in zip(state.trials.values(), table, strict=True):
        assert row["attempts"] == len(trial.attempts)
        if trial.best_epoch is not None:
            best = next(report for report in trial.reports if report.epoch == trial.best_epoch)
            assert row["best_val_loss"] == best.metrics["val_loss"]


def test_export_that_could_not_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for name in ("all.txt", "all", "none/all.csv", "folder.csv"):
        with pytest.raises(DefinitionError, match="--export: "):
            check_export(tmp_path / name)
    check_export(tmp_path / "all.csv")
    assert not (tmp_path / "all.csv").exists()
