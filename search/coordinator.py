"""The loop of a study: ask, admit, append, decide, evict. The one process that asks and decides.

Whatever happens is appended to the ledger before anything acts on it; what is not in the ledger did not happen. All
that a round of the loop finds out is one transaction, and so one flush of the disk: orders wait until it is through.
A trial that keeps its weights is finished only once they are on disk.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from search import checkpoint
from search.admission import Admission
from search.cohort import TrainerLoad
from search.contract import (
    Admit,
    Admitted,
    Evict,
    Exported,
    ExportModel,
    Failed,
    Open,
    Opened,
    Order,
    Progress,
    Refused,
    Reply,
    Report,
    Saved,
)
from search.definition import StudyDefinition
from search.errors import StudyStoppedError, TrainerError
from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    CheckpointRemoved,
    CheckpointSaved,
    EpochReported,
    Event,
    ModelExported,
    TrialFinished,
    in_phase,
)
from search.executors import Ended, Executor
from search.ledger import Ledger
from search.pruning import Decision, decide
from search.recovery import MAX_DEATHS, Recovery, after_death, after_failure
from search.retention import Retention, model_path
from search.sampling import replicates
from search.state import State, Trial, apply

POLL_S = 0.2
ASKING_POLL_S = 0.005
"""The same while a trial is being asked."""
SAVE_S = 30.0
"""How long an ending session waits for weights that are being written."""
MAX_IDLE_DEATHS = 3
MAX_EQUAL_ERRORS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """Who is told what happens, in the coordinator's own thread."""

    on_events: Callable[[State, Sequence[Event]], None]
    on_tick: Callable[[State], None]
    stop: Callable[[], str | None]
    """Why to stop now, or None."""


