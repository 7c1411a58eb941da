"""What networks said of each test example: read from where a phase stored it, verified, as scores to compare."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from search import checkpoint
from search.errors import LedgerError
from search.events import NetworkTested

Floats = NDArray[np.float64]


def read(path: Path, tested: NetworkTested) -> dict[str, NDArray[np.generic]]:
    """Return outputs (N, K), targets (N,), index (N,) and losses (N,).

    Raises:
        LedgerError: the file is gone, or is not the one that the ledger names.
    """
    if not path.exists() or checkpoint.sha256(path) != tested.sha256:
        found = "is damaged" if path.exists() else "is gone"
        raise LedgerError(
            f"{path}: what was predicted on the test set {found}; the ledger has its SHA-256 as {tested.sha256}. "
            "Restore the file."
        )
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def scores(stored: dict[str, NDArray[np.generic]], tested: NetworkTested, *, metric: str, maximize: bool) -> Floats:
    """Return a score per example (N,), higher is better, whose mean is the metric, its sign turned if it is minimized.

    Of a metric that is no mean over examples there is one score, the metric itself (1,): then only seeds vary.

    Args:
        metric: of the validation part, as a study names it.
    """
    sign = 1.0 if maximize else -1.0
    match metric:
        case "val_accuracy" if stored["outputs"].shape[1] > 1:
            right: Floats = (stored["outputs"].argmax(axis=1) == stored["targets"]).astype(np.float64)
            return sign * right
        case "val_loss" if "losses" in stored:
            return sign * stored["losses"].astype(np.float64)
    return np.array([sign * tested.metrics[test_name(metric)]])


def test_name(metric: str) -> str:
    """val_accuracy -> test_accuracy."""
    return "test_" + metric.removeprefix("val_")
