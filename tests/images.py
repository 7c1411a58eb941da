"""Networks that were never trained: which of N images each of S seeds of a configuration gets right, and how surely.

An image is as hard for all (a logit with deviation 1.5), each configuration finds it harder or easier on its own
(0.5), a seed is better or worse throughout (0.1, about 2 points of accuracy), and the rest is chance. Configurations
are equal over all images, and differ on any set of them.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


SEED_DEVIATION = 0.1


def difficulties(rng: np.random.Generator, *, n_configurations: int, n: int) -> Floats:
    """The logit with which each configuration is right about each image (configurations, N)."""
    return 0.5 + 1.5 * rng.standard_normal(n) + 0.5 * rng.standard_normal((n_configurations, n))


def trained(
    rng: np.random.Generator, logits_N: Floats, *, n_seeds: int, seed_deviation: float = SEED_DEVIATION
) -> Floats:
    """The logit with which each seed of a configuration is right about each image (S, N)."""
    return logits_N + seed_deviation * rng.standard_normal((n_seeds, 1))


def correct(rng: np.random.Generator, logits_SN: Floats) -> Floats:
    """Whether each is right (S, N), 0 or 1: drawn with the probability of its logit."""
    return np.asarray(rng.random(logits_SN.shape) * (1 + np.exp(-logits_SN)) < 1, float)


def predictions(
    rng: np.random.Generator,
    *,
    n_seeds: tuple[int, int],
    n: int,
    better: float = 0.0,
    seed_deviation: float = SEED_DEVIATION,
) -> tuple[Floats, Floats]:
    """Whether the seeds of two configurations are right (S, N), 0 or 1; the first is better by a logit."""
    first, second = difficulties(rng, n_configurations=2, n=n)
    return (
        correct(rng, trained(rng, first + better, n_seeds=n_seeds[0], seed_deviation=seed_deviation)),
        correct(rng, trained(rng, second, n_seeds=n_seeds[1], seed_deviation=seed_deviation)),
    )


def losses(rng: np.random.Generator, *, n_seeds: tuple[int, int], n: int) -> tuple[Floats, Floats]:
    """Minus the cross-entropy of the seeds of two equal configurations (S, N): a logit is off by 1 at random."""
    first, second = (
        trained(rng, mean, n_seeds=seeds)
        for mean, seeds in zip(difficulties(rng, n_configurations=2, n=n), n_seeds, strict=True)
    )
    noise = rng.standard_normal
    return -np.logaddexp(0, -first - noise(first.shape)), -np.logaddexp(0, -second - noise(second.shape))
