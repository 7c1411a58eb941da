"""The fused training of P trials of one structure: each row its own hyperparameters, seed, epoch and schedule.

What is learned belongs to a Task; the updates, their schedule, penalties and the coming and going of slots are here.
An epoch is n_train // batch_size updates (at least one), over an order drawn anew each epoch: what does not fill a last
batch is left out of that epoch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

from objectives import optimizers, regularizers, schedules
from objectives.hyperparameters import Hyperparameter, Value, completed, number
from objectives.streams import key, permutations

Tensors = dict[str, Tensor]
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

    def losses(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot], index_PB: Tensor) -> Tensor:
        """Return each slot's training loss (P,) on the examples at these positions; may change the buffers in place."""

    def measure(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot]) -> Sequence[Evaluation]:
        """Return each slot's metrics, without `penalty` and `lr`."""

    def saved(self, weights: Tensors, hyperparameters: Mapping[str, Value]) -> tuple[Tensors, dict[str, str]]:
        """Return what to write of one slot's weights, and the metadata that rebuild the network."""


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
        self._kind = str(hyperparameters["optimizer"])
        self._nesterov = bool(hyperparameters["nesterov"])
        self._batch_size = int(number(hyperparameters, "batch_size"))
        self._epochs = epochs
        self._rows: list[Slot] = []
        self._parameters: Tensors = {}
        self._buffers: Tensors = {}
        self._moments: list[list[Tensor]] = []
        self._best: dict[int, tuple[Tensors, Mapping[str, Value]]] = {}

    @property
    def slots(self) -> Sequence[int]:
        return [row.number for row in self._rows]

    @property
    def n_updates(self) -> int:
        """Updates of one epoch."""
        return max(self._task.n_train // self._batch_size, 1)

    def admit(self, slot: int, *, hyperparameters: Mapping[str, Value], seed: int, fold: int | None) -> None:
        """Add one row, initialized from the seed; allowed between any two updates of the others.

        Raises:
            HyperparameterError: this combination cannot be trained.
        """
        hyperparameters = completed(hyperparameters, self._declared)
        optimizers.check(hyperparameters)
        row = Slot(number=slot, seed=seed, fold=fold, hyperparameters=hyperparameters)
        parameters, buffers = (
            {name: tensor.to(self._task.device).unsqueeze(0) for name, tensor in tensors.items()}
            for tensors in self._task.initial(row)
        )
        moments = optimizers.moments(self._kind, parameters)
        if self._rows:
            parameters = {name: torch.cat([stack, parameters[name]]) for name, stack in self._parameters.items()}
            buffers = {name: torch.cat([stack, buffers[name]]) for name, stack in self._buffers.items()}
            moments = [
                [torch.cat(pair) for pair in zip(old, new, strict=True)]
                for old, new in zip(self._moments, moments, strict=True)
            ]
        self._parameters, self._buffers, self._moments = parameters, buffers, moments
        self._rows.append(row)

    def update(self) -> Collection[int]:
        """Train every slot by one update; return the slots that have thereby completed an epoch of theirs."""
        self._update(torch.stack([self._batch(row) for row in self._rows]))
        return [row.number for row in self._rows if row.n_updates % self.n_updates == 0]

    def _batch(self, row: Slot) -> Tensor:
        """The next examples of the row (B,), in an order drawn anew at the start of each of its epochs."""
        epoch, update = divmod(row.n_updates, self.n_updates)
        if update == 0:
            order = permutations([key(row.seed, "order", epoch)], self._task.n_train, device=self._task.device)
            row.order = order[0]
        return row.order[update * self._batch_size : (update + 1) * self._batch_size]

    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, Evaluation]:
        """Measure the given slots (default: all in training), in eval mode."""
        chosen = [i for i, row in enumerate(self._rows) if slots is None or row.number in slots]
        if not chosen:
            return {}
        rows = [self._rows[i] for i in chosen]
        parameters, buffers = self._chosen(self._parameters, chosen), self._chosen(self._buffers, chosen)
        with torch.no_grad():
            penalties_P = regularizers.penalties(parameters, [row.hyperparameters for row in rows])
            measured = self._task.measure(parameters, buffers, rows)
        return {
            row.number: Evaluation(
                metrics={**found.metrics, "penalty": penalty, "lr": self._lr(row, max(row.n_updates - 1, 0))},
                confusion=found.confusion,
            )
            for row, found, penalty in zip(rows, measured, penalties_P.tolist(), strict=True)
        }

    def keep(self, slot: int) -> None:
        """Remember the slot's current weights as its best."""
        row = self.slots.index(slot)
        weights = {name: stack[row].clone() for name, stack in (self._parameters | self._buffers).items()}
        self._best[slot] = (weights, self._rows[row].hyperparameters)

    def retire(self, slots: Collection[int]) -> None:
        """Stop training the slots but remember their best weights; allowed between two updates."""
        left = [i for i, row in enumerate(self._rows) if row.number not in slots]
        if len(left) == len(self._rows):
            return
        self._parameters, self._buffers = self._chosen(self._parameters, left), self._chosen(self._buffers, left)
        self._moments = [[tensor[left] for tensor in tensors] for tensors in self._moments]
        self._rows = [self._rows[i] for i in left]

    def forget(self, slots: Collection[int]) -> None:
        """Stop training the slots, if they are in training, and drop whatever is remembered of them."""
        self.retire(slots)
        for slot in slots:
            self._best.pop(slot, None)

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
        row = self.slots.index(slot)
        return {name: stack[row] for name, stack in (self._parameters | self._buffers).items()}

    def _update(self, index_PB: Tensor) -> None:
        slots = [row.hyperparameters for row in self._rows]
        leaves = {name: stack.detach().requires_grad_() for name, stack in self._parameters.items()}
        losses_P = self._task.losses(leaves, self._buffers, self._rows, index_PB)
        found = torch.autograd.grad(losses_P.sum(), list(leaves.values()))
        gradients = [gradient.contiguous() for gradient in found]
        regularizers.add_gradients(self._parameters, dict(zip(leaves, gradients, strict=True)), slots)
        optimizers.clip(gradients, [number(slot, "clip_norm") for slot in slots])
        steps = [self._step(row) for row in self._rows]
        stacks = list(self._parameters.values())
        optimizers.update(self._kind, stacks, gradients, self._moments, steps, nesterov=self._nesterov)

    def _step(self, row: Slot) -> optimizers.Step:
        row.n_updates += 1
        return optimizers.Step(
            lr=self._lr(row, row.n_updates - 1),
            momentum=number(row.hyperparameters, "momentum"),
            weight_decay=tuple(
                regularizers.strengths(row.hyperparameters, "weight_decay", n_dimensions=stack.ndim - 1)
                for stack in self._parameters.values()
            ),
            count=row.n_updates,
        )

    def _lr(self, row: Slot, update: int) -> float:
        return schedules.lr(
            row.hyperparameters,
            update=update,
            n_updates=self._epochs * self.n_updates,
            updates_per_epoch=self.n_updates,
        )

    def _chosen(self, stacks: Tensors, rows: Sequence[int]) -> Tensors:
        if list(rows) == list(range(len(self._rows))) and rows:
            return stacks
        return {name: stack[rows] for name, stack in stacks.items()}
