"""L1 and L2 penalties, one strength per slot: part of the training loss, so they enter the gradient.

L2 adds l2 * sum(w^2) to the loss. Under SGD without momentum that is weight decay of 2 * l2; under Adam it is not,
since Adam divides the penalty's gradient by the same root as the loss's: weights with large gradients are then decayed
less. Decoupled weight decay belongs to optimizers.py. Source: Loshchilov and Hutter (2019), arXiv:1711.05101.

P slots. Parameters with fewer than two dimensions a slot (biases, norms) are exempt unless `exempt` is "none".
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from objectives.hyperparameters import Value, number

PIECE = 65_536


def strengths(hyperparameters: Mapping[str, Value], name: str, *, n_dimensions: int) -> float:
    """Return a slot's l1, l2 or weight_decay for a parameter of so many dimensions (without the slot's)."""
    exempt = n_dimensions < 2 and hyperparameters["exempt"] == "biases_and_norms"
    return 0.0 if exempt else number(hyperparameters, name)


def add_gradients(
    parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor], slots: Sequence[Mapping[str, Value]]
) -> None:
    """Add the penalties' gradients in place: l1 * sign(w) + 2 * l2 * w.

    Args:
        slots: the hyperparameters of each row.
    """
    for name, weight in parameters.items():
        l1, l2 = ([strengths(slot, kind, n_dimensions=weight.ndim - 1) for slot in slots] for kind in ("l1", "l2"))
        if weight.device.type != "cpu":
            _add_stacked(gradients[name], weight, l1, l2)
            continue
        for row, (own_l1, own_l2) in enumerate(zip(l1, l2, strict=True)):
            if own_l1 or own_l2:
                _add_in_pieces(gradients[name][row], weight[row], own_l1, own_l2)


def _add_in_pieces(gradient: Tensor, weight: Tensor, l1: float, l2: float) -> None:
    """Add both while a piece is in the cache: one pass over memory in place of five."""
    pieces = zip(gradient.view(-1).split(PIECE), weight.view(-1).split(PIECE), strict=True)  # type: ignore[no-untyped-call]
    for gradient_D, weight_D in pieces:
        if l1:
            gradient_D.add_(weight_D.sign(), alpha=l1)
        if l2:
            gradient_D.add_(weight_D, alpha=2 * l2)


def _add_stacked(gradient: Tensor, weight: Tensor, l1: Sequence[float], l2: Sequence[float]) -> None:
    shape = (-1, *(1,) * (weight.ndim - 1))
    if any(l1):
        gradient.addcmul_(weight.sign(), weight.new_tensor(l1).view(shape))
    if any(l2):
        gradient.addcmul_(weight, weight.new_tensor(l2).view(shape), value=2)


def penalties(parameters: Mapping[str, Tensor], slots: Sequence[Mapping[str, Value]]) -> Tensor:
    """Return each slot's l1 * sum |w| + l2 * sum w^2 (P,), in the units of its loss.

    Source: Tibshirani (1996) for L1, Hoerl and Kennard (1970) for L2.
    """
    total_P = torch.zeros(len(slots), dtype=torch.float64)
    for weight in parameters.values():
        flat_PD = weight.detach().flatten(1)
        for kind, norm in (("l1", 1), ("l2", 2)):
            by_slot = [strengths(slot, kind, n_dimensions=weight.ndim - 1) for slot in slots]
            if any(by_slot):
                sums_P = torch.linalg.vector_norm(flat_PD, norm, dim=1).pow(norm).double()
                strength_P = torch.tensor(by_slot, dtype=torch.float64, device=weight.device)
                # where: an infinite weight of a slot without penalty must not give 0 * inf
                term_P = torch.where(strength_P > 0, strength_P * sums_P, torch.zeros_like(sums_P))
                total_P = total_P.to(weight.device) + term_P
    return total_P
