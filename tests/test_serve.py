"""Claims of search/serve.py: both UIs as real processes over real stores."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from search.optuna_view import open_storage
from search.serve import only_for_hosts
from search.workspace import Workspace
from tests.histories import put_mlflow_database

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started(root: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "search.serve", *options],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(root: Path, *options: str, n_pages: int) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start it and wait until it has printed the pages' addresses."""
    process = started(root, *options)
    assert process.stdout is not None
    try:
        yield process, [process.stdout.readline().strip() for _ in range(n_pages)]
    finally:
        process.terminate()
        process.wait(30)


def refused(root: Path, *options: str) -> str:
    """Start it where it must refuse; returns what it said, after checking that it did nothing else."""
    before = sorted(root.rglob("*"))
    out, err = (process := started(root, *options)).communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in err
    assert sorted(root.rglob("*")) == before
    return err


def answer(url: str, *, host: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Host": host}), timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_to_show_is_said_and_nothing_created(tmp_path: Path) -> None:
    said = refused(tmp_path)
    assert "There is nothing to show yet. Start a study first: python -m search.run --study NAME" in said


def test_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    put_mlflow_database(Workspace(tmp_path).mlruns)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(tmp_path, "--mlflow-port", str(port))
    assert f"MLflow UI: cannot listen on 127.0.0.1:{port}: Address already in use." in said
    assert "--mlflow-port" in said


def test_bad_address_is_told_without_its_password(tmp_path: Path) -> None:
    assert "pass" not in refused(tmp_path, "--storage", "me:pass@nowhere")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_both_pages_and_all_their_processes(tmp_path: Path, sign: signal.Signals) -> None:
    places = Workspace(tmp_path)
    put_mlflow_database(places.mlruns)
    open_storage_in(places)
    dashboard, mlflow = free_port(), free_port()
    with serving(tmp_path, "--port", str(dashboard), "--mlflow-port", str(mlflow), n_pages=2) as (process, said):
        assert said == [
            f"Optuna dashboard: http://127.0.0.1:{dashboard}/",
            f"MLflow UI:        http://127.0.0.1:{mlflow}/",
        ]
        for port in (dashboard, mlflow):
            page = f"http://127.0.0.1:{port}/"
            assert answer(page, host=f"127.0.0.1:{port}") == 200
            assert answer(page, host=f"localhost:{port}") == 200
            assert answer(page, host=f"10.evil.com:{port}") == 403
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) <= 4, "the light configuration"
        process.send_signal(sign)
        assert process.wait(30) == 0
        deadline = time.monotonic() + 10
        while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_one_store_alone_is_served_and_the_other_named(tmp_path: Path) -> None:
    open_storage_in(Workspace(tmp_path))
    port = free_port()
    with serving(tmp_path, "--port", str(port), n_pages=1) as (process, said):
        assert said == [f"Optuna dashboard: http://127.0.0.1:{port}/"]
        process.terminate()
        assert process.stderr is not None
        assert f"MLflow has nothing to show yet: there is no {tmp_path}/mlruns/mlflow.db." in process.stderr.read()


def open_storage_in(places: Workspace) -> None:
    open_storage(places.optuna_url).engine.dispose()


def test_hosts_outside_the_list_never_reach_the_application() -> None:
    reached, statuses = [], []

    def application(environ: dict[str, str], start_response: object) -> list[bytes]:
        reached.append(environ["HTTP_HOST"])
        return []

    guarded = only_for_hosts(application, {"127.0.0.1:8080"})
    for host in ("127.0.0.1:8080", "evil.com:8080", "127.0.0.1"):
        guarded({"HTTP_HOST": host}, lambda status, headers: statuses.append(status))
    assert reached == ["127.0.0.1:8080"]
    assert statuses == ["403 Forbidden"] * 2
