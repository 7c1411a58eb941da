"""Claims of a whole run under signals and kills: nothing is lost, nothing is counted twice, nothing stays RUNNING.

Real processes, a real ledger, Optuna's storage and MLflow; the slow ones kill again and again, at random moments.
"""

import hashlib
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from rich.console import Console

from search.definition import load
from search.events import AttemptInterrupted, SessionClosed
from search.executors import CPU_TRAINER_ENVIRONMENT
from search.ledger import ownership
from search.mlflow_view import connect
from search.session import Settings, run
from search.state import State
from search.workspace import Workspace
from tests.histories import put_champion
from tests.running import (
    PROJECT,
    begin,
    command,
    coordinate,
    events_of,
    fake_study,
    files_in,
    folded,
    wait_for,
    workplace,
)

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


# ---------------------------------------------------------------- what must hold in the end


def assert_whole(root: Path, n_trials: int, *, study: str = "fake") -> State:
    """Exactly so many trials, finished once each, and both stores say the same as the ledger."""
    state = folded(root, study)
    assert list(state.trials) == list(range(n_trials))
    assert len(state.finished) == n_trials
    assert len(state.finish_order) == len(set(state.finish_order)) == n_trials
    assert_weights(root, study, state)
    assert_optuna(root, study, state)
    assert_mlflow(root, study, state)
    return state


def assert_weights(root: Path, study: str, state: State) -> None:
    folder = Workspace(root).study(study)
    kept = {t.checkpoint.path: t.checkpoint.sha256 for t in state.trials.values() if t.checkpoint is not None}
    best = {t.number for t in state.ranked(maximize=True)[: state.definition["checkpoints"]]}
    assert {t.number for t in state.trials.values() if t.checkpoint is not None} == best
    left = {str(path.relative_to(folder)) for path in folder.glob("checkpoints/*")}
    assert left == {name for path in kept for name in (path, f"{path}.sha256")}
    for path, digest in kept.items():
        assert hashlib.sha256((folder / path).read_bytes()).hexdigest() == digest


def assert_optuna(root: Path, study: str, state: State) -> None:
    trials = optuna.load_study(study_name=study, storage=Workspace(root).optuna_url).trials
    assert [trial.state.name for trial in trials] == [STATES[str(t.outcome)] for t in state.trials.values()]
    for shown, trial in zip(trials, state.trials.values(), strict=True):
        assert shown.params == trial.raw
        metric = state.definition["metric"]
        assert shown.intermediate_values == {
            r.epoch: r.metrics[metric] for r in trial.reports if r.epoch in shown.intermediate_values
        }
        assert {r.epoch for r in trial.reports} - {0} <= set(shown.intermediate_values)


def assert_mlflow(root: Path, study: str, state: State) -> None:
    client = connect(Workspace(root).mlflow_url)
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}
    attempts = [run for run in runs if "trial" in run.data.tags]
    assert len(runs) == len(attempts) + 1
    by_key = {(int(run.data.tags["trial"]), int(run.data.tags["attempt"])): run for run in attempts}
    assert len(by_key) == len(attempts)
    assert set(by_key) == {(t.number, a.number) for t in state.trials.values() for a in t.attempts}
    for trial in state.trials.values():
        last = by_key[trial.number, trial.attempts[-1].number]
        assert last.info.status == STATUS[str(trial.outcome)]
        points = client.get_metric_history(last.info.run_id, "val_loss")
        assert sorted(point.step for point in points) == [report.epoch for report in trial.reports]
        files = {file.path for file in client.list_artifacts(last.info.run_id)}
        if trial.best_epoch is not None:
            assert {"confusion_matrix.json", "precision_recall.json"} <= files
            assert len([file for file in files if file.endswith(".png")]) == 2
        for attempt in trial.attempts[:-1]:
            assert by_key[trial.number, attempt.number].info.status == "KILLED"


def trainers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that hold a device, of a coordinator that lives."""
    try:
        return [child for child in spawned(process) if CPU_TRAINER_ENVIRONMENT.keys() <= child.environ().keys()]
    except psutil.NoSuchProcess:
        return []


def spawned(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The coordinator's trainers, and the process of the views."""
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def n_reports(root: Path, study: str = "fake") -> int:
    """How many epochs are in the ledger, read beside the coordinator that writes them."""
    path = Workspace(root).ledger(study)
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM events WHERE kind = 'EpochReported'").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


@contextmanager
def running(root: Path, *options: str, reports: int = 6) -> Iterator[subprocess.Popen[str]]:
    """The command, once so many epochs are in the ledger; whatever happens, nothing of it is left."""
    process = begin(root, *options)
    try:
        wait_for(lambda: n_reports(root) >= reports or process.poll() is not None, what="epochs")
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


TABLE: dict[str, Any] = {"n_trials": 5, "sampler": "random", "pruning": {"kind": "none"}, "epochs": 6}


