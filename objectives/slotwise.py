"""Torch's functions as one slot sees them: dropout at its own rate and from its own random numbers, attention.

A module runs unchanged, under torch.func.vmap or not; while it runs, the functions that it calls are replaced, whether
a layer of torch's calls them or the user's own code. P slots, L positions, D features.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from objectives.flat import Tensors
from objectives.layers import dropout_factors
from objectives.streams import purposed

STAND_IN = 0.31830988618379067
"""The rate that means "the slot's own": a module is built with it, and has no other rate of this value."""
CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
PRODUCTS = (*CONVOLUTIONS, functional.linear, torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__)


def alone(
    module: nn.Module, parameters: Tensors, buffers: Tensors, x: Tensor, functions: "Slotwise"
) -> tuple[Tensor, Tensors]:
    """Run the module as one slot's network: return its outputs (B, K), and the buffers as it leaves them."""
    state = parameters | buffers
    with functions:
        outputs = functional_call(module, state, (x,))
    return outputs, {name: state[name] for name in buffers}


def together(
    module: nn.Module,
    parameters: Tensors,
    buffers: Tensors,
    x: Tensor,
    *,
    keys: Tensor | None,
    rates: Tensor | None,
    product: torch.dtype,
) -> tuple[Tensor, Tensors]:
    """Run it as the networks of P slots: everything has them as its leading dimension; arguments as of Slotwise."""

    def one(
        parameters: Tensors, buffers: Tensors, x: Tensor, key: Tensor | None, rate: Tensor | None
    ) -> tuple[Tensor, Tensors]:
        return alone(module, parameters, buffers, x, Slotwise(key=key, rate=rate, product=product))

    in_dims = (0, 0, 0, None if keys is None else 0, None if rates is None else 0)
    found: tuple[Tensor, Tensors] = vmap(one, in_dims=in_dims)(parameters, buffers, x, keys, rates)
    return found


class Slotwise(TorchFunctionMode):
    """Within it, torch's functions do what one slot's network needs."""

    def __init__(self, *, key: Tensor | None, rate: Tensor | None, product: torch.dtype) -> None:
        """Of one run of the module.

        Args:
            key: of the slot's random numbers in this update, int64 (); None: in eval mode nothing is dropped.
            rate: the slot's own, float64 (); None: nobody drops anything.
            product: the type that products and convolutions are computed in.
        """
        super().__init__()
        self._key, self._rate, self._product = key, rate, product
        self.rates: list[float] = []
        """Of each dropout so far, as the module says them."""
        self.convolves = False
        self._own: Mapping[Any, Callable[..., Tensor]] = {
            functional.dropout: self._dropout,
            torch.dropout: self._dropout,
            functional.dropout1d: self._dropout_of_channels,
            functional.dropout2d: self._dropout_of_channels,
            functional.dropout3d: self._dropout_of_channels,
            functional.scaled_dot_product_attention: self._attention,
            functional.multi_head_attention_forward: self._multi_head_attention,
            **{function: partial(self._multiplied, function) for function in PRODUCTS},
        }

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._own.get(func, func)(*args, **(kwargs or {}))

    # ------------------------------------------------------------ dropout

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return self._dropped(input, p, shape=input.shape) if training else input

    def _dropout_of_channels(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        shape = [*input.shape[:2], *(1 for _ in input.shape[2:])]
        return self._dropped(input, p, shape=shape) if training else input

    def _dropped(self, x: Tensor, rate: float, *, shape: Sequence[int]) -> Tensor:
        """Zero numbers of x, those together that share one of the mask of this shape, and scale up the others."""
        if rate == 0 or self._key is None:
            return x
        self.rates.append(rate)
        own = self._rate if rate == STAND_IN else torch.full((), rate, dtype=torch.float64, device=x.device)
        if own is None:
            return x
        keys = purposed(self._key.view(1), f"dropout {len(self.rates)}")
        return x * dropout_factors(keys, own.view(1), math.prod(shape), dtype=x.dtype).view(shape)

    # ------------------------------------------------------------ attention and products

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Attention (..., L, D) in products: torch's kernels have no batching rule, and drop at one rate only.

        Source: the equivalent in torch.nn.functional.scaled_dot_product_attention's documentation.
        """
        if enable_gqa:
            n_groups = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(n_groups, dim=-3) for each in (key, value))
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = self._multiplied(torch.matmul, query * scale, key.transpose(-2, -1))
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            allowed = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -math.inf) if allowed else scores + attn_mask
        weights = self._dropped(torch.softmax(scores, dim=-1), dropout_p, shape=scores.shape)
        return self._multiplied(torch.matmul, weights, value)

    def _multi_head_attention(self, *args: Any, **kwargs: Any) -> Any:
        with self:
            return _MULTI_HEAD_ATTENTION(*args, **kwargs)

    def _multiplied(self, function: Callable[..., Tensor], *factors: Any, **others: Any) -> Tensor:
        self.convolves |= function in CONVOLUTIONS
        dtype = factors[0].dtype
        if dtype == self._product:
            return function(*factors, **others)
        factors = tuple(self._cast(each) for each in factors)
        return function(*factors, **{name: self._cast(each) for name, each in others.items()}).to(dtype)

    def _cast(self, factor: Any) -> Any:
        floating = isinstance(factor, Tensor) and factor.is_floating_point()
        return factor.to(self._product) if floating else factor


_original: Any = functional.multi_head_attention_forward
_MULTI_HEAD_ATTENTION = FunctionType(
    _original.__code__,
    {**_original.__globals__, "has_torch_function": lambda _: False},
    argdefs=_original.__defaults__,
)
"""torch's own, without its first step, which hands all of it to a mode: so what it calls is replaced one by one."""
