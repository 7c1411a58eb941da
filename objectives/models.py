"""MLP and CNN by width and depth: as one stack of P networks, and as a plain module of one.

P slots, B examples, K outputs. Parameters go by the plain module's names; in the stack a hidden Linear's weight lies
(in, out), the last one's (out, in) and a convolution's (out, h, w, in): as products are fastest, and without a copy.
A stack holds networks with BatchNorm and without: there a norm stands in every block, and passes on what a slot without
it has (layers.BatchNorm); a plain module has what its own trial has.
"""

import math
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from objectives import layers
from objectives.flat import Tensors
from objectives.hyperparameters import NETWORK, HyperparameterError, Value, number
from objectives.network import Arithmetic, Build
from objectives.numbers import Draws
from objectives.streams import generator
from objectives.task import Slot

# Source: torch.nn.init.calculate_gain; GELU's is ReLU's, near enough
_GAIN = {"relu": math.sqrt(2.0), "leaky_relu": math.sqrt(2.0 / (1 + 0.01**2)), "gelu": math.sqrt(2.0), "tanh": 5 / 3}
_MODULES = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "gelu": nn.GELU, "tanh": nn.Tanh}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What decides a network's shapes and graph; only in the plain module `batch_norm` does."""

    model: str
    input_shape: tuple[int, ...]
    """(C, H, W), or (D,)."""
    n_outputs: int
    hidden: tuple[int, ...]
    """Features or channels of each hidden layer."""
    convolutions: int
    """How many of them, from the first, are convolutions."""
    pools: frozenset[int]
    """Numbers (from 1) of the convolutions that 2 x 2 maxima follow."""
    reference_class: bool
    """The first output is 0, so that the others are log odds against it: one output decides between two classes."""
    batch_norm: bool
    norm_position: str
    """ "before" or "after" the activation."""
    activation: str

    @property
    def norm(self) -> str:
        """Of the plain module: "none", or the position."""
        return self.norm_position if self.batch_norm else "none"

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(H, W) that each convolution sees, and at last what leaves them."""
        sizes = [(self.input_shape[1], self.input_shape[2])]
        for i in range(1, self.convolutions + 1):
            height, width = sizes[-1]
            sizes.append((height // 2, width // 2) if i in self.pools else (height, width))
        return tuple(sizes)


def architecture(hyperparameters: Mapping[str, Value], *, input_shape: tuple[int, ...], n_outputs: int) -> Architecture:
    """Read the network's structure; an MLP's widths halve from layer to layer, a CNN's channels double.

    Raises:
        HyperparameterError: a CNN for inputs that are no images, or pools and dense layers that do not fit.
    """
    model = str(hyperparameters["model"])
    hidden, listed, dense = (_layers_listed(hyperparameters, name) for name in ("hidden", "pool", "dense"))
    if model == "cnn" and len(input_shape) != 3:
        raise HyperparameterError(f'model = "cnn" needs images, but an input is a vector {input_shape}. Use "mlp".')
    if model == "mlp" and (listed or dense):
        raise HyperparameterError(
            f'pool = {list(listed)} and dense = {list(dense)} belong to model = "cnn", got "mlp". Leave them out.'
        )
    width, depth = int(number(hyperparameters, "width")), int(number(hyperparameters, "depth"))
    hidden = hidden or tuple(max(width >> i, 1) if model == "mlp" else width << i for i in range(depth))
    n_convolutions = len(hidden) if model == "cnn" else 0
    fits = int(math.log2(min(input_shape[1:]))) if n_convolutions else 0
    if any(i > n_convolutions for i in listed) or len(set(listed)) > fits:
        raise HyperparameterError(
            f"pool = {list(listed)}: must name at most {fits} of the {n_convolutions} blocks, since each halves "
            f"{input_shape[1]} x {input_shape[2]} pixels. List fewer."
        )
    return Architecture(
        model=model,
        input_shape=input_shape,
        n_outputs=n_outputs,
        hidden=hidden + dense,
        convolutions=n_convolutions,
        # none listed: behind each, until a side has one pixel
        pools=frozenset(listed or range(1, min(n_convolutions, fits) + 1)),
        reference_class=bool(hyperparameters["reference_class"]),
        batch_norm=bool(hyperparameters["batch_norm"]),
        norm_position=str(hyperparameters["norm_position"]),
        activation=str(hyperparameters["activation"]),
    )


def _layers_listed(hyperparameters: Mapping[str, Value], name: str) -> tuple[int, ...]:
    value = hyperparameters[name]
    assert isinstance(value, (tuple, list)), name
    return tuple(value)


def shapes(net: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes of one slot, in the stack's layout."""
    found: dict[str, tuple[int, ...]] = {}
    n_in = net.input_shape[0] if net.convolutions else math.prod(net.input_shape)
    for i, n_out in enumerate(net.hidden, start=1):
        found[f"layer{i}.weight"] = (n_out, 3, 3, n_in) if i <= net.convolutions else (n_in, n_out)
        if net.norm_position == "after":
            found[f"layer{i}.bias"] = (n_out,)  # BatchNorm right behind a layer has the only bias that matters
        found[f"norm{i}.weight"] = found[f"norm{i}.bias"] = (n_out,)
        n_in = n_out * (math.prod(net.sizes[-1]) if i == net.convolutions else 1)
    n_outputs = net.n_outputs - net.reference_class
    return found | {"output.weight": (n_outputs, n_in), "output.bias": (n_outputs,)}


