"""Layers of P networks at once: the leading dimension of every tensor is the slot.

Each layer goes forward and, in training, backward: it keeps what its gradient needs, writes the gradients of its
parameters into the stacks given, and returns the gradient of its input. Without a tape an update takes a third of the
operations that automatic differentiation needs, and the same ones every time, as a CUDA graph wants them.

Activations have the type that products are computed in, parameters and their gradients their own: in bfloat16 weights
are cast once an update, and kept for backward.

P slots, B examples, D and E features in and out, C and O channels in and out, H W image, N examples (times positions).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from objectives.flat import Tensors
from objectives.numbers import Draws, Part
from objectives.streams import bits

aten: Any = torch.ops.aten
EPS, STATISTICS_MOMENTUM = 1e-5, 0.1
"""Of BatchNorm, as torch.nn has them."""


class Layer(Protocol):
    """A layer remembers its last forward in training: one backward belongs to it."""

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        """Return the outputs, in eval mode if nothing is drawn. May overwrite x."""

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        """Return the gradient of x from that of the outputs, which it may overwrite."""


@dataclass(slots=True, kw_only=True)
class Bias:
    """What a Linear or a Conv2d adds: its own bias, or that of the BatchNorm behind it, if no slot normalizes."""

    name: str
    of_norm: bool = False
    _added: bool = field(default=True, repr=False)

    def added(self, draws: Draws) -> bool:
        self._added = not (self.of_norm and draws.numbers.used("batch_norm"))
        return self._added

    def backward(self, dy: Tensor, gradients: Tensors) -> None:
        if self._added:
            _sum(dy, into=gradients[self.name])


def _cast(stack: Tensor, dtype: torch.dtype) -> Tensor:
    """Without asking torch, which takes it a microsecond to find that there is nothing to do."""
    return stack if stack.dtype == dtype else stack.to(dtype)


def _sum(dy: Tensor, *, into: Tensor) -> None:
    """Write the gradients of biases: the sum over all but slots and features."""
    dims = tuple(range(1, dy.ndim - 1))
    if dy.dtype == into.dtype:
        torch.sum(dy, dims, out=into)
    else:
        into.copy_(dy.sum(dims))


@dataclass(slots=True, kw_only=True)
class Linear:
    """x @ weight + bias, (P, B, D) to (P, B, E), in the type of x.

    The weights lie (D, E), or (E, D) where `transposed`: faster by half for few outputs, as of the last layer.
    """

    name: str
    bias: Bias
    transposed: bool = False
    first: bool = False
    """Nobody wants the gradient of its input."""
    _x: Tensor = field(init=False, repr=False)
    _kept: Tensor = field(init=False, repr=False)
    """The weight as it was multiplied."""

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        weight = _cast(parameters[f"{self.name}.weight"], x.dtype)
        weight = weight.transpose(1, 2) if self.transposed else weight
        if draws.training:
            self._x, self._kept = x, weight
        if not self.bias.added(draws):
            return torch.bmm(x, weight)
        return torch.baddbmm(_cast(parameters[self.bias.name], x.dtype).unsqueeze(1), x, weight)

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        self.bias.backward(dy, gradients)
        dweight, x = gradients[f"{self.name}.weight"], self._x
        factors = (dy.transpose(1, 2), x) if self.transposed else (x.transpose(1, 2), dy)
        if dy.dtype == dweight.dtype:
            torch.bmm(*factors, out=dweight)
        else:
            dweight.copy_(torch.bmm(*factors))
        return dy if self.first else torch.bmm(dy, self._kept.transpose(1, 2))


@dataclass(slots=True, kw_only=True)
class Conv2d:
    """Convolution with padding that keeps the size (odd kernels), (P, B, H, W, C) to (P, B, H, W, O).

    Weights lie (O, h, w, C). On the CPU one convolution per slot: grouped ones are 0.6 to 1.2 times as fast
    (shared/facts.md).
    """

    name: str
    bias: Bias
    first: bool = False
    _x: list[Tensor] = field(init=False, repr=False)
    _kept: list[Tensor] = field(init=False, repr=False)
    """The kernels as they were used."""

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        weight = parameters[f"{self.name}.weight"]
        images, kernels = _grouped(x, weight.to(x.dtype))
        if draws.training:
            self._x, self._kept = images, kernels
        padding = weight.shape[2] // 2
        groups = weight.shape[0] // len(images)
        outputs = [
            functional.conv2d(x, w, padding=padding, groups=groups) for x, w in zip(images, kernels, strict=True)
        ]
        y = _ungrouped(outputs, groups)
        if not self.bias.added(draws):
            return y
        return y.add_(parameters[self.bias.name].to(y.dtype)[:, None, None, None, :])

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        self.bias.backward(dy, gradients)
        weight = parameters[f"{self.name}.weight"]
        dys, _ = _grouped(dy, weight)
        padding, groups = [weight.shape[2] // 2] * 2, weight.shape[0] // len(dys)
        found = [
            aten.convolution_backward(
                g, x, w, None, [1, 1], padding, [1, 1], False, [0, 0], groups, [not self.first, True, False]
            )
            for g, x, w in zip(dys, self._x, self._kept, strict=True)
        ]
        into = gradients[f"{self.name}.weight"]
        dweight = torch.cat([dw for _, dw, _ in found])
        into.copy_(dweight.view(*into.shape[:2], *dweight.shape[1:]).permute(0, 1, 3, 4, 2))
        return dy if self.first else _ungrouped([dx for dx, _, _ in found], groups)


def _grouped(x_PBHWC: Tensor, weight_POhwC: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Images (B, C, H, W) and kernels, channels last: one pair a slot on the CPU, all slots as groups elsewhere."""
    x, w = x_PBHWC.permute(0, 1, 4, 2, 3), weight_POhwC.permute(0, 1, 4, 2, 3)
    if x.device.type == "cpu":
        return list(x.unbind()), list(w.unbind())
    return [x.transpose(0, 1).flatten(1, 2)], [w.flatten(0, 1)]


