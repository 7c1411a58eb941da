"""The process that holds a device: it trains populations, and does what the coordinator's messages say.

It knows nothing of the ledger, of Optuna or of MLflow.
"""

import itertools
import math
import resource
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Protocol, cast

from search import checkpoint
from search.capacity import Capacities, out_of_memory
from search.contract import (
    Admit,
    Admitted,
    Confusion,
    Estimate,
    Estimated,
    Evaluation,
    Evict,
    Exported,
    ExportModel,
    Failed,
    Measure,
    Measured,
    Measurement,
    Open,
    Order,
    Population,
    Progress,
    Refused,
    Reply,
    Report,
    Saved,
    Shutdown,
    SlotReport,
)
from search.opening import opened_objective, warm_up
from search.processes import end_with_parent

WARM_UPS, ESTIMATE_S = 4, 1.0
"""Updates before an estimate, of which a CUDA graph's capture is the last; how long it then times updates."""


class Channel(Protocol):
    """The trainer's end of the line to its coordinator."""

    def send(self, reply: Reply) -> None: ...

    def receive(self, *, block: bool) -> Order | None:
        """Return the next order, or None where there is none and `block` is not set (or cannot be honored)."""


@dataclass(slots=True, kw_only=True)
class Member:
    """A trial in training: its rows of the population, and how far it is."""

    order: Admit
    slots: tuple[int, ...]
    epoch: int = 0
    best: float = -math.inf
    """The best value of the metric so far, its sign such that more is better."""


@dataclass(slots=True, kw_only=True)
class Cohort:
    """A population, its trials, and those that join it before its next update."""

    structure: str
    population: Population
    members: dict[int, Member] = field(default_factory=dict)
    joining: list[Admit] = field(default_factory=list)
    updates: int = 0
    """Since the last report."""


