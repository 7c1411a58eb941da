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

    def __init__(self, slots: Sequence[Mapping[str, Value]], names: Sequence[str], *, device: torch.device) -> None:
        table = torch.tensor([[number(slot, name) for slot in slots] for name in names], dtype=torch.float64)
        self._used = frozenset(name for name, values in zip(names, table, strict=True) if values.any())
        self._vectors = dict(zip(names, table.to(device).unbind(), strict=True))

    def __getitem__(self, name: str) -> Tensor:
        return self._vectors[name]

    def used(self, name: str) -> bool:
        """Whether any slot has another value than 0; known without looking at the device."""
        return name in self._used


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
