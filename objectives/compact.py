"""Rows close together, each updated by torch's fused kernels: what is fastest on a CPU, where an empty row costs.

A row that becomes free takes the last one's numbers, so the first P are in use. P slots, n parameters a slot.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives import optimizers
from objectives.flat import PIECE, Layout, Tensors
from objectives.memory import reserved
from objectives.numbers import Draws, Numbers
from objectives.optimizers import RowUpdate
from objectives.rows import Plan
from objectives.streams import key
from objectives.task import Slot, Task

RESERVED_ROWS, RESERVED_NUMBERS = 32, 2**24
"""Of each stack, so many rows at first, and no more than about so many numbers: addresses, not memory, but there are
systems that count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The slots in training as the operations of an update want them; made anew when a slot comes or goes."""

    parameters: Tensors
    """Weights in the type of products, all others as they are."""
    gradients: Tensors
    buffers: Tensors
    numbers: Numbers
    roots: Tensor
    counts: Tensor
    """Updates that each slot has had, int64 (P,)."""


class Compact:
    """Satisfies objectives.rows.Rows."""

    def __init__(self, task: Task, plan: Plan, *, layout: Layout, buffer_layout: Layout, dtype: torch.dtype) -> None:
        self._task, self._plan, self.layout, self._buffer_layout = task, plan, layout, buffer_layout
        moments = [f"moment {i}" for i in range(optimizers.n_moments(plan.optimizer))]
        lengths = dict.fromkeys(("parameters", *moments), layout.n) | {"buffers": buffer_layout.n}
        self._rows = {name: torch.empty(0, n, dtype=dtype, device=task.device) for name, n in lengths.items()}
        """Parameters, moments and buffers, each (room, n), of which the first P are in use."""
        product = plan.product or dtype
        stacks = {
            name: torch.empty(0, *shape, dtype=product, device=task.device) for name, shape in layout.shapes.items()
        }
        self._gradients = stacks
        """Each tensor's (room, *shape): products write them, and batched ones want no gaps."""
        self._copies = {} if product == dtype else {name: stack for name, stack in stacks.items() if stack.ndim > 2}
        """The weights in the type of products, which read them."""
        length = plan.n_updates * min(plan.batch_size, plan.n_train)
        self._own = {
            name: torch.empty(0, *shape, dtype=torch.int64, device=task.device)
            for name, shape in (("orders", (length,)), ("roots", ()), ("counts", ()))
        }
        """Each slot's order of the examples in its epoch, key of what it draws, and count of its updates."""
        self._scratch = torch.empty(PIECE, dtype=dtype, device=task.device)
        self._slots: list[Slot] = []
        self._updates: list[RowUpdate | None] = []
        """Of each slot, where it is known with its present row."""
        self._stacked: Stack | None = None

    @property
    def slots(self) -> Sequence[Slot]:
        return self._slots

    @property
    def parameters(self) -> Tensor:
        return self._rows["parameters"]

    @property
    def buffers(self) -> Tensor:
        return self._rows["buffers"]

    def row(self, slot: Slot) -> int:
        return self._slots.index(slot)

    def place(self, slot: Slot, parameters: Tensors, buffers: Tensors) -> None:
        n = len(self._slots)
        if n == len(self.parameters):
            self._make_room(2 * n or min(RESERVED_ROWS, 1 + RESERVED_NUMBERS // max(1, self.layout.n)))
        for rows in self._rows.values():
            rows[n].zero_()
        for layout, rows, initial in (
            (self.layout, self._rows["parameters"], parameters),
            (self._buffer_layout, self._rows["buffers"], buffers),
        ):
            for name, view in layout.views(rows[n]).items():
                view.copy_(initial[name])
        for name, copies in self._copies.items():
            copies[n] = parameters[name]
        self._own["roots"][n], self._own["counts"][n] = key(slot.seed, "draws"), slot.n_updates
        self._slots.append(slot)
        self._updates.append(None)
        self._stacked = None

    def vacate(self, slot: Slot) -> None:
        i, last = self._slots.index(slot), self._slots.pop()
        self._updates.pop()
        if i < len(self._slots):
            self._slots[i], self._updates[i] = last, None
            for stack in (*self._rows.values(), *self._copies.values(), *self._own.values()):
                stack[i] = stack[len(self._slots)]
        self._stacked = None

    def _make_room(self, room: int) -> None:
        self._stacked, self._updates = None, [None] * len(self._slots)  # they hold the old stacks
        for stacks in (self._rows, self._gradients, self._copies, self._own):
            for name, stack in stacks.items():  # one after the other: two copies of all would not fit
                stacks[name] = reserved(room, *stack.shape[1:], dtype=stack.dtype)
                stacks[name][: len(stack)] = stack

    def update(self) -> None:
        stack, at = self.stack(), [slot.n_updates % self._plan.n_updates for slot in self._slots]
        index_PB = self._batches(at)
        drawn = Draws(numbers=stack.numbers, roots=stack.roots, counts=stack.counts)
        self._task.gradients(stack.parameters, stack.buffers, index_PB, drawn, into=stack.gradients)
        stack.counts.add_(1)
        for row, (slot, update, count) in enumerate(zip(self._slots, at, stack.counts.unbind(), strict=True)):
            row_update = self._updates[row] = self._updates[row] or self._row_update(row, slot)
            row_update(lr=slot.lrs[update], count=count)
            slot.n_updates += 1

    def stack(self) -> Stack:
        """The slots as they are now."""
        if self._stacked is None:
            n = len(self._slots)
            rows, gradients, copies, own = (
                {name: stack[:n] for name, stack in stacks.items()}
                for stacks in (self._rows, self._gradients, self._copies, self._own)
            )
            self._stacked = Stack(
                parameters=self.layout.views(rows["parameters"]) | copies,
                gradients=gradients,
                buffers=self._buffer_layout.views(rows["buffers"]),
                numbers=Numbers(
                    [slot.numbers for slot in self._slots],
                    self._plan.names,
                    device=self._task.device,
                    switches=self._plan.switches,
                ),
                roots=own["roots"],
                counts=own["counts"],
            )
        return self._stacked

    def _row_update(self, row: int, slot: Slot) -> RowUpdate:
        gradients, copies = (
            {name: stack[row] for name, stack in stacks.items()} for stacks in (self._gradients, self._copies)
        )
        return RowUpdate.of(
            slot.hyperparameters,
            self.layout,
            [rows[row] for name, rows in self._rows.items() if name != "buffers"],
            gradients=gradients,
            copies=copies,
            scratch=self._scratch,
        )

    def _batches(self, at: Sequence[int]) -> Tensor:
        """The slots' next examples (P, B), in an order drawn anew at the start of each of their epochs."""
        orders, n = self._own["orders"], len(self._slots)
        for row, (slot, update) in enumerate(zip(self._slots, at, strict=True)):
            if update == 0:
                orders[row] = self._plan.order(slot, device=self._task.device)[: orders.shape[1]]
                slot.lrs = self._plan.lrs(slot)
        batches = orders.view(len(orders), self._plan.n_updates, -1)
        return batches[torch.arange(n), torch.tensor(at)]