class Trainer:
    """Trains one population for up to an epoch's updates per step, all in turn, and listens between two updates.

    Rows have no common phase: a trial joins as soon as it is admitted, in the middle of the others' epochs. All trials
    advance at one pace, however full their populations are: what waits keeps its place in flight, and what it would
    teach the sampler (tests/benchmarks/README.md, refill).
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._cohorts: dict[str, Cohort] = {}
        self._slots = itertools.count()
        self._later: deque[Order] = deque()
        self._stopped = False
        self._wait_s = 0.0

    def step(self) -> bool:
        """Take what has arrived, then give one population its turn; False once shut down."""
        self._take_orders()
        if self._cohorts and not self._stopped:
            key, cohort = next(iter(self._cohorts.items()))
            self._cohorts[key] = self._cohorts.pop(key)  # its next turn comes after all others'
            self._guarded_turn(key, cohort)
        return not self._stopped

    def _take_orders(self) -> None:
        while not self._stopped:
            started = time.monotonic()
            order = self._later.popleft() if self._later else self._channel.receive(block=not self._in_training)
            if not self._in_training:
                self._wait_s += time.monotonic() - started
            if order is None:
                return
            self._handle(order)

    @property
    def _in_training(self) -> bool:
        return any(cohort.joining or cohort.population.slots for cohort in self._cohorts.values())

    def _handle(self, order: Order) -> None:
        match order:
            case Shutdown():
                self._stopped = True
            case Evict():
                self._evict(order)
            case Admit():
                self._one_off(lambda: self._admit(order), ((order.trial, order.attempt),))
            case Open():
                self._open(order)
            case Estimate():
                self._one_off(lambda: self._channel.send(self._estimated(order)))
            case Measure():
                self._one_off(lambda: self._measure(order), checkpoint=order.checkpoint)
            case ExportModel():
                self._one_off(lambda: self._export(order), checkpoint=order.checkpoint)

    # ------------------------------------------------------------ opening

    def _open(self, order: Open) -> None:
        try:
            self._opening = order
            opened, self._objective = opened_objective(order, lambda text: self._channel.send(Progress(text=text)))
            self._capacities = Capacities(self._objective, order=order, opened=opened)
        except Exception as error:  # whatever an objective raises is for the user to see
            for_user = getattr(error, "user_message", False)
            text = str(error) if for_user else f"objective {order.objective!r} could not be opened: {_line(error)}"
            self._channel.send(Refused(message=text, traceback="" if for_user else traceback.format_exc()))
        else:
            self._channel.send(opened)

    # ------------------------------------------------------------ trials

    def _admit(self, order: Admit) -> None:
        capacity = self._capacities.of(order)
        key = f"{order.structure} alone={order.trial}" if order.alone else order.structure
        if key not in self._cohorts:
            population = self._objective.build(order.hyperparameters, epochs=self._opening.epochs)
            self._cohorts[key] = Cohort(structure=order.structure, population=population)
        self._channel.send(
            Admitted(
                trial=order.trial,
                attempt=order.attempt,
                capacity=capacity,
                n_parameters=self._objective.n_parameters(order.hyperparameters),
            )
        )
        self._cohorts[key].joining.append(order)

    def _evict(self, order: Evict) -> None:
        for key, cohort in list(self._cohorts.items()):
            cohort.joining = [admit for admit in cohort.joining if _is(admit, order) is False]
            member = cohort.members.get(order.trial)
            if member is not None and _is(member.order, order):
                if order.save is not None:
                    self._save(cohort.population, member, Path(order.save))
                cohort.population.forget(member.slots)
                del cohort.members[order.trial]
            if not cohort.members and not cohort.joining:
                self._cohorts.pop(key)

    def _save(self, population: Population, member: Member, path: Path) -> None:
        try:
            digest = checkpoint.write_whole(path, lambda partial: population.save(member.slots[0], partial))
        except Exception as error:
            self._channel.send(_failed(error, ((member.order.trial, member.order.attempt),)))
        else:
            trial, attempt = member.order.trial, member.order.attempt
            self._channel.send(Saved(trial=trial, attempt=attempt, path=str(path), sha256=digest))

    def _guarded_turn(self, key: str, cohort: Cohort) -> None:
        try:
            self._turn(cohort)
        except Exception as error:
            orders = [member.order for member in cohort.members.values()] + cohort.joining
            self._cohorts.pop(key, None)
            if out_of_memory(error):
                self._capacities.shrink(orders[0], sum(len(order.replicates) for order in orders))
            self._channel.send(_failed(error, tuple((order.trial, order.attempt) for order in orders)))

    def _turn(self, cohort: Cohort) -> None:
        """Train for as many updates as an epoch has, or until nobody is left; report whoever completes an epoch."""
        for _ in range(cohort.population.n_updates):
            self._join(cohort)
            if not cohort.population.slots:
                return
            completed = cohort.population.update()
            cohort.updates += 1
            self._listen()
            if self._stopped:
                return
            members = [member for member in cohort.members.values() if member.slots[0] in completed]
            for member in members:
                member.epoch += 1
            if members:
                self._report(cohort, members)

    def _join(self, cohort: Cohort) -> None:
        joined = []
        while cohort.joining:
            order = cohort.joining[0]
            slots = tuple(next(self._slots) for _ in order.replicates)
            for slot, replicate in zip(slots, order.replicates, strict=True):
                cohort.population.admit(
                    slot, hyperparameters=order.hyperparameters, seed=replicate.seed, fold=replicate.fold
                )
            cohort.members[order.trial] = Member(order=cohort.joining.pop(0), slots=slots)
            joined.append(cohort.members[order.trial])
        if joined:
            self._report(cohort, joined)

    def _listen(self) -> None:
        """Between two updates: admissions and evictions at once, one-off jobs after the turn."""
        while (order := self._channel.receive(block=False)) is not None:
            if isinstance(order, Admit | Evict | Shutdown):
                self._handle(order)
            else:
                self._later.append(order)

    def _report(self, cohort: Cohort, members: list[Member]) -> None:
        evaluations = cohort.population.evaluate([slot for member in members for slot in member.slots])
        reports = []
        for member in members:
            report = _slot_report(member, [evaluations[slot] for slot in member.slots])
            self._keep_best(cohort.population, member, report)
            reports.append(report)
            if member.epoch == self._opening.epochs:
                cohort.population.retire(member.slots)
        self._channel.send(
            Report(
                structure=cohort.structure,
                slots=tuple(reports),
                updates=cohort.updates,
                epoch_updates=cohort.population.n_updates,
                wait_s=self._wait_s,
            )
        )
        cohort.updates = 0
        self._wait_s = 0.0

    def _keep_best(self, population: Population, member: Member, report: SlotReport) -> None:
        value = report.metrics.get(self._opening.metric, math.nan) * (1 if self._opening.maximize else -1)
        if report.epoch > 0 and math.isfinite(value) and value > member.best:
            member.best = value
            for slot in member.slots:
                population.keep(slot)

    # ------------------------------------------------------------ one-off jobs

    def _one_off(self, job: "Job", trials: tuple[tuple[int, int], ...] = (), *, checkpoint: str = "") -> None:
        try:
            job()
        except Exception as error:
            self._channel.send(_failed(error, trials, checkpoint=checkpoint))

    def _estimated(self, order: Estimate) -> Estimated:
        objective = self._objective
        population = objective.build(order.hyperparameters, epochs=self._opening.epochs)
        population.admit(0, hyperparameters=order.hyperparameters, seed=0, fold=None)
        for _ in range(WARM_UPS):
            population.update()
        n_timed, started = 0, time.perf_counter()
        while n_timed < population.n_updates and time.perf_counter() - started < ESTIMATE_S:
            population.update()
            n_timed += 1
        update_s = (time.perf_counter() - started) / n_timed
        started = time.perf_counter()
        population.evaluate()
        evaluate_s = time.perf_counter() - started
        return Estimated(
            n_parameters=objective.n_parameters(order.hyperparameters),
            memory_bytes=_memory_bytes(),
            update_s=update_s,
            epoch_s=update_s * population.n_updates + evaluate_s,
            capacity=self._capacities.of(order),
        )

    def _measure(self, order: Measure) -> None:
        weights, found = Path(order.checkpoint), list[Measurement]()
        digest = checkpoint.write_whole(
            Path(order.predictions),
            lambda partial: found.append(self._objective.measure(weights, partial, part=order.part)),
        )
        self._channel.send(
            Measured(
                checkpoint=order.checkpoint,
                predictions=order.predictions,
                part=order.part,
                metrics=dict(found[0].metrics),
                n_examples=found[0].n_examples,
                checksum=found[0].checksum,
                sha256=digest,
            )
        )

    def _export(self, order: ExportModel) -> None:
        self._objective.export_model(Path(order.checkpoint), Path(order.destination))
        self._channel.send(Exported(destination=order.destination))


class Job(Protocol):
    def __call__(self) -> None: ...


# ---------------------------------------------------------------- measuring


def _memory_bytes() -> int:
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# ---------------------------------------------------------------- messages


def _slot_report(member: Member, evaluations: list[Evaluation]) -> SlotReport:
    """Average a trial's replicates, and add up their confusion counts."""
    names = evaluations[0].metrics
    metrics = {name: math.fsum(e.metrics[name] for e in evaluations) / len(evaluations) for name in names}
    counts = [e.confusion for e in evaluations if e.confusion is not None]
    return SlotReport(
        trial=member.order.trial,
        attempt=member.order.attempt,
        epoch=member.epoch,
        metrics=metrics,
        replicates=tuple(dict(e.metrics) for e in evaluations) if len(evaluations) > 1 else (),
        confusion=_added(counts) if counts else None,
    )


