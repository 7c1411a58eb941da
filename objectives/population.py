"""The fused training of P trials of one structure: each row its own hyperparameters, seed, epoch and schedule.

What is learned belongs to a Task; the updates, their schedule, penalties and the coming and going of slots are here.
An epoch is n_train // batch_size updates (at least one), over an order drawn anew each epoch: what does not fill a last
batch is left out of that epoch. Rows have no common phase: each is at its own update of its own epoch.

P slots in training, n parameters a slot, B examples.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from objectives import optimizers, regularizers, schedules
from objectives.flat import Layout, Tensors
from objectives.hyperparameters import Hyperparameter, Value, completed, number
from objectives.numbers import Draws, Numbers
from objectives.optimizers import RowUpdate
from objectives.streams import key, permutation

Confusion = tuple[tuple[int, ...], ...]


@dataclass(slots=True, kw_only=True)
class Slot:
    """One row of a population: one training of a trial."""

    number: int
    seed: int
    fold: int | None
    hyperparameters: Mapping[str, Value]
    n_updates: int = 0
    """Updates done."""
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """Of the examples in the current epoch (N,)."""
    lrs: Sequence[float] = ()
    """Of the updates of the current epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One slot measured after an epoch."""

    metrics: Mapping[str, float]
    confusion: Confusion | None = None


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
        """

    def measure(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot]) -> Sequence[Evaluation]:
        """Return each slot's metrics, without `penalty` and `lr`."""

    def saved(self, weights: Tensors, hyperparameters: Mapping[str, Value]) -> tuple[Tensors, dict[str, str]]:
        """Return what to write of one slot's weights, and the metadata that rebuild the network."""


def differentiate(losses: Callable[[Tensors], Tensor], parameters: Tensors, *, into: Tensors) -> None:
    """Write the gradients of the slots' losses (P,), a function of the parameters, into `into`."""
    leaves = {name: stack.detach().requires_grad_() for name, stack in parameters.items()}
    with torch.enable_grad():
        found = torch.autograd.grad(losses(leaves).sum(), list(leaves.values()))
    for name, gradient in zip(leaves, found, strict=True):
        into[name].copy_(gradient)


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


