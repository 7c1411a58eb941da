"""SGD, Adam and AdamW for P slots at once, each with its own lr, momentum and weight decay: one pass over rows.

On the CPU one call of torch's fused kernel per slot: 4 to 17 times faster than stacked operations (shared/facts.md).
Elsewhere stacked operations, whose number does not depend on P, and which read nothing from the device.

Source: torch.optim.SGD, Adam and AdamW (decoupled weight decay: Loshchilov and Hutter, 2019), with their defaults for
Adam's beta2 and eps; `momentum` is Adam's beta1. SGD's weight decay is decoupled as well (SGDW, same paper).

P slots, n numbers a slot, of which the first n_weights belong to weights (objectives/flat.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.hyperparameters import HyperparameterError, Value, number
from objectives.regularizers import n_concerned

BETA2, EPS = 0.999, 1e-8


def check(hyperparameters: Mapping[str, Value]) -> None:
    """Refuse settings that would have no effect.

    Raises:
        HyperparameterError: weight decay with plain Adam, or nesterov without SGD.
    """
    kind = hyperparameters["optimizer"]
    if kind == "adam" and number(hyperparameters, "weight_decay") > 0:
        raise HyperparameterError(
            f'optimizer = "adam" has no decoupled weight decay, got weight_decay = {hyperparameters["weight_decay"]}. '
            'Use optimizer = "adamw", or l2 (half of the weight_decay of torch.optim.Adam).'
        )
    if kind != "sgd" and hyperparameters["nesterov"]:
        raise HyperparameterError(f'nesterov = true needs optimizer = "sgd", got "{kind}". Set nesterov = false.')


def n_moments(kind: str) -> int:
    """How many numbers the optimizer keeps for each parameter; they start at zero."""
    return 1 if kind == "sgd" else 2


def clip(gradients_Pn: Tensor, max_norm_P: Tensor) -> None:
    """Scale each slot's gradient down, in place, to its largest norm; 0 leaves it alone."""
    norm_P = torch.linalg.vector_norm(gradients_Pn, dim=1)
    limit_P = max_norm_P.to(norm_P.dtype)
    # Source: torch.nn.utils.clip_grad_norm_ for the 1e-6
    scale_P = (limit_P / (norm_P + 1e-6)).clamp_(max=1.0)
    gradients_Pn.mul_(torch.where(limit_P > 0, scale_P, torch.ones_like(scale_P)).unsqueeze(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RowUpdate:
    """The update of one slot by torch's fused kernels, its tensors cut once: they stay where they are."""

    kind: str
    momentum: float
    weight_decay: float
    nesterov: bool
    parts: tuple[tuple[Sequence[Tensor], float], ...]
    """(parameters, gradients, moments...) and their weight decay, for each part of the row that differs in it."""

    @staticmethod
    def of(hyperparameters: Mapping[str, Value], row: Sequence[Tensor], *, n_weights: int) -> "RowUpdate":
        """Of one slot's rows (n,) of parameters, gradients and moments."""
        decay = number(hyperparameters, "weight_decay")
        n = n_concerned(hyperparameters, row[0], n_weights) if decay else 0
        cuts = [(slice(0, n), decay), (slice(n, None), 0.0)]
        return RowUpdate(
            kind=str(hyperparameters["optimizer"]),
            momentum=number(hyperparameters, "momentum"),
            weight_decay=decay,
            nesterov=bool(hyperparameters["nesterov"]),
            parts=tuple(([tensor[cut] for tensor in row], own) for cut, own in cuts if row[0][cut].numel()),
        )

    def __call__(self, *, lr: float, count: Tensor) -> None:
        """Change parameters and moments in place.

        Args:
            count: updates of this slot, this one included: a number on the CPU.
        """
        for (p, g, *moments), decay in self.parts:
            if self.kind == "sgd":
                if decay:
                    p.mul_(1 - lr * decay)
                torch._fused_sgd_(
                    [p], [g], moments if self.momentum else [], lr=lr, momentum=self.momentum, dampening=0.0,
                    weight_decay=0.0, nesterov=self.nesterov, maximize=False, is_first_step=False,
                )  # fmt: skip
            else:
                m, v = moments
                torch._fused_adamw_(
                    [p], [g], [m], [v], [], [count], lr=lr, beta1=self.momentum, beta2=BETA2,
                    weight_decay=decay, eps=EPS, amsgrad=False, maximize=False,
                )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedStep:
    """The slots' numbers for one update, (P,) on the device: float64, counts int64."""

    lrs: Tensor
    momenta: Tensor
    weight_decays: Tensor | None
    """None: nobody has any."""
    whole: Tensor
    """1 where weight decay applies to all parameters, 0 where to weights alone."""
    counts: Tensor
    """Updates of each slot, this one included."""


def update_stacked(
    kind: str,
    parameters_Pn: Tensor,
    gradients_Pn: Tensor,
    moments: Sequence[Tensor],
    step: StackedStep,
    *,
    n_weights: int,
    nesterov: bool,
) -> None:
    """The same update in operations on all rows, in place and without a copy: the gradients are overwritten."""

    def column(values_P: Tensor) -> Tensor:
        return values_P.to(parameters_Pn.dtype).unsqueeze(1)

    p, g, beta1 = parameters_Pn, gradients_Pn, column(step.momenta)
    if step.weight_decays is not None:
        decay_P = step.lrs * step.weight_decays
        p[:, :n_weights].mul_(column(1 - decay_P))
        p[:, n_weights:].mul_(column(1 - decay_P * step.whole))
    if kind == "sgd":
        m = moments[0].mul_(beta1).add_(g)
        p.addcmul_(g.addcmul_(m, beta1) if nesterov else m, column(-step.lrs))
        return
    m, v = moments
    m.lerp_(g, 1 - beta1)
    v.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
    root_P, rate_P = corrections(step)
    torch.sqrt(v, out=g).add_(column(EPS * root_P))
    p.addcmul_(torch.div(m, g, out=g), column(-rate_P * root_P))


def corrections(step: StackedStep) -> tuple[Tensor, Tensor]:
    """Return Adam's corrections of each row (P,): the root for the second moment, and lr over that of the first.

    In doubles: in float32 they cost 2e-4 in the parameters.
    """
    root_P = torch.sqrt(-torch.expm1(step.counts.double() * math.log(BETA2)))
    return root_P, step.lrs / (1 - step.momenta**step.counts)