def _added(counts: list[Confusion]) -> Confusion:
    return tuple(tuple(map(sum, zip(*rows, strict=True))) for rows in zip(*counts, strict=True))


def _is(admit: Admit, order: Evict) -> bool:
    return (admit.trial, admit.attempt) == (order.trial, order.attempt)


def _failed(error: Exception, trials: tuple[tuple[int, int], ...], *, checkpoint: str = "") -> Failed:
    return Failed(
        trials=trials,
        error=_line(error),
        traceback=traceback.format_exc(),
        out_of_memory=out_of_memory(error),
        checkpoint=checkpoint,
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


# ---------------------------------------------------------------- the process


class PipeChannel:
    """A channel over one end of a multiprocessing pipe; a closed pipe reads as Shutdown."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def send(self, reply: Reply) -> None:
        self._connection.send(reply)

    def receive(self, *, block: bool) -> Order | None:
        try:
            return cast("Order", self._connection.recv()) if block or self._connection.poll() else None
        except (EOFError, ConnectionError):
            return Shutdown()


def main(connection: Connection) -> None:
    """Serve one coordinator until it says so, or is gone."""
    end_with_parent()
    threading.Thread(target=warm_up, daemon=True).start()
    trainer = Trainer(PipeChannel(connection))
    try:
        while trainer.step():
            pass
    except BrokenPipeError:
        return  # the coordinator is gone; its ledger knows what was running
