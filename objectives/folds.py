"""Which examples a slot trains on and is measured on, and what is learnt from the former alone.

Without folds there is one part to train on and one to validate on. F folds, N examples, n that a slot trains on,
C H W image, D features.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives.data import DataError, Dataset, statistics
from objectives.parts import strata, stratified_split


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One way to part the examples."""

    train: Tensor
    """int64 (n,): positions in Folds.x."""
    measured: Tensor
    """Those of them that are measured: as many as there are to validate on, stratified."""
    x_val: Tensor
    y_val: Tensor
    val_index: Tensor
    mean: Tensor
    """float32 (C,) or (D,), with std: as Dataset has them, of the training part."""
    std: Tensor


class Folds:
    """The examples of a study, and how they are parted: `x` (N, ...) and `y` are all that any fold trains on."""

    def __init__(self, dataset: Dataset, *, seed: int, n: int | None = None) -> None:
        """Deal all examples out to `n` folds, stratified: each is validated on by one, and trained on by all others.

        Raises:
            DataError: the study says already what to validate on, or there are fewer examples than folds.
        """
        self.dataset, self.seed, self.n = dataset, seed, n or 1
        self.x, self.y = dataset.x_train, dataset.y_train
        self._fractions: dict[float, tuple[Fold, ...]] = {}
        self._ranks: dict[tuple[float, int], Tensor] = {}
        if n is None:
            return
        if dataset.validation != "held_out" or n > len(dataset.y_train):
            raise DataError(
                f"folds = {n}: each validates on its part of the examples held in: leave [data] validation out, got "
                f"{dataset.validation!r}, and choose at most {len(dataset.y_train):,} folds."
            )
        index = torch.cat([dataset.train_index, dataset.val_index])
        order = index.argsort()
        self._index = index[order]
        self.x = torch.cat([dataset.x_train, dataset.x_val])[order]
        self.y = torch.cat([dataset.y_train, dataset.y_val])[order]

    def of(self, fraction: float) -> tuple[Fold, ...]:
        """Return the folds where only a fraction of each training part is used; they train on equally many examples.

        A smaller fraction's examples are among those of a larger one, class by class.
        """
        if fraction not in self._fractions:
            self._fractions[fraction] = self._parted(fraction)
        return self._fractions[fraction]

    def ranks(self, fraction: float, fold: int) -> Tensor:
        """Return the rank (from 0) of each feature by its mutual information with the target, shaped like an example.

        Learnt from the fold's training part alone. Source: sklearn.feature_selection.mutual_info_classif.
        """
        if (fraction, fold) not in self._ranks:
            part = self.of(fraction)[fold].train
            x, y = self.x[part].cpu().flatten(1).numpy(), self.y[part].cpu().numpy()
            ranks = torch.from_numpy(_information(x, y).argsort(kind="stable")[::-1].argsort())
            self._ranks[fraction, fold] = ranks.view(self.x.shape[1:]).to(self.x.device)
        return self._ranks[fraction, fold]

    def _parted(self, fraction: float) -> tuple[Fold, ...]:
        classes = strata(self.y.cpu().numpy())
        if self.n == 1:
            parts = [(np.arange(len(classes)), self.dataset.x_val, self.dataset.y_val, self.dataset.val_index)]
        else:
            dealt = _dealt(classes, n=self.n, seed=self.seed)
            own = [torch.from_numpy(np.flatnonzero(dealt == fold)).to(self.x.device) for fold in range(self.n)]
            parts = [
                (np.flatnonzero(dealt != fold), self.x[val], self.y[val], self._index[val])
                for fold, val in enumerate(own)
            ]
        kept = [part[nested(classes[part], fraction=fraction, seed=self.seed)] for part, *_ in parts]
        n = min(map(len, kept))
        return tuple(
            self._fold(np.sort(_shuffled(train, seed=self.seed)[:n]), classes, x_val, y_val, index)
            for train, (_, x_val, y_val, index) in zip(kept, parts, strict=True)
        )

    def _fold(
        self, train: NDArray[np.int64], classes: NDArray[np.int64], x_val: Tensor, y_val: Tensor, val_index: Tensor
    ) -> Fold:
        _, measured = stratified_split(classes[train], n_val=min(len(y_val), len(train)), seed=self.seed)
        mean, std = self.dataset.mean, self.dataset.std
        if len(train) < len(self.y):
            found = statistics(self.x.cpu().numpy()[train], scaling=self.dataset.scaling)
            mean, std = (torch.from_numpy(each).to(self.x.device) for each in found)
        positions = (torch.from_numpy(each).to(self.x.device) for each in (train, train[measured]))
        return Fold(
            **dict(zip(("train", "measured"), positions, strict=True)),
            x_val=x_val, y_val=y_val, val_index=val_index, mean=mean, std=std,
        )  # fmt: skip

    @property
    def facts(self) -> dict[str, object]:
        first = self.of(1.0)[0]
        return self.dataset.facts | {"n_train": len(first.train), "n_validation": len(first.y_val)}


def nested(classes: NDArray[np.int64], *, fraction: float, seed: int) -> NDArray[np.int64]:
    """Return the positions (ascending) of a fraction of the examples: of each class its share, rounded up."""
    sizes = np.bincount(classes)
    counts = np.array([math.ceil(fraction * size - 1e-9) for size in sizes], np.int64)
    shuffled = np.lexsort((np.random.PCG64(seed).random_raw(len(classes)), classes))
    rank = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(shuffled[rank < np.repeat(counts, sizes)])


def _dealt(classes: NDArray[np.int64], *, n: int, seed: int) -> NDArray[np.int64]:
    """Return each example's fold (N,): class by class they are dealt out like cards, so that shares differ by one."""
    dealt = np.empty(len(classes), np.int64)
    dealt[np.lexsort((np.random.PCG64(seed).random_raw(len(classes)), classes))] = np.arange(len(classes)) % n
    return dealt


def _shuffled(positions: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    return positions[np.argsort(np.random.PCG64(seed).random_raw(len(positions)), kind="stable")]


def _information(x: NDArray[np.generic], y: NDArray[np.generic]) -> NDArray[np.float64]:
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    estimate = mutual_info_classif if y.dtype.kind == "i" else mutual_info_regression
    whole = np.array_equal(x, np.round(x))  # counted where values are whole numbers, else by nearest neighbors
    found: NDArray[np.float64] = estimate(x, y, discrete_features=whole, random_state=0)
    return found
