"""`python -m search.report`: writes what was found as one HTML file, which needs nothing else."""

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from search.options import CONTEXT, ended

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from search.definition import StudyDefinition
    from search.events import StudyCreated
    from search.headline import Evidence
    from search.session import Settings
    from search.state import State

NAME = "report.html"
ARTIFACT = "report"
"""The folder in which MLflow keeps it, among the study's parent run's."""


@click.command(context_settings=CONTEXT)
@click.option("--study", required=True, metavar="NAME", help="A study that was run here.")
@click.option("--output", type=Path, metavar="FILE", help=f"Where to; default studies/NAME/{NAME}.")
@click.option("--tracking-uri", metavar="URL", help="MLflow's, which keeps a copy; default mlruns/mlflow.db.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
def main(study: str, output: Path | None, tracking_uri: str | None, quiet: bool) -> None:
    """Write a report of a study, finished or not: the answer, how sure it is, and what it rests on.

    It reads and trains nothing, and may be asked for while the study runs: then it says what is so far.
    """
    ended(lambda: report(study, output=output, tracking_uri=tracking_uri, quiet=quiet))


def report(study: str, *, output: Path | None, tracking_uri: str | None = None, quiet: bool = False) -> int:
    """Write the page, and hand MLflow a copy; return the exit status.

    Raises:
        SearchError: there is no such study, or what was predicted on the test set is gone or damaged.
    """
    from search.page import render
    from search.provenance import date
    from search.records import read
    from search.reporting import reported
    from search.session import Settings
    from search.workspace import Workspace, default_data_dir

    workspace = Workspace(Path.cwd())
    settings = Settings(
        workspace=workspace,
        data_dir=default_data_dir(),
        storage=workspace.optuna_url,
        tracking_uri=tracking_uri or workspace.mlflow_url,
    )
    definition, state = read(workspace, study)
    found = evidence(definition, state, settings)
    page = render(reported(definition, state, found, written=date(time.time())[:10]))
    path = output or workspace.study(study) / NAME
    write(path, page)
    assert state.created is not None
    kept = keep(page, state.created, settings.tracking_uri)
    if not quiet:
        click.echo(f"Report: {path}\nTo read it, open {path.resolve().as_uri()} in a browser.")
        if kept:
            click.echo("MLflow keeps a copy among the artifacts of the study's parent run.")
    return 0


def evidence(definition: "StudyDefinition", state: "State", settings: "Settings") -> "Evidence":
    """What the phases that are through found, read from the ledger and the stored predictions.

    Raises:
        LedgerError: predictions are gone or damaged.
    """
    from search import confirm
    from search.ablation import ablated, phase_after
    from search.confirmation import FINAL
    from search.headline import Evidence
    from search.phase import trained
    from search.predictions import read

    through = confirm.finished(definition, state)
    if not through:
        return Evidence()
    confirmations = [confirm.found(definition, state, name, settings) for name in through]
    last, phase = confirmations[-1], phase_after(through[-1])
    from search.ablate import plan_of

    plan = plan_of(definition, state, through[-1])
    ablation = phase in state.phases and plan.active() and trained(state.phases[phase], plan)
    folder = settings.workspace.study(definition.name) / last.phase
    runs = [
        run.tested
        for run in state.phases[last.phase].trials.values()
        if (run.stage, run.configuration) == (FINAL, last.winner.name) and run.tested is not None
    ]
    return Evidence(
        confirmations=confirmations,
        predictions=[read(folder / tested.predictions, tested) for tested in runs],
        ablation=ablated(plan, phase) if ablation else None,
    )


def write(path: Path, page: str) -> None:
    """Write the page, whole or not at all.

    Raises:
        DefinitionError: it cannot be written there.
    """
    from search.errors import DefinitionError

    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DefinitionError(
            f"--output: {path} cannot be written: {error.strerror}. Name a file in a folder that is there and yours."
        ) from error


def keep(page: str, created: "StudyCreated", tracking_uri: str) -> bool:
    """Put the page among the artifacts of the study's parent run; say on stderr why, where that is not possible."""
    from search.errors import ViewError
    from search.follower import shown, sqlite_file
    from search.mlflow_view import connect, trouble

    path = sqlite_file(tracking_uri)
    try:
        if path is not None and not path.exists():
            raise ViewError(f"{shown(tracking_uri)}: there is no such database.")
        with trouble(shown(tracking_uri)), tempfile.TemporaryDirectory() as folder:
            client = connect(tracking_uri)
            run = _parent(client, created)
            if run is None:
                raise ViewError(f"{shown(tracking_uri)}: the study {created.study} is not there.")
            (Path(folder) / NAME).write_text(page, encoding="utf-8")
            client.log_artifact(run, str(Path(folder) / NAME), artifact_path=ARTIFACT)
    except ViewError as error:
        click.echo(f"warning: the report is written, but MLflow got no copy: {error}", err=True)
        return False
    return True


def _parent(client: "MlflowClient", created: "StudyCreated") -> str | None:
    """The parent run of the experiment that was written from this study's ledger."""
    from search.follower import ledger_id
    from search.mlflow_view import LEDGER

    experiment = client.get_experiment_by_name(created.study)
    if experiment is None:
        return None
    runs = client.search_runs([experiment.experiment_id], f"tags.{LEDGER} = '{ledger_id(created)}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


if __name__ == "__main__":
    main()
