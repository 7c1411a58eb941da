"""The append-only record of a study: one table, and the lock that makes one coordinator its owner."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from filelock import FileLock, Timeout

from search.errors import LedgerError, OwnedError
from search.events import Event, decode, encode
from search.workspace import sqlite_url

EVENTS = sa.Table(
    "events",
    sa.MetaData(),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
)


class Ledger:
    """A study's events, in order. Appending is for the owner alone; reading is for everyone, also while it grows."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open the ledger.

        Raises:
            LedgerError: it does not exist and `create` is not set, or it is no ledger.
        """
        if not create and not path.exists():
            raise LedgerError(f"{path}: there is no such study here. Start it with python -m search.run --study NAME.")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._engine = sa.create_engine(sqlite_url(path), connect_args={"timeout": 60})
        sa.event.listen(self._engine, "connect", _durable)
        try:
            with self._engine.begin() as connection:  # another process may create it at this moment
                connection.execute(sa.schema.CreateTable(EVENTS, if_not_exists=True))
            with self._engine.connect() as connection:
                self._length = connection.scalar(sa.select(sa.func.coalesce(sa.func.max(EVENTS.c.seq), 0))) or 0
        except sa.exc.DatabaseError as error:
            raise _unreadable(path, error) from error

    def append(self, *events: Event) -> None:
        """Add the events in one transaction; once this returns they survive a power cut."""
        rows = [
            {"seq": self._length + offset, "kind": kind, "payload": payload}
            for offset, (kind, payload) in enumerate(map(encode, events), start=1)
        ]
        if not rows:
            return
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(EVENTS), rows)
        except sa.exc.IntegrityError as error:
            raise LedgerError(
                f"{self.path}: somebody else has appended to this ledger: {error.orig}. Stop that one, then run again."
            ) from error
        except sa.exc.DatabaseError as error:
            raise LedgerError(
                f"{self.path}: cannot append: {error.orig}. Free the disk or restore the file, then run again."
            ) from error
        self._length += len(rows)

    def read(self, *, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Yield (sequence number from 1, event), those behind `after`."""
        query = sa.select(EVENTS).where(EVENTS.c.seq > after).order_by(EVENTS.c.seq)
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(query).all()
        except sa.exc.DatabaseError as error:
            raise _unreadable(self.path, error) from error
        for expected, (seq, kind, payload) in enumerate(rows, start=after + 1):
            if seq != expected:
                raise LedgerError(f"{self.path}: event {expected} is missing. Restore the file.")
            yield seq, self._decoded(seq, kind, payload)

    def events(self) -> Iterator[Event]:
        return (event for _, event in self.read())

    def close(self) -> None:
        self._engine.dispose()

    def _decoded(self, seq: int, kind: str, payload: str) -> Event:
        try:
            return decode(kind, payload)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LedgerError(
                f"{self.path}: event {seq} ({kind}) cannot be read: {error!r}. "
                "It was damaged, or written by another version of this program."
            ) from error


@contextmanager
def ownership(study_folder: Path) -> Iterator[None]:
    """Hold a study as its only coordinator; the system releases it when the process ends, however it ends.

    Raises:
        OwnedError: another live process holds it.
    """
    study_folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(study_folder / "owner.lock"), study_folder / "owner.json"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OwnedError(
            f"{study_folder}: this study is being run {_described(owner)}. Stop that one first."
        ) from error
    try:
        owner.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _unreadable(path: Path, error: sa.exc.DatabaseError) -> LedgerError:
    return LedgerError(f"{path}: this is not a readable ledger: {error.orig}. Restore or delete it.")


def _described(owner: Path) -> str:
    try:
        record = json.loads(owner.read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["since"]))
        return f"by process {record['pid']} on {record['host']} since {since}"
    except (OSError, ValueError, KeyError):
        return "by another process"


def _durable(connection: sa.engine.interfaces.DBAPIConnection, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
