"""One session of a study: it is taken up, trained (its search or a phase beyond) and let go, whatever interrupts it."""

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from search import result
from search.admission import Admission, sampled
from search.contract import Open, Opened, Value
from search.coordinator import Coordinator, Watcher
from search.definition import StudyDefinition, check_objective, differences, fingerprint
from search.display import Display, display
from search.errors import DataError, FingerprintError, LedgerError, OwnedError, StudyStoppedError, TrainerError
from search.events import Event, SessionClosed, SessionOpened, StudyCreated, TestSetUsed
from search.executors import CPU_TRAINER_ENVIRONMENT, Executor, Inline, LocalProcesses
from search.interruption import Interruption
from search.launch import first_order, open_trainer, orders, started_ahead
from search.ledger import Ledger, ownership
from search.retention import OfTheBest, Retention, unexported_champion
from search.rules import unsuited
from search.space import extremes
from search.state import State, apply, fold
from search.viewer import Stores, Viewer
from search.workspace import Workspace

DRAIN_S = 300.0
"""How long the end of a run waits for a view; what it misses it gets from the next run."""
INTERRUPTED_DRAIN_S = 30.0
"""The same for one that was interrupted: whoever pressed Ctrl-C is waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a run needs besides the definition."""

    workspace: Workspace
    data_dir: Path
    storage: str
    tracking_uri: str
    quiet: bool = False
    export: Path | None = None
    command: str = ""
    """What the user typed: running it again continues the study."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A study that was taken up: its ledger is owned, its views follow, its first trainer is open."""

    definition: StudyDefinition
    settings: Settings
    console: Console
    ledger: Ledger
    state: State
    """Of the whole study."""
    viewer: Viewer
    executor: Executor
    first: Open
    """How trainer 0 was opened."""
    opened: Opened
    """What it says."""

    def record(self, *events: Event) -> None:
        """Append what happened outside of a coordinator's loop."""
        self.ledger.append(*events)
        for event in events:
            apply(self.state, event)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a session trains."""

    phase: str
    definition: StudyDefinition
    state: State
    """Of the search, or of the phase."""
    admission: Callable[[Callable[..., None]], Admission]
    retention: Retention
    folder: Path
    header: str
    afterwards: Callable[[Coordinator], str] = lambda coordinator: "done"
    """What the trainers do when nothing is left to train; it returns "done" or why it stopped."""


def run(definition: StudyDefinition, settings: Settings, console: Console) -> int:
    """Bring the study to its number of trials and print what it found; return the exit status.

    Raises:
        SearchError: whatever keeps it from running; a study that is new then leaves nothing on disk.
    """
    if settings.export is not None:
        result.check_export(settings.export)
    path = settings.workspace.ledger(definition.name)
    with contextlib.ExitStack() as cleanup:
        viewer = Viewer(stores(definition, settings), on_trouble=_warn)
        cleanup.callback(viewer.close)
        ledger, state = None, State()
        if path.exists():
            ledger = _owned_ledger(cleanup, path, create=False)
            state = fold(ledger.events())
            check_fingerprint(definition, state)
            viewer.follow(path)
            if is_done(definition, state):
                console.print(f"{definition.name} is done: nothing is left to train.", highlight=False)
                status = _conclude(definition, settings, console, state, "done")
                _sync(viewer, drain_s=DRAIN_S)
                return status
        else:
            viewer.check()
        first, executor, opened = _opened(cleanup, definition, settings, console, state)
        if ledger is None:
            viewer.checked()
            ledger = _owned_ledger(cleanup, path, create=True)
            viewer.follow(path)
        session = Session(
            definition=definition,
            settings=settings,
            console=console,
            ledger=ledger,
            state=state,
            viewer=viewer,
            executor=executor,
            first=first,
            opened=opened,
        )
        if state.created is None:
            session.record(*_creation(definition, opened))
        if not settings.quiet:
            _warn_of_wrong_labels(definition, opened)
        reason = train(session, _search(session))
    return _conclude(definition, settings, console, state, reason)


@contextlib.contextmanager
def taken_up(settings: Settings, console: Console, study: str, changes: Mapping[str, Any]) -> Iterator[Session]:
    """Take up a study that was run here, under the definition that its ledger holds.

    Args:
        changes: fields of the definition that may change when a study is continued.

    Raises:
        SearchError: there is no such study, somebody else runs it, or its data or objective cannot be opened.
    """
    path = settings.workspace.ledger(study)
    with contextlib.ExitStack() as cleanup:
        ledger = _owned_ledger(cleanup, path, create=False)
        state = fold(ledger.events())
        definition = StudyDefinition.model_validate({**state.definition, **changes})
        viewer = Viewer(stores(definition, settings), on_trouble=_warn)
        cleanup.callback(viewer.close)
        viewer.follow(path)
        first, executor, opened = _opened(cleanup, definition, settings, console, state)
        yield Session(
            definition=definition,
            settings=settings,
            console=console,
            ledger=ledger,
            state=state,
            viewer=viewer,
            executor=executor,
            first=first,
            opened=opened,
        )


def _opened(
    cleanup: contextlib.ExitStack, definition: StudyDefinition, settings: Settings, console: Console, state: State
) -> tuple[Open, Executor, Opened]:
    """Open the study on trainer 0, and check that definition, objective and data are those that belong together."""
    first = first_order(definition, settings.data_dir, state)
    executor = _executor(definition, first)
    cleanup.callback(executor.stop)
    with console.status("Opening the data set and probing the device ..."):
        opened = open_trainer(executor, first, console)
    check_objective(definition, opened.hyperparameters, opened.metrics)
    _check_data(definition, state, opened)
    return first, executor, opened


def _executor(definition: StudyDefinition, first: Open) -> Executor:
    if definition.trainers == 0:
        return Inline()
    return LocalProcesses(CPU_TRAINER_ENVIRONMENT, ahead=started_ahead(first))


def _owned_ledger(cleanup: contextlib.ExitStack, path: Path, *, create: bool) -> Ledger:
    """Take the study's ledger as its only coordinator, until `cleanup`.

    Raises:
        OwnedError: another process holds it, or made it since this one looked.
        LedgerError: its folder cannot be written.
    """
    try:
        cleanup.enter_context(ownership(path.parent))
        if create and path.exists():
            raise OwnedError(f"{path.parent}: another process has just begun this study. Run again to continue it.")
        return cleanup.enter_context(contextlib.closing(Ledger(path, create=create)))
    except OSError as error:
        raise LedgerError(
            f"{path.parent}: cannot be written: {error.strerror}. Run in a folder of your own, or change its mode."
        ) from error


def is_done(definition: StudyDefinition, state: State) -> bool:
    """Whether nothing is left to train or to export."""
    finished = len(state.finished)
    return finished == len(state.trials) >= definition.n_trials and unexported_champion(definition, state) is None


def check_fingerprint(definition: StudyDefinition, state: State) -> None:
    """Refuse to continue a study under another definition.

    Raises:
        FingerprintError: with what differs, and the way out.
    """
    if state.created is None or fingerprint(definition) == state.created.fingerprint:
        return
    changes = differences(state.definition, definition.model_dump(mode="json"))
    raise FingerprintError(
        f"{definition.name}: the study exists under another definition; its trials cannot be compared with new ones.\n"
        + "\n".join(f"  {change}" for change in changes)
        + "\nUndo the change, or start another study with --name NEW."
    )


def _check_data(definition: StudyDefinition, state: State, opened: Opened) -> None:
    if state.created is None:
        return
    before, now = state.created.facts.get("checksum"), opened.facts.get("checksum")
    if before != now:
        raise DataError(
            f"{definition.name}: the data set must be the one the study began with, checksum {before}, got {now}. "
            "Restore the files, or start another study with --name NEW."
        )


# ---------------------------------------------------------------- training


def train(session: Session, work: Work) -> str:
    """Train until the work is done or something says stop; return "done" or why it stopped."""
    definition, settings = work.definition, session.settings
    by_trainer = orders(definition, session.first, session.opened)
    interruption = Interruption(time.monotonic() + (definition.timeout_s or float("inf")))
    session.record(_session_opened(session.opened, len(by_trainer), work.phase))
    screen = display(definition, session.console, quiet=settings.quiet)
    screen.say(f"{work.header}\n{_device(session.opened, len(by_trainer))}{_continuing(work.state)}")
    coordinator = Coordinator(
        definition=definition,
        ledger=session.ledger,
        state=work.state,
        phase=work.phase,
        executor=session.executor,
        orders=by_trainer,
        admission=work.admission,
        retention=work.retention,
        folder=work.folder,
        watcher=Watcher(on_events=screen.on_events, on_tick=screen.on_tick, stop=interruption),
        clock=time.time,
    )
    with interruption.installed():
        try:
            return _run(coordinator, screen, session, work)
        finally:
            session.executor.stop()
            _sync(session.viewer, drain_s=DRAIN_S if interruption.reason is None else INTERRUPTED_DRAIN_S)


def _search(session: Session) -> Work:
    definition, state = session.definition, session.state
    admission = sampled(
        definition, state, session.opened.hyperparameters, aside=session.executor.beside, clock=time.time
    )
    return Work(
        phase="",
        definition=definition,
        state=state,
        admission=admission,
        retention=OfTheBest(definition),
        folder=session.settings.workspace.study(definition.name),
        header=f"{definition.name}: {definition.question or definition.title}\n"
        f"data: {result.examples(session.opened.facts)}",
    )


def _run(coordinator: Coordinator, screen: Display, session: Session, work: Work) -> str:
    """Run the coordinator and close the session in the ledger, however it ends."""
    started, reason = time.time(), "stopped"
    try:
        reason = coordinator.run()
        if reason == "done":
            reason = work.afterwards(coordinator)
    except (StudyStoppedError, TrainerError) as error:
        reason = f"stopped: {str(error).splitlines()[0]}"
        raise
    finally:
        screen.close()
        waited_s = coordinator.waited_s
        total_s = (time.time() - started) * len(coordinator.trainers)
        session.record(
            SessionClosed(
                at=time.time(),
                reason=reason,
                trained_s=max(0.0, total_s - waited_s),
                waited_s=waited_s,
                slot_use=coordinator.slot_use,
                phase=work.phase,
            )
        )
    return reason


def _creation(definition: StudyDefinition, opened: Opened) -> Iterator[StudyCreated | TestSetUsed]:
    now = time.time()
    packages = {name: version(name) for name in ("optuna", "mlflow")}
    yield StudyCreated(
        at=now,
        study=definition.name,
        definition=definition.model_dump(mode="json"),
        fingerprint=fingerprint(definition),
        precision=opened.precision,
        facts=opened.facts,
        versions={**opened.versions, **packages},
        commit=_commit(),
    )
    if checksum := opened.facts.get("test_checksum"):
        yield TestSetUsed(at=now, purpose="validation", checksum=str(checksum))


def _session_opened(opened: Opened, n_trainers: int, phase: str) -> SessionOpened:
    return SessionOpened(
        at=time.time(),
        host=socket.gethostname(),
        pid=os.getpid(),
        device=opened.device_name,
        n_trainers=n_trainers,
        probe=opened.probe,
        phase=phase,
    )


def _commit() -> str:
    """The git commit of this program's source, or "" where there is none."""
    try:
        told = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return told.stdout.strip()


