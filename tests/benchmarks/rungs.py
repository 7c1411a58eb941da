"""Where the first rung of a short study with a one-cycle schedule should be: real training, one trial at a time.

    python -m tests.benchmarks.rungs RESULTS_FOLDER [--seeds 0 10] [--arms "eta 3 from 1" ...] [--data-dir DIR]

`cifar_reg` made small: 8,000 training images of CIFAR-10, 5,000 for validation, hidden layers of 32 to 256 in at most
three. What counts is the best validation accuracy after so many epochs, of whatever trials: a later rung sees a trial
for what it is, an earlier one sees more trials. Only epochs count, so that other work on the machine does not matter.
Each study's curve is kept as a JSON file of its own: a further run goes on from there; several may share the folder.
"""

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search.definition import StudyDefinition, load
from search.events import EpochReported
from search.state import State
from search.workspace import Workspace
from tests.benchmarks.asking import reduced
from tests.running import coordinate, events_of

N_TRAIN, N_VALIDATION, N_EPOCHS = 8_000, 5_000, 240
MARKS = (60, 90, 120, 150, 180, 210, 240)
ARMS: Mapping[str, Mapping[str, Any]] = {
    "eta 3 from 1": {"eta": 3, "min_epochs": 1},
    "eta 3 from 2": {"eta": 3, "min_epochs": 2},
    "eta 3 from 3": {"eta": 3, "min_epochs": 3},
    "eta 2 from 1": {"eta": 2, "min_epochs": 1},
    "none": {"kind": "none"},
}
Curve = Sequence[float]
"""The best validation accuracy after so many epochs of the study, from 1 on, in percent."""


def small_study(pruning: Mapping[str, Any], seed: int, path: Path) -> StudyDefinition:
    table = load("cifar_reg", Workspace(Path.cwd()), {}).model_dump()
    table["space"]["width"] |= {"low": 32, "high": 256}
    table["space"]["depth"] |= {"high": 3}
    table["baseline"] |= {"width": 128, "depth": 2}
    changes = {
        "data": {"path": str(path), "validation": N_VALIDATION},
        "pruning": dict(pruning),
        "seed": seed,
        "n_trials": 400,
        "slots": 1,
        "precision": "float32",
        "device": "cpu",
        "checkpoints": 0,
    }
    return StudyDefinition.model_validate(table | changes)


def searched(definition: StudyDefinition) -> Curve:
    """Search until the study has trained so many epochs."""

    def over(state: State) -> str | None:
        n_epochs = sum(trial.reports[-1].epoch for trial in state.trials.values() if trial.reports)
        return "enough" if n_epochs >= N_EPOCHS else None

    with tempfile.TemporaryDirectory() as folder:
        coordinate(definition, Path(folder), stop=over)
        events = events_of(Path(folder), definition.name)
    best, curve = 0.0, list[float]()
    for event in events:
        if isinstance(event, EpochReported) and event.epoch > 0:
            best = max(best, 100 * event.metrics[definition.metric])
            curve.append(best)
    return curve


def summary(folder: Path) -> Iterator[str]:
    """For each arm the mean of its seeds after so many epochs; and against the first arm, of the seeds both have."""
    found = {
        arm: {int(path.stem.split("-")[-1]): json.loads(path.read_text()) for path in files}
        for arm, files in _files(folder)
    }
    first = found.get(next(iter(ARMS)), {})
    yield f"{'after so many epochs':<16} {'':>5} " + " ".join(f"{mark:>6}" for mark in MARKS)
    for arm, curves in found.items():
        means = [statistics.fmean(_after(curve, mark) for curve in curves.values()) for mark in MARKS]
        yield f"{arm:<16} n = {len(curves):<2} " + " ".join(f"{mean:6.2f}" for mean in means)
        both = sorted(curves.keys() & first.keys())
        if curves is not first and len(both) > 1:
            gains = [[_after(curves[seed], mark) - _after(first[seed], mark) for seed in both] for mark in MARKS]
            yield f"{'':<12} gains n = {len(both):<2} " + " ".join(f"{statistics.fmean(each):+6.2f}" for each in gains)
            errors = (statistics.stdev(each) / math.sqrt(len(both)) for each in gains)
            yield f"{'':<12}    +-        " + " ".join(f"{error:6.2f}" for error in errors)


def _files(folder: Path) -> Iterator[tuple[str, list[Path]]]:
    for arm in ARMS:
        if files := sorted(folder.glob(f"{arm.replace(' ', '_')}-*.json")):
            yield arm, files


def _after(curve: Curve, n_epochs: int) -> float:
    return curve[min(n_epochs, len(curve)) - 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10), help="the first, and the one after the last")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SEARCH_DATA_DIR", "."))
    given = parser.parse_args()
    given.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = reduced(given.data_dir, Path(folder), n=N_TRAIN + N_VALIDATION)
        for seed, arm in ((seed, arm) for seed in range(*given.seeds) for arm in given.arms):
            kept = given.results / f"{arm.replace(' ', '_')}-{seed}.json"
            if not kept.exists():
                kept.write_text(json.dumps(searched(small_study(ARMS[arm], seed, path))))
                print(kept.name, flush=True)
    print("\n".join(summary(given.results)))


if __name__ == "__main__":
    main()
