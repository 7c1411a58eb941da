"""The arithmetic and the text of the table: claims, their spread, and whether they hold. Pure."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One figure of a row, by repeat, and what is asked of it."""

    row: str
    title: str
    figure: str
    """What the values are: "x usual", "of the limit"."""
    values: Sequence[float]
    """One per repeat; infinity where it never came to it."""
    bound: float | None = None
    at_most: bool = False
    """Whether the bound is the most that is allowed; otherwise it is the least."""
    void: str = ""
    """Why the figure does not count; empty where it does."""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """ "met", "missed", "VOID: why", or nothing where no bound is set."""
        if self.void:
            return f"VOID: {self.void}"
        if self.bound is None:
            return ""
        if self.median <= self.bound if self.at_most else self.median >= self.bound:
            return "met"
        return "missed (never)" if math.isinf(self.median) else f"missed ({self.median / self.bound:.2f} of it)"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours / theirs, repeat by repeat: both sides of a pair were measured next to each other.

    Raises:
        ValueError: there are not as many of one as of the other.
    """
    return [own / other for own, other in zip(ours, theirs, strict=True)]


def alternating(sides: Sequence[str], n_repeats: int) -> list[tuple[int, str]]:
    """Return (repeat, side) in the order A B C, C B A, A B C, ..."""
    return [(repeat, side) for repeat in range(n_repeats) for side in (sides if repeat % 2 == 0 else sides[::-1])]


def spread(values: Sequence[float]) -> str:
    """The median, and in brackets the least and the greatest."""
    return f"{_short(statistics.median(values))} ({_short(min(values))} to {_short(max(values))})"


def rendered(claims: Iterable[Claim], machine: Mapping[str, Any]) -> str:
    """Return the table as Markdown, the machine below it."""
    lines = [
        "| row | figure | median (least to greatest) | asked | verdict | how |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        sign = "<=" if claim.at_most else ">="
        asked = "" if claim.bound is None else f"{sign} {claim.bound:g}"
        values = spread(claim.values) if claim.values else "-"
        lines.append(f"| {claim.title} | {claim.figure} | {values} | {asked} | {claim.verdict} | {claim.note} |")
    facts = ", ".join(f"{name} {value}" for name, value in machine.items() if value is not None)
    return "\n".join([*lines, "", f"Machine: {facts}."])


def _short(value: float) -> str:
    if math.isinf(value):
        return "never"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