def n_parameters(net: Architecture) -> int:
    """Return those of the plain module."""
    found = {name: torch.empty(shape, device="meta") for name, shape in shapes(net).items()}
    return sum(tensor.numel() for tensor in plain(found, batch_norm=net.batch_norm).values())


def initial(
    net: Architecture, hyperparameters: Mapping[str, Value], *, generator: torch.Generator
) -> tuple[Tensors, Tensors]:
    """Draw one slot's parameters and buffers, float32 on the CPU; norms start as the identity.

    Biases start at zero, but with "torch", where they are drawn too. Without BatchNorm the norms' weights are zero, and
    stay so.
    """
    parameters: Tensors = {}
    if hyperparameters["initialization"] == "torch":
        parameters = _of_torch(net, batch_norm=bool(hyperparameters["batch_norm"]), generator=generator)
    for name, shape in shapes(net).items():
        if name not in parameters and len(shape) > 1:
            parameters[name] = _weight(net, name, shape, hyperparameters, generator)
        elif name not in parameters:
            scales = hyperparameters["batch_norm"] and name.startswith("norm") and name.endswith("weight")
            parameters[name] = torch.full(shape, 1.0 if scales else 0.0)
    buffers: Tensors = {}
    for i, n_out in enumerate(net.hidden, start=1):
        buffers[f"norm{i}.running_mean"] = torch.zeros(n_out)
        buffers[f"norm{i}.running_var"] = torch.ones(n_out)
    return parameters, buffers


