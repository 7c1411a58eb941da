"""Starting trainers and talking to them: in this process, or as local processes."""

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Protocol, cast

from search import processes, trainer
from search.contract import Order, Reply, Shutdown

CPU_TRAINER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # glibc returns large buffers to the kernel at each free, and the next update faults them in again.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "8000000000",
    "MALLOC_TOP_PAD_": "268435456",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A trainer's process is gone."""

    reason: str


class Executor(Protocol):
    """Trainers by number; what one of them sends arrives in the order it was sent."""

    beside: bool
    """Whether they work while the caller does something else."""

    def start(self, trainer: int) -> None:
        """Start (or start again) a trainer; it waits for Open."""

    def send(self, trainer: int, order: Order) -> None:
        """Send an order; one to a trainer that is gone is dropped, and its Ended is on the way."""

    def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply | Ended]]:
        """Return what arrived, after at most `timeout_s`."""

    def stop(self) -> None:
        """End every trainer."""


class Inline:
    """Trainers in this process, a step at a time: for tests and debugging, reproducible as a whole."""

    beside = False

    def __init__(self) -> None:
        self._trainers: dict[int, tuple[trainer.Trainer, QueueChannel]] = {}

    def start(self, trainer_id: int) -> None:
        channel = QueueChannel()
        self._trainers[trainer_id] = (trainer.Trainer(channel), channel)

    def send(self, trainer_id: int, order: Order) -> None:
        self._trainers[trainer_id][1].orders.append(order)

    def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply | Ended]]:
        arrived: list[tuple[int, Reply | Ended]] = []
        for trainer_id, (each, channel) in self._trainers.items():
            each.step()
            arrived += [(trainer_id, reply) for reply in channel.replies]
            channel.replies.clear()
        return arrived

    def stop(self) -> None:
        self._trainers.clear()


class QueueChannel:
    """A channel within one process: orders are seen between epochs, never between updates."""

    def __init__(self) -> None:
        self.orders: deque[Order] = deque()
        self.replies: list[Reply] = []

    def send(self, reply: Reply) -> None:
        self.replies.append(reply)

    def receive(self, *, block: bool) -> Order | None:
        return self.orders.popleft() if self.orders else None


class LocalProcesses:
    """A process per trainer; it ends with this one, however this one ends."""

    beside = True

    def __init__(self, environment: Mapping[str, str], *, ahead: int = 0) -> None:
        """Make the executor.

        Args:
            environment: of the processes, where ours does not set it.
            ahead: so many begin at once to import what they will need; trainers that are started later are these first.
        """
        self._environment = environment
        self._spare = [self._started() for _ in range(ahead)]
        self._processes: dict[int, SpawnProcess] = {}
        self._connections: dict[int, Connection] = {}

    def start(self, trainer_id: int) -> None:
        self._drop(trainer_id)
        process, connection = self._spare.pop() if self._spare else self._started()
        self._processes[trainer_id], self._connections[trainer_id] = process, connection

    def _started(self) -> tuple[SpawnProcess, Connection]:
        return processes.started(trainer.main, name="trainer", environment=self._environment)

    def send(self, trainer_id: int, order: Order) -> None:
        connection = self._connections.get(trainer_id)
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.send(order)

    def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply | Ended]]:
        by_connection = {connection: trainer_id for trainer_id, connection in self._connections.items()}
        arrived: list[tuple[int, Reply | Ended]] = []
        for ready in wait(list(by_connection), timeout_s):
            trainer_id = by_connection[cast("Connection", ready)]
            arrived += [(trainer_id, reply) for reply in self._read(trainer_id)]
        return arrived

    def _read(self, trainer_id: int) -> Iterator[Reply | Ended]:
        connection = self._connections[trainer_id]
        try:
            while connection.poll():
                yield cast("Reply", connection.recv())
        except (EOFError, OSError):
            reason = f"trainer died ({processes.ending(self._processes[trainer_id])})"
            self._drop(trainer_id)
            yield Ended(reason=reason)

    def _drop(self, trainer_id: int) -> None:
        if trainer_id in self._connections:
            self._connections.pop(trainer_id).close()
            self._processes.pop(trainer_id).kill()

    def stop(self) -> None:
        while self._spare:
            self._spare.pop()[0].kill()
        for trainer_id in list(self._connections):
            self.send(trainer_id, Shutdown())
        for trainer_id, process in list(self._processes.items()):
            process.join(5)
            self._drop(trainer_id)
