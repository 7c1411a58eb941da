"""The row "recording": the whole service against the same trainers, of which nothing is recorded.

Both sides train the same trials on the same two trainers, alternately, with the coordinator as it is. With recording
off its events go nowhere: there is no ledger on disk and there are no views. With recording on the clock stops when
both views hold everything. Imports and MLflow's empty database are start-up, and there before the clock starts.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from search.admission import sampled
from search.contract import Open, Opened
from search.coordinator import Coordinator, Watcher
from search.definition import StudyDefinition
from search.events import Event, StudyCreated
from search.executors import CPU_TRAINER_ENVIRONMENT, LocalProcesses
from search.launch import first_order, open_trainer, orders
from search.ledger import Ledger
from search.retention import OfTheBest
from search.state import State, apply
from search.viewer import Stores, Viewer
from search.workspace import Workspace
from tests.benchmarks.fused import definition
from tests.benchmarks.rows import Bench
from tests.benchmarks.table import Claim, alternating
from tests.benchmarks.workloads import WORKLOADS, Workload

TRIALS = {"cifar_mlp": (6, 1), "cifar_cnn": (4, 1), "digits": (160, 8)}
"""Trials of a side, and slots of a trainer."""
BOUNDS = {"cifar_mlp": 1.05, "cifar_cnn": 1.05}
DRAIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """Seconds until the last trial was finished, and until the views had been brought up to that."""

    trained_s: float
    recorded_s: float


class Nowhere:
    """A ledger that keeps nothing."""

    def append(self, *events: Event) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainers:
    """Both trainers, with the data loaded and nothing to train."""

    executor: LocalProcesses
    orders: dict[int, Open]
    opened: Opened


def measured(bench: Bench) -> tuple[list[Claim], dict[str, Any]]:
    claims, detail = [], {}
    for name, (n_trials, slots) in TRIALS.items():
        walls = _alternated(WORKLOADS[name], bench, n_trials=n_trials, slots=slots)
        pairs = list(zip(walls["on"], walls["off"], strict=True))
        while_training = sorted(on.trained_s / off.trained_s for on, off in pairs)
        claims.append(
            Claim(
                row="recording",
                title=f"recording on / off, {WORKLOADS[name].title}",
                figure="x the wall time, views included",
                values=[on.recorded_s / off.recorded_s for on, off in pairs],
                bound=BOUNDS.get(name),
                at_most=True,
                note=f"{n_trials} trials of 10 reports; off {pairs[0][1].trained_s:.1f} s; until the last trial "
                f"{while_training[len(pairs) // 2]:.3f} x",
            )
        )
        detail[name] = {side: [asdict(each) for each in found] for side, found in walls.items()}
    return claims, detail


def _alternated(workload: Workload, bench: Bench, *, n_trials: int, slots: int) -> dict[str, list[Walls]]:
    places, walls = bench.places(workload), dict[str, list[Walls]](on=[], off=[])
    study = definition(
        workload,
        places.path,
        name="recording",
        seed=0,
        n_trials=n_trials,
        slots=slots,
        trainers=2,
        checkpoints=0,
        precision=bench.precision,
    )
    with _trainers(study, places.data_dir) as trainers:
        warm_up = study.model_copy(update={"n_trials": 4 * slots, "epochs": 1})
        _train(warm_up, trainers, cast("Ledger", Nowhere()), bench.root)
        for repeat, side in alternating(["on", "off"], bench.effort.repeats):
            if side == "off":
                wall_s = _train(study, trainers, cast("Ledger", Nowhere()), bench.root)
                walls[side].append(Walls(trained_s=wall_s, recorded_s=wall_s))
            else:
                named = study.model_copy(update={"name": f"{workload.name.replace('_', '-')}-{repeat}"})
                walls[side].append(_recorded(named, trainers, bench.root))
    return walls


@contextlib.contextmanager
def _trainers(study: StudyDefinition, data_dir: Path) -> Iterator[Trainers]:
    executor = LocalProcesses(CPU_TRAINER_ENVIRONMENT, ahead=2)
    try:
        first = first_order(study, data_dir, State())
        opened = open_trainer(executor, first, Console(quiet=True))
        by_trainer = orders(study, first, opened)
        executor.start(1)
        executor.send(1, by_trainer[1])
        while not any(isinstance(reply, Opened) for _, reply in executor.receive(1.0)):
            pass
        yield Trainers(executor=executor, orders=by_trainer, opened=opened)
    finally:
        executor.stop()


def _recorded(study: StudyDefinition, trainers: Trainers, root: Path) -> Walls:
    workspace = Workspace(root)
    stores = Stores(
        study=study.name, workspace=workspace, storage=workspace.optuna_url, tracking_uri=workspace.mlflow_url
    )
    troubles: list[str] = []
    viewer = Viewer(stores, on_trouble=troubles.append)
    ledger = Ledger(workspace.ledger(study.name), create=True)
    try:
        viewer.follow(ledger.path)
        while os.getpriority(os.PRIO_PROCESS, viewer._process.pid or 0) < 19 and not troubles:
            time.sleep(0.05)  # it has still to connect
        trained_s = _train(study, trainers, ledger, root)
        started = time.monotonic()
        if not viewer.stop(drain_s=DRAIN_S):
            raise TimeoutError(f"{study.name}: the views took longer than {DRAIN_S:.0f} s. {troubles}")
        return Walls(trained_s=trained_s, recorded_s=trained_s + time.monotonic() - started)
    finally:
        viewer.close()
        ledger.close()


def _train(study: StudyDefinition, trainers: Trainers, ledger: Ledger, root: Path) -> float:
    """Train the study's trials; return the seconds from the first event to the last."""
    state = State()
    created = StudyCreated(
        at=time.time(),
        study=study.name,
        definition=study.model_dump(mode="json"),
        fingerprint=study.name,
        precision=trainers.opened.precision,
        facts=trainers.opened.facts,
        versions={},
        commit="",
    )
    rules = trainers.opened.hyperparameters
    coordinator = Coordinator(
        definition=study,
        ledger=ledger,
        state=state,
        executor=trainers.executor,
        orders=trainers.orders,
        admission=sampled(study, state, rules, aside=trainers.executor.beside, clock=time.time),
        retention=OfTheBest(study),
        folder=Workspace(root).study(study.name),
        watcher=Watcher(on_events=lambda state, events: None, on_tick=lambda state: None, stop=lambda: None),
        clock=time.time,
    )
    for trainer in coordinator.trainers.values():
        trainer.ready = True
    started = time.monotonic()
    ledger.append(created)
    apply(state, created)
    coordinator.run()
    return time.monotonic() - started
