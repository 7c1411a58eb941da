"""Which precision is fast on this device: hosts of one kind differ."""

import statistics
import time

import torch

BATCH, FEATURES, REPEATS = 128, 1024, 5
ENOUGH = 1.2
"""bfloat16 must be faster by this factor: casting the weights costs a part of the gain."""


def choose_precision(device: str) -> tuple[str, str]:
    """Time a matrix product of training size in both types; return "bfloat16" or "float32", and why, in words."""
    float32_s, bfloat16_s = _seconds(torch.float32, device), _seconds(torch.bfloat16, device)
    gain = float32_s / bfloat16_s
    precision = "bfloat16" if gain >= ENOUGH else "float32"
    operations = 2 * BATCH * FEATURES * FEATURES / 1e9
    return precision, (
        f"{precision}: a matrix product runs at {operations / bfloat16_s:,.1f} GFLOP/s in bfloat16 and "
        f"{operations / float32_s:,.1f} in float32 ({gain:.1f} times)"
    )


def _seconds(dtype: torch.dtype, device: str) -> float:
    """The median of a few; where bfloat16 is emulated one product takes 0.3 s."""
    a, b = (torch.ones(n, FEATURES, dtype=dtype, device=device) for n in (BATCH, FEATURES))
    times = []
    for _ in range(1 + REPEATS):
        started = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the device
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
