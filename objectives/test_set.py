"""The test set: the only module that reads one. A search uses nothing of it but for a declared reproduction.

N examples, C H W image, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from objectives import imdb
from objectives.datasets import DataError, Examples, published_test
from objectives.parts import Part, checksum, examples_of, searched

NOTHING_LEFT = {
    "train": "measures the training examples themselves: nothing was held out to choose by, so a test confirms nothing",
    "original_test": "measures the published test set in its search: nothing is left to test on",
}
"""By the word that stands in place of a part held out for validation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSet:
    """The examples that no search has trained on or validated on, on the CPU."""

    __test__ = False  # pytest takes a class of this name for tests

    x: Tensor
    """uint8 (N, C, H, W) images, or float32 (N, D)."""
    y: Tensor
    """int64 (N,) classes, or float32 (N,), the numbers to predict."""
    index: Tensor
    """int64 (N,), ascending: positions in the published test set, or in the user's file or folder."""
    checksum: str
    """Of its examples, labels and class names."""
    searched: str
    """The checksum of the examples that a search of this [data] sees: Dataset.checksum, unless a file has changed."""


def load_test(
    data: Mapping[str, object], *, data_dir: Path, progress: Callable[[str], None], numeric: bool = False
) -> TestSet:
    """Read the test set of what a study's [data] table names: the published one, or the part that was set apart.

    Args:
        data, data_dir, numeric: as objectives.data.load takes them.

    Raises:
        DataError: the study leaves nothing to test on, or the data are missing, damaged or of the wrong form.
    """
    validation = data.get("validation")
    if isinstance(validation, str) and validation in NOTHING_LEFT:
        raise DataError(
            f"[data] validation: {validation!r} {NOTHING_LEFT[validation]}. Make it a count or a fraction, "
            "and search again under a name of its own (--name NEW)."
        )
    examples = examples_of(data, data_dir=data_dir, progress=progress, numeric=numeric)
    seen = searched(examples, data)
    if examples.tested_elsewhere:
        part = published(examples, data, data_dir=data_dir, progress=progress)
    else:
        part = Part.all_of(examples).at(np.setdiff1d(np.arange(len(examples.y)), seen.index))
    return TestSet(
        x=torch.from_numpy(part.x),
        y=torch.from_numpy(part.y),
        index=torch.from_numpy(part.index),
        checksum=checksum(part, examples.classes),
        searched=checksum(seen, examples.classes),
    )


def published(
    examples: Examples, data: Mapping[str, object], *, data_dir: Path, progress: Callable[[str], None]
) -> Part:
    """Read the test set that was published with these examples.

    Raises:
        DataError: none was, or its files are missing or damaged.
    """
    if not examples.tested_elsewhere:
        raise DataError(
            f"[data] validation: {examples.name} has no published test set, got 'original_test'. "
            "Choose a count or a fraction."
        )
    if data["name"] == "imdb":
        return Part.all_of(imdb.reviews("test", n_words=data.get("n_words", imdb.N_WORDS), data_dir=data_dir))
    return Part.all_of(published_test(examples.name, data_dir=data_dir, progress=progress))
