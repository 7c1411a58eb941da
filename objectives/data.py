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

from objectives import imdb
from objectives.datasets import DataError, Examples, closest, named, published_test
from objectives.own import inline, own

__all__ = ["DataError", "Dataset", "load", "statistics", "strata", "stratified_split"]

KEYS = ("n_words", "name", "path", "scaling", "size", "test", "validation", "x", "y")
NOT_HELD_OUT = ("train", "original_test")
SCALINGS = ("standard", "sample", "minmax", "half", "none")
TEST_FRACTION = 0.2
TEST_SEED = 0
"""The test part is the same in every study, whatever its seed, so that no study trains on what another tests with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A training and a validation part on one device; the test part is not in it, but for `validation`."""

    name: str
    checksum: str
    """Of examples, labels and class names before the split; it does not depend on the seed."""
    classes: tuple[str, ...]
    """Empty where numbers are predicted."""
    x_train: Tensor
    """uint8 (N, C, H, W) images, or float32 (N, D)."""
    y_train: Tensor
    """int64 (N,), 0 to K - 1, where every class occurs; or float32 (N,), the numbers to predict."""
    x_val: Tensor
    y_val: Tensor
    mean: Tensor
    """float32 (C,) or (D,): what is subtracted from an input, learnt from the training part alone; of images in units
    of value / 255."""
    std: Tensor
    """Like `mean`: what it is then divided by; 1 where the training part is constant."""
    train_index: Tensor
    """int64 (N,), ascending: positions in the published training set, or in the user's file or folder."""
    val_index: Tensor
    scaling: str = "standard"
    """How `mean` and `std` were learnt; one of SCALINGS."""
    label_limits: Mapping[str, float] = field(default_factory=dict)
    """Augmentation -> the strength beyond which an example no longer shows what its label says."""
    validation: str = "held_out"
    """What is measured; or "train": the training examples themselves; or "original_test": the published test set."""
    test_checksum: str = ""
    """Of the published test set, where it is what is measured."""

    @property
    def facts(self) -> dict[str, object]:
        """As search/contract.py wants them of an objective."""
        facts: dict[str, object] = {
            "data_set": self.name,
            "checksum": self.checksum,
            "n_train": len(self.y_train),
            "n_validation": len(self.y_val),
            "input_shape": list(self.x_train.shape[1:]),
            "classes": list(self.classes),
            "label_limits": dict(self.label_limits),
            "validation": self.validation,
        }
        return facts | ({"test_checksum": self.test_checksum} if self.test_checksum else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the examples."""

    x: NDArray[np.generic]
    y: NDArray[np.int64] | NDArray[np.float32]
    index: NDArray[np.int64]
    """(N,), where they are in the whole."""

    @staticmethod
    def all_of(examples: Examples) -> "Part":
        return Part(x=examples.x, y=examples.y, index=np.arange(len(examples.y)))

    def at(self, positions: NDArray[np.int64]) -> "Part":
        whole = len(positions) == len(self.y)
        return self if whole else Part(x=self.x[positions], y=self.y[positions], index=self.index[positions])


def load(
    data: Mapping[str, object],
    *,
    data_dir: Path,
    seed: int,
    device: str,
    progress: Callable[[str], None],
    numeric: bool = False,
) -> Dataset:
    """Load the data set that a study's [data] table names, and split it from `seed`.

    Args:
        data: exactly one of `name` (cifar10, mnist, fashion_mnist, digits, or imdb with its `n_words`), `path` (an
            .npz file, or a folder of images with one folder a class) and `y` (the examples themselves, with their
            `x`); optionally `validation` and, where no test set is published, `test`: a count or a fraction. In place
            of a part held out, `validation` may be "train" or "original_test" (see Dataset). `scaling` is one of
            SCALINGS; a folder may have a `size` = [H, W].
        data_dir: where torchvision's files are, or are downloaded to.
        numeric: numbers are predicted, not classes.

    Raises:
        DataError: the table is wrong, or the data are missing, damaged or of the wrong form.
    """
    if unknown := [key for key in data if key not in KEYS]:
        raise DataError(f"[data] {unknown[0]}: there is no such key.{closest(unknown[0], KEYS)}")
    if ("name" in data) + ("path" in data) + ("y" in data) != 1 or ("x" in data and "y" not in data):
        raise DataError(f"[data] must hold exactly one of name, path, and y with its x, got {', '.join(data)}.")
    if "n_words" in data and data.get("name") != "imdb":
        raise DataError("[data] n_words: only the words of imdb are counted. Remove the key.")
    examples = _examples(data, data_dir=data_dir, progress=progress, numeric=numeric)
    validation = data.get("validation", examples.validation)
    if validation in NOT_HELD_OUT and "test" in data:
        raise DataError(f"[data] test: has no effect with validation = {validation!r}. Remove the key.")
    if validation == "train":
        whole = train = val = Part.all_of(examples)
    elif validation == "original_test":
        whole = train = Part.all_of(examples)
        val = Part.all_of(_test(data, examples.name, data_dir=data_dir, progress=progress))
    else:
        whole = Part.all_of(examples).at(_without_test(examples, data))
        n_val = _count("validation", validation, n=len(whole.y))
        train, val = (whole.at(part) for part in stratified_split(strata(whole.y), n_val=n_val, seed=seed))
    if missing := set(range(len(examples.classes))) - set(train.y.tolist()):
        raise DataError(
            f"{examples.name}: no example of class {examples.classes[min(missing)]!r} is left to train on. "
            "Give the class more examples, make [data] validation or test smaller, or remove the class."
        )
    mean, std = statistics(train.x, scaling=data.get("scaling", "standard"))
    return Dataset(
        name=examples.name,
        checksum=_checksum(whole.x, whole.y, examples.classes),
        classes=examples.classes,
        x_train=torch.from_numpy(train.x).to(device),
        y_train=torch.from_numpy(train.y).to(device),
        x_val=torch.from_numpy(val.x).to(device),
        y_val=torch.from_numpy(val.y).to(device),
        mean=torch.from_numpy(mean).to(device),
        std=torch.from_numpy(std).to(device),
        train_index=torch.from_numpy(train.index).to(device),
        val_index=torch.from_numpy(val.index).to(device),
        scaling=str(data.get("scaling", "standard")),
        label_limits=examples.label_limits,
        validation=str(validation) if validation in NOT_HELD_OUT else "held_out",
        test_checksum=_checksum(val.x, val.y, examples.classes) if validation == "original_test" else "",
    )


def strata(y: NDArray[np.generic]) -> NDArray[np.int64]:
    """What a split keeps the shares of: the classes; numbers to predict are one stratum."""
    return y.astype(np.int64) if y.dtype.kind == "i" else np.zeros(len(y), np.int64)


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


def _examples(
    data: Mapping[str, object], *, data_dir: Path, progress: Callable[[str], None], numeric: bool
) -> Examples:
    if "y" in data:
        return inline(data.get("x"), data["y"], numeric=numeric)
    if "path" in data:
        return own(data["path"], size=data.get("size"), numeric=numeric)
    if numeric:
        raise DataError(f"[data] name: {data['name']} has classes, and no numbers to predict. Give x and y, or a path.")
    if data["name"] == "imdb":
        return imdb.reviews("train", n_words=data.get("n_words", imdb.N_WORDS), data_dir=data_dir)
    return named(data["name"], size=data.get("size"), data_dir=data_dir, progress=progress)


def _test(data: Mapping[str, object], name: str, *, data_dir: Path, progress: Callable[[str], None]) -> Examples:
    if data.get("name") == "imdb":
        return imdb.reviews("test", n_words=data.get("n_words", imdb.N_WORDS), data_dir=data_dir)
    return published_test(name, data_dir=data_dir, progress=progress)


def _without_test(examples: Examples, data: Mapping[str, object]) -> NDArray[np.int64]:
    """The positions of the examples that are not set apart for testing."""
    if examples.tested_elsewhere:
        if "test" in data:
            raise DataError(
                f"[data] test: {examples.name} has a published test set, which stays apart. Remove the key."
            )
        return np.arange(len(examples.y))
    n_test = _count("test", data.get("test", TEST_FRACTION), n=len(examples.y))
    return stratified_split(strata(examples.y), n_val=n_test, seed=TEST_SEED)[0]


def _count(key: str, value: object, *, n: int) -> int:
    """How many of `n` examples a fraction or count names."""
    if isinstance(value, float) and 0 < value < 1:
        count = math.floor(value * n + 0.5)
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        words = ', "train" or "original_test"' if key == "validation" else ""
        raise DataError(
            f"[data] {key}: must be a fraction between 0 and 1 or a count of examples{words}, got {value!r}."
        )
    if not 0 < count < n:
        raise DataError(
            f"[data] {key}: must leave something on both sides of {n:,} examples, got {value!r}, "
            f"which is {count:,} of them. Choose 1 to {n - 1:,}, or a fraction."
        )
    return count


def statistics(x: NDArray[np.generic], *, scaling: object) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What to subtract, and to divide by: per channel of uint8 (N, C, H, W), as value / 255, or per feature of (N, D).

    Args:
        scaling: to "standard" mean 0 and deviation 1; the same by the "sample" deviation, over N - 1; to 0 to 1
            ("minmax"); by mean and deviation 0.5 ("half"), which takes images to -1 to 1; "none".
    """
    if scaling not in SCALINGS:
        raise DataError(f"[data] scaling: must be one of {', '.join(SCALINGS)}, got {scaling!r}.")
    if x.dtype == np.uint8:
        n, value = x.size // x.shape[1], np.arange(256) / 255
        weights = _histogram(torch.from_numpy(x)).numpy() / n
        mean = weights @ value
        std = np.sqrt((weights * (value - mean[:, None]) ** 2).sum(axis=1))
        seen = weights > 0
        low, high = value[seen.argmax(axis=1)], value[255 - seen[:, ::-1].argmax(axis=1)]
    else:
        n, mean, std = len(x), x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
        low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    match scaling:
        case "sample":
            std = std * math.sqrt(n / max(n - 1, 1))
        case "minmax":
            mean, std = low, high - low
        case "half":
            mean, std = np.full_like(mean, 0.5), np.full_like(mean, 0.5)
        case "none":
            mean, std = np.zeros_like(mean), np.ones_like(mean)
    return mean.astype(np.float32), np.where(std > 0, std, 1.0).astype(np.float32)


def _histogram(x_NCHW: Tensor) -> Tensor:
    """How often each value occurs in each channel, (C, 256): exact, and without a float copy of the images."""
    return torch.stack([torch.bincount(x_NHW.reshape(-1), minlength=256) for x_NHW in x_NCHW.unbind(1)])


def _checksum(x: NDArray[np.generic], y: NDArray[np.generic], classes: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr((x.dtype.str, x.shape, classes)).encode())
    digest.update(np.ascontiguousarray(x).data)
    digest.update(np.ascontiguousarray(y).data)
    return digest.hexdigest()[:32]