def _weight(
    net: Architecture,
    name: str,
    shape: tuple[int, ...],
    hyperparameters: Mapping[str, Value],
    generator: torch.Generator,
) -> Tensor:
    """Source: He et al. (2015) for "kaiming" (normal, fan in), Glorot and Bengio (2010) for "xavier" (normal)."""
    initialization, bound = str(hyperparameters["initialization"]), number(hyperparameters, "init_bound")
    if initialization == "uniform":
        return torch.rand(shape, generator=generator).mul_(2 * bound).sub_(bound)
    n_out = shape[1] if len(shape) == 2 and name != "output.weight" else shape[0]
    fan_in, kernel = max(math.prod(shape) // n_out, 1), math.prod(shape[1:3]) if len(shape) == 4 else 1
    gain = 1.0 if name == "output.weight" else _GAIN[net.activation]
    std = {
        "kaiming": gain / math.sqrt(fan_in),
        "xavier": gain * math.sqrt(2.0 / (fan_in + n_out * kernel)),
        "normal": number(hyperparameters, "init_std"),
    }[initialization]
    return torch.randn(shape, generator=generator).mul_(std)


def _of_torch(net: Architecture, *, batch_norm: bool, generator: torch.Generator) -> Tensors:
    """Draw what the plain module's layers draw when they are made, weights and biases in turn, from this generator.

    Source: torch.nn.Linear.reset_parameters, which convolutions share.
    """
    found: Tensors = {}
    before = net.norm_position == "before"
    for name in (name for name, shape in shapes(net).items() if len(shape) > 1):
        weight = torch.empty(_turned(name, torch.empty(shapes(net)[name], device="meta")).shape)
        fan_in = weight[0].numel()
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        if fan_in:
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        found[name] = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else _turned(name, weight)
        layer = name.removesuffix(".weight")
        if layer == "output" or not (before and batch_norm):
            place = (
                layer.replace("layer", "norm") if before else layer
            )  # where the stack has the only bias that matters
            found[f"{place}.bias"] = torch.empty(len(weight)).uniform_(-bound, bound, generator=generator)
    return found


def _generator(slot: Slot) -> torch.Generator:
    """What initial weights are drawn from: the slot's own seed, or the one that its hyperparameters name.

    Raises:
        HyperparameterError: numbers are to be skipped, but of no named seed.
    """
    seed, skip = (int(number(slot.hyperparameters, name)) for name in ("init_seed", "init_skip"))
    if seed < 0 and skip:
        raise HyperparameterError(f"init_skip = {skip}: has no effect without init_seed. Give both, or leave it out.")
    if seed < 0:
        return generator(slot.seed, "initial weights")
    named = torch.Generator().manual_seed(seed)
    torch.empty(skip).uniform_(generator=named)
    return named


class Network:
    """P networks of one architecture as a row of layers; their parameters and buffers are handed in."""

    def __init__(self, net: Architecture, *, product: torch.dtype, device: torch.device) -> None:
        """Training is to compute products, convolutions and what lies between them in the type `product`."""
        self.product = product
        self._net, self._layers, self._device = net, _layers(net), device
        self._channels_last = net.convolutions > 0

    @property
    def n_parameters(self) -> int:
        return n_parameters(self._net)

    @property
    def why_alone(self) -> str:
        alone = self._channels_last and self._device.type == "cpu"
        return "on a CPU convolutions gain nothing from company" if alone else ""

    def initial(self, slot: Slot) -> tuple[Tensors, Tensors]:
        return initial(self._net, slot.hyperparameters, generator=_generator(slot))

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, *, draws: Draws) -> Tensor:
        """Return the outputs (P, B, K) for normalized inputs (P, B, C, H, W) or (P, B, D), computed in their type.

        Args:
            draws: of this update, in training; in eval mode the slots' numbers alone: no dropout, running statistics.
        """
        x = x.permute(0, 1, 3, 4, 2) if self._channels_last else x.flatten(2)
        for layer in self._layers:
            x = layer.forward(x, parameters, buffers, draws)
        return x

    def backward(self, dy_PBK: Tensor, parameters: Tensors, gradients: Tensors) -> None:
        """Write the gradients of all parameters, from that of the outputs of the last forward in training."""
        dy_PBK = dy_PBK.to(self.product)
        for layer in reversed(self._layers):
            dy_PBK = layer.backward(dy_PBK, parameters, gradients)

    def plain(self, weights: Mapping[str, Tensor], hyperparameters: Mapping[str, Value]) -> Tensors:
        return plain(weights, batch_norm=bool(hyperparameters["batch_norm"]))


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Satisfies objectives.network.Networks with MLPs and CNNs."""

    HYPERPARAMETERS: ClassVar = NETWORK

    @property
    def build(self) -> Build:
        return module

    def stacked(
        self,
        hyperparameters: Mapping[str, Value],
        *,
        input_shape: tuple[int, ...],
        n_outputs: int,
        arithmetic: Arithmetic,
        device: torch.device,
    ) -> Network:
        net = architecture(hyperparameters, input_shape=input_shape, n_outputs=n_outputs)
        return Network(net, product=arithmetic.product, device=device)


def _layers(net: Architecture) -> list[layers.Layer]:
    found: list[layers.Layer] = []
    for i in range(1, len(net.hidden) + 1):
        kind, before = layers.Conv2d if i <= net.convolutions else layers.Linear, net.norm_position == "before"
        bias = layers.Bias(name=f"norm{i}.bias" if before else f"layer{i}.bias", of_norm=before)
        found.append(kind(name=f"layer{i}", bias=bias, first=i == 1))
        block: list[layers.Layer] = [layers.Activation(kind=net.activation)]
        block.insert(0 if before else 1, layers.BatchNorm(name=f"norm{i}", shifts=before))
        if i in net.pools and before and net.activation != "gelu":
            # a maximum commutes with what only rises: a quarter of the numbers to activate
            block.insert(-1, layers.MaxPool2d())
        elif i in net.pools:
            block.append(layers.MaxPool2d())
        found += [*block, layers.Dropout(name=f"dropout {i}")]
        if i == net.convolutions:
            found.append(layers.Flatten())
    found.append(
        layers.Linear(name="output", bias=layers.Bias(name="output.bias"), transposed=True, first=not net.hidden)
    )
    return [*found, layers.ReferenceClass()] if net.reference_class else found


def module(hyperparameters: Mapping[str, Value], *, input_shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Return the network as a plain module, as `single` does."""
    net = architecture(hyperparameters, input_shape=input_shape, n_outputs=n_outputs)
    return single(net, dropout=number(hyperparameters, "dropout"))


