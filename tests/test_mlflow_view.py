"""Claims of search/mlflow_view.py and search/champion.py, on a real SQLite database and a real server."""

import json
import math
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from search.diagnoses import Diagnoses, counted, interrupted
from search.errors import ViewError
from search.events import Event, SessionClosed, StudyCreated
from search.follower import Follower, View
from search.ledger import Ledger
from search.mlflow_view import CURSOR, MlflowView, connect
from search.state import apply, fold
from search.workspace import Workspace
from tests.histories import CLASSES, history, put_champion, put_files, put_mlflow_database

EVENTS = history()
STATE = fold(EVENTS)


def view_in(root: Path, *, tracking_uri: str = "", study: str = "small_reg") -> MlflowView:
    places = Workspace(root)
    uri = tracking_uri or places.mlflow_url
    return MlflowView(study, uri, places.mlflow_artifacts, places.study(study), lambda trial: f"http://optuna/{trial}")


def write(view: View, events: Sequence[Event], *, begin: int = 0, batch: int = 7) -> None:
    """Bring the events from `begin` on into the view as the follower does, in batches, from a fresh connection."""
    view.prepare()
    created = events[0]
    assert isinstance(created, StudyCreated)
    view.open(created)
    state, numbered = fold(events[:begin]), list(enumerate(events, start=1))
    for first in range(begin, len(events), batch):
        for event in events[first : first + batch]:
            apply(state, event)
        view.take(numbered[first : first + batch], state)


def client_of(root: Path) -> MlflowClient:
    return connect(Workspace(root).mlflow_url)


def runs_of(client: MlflowClient, study: str = "small_reg") -> dict[tuple[int, int], Run]:
    """(trial, attempt) -> run, and (-1, -1) for the parent."""
    experiment = client.get_experiment_by_name(study)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    keys = [(int(run.data.tags.get("trial", -1)), int(run.data.tags.get("attempt", -1))) for run in runs]
    assert len(set(keys)) == len(runs), f"a run is there twice: {sorted(keys)}"
    return dict(zip(keys, runs, strict=True))


def stored(client: MlflowClient, study: str = "small_reg") -> dict[tuple[int, int], dict[str, Any]]:
    """Everything MLflow holds of the study, without what is random: ids and addresses."""
    runs = runs_of(client, study)
    parent = runs[-1, -1].info.run_id
    found = {}
    for key, run in runs.items():
        tags = {name: "PARENT" if value == parent else value for name, value in run.data.tags.items()}
        points = {
            name: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        found[key] = {
            "status": run.info.status,
            "start": run.info.start_time,
            "end": run.info.end_time,
            "params": run.data.params,
            "tags": tags,
            "metrics": points,
            "artifacts": _files(client, run.info.run_id),
        }
    return found


def _files(client: MlflowClient, run: str, folder: str = "") -> list[tuple[str, int | None]]:
    files: list[tuple[str, int | None]] = []
    for entry in client.list_artifacts(run, folder):
        files += _files(client, run, entry.path) if entry.is_dir else [(entry.path, entry.file_size)]
    return sorted(files)


def fresh(root: Path, *, drawn: Path | None = None) -> Path:
    """A workspace with an empty database and the study's files, the pictures already drawn where that costs nothing."""
    places = Workspace(root)
    put_mlflow_database(places.mlruns)
    put_files(places.study("small_reg"))
    if drawn is not None:
        shutil.copytree(Workspace(drawn).figures("small_reg"), places.figures("small_reg"))
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = fresh(tmp_path_factory.mktemp("written"))
    write(view_in(root), EVENTS)
    return root


def test_every_attempt_has_its_ended_run_below_the_studys(written: Path) -> None:
    runs = runs_of(client_of(written))
    attempts = {(trial.number, attempt.number) for trial in STATE.trials.values() for attempt in trial.attempts}
    assert set(runs) == attempts | {(-1, -1)}
    parent = runs.pop((-1, -1))
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    statuses = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
    for (number, attempt), run in runs.items():
        trial = STATE.trials[number]
        interrupted = attempt != trial.attempts[-1].number
        assert run.info.status == ("KILLED" if interrupted else statuses[str(trial.outcome)])
        ended_at = trial.attempts[attempt - 1].ended_at
        assert ended_at is not None
        assert run.info.end_time == int(ended_at * 1000)


def test_every_run_says_what_its_curves_say_and_the_study_s_counts(written: Path) -> None:
    runs, found = runs_of(client_of(written)), Diagnoses().of(STATE)
    assert runs.pop((-1, -1)).data.tags["diagnoses"] == counted(found.values())
    for (number, attempt), run in runs.items():
        trial = STATE.trials[number]
        again = attempt != trial.attempts[-1].number
        expected = interrupted(trial.attempts[attempt - 1].reports, STATE) if again else found[number]
        told = run.data.tags.get("diagnosis"), run.data.tags.get("diagnosis_evidence")
        assert told == ((expected.label, expected.told) if expected else (None, None))


def test_run_holds_every_epoch_of_its_attempt(written: Path) -> None:
    client = client_of(written)
    run = runs_of(client)[2, 1]
    reports = STATE.trials[2].reports
    for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "penalty", "lr"):
        points = {m.step: m.value for m in client.get_metric_history(run.info.run_id, name)}
        assert points == {report.epoch: report.metrics[name] for report in reports}
    gaps = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "gap")}
    assert gaps == {r.epoch: r.metrics["val_loss"] - r.metrics["train_loss"] for r in reports}
    seconds = {m.step: m.value for m in client.get_metric_history(run.info.run_id, "epoch_s")}
    assert seconds[3] == reports[3].at - reports[2].at
    assert run.data.metrics["best_val_accuracy"] == STATE.trials[2].value
    assert run.data.metrics["best_epoch"] == STATE.trials[2].best_epoch


