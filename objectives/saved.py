"""Networks rebuilt from saved weights as plain modules, to be measured, exported and used without this package."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from objectives.hyperparameters import Value
from objectives.network import Build


class CheckpointError(Exception):
    """Saved weights that do not fit; the message is for the user."""

    user_message = True


class Normalize(nn.Module):
    """Images in [0, 1] (B, C, H, W), or raw features (B, D), to mean 0 and standard deviation 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def configuration(checkpoint: Path) -> dict[str, Any]:
    """Return what was written beside the weights.

    That is: network ("package.module:name" of what builds it), hyperparameters, input_shape, n_outputs, classes,
    mean, std, data_set, checksum.

    Raises:
        CheckpointError: the file holds no such description.
    """
    from safetensors import safe_open  # a host that only measures speed may have torch alone

    with safe_open(checkpoint, framework="pt") as opened:
        metadata = opened.metadata() or {}
    if "configuration" not in metadata:
        raise CheckpointError(f"{checkpoint}: these weights do not say how to rebuild their network.")
    found: dict[str, Any] = json.loads(metadata["configuration"])
    return found


def network(checkpoint: Path) -> nn.Sequential:
    """Return the saved network on the CPU in eval mode, float32: normalization, then the layers.

    Its inputs are images in [0, 1] (B, C, H, W), or raw features (B, D); its outputs are logits (B, K).
    """
    from safetensors.torch import load_file

    found = configuration(checkpoint)
    net = build_at(found["network"], checkpoint)(
        _hyperparameters(found), input_shape=tuple(found["input_shape"]), n_outputs=found["n_outputs"]
    )
    weights = load_file(checkpoint)
    net.load_state_dict(weights, strict=False)
    trained = {n for n, t in [*net.named_parameters(), *net.named_buffers()] if t.is_floating_point()}
    if differing := sorted(trained ^ weights.keys()):
        raise CheckpointError(f"{checkpoint}: weights and description disagree: {differing}.")
    shape = (-1, *(1,) * (len(found["input_shape"]) - 1))
    mean, std = (torch.tensor(found[name]) for name in ("mean", "std"))
    if mean.ndim == 1:
        mean, std = mean.view(shape), std.view(shape)
    return nn.Sequential(Normalize(mean, std), net.float()).eval()


def export(checkpoint: Path, destination: Path) -> None:
    """Write the network as a torch.export program (.pt2), any batch size, and an example input (2, ...) as .npy."""
    example = torch.rand(2, *configuration(checkpoint)["input_shape"], generator=torch.Generator().manual_seed(0))
    program = torch.export.export(
        network(checkpoint), (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    torch.export.save(program, destination)
    np.save(destination.with_suffix(".npy"), example.numpy())


def _hyperparameters(found: Mapping[str, Any]) -> dict[str, Value]:
    return {n: tuple(v) if isinstance(v, list) else v for n, v in found["hyperparameters"].items()}


def build_at(path: str, checkpoint: Path) -> Build:
    """Import what builds the network of saved weights.

    Raises:
        CheckpointError: there is no such function any more.
    """
    module, _, name = path.partition(":")
    try:
        build: Build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(
            f"{checkpoint}: its network is built by {path}, which cannot be imported: {error}. Run from its folder."
        ) from error
    return build
