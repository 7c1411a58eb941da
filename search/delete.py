"""python -m search.delete --study NAME: remove a study from its ledger, Optuna's storage and MLflow, for good.

The ledger goes last: interrupted half-way, the same command finds the study again and finishes. The study file stays.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.errors import SearchError, ViewError
from search.workspace import Workspace

if TYPE_CHECKING:
    import optuna
    from mlflow import MlflowClient
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True)
class Part:
    """Something a study left behind."""

    description: str
    remove: Callable[[], None]


@click.command(help=__doc__)
@click.option("--study", required=True, help="The study's name.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--storage", help="Optuna's storage, an SQLAlchemy URL.  [default: studies/optuna.db]")
@click.option("--tracking-uri", help="MLflow, a database's URL or a server.  [default: mlruns/mlflow.db]")
def main(study: str, yes: bool, storage: str | None, tracking_uri: str | None) -> None:
    try:
        places = Workspace(Path.cwd())
        delete(
            places,
            study,
            storage=storage or places.optuna_url,
            tracking_uri=tracking_uri or places.mlflow_url,
            confirm=lambda question: yes or click.confirm(question),
            say=click.echo,
        )
    except SearchError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def delete(
    places: Workspace,
    study: str,
    *,
    storage: str,
    tracking_uri: str,
    confirm: Callable[[str], bool],
    say: Callable[[str], object],
) -> None:
    """Remove everything the study left, if `confirm` agrees.

    Raises:
        SearchError: there is no such study.
        OwnedError: it is being run.
        ViewError: a store cannot be written; what is left can be removed by the same command.
    """
    from search.ledger import ownership

    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", study):  # anything else could name a folder elsewhere
        raise SearchError(_unknown(places, study))
    run_here = places.ledger(study).exists()
    parts = [*_in_optuna(places, study, storage), *_in_mlflow(places, study, tracking_uri)]
    if run_here:
        parts.append(
            Part(f"{places.study(study)}: ledger, checkpoints, pictures", lambda: _remove_folder(places, study))
        )
    if not parts:
        raise SearchError(_unknown(places, study))
    say(f"Of the study {study} these will be removed for good:")
    for part in parts:
        say(f"  {part.description}")
    if not confirm("Remove them?"):
        say("Nothing was removed.")
        return
    with ownership(places.study(study)) if run_here else nullcontext():
        for part in parts:
            part.remove()
    say(f"Removed. The study file {places.definition(study)} was not touched.")


def _in_optuna(places: Workspace, study: str, storage: str) -> Iterator[Part]:
    from search.follower import shown, sqlite_file

    path = sqlite_file(storage)
    if path is not None and not path.exists():
        return
    import optuna

    from search.optuna_view import open_storage, trouble

    with trouble(shown(storage)):
        opened = open_storage(storage)
        names = optuna.get_all_study_names(opened)
        if study not in names:
            return
        n_trials = len(optuna.load_study(study_name=study, storage=opened).get_trials(deepcopy=False))

    def remove() -> None:
        with trouble(shown(storage)):
            _remove_optuna_artifacts(places, optuna.load_study(study_name=study, storage=opened))
            optuna.delete_study(study_name=study, storage=opened)

    yield Part(f"Optuna, {shown(storage)}: {n_trials} trials with their pictures", remove)


def _remove_optuna_artifacts(places: Workspace, study: "optuna.Study") -> None:
    from optuna.artifacts import get_all_artifact_meta

    owners: list[optuna.Study | FrozenTrial] = [study, *study.get_trials(deepcopy=False)]
    for owner in owners:
        for artifact in get_all_artifact_meta(owner, storage=study._storage):
            (places.optuna_artifacts / artifact.artifact_id).unlink(missing_ok=True)


def _in_mlflow(places: Workspace, study: str, tracking_uri: str) -> Iterator[Part]:
    from search.follower import shown, sqlite_file

    path = sqlite_file(tracking_uri)
    if path is not None and not path.exists():
        return
    from search.mlflow_view import connect, trouble

    with trouble(shown(tracking_uri)):
        client = connect(tracking_uri)
        experiment = client.get_experiment_by_name(study)
        models = client.search_registered_models(f"name = '{study}'")
    if models:

        def remove_model() -> None:
            with trouble(shown(tracking_uri)):
                client.delete_registered_model(study)

        yield Part(f"MLflow, {shown(tracking_uri)}: registered model with its alias champion", remove_model)
    if experiment is not None:

        def remove_experiment() -> None:
            with trouble(shown(tracking_uri)):
                _remove_experiment(client, tracking_uri, study, experiment.experiment_id)
                shutil.rmtree(places.mlflow_artifacts / study, ignore_errors=True)

        yield Part(f"MLflow, {shown(tracking_uri)}: experiment with its runs and their files", remove_experiment)


def _remove_experiment(client: "MlflowClient", tracking_uri: str, study: str, experiment: str) -> None:
    """Delete for good; on a server, where only its operator can do that, free the name and delete as far as allowed."""
    if client.get_experiment(experiment).lifecycle_stage == "active":
        if tracking_uri.startswith("http"):
            client.rename_experiment(experiment, f"{study} (deleted, {experiment})")
        client.delete_experiment(experiment)
    if tracking_uri.startswith("http"):
        return
    options = {"--backend-store-uri": tracking_uri, "--tracking-uri": tracking_uri, "--experiment-ids": experiment}
    command = [sys.executable, "-m", "mlflow", "gc", *(part for option in options.items() for part in option)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ViewError(f"MLflow could not delete the experiment {study!r} for good: {done.stderr.strip()[-500:]}")


def _remove_folder(places: Workspace, study: str) -> None:
    """Remove the study's folder, its ledger last."""
    folder = places.study(study)
    for path in sorted(folder.iterdir(), key=lambda path: path.name.startswith(places.ledger(study).name)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder.rmdir()


def _unknown(places: Workspace, study: str) -> str:
    from search.wording import did_you_mean

    known = sorted(path.parent.name for path in places.studies.glob("*/ledger.db"))
    listed = f"Here are: {', '.join(known)}." if known else "Nothing was run yet."
    return f"There is no study {study!r} in {places.studies}.{did_you_mean(study, known)} {listed}"


if __name__ == "__main__":
    main()
