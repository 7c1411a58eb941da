"""Command line options that the commands beyond the search share, and how such a command begins and ends."""

import re
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from rich.console import Console

    from search.session import Settings

Command = TypeVar("Command", bound=Callable[..., Any])
UNITS = {"s": 1, "m": 60, "h": 3600}
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Duration(click.ParamType[float]):
    """A number with a unit, as 90s, 20m or 1.5h; in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", str(value))
        if found is None or float(found[1]) == 0:
            self.fail(f"must be a time such as 90s, 20m or 1.5h, got {value!r}.", param, ctx)
        return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a command that trains beyond the search was asked to do."""

    study: str
    changes: Mapping[str, Any]
    """Fields of the definition that it changes."""
    settings: "Settings"
    console: "Console"


def options(command: Command) -> Command:
    """What every command that trains beyond the search takes."""
    for option in reversed(
        (
            click.option("--study", required=True, metavar="NAME", help="A study that was run here."),
            click.option("--data-dir", type=Path, metavar="DIR", help="Where data sets lie, as for search.run."),
            click.option("--device", metavar="DEV", help="auto, cpu, cuda or cuda:N."),
            click.option("--trainers", type=int, metavar="N", help="Training processes; 0 trains in this process."),
            click.option("--storage", metavar="URL", help="Optuna's storage; default studies/optuna.db."),
            click.option("--tracking-uri", metavar="URL", help="MLflow's; default mlruns/mlflow.db."),
            click.option("--quiet", is_flag=True, help="Print nothing but errors."),
        )
    ):
        command = option(command)
    return command


def begin(given: dict[str, Any]) -> Request:
    """Take out of the given options what `options` declares."""
    from rich.console import Console

    from search.session import Settings
    from search.workspace import Workspace, default_data_dir

    workspace = Workspace(Path.cwd())
    changes = {name: given.pop(name) for name in ("device", "trainers")}
    quiet = given.pop("quiet")
    settings = Settings(
        workspace=workspace,
        data_dir=given.pop("data_dir") or default_data_dir(),
        storage=given.pop("storage") or workspace.optuna_url,
        tracking_uri=given.pop("tracking_uri") or workspace.mlflow_url,
        quiet=quiet,
        command=again(),
    )
    return Request(
        study=given.pop("study"),
        changes={name: value for name, value in changes.items() if value is not None},
        settings=settings,
        console=Console(quiet=quiet),
    )


def again() -> str:
    """The command as the user typed it: run again it continues."""
    module = Path(sys.argv[0]).stem
    return shlex.join(["python", "-m", f"search.{module}", *sys.argv[1:]])


def stopped(request: Request, reason: str) -> int:
    """Say how to go on; return the exit status."""
    text = f"Stopped ({reason}); nothing is lost. To continue: {request.settings.command}"
    request.console.print(text, markup=False, highlight=False, soft_wrap=True)
    return 130


def ended(work: Callable[[], int]) -> None:
    """Run the command's work and exit with its status; a user's mistake is one message, without a traceback."""
    from search.errors import SearchError

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    try:
        status = work()
    except SearchError as error:
        click.echo(f"error: {error}", err=True)
        status = 1
    except KeyboardInterrupt:
        click.echo("Interrupted before any training began; nothing was changed.", err=True)
        status = 130
    sys.exit(status)