def _ungrouped(images: Sequence[Tensor], groups: int) -> Tensor:
    """Return (P, B, H, W, C) from what `_grouped` made."""
    if groups > 1:
        (x,) = images
        return x.reshape(x.shape[0], groups, -1, *x.shape[2:]).permute(1, 0, 3, 4, 2)
    rows = [x.permute(0, 2, 3, 1) for x in images]
    return torch.stack(rows) if len(rows) > 1 else rows[0].unsqueeze(0)


@dataclass(slots=True, kw_only=True)
class BatchNorm:
    """Normalize each slot's features (last dimension) over all else; training moves the running statistics in place.

    One call for all slots that do it: their features beside each other, in torch's own kernel. The other slots' inputs
    pass, with the bias added where the layer before has none of its own; what they do not use (the weight, and a bias
    that is not added) is zero and has no gradient, so that decay and penalties leave it at that.
    """

    name: str
    shifts: bool
    """A slot without it adds the bias, which is that of the layer before; if nobody has it, that layer does."""
    _part: Part | None = field(init=False, repr=False)
    """The slots that normalize, or None where nobody does."""
    _x: Tensor = field(init=False, repr=False)
    _statistics: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        self._part = part = draws.numbers.having("batch_norm") if draws.numbers.used("batch_norm") else None
        if part is None:
            return x
        normalized = self._normalized(part, x, parameters, buffers, training=draws.training)
        if part.whole:
            return normalized
        bias = parameters[f"{self.name}.bias"].to(x.dtype)
        y = x + bias.view(len(bias), *(1,) * (x.ndim - 2), -1) if self.shifts else x.clone()
        part.put(normalized, into=y)
        return y

    def _normalized(self, part: Part, x: Tensor, parameters: Tensors, buffers: Tensors, *, training: bool) -> Tensor:
        taken = part.taken(x)
        weight, bias = (part.taken(parameters[f"{self.name}.{own}"]).reshape(-1) for own in ("weight", "bias"))
        running = [buffers[f"{self.name}.{own}"] for own in ("running_mean", "running_var")]
        # rows of `running` are not contiguous where several slots are trained: torch then updates a copy
        mean, var = (part.taken(stack).reshape(-1) for stack in running)
        if part.mask is not None:
            mean, var = mean.clone(), var.clone()
        beside = _beside(taken)
        y, *statistics = torch.native_batch_norm(beside, weight, bias, mean, var, training, STATISTICS_MOMENTUM, EPS)
        if training:
            self._x, self._statistics = beside, (statistics[0], statistics[1])
            for stack, values in zip(running, (mean, var), strict=True):
                part.put(values.view(-1, stack.shape[1]), into=stack)
        return _apart(y, taken.shape)

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        dweight, dbias = (gradients[f"{self.name}.{own}"] for own in ("weight", "bias"))
        part = self._part
        if part is None or not part.whole:
            dweight.zero_()
            if not self.shifts:
                dbias.zero_()
            elif part is not None:
                _sum(dy, into=dbias)
        if part is None:
            return dy
        taken, weight = part.taken(dy), part.taken(parameters[f"{self.name}.weight"])
        dx, *found = aten.native_batch_norm_backward(
            _beside(taken), self._x, weight.reshape(-1), None, None, *self._statistics, True, EPS, [True, True, True]
        )
        for into, values in zip((dweight, dbias), found, strict=True):
            part.put(values.view_as(weight), into=into)
        dx = _apart(dx, taken.shape)
        if part.whole:
            return dx
        part.put(dx, into=dy)
        return dy


def _beside(x: Tensor) -> Tensor:
    """(P, N, D), or (P, B, H, W, C), as (N, P * D, 1, 1), whose strides torch's kernel takes for channels last."""
    n_slots, n_features = x.shape[0], x.shape[-1]
    flat = x.flatten(1, -2).transpose(0, 1).reshape(-1, n_slots * n_features).contiguous()
    return flat.as_strided((*flat.shape, 1, 1), (flat.shape[1], 1, flat.shape[1], flat.shape[1]))


