"""An objective of one's own: a plain module, fused through torch.func; `objective = "package.module:TinyConvnet"`."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.functional import cross_entropy

from objectives.data import load
from objectives.flat import Tensors
from objectives.hyperparameters import TRAINING, Hyperparameter, Value, completed, number
from objectives.numbers import Draws
from objectives.population import Evaluation, Measurement, Population, Slot, differentiate
from objectives.test_set import load_test

Given = Mapping[str, Value]


class TinyConvnet:
    HYPERPARAMETERS: ClassVar = {**TRAINING, "width": Hyperparameter(kind="int", default=8, low=1, structural=True)}
    METRICS: ClassVar = {
        "val_loss": "minimize",
        "val_accuracy": "maximize",
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
    ) -> None:
        self.data = load(data, data_dir=data_dir, seed=seed, device=device, progress=progress)
        self.load_test = partial(load_test, data, data_dir=data_dir, progress=progress)
        self.facts = {
            "data_set": self.data.name,
            "checksum": self.data.checksum,
            "n_train": len(self.data.y_train),
            "n_validation": len(self.data.y_val),
            "input_shape": list(self.data.x_train.shape[1:]),
            "classes": list(self.data.classes),
        }

    def n_parameters(self, hyperparameters: Given) -> int:
        return sum(p.numel() for p in network(hyperparameters).parameters())

    def capacity(self, hyperparameters: Given) -> int:
        return 8

    def build(self, hyperparameters: Given, *, epochs: int) -> Population:
        return Population(Task(self, hyperparameters), hyperparameters, declared=self.HYPERPARAMETERS, epochs=epochs)

    def measure(self, checkpoint: Path, predictions: Path, *, part: str = "validation") -> Measurement:
        if part == "test":
            test = self.load_test()
            x, y, index, prefix, checksum = test.x, test.y, test.index, "test", test.checksum
        else:
            x, y, index, prefix, checksum = self.data.x_val, self.data.y_val, self.data.val_index, "val", ""
        outputs = rebuilt(checkpoint)(x / 255).detach()
        with predictions.open("wb") as file:
            np.savez(file, outputs=outputs.numpy(), targets=y.numpy(), index=index.numpy())
        metrics = {"loss": cross_entropy(outputs, y).item(), "accuracy": accuracy(outputs, y)}
        told = {f"{prefix}_{name}": value for name, value in metrics.items()}
        return Measurement(metrics=told, n_examples=len(y), checksum=checksum)

    def export_model(self, checkpoint: Path, destination: Path) -> None:
        example = self.data.x_val[:2] / 255
        batch = ({0: torch.export.Dim("batch", min=1)},)
        torch.export.save(torch.export.export(rebuilt(checkpoint), (example,), dynamic_shapes=batch), destination)
        np.save(destination.with_suffix(".npy"), example.numpy())


class Task:
    def __init__(self, objective: TinyConvnet, hyperparameters: Given) -> None:
        self.data, self.net = objective.data, network(hyperparameters)
        self.n_train, self.device = len(self.data.y_train), self.data.x_train.device

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        with torch.random.fork_rng():
            torch.manual_seed(slot.seed)
            return dict(network(slot.hyperparameters).named_parameters()), {}

    def gradients(
        self, parameters: Tensors, buffers: Tensors, index_PB: Tensor, draws: Draws, *, into: Tensors
    ) -> None:
        def loss(own: Tensors, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(functional_call(self.net, own, (x,)), y)

        x, y = self.data.x_train[index_PB] / 255, self.data.y_train[index_PB]
        differentiate(lambda leaves: vmap(loss)(leaves, x, y), parameters, into=into)

    def measure(self, parameters: Tensors, buffers: Tensors, slots: Sequence[Slot]) -> Sequence[Evaluation]:
        x, y = self.data.x_val / 255, self.data.y_val
        outputs = vmap(lambda own: functional_call(self.net, own, (x,)))(parameters)
        return [
            Evaluation(metrics={"val_loss": cross_entropy(out, y).item(), "val_accuracy": accuracy(out, y)})
            for out in outputs
        ]

    def saved(self, weights: Tensors, slot: Slot) -> tuple[Tensors, dict[str, str]]:
        return weights, {"hyperparameters": json.dumps(dict(slot.hyperparameters))}


def network(hyperparameters: Given) -> nn.Sequential:
    width = int(number(completed(hyperparameters, TinyConvnet.HYPERPARAMETERS), "width"))
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(9 * width, 10))


def rebuilt(checkpoint: Path) -> nn.Sequential:
    with safe_open(checkpoint, framework="pt") as opened:
        net = network(json.loads(opened.metadata()["hyperparameters"]))
    net.load_state_dict(load_file(checkpoint))
    return net.eval()


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    return (outputs.argmax(dim=1) == targets).double().mean().item()
