"""Data resident on a device: stratified training and validation parts, statistics of the first, the test part left out.

Legend: N examples, C H W image, D features, K classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from objectives import test_set
from objectives.datasets import DataError, Examples
from objectives.parts import Part, checksum, count, examples_of, searched, strata, stratified_split

__all__ = ["DataError", "Dataset", "load", "statistics"]

NOT_HELD_OUT = ("train", "original_test")
SCALINGS = ("standard", "sample", "minmax", "half", "none")


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
    examples = examples_of(data, data_dir=data_dir, progress=progress, numeric=numeric)
    validation = data.get("validation", examples.validation)
    if validation not in NOT_HELD_OUT:
        whole, train, val = _held_out(examples, data, seed=seed)
    elif "test" in data:
        raise DataError(f"[data] test: has no effect with validation = {validation!r}. Remove the key.")
    else:
        whole = train = val = Part.all_of(examples)
    if validation == "original_test":
        val = test_set.published(examples, data, data_dir=data_dir, progress=progress)
    _check_classes(examples, train)
    mean, std = statistics(train.x, scaling=data.get("scaling", "standard"))
    arrays = {
        "x_train": train.x, "y_train": train.y, "train_index": train.index,
        "x_val": val.x, "y_val": val.y, "val_index": val.index, "mean": mean, "std": std,
    }  # fmt: skip
    return Dataset(
        **{name: torch.from_numpy(array).to(device) for name, array in arrays.items()},
        name=examples.name,
        checksum=checksum(whole, examples.classes),
        classes=examples.classes,
        scaling=str(data.get("scaling", "standard")),
        label_limits=examples.label_limits,
        validation=str(validation) if validation in NOT_HELD_OUT else "held_out",
        test_checksum=checksum(val, examples.classes) if validation == "original_test" else "",
    )


def _held_out(examples: Examples, data: Mapping[str, object], *, seed: int) -> tuple[Part, Part, Part]:
    """What a search sees, and which part of that it trains on, and which it is measured on."""
    whole = searched(examples, data)
    n_val = count("validation", data.get("validation", examples.validation), n=len(whole.y))
    train, val = (whole.at(part) for part in stratified_split(strata(whole.y), n_val=n_val, seed=seed))
    return whole, train, val


def _check_classes(examples: Examples, train: Part) -> None:
    if missing := set(range(len(examples.classes))) - set(train.y.tolist()):
        raise DataError(
            f"{examples.name}: no example of class {examples.classes[min(missing)]!r} is left to train on. "
            "Give the class more examples, make [data] validation or test smaller, or remove the class."
        )


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
