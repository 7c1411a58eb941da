"""Random numbers as a pure function of (seed, purpose, counter): no state to keep, and equal on every device.

What is drawn once or once an epoch has a key made on the host; what is drawn at every update has one made on the
device, of the slot's seed and its count of updates. P slots. A slot's numbers come from its own key, so that its
company changes nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def seeded(seed: int, purpose: str) -> Iterator[None]:
    """Give torch's own generator on the CPU a seed, and in the end the state that it had."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, purpose) & (2**63 - 1))
        yield


def draws(roots_P: Tensor, counts_P: Tensor) -> Tensor:
    """Return a key (P,) int64 for each slot's update: of the key of its seed, and the updates it has had."""
    return _mixed(roots_P + counts_P * _GOLDEN)


def purposed(draws_P: Tensor, purpose: str) -> Tensor:
    """Return keys (P,) for one use of the random numbers of an update, unrelated to those of every other use."""
    return draws_P ^ _constant(purpose)


def bits(keys_P: Tensor, n: int) -> Tensor:
    """Return n random words of 64 bits for each key, int64 (P, n).

    Source: splitmix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators").
    """
    return _mixed(keys_P.unsqueeze(1) + _counters(n, keys_P.device))


def _mixed(state: Tensor) -> Tensor:
    # torch shifts signed: the mask makes the shift logical
    state ^= (state >> 30).bitwise_and_((1 << 34) - 1)
    state *= _MIX1
    state ^= (state >> 27).bitwise_and_((1 << 37) - 1)
    state *= _MIX2
    state ^= (state >> 31).bitwise_and_((1 << 33) - 1)
    return state


def uniform(keys_P: Tensor, n: int) -> Tensor:
    """Return n numbers in [0, 1) for each key, float64 (P, n)."""
    return (bits(keys_P, n) >> 11).bitwise_and_((1 << 53) - 1).to(torch.float64).mul_(2.0**-53)


def permutation(key_of_it: int, n: int, *, device: torch.device) -> Tensor:
    """Return a permutation of 0 to n - 1, int64 (n,)."""
    # filled on the device: a tensor of the host's number would wait for the device
    return bits(torch.full((1,), key_of_it, dtype=torch.int64, device=device), n)[0].argsort(stable=True)


def _counters(n: int, device: torch.device) -> Tensor:
    # a graph must read no tensor that the cache may drop
    return _kept_counters(n) if device.type == "cpu" else torch.arange(1, n + 1, device=device) * _GOLDEN


@lru_cache(maxsize=32)
def _kept_counters(n: int) -> Tensor:
    return torch.arange(1, n + 1) * _GOLDEN


@lru_cache(maxsize=256)
def _constant(purpose: str) -> int:
    return key(0, purpose)
