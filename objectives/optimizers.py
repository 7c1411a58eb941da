"""SGD, Adam and AdamW for P slots at once, each with its own lr, momentum and weight decay: one pass over rows.

On the CPU torch's fused kernel slot by slot: 4 to 17 times faster than stacked operations (shared/facts.md). Elsewhere
stacked operations, whose number does not depend on P, and which read nothing from the device.

Source: torch.optim.SGD, Adam and AdamW (decoupled weight decay: Loshchilov and Hutter, 2019), with their defaults for
Adam's beta2 and eps; `momentum` is Adam's beta1. SGD's weight decay is decoupled as well (SGDW, same paper).

P slots, n numbers a slot, of which the first n_weights belong to weights (objectives/flat.py).
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.flat import PIECE, Layout, Tensors
from objectives.hyperparameters import HyperparameterError, Value, number
from objectives.regularizers import penalized

BETA2, EPS = 0.999, 1e-8
CLIP_EPS = 1e-6
"""Source: torch.nn.utils.clip_grad_norm_."""
Part = tuple[str, slice]
"""Of a tensor, by name, where it is flat."""


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
    scale_P = (limit_P / (norm_P + CLIP_EPS)).clamp_(max=1.0)
    gradients_Pn.mul_(torch.where(limit_P > 0, scale_P, torch.ones_like(scale_P)).unsqueeze(1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some of a slot's numbers, each list of the same flat tensors (m,): all is done to them while they are cached."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    moments: list[list[Tensor]]
    concerned: bool
    """Weight decay and penalties apply to them."""
    widened: list[Tensor]
    """Where the gradients are cast to the parameters' type; empty where they have it."""
    copied: list[Tensor]
    """Those of the parameters that products want in their own type."""
    copies: list[Tensor]

    def penalized(self, *, l1: float, l2: float) -> list[Tensor]:
        """Return the gradients in the parameters' type, with those of the penalties."""
        gradients = self.gradients
        if self.widened:
            torch._foreach_copy_(self.widened, gradients)
            gradients = self.widened
        if not self.concerned or not (l1 or l2):
            return gradients
        return [penalized(g, p, l1=l1, l2=l2) for g, p in zip(gradients, self.parameters, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowUpdate:
    """The update of one slot by torch's fused kernels, in one pass over memory, piece by piece.

    Its tensors are cut once: they stay where they are.
    """

    kind: str
    momentum: float
    nesterov: bool
    weight_decay: float
    l1: float
    l2: float
    max_norm: float
    """That the gradient is clipped to; 0 leaves it alone."""
    pieces: Sequence[Piece]

    @staticmethod
    def of(
        hyperparameters: Mapping[str, Value],
        layout: Layout,
        rows: Sequence[Tensor],
        *,
        gradients: Tensors,
        copies: Tensors,
        scratch: Tensor,
    ) -> "RowUpdate":
        """Of one slot's rows (n,) of parameters and moments, and its gradients by name.

        Args:
            gradients: contiguous, of the parameters' type or, all of them, of a narrower one.
            copies: of those parameters that products want in that type; they are kept up.
            scratch: (PIECE,) of the parameters' type.
        """
        decay, l1, l2, max_norm = (number(hyperparameters, name) for name in ("weight_decay", "l1", "l2", "clip_norm"))
        concerned = layout.concerned(hyperparameters["exempt"]) if decay or l1 or l2 else frozenset()
        narrow = any(gradient.dtype != scratch.dtype for gradient in gradients.values())
        in_pieces = narrow or l1 or l2 or max_norm
        parameters, *moments = (layout.views(row) for row in rows)
        pieces = []
        for parts in _groups(layout, concerned, longest=PIECE if in_pieces else max(layout.n, 1)):
            n_in_each = [part.stop - part.start for _, part in parts]
            pieces.append(
                Piece(
                    parameters=_cut(parameters, parts),
                    gradients=_cut(gradients, parts),
                    moments=[_cut(moment, parts) for moment in moments],
                    concerned=parts[0][0] in concerned,
                    widened=list(torch.split(scratch[: sum(n_in_each)], n_in_each)) if narrow else [],
                    copied=_cut({name: parameters[name] for name in copies}, parts),
                    copies=_cut(copies, parts),
                )
            )
        return RowUpdate(
            kind=str(hyperparameters["optimizer"]),
            momentum=number(hyperparameters, "momentum"),
            nesterov=bool(hyperparameters["nesterov"]),
            weight_decay=decay,
            l1=l1,
            l2=l2,
            max_norm=max_norm,
            pieces=pieces,
        )

    def __call__(self, *, lr: float, count: Tensor) -> None:
        """Change parameters, moments and copies in place.

        Args:
            count: updates of this slot, this one included: a number on the CPU.
        """
        scale = self._scale() if self.max_norm else None
        for piece in self.pieces:
            gradients = piece.penalized(l1=self.l1, l2=self.l2)
            self._step(piece, gradients if scale is None else [g * scale for g in gradients], lr=lr, count=count)
            if piece.copies:
                torch._foreach_copy_(piece.copies, piece.copied)

    def _scale(self) -> Tensor:
        """What the gradient is clipped by: its norm has the penalties in it."""
        norms = [
            torch.linalg.vector_norm(gradient)
            for piece in self.pieces
            for gradient in piece.penalized(l1=self.l1, l2=self.l2)
        ]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
        return (self.max_norm / (norm + CLIP_EPS)).clamp_(max=1.0)

    def _step(self, piece: Piece, gradients: list[Tensor], *, lr: float, count: Tensor) -> None:
        p, moments, decay = piece.parameters, piece.moments, self.weight_decay if piece.concerned else 0.0
        if self.kind == "sgd":
            if decay:
                torch._foreach_mul_(p, 1 - lr * decay)
            torch._fused_sgd_(
                p, gradients, moments[0] if self.momentum else [], lr=lr, momentum=self.momentum, dampening=0.0,
                weight_decay=0.0, nesterov=self.nesterov, maximize=False, is_first_step=False,
            )  # fmt: skip
        else:
            torch._fused_adamw_(
                p, gradients, moments[0], moments[1], [], [count] * len(p), lr=lr, beta1=self.momentum, beta2=BETA2,
                weight_decay=decay, eps=EPS, amsgrad=False, maximize=False,
            )  # fmt: skip


def _groups(layout: Layout, concerned: Collection[str], *, longest: int) -> list[list[Part]]:
    """Cut a row into groups of at most `longest` numbers, in each of which all or none are concerned."""
    groups: list[list[Part]] = []
    room, last = 0, ""
    for name, shape in layout.shapes.items():
        n = math.prod(shape)
        for first in range(0, n, longest):
            part = slice(first, min(first + longest, n))
            if part.stop - part.start > room or (name in concerned) != (last in concerned):
                groups.append([])
                room = longest
            groups[-1].append((name, part))
            room, last = room - (part.stop - part.start), name
    return groups


def _cut(tensors: Tensors, parts: Sequence[Part]) -> list[Tensor]:
    """These parts of those tensors that there are."""
    return [tensors[name].view(-1)[part] for name, part in parts if name in tensors]


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
