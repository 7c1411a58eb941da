"""Claims of search/executors.py, on real processes: a trainer dies alone, and never outlives its coordinator."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from search.contract import ExportModel, Failed, Reply
from search.executors import Ended, Inline, LocalProcesses
from search.processes import signals_held_back
from tests.running import PROJECT, wait_for

PING = ExportModel(checkpoint="", destination="")
"""An order that a trainer without an objective can only refuse: it answers, before torch is imported."""


@pytest.fixture
def processes() -> Iterator[LocalProcesses]:
    executor = LocalProcesses({"SEARCH_TEST": "set"})
    yield executor
    executor.stop()


def received(executor: LocalProcesses, n: int) -> list[tuple[int, Reply | Ended]]:
    arrived: list[tuple[int, Reply | Ended]] = []
    wait_for(lambda: len(arrived.__iadd__(executor.receive(0.2))) >= n, timeout_s=60, what="replies")
    return arrived


def answers(executor: LocalProcesses, trainer: int) -> bool:
    executor.send(trainer, PING)
    ((number, reply),) = received(executor, 1)
    return number == trainer and isinstance(reply, Failed)


def started(executor: LocalProcesses, trainer: int) -> psutil.Process:
    before = {child.pid for child in psutil.Process().children()}
    executor.start(trainer)
    assert answers(executor, trainer)
    own = [c for c in psutil.Process().children() if c.pid not in before and "spawn_main" in " ".join(c.cmdline())]
    assert len(own) == 1
    return own[0]


def test_killed_trainer_is_seen_others_answer_and_it_can_be_started_again(processes: LocalProcesses) -> None:
    first, second = started(processes, 0), started(processes, 1)
    first.kill()
    assert received(processes, 1) == [(0, Ended(reason="trainer died (SIGKILL)"))]
    processes.send(0, PING)  # dropped: nobody is there
    assert answers(processes, 1)
    again = started(processes, 0)
    assert again.pid != first.pid
    assert second.is_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_trainer_leaves_signals_to_its_coordinator(processes: LocalProcesses, number: signal.Signals) -> None:
    trainer = started(processes, 0)
    trainer.send_signal(number)
    assert answers(processes, 0)


def test_trainer_has_the_environment_and_this_process_has_not(processes: LocalProcesses) -> None:
    assert started(processes, 0).environ()["SEARCH_TEST"] == "set"
    assert "SEARCH_TEST" not in os.environ


def test_signal_that_arrives_while_a_trainer_is_started_is_not_lost() -> None:
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with signals_held_back():
            os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_stopping_ends_every_trainer() -> None:
    executor = LocalProcesses({})
    trainers = [started(executor, number) for number in (0, 1)]
    executor.stop()
    assert not any(trainer.is_running() for trainer in trainers)


def test_trainers_begun_ahead_are_those_that_are_started_first_and_end_unused_too() -> None:
    executor = LocalProcesses({}, ahead=2)
    try:
        ahead = [psutil.Process(process.pid) for process, _ in executor._spare]
        executor.start(0)
        assert answers(executor, 0)
        assert executor._processes[0].pid in {each.pid for each in ahead}
    finally:
        executor.stop()
    _, alive = psutil.wait_procs(ahead, timeout=20)
    assert not alive


def test_trainer_ends_with_its_killed_coordinator() -> None:
    code = (
        "import sys; from search.executors import LocalProcesses\n"
        "from tests.test_executors import answers\n"
        "executor = LocalProcesses({}); executor.start(0); print(answers(executor, 0), flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "True\n"
    orphans = psutil.Process(owner.pid).children()
    owner.kill()
    owner.communicate()
    _, alive = psutil.wait_procs(orphans, timeout=20)
    assert not alive


def test_inline_trainers_answer_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    executor = Inline()
    for number in (0, 1, 2):
        executor.start(number)
    for number in (2, 0, 1):
        executor.send(number, PING)
    assert [number for number, _ in executor.receive(0)] == [0, 1, 2]
    assert executor.receive(0) == []
