"""MLP and CNN by width and depth: as one stack of P networks, and as a plain module of one.

P slots, B examples, K outputs. Parameters go by the plain module's names; in the stack a hidden Linear's weight lies
(in, out), the last one's (out, in) and a convolution's (out, h, w, in): as products are fastest, and without a copy.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives import layers
from objectives.flat import Tensors
from objectives.hyperparameters import HyperparameterError, Value, number
from objectives.numbers import Draws

# Source: torch.nn.init.calculate_gain; GELU's is ReLU's, near enough
_GAIN = {"relu": math.sqrt(2.0), "leaky_relu": math.sqrt(2.0 / (1 + 0.01**2)), "gelu": math.sqrt(2.0), "tanh": 5 / 3}
_MODULES = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What decides a network's shapes and graph."""

    model: str
    input_shape: tuple[int, ...]
    """(C, H, W), or (D,)."""
    n_outputs: int
    hidden: tuple[int, ...]
    """Features or channels of each hidden layer."""
    norm: str
    """ "none", "before" or "after" the activation."""
    activation: str

    @property
    def hidden_bias(self) -> bool:
        """BatchNorm right behind a layer takes the layer's bias away again: then there is none."""
        return self.norm != "before"

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """CNN: (H, W) that each block sees, and at last what leaves them; 2 x 2 pooling while both are at least 2."""
        sizes = [(self.input_shape[1], self.input_shape[2])]
        for _ in self.hidden:
            height, width = sizes[-1]
            sizes.append((height // 2, width // 2) if min(height, width) >= 2 else (height, width))
        return tuple(sizes)


def architecture(hyperparameters: Mapping[str, Value], *, input_shape: tuple[int, ...], n_outputs: int) -> Architecture:
    """Read the network's structure; an MLP's widths halve from layer to layer, a CNN's channels double.

    Raises:
        HyperparameterError: a CNN for inputs that are no images.
    """
    model, hidden = str(hyperparameters["model"]), hyperparameters["hidden"]
    assert isinstance(hidden, (tuple, list))
    if model == "cnn" and len(input_shape) != 3:
        raise HyperparameterError(f'model = "cnn" needs images, but an input is a vector {input_shape}. Use "mlp".')
    width, depth = int(number(hyperparameters, "width")), int(number(hyperparameters, "depth"))
    by_width = (max(width >> i, 1) if model == "mlp" else width << i for i in range(depth))
    return Architecture(
        model=model,
        input_shape=input_shape,
        n_outputs=n_outputs,
        hidden=tuple(hidden) or tuple(by_width),
        norm=str(hyperparameters["norm_position"]) if hyperparameters["batch_norm"] else "none",
        activation=str(hyperparameters["activation"]),
    )


def shapes(net: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes of one slot, in the stack's layout."""
    found: dict[str, tuple[int, ...]] = {}
    n_in = net.input_shape[0] if net.model == "cnn" else math.prod(net.input_shape)
    for i, n_out in enumerate(net.hidden, start=1):
        found[f"layer{i}.weight"] = (n_out, 3, 3, n_in) if net.model == "cnn" else (n_in, n_out)
        if net.hidden_bias:
            found[f"layer{i}.bias"] = (n_out,)
        if net.norm != "none":
            found[f"norm{i}.weight"] = found[f"norm{i}.bias"] = (n_out,)
        n_in = n_out
    n_features = n_in * math.prod(net.sizes[-1]) if net.model == "cnn" else n_in
    return found | {"output.weight": (net.n_outputs, n_features), "output.bias": (net.n_outputs,)}


def n_parameters(net: Architecture) -> int:
    return sum(math.prod(shape) for shape in shapes(net).values())


def initial(
    net: Architecture, *, initialization: str, init_std: float, generator: torch.Generator
) -> tuple[Tensors, Tensors]:
    """Draw one slot's parameters and buffers, float32 on the CPU; biases start at zero, norms as the identity.

    Source: He et al. (2015) for "kaiming" (normal, fan in), Glorot and Bengio (2010) for "xavier" (normal).
    """
    parameters: Tensors = {}
    for name, shape in shapes(net).items():
        if len(shape) == 1:
            parameters[name] = torch.full(shape, 1.0 if name.startswith("norm") and "weight" in name else 0.0)
            continue
        n_out = shape[1] if len(shape) == 2 and name != "output.weight" else shape[0]
        fan_in, kernel = math.prod(shape) // n_out, math.prod(shape[1:3]) if len(shape) == 4 else 1
        gain = 1.0 if name == "output.weight" else _GAIN[net.activation]
        std = {
            "kaiming": gain / math.sqrt(fan_in),
            "xavier": gain * math.sqrt(2.0 / (fan_in + n_out * kernel)),
            "normal": init_std,
        }[initialization]
        parameters[name] = torch.randn(shape, generator=generator).mul_(std)
    buffers: Tensors = {}
    for i, n_out in enumerate(net.hidden if net.norm != "none" else (), start=1):
        buffers[f"norm{i}.running_mean"] = torch.zeros(n_out)
        buffers[f"norm{i}.running_var"] = torch.ones(n_out)
    return parameters, buffers


class Network:
    """P networks of one architecture as a row of layers; their parameters and buffers are handed in."""

    def __init__(self, net: Architecture, *, product: torch.dtype) -> None:
        """Products and convolutions of the training are computed in the type `product`."""
        self._layers = _layers(net, product)
        self._channels_last = net.model == "cnn"

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, *, draws: Draws | None) -> Tensor:
        """Return the outputs (P, B, K) for normalized inputs (P, B, C, H, W) or (P, B, D).

        Args:
            draws: of this update, in training; None means eval mode: no dropout, running statistics.
        """
        x = x.permute(0, 1, 3, 4, 2) if self._channels_last else x.flatten(2)
        for layer in self._layers:
            x = layer.forward(x, parameters, buffers, draws)
        return x

    def backward(self, dy_PBK: Tensor, parameters: Tensors, gradients: Tensors) -> None:
        """Write the gradients of all parameters, from that of the outputs of the last forward in training."""
        for layer in reversed(self._layers):
            dy_PBK = layer.backward(dy_PBK, parameters, gradients)


def _layers(net: Architecture, product: torch.dtype) -> list[layers.Layer]:
    found: list[layers.Layer] = []
    cnn = net.model == "cnn"
    for i in range(1, len(net.hidden) + 1):
        name, first, bias = f"layer{i}", i == 1, net.hidden_bias
        found.append(
            layers.Conv2d(name=name, product=product, bias=bias, first=first)
            if cnn
            else layers.Linear(name=name, product=product, bias=bias, first=first)
        )
        block: list[layers.Layer] = [layers.Activation(kind=net.activation)]
        pooled = cnn and net.sizes[i] != net.sizes[i - 1]
        if net.norm == "before":
            block.insert(0, layers.BatchNorm(name=f"norm{i}"))
        if net.norm == "after":
            block.append(layers.BatchNorm(name=f"norm{i}"))
        if pooled and net.norm != "after" and net.activation != "gelu":
            # a maximum commutes with what only rises: a quarter of the numbers to activate
            block.insert(-1, layers.MaxPool2d())
        elif pooled:
            block.append(layers.MaxPool2d())
        found += [*block, layers.Dropout(name=f"dropout {i}")]
    if cnn:
        found.append(layers.Flatten())
    output = layers.Linear(name="output", product=product, transposed=True, first=not net.hidden)
    return [*found, output]


def single(net: Architecture, *, dropout: float = 0.0) -> nn.Sequential:
    """Return the same network as a plain module, for inputs (B, ...), with torch's own initial weights."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    cnn = net.model == "cnn"
    n_in = net.input_shape[0] if cnn else math.prod(net.input_shape)
    if not cnn:
        modules["flatten"] = nn.Flatten()
    for i, n_out in enumerate(net.hidden, start=1):
        modules[f"layer{i}"] = (
            nn.Conv2d(n_in, n_out, 3, padding=1, bias=net.hidden_bias)
            if cnn
            else nn.Linear(n_in, n_out, bias=net.hidden_bias)
        )
        norm = nn.BatchNorm2d(n_out) if cnn else nn.BatchNorm1d(n_out)
        if net.norm == "before":
            modules[f"norm{i}"] = norm
        modules[f"activation{i}"] = _MODULES[net.activation]()
        if net.norm == "after":
            modules[f"norm{i}"] = norm
        if cnn and net.sizes[i] != net.sizes[i - 1]:
            modules[f"pool{i}"] = nn.MaxPool2d(2)
        modules[f"dropout{i}"] = nn.Dropout(dropout)
        n_in = n_out
    if cnn:
        modules["flatten"] = nn.Flatten()
        n_in *= math.prod(net.sizes[-1])
    modules["output"] = nn.Linear(n_in, net.n_outputs)
    return nn.Sequential(modules)


def plain(weights: Mapping[str, Tensor]) -> Tensors:
    """Return one slot's parameters and buffers in the plain module's layout, for `load_state_dict`."""
    return {name: _turned(name, tensor).contiguous() for name, tensor in weights.items()}


def _turned(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.t() if tensor.ndim == 2 and name != "output.weight" else tensor
