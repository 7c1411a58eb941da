"""Rows hold every tensor once, weights first, and views are the rows themselves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from objectives import flat
from objectives.flat import Layout, power_sum

SHAPES = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), min_size=1, max_size=6)


def tensors(shapes: list[tuple[int, ...]]) -> dict[str, Tensor]:
    return {f"t{i}": torch.randn(shape) for i, shape in enumerate(shapes)}


@given(SHAPES)
def test_views_of_a_row_are_the_tensors_it_was_made_of(shapes: list[tuple[int, ...]]) -> None:
    given_tensors = tensors(shapes)
    layout = Layout.of(given_tensors)
    row = layout.row(given_tensors)
    views = layout.views(row)
    assert row.shape == (layout.n,)
    assert views.keys() == given_tensors.keys()
    assert all(views[name].equal(tensor) for name, tensor in given_tensors.items())


@given(SHAPES)
def test_weights_come_first(shapes: list[tuple[int, ...]]) -> None:
    given_tensors = tensors(shapes)
    layout = Layout.of(given_tensors)
    marked = {name: torch.full_like(tensor, float(tensor.ndim > 1)) for name, tensor in given_tensors.items()}
    row = layout.row(marked)
    assert row[: layout.n_weights].eq(1).all()
    assert row[layout.n_weights :].eq(0).all()


def test_exempt_output_lies_behind_all_other_weights() -> None:
    shapes = {"layer1.weight": (2, 3), "layer1.bias": (3,), "output.weight": (1, 3), "output.bias": (1,)}
    layout = Layout.of({name: torch.zeros(shape) for name, shape in shapes.items()}, exempt_output=True)
    assert (layout.n_penalized, layout.n_weights, layout.n) == (6, 9, 13)


def test_views_of_rows_share_their_memory() -> None:
    layout = Layout(shapes={"w": (2, 3), "b": (3,)})
    rows = torch.zeros(4, layout.n)
    layout.views(rows)["b"].fill_(1)
    assert rows[:, 6:].eq(1).all()
    assert rows[:, :6].eq(0).all()


def test_no_tensors_make_an_empty_row() -> None:
    layout = Layout.of({})
    assert layout.row({}).shape == (0,)
    assert layout.views(torch.zeros(3, 0)) == {}


@given(n=st.integers(0, 40), piece=st.integers(1, 45), order=st.sampled_from([1, 2]))
def test_power_sum_is_the_sum_however_a_row_is_cut(n: int, piece: int, order: int) -> None:
    rows = torch.randn(3, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "PIECE", piece)
        found = power_sum(rows, order)
    assert found.dtype == torch.float64
    assert torch.allclose(found, rows.double().abs().pow(order).sum(1))