def test_run_says_what_was_trained_on_what_and_how(written: Path) -> None:
    run = runs_of(client_of(written))[4, 2]
    trial = STATE.trials[4]
    assert run.data.params == {
        name: str(list(v) if isinstance(v, tuple) else v) for name, v in trial.hyperparameters.items()
    }
    expected = {
        "study": "small_reg",
        "trial": "4",
        "attempt": "2",
        "state": "pruned",
        "reason": "rung",
        "baseline": "false",
        "structure": "mlp 64-32",
        "device": "cpu",
        "precision": "float32",
        "versions": "torch 2.11.0, optuna 5.0.0",
        "git_commit": "0123abcd",
        "data_checksum": "c0ffee",
        "mlflow.note.content": "[Trial 4 in the Optuna dashboard](http://optuna/4)",
    }
    assert expected.items() <= run.data.tags.items()
    assert runs_of(client_of(written))[4, 1].data.tags["attempt_state"] == "interrupted"


def test_diverged_trial_has_no_infinite_points(written: Path) -> None:
    client = client_of(written)
    run = runs_of(client)[5, 1].info.run_id
    for name in ("train_loss", "val_loss", "gap", "penalty"):
        assert all(m.step == 0 and math.isfinite(m.value) for m in client.get_metric_history(run, name))


def test_artifacts_show_where_a_trial_errs(written: Path, tmp_path: Path) -> None:
    client = client_of(written)
    runs = runs_of(client)
    names = {key: [name for name, _ in _files(client, run.info.run_id)] for key, run in runs.items()}
    pictures = ["confusion_matrix.json", "confusion_matrix.png", "learning_curves.png", "precision_recall.json"]
    assert names[1, 1] == pictures
    kept = [f"checkpoint/trial_2.safetensors{suffix}" for suffix in ("", ".sha256")]
    assert names[2, 1] == [*kept, *pictures]
    assert names[3, 1] == ["learning_curves.png", "traceback.txt"]
    assert names[4, 1] == [], "the interrupted attempt"
    folder = Path(client.download_artifacts(runs[2, 1].info.run_id, "", str(tmp_path)))
    matrix = json.loads((folder / "confusion_matrix.json").read_text())
    assert matrix["counts"] == [list(row) for row in STATE.trials[2].confusion or ()]
    table = json.loads((folder / "precision_recall.json").read_text())
    assert [row["class"] for row in table["classes"]] == CLASSES
    assert table["classes"][-1]["precision"] is None, "a class that was never predicted"


