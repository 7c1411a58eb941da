"""Learning targets from examples, images or vectors: what classification and regression have in common.

P slots, B examples, C H W image, D features, K outputs, V validation examples.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from objectives import augment, saved
from objectives.data import DataError, load
from objectives.flat import Tensors
from objectives.folds import Fold, Folds
from objectives.hyperparameters import (
    AUGMENTATION,
    EXAMPLES,
    TRAINING,
    Hyperparameter,
    HyperparameterError,
    Value,
    completed,
    number,
)
from objectives.inputs import Inputs
from objectives.models import BuiltIn
from objectives.network import Arithmetic, Network, Networks, path_of
from objectives.numbers import Draws, Numbers, named
from objectives.population import Evaluation, Measurement, Population, Slot
from objectives.task import Confusion
from objectives.test_set import TestSet, load_test

EVALUATION_BATCH, EVALUATION_BATCH_ON_DEVICE = 500, 5000
"""Examples at once: what keeps a core busy, and a GPU."""
EVALUATED_NUMBERS, LEAST_EVALUATED = 400_000, 125
"""Of the examples of a batch on a CPU, where that makes it smaller: activations take memory; and still so many."""
EVALUATED_PARAMETERS = 2**19
"""Of the slots that are evaluated together on a CPU: larger networks gain nothing, and activations take memory."""
SLOTS_OF_A_CORE = 32
"""The smallest networks still gain a sixth from 16 to 32 slots, and nothing beyond (tests/benchmarks/README.md)."""
BUILT_IN = BuiltIn()
Told = tuple[dict[str, float], Confusion | None]


class Loss(Protocol):
    """What is learned: how outputs are judged by targets."""

    @property
    def HYPERPARAMETERS(self) -> Mapping[str, Hyperparameter]: ...  # noqa: N802 - a constant
    @property
    def METRICS(self) -> Mapping[str, str]:  # noqa: N802
        """As search/contract.py wants them, of any examples: reported of the training and of the validation part."""

    @property
    def numeric(self) -> bool:
        """Targets are numbers, not classes."""

    def gradient(self, outputs_PBK: Tensor, targets_PB: Tensor, draws: Draws) -> Tensor:
        """Return the gradient of each slot's mean loss by its outputs, which it may overwrite."""

    def measured(self, outputs_PBK: Tensor, targets_PB: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return each example's loss (P, B), and by name what else is to be summed over all examples (P, ...)."""

    def told(self, loss: float, sums: Mapping[str, Any], n: int) -> Told:
        """Return one slot's METRICS from the mean loss and those sums, as nested lists, over n examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """Satisfies search.contract.ObjectiveFactory: networks of one family learn under one loss."""

    loss: Loss
    networks: Networks = BUILT_IN

    @property
    def HYPERPARAMETERS(self) -> Mapping[str, Hyperparameter]:  # noqa: N802 - a constant of the contract
        return {
            **TRAINING,
            **EXAMPLES,
            **AUGMENTATION,
            **self.loss.HYPERPARAMETERS,
            **self.networks.HYPERPARAMETERS,
        }

    @property
    def METRICS(self) -> Mapping[str, str]:  # noqa: N802
        told = {f"{part}_{name}": way for name, way in self.loss.METRICS.items() for part in ("train", "val")}
        return told | dict.fromkeys(("val_loss_se", "penalty", "weight_norm", "lr"), "none")

    def __call__(
        self,
        *,
        data: Mapping[str, object],
        data_dir: Path,
        seed: int,
        device: str,
        precision: str,
        progress: Callable[[str], None],
    ) -> "SupervisedObjective":
        """Load and split the data; `folds` in `data` is a study's number of folds.

        Raises:
            DataError: they are missing, damaged or of the wrong form.
            NetworkError: the networks of the default hyperparameters cannot be trained.
        """
        given = {key: value for key, value in data.items() if key != "folds"}
        dataset = load(given, data_dir=data_dir, seed=seed, device=device, progress=progress, numeric=self.loss.numeric)
        n_folds = data.get("folds")
        assert n_folds is None or isinstance(n_folds, int)
        folds = Folds(dataset, seed=seed, n=n_folds)
        torch.backends.cudnn.allow_tf32 = False  # float32 is what was asked for, and what evaluation is done in
        test_set = partial(load_test, given, data_dir=data_dir, progress=progress, numeric=self.loss.numeric)
        objective = SupervisedObjective(folds, self, precision=precision, load_test_set=test_set)
        if why := objective.network({}).why_alone:
            progress(f"{why}: several trials train one after another.")
        return objective


class SupervisedObjective:
    """Satisfies search.contract.Objective."""

    def __init__(
        self, folds: Folds, factory: Supervised, *, precision: str, load_test_set: Callable[[], TestSet]
    ) -> None:
        """`load_test_set` is called when saved weights are first measured on the test set."""
        self._folds, self._dataset, self._factory, self._precision = folds, folds.dataset, factory, precision
        self._load_test_set = load_test_set
        self._declared = factory.HYPERPARAMETERS

    @property
    def facts(self) -> Mapping[str, object]:
        return self._folds.facts

    def n_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        return self.network(hyperparameters).n_parameters

    def capacity(self, hyperparameters: Mapping[str, Value]) -> int:
        """The most slots that make sense.

        Some networks gain nothing from company.
        """
        device = self._dataset.x_train.device
        if self.network(hyperparameters).why_alone:
            return 1
        if device.type == "cpu":
            return SLOTS_OF_A_CORE
        free_bytes, _ = torch.cuda.mem_get_info(device)
        # parameters, gradients, two moments, the best weights, and as much again for activations and temporaries
        return min(max(free_bytes // (self.n_parameters(hyperparameters) * 4 * 10), 1), 64)

    def build(self, hyperparameters: Mapping[str, Value], *, epochs: int) -> Population:
        """An empty population of this structure.

        Raises:
            HyperparameterError: this combination cannot be trained.
        """
        task = self._task(hyperparameters)
        return Population(task, hyperparameters, declared=self._declared, epochs=epochs, product=task.network.product)

    def measure(
        self, checkpoint: Path, predictions: Path, *, part: Literal["validation", "test"] = "validation"
    ) -> Measurement:
        """Metrics of saved weights, in float32 on the CPU; writes outputs (N, K), targets, index, losses (N,) as npz.

        Raises:
            CheckpointError: the weights were trained on other data.
            DataError: there is no test set, or it cannot be read, or the data have changed since they were loaded.
        """
        fold = self._trained_on(checkpoint)
        if part == "test":
            test = self._test_set
            x, y, index, checksum = test.x, test.y, test.index, test.checksum
        else:
            x, y, index, checksum = fold.x_val.cpu(), fold.y_val.cpu(), fold.val_index.cpu(), ""
        net = saved.network(checkpoint)
        with torch.inference_mode():
            outputs = torch.cat([net(_unit(batch)) for batch in torch.split(x, EVALUATION_BATCH)])
        losses_1N, sums = self._factory.loss.measured(outputs.unsqueeze(0), y.unsqueeze(0))
        with predictions.open("wb") as file:  # np.savez would give another name to what does not end in .npz
            losses_N = losses_1N[0].numpy()
            np.savez(file, outputs=outputs.numpy(), targets=y.numpy(), index=index.numpy(), losses=losses_N)
        mean, totals = losses_1N.double().mean().item(), {name: total[0].tolist() for name, total in sums.items()}
        metrics, _ = self._factory.loss.told(mean, totals, len(y))
        prefix = "test" if part == "test" else "val"
        return Measurement(metrics=_prefixed(prefix, metrics), n_examples=len(y), checksum=checksum)

    @cached_property
    def _test_set(self) -> TestSet:
        found, dataset = self._load_test_set(), self._dataset
        if found.searched != dataset.checksum:
            raise DataError(
                f"{dataset.name}: the data have changed since they were loaded (checksum {dataset.checksum}, now "
                f"{found.searched}): what is set apart for testing may be what was trained on. Restore the data."
            )
        return found

    def _trained_on(self, checkpoint: Path) -> Fold:
        """The fold of these data that the weights were trained on."""
        dataset, found = self._dataset, saved.configuration(checkpoint)
        if found["checksum"] != dataset.checksum:
            raise saved.CheckpointError(
                f"{checkpoint}: trained on {found['data_set']} ({found['checksum']}), but the data are "
                f"{dataset.name} ({dataset.checksum}). Measure on the data it was trained on."
            )
        return self._folds.of(1.0)[int(found["fold"])]

    def export_model(self, checkpoint: Path, destination: Path) -> None:
        """Write the network for images in [0, 1] (or raw features) as .pt2, with an example input beside it (.npy)."""
        saved.export(checkpoint, destination)

    def network(self, hyperparameters: Mapping[str, Value]) -> Network:
        """Networks of this structure for these data."""
        dataset = self._dataset
        return self._factory.networks.stacked(
            completed(hyperparameters, self._declared),
            input_shape=tuple(dataset.x_train.shape[1:]),
            n_outputs=max(len(dataset.classes), 1),
            arithmetic=Arithmetic.of(self._precision),
            device=dataset.x_train.device,
        )

    def _task(self, hyperparameters: Mapping[str, Value]) -> "SupervisedTask":
        return SupervisedTask(
            self._folds,
            completed(hyperparameters, self._declared),
            loss=self._factory.loss,
            networks=self._factory.networks,
            precision=self._precision,
        )


class SupervisedTask:
    """Satisfies objectives.population.Task for the networks of one structure."""

    def __init__(
        self,
        folds: Folds,
        hyperparameters: Mapping[str, Value],
        *,
        loss: Loss,
        precision: str,
        networks: Networks = BUILT_IN,
    ) -> None:
        """Only structural hyperparameters are read."""
        dataset, arithmetic = folds.dataset, Arithmetic.of(precision)
        self._dataset, self._loss, self._networks = dataset, loss, networks
        self._fraction = number(hyperparameters, "train_fraction")
        self._folds, self._parts = folds, folds.of(self._fraction)
        self._n_outputs = max(len(dataset.classes), 1)
        self._dtype, self._input_shape = arithmetic.dtype, tuple(dataset.x_train.shape[1:])
        self.network: Network = networks.stacked(
            hyperparameters,
            input_shape=self._input_shape,
            n_outputs=self._n_outputs,
            arithmetic=arithmetic,
            device=self.device,
        )
        self._inputs = Inputs(folds, self._fraction, dtype=self._dtype)
        train = torch.stack([part.train for part in self._parts])
        self._train = None if len(self._parts) == 1 and train.shape[1] == len(folds.y) else train
        """int64 (F, n); None: all examples."""

    @property
    def n_train(self) -> int:
        return len(self._parts[0].train)

    @property
    def device(self) -> torch.device:
        return self._dataset.x_train.device

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        if slot.fold is not None and (self._folds.n == 1 or slot.fold >= self._folds.n):
            raise HyperparameterError(f"fold = {slot.fold}: the data have {self._folds.n} fold(s). Leave it out.")
        self._inputs.prepare(slot)
        augment.check(slot.hyperparameters, input_shape=self._input_shape)
        parameters, buffers = self.network.initial(slot)
        return {n: t.to(self._dtype) for n, t in parameters.items()}, {n: t.to(self._dtype) for n, t in buffers.items()}

    def gradients(
        self, parameters: Tensors, buffers: Tensors, index_PB: Tensor, draws: Draws, *, into: Tensors
    ) -> None:
        data, numbers = self._folds.x, draws.numbers
        if self._train is not None:
            own = self._train.index_select(0, numbers["fold"].long()) if len(self._parts) > 1 else self._train
            index_PB = own.expand(len(index_PB), -1).gather(1, index_PB)
        if data.ndim == 4:
            x = augment.gather(data, index_PB, draws)
        else:
            x = augment.words(augment.select(data, index_PB.view(-1)).view(*index_PB.shape, *data.shape[1:]), draws)
        product = self.network.product
        dtype = self._dtype if augment.distorts(numbers) else product
        x = augment.distort(self._inputs.normalized(x, numbers, dtype=dtype), draws).to(product)
        outputs_PBK = self.network.forward(x, parameters, buffers, draws=draws).to(self._dtype)
        targets_PB = self._folds.y.index_select(0, index_PB.view(-1)).view(index_PB.shape)
        self.network.backward(self._loss.gradient(outputs_PBK, targets_PB, draws), parameters, into)

    def measure(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot]) -> Sequence[Evaluation]:
        found: dict[int, Evaluation] = {}
        fit = max(1, EVALUATED_PARAMETERS // max(1, self.network.n_parameters))
        together = fit if self.device.type == "cpu" else len(slots)
        for fold, part in enumerate(self._parts):
            rows = [row for row, slot in enumerate(slots) if (slot.fold or 0) == fold]
            for some in (rows[first : first + together] for first in range(0, len(rows), together)):
                stacks = [_rows_of(each, some) for each in (parameters, buffers)]
                found |= zip(some, self._measured(part, [slots[row] for row in some], *stacks), strict=True)
        return [found[row] for row in range(len(slots))]

    def _measured(self, part: Fold, slots: Sequence[Slot], parameters: Tensors, buffers: Tensors) -> list[Evaluation]:
        """Of slots of one fold."""
        names, switches = named(self._networks.HYPERPARAMETERS)
        given = [slot.numbers for slot in slots]
        numbers = Numbers(given, [*names, "fold", "n_features"], device=self.device, switches=switches)
        stacks, examples = (parameters, buffers, Draws(numbers=numbers)), (self._folds.x, self._folds.y)
        train, _ = self._tested(*stacks, *(each[part.measured] for each in examples), dtype=self.network.product)
        val, losses_PV = self._tested(*stacks, part.x_val, part.y_val, dtype=self._dtype)
        return [
            Evaluation(
                metrics=_prefixed("train", train_metrics) | _prefixed("val", val_metrics),
                confusion=confusion,
                val_losses=losses_V,
            )
            for (train_metrics, _), (val_metrics, confusion), losses_V in zip(train, val, losses_PV, strict=True)
        ]

    def saved(self, weights: Tensors, slot: Slot) -> tuple[Tensors, dict[str, str]]:
        dataset = self._dataset
        configuration = {
            "network": path_of(self._networks.build),
            "hyperparameters": dict(slot.hyperparameters),
            "input_shape": list(self._input_shape),
            "n_outputs": self._n_outputs,
            "classes": list(dataset.classes),
            **self._inputs.told(slot),
            "data_set": dataset.name,
            "checksum": dataset.checksum,
            "fold": slot.fold or 0,
        }
        return self.network.plain(weights, slot.hyperparameters), {"configuration": json.dumps(configuration)}

    def _tested(
        self, parameters: Tensors, buffers: Tensors, draws: Draws, x: Tensor, y: Tensor, *, dtype: torch.dtype
    ) -> tuple[list[Told], Tensor]:
        """What the loss tells of each slot, and each example's loss (P, V); networks compute in this type."""
        if dtype != self._dtype:
            parameters = {n: stack.to(dtype) if stack.ndim > 2 else stack for n, stack in parameters.items()}
        n_slots = len(next(iter(parameters.values())))
        loss_P = torch.zeros(n_slots, dtype=torch.float64, device=self.device)
        sums: dict[str, Tensor] = {}
        losses = []
        fit = max(LEAST_EVALUATED, EVALUATED_NUMBERS // max(1, x[0].numel()))
        size = min(EVALUATION_BATCH, fit) if self.device.type == "cpu" else EVALUATION_BATCH_ON_DEVICE
        for x_B, y_B in zip(torch.split(x, size), torch.split(y, size), strict=True):
            x = self._inputs.normalized(x_B, draws.numbers, shared=True, dtype=dtype)
            outputs_PBK = self.network.forward(x.expand(n_slots, *x_B.shape), parameters, buffers, draws=draws)
            outputs_PBK = outputs_PBK.to(self._dtype)
            losses_PB, more = self._loss.measured(outputs_PBK, y_B.expand(n_slots, -1))
            losses.append(losses_PB)
            loss_P += losses_PB.double().sum(dim=1)
            sums = {name: sums[name] + total if sums else total for name, total in more.items()}
        means, totals = (loss_P / len(y)).tolist(), {name: total.tolist() for name, total in sums.items()}
        told = [
            self._loss.told(mean, {name: total[i] for name, total in totals.items()}, len(y))
            for i, mean in enumerate(means)
        ]
        return told, torch.cat(losses, dim=1)


def _rows_of(stacks: Tensors, rows: list[int]) -> Tensors:
    """Some slots' tensors, without a copy where they lie beside each other."""
    beside = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else None
    return {name: stack[rows if beside is None else beside] for name, stack in stacks.items()}


def _prefixed(part: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {f"{part}_{name}": value for name, value in metrics.items()}


def _unit(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x
