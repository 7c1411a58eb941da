"""The slots' own hyperparameters as vectors, and what an update draws at random: what layers and augmentation read.

P slots.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from objectives.hyperparameters import Hyperparameter, Value, number
from objectives.streams import draws, purposed


class Numbers:
    """One float64 vector (P,) on the device for each hyperparameter that is a number."""

    def __init__(
        self,
        slots: Sequence[Mapping[str, Value] | None],
        names: Sequence[str],
        *,
        device: torch.device,
        switches: Sequence[str] = (),
        stays: bool = False,
    ) -> None:
        """Of these slots; a row of none has zeros.

        Args:
            switches: those of the names that are on or off, of which a layer asks which slots have them on.
            stays: rows are given to others in place, by `put`: what is done must not depend on which rows they are.
        """
        self._names, self._switches, self._stays = list(names), list(switches), stays
        self._held = [slot is not None for slot in slots]
        self._values = [self._of(slot) for slot in slots]
        self._table = torch.tensor(self._values, dtype=torch.float64).view(len(slots), len(names)).to(device)
        self._vectors = dict(zip(names, self._table.unbind(1), strict=True))
        self._parts: dict[str, Part] = {}
        self.in_use = self._found()
        """The names of which any slot has another value than 0, and "all: NAME" of the switches that all slots have on;
        known without looking at the device."""

    def __getitem__(self, name: str) -> Tensor:
        return self._vectors[name]

    def used(self, name: str) -> bool:
        """Whether any slot has another value than 0."""
        return name in self.in_use

    def having(self, switch: str) -> "Part":
        """The slots that have this switch on; some have (`used`)."""
        if f"all: {switch}" in self.in_use:
            return Part()
        if self._stays:
            return Part(mask=self[switch] != 0)
        if switch not in self._parts:
            on = self._names.index(switch)
            rows = [row for row, values in enumerate(self._values) if values[on]]
            self._parts[switch] = Part(rows=torch.tensor(rows, device=self._table.device))
        return self._parts[switch]

    def put(self, row: int, slot: Mapping[str, Value] | None) -> None:
        """Give a row to another slot, or to none: the vectors stay where they are."""
        self._values[row], self._held[row] = self._of(slot), slot is not None
        write(torch.tensor(self._values[row], dtype=torch.float64), into=self._table[row])
        self.in_use = self._found()

    def _of(self, slot: Mapping[str, Value] | None) -> list[float]:
        return [number(slot, name) if slot else 0.0 for name in self._names]

    def _found(self) -> frozenset[str]:
        columns = zip(*(values for values, held in zip(self._values, self._held, strict=True) if held), strict=True)
        own = dict(zip(self._names, columns, strict=False))
        some = {name for name, values in own.items() if any(values)}
        return frozenset(some | {f"all: {name}" for name in some.intersection(self._switches) if all(own[name])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Some of the slots: by position, or by a mask where operations must not depend on which they are; else all."""

    rows: Tensor | None = None
    mask: Tensor | None = None
    """bool (P,)."""

    @property
    def whole(self) -> bool:
        """Whether it is all slots."""
        return self.rows is None and self.mask is None

    def taken(self, stack: Tensor) -> Tensor:
        """Return these slots' rows of a stack (P, ...); all of them where a mask tells them apart."""
        return stack if self.rows is None else stack.index_select(0, self.rows)

    def put(self, values: Tensor, *, into: Tensor) -> None:
        """Write to these slots' rows of a stack (P, ...), of values such as `taken` returns."""
        if self.mask is not None:
            into.copy_(torch.where(self.mask.view(-1, *(1,) * (into.ndim - 1)), values, into))
        elif self.rows is not None:
            into.index_copy_(0, self.rows, values.to(into.dtype))
        elif into.data_ptr() != values.data_ptr():
            into.copy_(values)


def named(declared: Mapping[str, Hyperparameter]) -> tuple[list[str], list[str]]:
    """Return the names of the hyperparameters that are numbers, and of those that a slot has on or off."""
    names = [name for name, rule in declared.items() if rule.kind in ("float", "int", "bool")]
    return names, [name for name in names if declared[name].kind == "bool" and not declared[name].structural]


def write(values: Tensor, *, into: Tensor) -> None:
    """Copy numbers of the host, or of the device, to their place on the device without waiting for it."""
    beside = into.is_cuda and not values.is_cuda
    into.copy_(values.pin_memory() if beside else values, non_blocking=beside)


@dataclass(slots=True, kw_only=True)
class Draws:
    """The slots' numbers, and the keys of the random numbers of one update; in eval mode nothing is drawn."""

    numbers: Numbers
    roots: Tensor | None = None
    """A key of each slot's seed, int64 (P,); None in eval mode."""
    counts: Tensor | None = None
    """Updates that each slot has had, int64 (P,); None in eval mode."""
    _drawn: Tensor | None = None

    @property
    def training(self) -> bool:
        return self.roots is not None

    def keys(self, purpose: str) -> Tensor:
        """Keys (P,) for one use of random numbers in this update."""
        if self._drawn is None:
            assert self.roots is not None, "nothing is drawn in eval mode"
            assert self.counts is not None
            self._drawn = draws(self.roots, self.counts)
        return purposed(self._drawn, purpose)
