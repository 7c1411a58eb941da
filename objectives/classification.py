"""Classification of images or vectors by networks of one family: cross-entropy, accuracy and confusion counts.

P slots, B examples, C H W image, D features, K classes, V validation examples.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from objectives import augment, saved
from objectives.data import Dataset, load, stratified_split
from objectives.flat import Tensors
from objectives.hyperparameters import (
    AUGMENTATION,
    TRAINING,
    Hyperparameter,
    HyperparameterError,
    Value,
    completed,
)
from objectives.models import BuiltIn
from objectives.network import Arithmetic, Network, Networks
from objectives.numbers import Draws, Numbers, named
from objectives.population import Evaluation, Population, Slot

EVALUATION_BATCH, EVALUATION_BATCH_ON_DEVICE = 500, 5000
"""Examples at once: what stays in a core's cache; what keeps a GPU busy."""
COMMON: Mapping[str, Hyperparameter] = {
    **TRAINING,
    **AUGMENTATION,
    "label_smoothing": Hyperparameter(kind="float", default=0.0, low=0.0, high=1.0, high_open=True),
}
"""What every network's classification accepts."""
BUILT_IN = BuiltIn()


class Classification:
    """Satisfies search.contract.Objective; the class itself is an ObjectiveFactory."""

    HYPERPARAMETERS: ClassVar[Mapping[str, Hyperparameter]] = {**BuiltIn.HYPERPARAMETERS, **COMMON}
    METRICS: ClassVar[Mapping[str, str]] = {
        "train_loss": "minimize",
        "val_loss": "minimize",
        "train_accuracy": "maximize",
        "val_accuracy": "maximize",
        "val_loss_se": "none",
        "penalty": "none",
        "weight_norm": "none",
        "lr": "none",
    }

    def __init__(
        self,
        *,
        data: Mapping[str, object],
        data_dir: Path,
        seed: int,
        device: str,
        precision: str,
        progress: Callable[[str], None],
        networks: Networks = BUILT_IN,
    ) -> None:
        """Load and split the data.

        Raises:
            DataError: they are missing, damaged or of the wrong form.
        """
        self._dataset = load(data, data_dir=data_dir, seed=seed, device=device, progress=progress)
        self._seed, self._precision, self._networks = seed, precision, networks
        self._declared = {**networks.HYPERPARAMETERS, **COMMON}
        torch.backends.cudnn.allow_tf32 = False  # float32 is what was asked for, and what evaluation is done in

    @property
    def facts(self) -> Mapping[str, object]:
        return self._dataset.facts

    def n_parameters(self, hyperparameters: Mapping[str, Value]) -> int:
        return self._task(hyperparameters).network.n_parameters

    def capacity(self, hyperparameters: Mapping[str, Value]) -> int:
        """The most slots that make sense.

        On a CPU some networks gain nothing from company; and beyond 8 a doubling saves a fifth of the time at best,
        while many trials in flight cost the search (tests/benchmarks/README.md).
        """
        device = self._dataset.x_train.device
        if device.type == "cpu":
            return 8 if self._task(hyperparameters).network.gains else 1
        free_bytes, _ = torch.cuda.mem_get_info(device)
        # parameters, gradients, two moments, the best weights, and as much again for activations and temporaries
        return min(max(free_bytes // (self.n_parameters(hyperparameters) * 4 * 10), 1), 64)

    def build(self, hyperparameters: Mapping[str, Value], *, epochs: int) -> Population:
        """An empty population of this structure.

        Raises:
            HyperparameterError: this combination cannot be trained.
        """
        return Population(self._task(hyperparameters), hyperparameters, declared=self._declared, epochs=epochs)

    def measure(self, checkpoint: Path, predictions: Path) -> Mapping[str, float]:
        """Validation loss and accuracy of saved weights; writes outputs (V, K), targets and index (V,) as npz.

        Raises:
            CheckpointError: the weights were trained on other data.
        """
        dataset, found = self._dataset, saved.configuration(checkpoint)
        if found["checksum"] != dataset.checksum:
            raise saved.CheckpointError(
                f"{checkpoint}: trained on {found['data_set']} ({found['checksum']}), but the data are "
                f"{dataset.name} ({dataset.checksum}). Measure on the data it was trained on."
            )
        net, x_val = saved.network(checkpoint), dataset.x_val.cpu()
        with torch.inference_mode():
            outputs = torch.cat([net(_unit(batch)) for batch in torch.split(x_val, EVALUATION_BATCH)])
        targets = dataset.y_val.cpu()
        np.savez(predictions, outputs=outputs.numpy(), targets=targets.numpy(), index=dataset.val_index.cpu().numpy())
        return {
            "val_loss": functional.cross_entropy(outputs, targets).item(),
            "val_accuracy": (outputs.argmax(1) == targets).double().mean().item(),
        }

    def export_model(self, checkpoint: Path, destination: Path) -> None:
        """Write the network for images in [0, 1] (or raw features) as .pt2, with an example input beside it (.npy)."""
        saved.export(checkpoint, destination)

    def _task(self, hyperparameters: Mapping[str, Value]) -> "ClassificationTask":
        return ClassificationTask(
            self._dataset,
            completed(hyperparameters, self._declared),
            seed=self._seed,
            precision=self._precision,
            networks=self._networks,
        )


class ClassificationTask:
    """Satisfies objectives.population.Task for the networks of one structure."""

    def __init__(
        self,
        dataset: Dataset,
        hyperparameters: Mapping[str, Value],
        *,
        seed: int,
        precision: str,
        networks: Networks = BUILT_IN,
    ) -> None:
        """Only structural hyperparameters are read; the seed draws the measured part of the training set."""
        self._dataset, self._networks, arithmetic = dataset, networks, Arithmetic.of(precision)
        self._dtype, self._input_shape = arithmetic.dtype, tuple(dataset.x_train.shape[1:])
        self.network: Network = networks.stacked(
            hyperparameters,
            input_shape=self._input_shape,
            n_outputs=len(dataset.classes),
            arithmetic=arithmetic,
            device=self.device,
        )
        scale = 255 if dataset.x_train.dtype == torch.uint8 else 1
        shape, each = dataset.x_train.shape[1:], (-1, *(1,) * (dataset.x_train.ndim - 2))
        # a number for each pixel, not for each channel: plain rows are what vector units are fastest at
        self._mean = (dataset.mean.double() * scale).to(self._dtype).view(each).expand(shape).contiguous()
        self._inverse_std = (1 / (dataset.std.double() * scale)).to(self._dtype).view(each).expand(shape).contiguous()
        _, part = stratified_split(
            dataset.y_train.cpu().numpy(), n_val=min(len(dataset.y_val), len(dataset.y_train)), seed=seed
        )
        self._measured_part = torch.from_numpy(part).to(self.device)

    @property
    def n_train(self) -> int:
        return len(self._dataset.y_train)

    @property
    def device(self) -> torch.device:
        return self._dataset.x_train.device

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        if slot.fold is not None:
            raise HyperparameterError(f"fold = {slot.fold}: classification has one split and no folds. Leave it out.")
        augment.check(slot.hyperparameters, input_shape=self._input_shape)
        parameters, buffers = self.network.initial(slot)
        return {n: t.to(self._dtype) for n, t in parameters.items()}, {n: t.to(self._dtype) for n, t in buffers.items()}

    def gradients(
        self, parameters: Tensors, buffers: Tensors, index_PB: Tensor, draws: Draws, *, into: Tensors
    ) -> None:
        data = self._dataset.x_train
        if data.ndim == 4:
            x = augment.gather(data, index_PB, draws)
        else:
            x = augment.select(data, index_PB.view(-1)).view(*index_PB.shape, *data.shape[1:])
        x = augment.distort(self._normalized(x), draws)
        logits_PBK = self.network.forward(x, parameters, buffers, draws=draws)
        targets_PB = self._dataset.y_train.index_select(0, index_PB.view(-1)).view(index_PB.shape)
        dlogits_PBK = _loss_gradient(logits_PBK, targets_PB, draws)
        self.network.backward(dlogits_PBK, parameters, into)

    def measure(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot]) -> Sequence[Evaluation]:
        dataset, part, n_classes = self._dataset, self._measured_part, len(self._dataset.classes)
        names, switches = named(self._networks.HYPERPARAMETERS)
        given = [slot.hyperparameters for slot in slots]
        draws = Draws(numbers=Numbers(given, names, device=self.device, switches=switches))
        loss_P, counts, _ = self._tested(parameters, buffers, draws, dataset.x_train[part], dataset.y_train[part])
        val_loss_P, val_counts, losses_PV = self._tested(parameters, buffers, draws, dataset.x_val, dataset.y_val)
        losses = torch.stack([loss_P, val_loss_P], dim=1).tolist()
        confusions = torch.stack([counts, val_counts], dim=1).view(-1, 2, n_classes, n_classes).tolist()
        return [
            Evaluation(
                metrics={
                    "train_loss": own_losses[0],
                    "val_loss": own_losses[1],
                    "train_accuracy": _accuracy(train_counts),
                    "val_accuracy": _accuracy(own_counts),
                },
                confusion=tuple(tuple(row) for row in own_counts),
                val_losses=losses_V,
            )
            for own_losses, (train_counts, own_counts), losses_V in zip(losses, confusions, losses_PV, strict=True)
        ]

    def saved(self, weights: Tensors, hyperparameters: Mapping[str, Value]) -> tuple[Tensors, dict[str, str]]:
        dataset = self._dataset
        configuration = {
            "network": saved.path_of(self._networks.build),
            "hyperparameters": dict(hyperparameters),
            "input_shape": list(self._input_shape),
            "classes": list(dataset.classes),
            "mean": dataset.mean.tolist(),
            "std": dataset.std.tolist(),
            "data_set": dataset.name,
            "checksum": dataset.checksum,
        }
        return self.network.plain(weights, hyperparameters), {"configuration": json.dumps(configuration)}

    def _tested(
        self, parameters: Tensors, buffers: Tensors, draws: Draws, x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss (P,), float64, counts (P, K * K) of [true class][predicted class], each example's loss (P, V)."""
        n_slots, n_classes = len(next(iter(parameters.values()))), len(self._dataset.classes)
        loss_P = torch.zeros(n_slots, dtype=torch.float64, device=self.device)
        counts = torch.zeros(n_slots, n_classes**2, dtype=torch.int64, device=self.device)
        losses = []
        size = EVALUATION_BATCH if self.device.type == "cpu" else EVALUATION_BATCH_ON_DEVICE
        for x_B, y_B in zip(torch.split(x, size), torch.split(y, size), strict=True):
            shared = self._normalized(x_B).expand(n_slots, *x_B.shape)
            logits_PBK = self.network.forward(shared, parameters, buffers, draws=draws)
            targets_PB = y_B.expand(n_slots, -1)
            losses_PB = functional.cross_entropy(logits_PBK.flatten(0, 1), targets_PB.flatten(), reduction="none")
            losses.append(losses_PB.view(n_slots, -1))
            loss_P += losses[-1].double().sum(dim=1)
            cells_PB = targets_PB * n_classes + logits_PBK.argmax(dim=2)
            counts.scatter_add_(1, cells_PB, torch.ones_like(cells_PB))
        return loss_P / len(y), counts, torch.cat(losses, dim=1)

    def _normalized(self, x: Tensor) -> Tensor:
        return x.to(self._dtype, copy=True).sub_(self._mean).mul_(self._inverse_std)


def _loss_gradient(logits_PBK: Tensor, targets_PB: Tensor, draws: Draws) -> Tensor:
    """Return the gradient of each slot's mean cross-entropy: softmax minus target, over B.

    The target is spread evenly over all classes by its part `label_smoothing`.
    Source: Szegedy et al. (2016), as torch.nn.functional.cross_entropy(label_smoothing=) has it.
    """
    gradient_PBK = torch.softmax(logits_PBK, dim=2)
    smoothing_P11 = draws.numbers["label_smoothing"].to(gradient_PBK.dtype).view(-1, 1, 1)
    if draws.numbers.used("label_smoothing"):
        gradient_PBK -= smoothing_P11 / logits_PBK.shape[2]
    hard_PB1 = (smoothing_P11 - 1).expand(*targets_PB.shape, 1)
    gradient_PBK.scatter_add_(2, targets_PB.unsqueeze(2), hard_PB1)
    return gradient_PBK.mul_(1 / targets_PB.shape[1])


def _accuracy(counts: Sequence[Sequence[int]]) -> float:
    return sum(row[i] for i, row in enumerate(counts)) / sum(map(sum, counts))


def _unit(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x
