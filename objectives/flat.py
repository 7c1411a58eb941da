"""All parameters of a slot as one row of numbers, and the named stacks that are views of the rows.

What touches every parameter (the optimizer, penalties, clipping, keeping the best, moving a slot) is then one operation
on rows; what needs shapes (the layers) takes the views. P slots, n numbers a slot.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.hyperparameters import Value

Tensors = dict[str, Tensor]
PIECE = 65_536
"""Numbers at a time: what is done to them in turn finds them in a core's cache."""


def power_sum(rows: Tensor, order: int) -> Tensor:
    """Return the sum of |w| ** order over the last dimension, in double precision and without a copy of the whole."""
    pieces = torch.split(rows, PIECE, dim=-1)
    norms = [torch.linalg.vector_norm(piece, order, dim=-1, dtype=torch.float64) for piece in pieces]
    return torch.stack(norms).pow_(order).sum(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each tensor lies in a row: those of two and more dimensions (weights) first, then biases and norms."""

    shapes: Mapping[str, tuple[int, ...]]
    """In the order of the row."""
    exempt: str = ""
    """The last of the weights, where it is exempt from decay and penalties; those of one dimension always are."""

    @staticmethod
    def of(tensors: Mapping[str, Tensor], *, exempt_output: bool = False) -> "Layout":
        """Keep the order of the weights; the last of them is the output's."""
        ordered = sorted(tensors.items(), key=lambda item: item[1].ndim < 2)
        weights = [name for name, tensor in ordered if tensor.ndim > 1]
        return Layout(
            shapes={name: tuple(tensor.shape) for name, tensor in ordered},
            exempt=weights[-1] if exempt_output and weights else "",
        )

    @property
    def n(self) -> int:
        return sum(map(math.prod, self.shapes.values()))

    @property
    def n_weights(self) -> int:
        """How many numbers, from the row's start, belong to weights."""
        return sum(math.prod(shape) for shape in self.shapes.values() if len(shape) > 1)

    @property
    def n_penalized(self) -> int:
        """How many, from the row's start, decay and penalties apply to unless nothing is exempt."""
        return sum(math.prod(self.shapes[name]) for name in self.concerned("biases_and_norms"))

    def concerned(self, exempt: Value) -> frozenset[str]:
        """The names of those that decay and penalties apply to, under the hyperparameter `exempt`."""
        weights = {name for name, shape in self.shapes.items() if len(shape) > 1 and name != self.exempt}
        return frozenset(self.shapes if exempt == "none" else weights)

    def row(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return one slot's tensors (without the slot's dimension) as a row (n,)."""
        parts = [tensors[name].reshape(-1) for name in self.shapes]
        return torch.cat(parts) if parts else torch.empty(0)

    def views(self, rows: Tensor) -> Tensors:
        """Return the stacks (P, *shape) that lie in rows (P, n), or one slot's tensors of its row (n,)."""
        ends = itertools.accumulate(map(math.prod, self.shapes.values()))
        return {
            name: rows[..., end - math.prod(shape) : end].view(*rows.shape[:-1], *shape)
            for (name, shape), end in zip(self.shapes.items(), ends, strict=True)
        }