def _device(opened: Opened, n_trainers: int) -> str:
    return f"device: {opened.device_name}, {n_trainers} trainer(s); precision: {opened.probe}"


def _continuing(state: State) -> str:
    if not state.finished:
        return ""
    return f"\ncontinuing: {len(state.finished)} trials are finished, {len(state.waiting)} to be trained again"


def _warn_of_wrong_labels(definition: StudyDefinition, opened: Opened) -> None:
    values: dict[str, tuple[Value, ...]] = {name: (value,) for name, value in definition.fixed.items()}
    values |= {name: extremes(parameter) for name, parameter in definition.space.items()}
    limits = opened.facts.get("label_limits", {})
    assert isinstance(limits, Mapping)
    for text in unsuited(values, limits):
        _warn(f"Warning: {text}")


# ---------------------------------------------------------------- views


def stores(definition: StudyDefinition, settings: Settings) -> Stores:
    return Stores(
        study=definition.name,
        workspace=settings.workspace,
        storage=settings.storage,
        tracking_uri=settings.tracking_uri,
    )


def _sync(viewer: Viewer, *, drain_s: float) -> None:
    if not viewer.stop(drain_s=drain_s):
        _warn("The dashboards do not hold everything yet; run the same command again to send them the rest.")


def _warn(text: str) -> None:
    """Said also where nothing else is: on stderr, whatever stdout is for."""
    Console(stderr=True).print(text, markup=False, highlight=False, soft_wrap=True, style="yellow")


