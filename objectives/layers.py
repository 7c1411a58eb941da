"""Layers of P networks at once, as functions: the leading dimension of every tensor is the slot.

P slots, B examples, D and E features in and out, C and O channels in and out, H W image, N examples (times positions).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from objectives.streams import bits

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
}


def linear(x_PBD: Tensor, weight_PDE: Tensor, bias_PE: Tensor | None, *, product: torch.dtype) -> Tensor:
    """Return x @ weight + bias (P, B, E), multiplied in the type `product`, in the weights' type.

    The weights lie (D, E), so that their gradient comes out in their own layout.
    """
    y_PBE = torch.bmm(x_PBD.to(product), weight_PDE.to(product)).to(weight_PDE.dtype)
    return y_PBE if bias_PE is None else y_PBE + bias_PE.unsqueeze(1)


def conv2d(x_PBHWC: Tensor, weight_POhwC: Tensor, bias_PO: Tensor | None, *, product: torch.dtype) -> Tensor:
    """Return the convolution with padding that keeps the size (odd kernels), (P, B, H, W, O).

    On the CPU one convolution per slot: grouped ones are 0.6 to 1.2 times as fast (shared/facts.md).
    """
    x_PBCHW = x_PBHWC.to(product).permute(0, 1, 4, 2, 3)
    weight_POChw = weight_POhwC.to(product).permute(0, 1, 4, 2, 3)
    padding = weight_POChw.shape[-1] // 2
    if x_PBHWC.device.type == "cpu":
        slots = [
            functional.conv2d(x, w, padding=padding)
            for x, w in zip(x_PBCHW.unbind(), weight_POChw.unbind(), strict=True)
        ]
        y_PBOHW = torch.stack(slots) if len(slots) > 1 else slots[0].unsqueeze(0)
    else:
        n_slots, n_out = weight_POChw.shape[:2]
        x = x_PBCHW.transpose(0, 1).flatten(1, 2)
        y = functional.conv2d(x, weight_POChw.flatten(0, 1), padding=padding, groups=n_slots)
        y_PBOHW = y.view(y.shape[0], n_slots, n_out, *y.shape[2:]).transpose(0, 1)
    y_PBHWO = y_PBOHW.permute(0, 1, 3, 4, 2).to(weight_POhwC.dtype)
    return y_PBHWO if bias_PO is None else y_PBHWO + bias_PO[:, None, None, None, :]


def batch_norm(
    x_PND: Tensor,
    weight_PD: Tensor,
    bias_PD: Tensor,
    *,
    running_mean_PD: Tensor,
    running_var_PD: Tensor,
    training: bool,
) -> Tensor:
    """Normalize each slot's features over its N examples; training moves the running statistics in place.

    One call for all slots: P * D features beside each other, in torch's own kernel.
    """
    n_slots, n, n_features = x_PND.shape
    y = functional.batch_norm(
        x_PND.transpose(0, 1).reshape(n, n_slots * n_features),
        running_mean_PD.view(-1),
        running_var_PD.view(-1),
        weight_PD.reshape(-1),
        bias_PD.reshape(-1),
        training=training,
    )
    return y.view(n, n_slots, n_features).transpose(0, 1)


def dropout(x: Tensor, *, rates: Sequence[float], keys: Sequence[int]) -> Tensor:
    """Zero each number of slot p with probability rates[p] and scale up the others; any shape (P, ...).

    Rates are rounded to multiples of 2**-16: 16 random bits a number are enough, and four times as fast as 64.
    """
    if not any(rates):
        return x
    n = x[0].numel()
    dropped = [min(round(rate * 65536), 65535) for rate in rates]
    threshold_P = torch.tensor([count - 32768 for count in dropped], dtype=torch.int16, device=x.device)
    scale_P = torch.tensor([65536 / (65536 - count) for count in dropped], dtype=x.dtype, device=x.device)
    words = bits(keys, -(-n // 4), device=x.device).view(torch.int16)[:, :n]
    factors = (words >= threshold_P.unsqueeze(1)).to(x.dtype).mul_(scale_P.unsqueeze(1))
    return x * factors.view(x.shape)


def max_pool2d(x_PBHWC: Tensor) -> Tensor:
    """Return the maxima of 2 x 2 windows, (P, B, H // 2, W // 2, C)."""
    y = functional.max_pool2d(x_PBHWC.flatten(0, 1).permute(0, 3, 1, 2), 2)
    return y.permute(0, 2, 3, 1).reshape(*x_PBHWC.shape[:2], *y.shape[2:], y.shape[1])
