"""How a population keeps the numbers of its slots: what both ways have in common.

compact.py keeps rows close together, for the CPU; captured.py keeps each where it is, for a GPU.
P slots, n parameters a slot, N training examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from objectives import schedules
from objectives.flat import Layout, Tensors
from objectives.streams import key, permutation
from objectives.task import Slot, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the training of all slots of a population has in common."""

    names: Sequence[str]
    """Of the hyperparameters that are numbers."""
    switches: Sequence[str]
    """Those of them that a slot has on or off."""
    optimizer: str
    nesterov: bool
    batch_size: int
    n_train: int
    n_updates: int
    """Of one epoch."""
    n_epochs: int
    product: torch.dtype | None = None
    """The type in which the task takes weights and gives gradients, where that is not the parameters' own."""

    def order(self, slot: Slot, *, device: torch.device) -> Tensor:
        """Draw the order of the examples (N,) in the epoch that the slot is in."""
        epoch = slot.n_updates // self.n_updates
        return permutation(key(slot.seed, "order", epoch), self.n_train, device=device)

    def lrs(self, slot: Slot) -> list[float]:
        """Return the learning rates of the slot's next updates, as many as an epoch has."""
        return [self.lr(slot, slot.n_updates + i) for i in range(self.n_updates)]

    def lr(self, slot: Slot, update: int) -> float:
        return schedules.lr(
            slot.hyperparameters,
            update=update,
            n_updates=self.n_epochs * self.n_updates,
            updates_per_epoch=self.n_updates,
        )


class Rows(Protocol):
    """The slots in training, each with a row of every tensor that training changes."""

    @property
    def slots(self) -> Sequence[Slot]:
        """In the order of their rows."""

    @property
    def parameters(self) -> Tensor:
        """(P or more, n)."""

    @property
    def buffers(self) -> Tensor:
        """Like the parameters, one row a slot."""

    def row(self, slot: Slot) -> int: ...

    def place(self, slot: Slot, parameters: Tensors, buffers: Tensors) -> None:
        """Give a slot a row of its own; its moments start at zero."""

    def vacate(self, slot: Slot) -> None:
        """Take its row from a slot."""

    def update(self) -> None:
        """Train every slot by one update, and count it."""


class MakeRows(Protocol):
    """Makes a population's rows, still empty, when its first slot shows the layouts."""

    def __call__(
        self, task: Task, plan: Plan, *, layout: Layout, buffer_layout: Layout, dtype: torch.dtype
    ) -> Rows: ...
