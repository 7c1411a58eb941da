"""The process of the views, at the lowest priority: they follow the ledger with what training leaves of the machine.

session                     viewer
Check --------------------> imports, looks at both stores            -> Checked
Follow -------------------> connects, steps back, a follower a view  -> Trouble, whenever a store fails
Stop ---------------------> writes what the ledger holds by then     -> Stopped

A thread of the coordinator would not do: one that the system lets wait while it holds the interpreter's lock holds up
the coordinator as well, and with it the trainers.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from search import processes
from search.errors import ViewError
from search.follower import Follower, View, shown
from search.ledger import Ledger
from search.workspace import Workspace

PATIENCE_S = 10.0
"""How long the end of a run waits for the lowest priority; then a new process goes on with that of the coordinator."""
EXIT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stores:
    """Where a study's views lie.

    Raises:
        ViewError: one of the addresses is no URL.
    """

    study: str
    workspace: Workspace
    storage: str
    tracking_uri: str

    def __post_init__(self) -> None:
        for url in (self.storage, self.tracking_uri):
            shown(url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """See whether the stores can be used, without creating anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    trouble: str
    """Why one cannot be used; empty where both can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    ledger: Path
    step_back: bool
    """Whether to take only what others leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    drain_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    up_to_date: bool
    """Whether both stores hold everything."""


class Viewer:
    """The coordinator's side: it tells, and hears of trouble in a thread that does nothing else."""

    def __init__(self, stores: Stores, *, on_trouble: Callable[[str], None]) -> None:
        """Start the process.

        Args:
            on_trouble: told in a sentence, once each time, that a store cannot be used or that the process died.
        """
        self._stores, self._on_trouble = stores, on_trouble
        self._ledger: Path | None = None
        self._told, self._known = set[str](), frozenset[str]()
        """What was told in all, and by processes before this one."""
        self._start()

    def check(self) -> None:
        """Begin to look whether the stores can be used, without creating anything."""
        self._send(Check())

    def checked(self) -> None:
        """Wait for the answer.

        Raises:
            ViewError: one of them cannot be used.
        """
        if trouble := self._checked.result():
            raise ViewError(trouble)

    def follow(self, ledger: Path) -> None:
        """Begin to bring both views up to this ledger."""
        self._ledger = ledger
        self._send(Follow(ledger=ledger, step_back=True))

    def stop(self, *, drain_s: float) -> bool:
        """Have everything written that the ledger holds now; False if that took longer, or was not possible."""
        deadline = time.monotonic() + drain_s
        self._send(Stop(drain_s=drain_s))
        up_to_date = self._answer(min(PATIENCE_S, drain_s))
        if up_to_date is None and self._ledger is not None:  # starved by others: a process cannot raise its priority
            self.close()
            self._known = frozenset(self._told)
            self._start()
            self._send(Follow(ledger=self._ledger, step_back=False))
            self._send(Stop(drain_s=drain_s))
            up_to_date = self._answer(deadline - time.monotonic())
        if up_to_date is not None:
            self._process.join(EXIT_S)  # killed, it would leave semaphores behind, of which Python warns
        self.close()
        return bool(up_to_date)

    def close(self) -> None:
        """End the process as it is; what it did not write the next run does."""
        self._closing = True
        self._process.kill()
        self._listener.join()

    def _start(self) -> None:
        self._closing = False
        self._checked: Future[str] = Future()
        self._stopped: Future[bool] = Future()
        self._process, self._connection = processes.started(main, self._stores, name="views")
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _answer(self, timeout_s: float) -> bool | None:
        try:
            return self._stopped.result(max(0.0, timeout_s))
        except TimeoutError:
            return None

    def _send(self, order: Check | Follow | Stop) -> None:
        with contextlib.suppress(OSError):  # it is gone, which the listener tells
            self._connection.send(order)

    def _listen(self) -> None:
        try:
            while True:
                match self._connection.recv():
                    case Checked(trouble=trouble):
                        self._checked.set_result(trouble)
                    case Trouble(text=text) if text not in self._known:
                        self._told.add(text)
                        self._on_trouble(text)
                    case Stopped(up_to_date=up_to_date):
                        self._stopped.set_result(up_to_date)
        except (EOFError, OSError):
            died = f"The process that writes the dashboards died ({processes.ending(self._process)})"
            if not self._closing and not self._stopped.done():
                self._on_trouble(f"{died}, training goes on.")
            if not self._checked.done():
                self._checked.set_result(f"{died}. Is there enough memory?")
            if not self._stopped.done():
                self._stopped.set_result(False)


# ---------------------------------------------------------------- the process


def main(connection: Connection, stores: Stores) -> None:
    """Serve one coordinator until it is gone, or ends this process."""
    processes.end_with_parent()
    both, followers, sending = views(stores), list[Follower](), threading.Lock()

    def send(reply: Checked | Trouble | Stopped) -> None:
        with sending, contextlib.suppress(OSError):
            connection.send(reply)

    with contextlib.suppress(EOFError):
        while True:
            match connection.recv():
                case Check():
                    send(Checked(trouble=_trouble(both)))
                case Follow(ledger=path, step_back=step_back):
                    ledger = Ledger(path)
                    followers = [Follower(v, ledger, on_trouble=lambda text: send(Trouble(text=text))) for v in both]
                    _begin(both, followers, step_back=step_back)
                case Stop(drain_s=drain_s):
                    in_time = [follower.stop(drain_s=drain_s) for follower in followers]
                    send(Stopped(up_to_date=all(in_time)))
                    return


def views(stores: Stores) -> Sequence[View]:
    from search.mlflow_view import MlflowView
    from search.optuna_view import OptunaView

    name, workspace = stores.study, stores.workspace
    mlflow = MlflowView(name, stores.tracking_uri, workspace.mlflow_artifacts, workspace.study(name))
    optuna = OptunaView(name, stores.storage, workspace.optuna_artifacts, workspace.figures(name), mlflow.run_url)
    mlflow.trial_url = optuna.trial_url
    return optuna, mlflow


def _trouble(both: Sequence[View]) -> str:
    try:
        for view in both:
            view.check()
    except ViewError as error:
        return str(error)
    return ""


def _begin(both: Sequence[View], followers: Sequence[Follower], *, step_back: bool) -> None:
    """Import and connect while the trainers still load their data, then follow with what they leave."""
    for view in both:
        with contextlib.suppress(ViewError):  # the follower tries again, and tells
            view.prepare()
    if step_back:
        _step_back()
    for follower in followers:
        follower.start()


def _step_back() -> None:
    """Lower the priority of this thread, and of all that it starts, for good.

    Not to SCHED_IDLE: on a machine where others compute all the time it came to nothing for minutes.
    """
    os.nice(19)
