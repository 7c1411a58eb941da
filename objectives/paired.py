"""How sure a change of a slot's validation loss is: its paired standard error. V validation examples."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """One measurement of a slot."""

    n_updates: int
    loss: float
    losses: Tensor
    """(V,)."""


class Paired:
    """Remembers the losses (V,) of a slot's best epoch so far, and compares each later one with it."""

    def __init__(self) -> None:
        self._best: Measured | None = None
        self._latest: Measured | None = None
        """Better than the best, which it becomes once the slot has trained on: measuring twice changes nothing."""

    def standard_error(self, losses_V: Tensor, *, loss: float, n_updates: int) -> Tensor:
        """Return the standard error of `loss` less the best one before it, float64 (); 0 where there is none before.

        Both are means over the same V examples, so it is that of the mean of the V differences: what is hard in both
        cancels out. NaN for V = 1, and where a difference is not finite.

        Args:
            loss: the mean of the losses.
            n_updates: that the slot has had.

        Source: the paired t-test, Student (1908), "The probable error of a mean".
        """
        if self._latest is not None and self._latest.n_updates < n_updates:
            self._best, self._latest = self._latest, None
        best = self._best
        if math.isfinite(loss) and (best is None or loss < best.loss):
            of_its_own = losses_V.clone()  # and not a view of all slots'
            self._latest = Measured(n_updates=n_updates, loss=loss, losses=of_its_own)
        if best is None:
            return torch.zeros((), dtype=torch.float64, device=losses_V.device)
        return (losses_V - best.losses).double().std() / math.sqrt(len(losses_V))
