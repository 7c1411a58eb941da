"""L1 and L2 penalties, one strength per slot: part of the training loss, so they enter the gradient.

L2 adds l2 * sum(w^2) to the loss. Under SGD without momentum that is weight decay of 2 * l2; under Adam it is not,
since Adam divides the penalty's gradient by the same root as the loss's: weights with large gradients are then decayed
less. Decoupled weight decay belongs to optimizers.py. Source: Loshchilov and Hutter (2019), arXiv:1711.05101.

Biases and norms are exempt unless `exempt` is "none", the last layer as well if it is "output". P slots, n numbers a
slot, of which the first n_weights belong to weights that are not exempt (Layout.n_penalized of objectives/flat.py).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from objectives.flat import power_sum
from objectives.hyperparameters import Value, number
from objectives.numbers import Numbers


def n_concerned(hyperparameters: Mapping[str, Value], row: Tensor, n_weights: int) -> int:
    """How many numbers of a row, from its start, l1, l2 and weight_decay apply to."""
    return row.shape[-1] if hyperparameters["exempt"] == "none" else n_weights


def penalized(gradients: Tensor, weights: Tensor, *, l1: float, l2: float) -> Tensor:
    """Return gradients of one slot with the penalties' own: l1 * sign(w) + 2 * l2 * w, both of any one shape."""
    if l1:
        gradients = gradients.add(weights.sign(), alpha=l1)
    return gradients.add(weights, alpha=2 * l2) if l2 else gradients


def add_gradients_stacked(
    parameters_Pn: Tensor, gradients_Pn: Tensor, numbers: Numbers, *, whole_P: Tensor, n_weights: int
) -> None:
    """The same in operations on all rows, which read nothing from the device.

    Args:
        whole_P: 1 where biases and norms are not exempt, else 0.
    """
    for part, applies_P in ((slice(0, n_weights), torch.ones_like(whole_P)), (slice(n_weights, None), whole_P)):
        weight, gradient = parameters_Pn[:, part], gradients_Pn[:, part]
        l1_P1, l2_P1 = ((numbers[name] * applies_P).to(weight.dtype).unsqueeze(1) for name in ("l1", "l2"))
        if numbers.used("l1"):
            gradient.addcmul_(weight.sign(), l1_P1)
        if numbers.used("l2"):
            gradient.addcmul_(weight, l2_P1, value=2)


def penalties(parameters_Pn: Tensor, slots: Sequence[Mapping[str, Value]], *, n_weights: int) -> list[float]:
    """Return each slot's l1 * sum |w| + l2 * sum w^2, in the units of its loss.

    Source: Tibshirani (1996) for L1, Hoerl and Kennard (1970) for L2.
    """
    found = parameters_Pn.new_zeros(len(slots), dtype=torch.float64)
    for penalty, weight, slot in zip(found, parameters_Pn, slots, strict=True):
        concerned = weight[: n_concerned(slot, weight, n_weights)]
        for kind, order in (("l1", 1), ("l2", 2)):
            # an infinite weight of a slot without penalty must not give 0 * inf
            if strength := number(slot, kind):
                penalty += strength * power_sum(concerned, order)
    values: list[float] = found.tolist()
    return values
