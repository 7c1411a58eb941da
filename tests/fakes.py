"""A fake objective without torch: every curve follows from the hyperparameters and the seed, faults included.

`objective = "tests.fakes:FakeObjective"`. The hyperparameter `fault` makes a trial misbehave at its second epoch. The
data change when the file `checksum` in the data folder does. In [data]:

faults     a table of seed -> fault: a single trial of a study misbehaves
capacity   what a population holds
room       the slots that memory has room for, where that is less
update_s   how long an update takes, 4 of them an epoch
marks      a folder that remembers what has happened, across processes
refuse     why the objective cannot be opened
opens      how often it can be opened before its process dies
touch      a file that appears while it is opened
program    an exported network, to export in place of nothing
label_limits, validation, test_checksum    what the facts say of them
"""

import errno
import json
import os
import random
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from search.contract import Confusion, HyperparameterRule, Hyperparameters, Part, Value

N_UPDATES = 4
FAULTS = ("none", "raise", "raise in company", "memory", "die", "die once", "disk full", "disk full once", "diverge")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEvaluation:
    metrics: Mapping[str, float]
    confusion: Confusion | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeMeasurement:
    metrics: Mapping[str, float]
    n_examples: int
    checksum: str


@dataclass(slots=True, kw_only=True)
class FakeRow:
    hyperparameters: Hyperparameters
    seed: int
    n_updates: int = 0

    @property
    def epoch(self) -> int:
        return self.n_updates // N_UPDATES


class FakePopulation:
    def __init__(self, data: Mapping[str, object]) -> None:
        self._data = data
        self._rows: dict[int, FakeRow] = {}
        self._best: dict[int, FakeRow] = {}

    @property
    def slots(self) -> Sequence[int]:
        return list(self._rows)

    @property
    def n_updates(self) -> int:
        return N_UPDATES

    def admit(self, slot: int, *, hyperparameters: Hyperparameters, seed: int, fold: int | None) -> None:
        self._rows[slot] = FakeRow(hyperparameters=hyperparameters, seed=seed)

    def update(self) -> Collection[int]:
        time.sleep(float(str(self._data.get("update_s", 0))))
        if len(self._rows) > int(str(self._data.get("room", 1000))):
            raise MemoryError
        for row in self._rows.values():
            self._misbehave(row)
            row.n_updates += 1
        return [slot for slot, row in self._rows.items() if row.n_updates % N_UPDATES == 0]

    def _misbehave(self, row: FakeRow) -> None:
        fault = self._fault(row)
        if fault == "raise at once":
            raise ValueError("this trial never trains")
        if fault == "none" or row.epoch < 1:
            return
        if fault == "raise":
            raise ValueError("this trial always raises")
        if fault == "raise in company" and len(self._rows) > 1:
            raise ValueError("this trial raises in company")
        if fault == "memory" and len(self._rows) > 2:
            raise MemoryError("out of memory: more than two slots do not fit")
        if fault == "die" or (fault == "die once" and self._first_time(row)):
            os.kill(os.getpid(), signal.SIGKILL)

    def _fault(self, row: FakeRow) -> object:
        faults = self._data.get("faults", {})
        assert isinstance(faults, Mapping)
        return faults.get(str(row.seed), row.hyperparameters["fault"])

    def _first_time(self, row: FakeRow) -> bool:
        mark = Path(str(self._data["marks"])) / f"misbehaved-{row.seed}"
        if mark.exists():
            return False
        mark.touch()
        return True

    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, FakeEvaluation]:
        return {slot: _evaluation(row) for slot, row in self._rows.items() if slots is None or slot in slots}

    def keep(self, slot: int) -> None:
        row = self._rows[slot]
        self._best[slot] = FakeRow(hyperparameters=row.hyperparameters, seed=row.seed, n_updates=row.n_updates)

    def retire(self, slots: Collection[int]) -> None:
        for slot in slots:
            self._rows.pop(slot, None)

    def forget(self, slots: Collection[int]) -> None:
        self.retire(slots)
        for slot in slots:
            self._best.pop(slot, None)

    def save(self, slot: int, path: Path) -> None:
        best = self._best[slot]
        fault = self._fault(best)
        if fault == "disk full" or (fault == "disk full once" and self._first_time(best)):
            path.write_text("half of ")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        quality = best.hyperparameters["quality"]
        path.write_text(json.dumps({"seed": best.seed, "epoch": best.epoch, "quality": quality}))