def single(net: Architecture, *, dropout: float = 0.0) -> nn.Sequential:
    """Return the same network as a plain module, for inputs (B, ...), with torch's own initial weights."""
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = net.input_shape[0] if net.convolutions else math.prod(net.input_shape)
    if not net.convolutions:
        modules["flatten"] = nn.Flatten()
    for i, n_out in enumerate(net.hidden, start=1):
        cnn = i <= net.convolutions
        modules[f"layer{i}"] = (
            nn.Conv2d(n_in, n_out, 3, padding=1, bias=net.norm != "before")
            if cnn
            else nn.Linear(n_in, n_out, bias=net.norm != "before")
        )
        norm = nn.BatchNorm2d(n_out) if cnn else nn.BatchNorm1d(n_out)
        if net.norm == "before":
            modules[f"norm{i}"] = norm
        modules[f"activation{i}"] = _MODULES[net.activation]()
        if net.norm == "after":
            modules[f"norm{i}"] = norm
        if i in net.pools:
            modules[f"pool{i}"] = nn.MaxPool2d(2)
        modules[f"dropout{i}"] = nn.Dropout(dropout)
        n_in = n_out
        if i == net.convolutions:
            modules["flatten"] = nn.Flatten()
            n_in *= math.prod(net.sizes[-1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # where inputs have no features
        modules["output"] = nn.Linear(n_in, net.n_outputs - net.reference_class)
    if net.reference_class:
        modules["reference_class"] = nn.ConstantPad1d((1, 0), 0.0)
    return nn.Sequential(modules)


def plain(weights: Mapping[str, Tensor], *, batch_norm: bool) -> Tensors:
    """Return one slot's parameters and buffers as the plain module has them, for `load_state_dict`."""
    found = {name: _turned(name, tensor).contiguous() for name, tensor in weights.items()}
    if batch_norm:
        return found
    layers_own = {name: tensor for name, tensor in found.items() if not name.startswith("norm")}
    biases = {n.replace("norm", "layer"): t for n, t in found.items() if n.startswith("norm") and n.endswith(".bias")}
    return biases | layers_own


def _turned(name: str, tensor: Tensor) -> Tensor:
    if tensor.ndim == 4:
        return tensor.permute(0, 3, 1, 2)
    return tensor.t() if tensor.ndim == 2 and name != "output.weight" else tensor
