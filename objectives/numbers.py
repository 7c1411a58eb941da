"""The slots' own hyperparameters as vectors, and what an update draws at random: what layers and augmentation read.

P slots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.hyperparameters import Value, number
from objectives.streams import draws, purposed


class Numbers:
    """One float64 vector (P,) on the device for each hyperparameter that is a number."""

    def __init__(
        self, slots: Sequence[Mapping[str, Value] | None], names: Sequence[str], *, device: torch.device
    ) -> None:
        """Of these slots; a row of none has zeros."""
        self._names = list(names)
        self._values = [self._of(slot) for slot in slots]
        self._table = torch.tensor(self._values, dtype=torch.float64).view(len(slots), len(names)).to(device)
        self._vectors = dict(zip(names, self._table.unbind(1), strict=True))
        self.in_use = self._found()
        """The names of which any slot has another value than 0; known without looking at the device."""

    def __getitem__(self, name: str) -> Tensor:
        return self._vectors[name]

    def used(self, name: str) -> bool:
        """Whether any slot has another value than 0."""
        return name in self.in_use

    def put(self, row: int, slot: Mapping[str, Value] | None) -> None:
        """Give a row to another slot, or to none: the vectors stay where they are."""
        self._values[row] = self._of(slot)
        write(torch.tensor(self._values[row], dtype=torch.float64), into=self._table[row])
        self.in_use = self._found()

    def _of(self, slot: Mapping[str, Value] | None) -> list[float]:
        return [number(slot, name) if slot else 0.0 for name in self._names]

    def _found(self) -> frozenset[str]:
        columns = zip(*self._values, strict=True)
        return frozenset(name for name, values in zip(self._names, columns, strict=False) if any(values))


def write(values: Tensor, *, into: Tensor) -> None:
    """Copy numbers of the host, or of the device, to their place on the device without waiting for it."""
    beside = into.is_cuda and not values.is_cuda
    into.copy_(values.pin_memory() if beside else values, non_blocking=beside)


@dataclass(slots=True, kw_only=True)
class Draws:
    """The slots' numbers, and the keys of the random numbers of one update."""

    numbers: Numbers
    roots: Tensor
    """A key of each slot's seed, int64 (P,)."""
    counts: Tensor
    """Updates that each slot has had, int64 (P,)."""
    _drawn: Tensor | None = None

    def keys(self, purpose: str) -> Tensor:
        """Keys (P,) for one use of random numbers in this update."""
        if self._drawn is None:
            self._drawn = draws(self.roots, self.counts)
        return purposed(self._drawn, purpose)
