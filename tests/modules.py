"""Modules of a user's own, unchanged classes of torch and torchvision among them; and what trains them one by one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

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
        size=given.get("size", 8),
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
