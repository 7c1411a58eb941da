"""What a network sees of an example: scaled as its fold's training part says, without the features that are left out.

P slots, B examples, F folds; an example has any shape S: (C, H, W) or (D,).
"""

import math

import torch
from torch import Tensor

from objectives.flat import PIECE
from objectives.folds import Folds
from objectives.hyperparameters import number
from objectives.numbers import Numbers
from objectives.task import Slot


class Inputs:
    """(x - mean) / std, with a mean and std for each fold; a feature that is left out is 0 for every example."""

    def __init__(self, folds: Folds, fraction: float, *, dtype: torch.dtype) -> None:
        self._folds, self._fraction, self._dtype = folds, fraction, dtype
        self._shape = folds.x.shape[1:]
        scale = 255 if folds.x.dtype == torch.uint8 else 1
        means, stds = (
            torch.stack([self._each(statistic).double() * scale for statistic in found])
            for found in zip(*((part.mean, part.std) for part in folds.of(fraction)), strict=True)
        )
        # a number for each pixel, not for each channel: plain rows are what vector units are fastest at
        self._means, self._scales = (each.to(dtype).expand(-1, *self._shape).contiguous() for each in (means, 1 / stds))
        self._ranks = torch.zeros_like(self._means)
        """Of the features, by fold; filled when a slot wants to leave some out."""

    def prepare(self, slot: Slot) -> None:
        """Rank the features, if this slot leaves some out and nobody did before."""
        if number(slot.hyperparameters, "n_features"):
            self._ranks[slot.fold or 0] = self._folds.ranks(self._fraction, slot.fold or 0)

    def normalized(
        self, x: Tensor, numbers: Numbers, *, shared: bool = False, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Scale raw examples (P, B, *S) of each slot.

        Args:
            shared: the examples (B, *S) are all slots' own, who are of one fold; returns (1, B, *S), or (P, B, *S).
            dtype: of what is returned, where that is not the parameters' own.
        """
        fold_P = numbers["fold"].long()[:1] if shared or len(self._means) == 1 else numbers["fold"].long()
        mean, scale = (self._of(fold_P, each) for each in (self._means, self._scales))
        x = x.unsqueeze(0) if shared else x
        if numbers.used("n_features"):
            n_P = numbers["n_features"].view(-1, 1, *(1 for _ in self._shape))
            scale = torch.where((self._of(fold_P, self._ranks) < n_P) | (n_P == 0), scale, 0)
        y = x.new_empty(max(len(x), len(scale)), *x.shape[1:], dtype=dtype or self._dtype)
        n = len(y) if x.is_cuda else max(1, PIECE // max(1, x[0].numel()))
        for rows in (slice(first, first + n) for first in range(0, len(y), n)):
            self._scaled(*(each.expand(len(y), *each.shape[1:])[rows] for each in (x, mean, scale)), into=y[rows])
        return y

    def _scaled(self, x: Tensor, mean: Tensor, scale: Tensor, *, into: Tensor) -> None:
        """Of slots that are few enough for the cache, on a CPU."""
        if into.dtype == self._dtype:
            into.copy_(x).sub_(mean).mul_(scale)
        else:
            into.copy_(x.to(self._dtype, copy=True).sub_(mean).mul_(scale))

    def told(self, slot: Slot) -> dict[str, list[float]]:
        """A slot's mean and std, as lists; std is infinite where a feature is left out."""
        part, n = self._folds.of(self._fraction)[slot.fold or 0], number(slot.hyperparameters, "n_features")
        if not n:
            return {"mean": part.mean.tolist(), "std": part.std.tolist()}
        mean, std = (self._each(statistic).expand(self._shape) for statistic in (part.mean, part.std))
        kept = self._ranks[slot.fold or 0] < n
        return {"mean": mean.tolist(), "std": torch.where(kept, std, math.inf).tolist()}

    def _each(self, statistic: Tensor) -> Tensor:
        """A number for each channel or feature, to go with an example."""
        return statistic.view(-1, *(1 for _ in self._shape[1:]))

    @staticmethod
    def _of(fold_P: Tensor, by_fold: Tensor) -> Tensor:
        return (by_fold[:1] if len(by_fold) == 1 else by_fold.index_select(0, fold_P)).unsqueeze(1)
