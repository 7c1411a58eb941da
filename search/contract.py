"""What coordinator, trainer and objectives agree on: two protocols, and the messages between the processes.

Nothing here imports torch, optuna or mlflow: an objective satisfies the protocols by its shape alone.

    coordinator                        trainer                          objective
    Open ----------------------------> imports the objective ---------> factory(...)      -> Opened | Refused
    Admit ---------------------------> joins or builds a population --> build(), admit()  -> Admitted, Report (epoch 0)
                                       trains update after update ----> update(), evaluate() -> Report
    Evict (save or forget) ----------> frees the slots ---------------> save(), evict()   -> Saved
    Estimate, Measure, ExportModel --> one-off jobs                                       -> Estimated, ...
                                       whatever an objective raises                       -> Failed
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Value = bool | int | float | str | tuple[int, ...]
Hyperparameters = Mapping[str, Value]
Precision = Literal["float64", "float32", "bfloat16"]
Confusion = tuple[tuple[int, ...], ...]
Part = Literal["validation", "test"]


# ---------------------------------------------------------------- what an objective provides


class Hyperparameter(Protocol):
    """What an objective accepts under one name, and the value where a study says nothing.

    The kinds are "float", "int", "bool", "choice" (one of `choices`) and "layers" (a list of positive integers).
    `low` and `high` are inclusive unless `low_open` or `high_open`; None means unbounded.
    `structural`: it decides tensor shapes, the graph or the number of updates an epoch; trials that differ in it
    cannot share a population. All others are one number per slot.
    """

    @property
    def kind(self) -> str: ...
    @property
    def default(self) -> Value: ...
    @property
    def structural(self) -> bool: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...
    @property
    def low_open(self) -> bool: ...
    @property
    def high_open(self) -> bool: ...
    @property
    def choices(self) -> tuple[str, ...]: ...


class Evaluation(Protocol):
    """One slot measured after an epoch, in eval mode and float32."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """By name; may hold NaN or infinities, which are a result (divergence), not an error.

        What a diagnosis reads, where it is there: train_loss, val_loss, train_accuracy, val_accuracy, and val_loss_se,
        the standard error of val_loss less that of the best epoch before, example by example.
        """

    @property
    def confusion(self) -> Confusion | None:
        """Validation counts [true class][predicted class], or None where there are no classes."""


class Measurement(Protocol):
    """Saved weights measured on a part of the data, in eval mode and float32."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """By name, with the part before it: val_loss, val_accuracy; test_loss, test_accuracy."""

    @property
    def n_examples(self) -> int: ...

    @property
    def checksum(self) -> str:
        """Of the test set; empty where validation examples were measured, since `facts` tell theirs."""


class Population(Protocol):
    """The fused state of the slots of one structure on one device; a lone trial is a population of one.

    A slot's numbers depend on its own hyperparameters, seed and fold alone, never on its company or when it joined.
    """

    @property
    def slots(self) -> Sequence[int]:
        """The slots in training, in the order of their rows."""

    @property
    def n_updates(self) -> int:
        """Updates of one epoch."""

    def admit(self, slot: int, *, hyperparameters: Hyperparameters, seed: int, fold: int | None) -> None:
        """Add one row, initialized from the seed; allowed between any two updates of the others."""

    def update(self) -> Collection[int]:
        """Train every slot by one update; return the slots that have thereby completed an epoch of theirs."""

    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, Evaluation]:
        """Measure the given slots (default: all in training) on validation and a fixed part of the training data."""

    def keep(self, slot: int) -> None:
        """Remember the slot's current weights as its best."""

    def retire(self, slots: Collection[int]) -> None:
        """Stop training the slots but remember their best weights; allowed between two updates."""

    def forget(self, slots: Collection[int]) -> None:
        """Stop training the slots, if they are in training, and drop whatever is remembered of them."""

    def save(self, slot: int, path: Path) -> None:
        """Write the slot's best weights as safetensors; the metadata hold all that rebuilds the network."""


class Objective(Protocol):
    """A study's task on one device: its data, its networks, its loss and metrics."""

    @property
    def facts(self) -> Mapping[str, object]:
        """JSON values: data_set, checksum, n_train, n_validation, input_shape, classes (names, or an empty list).

        `label_limits`, where something is known: by hyperparameter the largest value that leaves the labels true.
        Where no examples are held out for validation, so that no result can be confirmed, `validation` says what is
        measured instead: "train", the training examples themselves, or "original_test", the published test set, whose
        checksum is `test_checksum`.
        """

    def n_parameters(self, hyperparameters: Hyperparameters) -> int:
        """Trainable parameters of one trial."""

    def capacity(self, hyperparameters: Hyperparameters) -> int:
        """The most slots of this structure that make sense at all (at least 1); fewer where a measurement says so."""

    def build(self, hyperparameters: Hyperparameters, *, epochs: int) -> Population:
        """An empty population of this structure, for trials of `epochs` epochs."""

    def measure(self, checkpoint: Path, predictions: Path, *, part: Part = "validation") -> Measurement:
        """Measure saved weights, and write what they predict of each example to exactly this path.

        It is an npz of outputs (N, K), targets (N,), index (N,), the examples' positions, and losses (N,): accuracies
        and losses are compared example by example, other metrics seed by seed. This is the only method
        that may read a test set, and only where `part` is "test"; an objective that has none raises.
        """

    def export_model(self, checkpoint: Path, destination: Path) -> None:
        """Write the network as a torch.export program (.pt2) with an example input beside it (.npy)."""