def _evaluation(row: FakeRow) -> FakeEvaluation:
    """Accuracy rises with the epoch towards `quality`, with noise that the seed and the epoch decide."""
    noise = random.Random(f"{row.seed}/{row.epoch}").gauss(0, 0.003)
    quality = float(str(row.hyperparameters["quality"]))
    accuracy = min(1.0, max(0.0, 0.1 + (quality - 0.1) * (1 - 0.5**row.epoch) + noise))
    loss = float("nan") if row.hyperparameters["fault"] == "diverge" and row.epoch >= 2 else 2.3 * (1 - accuracy)
    right = round(100 * accuracy)
    return FakeEvaluation(
        metrics={
            "train_loss": loss * 0.9,
            "val_loss": loss,
            "train_accuracy": accuracy,
            "val_accuracy": accuracy,
            "penalty": 0.0,
            "lr": 0.1,
        },
        confusion=((right, 100 - right), (100 - right, right)),
    )


class FakeRefusalError(Exception):
    """The objective cannot be opened; the message is for the user."""

    user_message = True


@dataclass(slots=True, kw_only=True)
class FakeObjective:
    """Satisfies search.contract.Objective; the class is an ObjectiveFactory."""

    data: Mapping[str, object]
    data_dir: Path
    seed: int
    device: str
    precision: str
    progress: Callable[[str], None] = field(repr=False)

    HYPERPARAMETERS: ClassVar[Mapping[str, HyperparameterRule]] = {
        "quality": HyperparameterRule(kind="float", default=0.5, structural=False, low=0.0, high=1.0),
        "drop": HyperparameterRule(kind="float", default=0.0, structural=False, low=0.0, high=1.0, high_open=True),
        "shape": HyperparameterRule(kind="int", default=1, structural=True, low=1),
        "fault": HyperparameterRule(
            kind="choice",
            default="none",
            structural=False,
            choices=FAULTS,
        ),
    }

    def __post_init__(self) -> None:
        if "refuse" in self.data:
            raise FakeRefusalError(str(self.data["refuse"]))
        if "touch" in self.data:
            path = Path(str(self.data["touch"]))
            path.parent.mkdir(parents=True)
            path.touch()
        if "opens" in self.data:
            mark = Path(str(self.data["marks"])) / f"opened-{os.getpid()}"
            mark.touch()
            if len(list(mark.parent.glob("opened-*"))) > int(str(self.data["opens"])):
                os.kill(os.getpid(), signal.SIGKILL)

    METRICS: ClassVar[Mapping[str, str]] = {
        "train_loss": "minimize",
        "val_loss": "minimize",
        "train_accuracy": "maximize",
        "val_accuracy": "maximize",
        "penalty": "none",
        "lr": "none",
    }

    @property
    def facts(self) -> Mapping[str, object]:
        return {
            "data_set": "fake",
            "checksum": checksum.read_text() if (checksum := self.data_dir / "checksum").exists() else "f00d",
            "n_train": 400,
            "n_validation": 100,
            "input_shape": [1],
            "classes": ["even", "odd"],
            "label_limits": self.data.get("label_limits", {}),
            **{key: self.data[key] for key in ("validation", "test_checksum") if key in self.data},
        }

    def n_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        return 100

    def capacity(self, hyperparameters: Mapping[str, Value]) -> int:
        return int(str(self.data.get("capacity", 4)))

    def build(self, hyperparameters: Mapping[str, Value], *, epochs: int) -> FakePopulation:
        return FakePopulation(self.data)

    def measure(self, checkpoint: Path, predictions: Path, *, part: Part = "validation") -> FakeMeasurement:
        """100 examples of two classes, of which the part that is the `quality` is right, but for the seed's noise."""
        weights = json.loads(checkpoint.read_text())
        rng = np.random.default_rng([int(weights["seed"]) % 2**32, part == "test"])
        targets = np.arange(100) % 2
        right = rng.permutation(100) < 100 * (float(weights["quality"]) + rng.normal(0, 0.02))
        outputs = np.eye(2, dtype=np.float32)[np.where(right, targets, 1 - targets)]
        losses = np.where(right, 0.3133, 1.3133)
        with predictions.open("wb") as file:
            np.savez(file, outputs=outputs, targets=targets, index=np.arange(100), losses=losses)
        prefix = "test" if part == "test" else "val"
        return FakeMeasurement(
            metrics={f"{prefix}_accuracy": float(right.mean()), f"{prefix}_loss": float(losses.mean())},
            n_examples=100,
            checksum="7e57" if part == "test" else "",
        )

    def export_model(self, checkpoint: Path, destination: Path) -> None:
        program = Path(str(self.data.get("program", checkpoint)))
        destination.write_bytes(program.read_bytes())
        if "program" in self.data:
            destination.with_suffix(".npy").write_bytes(program.with_suffix(".npy").read_bytes())
