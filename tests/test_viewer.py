"""Claims of search/viewer.py, on the real process: it steps back, and the coordinator never loads what it needs."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest

from search.errors import ViewError
from search.ledger import Ledger
from search.viewer import Stores, Viewer
from search.workspace import Workspace
from tests.histories import history, put_mlflow_database
from tests.running import files_in, wait_for, workplace
from tests.test_architecture import python

SAID: list[str] = []


def stores_in(root: Path, storage: str = "") -> Stores:
    places = Workspace(root)
    url = storage or places.optuna_url
    return Stores(study="small_reg", workspace=places, storage=url, tracking_uri=places.mlflow_url)


@pytest.fixture
def viewer(tmp_path: Path) -> Iterator[Viewer]:
    SAID.clear()
    put_mlflow_database(tmp_path / "mlruns")
    viewer = Viewer(stores_in(tmp_path), on_trouble=SAID.append)
    yield viewer
    viewer.close()


def test_views_are_brought_up_to_a_growing_ledger_at_the_lowest_priority(viewer: Viewer, tmp_path: Path) -> None:
    ledger, events = Ledger(Workspace(tmp_path).ledger("small_reg"), create=True), history(n_trials=2, done=False)
    viewer.follow(ledger.path)
    ledger.append(*events[:10])
    process = psutil.Process(viewer._process.pid)
    wait_for(lambda: process.nice() == 19, what="the process to step back")
    ledger.append(*events[10:])
    assert viewer.stop(drain_s=120)
    assert SAID == []
    shown = optuna.load_study(study_name="small_reg", storage=Workspace(tmp_path).optuna_url).trials
    assert [trial.state.is_finished() for trial in shown] == [True, True]


def test_starved_process_is_replaced_at_the_end_of_a_run(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.viewer.PATIENCE_S", 0.1)
    ledger = Ledger(Workspace(tmp_path).ledger("small_reg"), create=True)
    ledger.append(*history(n_trials=1, done=False))
    viewer.follow(ledger.path)
    psutil.Process(viewer._process.pid).suspend()
    assert viewer.stop(drain_s=120)
    assert SAID == []
    (shown,) = optuna.load_study(study_name="small_reg", storage=Workspace(tmp_path).optuna_url).trials
    assert shown.state.is_finished()


def test_trouble_with_a_store_is_told_once_also_by_a_process_that_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.viewer.PATIENCE_S", 0.1)
    SAID.clear()
    put_mlflow_database(tmp_path / "mlruns")
    viewer = Viewer(stores_in(tmp_path, storage="postgresql://nobody@127.0.0.1:1/none"), on_trouble=SAID.append)
    ledger = Ledger(Workspace(tmp_path).ledger("small_reg"), create=True)
    ledger.append(*history(n_trials=1, done=False))
    viewer.follow(ledger.path)
    wait_for(lambda: len(SAID) == 1, what="the trouble")
    psutil.Process(viewer._process.pid).suspend()
    assert not viewer.stop(drain_s=60)
    assert [text.startswith("Optuna cannot be written") for text in SAID] == [True]


def test_store_that_cannot_be_used_is_refused_and_nothing_is_created(tmp_path: Path) -> None:
    viewer = Viewer(stores_in(tmp_path, storage="postgresql://nobody@127.0.0.1:1/none"), on_trouble=SAID.append)
    viewer.check()
    with pytest.raises(ViewError, match="postgresql"):
        viewer.checked()
    viewer.close()
    assert files_in(tmp_path) == {}


def test_death_is_told_once_and_keeps_nobody_waiting(viewer: Viewer) -> None:
    viewer._process.kill()
    with pytest.raises(ViewError, match="died"):
        viewer.checked()
    assert not viewer.stop(drain_s=60)
    assert SAID == ["The process that writes the dashboards died (SIGKILL), training goes on."]


def test_coordinator_of_a_whole_run_loads_neither_mlflow_nor_torch(tmp_path: Path) -> None:
    workplace(tmp_path, n_trials=2)
    printed = python(
        "import os, sys\n"
        f"sys.path[0] = os.getcwd(); os.chdir({str(tmp_path)!r})\n"
        "sys.argv = ['search.run', '--study', 'fake', '--trainers', '1']\n"
        "from search.run import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    print(); print(end.code, *sys.modules)\n"
    )
    status, *loaded = printed.splitlines()[-1].split()
    assert status == "0"
    assert {"mlflow", "torch", "matplotlib"} & set(loaded) == set()
