"""Memory that the system gives page by page when it is first written: rows are reserved long before they are used.

A heap keeps the holes that growing rows leave, and a trainer's never gives them back (search/executors.py); what is
reserved here is the system's again as soon as the tensor is gone.
"""

import math
import mmap

import torch
from torch import Tensor


def reserved(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return zeros on the CPU that take no memory yet.

    Raises:
        MemoryError: the system has no such range of addresses.
    """
    n = math.prod(shape)
    if n == 0:
        return torch.zeros(shape, dtype=dtype)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        pages = mmap.mmap(-1, n * dtype.itemsize, flags=flags)
    except OSError as error:
        raise MemoryError(f"out of memory: {n * dtype.itemsize:,} bytes for a tensor of {list(shape)}") from error
    return torch.frombuffer(pages, dtype=dtype, count=n).view(shape)
