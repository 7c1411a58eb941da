"""What the terminal shows while a study runs: a live table, plain lines, or nothing."""

import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from search.definition import StudyDefinition
from search.events import AttemptInterrupted, Event, TrialFinished
from search.result import difference, epochs_of, shown, told
from search.space import is_off
from search.state import State, Trial

REFRESH_S = 0.5
MAX_ROWS = 12


class Display(Protocol):
    """Told what happens, in the coordinator's thread."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def on_events(self, state: State, events: Sequence[Event]) -> None: ...

    def on_tick(self, state: State) -> None: ...

    def close(self) -> None:
        """Leave the terminal as it was; lines may follow."""


def display(definition: StudyDefinition, console: Console, *, quiet: bool) -> Display:
    """Choose by where the output goes."""
    if quiet:
        return Quiet()
    return LiveTable(definition, console) if console.is_terminal else PlainLines(definition, console)


class Quiet:
    def say(self, text: str) -> None: ...

    def on_events(self, state: State, events: Sequence[Event]) -> None: ...

    def on_tick(self, state: State) -> None: ...

    def close(self) -> None: ...


class PlainLines:
    """A line whenever a trial ends."""

    def __init__(self, definition: StudyDefinition, console: Console) -> None:
        self._definition, self._console = definition, console

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def on_events(self, state: State, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, TrialFinished | AttemptInterrupted):
                self.say(_ended(self._definition, state, event))

    def on_tick(self, state: State) -> None: ...

    def close(self) -> None: ...


class LiveTable:
    """Progress, best so far, and the trials in training with their latest metrics."""

    def __init__(self, definition: StudyDefinition, console: Console) -> None:
        self._definition = definition
        self._started, self._refreshed = time.monotonic(), 0.0
        self._finished_before: int | None = None
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def say(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def on_events(self, state: State, events: Sequence[Event]) -> None:
        for event in events:
            interrupted = isinstance(event, AttemptInterrupted)
            if interrupted or (isinstance(event, TrialFinished) and event.outcome == "failed"):
                self.say(_ended(self._definition, state, event))

    def on_tick(self, state: State) -> None:
        now = time.monotonic()
        if self._finished_before is None:
            self._finished_before = len(state.finished)
        if now - self._refreshed >= REFRESH_S:
            self._refreshed = now
            elapsed_s = now - self._started
            picture = panel(self._definition, state, elapsed_s=elapsed_s, finished_before=self._finished_before)
            self._live.update(picture, refresh=True)

    def close(self) -> None:
        self._live.stop()


def panel(definition: StudyDefinition, state: State, *, elapsed_s: float, finished_before: int = 0) -> Group:
    """Draw the state of a running study.

    Args:
        elapsed_s: since this run of the command began.
        finished_before: trials that were finished when it began.
    """
    return Group(
        _progress(definition, state),
        Text(_pace(definition, state, elapsed_s, len(state.finished) - finished_before)),
        Text(_best_line(definition, state)),
        _running(definition, state),
    )


def _progress(definition: StudyDefinition, state: State) -> Table:
    outcomes = {name: len(state.with_outcome(name)) for name in ("complete", "pruned", "failed")}
    counts = ", ".join(f"{count} {name}" for name, count in outcomes.items()) + f", {len(state.running)} running"
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=_total(definition, state), completed=len(state.finished), width=32)
    grid.add_row(
        Text(definition.name, style="bold"), bar, f"{len(state.finished)} of {_total(definition, state)}", counts
    )
    return grid


def _total(definition: StudyDefinition, state: State) -> int:
    """Trials that will be finished: a study that already has more than it is asked for ends those it has."""
    return max(definition.n_trials, len(state.trials))


def _pace(definition: StudyDefinition, state: State, elapsed_s: float, n_finished: int) -> str:
    parts = [f"elapsed {_clock(elapsed_s)}"]
    if n_finished:
        left_s = elapsed_s / n_finished * (_total(definition, state) - len(state.finished))
        parts += [f"about {_clock(left_s)} to go", f"{60 * n_finished / elapsed_s:.1f} trials a minute"]
    return " · ".join(parts)


def _best_line(definition: StudyDefinition, state: State) -> str:
    if state.stages:
        n_tested = sum(trial.tested is not None for trial in state.trials.values())
        tested = [f"measured on the test set: {n_tested}"] if n_tested else []
        return "; ".join([*(_stage(state, stage) for stage in state.stages), *tested])
    best = next(iter(state.ranked(maximize=definition.maximize)), None)
    if best is None or best.value is None:
        return "best so far: none complete yet"
    line = f"best so far: {told(definition.metric, best.value)} (trial {best.number})"
    if state.baseline is not None and state.baseline.value is not None and not best.baseline:
        line += f", {difference(definition.metric, best.value - state.baseline.value)} against the baseline"
    return line


def _stage(state: State, stage: str) -> str:
    runs = [trial for trial in state.trials.values() if trial.stage == stage]
    return f"{stage}: {sum(run.outcome is not None for run in runs)} of {len(runs)} runs"


def _running(definition: StudyDefinition, state: State) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", expand=True)
    for title in ("trial", "epoch", "train_loss", "val_loss", definition.metric):
        table.add_column(title, justify="right", no_wrap=True, min_width=len(title))
    table.add_column("regularizers on, and the rest", ratio=1, no_wrap=True, overflow="ellipsis")
    for trial in state.running[:MAX_ROWS]:
        table.add_row(*_row(definition, trial))
    if len(state.running) > MAX_ROWS:
        table.add_row("...", *[""] * 4, f"{len(state.running) - MAX_ROWS} more")
    return table


def _row(definition: StudyDefinition, trial: Trial) -> list[str]:
    metrics = trial.reports[-1].metrics if trial.reports else {}
    cells = [f"{metrics[name]:.3f}" if name in metrics else "" for name in ("train_loss", "val_loss")]
    value = told(definition.metric, metrics[definition.metric]) if definition.metric in metrics else ""
    name = trial.configuration or (f"{trial.number} (baseline)" if trial.baseline else str(trial.number))
    sampled = {name: trial.hyperparameters[name] for name in trial.raw}
    settings = " ".join(f"{n}={shown(v)}" for n, v in sampled.items() if not is_off(definition.space[n], v))
    return [name, f"{epochs_of(trial)}/{definition.epochs}", *cells, value, settings]


def _ended(definition: StudyDefinition, state: State, event: Event) -> str:
    if isinstance(event, AttemptInterrupted):
        return f"{named(state.trials[event.trial])}: interrupted ({event.reason}); it will be trained again"
    assert isinstance(event, TrialFinished)
    value = "no value" if event.value is None else f"{definition.metric} {told(definition.metric, event.value)}"
    epochs = epochs_of(state.trials[event.trial])
    line = f"{named(state.trials[event.trial])}: {event.outcome} ({event.reason}) after {epochs} epochs, {value}"
    nth = state.finish_order.index(event.trial) + 1
    return f"[{nth} of {_total(definition, state)}] {line}{': ' + event.error if event.error else ''}"


def named(trial: Trial) -> str:
    """What people know the trial by: its number; a phase's run by its stage and configuration."""
    if not trial.stage:
        return f"trial {trial.number}"
    return f"{trial.stage}: {trial.configuration}, seed {trial.seeds[0] % 10_000:04}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
