"""How full populations are, and what it costs the search: all is real but the training, which is simulated.

    python -m tests.benchmarks.refill [N_SEEDS] [N_TRIALS] [POLICY ...]

Nothing is trained: a trial's accuracies follow from its parameters in the space of `digits_reg`, with noise; the
structure decides 7 of about 20 points between good and bad, and which learning rate is best. As on the real digits a
point is a fifth of a percent of 288 images, so that many trials are equal and live long. An epoch of a population of
`n` slots takes 1 + n / 2 units of time: of 8, a slot's takes 0.6 where a lone one's takes 1.5.
"""

import math
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

from objectives.hyperparameters import AUGMENTATION, NETWORK, TRAINING, Hyperparameter
from search import admission, flight
from search.contract import Confusion, Hyperparameters, Measurement, Order, Part, Reply, Value
from search.definition import StudyDefinition, load
from search.executors import QueueChannel
from search.state import State
from search.trainer import Trainer
from search.workspace import Workspace
from tests.running import coordinate

N_TRAINERS, SLOTS, N_VALIDATION = 2, 8, 288
POLICIES: Mapping[str, tuple[int, int, int]] = {
    "one at a time": (1, 1000, 1),
    "n / 12 in flight, as drawn": (8, 1000, 12),
    "n / 12 in flight, held up to n / 25": (8, 25, 12),
    "the same, 4 slots": (4, 25, 12),
    "n / 8 in flight, held up to n / 25": (8, 25, 8),
    "n / 5 in flight, held up to n / 25": (8, 25, 5),
}
"""Slots of a population; of n trials, one in so many may be held beyond those drawn, one in so many be in flight."""


@dataclass(slots=True)
class Clock:
    """Simulated time: of the trainer that is stepped, and how long a trial waited at most from epoch to epoch."""

    now: float = 0.0
    longest_wait: float = 0.0


clock = Clock()


def final_accuracy(h: Mapping[str, Value]) -> float:
    """Percent after all epochs, without noise."""
    number = {name: float(value) for name, value in h.items() if not isinstance(value, str | tuple)}
    log = {name: math.log10(number[name]) for name in ("lr", "l1", "l2", "weight_decay") if number[name] > 0}
    width = math.log2(number["width"]) - 6
    best_lr = -2.6 + 0.35 * number["batch_norm"] - 0.25 * (number["depth"] - 2) - 0.15 * width
    accuracy = 52.4 - 3 * (log["lr"] - best_lr) ** 2
    accuracy -= 7 * math.pow(max(0.0, log.get("l1", -9) + 5.4), 1.1)
    accuracy -= 6 * math.pow(max(0.0, log.get("l2", -9) + 3), 1.3)
    accuracy -= max(0.0, log.get("weight_decay", -9) + 1.5)
    accuracy -= 25 * math.pow(max(0.0, number["dropout"] - 0.15), 1.3) * (1.5 if width <= 0 else 1)
    accuracy += 2.5 * number["batch_norm"] + 5 * number["label_smoothing"] + 1.2 * width
    accuracy -= 0.8 * abs(number["depth"] - 2.2) + max(0.0, number["shift"] - 1)
    return max(accuracy, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    metrics: Mapping[str, float]
    confusion: Confusion | None = None


@dataclass(slots=True, kw_only=True)
class Row:
    final: float
    noise: random.Random
    seen: float
    """When it was admitted or last completed an epoch."""
    updates: int = 0


class SimulatedPopulation:
    n_updates = 8

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}

    @property
    def slots(self) -> Sequence[int]:
        return list(self._rows)

    def admit(self, slot: int, *, hyperparameters: Hyperparameters, seed: int, fold: int | None) -> None:
        noise = random.Random(seed)
        self._rows[slot] = Row(final=final_accuracy(hyperparameters) + noise.gauss(0, 0.4), noise=noise, seen=clock.now)

    def update(self) -> Collection[int]:
        clock.now += (1 + len(self._rows) / 2) / self.n_updates
        completed = []
        for slot, row in self._rows.items():
            row.updates += 1
            if row.updates % self.n_updates == 0:
                completed.append(slot)
                clock.longest_wait = max(clock.longest_wait, clock.now - row.seen)
                row.seen = clock.now
        return completed

    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, Measured]:
        return {
            slot: _measured(row, row.updates // self.n_updates)
            for slot, row in self._rows.items()
            if slots is None or slot in slots
        }

    def keep(self, slot: int) -> None: ...

    def retire(self, slots: Collection[int]) -> None:
        for slot in slots:
            self._rows.pop(slot, None)

    forget = retire

    def save(self, slot: int, path: Path) -> None:
        path.touch()


def _measured(row: Row, epoch: int) -> Measured:
    missing = 0.8 * (row.final - 10) * math.exp(-epoch / 2.5)
    accuracy = row.final - missing + row.noise.gauss(0, 1.2 * math.exp(-epoch / 6))
    right = round((1 - 0.002 * (60 - accuracy)) * N_VALIDATION)
    return Measured(metrics={"val_accuracy": right / N_VALIDATION})


@dataclass(slots=True, kw_only=True)
class SimulatedObjective:
    """Satisfies search.contract.Objective; the class is an ObjectiveFactory."""

    data: Mapping[str, object]
    data_dir: Path
    seed: int
    device: str
    precision: str
    progress: Callable[[str], None] = field(repr=False)

    HYPERPARAMETERS: ClassVar[Mapping[str, Hyperparameter]] = {
        **TRAINING,
        **NETWORK,
        **AUGMENTATION,
        "label_smoothing": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0),
    }
    METRICS: ClassVar[Mapping[str, str]] = {"val_accuracy": "maximize"}

    @property
    def facts(self) -> Mapping[str, object]:
        return {"checksum": "", "data_set": "none", "n_train": 1, "n_validation": 1, "input_shape": [1], "classes": []}

    def n_parameters(self, hyperparameters: Hyperparameters) -> int:
        return 1

    def capacity(self, hyperparameters: Hyperparameters) -> int:
        return SLOTS * 8

    def build(self, hyperparameters: Hyperparameters, *, epochs: int) -> SimulatedPopulation:
        return SimulatedPopulation()

    def measure(self, checkpoint: Path, predictions: Path, *, part: Part = "validation") -> Measurement:
        raise NotImplementedError

    def export_model(self, checkpoint: Path, destination: Path) -> None: ...