def _apart(y: Tensor, shape: Sequence[int]) -> Tensor:
    return y.reshape(*shape[1:-1], shape[0], shape[-1]).movedim(-2, 0)


@dataclass(slots=True, kw_only=True)
class Activation:
    """relu, leaky_relu, gelu or tanh, in place: fresh memory is not in the cache. Only gelu's inputs are kept."""

    kind: str
    _kept: Tensor = field(init=False, repr=False)
    """The outputs; gelu's inputs."""

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        match self.kind:
            case "relu":
                y = x.relu_()
            case "leaky_relu":
                y = functional.leaky_relu_(x)
            case "tanh":
                y = x.tanh_()
            case _:
                y = functional.gelu(x)
        if draws.training:
            self._kept = x if self.kind == "gelu" else y
        return y

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        match self.kind:
            case "relu":
                aten.threshold_backward.grad_input(dy, self._kept, 0, grad_input=dy)
            case "leaky_relu":
                aten.leaky_relu_backward.grad_input(dy, self._kept, 0.01, True, grad_input=dy)
            case "tanh":
                aten.tanh_backward.grad_input(dy, self._kept, grad_input=dy)
            case _:
                aten.gelu_backward.grad_input(dy, self._kept, grad_input=dy)
        return dy


@dataclass(slots=True, kw_only=True)
class Dropout:
    """Zero each number of a slot with its probability, and scale up the others; any shape (P, ...)."""

    name: str
    _factors: Tensor | None = field(default=None, repr=False)

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        if not draws.training or not draws.numbers.used("dropout"):
            self._factors = None
            return x
        keys_P, rates_P = draws.keys(self.name), draws.numbers["dropout"]
        self._factors = dropout_factors(keys_P, rates_P, x[0].numel(), dtype=x.dtype).view(x.shape)
        return x * self._factors

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        return dy if self._factors is None else dy.mul_(self._factors)


def dropout_factors(keys_P: Tensor, rates_P: Tensor, n: int, *, dtype: torch.dtype) -> Tensor:
    """Return what n numbers of each slot are multiplied by, (P, n): 0 with the slot's probability, else 1 / (1 - rate).

    Rates are rounded to multiples of 2**-16: 16 random bits a number are enough, and four times as fast as 64.
    """
    dropped_P1 = rates_P.mul(65536).round_().clamp(max=65535).unsqueeze(1)
    words = bits(keys_P, -(-n // 4)).view(torch.int16)[:, :n]
    kept = words >= (dropped_P1 - 32768).to(torch.int16)
    return kept.to(dtype).mul_((65536 / (65536 - dropped_P1)).to(dtype))


@dataclass(slots=True, kw_only=True)
class MaxPool2d:
    """The maxima of 2 x 2 windows, (P, B, H, W, C) to (P, B, H // 2, W // 2, C)."""

    _x: Tensor = field(init=False, repr=False)
    _index: Tensor = field(init=False, repr=False)

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        images = x.flatten(0, 1).permute(0, 3, 1, 2)
        y, index = aten.max_pool2d_with_indices(images, [2, 2], [2, 2])
        if draws.training:
            self._x, self._index = images, index
        return _apart_again(y, x)

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        dx = aten.max_pool2d_with_indices_backward(
            dy.flatten(0, 1).permute(0, 3, 1, 2), self._x, [2, 2], [2, 2], [0, 0], [1, 1], False, self._index
        )
        return _apart_again(dx, dy)


def _apart_again(images: Tensor, like_PBHWC: Tensor) -> Tensor:
    """Return images (P * B, C, H, W) as (P, B, H, W, C)."""
    x = images.permute(0, 2, 3, 1)
    return x.reshape(*like_PBHWC.shape[:2], *x.shape[1:])


@dataclass(slots=True)
class Flatten:
    """Every example as a vector, images channel by channel: (P, B, H, W, C) to (P, B, C * H * W)."""

    _shape: torch.Size = field(init=False, repr=False)

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        y = x.permute(0, 1, 4, 2, 3)
        if draws.training:
            self._shape = y.shape
        return y.flatten(2)

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        return dy.reshape(self._shape).permute(0, 1, 3, 4, 2)


class ReferenceClass:
    """Put the logit 0 of the first class before those of the others, (P, B, K - 1) to (P, B, K).

    With two classes the one output is their log odds: cross-entropy of softmax becomes binary, of sigmoid.
    """

    def forward(self, x: Tensor, parameters: Tensors, buffers: Tensors, draws: Draws) -> Tensor:
        return functional.pad(x, (1, 0))

    def backward(self, dy: Tensor, parameters: Tensors, gradients: Tensors) -> Tensor:
        return dy[..., 1:].contiguous()
