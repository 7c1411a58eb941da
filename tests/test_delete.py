"""Claims of search/delete.py, on real stores."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from mlflow.entities import ViewType

from search.delete import delete
from search.errors import OwnedError, SearchError
from search.follower import Follower
from search.ledger import Ledger, ownership
from search.mlflow_view import MlflowView, connect
from search.optuna_view import OptunaView, open_storage
from search.workspace import Workspace
from tests.histories import history, put_champion, put_files, put_mlflow_database


def add_study(places: Workspace, study: str) -> None:
    """A study of three trials in its ledger and both views, with a registered champion."""
    put_files(places.study(study))
    places.definition(study).write_text("# a study file\n")
    ledger = Ledger(places.ledger(study), create=True)
    ledger.append(*history(study=study, n_trials=3))
    put_champion(places.study(study))
    mlflow = MlflowView(study, places.mlflow_url, places.mlflow_artifacts, places.study(study))
    pictures = places.figures(study)
    views = (mlflow, OptunaView(study, places.optuna_url, places.optuna_artifacts, pictures, mlflow.run_url))
    for view in views:
        follower = Follower(view, ledger, on_trouble=pytest.fail)
        follower.start()
        assert follower.stop(drain_s=120)
    ledger.close()


def left(places: Workspace) -> dict[str, list[str]]:
    """Names of what is in every place where studies leave something."""
    client = connect(places.mlflow_url)
    return {
        "optuna": optuna.get_all_study_names(open_storage(places.optuna_url)),
        "experiments": [e.name for e in client.search_experiments(ViewType.ALL) if e.name != "Default"],
        "models": [model.name for model in client.search_registered_models()],
        "runs": sorted(path.parent.name for path in places.mlflow_artifacts.glob("*/*")),
        "ledgers": [path.parent.name for path in places.studies.glob("*/ledger.db")],
        "files": sorted(path.stem for path in places.studies.glob("*.toml")),
    }


def remove(places: Workspace, study: str, *, confirm: Callable[[str], bool] = lambda _: True) -> list[str]:
    said: list[str] = []
    urls = {"storage": places.optuna_url, "tracking_uri": places.mlflow_url}
    delete(places, study, **urls, confirm=confirm, say=said.append)
    return said


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    places = Workspace(tmp_path_factory.mktemp("two"))
    put_mlflow_database(places.mlruns)
    for study in ("first_reg", "second_reg"):
        add_study(places, study)
    return places


def test_asks_first_and_removes_nothing_when_told_no(two_studies: Workspace) -> None:
    before = left(two_studies)
    said = remove(two_studies, "first_reg", confirm=lambda _: False)
    assert said[-1] == "Nothing was removed."
    assert any("3 trials with their pictures" in line for line in said)
    assert any("registered model" in line for line in said)
    assert left(two_studies) == before


def test_running_study_is_refused(two_studies: Workspace) -> None:
    before = left(two_studies)
    with ownership(two_studies.study("first_reg")), pytest.raises(OwnedError, match="this study is being run"):
        remove(two_studies, "first_reg")
    assert left(two_studies) == before


@pytest.mark.parametrize("study", ["frist_reg", "../studies", "artifacts", ""])
def test_unknown_study_is_refused(two_studies: Workspace, study: str) -> None:
    before = left(two_studies)
    with pytest.raises(SearchError, match="There is no study") as caught:
        remove(two_studies, study)
    if study == "frist_reg":
        assert "Did you mean 'first_reg'?" in str(caught.value)
    assert left(two_studies) == before


def test_command_line_tells_errors_in_one_line(two_studies: Workspace) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "search.delete", "--study", "frist_reg"],
        cwd=two_studies.root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "Did you mean 'first_reg'?" in line


def test_deleting_one_study_leaves_the_other_whole_and_can_be_finished_later(
    two_studies: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = left(two_studies)
    pictures = len(list(two_studies.optuna_artifacts.iterdir()))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("search.delete._remove_experiment", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(two_studies, "first_reg")
    assert "first_reg" in left(two_studies)["ledgers"], "the ledger goes last"
    remove(two_studies, "first_reg")
    expected = {place: [name for name in names if name != "first_reg"] for place, names in both.items()}
    assert left(two_studies) == expected | {"files": both["files"]}
    assert len(list(two_studies.optuna_artifacts.iterdir())) == pictures / 2
    assert not two_studies.study("first_reg").exists()
    with pytest.raises(SearchError, match="There is no study 'first_reg'"):
        remove(two_studies, "first_reg")
