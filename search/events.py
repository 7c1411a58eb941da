"""What can happen in a study: frozen records, appended to the ledger before anything acts on them.

StudyCreated         once, first: definition, fingerprint, what was measured at the start
TestSetUsed          what it was measured on is no longer unseen: whose test set, and what for
SessionOpened        a coordinator took the study up            } one pair per run of the command;
SessionClosed        it let go in order, and why                } after kill -9 the second is missing
TrialAsked           the sampler (or the baseline) gave a trial its number and parameters
AttemptStarted       a trainer trains it, from its first epoch
EpochReported        one epoch of one attempt, measured
CheckpointSaved      its best weights are on disk
AttemptInterrupted   the attempt ended without a result; the trial will be trained again
TrialFinished        the trial has its outcome, for good
CheckpointRemoved    overtaken: its weights are off the disk
ModelExported        the champion's network is on disk, ready to be registered
StagePlanned         a phase beyond the search: which configurations are trained, with which seeds
NetworkTested        saved weights were measured on the test set

`at` is seconds since the epoch (Unix), UTC. `phase` is empty for the search; a confirmation's, an ablation's or a
reproduction's events carry its name, and are a study within the study (search/state.py). Paths are relative to the
study's folder, those of a phase to its folder below that.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from search.contract import Confusion, Value

Outcome = Literal["complete", "pruned", "failed"]
Reason = Literal["epochs", "patience", "rung", "diverged", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCreated:
    at: float
    study: str
    definition: Mapping[str, Any]
    """As the study file gives it, completed by defaults and the command line."""
    fingerprint: str
    precision: str
    facts: Mapping[str, Any]
    """What the objective says of its data; the names are in search/contract.py."""
    versions: Mapping[str, str]
    commit: str
    """The project's git commit, or ""."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestSetUsed:
    at: float
    purpose: str
    """ "validation": every epoch of every trial is measured on it; or the phase whose networks are."""
    checksum: str
    """Of the test set; empty before a phase has read it, then its NetworkTested tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    at: float
    host: str
    pid: int
    device: str
    n_trainers: int
    probe: str
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed:
    at: float
    reason: str
    """ "done", "interrupted", "timeout" or "stopped: ..."."""
    trained_s: float
    waited_s: float
    """Summed over the trainers: time in training, and time without anything to train."""
    slot_use: float | None = None
    """Slot-updates used, of those that populations at their capacity would have had, until trials ran out."""
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialAsked:
    at: float
    trial: int
    raw: Mapping[str, Value]
    """What is trained, by name of the space, as the sampler draws it."""
    hyperparameters: Mapping[str, Value]
    """The effective values, the study's constants included: what is trained."""
    baseline: bool
    drawn: Mapping[str, Value] = field(default_factory=dict)
    """What the sampler drew for the structure, where that of a population with room was held instead."""
    phase: str = ""
    stage: str = ""
    configuration: str = ""
    """What a phase calls these hyperparameters."""
    seeds: tuple[int, ...] = ()
    """Of its replicates, where a phase chose them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted:
    at: float
    trial: int
    attempt: int
    trainer: int
    device: str
    structure: str
    alone: bool
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReported:
    at: float
    trial: int
    attempt: int
    epoch: int
    """0 is the untrained network."""
    metrics: Mapping[str, float]
    """Means over the replicates; may hold NaN and infinities."""
    replicates: tuple[Mapping[str, float], ...] = ()
    """Each replicate's own, where there are several."""
    confusion: Confusion | None = None
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    at: float
    trial: int
    attempt: int
    path: str
    sha256: str
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptInterrupted:
    at: float
    trial: int
    attempt: int
    reason: str
    alone_next: bool = False
    """The next attempt shares a population with nobody: this one may have brought its population down."""
    max_slots: int | None = None
    """Populations of this structure may hold at most so many slots from now on: memory ran out."""
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialFinished:
    at: float
    trial: int
    attempt: int
    outcome: Outcome
    reason: Reason
    value: float | None
    """The metric at its best epoch; None where no epoch gave a finite one."""
    best_epoch: int | None
    n_parameters: int | None = None
    """Trainable; None of a trial that no population ever took."""
    error: str = ""
    traceback: str = ""
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRemoved:
    at: float
    trial: int
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelExported:
    at: float
    trial: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlanned:
    at: float
    stage: str
    configurations: Mapping[str, Mapping[str, Value]]
    """By name, the effective value of every parameter of the space."""
    seeds: tuple[int, ...]
    """Each configuration is trained with each of them."""
    reduced: str = ""
    """What a budget took away, in words."""
    phase: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTested:
    at: float
    trial: int
    metrics: Mapping[str, float]
    predictions: str
    """An .npz: outputs (N, K), targets (N,), index (N,)."""
    sha256: str
    """Of that file."""
    checksum: str
    """Of the test set."""
    n_examples: int
    phase: str = ""


Event = (
    StudyCreated
    | TestSetUsed
    | SessionOpened
    | SessionClosed
    | TrialAsked
    | AttemptStarted
    | EpochReported
    | CheckpointSaved
    | AttemptInterrupted
    | TrialFinished
    | CheckpointRemoved
    | ModelExported
    | StagePlanned
    | NetworkTested
)
KINDS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        StudyCreated,
        TestSetUsed,
        SessionOpened,
        SessionClosed,
        TrialAsked,
        AttemptStarted,
        EpochReported,
        CheckpointSaved,
        AttemptInterrupted,
        TrialFinished,
        CheckpointRemoved,
        ModelExported,
        StagePlanned,
        NetworkTested,
    )
}


def encode(event: Event) -> tuple[str, str]:
    """Return the event's kind and its JSON, in which NaN and infinities stand as Python's json writes them."""
    fields = {name: getattr(event, name) for name in event.__slots__}  # dataclasses.asdict would copy every count
    return type(event).__name__, json.dumps(fields, separators=(",", ":"))


def decode(kind: str, payload: str) -> Event:
    """The inverse of encode.

    Raises:
        KeyError: no such kind, as in a ledger written by a newer version.
    """
    fields = json.loads(payload)
    if kind == "EpochReported":
        fields["replicates"] = tuple(fields["replicates"])
        if fields["confusion"] is not None:
            fields["confusion"] = tuple(map(tuple, fields["confusion"]))
    if "seeds" in fields:
        fields["seeds"] = tuple(fields["seeds"])
    if kind == "TrialAsked":
        for name in fields.keys() & {"raw", "hyperparameters", "drawn"}:
            fields[name] = _values(fields[name])
    if kind == "StagePlanned":
        fields["configurations"] = {name: _values(given) for name, given in fields["configurations"].items()}
    return KINDS[kind](**fields)


def _values(given: Mapping[str, Any]) -> dict[str, Value]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def phase_of(event: Event) -> str:
    """The phase that the event belongs to; "" is the search, and what is the whole study's."""
    return "" if isinstance(event, StudyCreated | TestSetUsed | ModelExported) else event.phase


def in_phase(event: Event, phase: str) -> Event:
    """The event as one of that phase."""
    if not phase or isinstance(event, StudyCreated | TestSetUsed | ModelExported):
        return event
    return replace(event, phase=phase)
