"""Reserved tensors: zeros that take memory where they are written, and give it back."""

import gc
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from objectives.memory import reserved

MB = 2**20


def resident() -> int:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@given(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.sampled_from([torch.float32, torch.bfloat16]))
def test_it_is_zeros_of_this_shape_and_can_be_written(shape: list[int], dtype: torch.dtype) -> None:
    found = reserved(*shape, dtype=dtype)
    assert found.equal(torch.zeros(shape, dtype=dtype))
    assert found.fill_(1).sum() == found.numel()


def test_only_what_is_written_takes_memory_and_it_is_given_back() -> None:
    before = resident()
    rows = reserved(64, 4 * MB, dtype=torch.float32)  # 1 GiB
    assert resident() - before < 8 * MB
    rows[5] = 1.0
    assert 16 * MB <= resident() - before < 32 * MB
    view = rows[5, :10]
    del rows
    gc.collect()
    assert view.sum() == 10
    del view
    gc.collect()
    assert resident() - before < 8 * MB


def test_more_than_there_are_addresses_is_out_of_memory() -> None:
    with pytest.raises(MemoryError, match="out of memory"):
        reserved(2**60, dtype=torch.float32)
