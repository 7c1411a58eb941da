"""`python -m search.run`: bring a study to its number of trials, and say what it found."""

import signal
import sys
from pathlib import Path
from typing import Any

import click

PRECISIONS = ("auto", "float32", "bfloat16", "float64")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--study", required=True, metavar="NAME", help="A study file: studies/NAME.toml, or a path to one.")
@click.option("--name", metavar="NEW", help="Keep the result under another study name.")
@click.option("--n-trials", type=int, metavar="N", help="Bring the study to N trials in all.")
@click.option("--timeout", type=float, metavar="S", help="Stop after S seconds; the same command continues.")
@click.option("--epochs", type=int, metavar="N", help="Most epochs of a trial.")
@click.option(
    "--dataset", metavar="SET", help="cifar10, mnist, fashion_mnist or digits (built in) instead of the study's."
)
@click.option(
    "--data-dir",
    type=Path,
    metavar="DIR",
    help="Where data sets lie; else SEARCH_DATA_DIR, else ~/.cache.",
)
@click.option("--device", metavar="DEV", help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--trainers",
    type=int,
    metavar="N",
    help="Training processes: one per GPU or core by default; 0 trains in this process.",
)
@click.option("--seed", type=int, metavar="N", help="Of the study: sampler, split and every trial.")
@click.option("--precision", type=click.Choice(PRECISIONS), help="auto: bfloat16 where a probe finds it faster.")
@click.option("--storage", metavar="URL", help="Optuna's storage; default studies/optuna.db.")
@click.option("--tracking-uri", metavar="URL", help="MLflow's; default mlruns/mlflow.db.")
@click.option("--export", type=Path, metavar="FILE", help="Write all trials as .csv, .parquet or .json.")
@click.option("--confirm", is_flag=True, help="Then confirm the answer, as search.confirm does.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what the study will cost; create nothing.")
def main(study: str, data_dir: Path | None, storage: str | None, tracking_uri: str | None, **options: Any) -> None:
    """Search for the regularization that makes a network generalize.

    Running the same command again continues an interrupted study, and prints the result of a finished one.
    """
    from rich.console import Console

    from search.errors import SearchError

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    try:
        status = _run(
            study, data_dir, storage, tracking_uri, Console(quiet=options["quiet"] and not options["dry_run"]), options
        )
    except SearchError as error:
        click.echo(f"error: {error}", err=True)
        status = 1
    except KeyboardInterrupt:
        click.echo("Interrupted before any trial began; nothing was changed.", err=True)
        status = 130
    sys.exit(status)


def _run(
    study: str,
    data_dir: Path | None,
    storage: str | None,
    tracking_uri: str | None,
    console: Any,
    options: dict[str, Any],
) -> int:
    from search.definition import load
    from search.workspace import Workspace, default_data_dir

    workspace = Workspace(Path.cwd())
    quiet, dry_run, export = options.pop("quiet"), options.pop("dry_run"), options.pop("export")
    confirms = options.pop("confirm")
    options["timeout_s"] = options.pop("timeout")
    definition = load(study, workspace, options)

    from search.session import Settings, run

    settings = Settings(
        workspace=workspace,
        data_dir=data_dir or default_data_dir(),
        storage=storage or workspace.optuna_url,
        tracking_uri=tracking_uri or workspace.mlflow_url,
        quiet=quiet,
        export=export,
        command=_again(),
    )
    if dry_run:
        from search.estimate import dry_run as estimate

        return estimate(definition, settings, console)
    status = run(definition, settings, console)
    if confirms and status == 0:
        from search.confirm import confirm
        from search.options import Request

        return confirm(Request(study=definition.name, changes={}, settings=settings, console=console))
    return status


def _again() -> str:
    import shlex

    return shlex.join(["python", "-m", "search.run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
