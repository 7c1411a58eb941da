"""A phase of a study beyond its search: it is trained by its plan, and its networks measured on the test set."""

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from search import checkpoint
from search.contract import Failed, Measure, Measured
from search.coordinator import Coordinator
from search.definition import Pruning, StudyDefinition
from search.errors import TrainerError
from search.events import CheckpointRemoved, NetworkTested, TestSetUsed, in_phase
from search.executors import Ended
from search.planned import Plan, Planned
from search.retention import OfStage
from search.sampling import replicate_seeds
from search.session import Session, Work, train
from search.state import State, Trial

POLL_S = 0.2


def numbered(state: State, kind: str) -> list[str]:
    """The study's phases of a kind, such as "confirm", in order: confirm-1, confirm-2, ..."""
    found = [name for name in state.phases if re.fullmatch(rf"{kind}-\d+", name)]
    return sorted(found, key=lambda name: int(name.rpartition("-")[2]))


def following(state: State, kind: str) -> str:
    """The name of the next phase of a kind."""
    return f"{kind}-{len(numbered(state, kind)) + 1}"


def undisturbed(definition: StudyDefinition) -> StudyDefinition:
    """The definition of runs that are compared as they are: one training each, never pruned or stopped as diverged."""
    changes = {
        "pruning": Pruning(kind="none", patience=definition.pruning.patience),
        "replicates": 1,
        "stop_diverged": False,
        "timeout_s": None,
    }
    return definition.model_copy(update=changes)


def trained(state: State, plan: Plan) -> bool:
    """Whether the phase is planned to its end, and every run of it is through."""
    return len(state.finish_order) == len(state.trials) and plan(state) is None


def run_phase(
    session: Session,
    phase: str,
    plan: Plan,
    *,
    definition: StudyDefinition,
    header: str,
    tested: str = "",
    n_expected: int,
    seeds: Callable[[StudyDefinition, int], tuple[int, ...]] = replicate_seeds,
) -> str:
    """Train what the plan says; return "done" or why it stopped.

    Args:
        definition: of its runs.
        tested: the stage whose networks are measured on the test set, once all are trained.
        n_expected: how many runs there will be, as far as that is known.
    """
    state = session.state.phases.setdefault(phase, State(created=session.state.created))
    folder = folder_of(session, phase)

    def admission(record: Callable[..., None]) -> Planned:
        return Planned(
            definition=definition,
            state=state,
            rules=session.opened.hyperparameters,
            plan=plan,
            record=record,
            clock=time.time,
            seeds=seeds,
        )

    work = Work(
        phase=phase,
        definition=definition.model_copy(update={"n_trials": n_expected}),
        state=state,
        admission=admission,
        retention=OfStage(tested),
        folder=folder,
        header=header,
        afterwards=partial(_test, session, phase, folder),
    )
    return train(session, work)


def folder_of(session: Session, phase: str) -> Path:
    """Where the phase's files lie."""
    return session.settings.workspace.study(session.definition.name) / phase


# ---------------------------------------------------------------- the test set


def untested(state: State) -> list[Trial]:
    """The runs whose weights wait to be measured on the test set."""
    return [trial for trial in state.trials.values() if trial.checkpoint is not None and trial.tested is None]


def _test(session: Session, phase: str, folder: Path, coordinator: Coordinator) -> str:
    """Measure every network that waits for it, once, and drop its weights; the use is in the ledger before it begins.

    Killed half-way it goes on with those that are left: what was measured is not measured again. Returns "done" or why
    it stopped.

    Raises:
        TrainerError: a network could not be measured.
    """
    state = session.state.phases[phase]
    waiting = deque(untested(state))
    if not waiting:
        return "done"
    if not any(used.purpose == phase for used in session.state.tests):
        session.record(TestSetUsed(at=time.time(), purpose=phase, checksum=""))
    (folder / "predictions").mkdir(parents=True, exist_ok=True)
    trainers = [number for number, trainer in coordinator.trainers.items() if trainer.ready]
    measuring = {number: waiting.popleft() for number in trainers[: len(waiting)]}
    for number, trial in measuring.items():
        _send(session, folder, number, trial)
    while measuring:
        if (reason := coordinator.watcher.stop()) is not None:
            return reason
        coordinator.watcher.on_tick(state)
        for number, reply in session.executor.receive(POLL_S):
            match reply:
                case Measured() if number in measuring:
                    _note(session, phase, folder, measuring.pop(number), reply)
                    if waiting:
                        measuring[number] = waiting.popleft()
                        _send(session, folder, number, measuring[number])
                case Failed(trials=()) if number in measuring:
                    raise _failed(measuring[number], f"{reply.error}\n{reply.traceback}".rstrip())
                case Ended() if number in measuring:
                    raise _failed(measuring[number], reply.reason)
    return "done"


def predictions_of(trial: Trial) -> str:
    """Where a run's predictions lie, relative to its phase's folder."""
    return f"predictions/trial-{trial.number:05d}.npz"


def _send(session: Session, folder: Path, number: int, trial: Trial) -> None:
    assert trial.checkpoint is not None
    path = str(folder / trial.checkpoint.path)
    session.executor.send(
        number, Measure(checkpoint=path, predictions=str(folder / predictions_of(trial)), part="test")
    )


def _note(session: Session, phase: str, folder: Path, trial: Trial, measured: Measured) -> None:
    now = time.time()
    tested = NetworkTested(
        at=now,
        trial=trial.number,
        metrics=measured.metrics,
        predictions=predictions_of(trial),
        sha256=measured.sha256,
        checksum=measured.checksum,
        n_examples=measured.n_examples,
    )
    assert trial.checkpoint is not None
    path = folder / trial.checkpoint.path
    events: Sequence[NetworkTested | CheckpointRemoved] = (tested, CheckpointRemoved(at=now, trial=trial.number))
    session.record(*(in_phase(event, phase) for event in events))
    checkpoint.remove(path)


def _failed(trial: Trial, why: str) -> TrainerError:
    return TrainerError(
        f"the network of {trial.configuration}, seed {trial.seeds[0]}, could not be measured on the test set: {why}. "
        "What was measured is kept; run the same command again to go on."
    )
