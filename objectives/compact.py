"""Rows close together, each updated by torch's fused kernels: what is fastest on a CPU, where an empty row costs.

A row that becomes free takes the last one's numbers, so the first P are in use. P slots, n parameters a slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives import optimizers, regularizers
from objectives.flat import Layout, Tensors
from objectives.numbers import Draws, Numbers
from objectives.optimizers import RowUpdate
from objectives.rows import Plan
from objectives.streams import key
from objectives.task import Slot, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The slots in training as the operations of an update want them; made anew when a slot comes or goes."""

    rows: Sequence[Tensor]
    """Parameters, gradients and moments, each (P, n)."""
    parameters: Tensors
    gradients: Tensors
    buffers: Tensors
    numbers: Numbers
    roots: Tensor
    counts: Tensor
    """Updates that each slot has had, int64 (P,)."""
    updates: Sequence[tuple[RowUpdate, Tensor]]
    """Each slot's, and its count."""


class Compact:
    """Satisfies objectives.rows.Rows."""

    def __init__(self, task: Task, plan: Plan, *, layout: Layout, buffer_layout: Layout, dtype: torch.dtype) -> None:
        self._task, self._plan, self._layout, self._buffer_layout = task, plan, layout, buffer_layout
        lengths = [layout.n] * (2 + optimizers.n_moments(plan.optimizer)) + [buffer_layout.n]
        self._rows = [torch.empty(0, length, dtype=dtype, device=task.device) for length in lengths]
        """Parameters, gradients, moments, and last the buffers: each (room, n), of which the first P are in use."""
        self._slots: list[Slot] = []
        self._stacked: Stack | None = None

    @property
    def slots(self) -> Sequence[Slot]:
        return self._slots

    @property
    def parameters(self) -> Tensor:
        return self._rows[0]

    @property
    def buffers(self) -> Tensor:
        return self._rows[-1]

    def row(self, slot: Slot) -> int:
        return self._slots.index(slot)

    def place(self, slot: Slot, parameters: Tensors, buffers: Tensors) -> None:
        n = len(self._slots)
        if n == len(self._rows[0]):
            room = n + max(1, n // 2)
            self._rows = [torch.cat([rows, rows.new_zeros(room - n, rows.shape[1])]) for rows in self._rows]
        for rows in self._rows:
            rows[n].zero_()
        self._rows[0][n] = self._layout.row(parameters)
        self._rows[-1][n] = self._buffer_layout.row(buffers)
        self._slots.append(slot)
        self._stacked = None

    def vacate(self, slot: Slot) -> None:
        i, last = self._slots.index(slot), self._slots.pop()
        if i < len(self._slots):
            self._slots[i] = last
            for rows in self._rows:
                rows[i] = rows[len(self._slots)]
        self._stacked = None

    def update(self) -> None:
        stack, at = self._stack(), [slot.n_updates % self._plan.n_updates for slot in self._slots]
        parameters_Pn, gradients_Pn = stack.rows[:2]
        index_PB = torch.stack([self._batch(slot, update) for slot, update in zip(self._slots, at, strict=True)])
        drawn = Draws(numbers=stack.numbers, roots=stack.roots, counts=stack.counts)
        self._task.gradients(stack.parameters, stack.buffers, index_PB, drawn, into=stack.gradients)
        if stack.numbers.used("l1") or stack.numbers.used("l2"):
            given = [slot.hyperparameters for slot in self._slots]
            regularizers.add_gradients(parameters_Pn, gradients_Pn, given, n_weights=self._layout.n_penalized)
        if stack.numbers.used("clip_norm"):
            optimizers.clip(gradients_Pn, stack.numbers["clip_norm"])
        stack.counts.add_(1)
        for slot, update, (row_update, count) in zip(self._slots, at, stack.updates, strict=True):
            row_update(lr=slot.lrs[update], count=count)
            slot.n_updates += 1

    def _stack(self) -> Stack:
        if self._stacked is None:
            n, device = len(self._slots), self._task.device
            *rows, buffers = (tensor[:n] for tensor in self._rows)
            given = [slot.hyperparameters for slot in self._slots]
            counts = torch.tensor([slot.n_updates for slot in self._slots], device=device)
            self._stacked = Stack(
                rows=rows,
                parameters=self._layout.views(rows[0]),
                gradients=self._layout.views(rows[1]),
                buffers=self._buffer_layout.views(buffers),
                numbers=Numbers(
                    [slot.numbers for slot in self._slots],
                    self._plan.names,
                    device=device,
                    switches=self._plan.switches,
                ),
                roots=torch.tensor([key(slot.seed, "draws") for slot in self._slots], device=device),
                counts=counts,
                updates=[
                    (RowUpdate.of(own, row, n_weights=self._layout.n_penalized), count)
                    for own, count, *row in zip(given, counts.unbind(), *rows, strict=True)
                ],
            )
        return self._stacked

    def _batch(self, slot: Slot, update: int) -> Tensor:
        """The slot's next examples (B,), in an order drawn anew at the start of each of its epochs."""
        if update == 0:
            slot.order = self._plan.order(slot, device=self._task.device)
            slot.lrs = self._plan.lrs(slot)
        return slot.order[update * self._plan.batch_size : (update + 1) * self._plan.batch_size]
