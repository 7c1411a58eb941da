"""The IMDB reviews as bags of words: which of the most frequent words occur in each.

N reviews, D words.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from objectives.datasets import DataError, Examples

FILE = "imdb/imdb_flat.npz"
SHA256 = "393403ce4442b8bb241a2c1e9cca56a45fcc94f4706b9b5dfbaf87331989814a"
N_WORDS = 100


def reviews(part: str, *, n_words: object, data_dir: Path) -> Examples:
    """Load 25,000 reviews and whether each is positive.

    Args:
        part: "train"; or "test", for objectives.test_set and nobody else.
        n_words: D, the most frequent words that are kept, "the" being the first; all others are left out.

    Raises:
        DataError: the file is missing or damaged, or n_words is no count.

    Source: Maas et al. (2011), "Learning word vectors for sentiment analysis"; the ranks are those of keras.datasets.
    """
    if not isinstance(n_words, int) or isinstance(n_words, bool) or n_words < 1:
        raise DataError(f"[data] n_words: must be a whole number, at least 1, got {n_words!r}.")
    with np.load(io.BytesIO(_verified(data_dir / FILE)), allow_pickle=False) as arrays:
        ranks, offsets, y = (arrays[name] for name in (f"x_{part}_flat", f"x_{part}_offsets", f"y_{part}"))
    return Examples(
        name="imdb",
        x=bags(ranks, offsets, n_words=n_words),
        y=y.astype(np.int64),
        classes=("negative", "positive"),
        validation=5_000,
        tested_elsewhere=True,
    )


def bags(ranks: NDArray[np.int32], offsets: NDArray[np.int64], *, n_words: int) -> NDArray[np.float32]:
    """Return 1 where a word occurs in a review and 0 where not, (N, D).

    Args:
        ranks: of the words of all reviews, one after the other; the most frequent word has rank 1.
        offsets: where each review begins, and the last one ends (N + 1,).
    """
    x = np.zeros((len(offsets) - 1, n_words), np.float32)
    review = np.repeat(np.arange(len(x)), np.diff(offsets))
    kept = ranks <= n_words
    x[review[kept], ranks[kept] - 1] = 1
    return x


def _verified(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: the IMDB reviews cannot be read: {error.strerror}. They are not downloaded: put the file there "
            "(the 50,000 reviews as word ranks, as the README's section on data says), or name another --data-dir."
        ) from error
    if (found := hashlib.sha256(content, usedforsecurity=False).hexdigest()) != SHA256:
        raise DataError(f"{path}: this file is damaged or another one: its sha256 must be {SHA256}, found {found}.")
    return content