def test_overtaken_checkpoint_is_removed(written: Path, tmp_path: Path) -> None:
    root = fresh(tmp_path, drawn=written)
    cut = next(k for k, event in enumerate(EVENTS) if type(event).__name__ == "CheckpointRemoved")
    write(view_in(root), EVENTS[:cut])
    client = client_of(root)
    run = runs_of(client)[0, 1].info.run_id
    assert "checkpoint/trial_0.safetensors" in dict(_files(client, run))
    write(view_in(root), EVENTS, begin=cut)
    assert not any(name.startswith("checkpoint") for name, _ in _files(client, run))


def test_weights_that_went_before_the_view_came_to_them_are_no_trouble(written: Path, tmp_path: Path) -> None:
    """The coordinator removes what is overtaken at once; a view may be far behind."""
    root = fresh(tmp_path, drawn=written)
    weights = list(root.rglob("trial_2.safetensors"))
    assert weights
    for path in weights:
        path.unlink()
    write(view_in(root), EVENTS)
    client = client_of(root)
    names = [name for name, _ in _files(client, runs_of(client)[2, 1].info.run_id)]
    assert "checkpoint/trial_2.safetensors" not in names
    assert "learning_curves.png" in names


def test_parent_counts_outcomes_and_follows_the_best_value(written: Path) -> None:
    client = client_of(written)
    parent = runs_of(client)[-1, -1]
    counts = {outcome: len(STATE.with_outcome(outcome)) for outcome in ("complete", "pruned", "failed")}
    assert {o: parent.data.metrics[f"n_{o}"] for o in counts} == counts
    assert parent.data.metrics["best_value"] == STATE.ranked(maximize=True)[0].value
    assert len(client.get_metric_history(parent.info.run_id, "n_complete")) == len(STATE.finished)


def test_size_of_batches_decides_nothing(written: Path, tmp_path: Path) -> None:
    write(view_in(fresh(tmp_path, drawn=written)), EVENTS, batch=1000)
    assert runs_of(client_of(tmp_path))[-1, -1].data.tags[CURSOR] == str(len(EVENTS))
    assert stored(client_of(tmp_path)) == stored(client_of(written))


def test_view_that_lost_its_store_and_is_opened_again_is_given_the_ledger_from_the_beginning(
    written: Path, tmp_path: Path
) -> None:
    view = view_in(fresh(tmp_path, drawn=written))
    write(view, EVENTS, batch=1000)
    write(view, EVENTS)
    assert stored(client_of(tmp_path)) == stored(client_of(written))


def test_kills_between_write_and_cursor_leave_the_store_as_once(written: Path, tmp_path: Path) -> None:
    root = fresh(tmp_path, drawn=written)
    begin = 0
    for killed_at in (6, 19, 33, 45, len(EVENTS)):
        write(view_in(root), EVENTS[:killed_at], begin=begin)
        begin = max(0, killed_at - 9)
    write(view_in(root), EVENTS, begin=begin)
    assert stored(client_of(root)) == stored(client_of(written))


