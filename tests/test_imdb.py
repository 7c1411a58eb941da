"""Bags of words, and the reviews as they were published."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from objectives import imdb
from objectives.datasets import DataError

REVIEWS = st.lists(st.lists(st.integers(1, 12), max_size=9), min_size=1, max_size=9)


@given(REVIEWS, st.integers(1, 12))
def test_bag_says_which_words_occur(reviews: list[list[int]], n_words: int) -> None:
    offsets = np.cumsum([0, *map(len, reviews)])
    x = imdb.bags(np.array([w for review in reviews for w in review], np.int32), offsets, n_words=n_words)
    assert [set(np.flatnonzero(row) + 1) for row in x] == [{w for w in review if w <= n_words} for review in reviews]
    assert x.shape == (len(reviews), n_words)


@pytest.mark.real_data
def test_reviews_are_half_positive_and_hold_the_commonest_words(data_dir: Path) -> None:
    reviews = imdb.reviews("train", n_words=100, data_dir=data_dir)
    assert reviews.x.shape == (25_000, 100)
    assert np.bincount(reviews.y).tolist() == [12_500, 12_500]
    assert reviews.x[:, 0].mean() > 0.98  # "the"


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / imdb.FILE
    path.parent.mkdir()
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="its sha256 must be 393403ce"):
        imdb.reviews("train", n_words=100, data_dir=tmp_path)
