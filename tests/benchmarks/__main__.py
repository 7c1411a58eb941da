"""`python -m tests.benchmarks`: measure beside what a user would pick instead, and print one table."""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from objectives.probe import choose_precision
from search.workspace import default_data_dir
from tests.benchmarks import halving, kept, limit, recording, release, studies
from tests.benchmarks.measuring import Pool, in_fresh_process, machine, pool
from tests.benchmarks.rows import Bench, Effort, contenders_of, measured
from tests.benchmarks.table import Claim, ratios, rendered
from tests.benchmarks.workloads import WORKLOADS
from tests.histories import put_mlflow_database

Measured = tuple[list[Claim], dict[str, Any]]
BATCH_SIZES = {64: 0.65, 256: 0.80}
"""Batch size -> the least part of the limit."""
HALVING_TRIALS, HALVING_SLOTS = 60, 8


def refill(bench: Bench) -> Measured:
    """The row "successive halving with refill against the same engine without refill"."""
    workload = WORKLOADS["digits"]
    pairs = in_fresh_process(
        halving.arms, workload, bench.places(workload), HALVING_TRIALS, HALVING_SLOTS, bench.effort.repeats, core=0
    )
    first, second = pairs[0]
    claim = Claim(
        row="halving",
        title="successive halving with refill, digits",
        figure="x without refill",
        values=ratios([b.seconds for _, b in pairs], [a.seconds for a, _ in pairs]),
        bound=1.3,
        note=f"{HALVING_TRIALS} trials, {HALVING_SLOTS} slots; rows in use: {first.used(HALVING_SLOTS):.0%} with, "
        f"{second.used(HALVING_SLOTS):.0%} without",
    )
    return [claim], {"with": [a.seconds for a, _ in pairs], "without": [b.seconds for _, b in pairs]}


def fraction(bench: Bench) -> Measured:
    """The row "fraction of the limit", of 3.8 million parameters."""
    workload = WORKLOADS["cifar_mlp"]
    claims, detail = [], {}
    for batch_size, bound in BATCH_SIZES.items():
        found = in_fresh_process(
            limit.fractions,
            workload,
            bench.places(workload),
            batch_size,
            bench.precision,
            bench.effort.repeats,
            1,
            core=0,
        )
        detail[str(batch_size)] = asdict(found)
        claims.append(
            Claim(
                row="limit",
                title=f"fraction of the limit, 3.8 M parameters, batch {batch_size}",
                figure="of the limit",
                values=found.values,
                bound=bound,
                note=f"update {1e3 * found.update_s[0]:.1f} ms: products {1e3 * found.products_s[0]:.1f}, "
                f"optimizer's bytes {1e3 * found.optimizer_s[0]:.1f} at {found.bytes_per_s[0] / 1e9:.0f} GB/s",
            )
        )
    return claims, detail


ROWS: dict[str, Callable[[Bench], Measured]] = {
    **{name: lambda bench, workload=workload: measured(workload, bench) for name, workload in WORKLOADS.items()},  # type: ignore[misc]
    "halving": refill,
    "limit": fraction,
    "recording": recording.measured,
}
QUICK = [row for row in ROWS if row != "recording"]
"""What ten minutes are enough for."""


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    data_dir = given.data_dir or default_data_dir()
    if given.show:
        print(rendered(*kept.claims_of(given.show)))
        return 0
    path = given.json or Path(tempfile.mkdtemp()) / "benchmarks.json"
    precision, why = in_fresh_process(choose_precision, "cpu")
    print(why, file=sys.stderr)
    rows = given.only or (QUICK if given.quick else [])
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder)
        trained_here = given.full or any(row in WORKLOADS for row in rows)
        bench = Bench(
            root=root,
            data_dir=data_dir,
            pools=_pools(stack) if trained_here else {},
            fast_bf16=precision == "bfloat16",
            effort=Effort(repeats=given.repeats),
        )
        _measure(rows, bench, path)
        if given.release:
            release.measured(root, data_dir, kept.RESULTS)
        if given.full:
            setting = contenders_of(WORKLOADS["cifar_mlp"], bench.places(WORKLOADS["cifar_mlp"]), bench)[0][
                "usual"
            ].setting
            stack.close()  # whole studies have the machine to themselves
            studies.measured(
                data_dir,
                kept.RESULTS,
                setting,
                autocast=bench.fast_bf16,
                minutes=given.minutes,
                seeds=given.seeds,
                n_units=given.units,
            )
    kept.add(path, "release", release.claims(kept.RESULTS), {}, machine())
    kept.add(
        path, "studies", studies.claims(kept.RESULTS, fast_bf16=bench.fast_bf16, minutes=given.minutes), {}, machine()
    )
    print(rendered(*kept.claims_of(path)))
    return 0


def _pools(stack: contextlib.ExitStack) -> dict[str, Pool]:
    cores = sorted(os.sched_getaffinity(0))
    return {name: stack.enter_context(pool(cores, tuned=name == "tuned")) for name in ("plain", "tuned")}


def _measure(rows: Sequence[str], bench: Bench, path: Path) -> None:
    put_mlflow_database(bench.root / "mlruns")  # what only the first study of a workspace waits for
    for row in rows:
        print(f"{row} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        claims, detail = ROWS[row](bench)
        kept.add(path, row, claims, {**detail, "measuring_s": time.monotonic() - started}, machine())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the per-workload rows: 9 minutes on 2 cores")
    parser.add_argument("--full", action="store_true", help="the whole-study rows: hours; a later call goes on")
    parser.add_argument("--release", action="store_true", help="final accuracies of paired configurations")
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="every repeat and the machine; rows are added to it")
    parser.add_argument("--show", type=Path, metavar="FILE", help="print the table of such a file, measure nothing")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="else SEARCH_DATA_DIR, as the service does")
    parser.add_argument("--repeats", type=int, default=3, help="3 by default")
    parser.add_argument("--minutes", type=float, help="another budget for the whole-study rows: kept apart, for trying")
    parser.add_argument(
        "--seeds", type=int, nargs="+", choices=studies.SEEDS, default=studies.SEEDS, help="of --full: only these now"
    )
    parser.add_argument("--units", type=int, metavar="N", help="of --full: so many of side and seed in this call")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