# ---------------------------------------------------------------- the end


def _conclude(definition: StudyDefinition, settings: Settings, console: Console, state: State, reason: str) -> int:
    if settings.export is not None:
        result.export(state, settings.export)
    if settings.quiet and reason == "done":
        return 0
    for sentence in result.sentences(definition, state):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    for line in _further(definition, settings, state, reason):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0 if reason in ("done", "timeout") else 130


def _further(definition: StudyDefinition, settings: Settings, state: State, reason: str) -> Iterator[str]:
    best = next(iter(state.ranked(maximize=definition.maximize)), None)
    if best is not None and best.checkpoint is not None:
        folder = settings.workspace.study(definition.name).relative_to(settings.workspace.root)
        yield f"Weights of the best trial: {folder / best.checkpoint.path}"
    if settings.export is not None:
        yield f"All trials as a table: {settings.export}"
    if state.closed and state.closed[-1].trained_s + state.closed[-1].waited_s > 0:
        closed = state.closed[-1]
        waited = closed.waited_s / (closed.trained_s + closed.waited_s)
        used = (
            ""
            if closed.slot_use is None
            else f"; {closed.slot_use:.0%} of their slots were in use while trials were left"
        )
        yield f"The trainers waited for work {waited:.0%} of their time{used}."
    if reason != "done":
        yield f"Stopped ({reason}); nothing is lost. To continue: {settings.command}"
    if reason == "done" and state.measured_on == "held_out" and definition.metric.startswith("val_"):
        yield f"To confirm it:   python -m search.confirm --study {definition.name}"
    yield "To look further: python -m search.serve (Optuna dashboard and MLflow)"
    if settings.export is None:
        yield f"                 {settings.command} --export trials.csv"
