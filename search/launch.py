"""Starting trainers: how many, on which device or cores, and what the first one says of the study."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from search.contract import Open, Opened, Order, Progress, Refused, Reply
from search.definition import StudyDefinition
from search.errors import TrainerError
from search.executors import Ended, Executor
from search.flight import most_slots
from search.state import State
from search.workspace import cache_dir


def first_order(definition: StudyDefinition, data_dir: Path, state: State) -> Open:
    """How to open trainer 0, which tells what device there is; a study that exists keeps its precision."""
    shares = core_shares(definition, available_cores())
    return Open(
        objective=definition.objective,
        data=definition.data if definition.folds is None else {**definition.data, "folds": definition.folds},
        data_dir=str(data_dir),
        seed=definition.seed,
        device=definition.device,
        precision=definition.precision if state.created is None else state.created.precision,
        epochs=definition.epochs,
        metric=definition.metric,
        maximize=definition.maximize,
        cores=shares[0],
        n_trainers=len(shares),
        slots=definition.slots,
        most_slots=most_slots(definition, len(shares)),
        capacity_dir=str(cache_dir() / "capacity"),
    )


def open_trainer(executor: Executor, order: Open, console: Console) -> Opened:
    """Start trainer 0 and let it load the study's data.

    Raises:
        TrainerError, DefinitionError: it refuses the study, or dies.
    """
    executor.start(0)
    reply = ask(executor, order, console)
    if isinstance(reply, Refused):
        raise TrainerError(f"{reply.message}\n{reply.traceback}".rstrip())
    assert isinstance(reply, Opened)
    return reply


def ask(executor: Executor, order: Order, console: Console) -> Reply:
    """Send trainer 0 an order and wait for its reply, passing on what it says meanwhile.

    Raises:
        TrainerError: it died.
    """
    executor.send(0, order)
    while True:
        for _, reply in executor.receive(0.2):
            if isinstance(reply, Ended):
                raise TrainerError(f"the trainer could not do its work: {reply.reason}. Is there enough memory?")
            if not isinstance(reply, Progress):
                return reply
            console.print(reply.text, markup=False, highlight=False)


def orders(definition: StudyDefinition, first: Open, opened: Opened) -> dict[int, Open]:
    """How to open each trainer: on its GPU, or on its share of the cores."""
    if opened.device.startswith("cuda"):
        n = max(1, definition.trainers or opened.n_devices)
        devices = [opened.device if i == 0 else f"cuda:{i % opened.n_devices}" for i in range(n)]
        same = replace(first, precision=opened.precision, cores=(), most_slots=most_slots(definition, n))
        return {i: replace(same, device=d) for i, d in enumerate(devices)}
    shares = core_shares(definition, available_cores())
    same = replace(first, device=opened.device, precision=opened.precision)
    return {i: replace(same, cores=share) for i, share in enumerate(shares)}


def started_ahead(first: Open) -> int:
    """How many trainers can be started before the first one has told what there is: on a GPU host only that one."""
    has_gpu = first.device != "cpu" and any(Path("/dev").glob("nvidia[0-9]*"))
    return 1 if has_gpu else first.n_trainers


def core_shares(definition: StudyDefinition, cores: Sequence[int]) -> list[tuple[int, ...]]:
    """The cores of each trainer on the CPU; a single one is not held to any."""
    n = min(definition.n_trials, len(cores)) if definition.trainers is None else definition.trainers
    return [tuple(cores[i::n]) or (cores[i % len(cores)],) for i in range(n)] if n > 1 else [()]


def available_cores() -> list[int]:
    """The cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
