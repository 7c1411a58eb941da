"""Ways to run a fake study: a coordinator alone in this process, a whole session, or the command as a user types it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from search.admission import sampled
from search.coordinator import Coordinator, Watcher
from search.definition import StudyDefinition
from search.events import Event, StudyCreated
from search.executors import Executor, Inline
from search.launch import first_order, open_trainer
from search.ledger import Ledger
from search.retention import OfTheBest
from search.sampling import trial_seed
from search.state import State, apply, fold
from search.workspace import Workspace
from tests.histories import put_mlflow_database

PROJECT = Path(__file__).parent.parent
TABLE: dict[str, Any] = {
    "title": "A fake study",
    "question": "Does the service keep its promises?",
    "objective": "tests.fakes:FakeObjective",
    "n_trials": 6,
    "epochs": 9,
    "precision": "float32",
    "checkpoints": 0,
    "data": {"capacity": 4},
    "baseline": {"quality": 0.6, "drop": 0.0, "shape": 1},
    "space": {
        "quality": {"kind": "float", "low": 0.0, "high": 1.0},
        "drop": {"kind": "float", "low": 0.0, "high": 0.6, "regularizer": True, "off": 0.0},
        "shape": {"kind": "int", "low": 1, "high": 2},
    },
}


def table(*, data: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """What the study file of a fake study holds."""
    return {**TABLE, **changes, "data": {**TABLE["data"], **(data or {})}}


def fake_study(*, data: Mapping[str, Any] | None = None, **changes: Any) -> StudyDefinition:
    return StudyDefinition.model_validate({"name": "fake", **table(data=data, **changes)})


def faults(by_trial: Mapping[int, str], *, seed: int = 0) -> dict[str, Any]:
    """The [data] that makes these trials, by number, of a study of this seed misbehave."""
    return {"faults": {str(trial_seed(seed, trial)): fault for trial, fault in by_trial.items()}}


# ---------------------------------------------------------------- a coordinator alone


def coordinate(
    definition: StudyDefinition,
    root: Path,
    *,
    executor: Executor | None = None,
    n_trainers: int = 1,
    data_dir: Path | None = None,
    stop: Callable[[State], str | None] = lambda state: None,
    on_end: Callable[[Coordinator], None] = lambda coordinator: None,
) -> State:
    """Run a coordinator, without views, until it is done or `stop` says why not; return the ledger's state.

    Run again with the same root it continues; the clock counts calls. `on_end` sees the coordinator when it is through.
    """
    workspace = Workspace(root)
    executor = Inline() if executor is None else executor
    path = workspace.ledger(definition.name)
    ledger = Ledger(path, create=not path.exists())
    state = fold(ledger.events())
    ticks = iter(range(1_000_000))

    def clock() -> float:
        return float(next(ticks))

    first = first_order(definition, data_dir or root, state)

    try:
        opened = open_trainer(executor, first, Console(quiet=True))
        if state.created is None:
            created = StudyCreated(
                at=0,
                study=definition.name,
                definition=definition.model_dump(mode="json"),
                fingerprint="",
                precision=opened.precision,
                facts=opened.facts,
                versions={},
                commit="",
            )
            ledger.append(created)
            apply(state, created)
        first = replace(first, device=opened.device, precision=opened.precision)
        coordinator = Coordinator(
            definition=definition,
            ledger=ledger,
            state=state,
            executor=executor,
            orders=dict.fromkeys(range(n_trainers), first),
            admission=sampled(definition, state, opened.hyperparameters, aside=executor.beside, clock=clock),
            retention=OfTheBest(definition),
            folder=workspace.study(definition.name),
            watcher=Watcher(on_events=lambda state, events: None, on_tick=lambda state: None, stop=lambda: stop(state)),
            clock=clock,
        )
        coordinator.run()
        on_end(coordinator)
    finally:
        executor.stop()
        ledger.close()
    return folded(root, definition.name)


def events_of(root: Path, study: str = "fake") -> list[Event]:
    ledger = Ledger(Workspace(root).ledger(study))
    events = list(ledger.events())
    ledger.close()
    return events


def folded(root: Path, study: str = "fake") -> State:
    return fold(events_of(root, study))


# ---------------------------------------------------------------- the command


def workplace(root: Path, *, mlflow: bool = True, **changes: Any) -> Path:
    """Make `root` a folder to run the command in: studies/fake.toml, and MLflow's database, which takes it 5 s."""
    root.mkdir(exist_ok=True)
    (root / "studies").mkdir()
    write_study(root, **changes)
    if mlflow:
        put_mlflow_database(root / "mlruns")
    return root


def write_study(root: Path, name: str = "fake", **changes: Any) -> None:
    (root / "studies" / f"{name}.toml").write_text(toml(table(**changes)))


def toml(values: Mapping[str, Any]) -> str:
    """The values as a study file holds them."""
    return "".join(_toml(values))


def _toml(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if not isinstance(value, Mapping):
            yield f"{json.dumps(key)} = {json.dumps(value)}\n"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"[{prefix}{json.dumps(key)}]\n"
            yield from _toml(value, f"{prefix}{json.dumps(key)}.")


def begin(
    root: Path, *options: str, module: str = "search.run", prefix: Sequence[str] = (), **settings: Any
) -> subprocess.Popen[str]:
    """Start the command in `root` as a user would, in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", module, *options],
        cwd=root,
        env=environment,
        text=True,
        start_new_session=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **settings},
    )


def command(root: Path, *options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    process = begin(root, *options, **settings)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 120, what: str = "") -> None:
    """Wait until the condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.02)


def files_in(root: Path) -> dict[str, bytes]:
    """Every file and folder below `root`, with what it holds."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in sorted(root.rglob("*"))
    }
