"""Where an epoch's time goes, workload by workload: `python -m tests.benchmarks.profiled [WORKLOAD ...]`.

Our engine alone, on one core, without service, ledger and views: the time of an update is the clock's, its parts are
the shares that torch's profiler finds; what is no operation of torch's is Python. Evaluation is of one slot alone, as
most are in a search.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from objectives.population import Population
from objectives.probe import choose_precision
from search.workspace import default_data_dir
from tests.benchmarks.engine import filled, objective
from tests.benchmarks.measuring import cpu_model, in_fresh_process
from tests.benchmarks.sides import Places
from tests.benchmarks.workloads import WORKLOADS

KINDS = {
    "products": ("bmm", "baddbmm", "mm", "addmm", "mkldnn_convolution", "convolution_backward"),
    "optimizer": ("_fused_adamw_", "_fused_sgd_"),
    "copies and casts": ("copy_", "_to_copy", "_foreach_copy_", "cat", "clone"),
    "BatchNorm": ("native_batch_norm", "native_batch_norm_backward"),
    "pooling": ("max_pool2d_with_indices", "max_pool2d_with_indices_backward", "fill_"),
    "activations": ("relu_", "clamp_min_", "threshold_backward"),
    "examples": ("index_select", "index", "sub_"),
}
SLOTS = {"mnist": 8, "mnist_deep_bn": 2, "mnist_deep_dropout": 4, "digits": 32, "cifar_mlp": 1, "cifar_cnn": 1}
"""As many as pay; a machine's own sweep may find others."""
WARM_UP, BURSTS, BURST_S, N_PROFILED = 5, 7, 0.3, 10


def row(name: str, root: Path, data_dir: Path, precision: str) -> str:
    """One workload's line of the table."""
    workload = WORKLOADS[name]
    places = Places(path=workload.write(root, data_dir), data_dir=data_dir)
    population = filled(objective(workload, places, precision=precision), workload, SLOTS[name])
    update_s = _seconds(population)
    started = time.perf_counter()
    population.evaluate([0])
    evaluate_s = time.perf_counter() - started
    epoch_s = update_s * workload.epoch_updates / SLOTS[name] + evaluate_s
    shares = _shares(population)
    parts = " | ".join(f"{shares[kind]:.0%}" for kind in (*KINDS, "other operations", "Python"))
    return (
        f"| {name}, {SLOTS[name]} slots | {1e3 * update_s:.2f} | {1e3 * update_s / SLOTS[name]:.2f} | {parts} | "
        f"{evaluate_s / epoch_s:.0%} |"
    )


def _seconds(population: Population) -> float:
    """The median time of an update."""
    for _ in range(WARM_UP):
        population.update()
    times = []
    for _ in range(BURSTS):
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < BURST_S:
            population.update()
            n += 1
        times.append((time.perf_counter() - started) / n)
    population.evaluate([0])  # libraries set themselves up
    return statistics.median(times)


def _shares(population: Population) -> Counter[str]:
    """Of the time of updates under the profiler, the part of each kind of operation."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        started = time.perf_counter()
        for _ in range(N_PROFILED):
            population.update()
        whole_us = 1e6 * (time.perf_counter() - started)
    kinds = {name: kind for kind, names in KINDS.items() for name in names}
    shares: Counter[str] = Counter()
    for event in found.key_averages():
        kind = kinds.get(event.key.removeprefix("aten::"), "other operations")
        shares[kind] += event.self_cpu_time_total / whole_us
    shares["Python"] = 1 - sum(shares.values())
    return shares


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.profiled", description=__doc__)
    parser.add_argument("workload", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    names = parser.parse_args(arguments).workload or list(WORKLOADS)
    precision, _ = in_fresh_process(choose_precision, "cpu")
    heads = ["update, ms", "a slot's, ms", *KINDS, "other operations", "Python", "evaluation, of an epoch"]
    print(f"{cpu_model()}, torch {torch.__version__}, {precision}, {time.strftime('%Y-%m-%d')}\n")
    print(f"| Workload | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(in_fresh_process(row, name, Path(folder), default_data_dir(), precision, core=0), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
