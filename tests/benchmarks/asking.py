"""Whether many trials in flight, asked for the slots that are free, make a search worse than one trial at a time.

    python -m tests.benchmarks.asking RESULTS_FOLDER [--seeds 0 40] [--for-s 170] [--data-dir DIR]

CIFAR-10 with 2,000 training and 5,000 validation images and small MLPs of 12 structures; the same study seed on both
sides. `fused` is the service as it is, with two trainers in this process; `alone` has one trainer and one slot, so each
trial is asked when all before it are finished. What counts is the best validation accuracy. The control is `alone`
after half of its trials: a test that cannot tell that from all of them proves nothing.
Each study's result is kept as a JSON file of its own: a further run goes on from there, and several may share a folder.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search.definition import StudyDefinition
from search.state import State
from tests.running import coordinate

N_TRIALS = 96
N_TRAIN, N_VALIDATION = 2_000, 5_000
TABLE = {
    "name": "asking",
    "title": "Small MLPs on a tenth of CIFAR-10",
    "question": "Does the way of asking make the search worse?",
    "n_trials": N_TRIALS,
    "epochs": 9,
    "precision": "float32",
    "device": "cpu",
    "checkpoints": 0,
    "fixed": {"model": "mlp", "batch_size": 128, "optimizer": "adamw", "schedule": "one_cycle"},
    "pruning": {"kind": "successive_halving", "eta": 3, "min_epochs": 1},
    "baseline": {
        "lr": 1e-3,
        "weight_decay": 0.0,
        "l1": 0.0,
        "l2": 0.0,
        "dropout": 0.0,
        "width": 64,
        "depth": 1,
        "batch_norm": False,
        "label_smoothing": 0.0,
    },
    "space": {
        "lr": {"kind": "log_float", "low": 1e-4, "high": 3e-2},
        "weight_decay": {"kind": "log_float", "low": 1e-6, "high": 1e-1, "regularizer": True, "off_below": 1.78e-5},
        "l1": {"kind": "log_float", "low": 1e-7, "high": 1e-3, "regularizer": True, "off_below": 1e-6},
        "l2": {"kind": "log_float", "low": 1e-6, "high": 1e-1, "regularizer": True, "off_below": 1.78e-5},
        "dropout": {"kind": "float", "low": 0.0, "high": 0.6, "regularizer": True, "off": 0.0},
        "width": {"kind": "power_of_two", "low": 32, "high": 128},
        "depth": {"kind": "int", "low": 1, "high": 2},
        "batch_norm": {"kind": "bool", "regularizer": True, "off": False},
        "label_smoothing": {"kind": "float", "low": 0.0, "high": 0.2, "regularizer": True, "off": 0.0},
    },
}
ARMS = {"fused": (2, 8), "alone": (1, 1)}
"""Trainers and slots of a population."""


def reduced(data_dir: Path, folder: Path, *, n: int = N_TRAIN + N_VALIDATION) -> Path:
    """Write CIFAR-10's first training images as an .npz file."""
    from objectives.datasets import named

    examples = named("cifar10", size=None, data_dir=data_dir, progress=print)
    path = folder / "cifar10_reduced.npz"
    np.savez(path, x=examples.x[:n], y=examples.y[:n])
    return path


def searched(arm: str, seed: int, path: Path) -> dict[str, object]:
    """Run one study; return its values in the order of the trials, and how long it took."""
    n_trainers, slots = ARMS[arm]
    data = {"path": str(path), "validation": N_VALIDATION}
    definition = StudyDefinition.model_validate({**TABLE, "data": data, "slots": slots, "seed": seed})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        state = coordinate(definition, Path(folder), n_trainers=n_trainers)
    return {"values": values(state), "seconds": time.perf_counter() - started}


def values(state: State) -> list[float | None]:
    """The best epoch's validation accuracy of each trial, in percent; None where it was pruned."""
    return [
        None if trial.outcome != "complete" or trial.value is None else 100 * trial.value
        for trial in state.trials.values()
    ]


def best(found: Sequence[float | None], n_trials: int) -> float:
    return max(value for value in found[:n_trials] if value is not None)


def summary(folder: Path) -> str:
    """Mean deficits over the seeds that have both arms, with their one-sided 95 % bounds."""
    found = {path.stem: json.loads(path.read_text())["values"] for path in folder.glob("*.json")}
    seeds = sorted(name.removeprefix("alone-") for name in found if name.startswith("alone-"))
    pairs = [(found[f"fused-{seed}"], found[f"alone-{seed}"]) for seed in seeds if f"fused-{seed}" in found]
    if len(pairs) < 2:
        return f"{len(pairs)} seeds: too few"
    fused = [best(alone, N_TRIALS) - best(fused, N_TRIALS) for fused, alone in pairs]
    control = [best(alone, N_TRIALS) - best(alone, N_TRIALS // 2) for _, alone in pairs]
    lines = [f"{len(pairs)} seeds, {N_TRIALS} trials; best of `alone`: {_mean([best(a, N_TRIALS) for _, a in pairs])}"]
    for name, deficits in (("fused instead of alone", fused), ("half of the trials instead of all", control)):
        lower, upper = _bounds(deficits)
        lines.append(f"{name:<36} loses {_mean(deficits)} points; 95 % bounds {lower:.2f}, {upper:.2f}")
    return "\n".join(lines)


def _bounds(deficits: Sequence[float]) -> tuple[float, float]:
    from scipy.stats import t  # type: ignore[import-untyped]

    half = t.ppf(0.95, len(deficits) - 1) * statistics.stdev(deficits) / math.sqrt(len(deficits))
    return statistics.fmean(deficits) - half, statistics.fmean(deficits) + half


def _mean(numbers: Sequence[float]) -> str:
    return f"{statistics.fmean(numbers):.2f} +- {statistics.stdev(numbers) / math.sqrt(len(numbers)):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 40), help="the first, and the one after the last")
    parser.add_argument("--for-s", type=float, default=math.inf, help="begin no study after so many seconds")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SEARCH_DATA_DIR", "."))
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.for_s
    with tempfile.TemporaryDirectory() as folder:
        path = reduced(given.data_dir, Path(folder))
        for seed, arm in ((seed, arm) for seed in range(*given.seeds) for arm in ARMS):
            kept = given.results / f"{arm}-{seed}.json"
            if not kept.exists() and time.monotonic() < end:
                kept.write_text(json.dumps(searched(arm, seed, path)))
                print(kept.name, flush=True)
    print(summary(given.results))


if __name__ == "__main__":
    main()
