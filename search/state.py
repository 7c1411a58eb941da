"""A study's state, folded from its events: nothing here reads a clock, a disk or a random number."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from search.contract import Confusion, Value
from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    CheckpointRemoved,
    CheckpointSaved,
    EpochReported,
    Event,
    ModelExported,
    NetworkTested,
    Outcome,
    Reason,
    SessionClosed,
    SessionOpened,
    StagePlanned,
    StudyCreated,
    TestSetUsed,
    TrialAsked,
    TrialFinished,
    phase_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One training of a trial, from its first epoch."""

    number: int
    trainer: int
    device: str
    structure: str
    alone: bool
    started_at: float
    ended_at: float | None = None
    interrupted: str = ""
    """Why it ended without a result; empty otherwise."""
    reports: tuple[EpochReported, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    path: str
    """Relative to the study's folder."""
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    number: int
    raw: Mapping[str, Value]
    hyperparameters: Mapping[str, Value]
    baseline: bool
    asked_at: float
    drawn: Mapping[str, Value] = field(default_factory=dict)
    """What the sampler drew where raw values were held instead."""
    asked_after: int = 0
    """How many trials were finished when this one was asked."""
    attempts: tuple[Attempt, ...] = ()
    alone_next: bool = False
    outcome: Outcome | None = None
    reason: Reason | None = None
    value: float | None = None
    best_epoch: int | None = None
    n_parameters: int | None = None
    error: str = ""
    traceback: str = ""
    finished_at: float | None = None
    checkpoint: Checkpoint | None = None
    stage: str = ""
    """Of a phase, as are the next three."""
    configuration: str = ""
    seeds: tuple[int, ...] = ()
    tested: NetworkTested | None = None

    @property
    def held(self) -> bool:
        """Whether it was asked for a population of its structure."""
        return bool(self.drawn)

    @property
    def running(self) -> Attempt | None:
        """The attempt in training, if there is one."""
        return self.attempts[-1] if self.attempts and self.attempts[-1].ended_at is None else None

    @property
    def reports(self) -> tuple[EpochReported, ...]:
        """The reports that count: the last attempt's, unless it was interrupted."""
        return self.attempts[-1].reports if self.attempts and not self.attempts[-1].interrupted else ()

    @property
    def confusion(self) -> Confusion | None:
        """Validation counts at the best epoch."""
        return next((r.confusion for r in self.reports if r.epoch == self.best_epoch), None)

    def best(self, metric: str, *, maximize: bool, until: int | None = None) -> tuple[int, float] | None:
        """The epoch, from 1 on, with the best finite value of the metric, the first of equals; None without one."""
        values = [
            (report.metrics[metric] if maximize else -report.metrics[metric], -report.epoch)
            for report in self.reports
            if report.epoch > 0
            and (until is None or report.epoch <= until)
            and math.isfinite(report.metrics.get(metric, math.nan))
        ]
        if not values:
            return None
        value, epoch = max(values)
        return -epoch, value if maximize else -value


@dataclass(slots=True, kw_only=True)
class State:
    """Everything that is known of a study. `apply` alone changes it."""

    created: StudyCreated | None = None
    tests: list[TestSetUsed] = field(default_factory=list)
    sessions: list[SessionOpened] = field(default_factory=list)
    closed: list[SessionClosed] = field(default_factory=list)
    trials: dict[int, Trial] = field(default_factory=dict)
    finish_order: list[int] = field(default_factory=list)
    """The trials that have an outcome, in the order they got it."""
    unfinished: dict[int, None] = field(default_factory=dict)
    """The trials without one, in the order they were asked: few, however many a study has."""
    max_slots: dict[str, int] = field(default_factory=dict)
    """Structure -> the most slots its populations may hold, where memory ran out."""
    exported: ModelExported | None = None
    phases: dict[str, "State"] = field(default_factory=dict)
    """What was trained beyond the search, by the name of the phase: each a study within the study, whose trials the
    search never sees."""
    stages: dict[str, StagePlanned] = field(default_factory=dict)
    """Of a phase: what was planned, in that order."""

    @property
    def study(self) -> str:
        assert self.created is not None
        return self.created.study

    @property
    def definition(self) -> Mapping[str, Any]:
        assert self.created is not None
        return self.created.definition

    @property
    def measured_on(self) -> str:
        """What trials are measured on: "held_out" examples, or "train" or "original_test" (search/contract.py)."""
        return "held_out" if self.created is None else str(self.created.facts.get("validation", "held_out"))

    def with_outcome(self, *outcomes: Outcome) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.outcome in outcomes]

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials.values() if trial.outcome is not None]

    @property
    def running(self) -> list[Trial]:
        return [trial for number in self.unfinished if (trial := self.trials[number]).running is not None]

    @property
    def waiting(self) -> list[Trial]:
        """Asked, without an outcome and not in training: new, or interrupted."""
        return [trial for number in self.unfinished if (trial := self.trials[number]).running is None]

    @property
    def baseline(self) -> Trial | None:
        return next((trial for trial in self.trials.values() if trial.baseline), None)

    def ranked(self, *, maximize: bool) -> list[Trial]:
        """The complete trials that have a value, best first, the earlier of equals first."""
        complete = [trial for trial in self.with_outcome("complete") if trial.value is not None]
        return sorted(complete, key=lambda t: (-(t.value or 0.0) if maximize else (t.value or 0.0), t.number))


