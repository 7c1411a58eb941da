"""The fused training of P trials of one structure: each row its own hyperparameters, seed, epoch and schedule.

What is learned belongs to a Task, how rows are kept and updated to Rows; the coming and going of slots, what is
remembered of them, and their measurement are here. An epoch is n_train // batch_size updates (at least one), over an
order drawn anew each epoch: what does not fill a last batch is left out of that epoch. Slots have no common phase: each
is at its own update of its own epoch.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from objectives import optimizers, regularizers
from objectives.captured import Captured
from objectives.compact import Compact
from objectives.flat import Layout, Tensors, power_sum
from objectives.hyperparameters import Hyperparameter, Value, completed, number
from objectives.numbers import named
from objectives.rows import MakeRows, Plan, Rows
from objectives.task import Evaluation, Measurement, Slot, Task, differentiate

__all__ = ["Evaluation", "Measurement", "Population", "Slot", "Task", "differentiate"]


class Population:
    """Satisfies search.contract.Population."""

    def __init__(
        self,
        task: Task,
        hyperparameters: Mapping[str, Value],
        *,
        declared: Mapping[str, Hyperparameter],
        epochs: int,
        product: torch.dtype | None = None,
        rows: MakeRows | None = None,
    ) -> None:
        """Of the hyperparameters only the structural ones are read here.

        Args:
            declared: all that slots may be given, TRAINING among them; what a slot does not say takes its default.
            product: the type of training's products, where the task takes weights and gives gradients in it.
            rows: how the slots are kept and updated; by default as is fastest on the task's device.
        """
        hyperparameters = completed(hyperparameters, declared)
        batch_size = int(number(hyperparameters, "batch_size")) or task.n_train
        self._task, self._declared = task, declared
        names, switches = named(declared)
        self._plan = Plan(
            names=[*names, "fold"],
            switches=switches,
            optimizer=str(hyperparameters["optimizer"]),
            nesterov=bool(hyperparameters["nesterov"]),
            batch_size=batch_size,
            n_train=task.n_train,
            n_updates=max(task.n_train // batch_size, 1),
            n_epochs=epochs,
            product=product,
        )
        self._make_rows: MakeRows = rows or (Compact if task.device.type == "cpu" else Captured)
        self._layout, self._buffer_layout = Layout(shapes={}), Layout(shapes={})
        self._rows: Rows | None = None
        self._best: dict[int, tuple[Tensor, Tensor, Slot]] = {}
        """Rows of parameters and of buffers, and whose they are."""

    @property
    def slots(self) -> Sequence[int]:
        return [slot.number for slot in self._slots]

    @property
    def _slots(self) -> Sequence[Slot]:
        return self._rows.slots if self._rows else []

    @property
    def n_updates(self) -> int:
        """Updates of one epoch."""
        return self._plan.n_updates

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
        if self._rows is None:
            exempt_output = hyperparameters["exempt"] == "output"
            self._layout, self._buffer_layout = Layout.of(parameters, exempt_output=exempt_output), Layout.of(buffers)
            self._rows = self._make_rows(
                self._task,
                self._plan,
                layout=self._layout,
                buffer_layout=self._buffer_layout,
                dtype=next(iter(parameters.values())).dtype,
            )
        squares = math.fsum(power_sum(each.flatten(), 2).item() for each in parameters.values() if each.ndim > 1)
        admitted.initial_norm = math.sqrt(squares) or math.nan
        with torch.no_grad():
            self._rows.place(admitted, parameters, buffers)

    def keep(self, slot: int) -> None:
        """Remember the slot's current weights as its best."""
        parameters, buffers = self._row(slot)
        if slot not in self._best:
            self._best[slot] = parameters.clone(), buffers.clone(), self._slot(slot)
            return
        best, best_buffers, _ = self._best[slot]
        best.copy_(parameters)
        best_buffers.copy_(buffers)

    @torch.no_grad()
    def retire(self, slots: Collection[int]) -> None:
        """Stop training the slots but remember their best weights; allowed between two updates."""
        for slot in list(self._slots):
            if self._rows and slot.number in slots:
                self._rows.vacate(slot)

    def forget(self, slots: Collection[int]) -> None:
        """Stop training the slots, if they are in training, and drop whatever is remembered of them."""
        self.retire(slots)
        for slot in slots:
            self._best.pop(slot, None)

    # ------------------------------------------------------------ training

    @torch.no_grad()
    def update(self) -> Collection[int]:
        """Train every slot by one update; return the slots that have thereby completed an epoch of theirs."""
        if self._rows:
            self._rows.update()
        return [slot.number for slot in self._slots if slot.n_updates % self.n_updates == 0]

    # ------------------------------------------------------------ measuring and saving

    @torch.no_grad()
    def evaluate(self, slots: Collection[int] | None = None) -> Mapping[int, Evaluation]:
        """Measure the given slots (default: all in training), in eval mode."""
        measured = [slot for slot in self._slots if slots is None or slot.number in slots]
        if not measured or self._rows is None:
            return {}
        at = [self._rows.row(slot) for slot in measured]
        parameters_Pn, buffers = _taken(self._rows.parameters, at), _taken(self._rows.buffers, at)
        given = [slot.hyperparameters for slot in measured]
        penalties = regularizers.penalties(parameters_Pn, given, n_weights=self._layout.n_penalized)
        norms: list[float] = power_sum(parameters_Pn[:, : self._layout.n_weights], 2).sqrt_().tolist()
        found = self._task.measure(self._layout.views(parameters_Pn), self._buffer_layout.views(buffers), measured)
        errors = _standard_errors(measured, found)
        return {
            slot.number: Evaluation(
                metrics={
                    **each.metrics,
                    **error,
                    "penalty": penalty,
                    "weight_norm": norm / slot.initial_norm,
                    "lr": self._plan.lr(slot, max(slot.n_updates - 1, 0)),
                },
                confusion=each.confusion,
            )
            for slot, each, error, penalty, norm in zip(measured, found, errors, penalties, norms, strict=True)
        }

    def save(self, slot: int, path: Path) -> None:
        """Write the slot's best weights (safetensors), with all that is needed to rebuild the network in its metadata.

        Raises:
            KeyError: nothing was kept of this slot.
        """
        from safetensors.torch import save_file  # a host that only measures speed may have torch alone

        parameters, buffers, kept = self._best[slot]
        weights = self._layout.views(parameters.cpu()) | self._buffer_layout.views(buffers.cpu())
        tensors, metadata = self._task.saved(weights, kept)
        save_file(tensors, path, metadata)

    def weights(self, slot: int) -> Tensors:
        """Return the slot's current parameters and buffers, as views."""
        parameters, buffers = self._row(slot)
        return self._layout.views(parameters) | self._buffer_layout.views(buffers)

    def _row(self, slot: int) -> tuple[Tensor, Tensor]:
        """The slot's parameters and buffers, each (n,)."""
        assert self._rows, "nobody was ever admitted"
        row = self._rows.row(self._slot(slot))
        return self._rows.parameters[row], self._rows.buffers[row]

    def _slot(self, number_of_it: int) -> Slot:
        return next(slot for slot in self._slots if slot.number == number_of_it)


def _standard_errors(slots: Sequence[Slot], found: Sequence[Evaluation]) -> list[dict[str, float]]:
    """Return each slot's `val_loss_se`: of its validation loss less that of its best epoch so far, example by example.

    Empty where the losses of single examples are not told.
    """
    errors = [
        slot.paired.standard_error(each.val_losses, loss=each.metrics["val_loss"], n_updates=slot.n_updates)
        for slot, each in zip(slots, found, strict=True)
        if each.val_losses is not None
    ]
    return [{"val_loss_se": error} for error in torch.stack(errors).tolist()] if errors else [{} for _ in slots]


def _taken(rows: Tensor, at: Sequence[int]) -> Tensor:
    """Return some rows, without a copy where they lie beside each other."""
    first, n = at[0], len(at)
    return rows[first : first + n] if list(at) == list(range(first, first + n)) else rows[list(at)]
