"""What is asked of a device while it trains: the time and the memory.

It runs in the trainer's process, which has torch loaded; nothing here imports it.
"""

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What is asked of a device."""

    now: Callable[[], float]
    """Seconds, once all work that was queued is done."""
    spent: Callable[[], float]
    """The same, but on the CPU this process's own: what others take of its core says nothing of what it trains."""
    held_bytes: Callable[[], int]
    """What this process holds, once it has let go of what it only keeps for later; begins a peak."""
    peak_bytes: Callable[[], int]
    """The most that it has held since then."""
    free_bytes: Callable[[], int]
    """What this process may still take."""
    warm_ups: int
    """Updates before one is as fast as all that follow; a CUDA graph is captured by the fourth."""


def device_named(name: str, *, n_trainers: int) -> Device:
    """Return the device of this name; trainers on the CPU share its memory evenly."""
    if name == "cpu":
        return Device(
            now=time.perf_counter,
            spent=time.process_time,
            held_bytes=_held_bytes,
            peak_bytes=_resident_bytes,
            free_bytes=lambda: _available_bytes() // n_trainers,
            warm_ups=2,
        )
    cuda: Any = sys.modules["torch"].cuda

    def now() -> float:
        cuda.synchronize(name)
        return time.perf_counter()

    def held_bytes() -> int:
        cuda.reset_peak_memory_stats(name)
        return int(cuda.memory_allocated(name))

    def free_bytes() -> int:
        cached = int(cuda.memory_reserved(name)) - int(cuda.memory_allocated(name))
        return int(cuda.mem_get_info(name)[0]) + cached

    return Device(
        now=now,
        spent=now,
        held_bytes=held_bytes,
        peak_bytes=lambda: int(cuda.max_memory_allocated(name)),
        free_bytes=free_bytes,
        warm_ups=4,
    )


def _held_bytes() -> int:
    """Freed memory that the allocator keeps is used again before the process grows, so it has to go first."""
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return _resident_bytes()


def _resident_bytes() -> int:
    """The resident set: what is freed stays in it until it is trimmed, so that it is a peak as well."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # not Linux: SLOT_BYTES has to do
        return 0


def _available_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except FileNotFoundError:
        return sys.maxsize
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
