"""How many slots of a structure to train at once: what pays is timed, what fits follows from the memory it took.

Measured in the trainer's process and remembered on disk by structure, device and version of the code.
"""

import hashlib
import itertools
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search.contract import Admit, Capacity, Estimate, Hyperparameters, Objective, Open, Opened, Population
from search.device import Device, device_named

GAIN = 0.05
"""More slots pay if they make a slot's share of an update at least so much shorter."""
SHARE = 0.5
"""Of the free memory: evaluation, and populations of other structures, take theirs too."""
SLOT_BYTES = 20
"""The least that a parameter takes: float32 weight, gradient, two moments and best weight."""
LEAST_ROUNDS, COMPARISON_S, LONGEST_S = 3, 0.2, 1.5
"""Two sizes are compared in turns for so long, and so many turns at least; what would take longer than the last is not
tried: the longer an update, the less of it is overhead that more slots share."""
STEP = 4
"""Times as many slots are tried next: what a doubling gains is often less than a shared machine's noise, and batched
products of two small matrices are no faster than one after the other."""
OVERHEAD_S = 1e-4
"""A shorter update is taken for this long: it is all overhead, which more slots share."""
SWEEPS = 3
"""So many, of as many trainers, are joined before none is added: a shared machine has slow minutes."""

Count = Annotated[int, Field(ge=1)]


class Record(BaseModel):
    """A part of what is remembered on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Sweep(Record):
    """What was timed of a structure on a device."""

    seconds: Mapping[Count, Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    """Number of slots -> time of an update of them all, in updates of one slot."""
    limit: Count
    """The most slots that were allowed and fitted; where as many pay, more might."""
    slot_bytes: Count

    @model_validator(mode="after")
    def _begins_with_one_slot(self) -> "Sweep":
        if 1 not in self.seconds:
            raise ValueError("seconds: must hold the time of 1 slot")
        return self


class Found(Record):
    """What is known of a structure on a device."""

    sweeps: tuple[Sweep, ...] = ()
    most: Count | None = None
    """Slots, since memory ran out with more while they trained."""


# ---------------------------------------------------------------- pure


def pays(seconds: Mapping[int, float]) -> int:
    """Return the least number of slots beyond which no other gains enough.

    Args:
        seconds: number of slots -> time of an update of them all, in any unit.
    """
    shares = {size: seconds[size] / size for size in sorted(seconds)}
    best = min(shares.values())
    return next(size for size, share in shares.items() if share * (1 - GAIN) <= best)


def joined(sweeps: Sequence[Sweep]) -> Mapping[int, float]:
    """Return what `pays` asks for: from each size to the next by the median of the sweeps that went so far."""
    steps = defaultdict[tuple[int, int], list[float]](list)
    for each in sweeps:
        for smaller, larger in itertools.pairwise(sorted(each.seconds)):
            steps[smaller, larger].append(each.seconds[larger] / each.seconds[smaller])
    seconds = {1: 1.0}
    for (smaller, larger), times_longer in sorted(steps.items()):
        seconds[larger] = seconds[smaller] * statistics.median(times_longer)
    return seconds


def tells(sweep: Sweep, limit: int) -> bool:
    """Whether a sweep says what pays up to this limit: it went so far, or ended because more does not pay."""
    return sweep.limit >= limit or pays(sweep.seconds) < sweep.limit


def _telling(found: Found, limit: int) -> list[Sweep]:
    return [each for each in found.sweeps if tells(each, limit)]


def fits(slot_bytes: int, free_bytes: int) -> int:
    """Return how many slots a population may have without filling the memory; at least one, which has to be tried."""
    return max(1, int(free_bytes * SHARE) // slot_bytes)


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch or Python raise where memory is short."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


# ---------------------------------------------------------------- the sweep


def swept(
    build: Callable[[], Population], hyperparameters: Hyperparameters, *, limit: int, least_bytes: int, device: Device
) -> Sweep:
    """Train populations of 1, 4, 16, ... slots, two sizes in turns, as long as that pays and fits.

    Where memory runs out, all is tried again with half as many slots at most.

    Args:
        build: makes an empty population of the structure.
        limit: the most slots to try.
        least_bytes: a slot's memory, where less is measured.
    """
    seconds, slot_bytes, more = {1: 1.0}, least_bytes, 1
    smaller, larger = build(), build()
    try:
        _fill(smaller, 1, hyperparameters, device)
        while (size := max(seconds)) < min(limit, pays(seconds) * STEP):
            n_held = len(larger.slots)
            limit = min(limit, max(size, n_held + fits(slot_bytes, device.free_bytes())))
            more = min(STEP * size, limit)
            n_updates = device.warm_ups * more + 2 * LEAST_ROUNDS * (size + more)
            if more == size or n_updates * _settled(smaller, device.now) / size > LONGEST_S:
                break
            held = device.held_bytes()
            _fill(larger, more, hyperparameters, device)
            slot_bytes = max(slot_bytes, (device.peak_bytes() - held) // (more - n_held))
            seconds[more] = seconds[size] * _ratio(larger, smaller, device)
            smaller, larger = larger, smaller
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        limit = max(seconds)
    if more // 2 > limit:  # beyond the handler, whose traceback holds on to the populations
        del smaller, larger
        return swept(build, hyperparameters, limit=more // 2, least_bytes=slot_bytes, device=device)
    return Sweep(seconds=seconds, limit=limit, slot_bytes=slot_bytes)


def _fill(population: Population, size: int, hyperparameters: Hyperparameters, device: Device) -> None:
    """Bring a population to this size, each slot with best weights as well, and train it a little."""
    for slot in range(len(population.slots), size):
        population.admit(slot, hyperparameters=hyperparameters, seed=slot, fold=None)
        population.keep(slot)
    for _ in range(device.warm_ups):
        population.update()


def _ratio(above: Population, below: Population, device: Device) -> float:
    """How much longer an update of one takes than of the other: the median of several, in turns."""
    started, ratios = device.now(), list[float]()
    while len(ratios) < LEAST_ROUNDS or device.now() - started < COMPARISON_S:
        ratios.append(_settled(above, device.spent) / _settled(below, device.spent))
    return statistics.median(ratios)


def _settled(population: Population, clock: Callable[[], float]) -> float:
    """Time an update that follows another: the first finds what the other population left in the caches."""
    population.update()
    started = clock()
    population.update()
    return max(clock() - started, OVERHEAD_S)


# ---------------------------------------------------------------- what is remembered


class Remembered(Record):
    """A file's content."""

    key: Mapping[str, object]
    found: Found


