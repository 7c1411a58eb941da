"""python -m search.serve: the Optuna dashboard and the MLflow UI, light, on loopback, ended together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import click

from search.errors import SearchError, ViewError
from search.workspace import Workspace

START_S = 120.0
"""How long a UI may take to answer; MLflow imports for some ten seconds on a busy machine."""
GRACE_S = 5.0
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One UI: what it is called, where it answers, and the process that serves it."""

    title: str
    host: str
    port: int
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def address(self) -> str:
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}/"  # noqa: S104


@dataclass(frozen=True, slots=True)
class Started:
    page: Page
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    """What the process says: shown only where it fails."""


@click.command(help=__doc__)
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on; both UIs have no login.")
@click.option("--port", default=8080, show_default=True, help="Port of the Optuna dashboard.")
@click.option("--mlflow-port", default=5000, show_default=True, help="Port of the MLflow UI.")
@click.option("--storage", help="Optuna's storage, an SQLAlchemy URL.  [default: studies/optuna.db]")
@click.option("--tracking-uri", help="MLflow's database, an SQLAlchemy URL.  [default: mlruns/mlflow.db]")
def main(host: str, port: int, mlflow_port: int, storage: str | None, tracking_uri: str | None) -> None:
    try:
        places = Workspace(Path.cwd())
        pages = [
            *_dashboard(places, host=host, port=port, storage=storage or places.optuna_url),
            *_mlflow(host=host, port=mlflow_port, tracking_uri=tracking_uri or places.mlflow_url),
        ]
        if not pages:
            raise ViewError("There is nothing to show yet. Start a study first: python -m search.run --study NAME")
        for page in pages:
            _refuse_taken_port(page)
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sign, _interrupt)
        serve(pages, say=click.echo)
    except SearchError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


def serve(pages: Iterable[Page], *, say: Callable[[str], None]) -> None:
    """Serve the pages until interrupted (KeyboardInterrupt), then end every process they started.

    Raises:
        ViewError: a page's process ended by itself, or never answered.
    """
    started: list[Started] = []
    try:
        for page in pages:
            started.append(_start(page))
        for served in started:
            _wait_until_it_answers(served)
            say(f"{served.page.title + ':':18}{served.page.address}")
        say("Ctrl-C ends both." if len(started) > 1 else "Ctrl-C ends it.")
        while True:
            for served in started:
                if served.process.poll() is not None:
                    raise ViewError(f"{served.page.title} ended by itself.\n{_last_words(served)}")
            time.sleep(0.5)
    except KeyboardInterrupt:
        say("Ended.")
    finally:
        _end([served.process for served in started])


def dashboard(storage: str, artifacts: str, host: str, port: str) -> None:
    """Serve the Optuna dashboard in this process, for ever."""
    from socketserver import ThreadingMixIn
    from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    from search.optuna_view import open_storage

    class Server(ThreadingMixIn, WSGIServer):
        daemon_threads = True

    class Silent(WSGIRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    application = wsgi(open_storage(storage), artifact_store=FileSystemArtifactStore(artifacts))
    hosts = {f"{name}:{port}" for name in _host_names(host)}
    guarded = only_for_hosts(application, hosts)
    make_server(host, int(port), guarded, server_class=Server, handler_class=Silent).serve_forever()


def only_for_hosts(application: Any, hosts: Collection[str]) -> Any:
    """Wrap a WSGI application so that it answers to these Host headers alone.

    The dashboard can delete studies and asks nobody; without this, a page elsewhere could point its own name at
    loopback and use the reader's browser to do it (DNS rebinding).
    """

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("HTTP_HOST") in hosts:
            return application(environ, start_response)  # type: ignore[no-any-return]
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"This address is not served here.\n"]

    return guarded


def _dashboard(places: Workspace, *, host: str, port: int, storage: str) -> Iterator[Page]:
    if _exists("Optuna", storage):
        artifacts = str(places.optuna_artifacts)
        code = "import sys; from search.serve import dashboard; dashboard(*sys.argv[1:])"
        command = (sys.executable, "-c", code, storage, artifacts, host, str(port))
        yield Page(title="Optuna dashboard", host=host, port=port, command=command)


def _mlflow(*, host: str, port: int, tracking_uri: str) -> Iterator[Page]:
    if tracking_uri.startswith("http"):
        click.echo(f"{'MLflow UI:':18}{tracking_uri} (a server of its own)")
    elif _exists("MLflow", tracking_uri):
        options = {
            "--backend-store-uri": tracking_uri,
            "--registry-store-uri": tracking_uri,
            "--host": host,
            "--port": str(port),
            "--workers": "1",
            "--allowed-hosts": ",".join(f"{name}:{port}" for name in _host_names(host)),
        }
        flat = (part for option in options.items() for part in option)
        environment = {
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes instead of 15, 0.5 GB instead of 3.1
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
        }
        command = (sys.executable, "-m", "mlflow", "ui", *flat, "--uvicorn-opts", "--log-level warning")
        yield Page(title="MLflow UI", host=host, port=port, command=command, environment=tuple(environment.items()))


def _exists(store: str, url: str) -> bool:
    """Whether there is a database: opening a missing SQLite file would create an empty one, and every page fail."""
    from search.follower import sqlite_file

    path = sqlite_file(url)
    if path is None or path.is_file():
        return True
    click.echo(f"{store} has nothing to show yet: there is no {path}.", err=True)
    return False


def _host_names(host: str) -> list[str]:
    """Names under which a browser may ask for the UIs; for 0.0.0.0 those of all interfaces of this machine."""
    if host != "0.0.0.0":  # noqa: S104
        return list(dict.fromkeys((host, *LOOPBACK) if host in LOOPBACK else (host,)))
    import psutil

    addresses = (a.address for group in psutil.net_if_addrs().values() for a in group if a.family == socket.AF_INET)
    return [*LOOPBACK, socket.gethostname(), *(address for address in addresses if address not in LOOPBACK)]


def _refuse_taken_port(page: Page) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((page.host, page.port))
        except OSError as error:
            option = "--mlflow-port" if page.title == "MLflow UI" else "--port"
            raise ViewError(
                f"{page.title}: cannot listen on {page.host}:{page.port}: {error.strerror}. "
                f"End what uses it, or choose another one with {option}."
            ) from error


def _start(page: Page) -> Started:
    output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
    process = subprocess.Popen(
        page.command,
        env=os.environ | dict(page.environment),
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the groups
    )
    return Started(page, process, output)


def _last_words(served: Started) -> str:
    served.output.seek(0)
    lines = served.output.read().decode(errors="replace").splitlines()[-15:]
    return "\n".join(["It said last:", *lines] if lines else ["It said nothing."])


def _wait_until_it_answers(served: Started) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and served.process.poll() is None:
        try:
            urllib.request.urlopen(served.page.address, timeout=5).close()  # noqa: S310 - our own address
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
    raise ViewError(f"{served.page.title} did not start: no answer at {served.page.address}.\n{_last_words(served)}")


def _end(processes: Collection[subprocess.Popen[bytes]]) -> None:
    """End each process with all that it started: ask, then kill."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for process in processes:
            try:
                os.killpg(process.pid, sign)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                break


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
