"""What holds for every test: one thread, no telemetry, and real data only where they are."""

import os
from pathlib import Path

import pytest

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported, here and in started processes
os.environ["DO_NOT_TRACK"] = "true"

import torch

torch.set_num_threads(1)  # two OpenMP threads in a process collapse when anything else runs


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test measures is remembered for the user, or for another test."""
    monkeypatch.setenv("SEARCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with the published data sets, for tests marked real_data."""
    chosen = os.environ.get("SEARCH_DATA_DIR")
    if not chosen:
        pytest.skip("SEARCH_DATA_DIR is not set: it must name the folder with the published data sets")
    if not (Path(chosen) / "cifar-10-batches-py").is_dir():
        pytest.skip(f"SEARCH_DATA_DIR={chosen} holds no cifar-10-batches-py")
    return Path(chosen)
