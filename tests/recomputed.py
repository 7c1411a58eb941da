"""A report's numbers computed a second way: by the textbook, slowly, with nothing of the project; and where they stand.

S seeds, N examples, D parameters.
"""

import math
import re
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]

# ---------------------------------------------------------------- seeds x examples


def two_way(*sides_SN: Floats) -> tuple[float, float]:
    """The standard error of a mean over random seeds and examples, or of a difference, and its degrees of freedom.

    By the mean squares of a two-way table without replication (each side seeds x examples, the examples shared).
    Source: Searle, Casella, McCulloch (1992), "Variance components", chapter 4; Satterthwaite (1946).
    """
    parts, noise = [], 0.0
    n = sides_SN[0].shape[1]
    for side in sides_SN:
        s = len(side)
        row, column, grand = side.mean(1), side.mean(0), side.mean()
        ms_seeds = n * sum((m - grand) ** 2 for m in row) / (s - 1)
        rest = [side[i, j] - row[i] - column[j] + grand for i in range(s) for j in range(n)]
        ms_rest = sum(r * r for r in rest) / ((s - 1) * (n - 1))
        parts.append((float(ms_seeds or ms_rest) / (s * n), s - 1))
        noise += float(ms_rest) / (s * n)
    columns = sides_SN[0].mean(0) - (sides_SN[1].mean(0) if len(sides_SN) > 1 else 0.0)
    parts.append((max(float(np.var(columns, ddof=1)) / n - noise, 0.0), n - 1))
    variance = sum(part for part, _ in parts)
    return math.sqrt(variance), variance**2 / sum(part**2 / degrees for part, degrees in parts)


def crossed_width(*sides_SN: Floats) -> float:
    """Of the 95 % interval over seeds and examples, which is never narrower than that over seeds alone."""
    error, degrees = two_way(*sides_SN)
    means = [side.mean(1) for side in sides_SN]
    alone = (
        stats.ttest_ind(*means, equal_var=False).confidence_interval()
        if len(means) > 1
        else stats.ttest_1samp(means[0], 0.0).confidence_interval()
    )
    return max(2 * float(stats.t.ppf(0.975, degrees)) * error, float(alone.high - alone.low))


def detectable(first_SN: Floats, second_SN: Floats) -> float:
    """The difference that a two-sided test at 5 % sees in 80 % of cases."""
    error, degrees = two_way(first_SN, second_SN)
    return float(stats.t.ppf(0.975, degrees) + stats.t.ppf(0.8, degrees)) * error


def lean(*sides_SN: Floats, seed: int, n_draws: int = 2000) -> float:
    """Which share of the 95 % interval of the crossed bootstrap lies below the estimate."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_draws):
        examples = rng.integers(sides_SN[0].shape[1], size=sides_SN[0].shape[1])
        means = [side[rng.integers(len(side), size=len(side))][:, examples].mean() for side in sides_SN]
        drawn.append(means[0] - sum(means[1:]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    estimate = sides_SN[0].mean() - sum(side.mean() for side in sides_SN[1:])
    return float((estimate - low) / (high - low))


# ---------------------------------------------------------------- importance


def forest_shares(positions_ND: Floats, values_N: Floats, *, n_trees: int, seed: int) -> Floats:
    """fANOVA of a random forest (D,): each tree asked in the middle of every cell of the grid of its thresholds."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=n_trees, random_state=seed).fit(positions_ND, values_N)
    shares = []
    for tree in forest.estimators_:
        inner, dimensions = tree.tree_, range(positions_ND.shape[1])
        edges = [[0.0, *sorted(set(inner.threshold[inner.feature == d])), 1.0] for d in dimensions]
        if not any(len(each) > 2 for each in edges):
            continue
        middles = np.meshgrid(*[[(a + b) / 2 for a, b in pairwise(each)] for each in edges], indexing="ij")
        cells = np.stack(middles, axis=-1).reshape(-1, len(edges)).astype(np.float32)
        told = inner.predict(cells).reshape(middles[0].shape)
        volumes = np.ones(told.shape)
        for d in dimensions:
            volumes *= np.diff(edges[d]).reshape([-1 if k == d else 1 for k in dimensions])
        mean = (told * volumes).sum()
        explained = []
        for d in dimensions:
            others = tuple(k for k in dimensions if k != d)
            slab = volumes.sum(axis=others)
            explained.append((slab * ((told * volumes).sum(axis=others) / slab - mean) ** 2).sum())
        shares.append(np.array(explained) / ((told - mean) ** 2 * volumes).sum())
    total = np.mean(shares, axis=0)
    found: Floats = total / total.sum()
    return found


# ---------------------------------------------------------------- what is drawn


class Picture:
    """A plot of the page, read by its ticks: which pixel is which value."""

    def __init__(self, html: str, title: str) -> None:
        (self._svg,) = (each for each in html.split("<svg xmlns=") if f">{escape(title)}</title>" in each)
        self.height = float(self._found(r'height="([\d.]+)"')[0])
        rows = self._found(r'<line class="grid" x1="[^"]*" y1="([\d.]+)"[^>]*/><text class="tick" x="-6"[^>]*>([^<]+)<')
        self.y_ticks = {text: float(at) for at, text in rows}
        columns = self._found(r'<text class="tick" x="([\d.]+)%"[^>]*>([^<]+)<')
        self.x_ticks = {text: float(at) for at, text in columns}

    def _found(self, pattern: str) -> list[Any]:
        return re.findall(pattern, self._svg)

    def x(self, values: ArrayLike) -> Floats:
        """Where values are, in % of the width; between the ticks on a straight line."""
        return _straight({t: at for t, at in self.x_ticks.items() if t not in ("off", "on")}, values)

    def y(self, values: ArrayLike) -> Floats:
        """Where values in the ticks' unit are; those beyond the ends lie at the ends."""
        return np.clip(_straight(self.y_ticks, values), 0.0, self.height)

    def circles(self, name: str) -> Floats:
        """x, y and radius of each."""
        return np.array(self._found(rf'<circle class="{name}" cx="([\d.]+)%" cy="([\d.]+)" r="([\d.]+)"'), float)

    def lines(self, name: str) -> Floats:
        """x, and y of both ends of each that is vertical."""
        found = rf'<line class="{name}" x1="([\d.]+)%" y1="([\d.]+)" x2="\1%" y2="([\d.]+)"'
        return np.array(self._found(found), float)


def _straight(ticks: dict[str, float], values: ArrayLike) -> Floats:
    slope, zero = np.polyfit([float(text) for text in ticks], list(ticks.values()), 1)
    found: Floats = slope * np.asarray(values, float) + zero
    return found


def bins(doses: Sequence[tuple[float, float]], *, n: int) -> list[tuple[float | None, float, float, float]]:
    """Of (dose, value) the middle dose, mean and t-interval of those at 0 (None), then of n parts by dose."""
    off = [value for dose, value in doses if dose == 0]
    found: list[tuple[float | None, float, float, float]] = [(None, *_mean(off))] if off else []
    on = sorted(((d, v) for d, v in doses if d != 0), key=lambda each: each[0])
    sizes = [len(on) // n + (k < len(on) % n) for k in range(n)]
    for k, size in enumerate(sizes):
        part = on[sum(sizes[:k]) :][:size]
        if part:
            found.append((math.sqrt(part[0][0] * part[-1][0]), *_mean([v for _, v in part])))
    return found


def _mean(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    mean = float(np.mean(values))
    low, high = stats.t.interval(0.95, len(values) - 1, mean, stats.sem(values)) if np.ptp(values) else (mean, mean)
    return mean, float(low), float(high)
