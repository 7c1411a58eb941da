"""The whole-study rows: how soon ours finds what others find in their time. One unit (side, seed) at a time, kept."""

import io
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from search.definition import StudyDefinition, load
from search.events import EpochReported
from search.ledger import Ledger
from search.session import Settings, run
from search.workspace import Workspace
from tests.benchmarks.measuring import machine
from tests.benchmarks.other_studies import Job, ray_study, read_diaries, usual_study
from tests.benchmarks.sides import Setting
from tests.benchmarks.table import Claim

STUDY, SEEDS = "cifar_reg", (0, 1, 2)
N_TRIALS = 200
"""More than anybody trains in that time; how many of ours may be in flight follows from it."""
MINUTES = {"usual": 30.0, "ray": 15.0, "ours": 10.0}
"""Ours as long as the loosest bound below allows: what it finds later, it has found too late for every one."""
TITLES = {"usual": "usual (Optuna TPE, MedianPruner)", "ray": "Ray Tune (ASHA, OptunaSearch)"}
BOUNDS = {"usual": {True: 1 / 6, False: 1 / 6}, "ray": {True: 1 / 2, False: 2 / 3}}
"""By whether bfloat16 is fast on this machine."""
Curve = Sequence[tuple[float, float]]
"""(Seconds since the command, validation accuracy of some trial after some epoch)."""


def measured(
    data_dir: Path,
    results: Path,
    setting: Setting,
    *,
    autocast: bool,
    minutes: float | None = None,
    seeds: Sequence[int] = SEEDS,
    n_units: int | None = None,
) -> None:
    """Measure the units that are missing, at most `n_units`; ours after the others of its seed, whose best ends it.

    Args:
        setting: the best one of the usual side.
        seeds: of SEEDS, those to measure now, in this order.
        autocast: whether Ray's trials use bfloat16.
        minutes: another budget for every side, for trying; its results are kept apart.
    """
    units = [(side, seed) for seed in seeds for side in ("usual", "ray", "ours")]
    missing = [(side, seed) for side, seed in units if not _path(results, side, seed, minutes).exists()]
    for side, seed in missing[:n_units]:
        budget_s = 60 * (minutes or MINUTES[side])
        print(f"{side}, seed {seed}: at most {budget_s / 60:g} minutes ...", file=sys.stderr, flush=True)
        if side == "ours":
            target = max(best(curve_of(results, other, seed, minutes)) for other in TITLES)
            chosen, curve = "", _ours(seed, data_dir, budget_s, target or 1.0)
        else:
            given = setting if side == "usual" else Setting(autocast=autocast)
            chosen, curve = str(given), _other(side, seed, data_dir, budget_s, given)
        record = {"side": side, "seed": seed, "minutes": budget_s / 60, "setting": chosen, "machine": machine()}
        results.mkdir(exist_ok=True)
        path = _path(results, side, seed, minutes)
        path.write_text(json.dumps({**record, "curve": improvements(curve)}, indent=1) + "\n")


def claims(results: Path, *, fast_bf16: bool, minutes: float | None) -> list[Claim]:
    """What the kept units say; the seeds that are complete are the repeats."""
    return [claim for side, bound in BOUNDS.items() for claim in _claims(side, results, bound[fast_bf16], minutes)]


def _claims(side: str, results: Path, bound: float, minutes: float | None) -> Iterator[Claim]:
    """How soon ours has found the best that the other side found: of its time, and beside when it found that itself."""
    both = [(curve_of(results, "ours", seed, minutes), curve_of(results, side, seed, minutes)) for seed in SEEDS]
    pairs = [(ours, theirs) for ours, theirs in both if ours and theirs]
    budget = minutes or MINUTES[side]
    found_s = [(reached(ours, best(theirs)), reached(theirs, best(theirs))) for ours, theirs in pairs]
    bests = ", ".join(
        f"{best(theirs):.2%} after {own_s:.0f} s (ours {best(ours):.2%}, that {_when(ours_s)})"
        for (ours, theirs), (ours_s, own_s) in zip(pairs, found_s, strict=True)
    )
    for figure, values, asked in (
        (f"of {budget:g} minutes", [ours_s / (60 * budget) for ours_s, _ in found_s], bound),
        ("of the time in which it found that itself", [ours_s / own_s for ours_s, own_s in found_s], None),
    ):
        yield Claim(
            row="studies",
            title=f"whole {STUDY} study: time to the best of {TITLES[side]}",
            figure=figure,
            values=values,
            bound=asked,
            at_most=True,
            void="" if len(pairs) == len(SEEDS) else f"{len(pairs)} of {len(SEEDS)} seeds: --full goes on",
            note=bests,
        )