class Capacities:
    """The capacities of a study's structures on this trainer's device: each settled at its first trial."""

    def __init__(self, objective: Objective, *, order: Open, opened: Opened) -> None:
        self._objective, self._order = objective, order
        self._device = device_named(opened.device, n_trainers=order.n_trainers)
        self._known: dict[str, Capacity] = {}
        self._where = {
            "objective": order.objective,
            "device": opened.device_name,
            "precision": opened.precision,
            "torch": opened.versions["torch"],
            "engine": _engine(objective),
            "input_shape": opened.facts["input_shape"],
        }

    def of(self, order: Admit | Estimate) -> Capacity:
        """Return the capacity of the order's structure; measures it, unless it is known.

        Raises:
            Exception: whatever the objective raises when it builds or trains the structure.
        """
        known = self._known.get(order.structure)
        if known is not None:
            return known
        if isinstance(order, Admit) and order.alone:
            return Capacity(slots=1)  # it may be what breaks its population, so it is not tried in company
        self._known[order.structure] = self._found(order)
        return self._known[order.structure]

    def shrink(self, order: Admit, n_slots: int) -> None:
        """Remember that memory ran out with so many slots of the order's structure: half as many from now on."""
        half = max(1, n_slots // 2)
        known = self._known.get(order.structure, Capacity(slots=half))
        self._known[order.structure] = replace(known, slots=min(half, known.slots))
        folder, key = self._order.capacity_dir, self._key(order)
        found = recall(folder, key)
        remember(folder, key, found.model_copy(update={"most": min(half, found.most or half)}))

    def _found(self, order: Admit | Estimate) -> Capacity:
        limit = self._objective.capacity(order.hyperparameters)
        limit = min(limit, self._order.most_slots or limit)
        if limit == 1 or self._order.slots is not None:
            return Capacity(slots=limit)
        folder, key = self._order.capacity_dir, self._key(order)
        found = recall(folder, key)
        sweeps = _telling(found, limit)
        if len(sweeps) < SWEEPS:
            new = self._swept(order, limit)
            found = recall(folder, key)  # another trainer may have swept meanwhile
            sweeps = [*_telling(found, limit), new]
            remember(folder, key, found.model_copy(update={"sweeps": tuple(sweeps)}))
        slot_bytes = max(each.slot_bytes for each in sweeps)
        most = min(limit, found.most or limit, fits(slot_bytes, self._device.free_bytes()))
        seconds = joined(sweeps)
        paying = pays(seconds)
        return Capacity(slots=min(most, paying), saves=1 - seconds[paying] / paying)

    def _swept(self, order: Admit | Estimate, limit: int) -> Sweep:
        return swept(
            lambda: self._objective.build(order.hyperparameters, epochs=self._order.epochs),
            order.hyperparameters,
            limit=limit,
            least_bytes=SLOT_BYTES * self._objective.n_parameters(order.hyperparameters),
            device=self._device,
        )

    def _key(self, order: Admit | Estimate) -> Mapping[str, object]:
        n_parameters = self._objective.n_parameters(order.hyperparameters)
        return {**self._where, "structure": order.structure, "n_parameters": n_parameters}


def recall(folder: str, key: Mapping[str, object]) -> Found:
    """Return what is remembered under this key; where there is nothing, or nothing of use, nothing is known."""
    if not folder:
        return Found()
    try:
        held = Remembered.model_validate_json(_file(folder, key).read_bytes())
    except (OSError, ValueError):
        return Found()
    return held.found if held.key == key else Found()


def remember(folder: str, key: Mapping[str, object], found: Found) -> None:
    """Write a file of its own for this key, whole or not at all; where that is impossible, the next will measure."""
    if not folder:
        return
    path = _file(folder, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as partial:
            partial.write(Remembered(key=key, found=found).model_dump_json(indent=1))
        Path(partial.name).replace(path)
    except OSError:
        return


def _file(folder: str, key: Mapping[str, object]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return Path(folder) / f"{digest[:32]}.json"


def _engine(objective: Objective) -> str:
    """A hash of the code that trains and measures: what was found with other code says nothing."""
    package = Path(str(sys.modules["objectives"].__file__)).parent
    own = Path(str(sys.modules[type(objective).__module__].__file__))
    digest = hashlib.sha256()
    for path in (*sorted(package.glob("*.py")), own, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
