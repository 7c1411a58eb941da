"""Claims of search/display.py: what a terminal shows at a given state, and what goes into a file."""

import io
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from search.confirmation import FINAL, STAGES, ConfirmationPlan
from search.contract import Value
from search.definition import StudyDefinition, baseline_raw
from search.display import MAX_ROWS, LiveTable, PlainLines, Quiet, display, panel
from search.events import AttemptInterrupted, AttemptStarted, EpochReported, Event, TrialAsked, TrialFinished
from search.state import State, apply, fold
from tests.histories import DEFINITION, history
from tests.phases import follow
from tests.running import PROJECT, coordinate, fake_study, folded, workplace
from tests.searches import searched
from tests.studies import definition
from tests.test_confirmation import POINT

STUDY = StudyDefinition.model_validate(DEFINITION | {"n_trials": 8})


def drawn(state: State, *, elapsed_s: float = 90, finished_before: int = 0, definition: StudyDefinition = STUDY) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(panel(definition, state, elapsed_s=elapsed_s, finished_before=finished_before))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def running_state(n_running: int, *, n_finished: int = 0) -> State:
    """So many trials in training at epoch 2, after so many that are complete with 60 % and 70 %, ..."""
    raw: dict[str, Value] = {"lr": 1e-3, "l1": 2e-5, "batch_norm": True, "width": 64}
    events: list[Event] = []
    for number in range(n_finished + n_running):
        metrics = {"train_loss": 1.25, "val_loss": 1.5, "val_accuracy": 0.6 + number / 10}
        events += [
            TrialAsked(at=0, trial=number, raw=raw, hyperparameters=raw, baseline=number == 0),
            AttemptStarted(at=0, trial=number, attempt=1, trainer=0, device="cpu", structure="", alone=False),
            EpochReported(at=0, trial=number, attempt=1, epoch=2, metrics=metrics),
        ]
        if number < n_finished:
            value = metrics["val_accuracy"]
            events.append(
                TrialFinished(
                    at=0, trial=number, attempt=1, outcome="complete", reason="epochs", value=value, best_epoch=2
                )
            )
    return fold(events)


def test_panel_of_a_phase_tells_its_stages_its_configurations_and_what_was_tested() -> None:
    search = searched(definition(), [(baseline_raw(definition()), 0.5), (POINT, 0.9)])
    plan = ConfirmationPlan(definition=definition(), search=search, phase="confirm-1")
    state = follow(definition(), search, "confirm-1", plan, lambda run: 0.6 + run.number / 1000, tested=FINAL)
    text = drawn(state, definition=definition())
    n = {stage: sum(run.stage == stage for run in state.trials.values()) for stage in STAGES}
    stages = "; ".join(f"{stage}: {n[stage]} of {n[stage]} runs" for stage in STAGES)
    assert f"{stages}; measured on the test set: {n[FINAL]}" in text
    running = replace(state.trials[0], number=99, outcome=None, attempts=())
    state.trials[99] = running
    state.unfinished[99] = None
    apply(state, AttemptStarted(at=0, trial=99, attempt=1, trainer=0, device="cpu", structure="", alone=False))
    assert f" {running.configuration} " in drawn(state, definition=definition())


def test_panel_counts_outcomes_and_tells_the_pace() -> None:
    text = drawn(fold(history()), elapsed_s=90)
    state = fold(history())
    counts = {outcome: len(state.with_outcome(outcome)) for outcome in ("complete", "pruned", "failed")}
    assert f"{sum(counts.values())} of 8" in text
    assert ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) + ", 0 running" in text
    assert "elapsed 1:30" in text
    assert f"{sum(counts.values()) / 1.5:.1f} trials a minute" in text


def test_pace_counts_only_the_trials_of_this_run() -> None:
    text = drawn(running_state(1, n_finished=3), elapsed_s=60, finished_before=2)
    assert "1.0 trials a minute" in text
    assert "about 5:00 to go" in text


def test_pace_is_silent_before_the_first_trial_is_finished() -> None:
    text = drawn(running_state(1), elapsed_s=3661)
    assert "elapsed 1:01:01\n" in re.sub(" +\n", "\n", text)
    assert "to go" not in text


def test_best_so_far_is_told_with_its_gain_over_the_baseline() -> None:
    assert "best so far: none complete yet" in drawn(running_state(2))
    assert "best so far: 60.00 % (trial 0)" in drawn(running_state(1, n_finished=1))
    text = drawn(running_state(1, n_finished=3))
    assert "best so far: 80.00 % (trial 2), +20.00 points against the baseline" in text


def test_running_trials_are_listed_with_their_latest_metrics_and_what_regularizes_them() -> None:
    line = next(line for line in drawn(running_state(2)).splitlines() if line.split()[:1] == ["1"])
    assert line.split()[:6] == ["1", "2/5", "1.250", "1.500", "70.00", "%"]
    assert "l1=2e-05" in line
    assert "0 (baseline)" in drawn(running_state(2))


def test_long_list_is_cut_and_says_by_how_much() -> None:
    text = drawn(running_state(MAX_ROWS + 5))
    assert f"{MAX_ROWS + 5} running" in text
    assert "5 more" in text
    assert len(text.splitlines()) == 3 + 1 + MAX_ROWS + 1


def test_panel_fits_a_narrow_terminal() -> None:
    console = Console(file=io.StringIO(), width=60)
    console.print(panel(STUDY, running_state(3, n_finished=2), elapsed_s=5))
    assert max(map(len, console.file.getvalue().splitlines())) <= 60  # type: ignore[attr-defined]


def test_output_decides_what_is_shown() -> None:
    file, terminal = Console(file=io.StringIO()), Console(file=io.StringIO(), force_terminal=True)
    assert isinstance(display(STUDY, file, quiet=False), PlainLines)
    assert isinstance(display(STUDY, terminal, quiet=True), Quiet)
    live = display(STUDY, terminal, quiet=False)
    assert isinstance(live, LiveTable)
    live.close()


def test_file_gets_a_line_a_trial_and_no_control_characters() -> None:
    console = Console(file=io.StringIO(), width=40)
    lines = display(STUDY, console, quiet=False)
    state = State()
    for event in history():
        apply(state, event)
        lines.on_events(state, [event])
        lines.on_tick(state)
    lines.close()
    told = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(told) == sum(isinstance(event, TrialFinished | AttemptInterrupted) for event in history())
    assert not any("\x1b" in line or "[/" in line for line in told)
    assert "trial 3: failed (error) after 0 epochs, no value: RuntimeError: no network of this width" in "\n".join(told)
    assert "trial 4: interrupted (the trainer ended); it will be trained again" in told


def test_live_table_says_failures_and_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    definition = fake_study(n_trials=2)
    state = coordinate(definition, tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    live = LiveTable(definition, console)
    live.say("a line that stays")
    live.on_tick(state)
    live.close()
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "a line that stays" in text
    assert "2 of 2" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again


@pytest.mark.slow
def test_live_table_is_drawn_in_a_terminal(tmp_path: Path) -> None:
    root = workplace(tmp_path, n_trials=3, data={"update_s": 0.1}, pruning={"kind": "none"})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "search.run", "--study", "fake", "--trainers", "1"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "120", "LINES": "40", "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())  # without colors
    assert process.wait() == 0
    assert len(folded(root).finished) == 3
    assert re.search(r"fake .*[0-3] of 3 ", text)
    assert "0 (baseline)" in text
    assert "best so far: " in text
    assert "Traceback" not in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h")
    assert "3 of 3 trials finished" in text.rsplit("\x1b[?25h", 1)[1]


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # what Linux says when the other end is closed
        return b""