def fold(events: Iterable[Event], state: State | None = None) -> State:
    """Apply the events in order, onto `state` (which is changed) or onto nothing."""
    state = State() if state is None else state
    for event in events:
        apply(state, event)
    return state


def apply(state: State, event: Event) -> None:
    """Change the state by one event, depending on nothing but the two."""
    if phase := phase_of(event):
        state = state.phases.setdefault(phase, State(created=state.created))
    match event:
        case StudyCreated():
            state.created = event
        case TestSetUsed():
            state.tests.append(event)
        case SessionOpened():
            state.sessions.append(event)
        case SessionClosed():
            state.closed.append(event)
        case TrialAsked():
            state.trials[event.trial] = Trial(
                number=event.trial,
                raw=event.raw,
                hyperparameters=event.hyperparameters,
                baseline=event.baseline,
                asked_at=event.at,
                drawn=event.drawn,
                asked_after=len(state.finish_order),
                stage=event.stage,
                configuration=event.configuration,
                seeds=event.seeds,
            )
            state.unfinished[event.trial] = None
        case StagePlanned():
            state.stages[event.stage] = event
        case ModelExported():
            state.exported = event
        case AttemptInterrupted(max_slots=int(limit)):
            structure = _attempt(state.trials[event.trial], event.attempt).structure
            state.max_slots[structure] = min(limit, state.max_slots.get(structure, limit))
            state.trials[event.trial] = _changed(state.trials[event.trial], event)
        case _:
            state.trials[event.trial] = _changed(state.trials[event.trial], event)
            if isinstance(event, TrialFinished):
                state.finish_order.append(event.trial)
                del state.unfinished[event.trial]


def _changed(
    trial: Trial,
    event: AttemptStarted
    | EpochReported
    | CheckpointSaved
    | AttemptInterrupted
    | TrialFinished
    | CheckpointRemoved
    | NetworkTested,
) -> Trial:
    match event:
        case AttemptStarted():
            attempt = Attempt(
                number=event.attempt,
                trainer=event.trainer,
                device=event.device,
                structure=event.structure,
                alone=event.alone,
                started_at=event.at,
            )
            return replace(trial, attempts=(*trial.attempts, attempt))
        case EpochReported():
            attempt = _attempt(trial, event.attempt)
            return _with_attempt(trial, replace(attempt, reports=(*attempt.reports, event)))
        case CheckpointSaved():
            return replace(trial, checkpoint=Checkpoint(path=event.path, sha256=event.sha256))
        case CheckpointRemoved():
            return replace(trial, checkpoint=None)
        case NetworkTested():
            return replace(trial, tested=event)
        case AttemptInterrupted():
            attempt = replace(_attempt(trial, event.attempt), ended_at=event.at, interrupted=event.reason)
            return replace(_with_attempt(trial, attempt), alone_next=event.alone_next, checkpoint=None)
        case TrialFinished():
            attempt = replace(_attempt(trial, event.attempt), ended_at=event.at)
            return replace(
                _with_attempt(trial, attempt),
                outcome=event.outcome,
                reason=event.reason,
                value=event.value,
                best_epoch=event.best_epoch,
                n_parameters=event.n_parameters,
                error=event.error,
                traceback=event.traceback,
                finished_at=event.at,
            )


def _attempt(trial: Trial, number: int) -> Attempt:
    return next(attempt for attempt in reversed(trial.attempts) if attempt.number == number)


def _with_attempt(trial: Trial, attempt: Attempt) -> Trial:
    attempts = tuple(attempt if a.number == attempt.number else a for a in trial.attempts)
    return replace(trial, attempts=attempts)