def test_interrupted_study_ends_its_run_and_takes_it_up_again(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    stopped = [*EVENTS[:12], SessionClosed(at=EVENTS[11].at, reason="interrupted", trained_s=1.0, waited_s=0.0)]
    write(view_in(root), stopped)
    assert runs_of(client_of(root))[-1, -1].info.status == "KILLED"
    write(view_in(root), [*stopped, EVENTS[1]], begin=13)
    assert runs_of(client_of(root))[-1, -1].info.status == "RUNNING"


def test_deleted_database_is_rebuilt_from_the_ledger_equal(written: Path, tmp_path: Path) -> None:
    root = fresh(tmp_path, drawn=written)
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    ledger.append(*EVENTS)
    for _ in ("new", "deleted"):
        follower = Follower(view_in(root), ledger, on_trouble=pytest.fail)
        follower.start()
        assert follower.stop(drain_s=60)
        assert stored(client_of(root)) == stored(client_of(written))
        put_mlflow_database(Workspace(root).mlruns)


@pytest.mark.parametrize("folder", ["with space", "{braces}", "ä#%&'+"])
def test_folder_names_need_no_care(tmp_path: Path, folder: str) -> None:
    root = fresh(tmp_path / folder)
    write(view_in(root), EVENTS[:14])
    client = client_of(root)
    assert "learning_curves.png" in dict(_files(client, runs_of(client)[1, 1].info.run_id))
    assert {path.name for path in tmp_path.iterdir()} == {folder}


def test_experiment_of_another_ledger_and_a_deleted_one_are_refused(tmp_path: Path) -> None:
    root = fresh(tmp_path)
    write(view_in(root), EVENTS[:5])
    created = history(seed=1)[0]
    assert isinstance(created, StudyCreated)
    other = StudyCreated(**{name: getattr(created, name) for name in created.__slots__} | {"at": 1.0})
    view = view_in(root)
    view.prepare()
    with pytest.raises(ViewError, match="not written from this study's ledger"):
        view.open(other)
    client = client_of(root)
    experiment = client.get_experiment_by_name("small_reg")
    assert experiment is not None
    client.delete_experiment(experiment.experiment_id)
    with pytest.raises(ViewError, match="mlflow experiments restore --experiment-id"):
        view.open(created)


def test_check_creates_nothing(tmp_path: Path) -> None:
    view_in(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ViewError, match=r"127\.0\.0\.1"):
        view_in(tmp_path, tracking_uri=f"http://127.0.0.1:{free_port()}").check()


# ---------------------------------------------------------------- the champion


def test_champion_is_registered_once_and_predicts_as_the_exported_network(written: Path, tmp_path: Path) -> None:
    root = fresh(tmp_path, drawn=written)
    put_champion(Workspace(root).study("small_reg"))
    write(view_in(root), EVENTS)
    write(view_in(root), EVENTS, begin=len(EVENTS) - 5)
    client = client_of(root)
    (version,) = client.search_model_versions("name = 'small_reg'")
    assert client.get_model_version_by_alias("small_reg", "champion").version == version.version
    assert version.run_id == runs_of(client)[2, 1].info.run_id
    mlflow.set_tracking_uri(Workspace(root).mlflow_url)
    loaded = mlflow.pytorch.load_model("models:/small_reg@champion")
    images = torch.rand(7, 1, 4, 4)
    exported = torch.export.load(Workspace(root).study("small_reg") / "champion.pt2").module()
    assert torch.equal(loaded(images), exported(images))
    by_numpy = mlflow.pyfunc.load_model("models:/small_reg@champion").predict(images.numpy())
    assert np.allclose(by_numpy, exported(images).detach().numpy())


# ---------------------------------------------------------------- a server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(root: Path, port: int) -> Iterator[str]:
    """A real MLflow tracking server."""
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    options = ["--backend-store-uri", Workspace(root).mlflow_url, "--artifacts-destination", str(root / "served")]
    process = subprocess.Popen([*command, *options], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health").close()
                break
            except OSError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait()


def test_unreachable_server_gets_everything_once_it_is_there(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.follower.RETRY_S", (0.2,))
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    root, port, said = fresh(tmp_path, drawn=written), free_port(), list[str]()
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    follower = Follower(view_in(root, tracking_uri=f"http://127.0.0.1:{port}"), ledger, on_trouble=said.append)
    follower.start()
    ledger.append(*EVENTS)
    while not said:
        time.sleep(0.05)
    with server(root, port) as address:
        assert follower.stop(drain_s=120)
        assert len(said) == 1
        assert stored(connect(address)) == stored(client_of(written))
