"""Data resident on a device: stratified training and validation parts, statistics of the first, the test part left out.

Legend: N examples, C H W image, D features, K classes.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives.datasets import DataError, Examples, closest, named
from objectives.own import own

__all__ = ["DataError", "Dataset", "load", "stratified_split"]

KEYS = ("name", "path", "size", "test", "validation")
TEST_FRACTION = 0.2
TEST_SEED = 0
"""The test part is the same in every study, whatever its seed, so that no study trains on what another tests with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A training and a validation part on one device; the test part is not in it."""

    name: str
    checksum: str
    """Of examples, labels and class names before the split; it does not depend on the seed."""
    classes: tuple[str, ...]
    x_train: Tensor
    """uint8 (N, C, H, W) images, or float32 (N, D)."""
    y_train: Tensor
    """int64 (N,), 0 to K - 1; every class occurs."""
    x_val: Tensor
    y_val: Tensor
    mean: Tensor
    """float32 (C,) or (D,), of the training part alone; of images in units of value / 255."""
    std: Tensor
    """Like `mean`; 1 where the training part is constant."""
    train_index: Tensor
    """int64 (N,), ascending: positions in the published training set, or in the user's file or folder."""
    val_index: Tensor
    label_limits: Mapping[str, float] = field(default_factory=dict)
    """Augmentation -> the strength beyond which an example no longer shows what its label says."""


def load(
    data: Mapping[str, object], *, data_dir: Path, seed: int, device: str, progress: Callable[[str], None]
) -> Dataset:
    """Load the data set that a study's [data] table names, and split it from `seed`.

    Args:
        data: exactly one of `name` (cifar10, mnist, fashion_mnist, digits) and `path` (an .npz file, or a folder of
            images with one folder a class); optionally `validation` and, where no test set is published, `test`: a
            count or a fraction; and for a folder `size` = [H, W].
        data_dir: where torchvision's files are, or are downloaded to.

    Raises:
        DataError: the table is wrong, or the data are missing, damaged or of the wrong form.
    """
    if unknown := [key for key in data if key not in KEYS]:
        raise DataError(f"[data] {unknown[0]}: there is no such key.{closest(unknown[0], KEYS)}")
    if ("name" in data) == ("path" in data):
        raise DataError(f"[data] must hold exactly one of name and path, got {dict(data)}.")
    if "name" in data:
        examples = named(data["name"], size=data.get("size"), data_dir=data_dir, progress=progress)
    else:
        examples = own(data["path"], size=data.get("size"))
    kept = _without_test(examples, data)
    x, y = (examples.x, examples.y) if len(kept) == len(examples.y) else (examples.x[kept], examples.y[kept])
    n_val = _count("validation", data.get("validation", examples.validation), n=len(y))
    train, val = stratified_split(y, n_val=n_val, seed=seed)
    if missing := set(range(len(examples.classes))) - set(y[train].tolist()):
        raise DataError(
            f"{examples.name}: no example of class {examples.classes[min(missing)]!r} is left to train on. "
            "Give the class more examples, make [data] validation or test smaller, or remove the class."
        )
    x_train = x[train]
    mean, std = _statistics(x_train)
    return Dataset(
        name=examples.name,
        checksum=_checksum(x, y, examples.classes),
        classes=examples.classes,
        x_train=torch.from_numpy(x_train).to(device),
        y_train=torch.from_numpy(y[train]).to(device),
        x_val=torch.from_numpy(x[val]).to(device),
        y_val=torch.from_numpy(y[val]).to(device),
        mean=torch.from_numpy(mean).to(device),
        std=torch.from_numpy(std).to(device),
        train_index=torch.from_numpy(kept[train]).to(device),
        val_index=torch.from_numpy(kept[val]).to(device),
        label_limits=examples.label_limits,
    )


def stratified_split(y: NDArray[np.int64], *, n_val: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions (ascending) of a training and a validation part; the latter holds `n_val` examples.

    Each class gives its exact share, rounded up or down: the largest fractions are rounded up, of equal ones those of
    the lower classes. Only raw PCG64 words decide who goes, since NumPy promises them to stay the same in all versions.

    Args:
        y: labels (N,), not negative.
        n_val: 0 to N.
        seed: not negative.

    Source: https://numpy.org/doc/stable/reference/random/compatibility.html
    """
    sizes = np.bincount(y)
    counts, remainders = np.divmod(sizes * n_val, max(len(y), 1))
    counts[np.argsort(-remainders, kind="stable")[: n_val - counts.sum()]] += 1
    shuffled = np.lexsort((np.random.PCG64(seed).random_raw(len(y)), y))
    rank = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    is_val = rank < np.repeat(counts, sizes)
    return np.sort(shuffled[~is_val]), np.sort(shuffled[is_val])


def _without_test(examples: Examples, data: Mapping[str, object]) -> NDArray[np.int64]:
    """The positions of the examples that are not set apart for testing."""
    if examples.tested_elsewhere:
        if "test" in data:
            raise DataError(
                f"[data] test: {examples.name} has a published test set, which stays apart. Remove the key."
            )
        return np.arange(len(examples.y))
    n_test = _count("test", data.get("test", TEST_FRACTION), n=len(examples.y))
    return stratified_split(examples.y, n_val=n_test, seed=TEST_SEED)[0]


def _count(key: str, value: object, *, n: int) -> int:
    """How many of `n` examples a fraction or count names."""
    if isinstance(value, float) and 0 < value < 1:
        count = math.floor(value * n + 0.5)
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        raise DataError(f"[data] {key}: must be a fraction between 0 and 1 or a count of examples, got {value!r}.")
    if not 0 < count < n:
        raise DataError(
            f"[data] {key}: must leave something on both sides of {n:,} examples, got {value!r}, "
            f"which is {count:,} of them. Choose 1 to {n - 1:,}, or a fraction."
        )
    return count


def _statistics(x: NDArray[np.generic]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation per channel of uint8 (N, C, H, W), as value / 255, or per feature of (N, D)."""
    if x.dtype == np.uint8:
        value = np.arange(256) / 255
        weights = _histogram(torch.from_numpy(x)).numpy() / (x.size / x.shape[1])
        mean = weights @ value
        std = np.sqrt((weights * (value - mean[:, None]) ** 2).sum(axis=1))
    else:
        mean, std = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def _histogram(x_NCHW: Tensor) -> Tensor:
    """How often each value occurs in each channel, (C, 256): exact, and without a float copy of the images."""
    return torch.stack([torch.bincount(x_NHW.reshape(-1), minlength=256) for x_NHW in x_NCHW.unbind(1)])


def _checksum(x: NDArray[np.generic], y: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr((x.dtype.str, x.shape, classes)).encode())
    digest.update(np.ascontiguousarray(x).data)
    digest.update(np.ascontiguousarray(y).data)
    return digest.hexdigest()[:32]
