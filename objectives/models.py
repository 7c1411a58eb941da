"""MLP and CNN by width and depth: as one stack of P networks, and as a plain module of one.

P slots, B examples, K outputs. Parameters go by the plain module's names; in the stack a Linear's weight lies (in, out)
and a convolution's (out, h, w, in), so that products need no copy and gradients come out in the weights' own layout.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from objectives import layers
from objectives.hyperparameters import HyperparameterError, Value, number

Tensors = dict[str, Tensor]

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
    return found | {"output.weight": (n_features, net.n_outputs), "output.bias": (net.n_outputs,)}


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
        n_out = shape[0] if len(shape) == 4 else shape[1]
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


def forward(
    net: Architecture,
    parameters: Tensors,
    buffers: Tensors,
    x: Tensor,
    *,
    product: torch.dtype,
    drop: Callable[[Tensor, int], Tensor] | None,
) -> Tensor:
    """Return the outputs (P, B, K) for normalized inputs (P, B, ...).

    Args:
        product: the type that products and convolutions are computed in.
        drop: dropout behind hidden layer i (from 1); None means eval mode: no dropout, running statistics.
    """
    cnn = net.model == "cnn"
    x = x.permute(0, 1, 3, 4, 2) if cnn else x.flatten(2)
    for i in range(1, len(net.hidden) + 1):
        layer = layers.conv2d if cnn else layers.linear
        x = layer(x, parameters[f"layer{i}.weight"], parameters.get(f"layer{i}.bias"), product=product)
        if net.norm == "before":
            x = _normalized(x, i, parameters, buffers, training=drop is not None)
        x = layers.ACTIVATIONS[net.activation](x)
        if net.norm == "after":
            x = _normalized(x, i, parameters, buffers, training=drop is not None)
        if cnn and net.sizes[i] != net.sizes[i - 1]:
            x = layers.max_pool2d(x)
        x = x if drop is None else drop(x, i)
    x = x.permute(0, 1, 4, 2, 3).flatten(2) if cnn else x
    return layers.linear(x, parameters["output.weight"], parameters["output.bias"], product=product)


def _normalized(x: Tensor, i: int, parameters: Tensors, buffers: Tensors, *, training: bool) -> Tensor:
    y = layers.batch_norm(
        x.flatten(1, -2),
        parameters[f"norm{i}.weight"],
        parameters[f"norm{i}.bias"],
        running_mean_PD=buffers[f"norm{i}.running_mean"],
        running_var_PD=buffers[f"norm{i}.running_var"],
        training=training,
    )
    return y.reshape(x.shape)


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
    return {name: _turned(tensor).contiguous() for name, tensor in weights.items()}


def _turned(tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.t() if tensor.ndim == 2 else tensor