def _when(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"after {seconds:.0f} s"


def best(curve: Curve) -> float:
    return max((value for _, value in curve), default=0.0)


def reached(curve: Curve, value: float) -> float:
    """When the curve first was at the value; infinity if never."""
    return min((at for at, own in curve if own >= value), default=math.inf)


def improvements(curve: Curve) -> list[tuple[float, float]]:
    """The points of a curve at which it was better than ever before."""
    found: list[tuple[float, float]] = []
    for at, value in sorted(curve):
        if value > best(found):
            found.append((at, value))
    return found


def curve_of(results: Path, side: str, seed: int, minutes: float | None) -> Curve:
    """What was kept of a unit; nothing where there is none."""
    path = _path(results, side, seed, minutes)
    record: Mapping[str, Any] = json.loads(path.read_text()) if path.exists() else {"curve": []}
    return [(at, value) for at, value in record["curve"]]


def _path(results: Path, side: str, seed: int, minutes: float | None) -> Path:
    tried = f"-tried-{minutes:g}-minutes" if minutes else ""
    return results / f"study-{side}-{seed}{tried}.json"


# ---------------------------------------------------------------- the sides


def _definition(seed: int) -> StudyDefinition:
    return load(STUDY, Workspace(Path.cwd()), {"seed": seed, "n_trials": N_TRIALS})


def _other(side: str, seed: int, data_dir: Path, seconds: float, setting: Setting) -> Curve:
    """Run another side in a process of its own, its start included in the time."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            definition=_definition(seed), data_dir=data_dir, folder=Path(folder), setting=setting, seconds=seconds
        )
        started = time.time()
        context = multiprocessing.get_context("spawn")
        process = context.Process(target={"usual": usual_study, "ray": ray_study}[side], args=(job,))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{side}, seed {seed}: ended with exit status {process.exitcode}; see above.")
        return read_diaries(Path(folder), started=started, seconds=seconds)


def _ours(seed: int, data_dir: Path, seconds: float, target: float) -> Curve:
    """Run the command until it has found the target, or its time is up.

    Raises:
        KeyboardInterrupt: somebody else interrupted it: what it found until then is no unit.
    """
    definition = _definition(seed).model_copy(update={"timeout_s": seconds})
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder))
        settings = Settings(
            workspace=workspace,
            data_dir=data_dir,
            storage=workspace.optuna_url,
            tracking_uri=workspace.mlflow_url,
        )
        path, started = workspace.ledger(definition.name), time.time()
        over, found = threading.Event(), threading.Event()

        def watch() -> None:
            while not over.wait(2.0):
                if path.exists() and best(_reports(path, definition.metric, started)) >= target:
                    found.set()
                    os.kill(os.getpid(), signal.SIGINT)
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            status = run(definition, settings, Console(file=io.StringIO()))
        finally:
            over.set()
            thread.join()
        if status and not found.is_set():
            raise KeyboardInterrupt
        return [(at, value) for at, value in _reports(path, definition.metric, started) if at <= seconds]


def _reports(path: Path, metric: str, started: float) -> Curve:
    ledger = Ledger(path)
    try:
        reports = [event for event in ledger.events() if isinstance(event, EpochReported) and event.epoch > 0]
    finally:
        ledger.close()
    return [(report.at - started, report.metrics[metric]) for report in reports]
