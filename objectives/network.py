"""What an objective asks of its networks: to train as a stack of P slots, and to be rebuilt as a plain module of one.

P slots, B examples, K outputs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from objectives.flat import Tensors
from objectives.hyperparameters import Hyperparameter, Value
from objectives.numbers import Draws
from objectives.task import Slot

Build = Callable[..., nn.Module]
"""Called as build(hyperparameters, input_shape=(C, H, W) or (D,), n_outputs=K): a network from (B, ...) to (B, K)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arithmetic:
    """The types that a network is trained in."""

    dtype: torch.dtype
    """Of parameters, activations and evaluation."""
    product: torch.dtype
    """Of products, convolutions and what lies between them, in training."""

    @staticmethod
    def of(precision: str) -> "Arithmetic":
        dtype = torch.float64 if precision == "float64" else torch.float32
        return Arithmetic(dtype=dtype, product=torch.bfloat16 if precision == "bfloat16" else dtype)


class NetworkError(Exception):
    """A network that cannot be trained here; the message is for the user."""

    user_message = True


class Network(Protocol):
    """P networks of one structure; their parameters and buffers are handed in, the leading dimension is the slot."""

    @property
    def n_parameters(self) -> int:
        """Of one slot, those that are trained."""

    @property
    def product(self) -> torch.dtype:
        """The type that it computes in, in training: of inputs, outputs, and weights (of two and more dimensions)."""

    @property
    def why_alone(self) -> str:
        """Why slots take no less time together than one after another, on this device; empty where they do."""

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        """Return one slot's parameters and buffers (without the leading dimension), from its seed alone."""

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, *, draws: Draws) -> Tensor:
        """Return the outputs (P, B, K) for normalized inputs (P, B, C, H, W) or (P, B, D), computed in their type.

        Args:
            draws: of this update, in training, which may change the buffers in place; in eval mode (not
                `draws.training`) the slots' numbers alone.
        """

    def backward(self, dy_PBK: Tensor, parameters: Tensors, gradients: Tensors) -> None:
        """Write the gradients of all parameters, from that of the outputs of the last forward in training.

        Tensors may be of any type; gradients are cast to that of the tensors they are written to.
        """

    def plain(self, weights: Mapping[str, Tensor], hyperparameters: Mapping[str, Value]) -> Tensors:
        """Return one slot's parameters and buffers as its plain module has them, for `load_state_dict`."""


class Networks(Protocol):
    """A family of networks: one for each setting of its hyperparameters."""

    @property
    def HYPERPARAMETERS(self) -> Mapping[str, Hyperparameter]: ...  # noqa: N802 - a constant

    @property
    def build(self) -> Build:
        """Makes the plain module; saved weights name it as "package.module:name"."""

    def stacked(
        self,
        hyperparameters: Mapping[str, Value],
        *,
        input_shape: tuple[int, ...],
        n_outputs: int,
        arithmetic: Arithmetic,
        device: torch.device,
    ) -> Network:
        """Return networks of this structure: of the hyperparameters only the structural ones are read.

        Raises:
            HyperparameterError, NetworkError: this combination, or this network, cannot be trained.
        """


def path_of(build: Build) -> str:
    """Return "package.module:name", by which what builds a network is found again.

    Raises:
        NetworkError: it does not stand in a module under its name.
    """
    path = f"{build.__module__}:{build.__qualname__}"
    if "<" in path:
        raise NetworkError(f"{path}: must be found again by its name. Define it in a module, by def or class.")
    return path
