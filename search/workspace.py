"""Where a study's files lie: everything under one root, the folder the command runs in."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Workspace:
    """The fixed places under a root; nothing is created here."""

    root: Path

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def mlruns(self) -> Path:
        return self.root / "mlruns"

    @property
    def optuna_artifacts(self) -> Path:
        """Files that the Optuna dashboard shows, of all studies."""
        return self.studies / "artifacts"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.mlruns / "artifacts"

    @property
    def optuna_url(self) -> str:
        return sqlite_url(self.studies / "optuna.db")

    @property
    def mlflow_url(self) -> str:
        return sqlite_url(self.mlruns / "mlflow.db")

    def definition(self, study: str) -> Path:
        return self.studies / f"{study}.toml"

    def study(self, study: str) -> Path:
        """The folder of a study's own files."""
        return self.studies / study

    def ledger(self, study: str) -> Path:
        return self.study(study) / "ledger.db"

    def checkpoints(self, study: str) -> Path:
        return self.study(study) / "checkpoints"

    def figures(self, study: str) -> Path:
        return self.study(study) / "figures"


def sqlite_url(path: Path) -> str:
    """An absolute SQLite URL; braces are percent-encoded, since Optuna expands them as a format string."""
    return "sqlite:///" + str(path.resolve()).replace("%", "%25").replace("{", "%7B").replace("}", "%7D")


def cache_dir() -> Path:
    """What any study may use again: SEARCH_CACHE_DIR, or a folder of the user's cache."""
    if chosen := os.environ.get("SEARCH_CACHE_DIR"):
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "regularization-search"


def default_data_dir() -> Path:
    """SEARCH_DATA_DIR, or the cache."""
    chosen = os.environ.get("SEARCH_DATA_DIR")
    return Path(chosen).expanduser() if chosen else cache_dir()
