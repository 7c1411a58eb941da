"""The ledger: nothing appended is lost or half there, nobody appends but the owner, and damage is told."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search.errors import LedgerError, OwnedError
from search.events import (
    KINDS,
    EpochReported,
    Event,
    NetworkTested,
    SessionClosed,
    StagePlanned,
    StudyCreated,
    TrialAsked,
    decode,
    encode,
)
from search.ledger import Ledger, ownership
from search.state import fold

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=5,
)
TABLES = st.dictionaries(st.text(), JSON, max_size=3)
METRICS = st.dictionaries(st.text(), st.floats(), max_size=3)
VALUES = st.dictionaries(
    st.text(),
    st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(1, 999), max_size=3).map(tuple),
    max_size=3,
)
MAPPINGS: dict[type[Event], dict[str, st.SearchStrategy[Any]]] = {
    StudyCreated: {
        "definition": TABLES,
        "facts": TABLES,
        "versions": st.dictionaries(st.text(), st.text(), max_size=3),
    },
    TrialAsked: {"raw": VALUES, "hyperparameters": VALUES},
    StagePlanned: {"configurations": st.dictionaries(st.text(), VALUES, max_size=3)},
    NetworkTested: {"metrics": METRICS},
    EpochReported: {"metrics": METRICS, "replicates": st.lists(METRICS, max_size=3).map(tuple)},
}
EVENTS: dict[type[Event], st.SearchStrategy[Event]] = {
    kind: st.builds(kind, **MAPPINGS.get(kind, {})) for kind in KINDS.values()
}


def closed(number: int) -> SessionClosed:
    return SessionClosed(at=float(number), reason="done", trained_s=1.0, waited_s=math.nan)


@contextmanager
def process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed READY."""
    started = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == "READY\n"
        yield started
    finally:
        started.kill()
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


# ---------------------------------------------------------------- what is written is read


