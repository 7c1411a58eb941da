"""What is asked of a device while it trains: the time and the memory.

It runs in the trainer's process, which has torch loaded; nothing here imports it.
"""

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
    used_bytes: Callable[[], int]
    """This process's memory; on a GPU its peak since the last call."""
    free_bytes: Callable[[], int]
    """What this process may still take."""


def device_named(name: str, *, n_trainers: int) -> Device:
    """Return the device of this name; trainers on the CPU share its memory evenly."""
    if name == "cpu":
        return Device(
            now=time.perf_counter,
            used_bytes=_resident_bytes,
            free_bytes=lambda: _available_bytes() // n_trainers,
        )
    cuda: Any = sys.modules["torch"].cuda

    def now() -> float:
        cuda.synchronize(name)
        return time.perf_counter()

    def peak_bytes() -> int:
        peak = int(cuda.max_memory_allocated(name))
        cuda.reset_peak_memory_stats(name)
        return peak

    def free_bytes() -> int:
        cached = int(cuda.memory_reserved(name)) - int(cuda.memory_allocated(name))
        return int(cuda.mem_get_info(name)[0]) + cached

    return Device(now=now, used_bytes=peak_bytes, free_bytes=free_bytes)


def _resident_bytes() -> int:
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