class Population:
    """Satisfies search.contract.Population."""

    def __init__(
        self,
        task: Task,
        hyperparameters: Mapping[str, Value],
        *,
        declared: Mapping[str, Hyperparameter],
        epochs: int,
    ) -> None:
        """Of the hyperparameters only the structural ones are read here.

        Args:
            declared: all that slots may be given, TRAINING among them; what a slot does not say takes its default.
        """
        hyperparameters = completed(hyperparameters, declared)
        self._task, self._declared = task, declared
        self._names = [name for name, rule in declared.items() if rule.kind in ("float", "int", "bool")]
        self._kind = str(hyperparameters["optimizer"])
        self._batch_size = int(number(hyperparameters, "batch_size"))
        self._epochs = epochs
        self._slots: list[Slot] = []
        self._layout, self._buffer_layout = Layout(shapes={}), Layout(shapes={})
        self._rows: list[Tensor] = []
        """Parameters, gradients, moments, and last the buffers: each (room, n), of which the first P are in use."""
        self._stacked: Stack | None = None
        self._best: dict[int, tuple[Tensors, Mapping[str, Value]]] = {}

    @property
    def slots(self) -> Sequence[int]:
        return [slot.number for slot in self._slots]

    @property
    def n_updates(self) -> int:
        """Updates of one epoch."""
        return max(self._task.n_train // self._batch_size, 1)

    # ------------------------------------------------------------ coming and going

    def admit(self, slot: int, *, hyperparameters: Mapping[str, Value], seed: int, fold: int | None) -> None:
        """Add one row, initialized from the seed; allowed between any two updates of the others.

        Raises:
            HyperparameterError: this combination cannot be trained.
        """
        hyperparameters = completed(hyperparameters, self._declared)
        optimizers.check(hyperparameters)
        admitted = Slot(number=slot, seed=seed, fold=fold, hyperparameters=hyperparameters)
        parameters, buffers = self._task.initial(admitted)
        if not self._rows:
            self._lay_out(parameters, buffers)
        n = len(self._slots)
        if n == len(self._rows[0]):
            room = n + max(1, n // 2)
            self._rows = [torch.cat([rows, rows.new_zeros(room - n, rows.shape[1])]) for rows in self._rows]
        for rows in self._rows:
            rows[n].zero_()
        self._rows[0][n] = self._layout.row(parameters)
        self._rows[-1][n] = self._buffer_layout.row(buffers)
        self._slots.append(admitted)
        self._stacked = None

    def _lay_out(self, parameters: Tensors, buffers: Tensors) -> None:
        self._layout, self._buffer_layout = Layout.of(parameters), Layout.of(buffers)
        dtype = next(iter(parameters.values())).dtype
        lengths = [self._layout.n] * (2 + optimizers.n_moments(self._kind)) + [self._buffer_layout.n]
        self._rows = [torch.empty(0, length, dtype=dtype, device=self._task.device) for length in lengths]

    def keep(self, slot: int) -> None:
        """Remember the slot's current weights as its best."""
        weights = {name: tensor.clone() for name, tensor in self.weights(slot).items()}
        self._best[slot] = (weights, self._slots[self.slots.index(slot)].hyperparameters)

    def retire(self, slots: Collection[int]) -> None:
        """Stop training the slots but remember their best weights; allowed between two updates."""
        for number_of_it in slots:
            if number_of_it in self.slots:
                self._vacate(self.slots.index(number_of_it))

    def _vacate(self, i: int) -> None:
        """Fill a row's place with the last one: what is in use stays together."""
        last = self._slots.pop()
        if i < len(self._slots):
            self._slots[i] = last
            for rows in self._rows:
                rows[i] = rows[len(self._slots)]
        self._stacked = None

    def forget(self, slots: Collection[int]) -> None:
        """Stop training the slots, if they are in training, and drop whatever is remembered of them."""
        self.retire(slots)
        for slot in slots:
            self._best.pop(slot, None)

    # ------------------------------------------------------------ training

    @torch.no_grad()
    def update(self) -> Collection[int]:
        """Train every slot by one update; return the slots that have thereby completed an epoch of theirs."""
        stack, at = self._stack(), [slot.n_updates % self.n_updates for slot in self._slots]
        parameters_Pn, gradients_Pn = stack.rows[:2]
        index_PB = torch.stack([self._batch(slot, update) for slot, update in zip(self._slots, at, strict=True)])
        drawn = Draws(numbers=stack.numbers, roots=stack.roots, counts=stack.counts)
        self._task.gradients(stack.parameters, stack.buffers, index_PB, drawn, into=stack.gradients)
        if stack.numbers.used("l1") or stack.numbers.used("l2"):
            given = [slot.hyperparameters for slot in self._slots]
            regularizers.add_gradients(parameters_Pn, gradients_Pn, given, n_weights=self._layout.n_weights)
        if stack.numbers.used("clip_norm"):
            optimizers.clip(gradients_Pn, stack.numbers["clip_norm"])
        stack.counts.add_(1)
        for slot, update, (row_update, count) in zip(self._slots, at, stack.updates, strict=True):
            row_update(lr=slot.lrs[update], count=count)
            slot.n_updates += 1
        return [slot.number for slot, update in zip(self._slots, at, strict=True) if update + 1 == self.n_updates]

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
                numbers=Numbers(given, self._names, device=device),
                roots=torch.tensor([key(slot.seed, "draws") for slot in self._slots], device=device),
                counts=counts,
                updates=[
                    (RowUpdate.of(own, row, n_weights=self._layout.n_weights), count)
                    for own, count, *row in zip(given, counts.unbind(), *rows, strict=True)
                ],
            )
        return self._stacked

    def _batch(self, slot: Slot, update: int) -> Tensor:
        """The slot's next examples (B,), in an order drawn anew at the start of each of its epochs."""
        if update == 0:
            epoch = slot.n_updates // self.n_updates
            slot.order = permutation(key(slot.seed, "order", epoch), self._task.n_train, device=self._task.device)
            slot.lrs = [self._lr(slot, slot.n_updates + i) for i in range(self.n_updates)]
        return slot.order[update * self._batch_size : (update + 1) * self._batch_size]

    def _lr(self, slot: Slot, update: int) -> float:
        return schedules.lr(
            slot.hyperparameters,
            update=update,
            n_updates=self._epochs * self.n_updates,
            updates_per_epoch=self.n_updates,
        )

    # ------------------------------------------------------------ measuring and saving

    @torch.no_grad()
    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, Evaluation]:
        """Measure the given slots (default: all in training), in eval mode."""
        chosen = [i for i, slot in enumerate(self._slots) if slots is None or slot.number in slots]
        if not chosen:
            return {}
        measured = [self._slots[i] for i in chosen]
        given = [slot.hyperparameters for slot in measured]
        everyone = len(chosen) == len(self._slots)
        parameters_Pn, buffers = (
            rows[: len(chosen)] if everyone else rows[chosen] for rows in (self._rows[0], self._rows[-1])
        )
        penalties = regularizers.penalties(parameters_Pn, given, n_weights=self._layout.n_weights)
        found = self._task.measure(self._layout.views(parameters_Pn), self._buffer_layout.views(buffers), measured)
        return {
            slot.number: Evaluation(
                metrics={**each.metrics, "penalty": penalty, "lr": self._lr(slot, max(slot.n_updates - 1, 0))},
                confusion=each.confusion,
            )
            for slot, each, penalty in zip(measured, found, penalties, strict=True)
        }

    def save(self, slot: int, path: Path) -> None:
        """Write the slot's best weights (safetensors), with all that is needed to rebuild the network in its metadata.

        Raises:
            KeyError: nothing was kept of this slot.
        """
        weights, hyperparameters = self._best[slot]
        tensors, metadata = self._task.saved({n: w.cpu() for n, w in weights.items()}, hyperparameters)
        save_file(tensors, path, metadata)

    def weights(self, slot: int) -> Tensors:
        """Return the slot's current parameters and buffers, as views."""
        i = self.slots.index(slot)
        return self._layout.views(self._rows[0][i]) | self._buffer_layout.views(self._rows[-1][i])