@pytest.mark.parametrize("kind", KINDS.values())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(data=st.data())
def test_every_kind_of_event_survives_its_encoding(kind: type[Event], data: st.DataObject) -> None:
    event = data.draw(EVENTS[kind])
    decoded = decode(*encode(event))
    assert repr(decoded) == repr(event)  # NaN differs from itself, its repr does not


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=15)
@given(batches=st.lists(st.lists(st.one_of(*EVENTS.values()), max_size=4), max_size=4))
def test_appended_batches_are_read_in_order_by_another_ledger(batches: list[list[Event]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        written = Ledger(path, create=True)
        for batch in batches:
            written.append(*batch)
        written.close()
        opened = Ledger(path)
        expected = [event for batch in batches for event in batch]
        assert repr(list(opened.read())) == repr(list(enumerate(expected, start=1)))
        assert repr([event for _, event in opened.read(after=2)]) == repr(expected[2:])
        opened.close()


def test_losses_that_are_not_finite_survive_the_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    metrics = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 5e-324}
    ledger.append(EpochReported(at=0.0, trial=0, attempt=1, epoch=1, metrics=metrics, replicates=(metrics,)))
    (event,) = ledger.events()
    assert isinstance(event, EpochReported)
    assert repr(event.metrics) == repr(event.replicates[0]) == repr(metrics)


def test_appending_survives_a_power_cut_as_sqlite_promises_it(tmp_path: Path) -> None:
    """Source: https://www.sqlite.org/pragma.html#pragma_synchronous: with WAL only FULL (2) syncs each commit."""
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    with ledger._engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(sa.text("PRAGMA synchronous")) == 2


# ---------------------------------------------------------------- all or nothing


def test_an_append_that_fails_adds_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    ledger.append(closed(1))
    unwritable: Any = {"facts": object()}
    created = StudyCreated(
        at=0.0, study="s", definition={}, fingerprint="", precision="float32", facts=unwritable, versions={}, commit=""
    )
    with pytest.raises(TypeError, match="not JSON serializable"):
        ledger.append(closed(2), created)
    ledger.append(closed(3))
    assert [event.at for event in ledger.events()] == [1.0, 3.0]


APPENDER = """
import sys
from pathlib import Path
from search.events import SessionClosed
from search.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), create=True)
print("READY", flush=True)
while True:
    ledger.append(*(SessionClosed(at=float(i), reason="x" * 3000, trained_s=0.0, waited_s=0.0) for i in range(7)))
"""


def test_a_ledger_killed_while_it_appends_holds_whole_batches_only(tmp_path: Path) -> None:
    path, lengths = tmp_path / "ledger.db", [0]
    for pause_s in (0.05, 0.11, 0.17):
        with process(APPENDER, path) as appender:
            time.sleep(pause_s)
            appender.send_signal(signal.SIGKILL)
            appender.wait()
        read = [event.at for event in Ledger(path).events()]
        assert read == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0] * (len(read) // 7)
        lengths.append(len(read))
    assert lengths == sorted(lengths)
    assert lengths[-1] > 0


# ---------------------------------------------------------------- one owner

OWNER = """
import sys, time
from pathlib import Path
from search.ledger import ownership
with ownership(Path(sys.argv[1])):
    print("READY", flush=True)
    time.sleep(600)
"""


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    with process(OWNER, tmp_path) as owner:
        with pytest.raises(OwnedError, match=rf"being run by process {owner.pid} on .* since 20\d\d-"):
            ownership(tmp_path).__enter__()
        record = json.loads((tmp_path / "owner.json").read_text())
        assert record["pid"] == owner.pid


def test_kill_9_of_the_owner_frees_the_study(tmp_path: Path) -> None:
    with process(OWNER, tmp_path) as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        with ownership(tmp_path):
            assert json.loads((tmp_path / "owner.json").read_text())["pid"] == os.getpid()


def test_ownership_ends_with_its_block_also_by_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ownership(tmp_path):
        raise KeyError
    with ownership(tmp_path), pytest.raises(OwnedError), ownership(tmp_path):
        pass
    assert not (tmp_path / "owner.json").exists()


def test_a_second_writer_is_stopped_before_it_breaks_the_order(tmp_path: Path) -> None:
    one = Ledger(tmp_path / "ledger.db", create=True)
    other = Ledger(tmp_path / "ledger.db")
    one.append(closed(1))
    with pytest.raises(LedgerError, match=r"ledger\.db: somebody else has appended"):
        other.append(closed(2))
    assert [event.at for event in one.events()] == [1.0]


# ---------------------------------------------------------------- damage


def test_a_ledger_that_is_not_there_is_not_created_by_reading(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no such study here\. Start it with"):
        Ledger(tmp_path / "missing" / "ledger.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_text("something else entirely, and long enough to be read as a header of SQLite" * 20)
    with pytest.raises(LedgerError, match=r"ledger\.db: this is not a readable ledger: .* Restore or delete it"):
        Ledger(path)


def test_a_damaged_page_is_told_and_never_skipped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path, create=True)
    ledger.append(*map(closed, range(400)))
    with ledger._engine.connect() as connection:
        connection.execute(sa.text("PRAGMA wal_checkpoint(TRUNCATE)"))
    ledger.close()
    content = bytearray(path.read_bytes())
    content[3 * 4096 : 4 * 4096] = bytes(4096)
    path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"not a readable ledger|is missing|cannot be read"):
        fold(Ledger(path).events())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("UPDATE events SET payload = '{' WHERE seq = 2", r"event 2 \(SessionClosed\) cannot be read: JSONDecodeError"),
        ("UPDATE events SET payload = '[1]' WHERE seq = 2", r"event 2 \(SessionClosed\) cannot be read: TypeError"),
        ("UPDATE events SET payload = '{\"at\": 1}' WHERE seq = 2", r"event 2 \(SessionClosed\) cannot be read: Type"),
        ("UPDATE events SET kind = 'StudyPainted' WHERE seq = 2", r"event 2 \(StudyPainted\) cannot be read: KeyError"),
        (
            "UPDATE events SET kind = 'TrialAsked', payload = '{\"raw\": 1}' WHERE seq = 2",
            r"event 2 \(TrialAsked\) cannot be read: AttributeError",
        ),
        ("DELETE FROM events WHERE seq = 2", "event 2 is missing"),
    ],
)
def test_a_damaged_event_is_named(tmp_path: Path, change: str, told: str) -> None:
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    ledger.append(*map(closed, range(1, 4)))
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(LedgerError, match=rf"ledger\.db: {told}"):
        list(Ledger(tmp_path / "ledger.db").events())
