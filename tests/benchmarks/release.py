"""Final validation accuracies, fused against one at a time with plain modules: once per release of the engine.

Pairs share hyperparameters and data, nothing else: the plain side has torch's own initialization, order and masks.
"""

import hashlib
import json
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import objectives
from tests.benchmarks.engine import objective
from tests.benchmarks.measuring import in_fresh_process, machine
from tests.benchmarks.sides import Places, Setting, accuracy, network, normalized, split
from tests.benchmarks.table import Claim
from tests.benchmarks.workloads import WORKLOADS, Workload

EPOCHS, N_UNIT = 3, 10
T_95 = 2.01
"""Student's t for 49 degrees of freedom; for more it is less."""
POINTS = 0.5
"""Within so many points the 95 % interval of the mean difference must lie."""
SMALL = replace(
    WORKLOADS["mnist"],
    name="mnist_5000",
    n_train=5_000,
    n_val=10_000,
    hyperparameters={**WORKLOADS["mnist"].hyperparameters, "optimizer": "adamw"},
)
DEEPER = replace(
    SMALL,
    name="mnist_5000_deeper",
    hyperparameters={**SMALL.hyperparameters, "hidden": (300, 200, 100), "batch_norm": True},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """So many pairs of one structure: what is measured, and kept, at a time."""

    workload: Workload
    precision: str
    """Of the fused side's products; the plain side is float32."""
    first: int
    """The number of its first configuration."""

    @property
    def key(self) -> str:
        return f"{self.workload.name} {self.precision} {self.first}"


UNITS = [
    *(Unit(workload=workload, precision="float32", first=10 * i) for workload in (SMALL, DEEPER) for i in range(3)),
    *(Unit(workload=SMALL, precision="bfloat16", first=10 * i) for i in range(5)),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Validation accuracies, 0 to 1, configuration by configuration."""

    fused: list[float]
    unfused: list[float]


def measured(root: Path, data_dir: Path, results: Path) -> None:
    """Measure the units that this engine has not been measured with, two at a time; the results are kept."""
    path = results / "release.json"
    missing = [unit for unit in UNITS if unit.key not in _kept(path)]
    placed = {w.name: Places(path=w.write(root, data_dir), data_dir=data_dir) for w in (SMALL, DEEPER)}
    for two in zip(missing[::2], [*missing[1::2], None], strict=False):
        with ThreadPoolExecutor() as both:
            running = {
                unit.key: both.submit(in_fresh_process, pairs, unit, placed[unit.workload.name])
                for unit in two
                if unit is not None
            }
        units = _kept(path) | {key: asdict(found.result()) for key, found in running.items()}
        results.mkdir(exist_ok=True)
        kept = {"engine": engine(), "machine": machine(), "units": units}
        path.write_text(json.dumps(kept, indent=1) + "\n")


def claims(results: Path) -> list[Claim]:
    """What is kept of the release check; void where it was another engine's, or is not complete."""
    path = results / "release.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"engine": "", "units": {}}
    void = "" if found["engine"] == engine() else "not measured with this engine: --release"
    return [_claim(found["units"], precision, void) for precision in ("float32", "bfloat16")]


def _claim(units: Mapping[str, Any], precision: str, void: str) -> Claim:
    wanted = [unit.key for unit in UNITS if unit.precision == precision]
    present = [Pairs(**units[key]) for key in wanted if key in units]
    differences = [100 * (a - b) for pair in present for a, b in zip(pair.fused, pair.unfused, strict=True)]
    if len(present) < len(wanted):
        void = void or "not complete: --release goes on"
    mean, half = interval(differences) if len(differences) > 1 else (math.nan, math.nan)
    return Claim(
        row="release",
        title=f"final accuracies of pairs, fused {precision}",
        figure="points, the farther end of the 95 % interval",
        values=[abs(mean) + half] if differences else [],
        bound=POINTS,
        at_most=True,
        void=void,
        note=f"mean difference {mean:+.2f} +- {half:.2f} points over {len(differences)} pairs",
    )


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    return statistics.fmean(differences), T_95 * statistics.stdev(differences) / math.sqrt(len(differences))


def engine() -> str:
    """A hash of the engine's source: another one is another release."""
    files = sorted(Path(objectives.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def _kept(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text()) if path.exists() else {}
    return dict(found["units"]) if found.get("engine") == engine() else {}


# ---------------------------------------------------------------- one unit


def configurations(first: int, n: int) -> Iterator[dict[str, float]]:
    """Random learning rates, dropout and weight decay; the same for the same number."""
    for number in range(first, first + n):
        rng = random.Random(number)
        yield {
            "lr": 10 ** rng.uniform(-3.5, -2),
            "dropout": rng.uniform(0, 0.5),
            "weight_decay": 10 ** rng.uniform(-4, -1),
        }


def pairs(unit: Unit, places: Places) -> Pairs:
    chosen = list(configurations(unit.first, N_UNIT))
    return Pairs(
        fused=_fused(unit, places, chosen),
        unfused=[_unfused(unit.workload, places, each, seed=unit.first + i) for i, each in enumerate(chosen)],
    )


def _fused(unit: Unit, places: Places, chosen: Sequence[Mapping[str, float]]) -> list[float]:
    workload = unit.workload
    population = objective(workload, places, precision=unit.precision).build(workload.hyperparameters, epochs=EPOCHS)
    for i, each in enumerate(chosen):
        given = {**workload.hyperparameters, **each}
        population.admit(i, hyperparameters=given, seed=unit.first + i, fold=None)
    for _ in range(EPOCHS * workload.epoch_updates):
        population.update()
    found = population.evaluate()
    return [found[i].metrics["val_accuracy"] for i in range(len(chosen))]


def _unfused(workload: Workload, places: Places, chosen: Mapping[str, float], *, seed: int) -> float:
    torch.manual_seed(seed)
    with_dropout = {**workload.hyperparameters, "dropout": chosen["dropout"]}
    dataset = split(workload, places)
    net = network(replace(workload, hyperparameters=with_dropout), dataset)
    _initialize(net)
    weights = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": weights, "weight_decay": chosen["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
        lr=chosen["lr"],
    )
    criterion, x_train = nn.CrossEntropyLoss(), normalized(dataset, dataset.x_train, Setting())
    net.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(x_train))[: workload.epoch_updates * workload.batch_size]
        for index in order.view(-1, workload.batch_size):
            optimizer.zero_grad()
            criterion(net(x_train[index]), dataset.y_train[index]).backward()
            optimizer.step()
    return accuracy(net.eval(), normalized(dataset, dataset.x_val, Setting()), dataset.y_val)


def _initialize(net: nn.Sequential) -> None:
    """The initialization that a study's default names, by torch's own functions."""
    for name, module in net.named_children():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if name == "output" else "relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
