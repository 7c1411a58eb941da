"""What a population trains: its slots, and the task that they learn.

P slots in training, B examples, V validation examples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from objectives.flat import Tensors
from objectives.hyperparameters import Value
from objectives.numbers import Draws
from objectives.paired import Paired

Confusion = tuple[tuple[int, ...], ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """One row of a population: one training of a trial."""

    number: int
    seed: int
    fold: int | None
    hyperparameters: Mapping[str, Value]
    n_updates: int = 0
    """Updates done."""
    initial_norm: float = math.nan
    """Of its weights, biases and norms left out."""
    lrs: Sequence[float] = ()
    """Of the updates of the current epoch, where rows are compact."""
    paired: Paired = field(default_factory=Paired)

    @property
    def numbers(self) -> Mapping[str, Value]:
        """What is its own at every update: its hyperparameters, and its fold (0 where there are none)."""
        return {**self.hyperparameters, "fold": self.fold or 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One slot measured after an epoch."""

    metrics: Mapping[str, float]
    confusion: Confusion | None = None
    val_losses: Tensor | None = None
    """(V,), of the validation examples, whose mean is `val_loss`; where they are given, `val_loss_se` is reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Saved weights measured on a part of the data."""

    metrics: Mapping[str, float]
    n_examples: int
    checksum: str = ""
    """Of the test set, where it is what was measured."""


class Task(Protocol):
    """What the slots of a population learn; tensors have the slot as their leading dimension."""

    @property
    def n_train(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        """Return one slot's parameters and buffers (without the leading dimension), from its seed alone."""

    def gradients(
        self, parameters: Tensors, buffers: Tensors, index_PB: Tensor, draws: Draws, *, into: Tensors
    ) -> None:
        """Write the gradients of each slot's training loss on the examples at these positions into `into`.

        May change the buffers in place. A loss that is differentiated automatically calls `differentiate`.
        A GPU repeats the operations of one call in all others (a CUDA graph): which they are may depend on
        `draws.numbers.in_use` and on shapes, and none may wait for the device (`.item()`, `torch.tensor`, `x[mask]`).
        """

    def measure(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot]) -> Sequence[Evaluation]:
        """Return each slot's metrics, without `penalty`, `lr` and `val_loss_se`."""

    def saved(self, weights: Tensors, slot: Slot) -> tuple[Tensors, dict[str, str]]:
        """Return what to write of one slot's weights, and the metadata that rebuild the network."""


def differentiate(losses: Callable[[Tensors], Tensor], parameters: Tensors, *, into: Tensors) -> None:
    """Write the gradients of the slots' losses (P,), a function of the parameters, into `into`."""
    leaves = {name: stack.detach().requires_grad_() for name, stack in parameters.items()}
    with torch.enable_grad():
        found = torch.autograd.grad(losses(leaves).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, found, strict=True):
        into[name].copy_(gradient)
