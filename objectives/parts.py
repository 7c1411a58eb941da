"""What a study's [data] table names, and which of it a search may see: all but what is set apart for testing.

Legend: N examples.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives import imdb
from objectives.datasets import DataError, Examples, closest, named
from objectives.own import inline, own

KEYS = ("n_words", "name", "path", "scaling", "size", "test", "validation", "x", "y")
TEST_FRACTION = 0.2
TEST_SEED = 0
"""The test part is the same in every study, whatever its seed, so that no study trains on what another tests with."""


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


def examples_of(
    data: Mapping[str, object], *, data_dir: Path, progress: Callable[[str], None], numeric: bool
) -> Examples:
    """Read everything that a [data] table names but a published test set; its keys are those of objectives.data.load.

    Raises:
        DataError: the table is wrong, or the data are missing, damaged or of the wrong form.
    """
    if unknown := [key for key in data if key not in KEYS]:
        raise DataError(f"[data] {unknown[0]}: there is no such key.{closest(unknown[0], KEYS)}")
    if ("name" in data) + ("path" in data) + ("y" in data) != 1 or ("x" in data and "y" not in data):
        raise DataError(f"[data] must hold exactly one of name, path, and y with its x, got {', '.join(data)}.")
    if "n_words" in data and data.get("name") != "imdb":
        raise DataError("[data] n_words: only the words of imdb are counted. Remove the key.")
    if "y" in data:
        return inline(data.get("x"), data["y"], numeric=numeric)
    if "path" in data:
        return own(data["path"], size=data.get("size"), numeric=numeric)
    if numeric:
        raise DataError(f"[data] name: {data['name']} has classes, and no numbers to predict. Give x and y, or a path.")
    if data["name"] == "imdb":
        return imdb.reviews("train", n_words=data.get("n_words", imdb.N_WORDS), data_dir=data_dir)
    return named(data["name"], size=data.get("size"), data_dir=data_dir, progress=progress)


def searched(examples: Examples, data: Mapping[str, object]) -> Part:
    """Return what is not set apart for testing, which is all that a search trains on or validates on."""
    whole = Part.all_of(examples)
    if examples.tested_elsewhere:
        if "test" in data:
            raise DataError(
                f"[data] test: {examples.name} has a published test set, which stays apart. Remove the key."
            )
        return whole
    n_test = count("test", data.get("test", TEST_FRACTION), n=len(examples.y))
    return whole.at(stratified_split(strata(examples.y), n_val=n_test, seed=TEST_SEED)[0])


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


def count(key: str, value: object, *, n: int) -> int:
    """How many of `n` examples a fraction or count under a key of [data] names.

    Raises:
        DataError: it is neither, or leaves nothing on one side.
    """
    if isinstance(value, float) and 0 < value < 1:
        found = math.floor(value * n + 0.5)
    elif isinstance(value, int) and not isinstance(value, bool):
        found = value
    else:
        words = ', "train" or "original_test"' if key == "validation" else ""
        raise DataError(
            f"[data] {key}: must be a fraction between 0 and 1 or a count of examples{words}, got {value!r}."
        )
    if not 0 < found < n:
        raise DataError(
            f"[data] {key}: must leave something on both sides of {n:,} examples, got {value!r}, "
            f"which is {found:,} of them. Choose 1 to {n - 1:,}, or a fraction."
        )
    return found


def checksum(part: Part, classes: tuple[str, ...]) -> str:
    """Return what tells these examples, labels and class names from any others; 32 hexadecimal digits."""
    digest = hashlib.sha256(repr((part.x.dtype.str, part.x.shape, classes)).encode())
    digest.update(np.ascontiguousarray(part.x).data)
    digest.update(np.ascontiguousarray(part.y).data)
    return digest.hexdigest()[:32]
