"""Follows a study's ledger into a view, in a thread of its own: no view waits for the other's store."""

import threading
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from search.errors import ViewError
from search.events import Event, StudyCreated
from search.ledger import Ledger
from search.state import State, apply

BATCH = 1000
"""Events between two moves of a cursor: what is written again at most after a crash."""
RETRY_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Pauses between attempts to reach a store; the last one repeats."""


class View(Protocol):
    """A store that shows a study to people and tools. Every method raises ViewError where it cannot be used."""

    @property
    def name(self) -> str:
        """As a user calls it: "Optuna", "MLflow"."""

    @property
    def pause_s(self) -> float:
        """How long events are collected before they are written together."""

    def check(self) -> None:
        """Make sure that the store can be used, without creating anything."""

    def prepare(self) -> None:
        """Connect; create the database if it is missing."""

    def open(self, created: StudyCreated) -> int:
        """Find or create the study; return the last sequence number that the store holds for sure (0: nothing yet).

        The number is kept in the store itself. A study of that name from another ledger is refused.
        """

    def take(self, events: Sequence[tuple[int, Event]], state: State) -> None:
        """Write the events, then move the cursor to the last of them; writing them twice leaves the store as once.

        Args:
            events: behind the cursor or, after a crash, partly before it.
            state: folded up to the last of the events.
        """


class Follower:
    """A daemon thread that brings one view up to the ledger, again and again."""

    def __init__(self, view: View, ledger: Ledger, *, on_trouble: Callable[[str], None]) -> None:
        """Make the follower.

        Args:
            on_trouble: told once, in one sentence, when the store cannot be used, and not again until it could be.
        """
        self._view = view
        self._ledger = ledger
        self._on_trouble = on_trouble
        self._stopping = threading.Event()
        self._up_to_date = False
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"{view.name} view", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, drain_s: float) -> bool:
        """Write what the ledger holds now and end; False if that took longer, or the store cannot be used."""
        self._stopping.set()
        self._thread.join(drain_s)
        return self._up_to_date and not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            last = self._stopping.is_set()
            try:
                self._view.prepare()
                self._follow()
                return
            except ViewError as error:
                if self._failures == 0:
                    self._on_trouble(f"{self._view.name} cannot be written, training goes on: {error}")
                if last:
                    return
                self._stopping.wait(RETRY_S[min(self._failures, len(RETRY_S) - 1)])
                self._failures += 1

    def _follow(self) -> None:
        """Fold from the beginning, write what lies behind the view's cursor, wait for more."""
        state, seq = State(), 0
        cursor: int | None = None
        while True:
            stopping = self._stopping.is_set()
            events = self._ledger.read(after=seq)
            while batch := list(islice(events, BATCH)):
                for _, event in batch:
                    apply(state, event)
                seq = batch[-1][0]
                if cursor is None:
                    assert state.created is not None, "StudyCreated comes first"
                    cursor = self._view.open(state.created)
                if unwritten := [(number, event) for number, event in batch if number > cursor]:
                    self._view.take(unwritten, state)
                self._failures = 0
            if stopping:
                self._up_to_date = True
                return
            self._stopping.wait(self._view.pause_s)


def shown(url: str) -> str:
    """The URL without its password."""
    return _parsed(url).render_as_string(hide_password=True)


def sqlite_file(url: str) -> Path | None:
    """The database file that the URL names; None where it names a server."""
    address = _parsed(url)
    return Path(address.database or "") if address.get_backend_name() == "sqlite" else None


def relax(engine: sa.Engine) -> None:
    """Have an SQLite engine write without a disk flush per transaction, in WAL: dashboards may read meanwhile.

    What a power cut takes the ledger gives again.
    """
    engine.dispose()
    if not sa.event.contains(engine, "connect", _relaxed):
        sa.event.listen(engine, "connect", _relaxed)


def _relaxed(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def ledger_id(created: StudyCreated) -> str:
    """What tells a study's ledger from that of an earlier study of the same name."""
    return f"{created.fingerprint} {created.at}"


def _parsed(url: str) -> sa.URL:
    try:
        return sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ViewError("The storage or tracking address is not a URL such as sqlite:////path/to/file.db.") from error
