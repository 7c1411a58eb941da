"""Random numbers as a pure function of (seed, purpose, counter): no state to keep, and equal on every device.

P slots. A slot's numbers come from its own key, so that its company changes nothing.
"""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

_GOLDEN, _MIX1, _MIX2 = -7046029254386353131, -4658895280553007687, -7723592293110705685


def key(seed: int, purpose: str, counter: int = 0) -> int:
    """Return a signed 64-bit key; different arguments give unrelated ones."""
    digest = blake2b(f"{seed} {purpose} {counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a generator on the CPU, for what is drawn once (initial weights)."""
    return torch.Generator().manual_seed(key(seed, purpose) & (2**63 - 1))


def bits(keys: Sequence[int], n: int, *, device: torch.device) -> Tensor:
    """Return n random words of 64 bits for each key, int64 (P, n).

    Source: splitmix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators").
    """
    state = torch.tensor(keys, dtype=torch.int64, device=device).unsqueeze(1) + _counters(n, device)
    # torch shifts signed: the mask makes the shift logical
    state ^= (state >> 30).bitwise_and_((1 << 34) - 1)
    state *= _MIX1
    state ^= (state >> 27).bitwise_and_((1 << 37) - 1)
    state *= _MIX2
    state ^= (state >> 31).bitwise_and_((1 << 33) - 1)
    return state


def uniform(keys: Sequence[int], n: int, *, device: torch.device) -> Tensor:
    """Return n numbers in [0, 1) for each key, float64 (P, n)."""
    return (bits(keys, n, device=device) >> 11).bitwise_and_((1 << 53) - 1).to(torch.float64).mul_(2.0**-53)


def permutations(keys: Sequence[int], n: int, *, device: torch.device) -> Tensor:
    """Return a permutation of 0 to n - 1 for each key, int64 (P, n)."""
    return bits(keys, n, device=device).argsort(dim=1, stable=True)


@lru_cache(maxsize=32)
def _counters(n: int, device: torch.device) -> Tensor:
    return torch.arange(1, n + 1, dtype=torch.int64, device=device) * _GOLDEN
