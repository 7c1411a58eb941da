"""Processes of one's own: started so that the caller alone ends them, and ended when the caller is gone."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any


def started(
    target: Callable[..., None], *args: Any, name: str, environment: Mapping[str, str] | None = None
) -> tuple[SpawnProcess, Connection]:
    """Start `target(connection, *args)` in a fresh process; return it and our end of the connection.

    Args:
        environment: set in the process where ours does not set it.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *args), name=name, daemon=True)
    with _environment(environment or {}), signals_held_back():
        process.start()
    theirs.close()
    return process, ours


def end_with_parent() -> None:
    """End this process when the one that started it is gone, however it ended."""
    threading.Thread(target=_await_parent, daemon=True).start()


def ending(process: SpawnProcess) -> str:
    """How a process that closed its connection ended."""
    process.join(5)
    if process.exitcode is not None and process.exitcode < 0:
        return signal.Signals(-process.exitcode).name
    return f"exit status {process.exitcode}"


def _await_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update({name: value for name, value in changes.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """What is started in here never gets SIGINT and SIGTERM; for this process they wait until it is left.

    Both often reach the whole process group (Ctrl-C; `timeout` and service managers): ending its processes is for the
    coordinator, which ends them with SIGKILL.
    """
    resource_tracker.ensure_running()  # on its own first start it would let them through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