@dataclass(slots=True, kw_only=True)
class Simulated:
    """Real trainers in this process, each with a clock of its own; the one that is behind takes the next step."""

    beside: bool = False
    trainers: dict[int, tuple[Trainer, QueueChannel]] = field(default_factory=dict)
    clocks: dict[int, float] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)

    def start(self, trainer: int) -> None:
        channel = QueueChannel()
        self.trainers[trainer], self.clocks[trainer] = (Trainer(channel), channel), 0.0

    def send(self, trainer: int, order: Order) -> None:
        self.trainers[trainer][1].orders.append(order)
        if trainer in self.idle:  # it has waited until now
            self.idle.discard(trainer)
            self.clocks[trainer] = max(self.clocks[trainer], *self.clocks.values())

    def receive(self, timeout_s: float) -> Sequence[tuple[int, Reply]]:
        number = min(self.clocks.keys() - self.idle, key=lambda each: self.clocks[each])
        trainer, channel = self.trainers[number]
        clock.now = self.clocks[number]
        trainer.step()
        if clock.now == self.clocks[number] and not channel.replies:
            self.idle.add(number)
        self.clocks[number] = clock.now
        replies, channel.replies = channel.replies, []
        return [(number, reply) for reply in replies]

    def stop(self) -> None:
        self.trainers.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    slot_use: float
    best: float
    """What the winner would have reached without noise, in percent."""
    time: float
    longest_wait: float
    """The longest that a trial took from epoch to epoch, as a share of the time."""
    n_structures: int
    moved: float
    """Share of the trials that would have to change their structure to be as often in each as drawn."""


def simulated(definition: StudyDefinition, policy: tuple[int, int, int]) -> Outcome:
    slots, debt_share, flight_share = policy
    executor, uses = Simulated(), list[float | None]()
    clock.longest_wait = 0.0
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(admission, "DEBT_SHARE", debt_share),
        patch.object(flight, "FLIGHT_SHARE", flight_share),
    ):
        state = coordinate(
            definition.model_copy(update={"slots": slots}),
            Path(folder),
            executor=executor,
            n_trainers=1 if slots == 1 else N_TRAINERS,
            on_end=lambda finished: uses.append(finished.slot_use),
        )
    (use,) = uses
    assert use is not None
    return _outcome(state, use, max(executor.clocks.values()))


def _outcome(state: State, use: float, time: float) -> Outcome:
    def counted(drawn: bool) -> Counter[tuple[Value, ...]]:
        raws = ({**t.raw, **t.drawn} if drawn else t.raw for t in state.trials.values())
        return Counter((raw["width"], raw["depth"]) for raw in raws)

    drawn, trained = counted(True), counted(False)
    winner = state.ranked(maximize=True)[0]
    return Outcome(
        slot_use=use,
        best=final_accuracy(winner.hyperparameters),
        time=time,
        longest_wait=clock.longest_wait / time,
        n_structures=len(trained),
        moved=(trained - drawn).total() / len(state.trials),
    )


def lines(n_seeds: int, n_trials: int, names: Sequence[str]) -> Iterator[str]:
    workspace = Workspace(Path.cwd())
    changes = {
        "objective": "tests.benchmarks.refill:SimulatedObjective",
        "n_trials": n_trials,
        "checkpoints": 0,
        "precision": "float32",
    }
    title = f"of {n_trials} trials, {n_seeds} seeds"
    yield f"{title:<46} slot use   best          time   longest wait   structures   moved"
    for name in names:
        found = [
            simulated(load("digits_reg", workspace, {}).model_copy(update={**changes, "seed": seed}), POLICIES[name])
            for seed in range(n_seeds)
        ]
        best = [each.best for each in found]
        error = statistics.stdev(best) / math.sqrt(n_seeds)
        mean = {
            key: statistics.fmean(float(getattr(each, key)) for each in found)
            for key in ("slot_use", "time", "longest_wait", "n_structures", "moved")
        }
        yield (
            f"{name:<46} {mean['slot_use']:>7.1%}   {statistics.fmean(best):.2f} +- {error:.2f} {mean['time']:>6.0f}"
            f"   {mean['longest_wait']:>12.1%}"
            f"   {mean['n_structures']:>10.1f}   {mean['moved']:>5.0%}"
        )


if __name__ == "__main__":
    from tests.benchmarks import refill  # the trainers import it by this name, and share its clock

    n_seeds, n_trials = (int(given) for given in [*sys.argv[1:3], *("20", "200")[len(sys.argv[1:3]) :]])
    for line in refill.lines(n_seeds, n_trials, sys.argv[3:] or list(POLICIES)):
        print(line, flush=True)
