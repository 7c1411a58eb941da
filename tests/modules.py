"""Modules of a user's own, unchanged classes of torch and torchvision among them; and what trains them one by one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from objectives.hyperparameters import NETWORK, Hyperparameter
from objectives.own_network import classification_of, regression_of

Given = Mapping[str, Any]


def residual(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """torchvision's resnet18 with the stem for small images, and dropout before its last layer."""
    net: nn.Module = resnet18()
    net.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    net.fc = nn.Sequential(nn.Dropout(given["dropout"]), nn.Linear(512, n_outputs))
    return net


class Rows(nn.Module):
    """A Transformer that reads an image row by row."""

    def __init__(self, *, channels: int, height: int, width: int, n_outputs: int, dropout: float, size: int) -> None:
        super().__init__()
        self.embedding = nn.Linear(channels * width, size)
        self.position = nn.Parameter(0.1 * torch.randn(height, size))
        layer = nn.TransformerEncoderLayer(size, nhead=2, dim_feedforward=2 * size, dropout=dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(size, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)
        encoded: Tensor = self.encoder(self.embedding(rows) + self.position).mean(dim=1)
        logits: Tensor = self.head(encoded)
        return logits


def transformer(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    channels, height, width = input_shape
    return Rows(
        channels=channels,
        height=height,
        width=width,
        n_outputs=n_outputs,
        dropout=given["dropout"],
        size=given.get("width", 8),
    )


def perceptron(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    n_inputs = int(torch.tensor(input_shape).prod())
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_inputs, 12),
        nn.BatchNorm1d(12),
        nn.ReLU(inplace=True),
        nn.Dropout(given["dropout"]),
        nn.Linear(12, n_outputs),
    )


def wide_perceptron(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    n_inputs = int(torch.tensor(input_shape).prod())
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in ((n_inputs, 256), (256, 128)):
        layers += [nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(), nn.Dropout(given["dropout"])]
    return nn.Sequential(*layers, nn.Linear(128, n_outputs))


def small_cnn(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    layers: list[nn.Module] = []
    for n_in, n_out in ((input_shape[0], 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(given["dropout"]),
        nn.Linear(64 * (input_shape[1] // 8) * (input_shape[2] // 8), n_outputs),
    )


class Odd(nn.Module):
    """Weights that are used twice, weights that stay as they are, a buffer that is replaced, dropout as a function."""

    average: Tensor

    def __init__(self, n_inputs: int, n_outputs: int, dropout: float) -> None:
        super().__init__()
        self.first, self.fixed = nn.Linear(n_inputs, 8), nn.Linear(8, 8).requires_grad_(False)
        self.there, self.back, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, n_outputs)
        self.back.weight = self.there.weight
        self.register_buffer("average", torch.zeros(8))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.flatten(1))
        if self.training:
            self.average = 0.9 * self.average + 0.1 * x.detach().mean(dim=0)
        x = self.back(self.there(self.fixed(x - self.average)).relu())
        logits: Tensor = self.last(functional.dropout(x, self.dropout, self.training))
        return logits


def odd(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    return Odd(int(torch.tensor(input_shape).prod()), n_outputs, given["dropout"])


DROPOUT = {"dropout": NETWORK["dropout"]}
Transformer = classification_of(transformer, DROPOUT | {"width": Hyperparameter(kind="int", default=8, low=2)})


def curve(given: Given, *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """A number from a vector."""
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.Tanh(), nn.Linear(8, n_outputs))


Curve = regression_of(curve)
