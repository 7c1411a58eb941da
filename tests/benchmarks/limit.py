"""How near an update of the engine is to what this core can do at all: its products, and its optimizer's bytes.

One process on one core. B examples, D and E features in and out, P slots.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from objectives import models
from objectives.population import Population
from tests.benchmarks.engine import filled, objective
from tests.benchmarks.sides import Places
from tests.benchmarks.workloads import Workload

OPTIMIZER_BYTES = 4 * (4 + 3)
"""A parameter of Adam: itself, its gradient and two moments are read, all but the gradient written; float32."""
COPIED = 2**26
"""float32 numbers, far beyond any cache."""
WARM_UP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractions:
    """By repeat, next to each other in time."""

    slots: int
    update_s: list[float]
    products_s: list[float]
    optimizer_s: list[float]
    bytes_per_s: list[float]

    @property
    def values(self) -> list[float]:
        parts = zip(self.products_s, self.optimizer_s, self.update_s, strict=True)
        return [(products + optimizer) / update for products, optimizer, update in parts]


def fractions(
    workload: Workload, places: Places, batch_size: int, precision: str, repeats: int, slots: int
) -> Fractions:
    """Measure updates, and the same products and bytes alone, in turn."""
    workload = replace(workload, hyperparameters={**workload.hyperparameters, "batch_size": batch_size})
    population = filled(objective(workload, places, precision=precision), workload, slots)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    widths = _widths(population)
    products = [_products(widths, batch_size, slots, dtype, batched=batched) for batched in (True, False)]
    n_parameters = sum(t.numel() for t in population.weights(0).values())
    source, target = torch.ones(COPIED), torch.empty(COPIED)
    found = Fractions(slots=slots, update_s=[], products_s=[], optimizer_s=[], bytes_per_s=[])
    for _ in range(repeats):
        found.update_s.append(_seconds(population.update))
        found.products_s.append(min(_seconds(multiply) for multiply in products))
        found.bytes_per_s.append(2 * 4 * COPIED / _seconds(lambda: target.copy_(source), n=5))
        found.optimizer_s.append(slots * n_parameters * OPTIMIZER_BYTES / found.bytes_per_s[-1])
    return found


def _widths(population: Population) -> list[int]:
    """Features from the input to the output, read off the weights of the plain module (out, in)."""
    weights = models.plain(population.weights(0), batch_norm=False)
    shapes = [t.shape for name, t in weights.items() if name.endswith("weight") and t.ndim == 2]
    return [shapes[0][1], *(shape[0] for shape in shapes)]


def _products(
    widths: list[int], batch_size: int, slots: int, dtype: torch.dtype, *, batched: bool
) -> Callable[[], object]:
    """All matrix products of an update, in its order: outputs, then each layer's two gradients."""
    x = [torch.randn(slots, batch_size, width).to(dtype) for width in widths]
    w = [torch.randn(slots, n_in, n_out).to(dtype) for n_in, n_out in pairwise(widths)]

    def product(a: Tensor, b: Tensor) -> None:
        if batched:
            torch.bmm(a, b)
        else:
            for one, other in zip(a, b, strict=True):
                torch.mm(one, other)

    def multiply() -> None:
        for i in range(len(w)):
            product(x[i], w[i])
        for i in reversed(range(len(w))):
            product(x[i].transpose(1, 2), x[i + 1])
            if i:
                product(x[i + 1], w[i].transpose(1, 2))

    return multiply


def _seconds(work: Callable[[], object], n: int = 15) -> float:
    """The median of n runs."""
    for _ in range(WARM_UP):
        work()
    times = []
    for _ in range(n):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)
