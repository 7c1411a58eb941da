"""Stopping a run in order: at a signal or when its time is up; a second signal ends the process at once."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class Interruption:
    """Why to stop now: a signal, or the time. A second signal ends the process at once."""

    deadline: float
    reason: str | None = None

    def __call__(self) -> str | None:
        if self.reason is None and time.monotonic() > self.deadline:
            self.reason = "timeout"
        return self.reason

    def on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self.reason is not None:
            os._exit(130)  # the trainers end with this process, and the ledger knows what was running
        self.reason = "interrupted"

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