@dataclass(slots=True, kw_only=True)
class TrainerState:
    """What the coordinator knows of a trainer beyond the ledger."""

    ready: bool = False
    deaths_idle: int = 0
    waited_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Coordinator:
    """Trains whatever is admitted: a search's trials or a phase's. The caller owns the ledger, and opened trainer 0."""

    definition: StudyDefinition
    ledger: Ledger
    state: State
    """Of the search, or of the phase."""
    phase: str = ""
    executor: Executor
    orders: Mapping[int, Open]
    """How to open each trainer."""
    admission: Callable[[Callable[..., None]], Admission]
    """Makes what says which trial comes next, given how it records what it decides."""
    retention: Retention
    folder: Path
    """The study's, or the phase's."""
    watcher: Watcher
    clock: Callable[[], float]
    trainers: dict[int, TrainerState] = field(default_factory=dict)
    _admission: Admission = field(init=False)
    _finishing: dict[tuple[int, int], Decision] = field(default_factory=dict)
    _errors: list[str] = field(default_factory=list)
    _exporting: bool = False
    _n_parameters: dict[int, int] = field(default_factory=dict)
    """Trial -> trainable parameters, as its trainer said."""
    _used: int = 0
    _possible: int = 0
    _unwritten: list[Event] = field(default_factory=list)
    """Known to the state, not yet to the ledger."""
    _effects: list[Callable[[], None]] = field(default_factory=list)
    """What follows from them, once the ledger has them."""

    def __post_init__(self) -> None:
        self._admission = self.admission(self._record)
        self.trainers = {number: TrainerState(ready=number == 0) for number in self.orders}

    def run(self) -> str:
        """Train until the study is done or the watcher says stop; return "done" or why it stopped.

        Raises:
            StudyStoppedError: the same error failed trial after trial.
            TrainerError: a trainer cannot be started.
        """
        self._interrupt(self.state.running, "the coordinator ended")
        self._commit()
        self._sweep()
        for number, trainer in self.trainers.items():
            if not trainer.ready:
                self._start(number)
        reason = "stopped"
        try:
            reason = self._loop()
        finally:
            self._admission.close()
            if reason != "done":
                self._interrupt(self.state.running, reason)
            self._commit()
        self._sweep()
        return reason

    @property
    def waited_s(self) -> float:
        """Time the trainers had nothing to train, summed."""
        return sum(trainer.waited_s for trainer in self.trainers.values())

    @property
    def slot_use(self) -> float | None:
        """Slot-updates used, of those that populations at their capacity would have had, until trials ran out."""
        return self._used / self._possible if self._possible else None

    def _loop(self) -> str:
        while not self._done():
            if (reason := self.watcher.stop()) is not None:
                self._drain()
                return reason
            self._fill()
            self._commit()
            self._take_replies(ASKING_POLL_S if self._admission.asks else POLL_S)
            self.watcher.on_tick(self.state)
        return "done"

    def _done(self) -> bool:
        if not self._admission.exhausted or len(self.state.finish_order) < len(self.state.trials):
            return False
        if (champion := self.retention.champion(self.state)) is None:
            return True
        if not self._exporting and self.trainers[0].ready:
            self._exporting = True
            self._send(0, _export_order(champion, self.folder))
            self._commit()
        return False

    def _drain(self) -> None:
        """Wait for the weights of trials that are through, so that they need not be trained again."""
        deadline = self.clock() + SAVE_S
        while self._finishing and self.clock() < deadline:
            self._commit()
            self._take_replies(POLL_S)

    def _record(self, *events: Event) -> None:
        """Note what happened, for the next commit."""
        for event in events:
            apply(self.state, event)
        self._unwritten += [in_phase(event, self.phase) for event in events]

    def _send(self, number: int, order: Order) -> None:
        """Send the order once what led to it is in the ledger."""
        self._effects.append(lambda: self.executor.send(number, order))

    def _commit(self) -> None:
        """Append what has happened, then let the rest of the world know."""
        self.ledger.append(*self._unwritten)
        events, effects, self._unwritten, self._effects = self._unwritten, self._effects, [], []
        for effect in effects:
            effect()
        if events:
            self.watcher.on_events(self.state, events)

    # ------------------------------------------------------------ admitting

    def _fill(self) -> None:
        for trial, number in self._admission.fill(self._loads):
            self._admit(trial, number)

    def _admit(self, trial: Trial, number: int) -> None:
        key = self._admission.structure(trial)
        attempt = len(trial.attempts) + 1
        self._record(
            AttemptStarted(
                at=self.clock(),
                trial=trial.number,
                attempt=attempt,
                trainer=number,
                device=self.orders[number].device,
                structure=key,
                alone=trial.alone_next,
            )
        )
        self._send(
            number,
            Admit(
                trial=trial.number,
                attempt=attempt,
                hyperparameters=trial.hyperparameters,
                structure=key,
                replicates=replicates(self.definition, trial),
                alone=trial.alone_next,
            ),
        )

    def _loads(self) -> list[TrainerLoad]:
        populations: dict[int, dict[str, int]] = {number: {} for number in self.trainers}
        alone = dict.fromkeys(self.trainers, False)
        for trial in self.state.running:
            attempt = trial.running
            assert attempt is not None
            if (trial.number, attempt.number) not in self._finishing:
                held = populations[attempt.trainer]
                held[attempt.structure] = held.get(attempt.structure, 0) + self.definition.n_replicates
                alone[attempt.trainer] |= attempt.alone
        return [
            TrainerLoad(
                trainer=number,
                populations=populations[number],
                alone=alone[number],
                pending=not trainer.ready,
            )
            for number, trainer in self.trainers.items()
        ]

    # ------------------------------------------------------------ replies

    def _take_replies(self, timeout_s: float) -> None:
        for number, reply in self.executor.receive(timeout_s):
            self._take(number, reply)

    def _take(self, number: int, reply: Reply | Ended) -> None:
        trainer = self.trainers[number]
        match reply:
            case Report():
                trainer.waited_s += reply.wait_s
                self._reported(number, reply)
            case Admitted():
                self._admitted(trainer, reply)
            case Saved():
                self._saved(reply)
            case Failed():
                self._failed(number, reply)
            case Ended():
                self._died(number, reply)
            case Opened():
                trainer.ready = True
            case Exported():
                self._exported()
            case Refused():
                raise TrainerError(f"trainer {number} refuses the study: {reply.message}\n{reply.traceback}".rstrip())
            case Progress():
                pass  # only trainer 0 downloads, before there is a coordinator

    def _admitted(self, trainer: TrainerState, reply: Admitted) -> None:
        trainer.deaths_idle = 0
        self._n_parameters[reply.trial] = reply.n_parameters
        trial = self.state.trials[reply.trial]
        key = trial.attempts[-1].structure
        limits = (self._admission.slots_wanted(reply.capacity), self.definition.slots, self.state.max_slots.get(key))
        self._admission.capacity[key] = max(1, min(limit for limit in limits if limit is not None))

    def _reported(self, number: int, report: Report) -> None:
        at = self.clock()
        reports = [slot for slot in report.slots if self._counts(slot.trial, slot.attempt)]
        self._count_use(report, [slot.epoch for slot in reports])
        self._record(
            *(
                EpochReported(
                    at=at,
                    trial=slot.trial,
                    attempt=slot.attempt,
                    epoch=slot.epoch,
                    metrics=slot.metrics,
                    replicates=slot.replicates,
                    confusion=slot.confusion,
                )
                for slot in reports
            )
        )
        decisions = decide(self.state, [slot.trial for slot in reports], self.definition)
        for trial, decision in decisions.items():
            self._end(number, self.state.trials[trial], decision)

    def _count_use(self, report: Report, epochs: Sequence[int]) -> None:
        """Count the updates of a report while there is anything left to admit, and those that led to a wanted epoch."""
        if not self._admission.exhausted or self.state.waiting:
            n_trained = sum(epoch > 0 for epoch in epochs)
            self._used += n_trained * self.definition.n_replicates * report.epoch_updates
            self._possible += self._admission.capacity[report.structure] * report.updates

    def _counts(self, trial: int, attempt: int) -> bool:
        """Whether a report of this attempt is still wanted: not decided, not interrupted."""
        running = self.state.trials[trial].running
        return running is not None and running.number == attempt and (trial, attempt) not in self._finishing

    def _end(self, number: int, trial: Trial, decision: Decision) -> None:
        """Finish a trial: at once, or, where it is to keep its weights, when they are saved."""
        attempt = trial.attempts[-1].number
        keeps = decision.outcome == "complete" and self.retention.keeps(trial, decision.value, self.state)
        path = str(self.folder / checkpoint.name(trial.number)) if keeps else None
        if keeps:
            self._finishing[trial.number, attempt] = decision
        else:
            self._finish(trial, decision)
        self._send(number, Evict(trial=trial.number, attempt=attempt, save=path))

    def _finish(self, trial: Trial, decision: Decision, *before: Event) -> None:
        finished = TrialFinished(
            at=self.clock(),
            trial=trial.number,
            attempt=trial.attempts[-1].number,
            outcome=decision.outcome,
            reason=decision.reason,
            value=decision.value,
            best_epoch=decision.best_epoch,
            n_parameters=self._n_parameters.get(trial.number),
        )
        self._record(*before, finished)
        self._admission.tell(self.state.trials[trial.number])
        self._errors.clear()

    def _saved(self, saved: Saved) -> None:
        decision = self._finishing.pop((saved.trial, saved.attempt))
        relative = str(Path(saved.path).relative_to(self.folder))
        event = CheckpointSaved(
            at=self.clock(), trial=saved.trial, attempt=saved.attempt, path=relative, sha256=saved.sha256
        )
        self._finish(self.state.trials[saved.trial], decision, event)
        self._remove_overtaken()

    def _remove_overtaken(self) -> None:
        for trial in self.retention.overtaken(self.state):
            assert trial.checkpoint is not None
            self._record(CheckpointRemoved(at=self.clock(), trial=trial.number))
            self._effects.append(partial(checkpoint.remove, self.folder / trial.checkpoint.path))

    def _sweep(self) -> None:
        """Remove weights that the ledger does not name: whoever was killed between a file and its event left them."""
        kept = [trial.checkpoint.path for trial in self.state.trials.values() if trial.checkpoint is not None]
        checkpoint.keep_only(self.folder, kept)

    def _exported(self) -> None:
        champion = self.retention.champion(self.state)
        if champion is not None:
            path = model_path(champion).as_posix()
            self._record(ModelExported(at=self.clock(), trial=champion.number, path=path))
        self._exporting = False

    # ------------------------------------------------------------ failures

    def _failed(self, number: int, failed: Failed) -> None:
        if not failed.trials:
            raise TrainerError(f"trainer {number} could not export the champion: {failed.error}\n{failed.traceback}")
        trials = [self.state.trials[trial] for trial, attempt in failed.trials if self._held(trial, attempt)]
        recovery = after_failure(failed, trials, self._on(number), replicates=self.definition.n_replicates)
        self._recover(trials, recovery, failed.error, failed.traceback)

    def _died(self, number: int, ended: Ended) -> None:
        trainer, trials = self.trainers[number], self._on(number)
        trainer.deaths_idle = 0 if trials else trainer.deaths_idle + 1
        if trainer.deaths_idle >= MAX_IDLE_DEATHS:
            raise TrainerError(
                f"trainer {number} ended {MAX_IDLE_DEATHS} times in a row before it trained: {ended.reason}. "
                "Is there enough memory?"
            )
        recovery = after_death(trials)
        times = f", {MAX_DEATHS} times while this trial trained alone" if recovery.give_up else ""
        self._recover(trials, recovery, ended.reason + times, "")
        self._exporting &= number != 0
        self._start(number)

    def _on(self, number: int) -> list[Trial]:
        return [trial for trial in self.state.running if trial.attempts[-1].trainer == number]

    def _recover(self, trials: Sequence[Trial], recovery: Recovery, error: str, traceback: str) -> None:
        if recovery.give_up:
            for trial in trials:
                self._give_up(trial, error, traceback)
        else:
            self._interrupt(trials, error, alone_next=recovery.alone_next, max_slots=recovery.max_slots)
            self._admission.capacity.update(self.state.max_slots)

    def _start(self, number: int) -> None:
        self.trainers[number].ready = False
        self.executor.start(number)
        self.executor.send(number, self.orders[number])

    def _held(self, trial: int, attempt: int) -> bool:
        running = self.state.trials[trial].running
        return running is not None and running.number == attempt

    def _interrupt(
        self, trials: Sequence[Trial], reason: str, *, alone_next: bool = False, max_slots: int | None = None
    ) -> None:
        at = self.clock()
        for trial in trials:
            self._finishing.pop((trial.number, trial.attempts[-1].number), None)
        self._record(
            *(
                AttemptInterrupted(
                    at=at,
                    trial=trial.number,
                    attempt=trial.attempts[-1].number,
                    reason=reason,
                    alone_next=alone_next or trial.attempts[-1].alone,
                    max_slots=max_slots,
                )
                for trial in trials
            )
        )

    def _give_up(self, trial: Trial, error: str, traceback: str) -> None:
        attempt = trial.attempts[-1].number
        self._finishing.pop((trial.number, attempt), None)
        epoch, value = trial.best(self.definition.metric, maximize=self.definition.maximize) or (None, None)
        self._record(
            TrialFinished(
                at=self.clock(),
                trial=trial.number,
                attempt=attempt,
                outcome="failed",
                reason="error",
                value=value,
                best_epoch=epoch,
                n_parameters=self._n_parameters.get(trial.number),
                error=error,
                traceback=traceback,
            )
        )
        self._admission.tell(self.state.trials[trial.number])
        self._errors.append(error)
        if self._errors[-MAX_EQUAL_ERRORS:] == [error] * MAX_EQUAL_ERRORS:
            raise StudyStoppedError(
                f"{self.definition.name}: {MAX_EQUAL_ERRORS} trials in a row failed with the same error: {error}\n"
                f"Mend the objective or the study file, then run again. The last traceback:\n{traceback}"
            )


def _export_order(champion: Trial, folder: Path) -> ExportModel:
    assert champion.checkpoint is not None
    destination = folder / model_path(champion)
    destination.parent.mkdir(parents=True, exist_ok=True)
    return ExportModel(checkpoint=str(folder / champion.checkpoint.path), destination=str(destination))