class ObjectiveFactory(Protocol):
    """What `objective = "name"` or `objective = "package.module:Name"` in a study file resolves to."""

    @property
    def HYPERPARAMETERS(self) -> Mapping[str, Hyperparameter]: ...  # noqa: N802 - a constant of the class

    @property
    def METRICS(self) -> Mapping[str, str]:  # noqa: N802
        """Name of each metric that every study reports -> "maximize", "minimize", or "none" if it is only recorded."""

    def __call__(
        self,
        *,
        data: Mapping[str, object],
        data_dir: Path,
        seed: int,
        device: str,
        precision: Precision,
        progress: Callable[[str], None],
    ) -> Objective:
        """Load the data named by a study's [data] table, split from `seed`.

        Raises:
            Exception: with `user_message = True` as a class attribute, where the message alone is for the user.
        """


# ---------------------------------------------------------------- coordinator -> trainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Import the objective, choose device and precision, load the data."""

    objective: str
    data: Mapping[str, object]
    data_dir: str
    seed: int
    device: str
    """ "auto", "cpu", "cuda" or "cuda:N"."""
    precision: str
    """ "auto" (a probe decides), "float32", "bfloat16" or "float64"."""
    epochs: int
    metric: str
    maximize: bool
    cores: tuple[int, ...] = ()
    """The cores to stay on when training on the CPU; empty: anywhere."""
    n_trainers: int = 1
    """How many share the memory when training on the CPU."""
    slots: int | None = None
    """The most slots of a population, where the study says so: then no capacity is measured."""
    most_slots: int | None = None
    """Of a population, that the study has trials for; None: any number."""
    capacity_dir: str = ""
    """Where measured capacities are remembered; empty: nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicate:
    """One training of a trial: its seed alone decides initialization, order, augmentation and masks."""

    seed: int
    fold: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Train this trial from its first epoch; replied to by Admitted, then by a Report after each epoch of its own."""

    trial: int
    attempt: int
    hyperparameters: Hyperparameters
    structure: str
    replicates: tuple[Replicate, ...]
    alone: bool = False
    """Share a population with nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """End this trial; with `save`, write its best weights first and reply Saved."""

    trial: int
    attempt: int
    save: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Build this network and time a few updates."""

    hyperparameters: Hyperparameters
    structure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """Measure these saved weights; `predictions` (.npz) appears whole, with a SHA-256 beside it, or not at all."""

    checkpoint: str
    predictions: str
    part: Part = "validation"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportModel:
    checkpoint: str
    destination: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shutdown:
    """End at once, between two updates."""


Order = Open | Admit | Evict | Estimate | Measure | ExportModel | Shutdown


# ---------------------------------------------------------------- trainer -> coordinator


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperparameterRule:
    """A Hyperparameter as a message."""

    kind: str
    default: Value
    structural: bool
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A line for the user while something takes long (a download)."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    hyperparameters: Mapping[str, HyperparameterRule]
    metrics: Mapping[str, str]
    facts: Mapping[str, object]
    device: str
    device_name: str
    n_devices: int
    precision: Precision
    probe: str
    """What the precision probe measured, in words."""
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The study cannot be opened here; `traceback` is empty where the message alone is for the user."""

    message: str
    traceback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How many slots of a structure pay, and fit, at once."""

    slots: int
    saves: float = 1.0
    """Of a lone slot's update, that a slot's share of one is shorter; 1 where that was not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    trial: int
    attempt: int
    capacity: Capacity
    n_parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotReport:
    """A trial after one epoch: means over its replicates, and each replicate's own metrics."""

    trial: int
    attempt: int
    epoch: int
    metrics: Mapping[str, float]
    replicates: tuple[Mapping[str, float], ...]
    confusion: Confusion | None = None
    """Summed over the replicates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a population measured together; the order of its trials means nothing."""

    structure: str
    slots: tuple[SlotReport, ...]
    updates: int
    """Updates of this population since its last report."""
    epoch_updates: int
    """Updates of one epoch."""
    wait_s: float
    """Time the trainer had nothing to train since its last report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    trial: int
    attempt: int
    path: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """These trials' population raised, or the one-off job did (no trials)."""

    trials: tuple[tuple[int, int], ...]
    """(trial, attempt)."""
    error: str
    traceback: str
    out_of_memory: bool = False
    checkpoint: str = ""
    """Of the Measure or ExportModel that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimated:
    n_parameters: int
    memory_bytes: int
    update_s: float
    epoch_s: float
    capacity: Capacity


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a Measurement says; checkpoint, predictions and part are the order's."""

    checkpoint: str
    predictions: str
    part: Part
    metrics: Mapping[str, float]
    n_examples: int
    checksum: str
    sha256: str
    """Of the file of predictions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    destination: str


Reply = Progress | Opened | Refused | Admitted | Report | Saved | Failed | Estimated | Measured | Exported
