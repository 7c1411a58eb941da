"""What is trained in the per-workload rows: data, network, batch, and the floors that a ratio must reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from objectives.datasets import named
from objectives.hyperparameters import Value

SPARE = 10
"""Images left over as the test part, which own data must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """The least ratios that are asked for; None where nothing is."""

    usual: float
    resident: float | None = None
    bf16: float | None = None
    """Against resident data with bfloat16 products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A row: the same network, data, batch, optimizer and epochs on every side."""

    name: str
    title: str
    data: str
    """mnist, digits or cifar10."""
    n_train: int
    """Training images: some dozen updates, so that a burst of a few seconds holds whole epochs. An epoch of the full
    set differs in nothing but their number; validation images are in the same proportion."""
    n_val: int
    hyperparameters: Mapping[str, Value]
    fast_bf16: Floors
    float32_only: Floors

    @property
    def batch_size(self) -> int:
        return int(str(self.hyperparameters["batch_size"]))

    @property
    def dropout(self) -> float:
        return float(str(self.hyperparameters.get("dropout", 0.0)))

    @property
    def epoch_updates(self) -> int:
        return self.n_train // self.batch_size

    def floors(self, *, fast_bf16: bool) -> Floors:
        return self.fast_bf16 if fast_bf16 else self.float32_only

    def write(self, folder: Path, data_dir: Path) -> Path:
        """Write the first images of the published training set as one's own data, if they are not there yet."""
        path = folder / f"{self.name}.npz"
        if not path.exists():
            examples = named(self.data, size=None, data_dir=data_dir, progress=print)
            n = self.n_train + self.n_val + self.n_test(len(examples.y))
            np.savez(path, x=examples.x[:n], y=examples.y[:n])
        return path

    def n_test(self, n_published: int) -> int:
        return n_published - self.n_train - self.n_val if self.data == "digits" else SPARE

    def table(self, path: Path) -> dict[str, object]:
        """The [data] of a study."""
        return {"path": str(path), "validation": self.n_val, "test": self.n_test(1797)}


def _mlp(*hidden: int, batch_size: int, **others: Value) -> dict[str, Value]:
    return {"model": "mlp", "hidden": hidden, "batch_size": batch_size, "optimizer": "adam", **others}


_DEEP = (500, 400, 300, 200, 100, 50)
_DEEP_FLOORS = {"fast_bf16": Floors(usual=4.5, resident=1.7), "float32_only": Floors(usual=2.5)}

WORKLOADS: Mapping[str, Workload] = {
    each.name: each
    for each in (
        Workload(
            name="mnist",
            title="MNIST 784-128-10, batch 128",
            data="mnist",
            n_train=10_240,
            n_val=1_000,
            hyperparameters=_mlp(128, batch_size=128),
            fast_bf16=Floors(usual=15, resident=2),
            float32_only=Floors(usual=15, resident=2),
        ),
        Workload(
            name="mnist_deep_bn",
            title="MNIST 784-500-...-50-10, BatchNorm, batch 256",
            data="mnist",
            n_train=5_120,
            n_val=500,
            hyperparameters=_mlp(*_DEEP, batch_size=256, batch_norm=True),
            **_DEEP_FLOORS,
        ),
        Workload(
            name="mnist_deep_dropout",
            title="MNIST 784-500-...-50-10, dropout, batch 256",
            data="mnist",
            n_train=5_120,
            n_val=500,
            hyperparameters=_mlp(*_DEEP, batch_size=256, dropout=0.3),
            **_DEEP_FLOORS,
        ),
        Workload(
            name="digits",
            title="digits 64-128-128-10, batch 64",
            data="digits",
            n_train=1_152,
            n_val=288,
            hyperparameters=_mlp(128, 128, batch_size=64),
            fast_bf16=Floors(usual=6.5, resident=2.7),
            float32_only=Floors(usual=6.5, resident=2.7),
        ),
        Workload(
            name="cifar_mlp",
            title="CIFAR-10 3072-1024-512-256-64-10, batch 64",
            data="cifar10",
            n_train=2_560,
            n_val=250,
            hyperparameters=_mlp(1024, 512, 256, 64, batch_size=64),
            fast_bf16=Floors(usual=3, resident=1.5, bf16=1.1),
            float32_only=Floors(usual=1.6),
        ),
        Workload(
            name="cifar_cnn",
            title="CIFAR-10 CNN, conv-BN blocks of 16, 32, 64, batch 128",
            data="cifar10",
            n_train=2_560,
            n_val=250,
            hyperparameters={
                "model": "cnn",
                "hidden": (16, 32, 64),
                "batch_size": 128,
                "batch_norm": True,
                "optimizer": "adam",
            },
            fast_bf16=Floors(usual=2.7, resident=1.5),
            float32_only=Floors(usual=1.5),
        ),
    )
}