def slow_study(root: Path, *, mlflow: bool = True) -> Path:
    """A study that takes its time, so that it can be interrupted: about 0.4 s an epoch."""
    return workplace(root, mlflow=mlflow, data={"capacity": 2, "update_s": 0.1}, **TABLE)


def assert_accounted_for(state: State) -> None:
    """Nothing is in training, and every attempt without a result says why it ended."""
    assert not state.running
    for trial in state.trials.values():
        assert trial.outcome is not None or all(attempt.interrupted for attempt in trial.attempts)


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_signalled_run_accounts_for_every_trial_and_its_printed_command_completes_the_study(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The signal goes to the whole process group, as the terminal and `timeout` send it."""
    root = slow_study(tmp_path / "cut")
    with running(root, "--study", "fake", "--trainers", "1") as process:
        own = trainers(process)
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == ""
    assert not any(trainer.is_running() for trainer in own)
    state = folded(root)
    assert_accounted_for(state)
    assert len(state.finished) < 5
    assert state.closed[-1].reason == "interrupted"
    assert {e.reason for e in events_of(root) if isinstance(e, AttemptInterrupted)} == {"interrupted"}
    again = re.search(r"nothing is lost\. To continue: python -m search\.run (.*)", out)
    assert again is not None
    assert again.group(1) == "--study fake --trainers 1"
    done = command(root, *again.group(1).split())
    assert (done.returncode, done.stderr) == (0, "")
    continued = assert_whole(root, 5)
    whole = coordinate(fake_study(**TABLE), tmp_path / "whole")
    for n, trial in continued.trials.items():  # parameters by value, seeds by the curve they give
        assert trial.raw == whole.trials[n].raw
        assert [r.metrics for r in trial.reports] == [r.metrics for r in whole.trials[n].reports]


def test_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    root = slow_study(tmp_path, mlflow=False)  # whose database takes seconds: the first one would have to wait
    with running(root, "--study", "fake", "--trainers", "1", reports=1) as process:
        own = trainers(process)
        os.killpg(process.pid, signal.SIGINT)
        wait_for(lambda: any(isinstance(event, SessionClosed | AttemptInterrupted) for event in events_of(root)))
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(timeout=5) == 130
        wait_for(lambda: not any(trainer.is_running() for trainer in own), timeout_s=10)
    assert_accounted_for(folded(root))


def test_ctrl_c_before_the_first_trial_leaves_nothing(tmp_path: Path) -> None:
    root = workplace(tmp_path, mlflow=False)
    before = files_in(root)
    process = begin(root, "--study", "fake", "--trainers", "1")
    wait_for(lambda: bool(trainers(process)), what="a trainer to open")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "Interrupted before any trial began; nothing was changed.\n")
    assert files_in(root) == before


# ---------------------------------------------------------------- a store that is not there


def run_here(root: Path, *, n_trials: int, tracking_uri: str = "") -> int:
    """A whole run in this process, with one inline trainer."""
    places = Workspace(root)
    settings = Settings(
        workspace=places,
        data_dir=root,
        storage=places.optuna_url,
        tracking_uri=tracking_uri or places.mlflow_url,
        quiet=True,
    )
    definition = load("fake", places, {"n_trials": n_trials, "trainers": 0})
    return run(definition, settings, Console(quiet=True))


def test_mlflow_that_cannot_be_written_costs_no_training_and_gets_everything_once_from_the_next_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = workplace(tmp_path)
    assert run_here(root, n_trials=2) == 0
    (root / "gone").write_text("a file where a folder was")
    assert run_here(root, n_trials=4, tracking_uri=f"sqlite:///{root}/gone/mlflow.db") == 0
    said = capsys.readouterr().err
    assert said.count("MLflow cannot be written, training goes on: ") == 1
    assert "run the same command again to send them the rest" in said
    assert len(folded(root).finished) == 4
    events = events_of(root)
    assert run_here(root, n_trials=4) == 0
    assert events_of(root) == events
    assert_whole(root, 4)
    assert capsys.readouterr().err == ""


# ---------------------------------------------------------------- kills


def test_killed_coordinator_leaves_no_orphan_and_then_a_killed_trainer_no_gap(tmp_path: Path) -> None:
    root = slow_study(tmp_path)
    with running(root, "--study", "fake", "--trainers", "2") as process:
        own = spawned(process)
        assert len(trainers(process)) == 2
        assert len(own) == 3
        process.kill()
        process.wait()
        wait_for(lambda: not any(each.is_running() for each in own), timeout_s=10, what="orphans to end")
    cut = folded(root)
    assert cut.running
    with running(root, "--study", "fake", "--trainers", "2", reports=n_reports(root) + 4) as process:
        trainers(process)[0].kill()
        out, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    assert "interrupted (trainer died (SIGKILL)); it will be trained again" in out
    state = assert_whole(root, 5)
    for trial in cut.running:
        assert state.trials[trial.number].raw == trial.raw
        assert state.trials[trial.number].attempts[len(trial.attempts) - 1].interrupted == "the coordinator ended"
    reasons = [event.reason for event in events_of(root) if isinstance(event, AttemptInterrupted)]
    assert set(reasons) == {"the coordinator ended", "trainer died (SIGKILL)"}


def test_killed_process_of_the_views_is_told_costs_no_training_and_the_next_run_completes_them(tmp_path: Path) -> None:
    root = slow_study(tmp_path)
    with running(root, "--study", "fake", "--trainers", "1", reports=3) as process:
        (viewer,) = set(spawned(process)) - set(trainers(process))
        viewer.kill()
        _, err = process.communicate(timeout=200)
    assert process.returncode == 0
    assert err.count("The process that writes the dashboards died (SIGKILL), training goes on.") == 1
    assert "run the same command again to send them the rest" in err
    again = command(root, "--study", "fake", "--trainers", "1")
    assert (again.returncode, again.stderr) == (0, "")
    assert_whole(root, 5)


def test_second_coordinator_is_refused_by_the_name_of_the_first(tmp_path: Path) -> None:
    root = workplace(tmp_path, mlflow=False)
    coordinate(fake_study(n_trials=2), root)
    with ownership(Workspace(root).study("fake")):
        before = files_in(root)
        second = command(root, "--study", "fake")
        assert files_in(root) == before
    assert second.returncode == 1
    assert f"this study is being run by process {os.getpid()} on " in second.stderr
    assert second.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [1, 2])
def test_study_survives_kills_of_coordinator_and_trainers_at_random_moments(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    put_champion(tmp_path)
    data = {"capacity": 2, "update_s": 0.03, "program": str(tmp_path / "champion.pt2")}
    root = workplace(tmp_path / "work", mlflow=seed == 1, n_trials=12, checkpoints=2, data=data)
    assert kill_at_random(root, "fake", rng, n_kills=8, within_s=12) > 3
    assert command(root, "--study", "fake", "--trainers", "2").returncode == 0
    assert_whole(root, 12)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_real_study_survives_kills_at_random_moments(tmp_path: Path) -> None:
    root = workplace(tmp_path)
    shutil.copy(PROJECT / "studies" / "digits_reg.toml", root / "studies")
    assert (
        kill_at_random(root, "digits_reg", random.Random(3), n_kills=5, within_s=20, options=("--n-trials", "12")) > 2
    )
    assert command(root, "--study", "digits_reg", "--n-trials", "12", "--trainers", "2").returncode == 0
    assert_whole(root, 12, study="digits_reg")


def kill_at_random(
    root: Path, study: str, rng: random.Random, *, n_kills: int, within_s: float, options: tuple[str, ...] = ()
) -> int:
    """Run the command again and again, killing the coordinator or a trainer each time; return how many were hit."""
    hit = 0
    for k in range(n_kills):
        process = begin(root, "--study", study, "--trainers", "2", *options)
        time.sleep(rng.uniform(1, within_s))
        own = trainers(process)
        if k % 2 and own:  # a trainer, and later the coordinator, so that the next round has something to continue
            rng.choice(own).kill()
            hit += 1
            time.sleep(rng.uniform(0, within_s / 2))
        hit += process.poll() is None
        process.kill()
        _, err = process.communicate()
        assert "Traceback" not in err, err
        psutil.wait_procs(own, timeout=20)
        assert not any(each.is_running() for each in own)
    return hit


@pytest.mark.slow
@pytest.mark.parametrize("at", [0.2, 0.5, 0.8])
def test_mlflow_database_that_was_killed_while_it_was_made_can_still_be_made(tmp_path: Path, at: float) -> None:
    code = "import sys; from search.mlflow_view import connect; connect(sys.argv[1]).search_experiments()"
    path = tmp_path / "mlruns" / "mlflow.db"
    make = [sys.executable, "-c", code, f"sqlite:///{path}"]
    process = subprocess.Popen(make, cwd=PROJECT)
    wait_for(lambda: any(path.parent.glob("*.db*")) or any(path.parent.glob(".*.db*")))
    n_tables = 60
    wait_for(lambda: process.poll() is not None or _n_tables(path.parent) > at * n_tables)
    process.kill()
    process.wait()
    done = subprocess.run(make, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert [each.name for each in path.parent.iterdir() if each.suffix != ".lock"] == ["mlflow.db"]


def _n_tables(folder: Path) -> int:
    tables = Counter[str]()
    for path in folder.iterdir():
        if path.name.endswith((".db", ".partial")):
            with closing(sqlite3.connect(path)) as connection:
                try:
                    tables[path.name] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                except sqlite3.OperationalError:
                    continue
    return max(tables.values(), default=0)
