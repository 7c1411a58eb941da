"""The GPU column in one script, for a host that has torch, torchvision and numpy, and nothing else.

    python -m tests.benchmarks.gpu [--data-dir DIR] [--slots 16 64] [--json FILE]

The sides usual and resident, one trial in a CUDA graph, and our engine (objectives alone, without the service).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from objectives.probe import choose_precision
from tests.benchmarks.engine import filled, given, objective, race
from tests.benchmarks.sides import LR, Places, Setting, Training, accuracy, network, normalized, resident, split, usual
from tests.benchmarks.table import Claim, alternating, ratios, rendered, spread
from tests.benchmarks.workloads import WORKLOADS, Workload

BOUNDS: Mapping[str, Mapping[str, float]] = {
    "mnist": {"usual": 100, "graphed": 15},
    "mnist_deep_bn": {"usual": 60},
    "mnist_deep_dropout": {"usual": 60},
    "cifar_mlp": {"usual": 25, "graphed": 2.5},
    "cifar_cnn": {"usual": 10, "graphed": 1.5},
}
N_TRAIN, N_VAL = 44_800, 5_000
N_WORKERS = (0, 2, 4, 8)
HALVING_EPOCHS, ETA = 27, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    repeats: int = 3
    burst_s: float = 1.5
    usual_s: float = 2.5
    sweep_s: float = 1.0
    slots: tuple[int, ...] = (16, 64)
    n_train: int = N_TRAIN
    n_val: int = N_VAL
    n_workers: tuple[int, ...] = N_WORKERS
    halving_trials: int = 200


def ignored(_value: float) -> None:
    """Reported to nobody: the engine has no ledger here either."""


def graphed(workload: Workload, setting: Setting, places: Places) -> Training:
    """One trial, its whole update captured in a CUDA graph; on the CPU the same update without a graph."""
    torch.manual_seed(0)
    dataset = split(workload, places, setting.device)
    model = network(workload, dataset).to(setting.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True, capturable=setting.device != "cpu")
    criterion = nn.CrossEntropyLoss()
    x_train, x_val = normalized(dataset, dataset.x_train, setting), normalized(dataset, dataset.x_val, setting)
    index = torch.zeros(workload.batch_size, dtype=torch.int64, device=setting.device)

    def update() -> None:
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast(x_train.device.type, torch.bfloat16, enabled=setting.autocast, cache_enabled=False):
            loss = criterion(model(x_train[index]), dataset.y_train[index])
        loss.backward()
        optimizer.step()

    replay = captured(update, setting.device)
    while True:
        model.train()
        order = torch.randperm(len(x_train), device=setting.device)
        for chosen in order[: workload.epoch_updates * workload.batch_size].view(-1, workload.batch_size):
            index.copy_(chosen)
            replay()
            yield False
        accuracy(model.eval(), x_val, dataset.y_val)
        yield True


def captured(update: Callable[[], None], device: str) -> Callable[[], None]:
    """Return the update as a replayed graph. Source: "CUDA Graphs" in PyTorch's notes on CUDA semantics."""
    if device == "cpu":
        return update
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            update()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    return graph.replay


def fused(workload: Workload, places: Places, *, slots: int, precision: str, device: str) -> Iterator[int]:
    """Our engine with so many slots; yields the trial-updates of each update, and trains for ever."""
    population = filled(objective(workload, places, precision=precision, device=device), workload, slots)
    while True:
        done = population.update()
        yield slots
        if done:
            population.evaluate(done)
            for slot in done:
                population.keep(slot)


# ---------------------------------------------------------------- measuring


def rate(training: Iterator[bool] | Iterator[int], seconds: float, *, ours: bool) -> float:
    """Trial-updates per second; the device is waited for at both ends, and after every ten updates."""
    _wait()
    started, updates = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            each = next(training)
            updates += each if ours else not each
        _wait()
    return updates / (time.perf_counter() - started)


def row(workload: Workload, places: Places, effort: Effort, *, device: str, precision: str) -> list[Claim]:
    """Every side of a workload, alternating; ours with each number of slots."""
    setting = Setting(device=device, autocast=precision == "bfloat16")
    workers = {n: _swept(workload, replace(setting, n_workers=n), places, effort) for n in effort.n_workers}
    n_workers = max(workers, key=lambda n: workers[n])
    sides: dict[str, Iterator[bool] | Iterator[int]] = {
        "usual": usual(workload, replace(setting, n_workers=n_workers), places, ignored),
        "resident": resident(workload, setting, places, ignored),
        "graphed": graphed(workload, setting, places),
    }
    ours = {f"ours {n}": n for n in effort.slots}
    for name, n in ours.items():
        sides[name] = fused(workload, places, slots=n, precision=precision, device=device)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for side in sides:
        rate(sides[side], 0.2, ours=side in ours)  # the first updates compile, capture and choose algorithms
    for _, side in alternating(list(sides), effort.repeats):
        seconds = effort.usual_s if side == "usual" else effort.burst_s
        rates[side].append(rate(sides[side], seconds, ours=side in ours))
    bounds = BOUNDS.get(workload.name, {})
    return [
        Claim(
            row=workload.name,
            title=workload.title,
            figure=f"x {other}, {n} slots",
            values=ratios(rates[name], rates[other]),
            bound=bounds.get(other),
            note=f"ours {spread(rates[name])}/s; {other} {spread(rates[other])}/s"
            + (f" ({n_workers} DataLoader workers, one process)" if other == "usual" else ""),
        )
        for name, n in ours.items()
        for other in ("usual", "resident", "graphed")
    ]


def _swept(workload: Workload, setting: Setting, places: Places, effort: Effort) -> float:
    training = usual(workload, setting, places, ignored)
    next(training)
    return rate(training, effort.sweep_s, ours=False)


def refill(workload: Workload, places: Places, effort: Effort, *, device: str, precision: str) -> Claim:
    """Successive halving with refill against arrays without, as a race of the same trials."""
    found, slots = objective(workload, places, precision=precision, device=device), max(effort.slots)
    trials = [given(workload, number) for number in range(effort.halving_trials)]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for repeat in range(effort.repeats):
        for refilled in (True, False) if repeat % 2 == 0 else (False, True):
            arm = race(found, trials, slots, epochs=HALVING_EPOCHS, refill=refilled, ending=halving())
            seconds[refilled].append(arm.seconds)
    return Claim(
        row="halving",
        title=f"successive halving with refill, {workload.title}",
        figure="x without refill",
        values=ratios(seconds[False], seconds[True]),
        bound=1.8,
        note=f"{effort.halving_trials} trials, {slots} slots",
    )


def halving() -> Callable[[Mapping[int, float]], list[int]]:
    """Asynchronous successive halving in a few lines: search.pruning needs packages that are not here."""
    at: dict[int, int] = {}
    recorded: dict[int, list[float]] = {ETA**k: [] for k in range(HALVING_EPOCHS) if ETA**k < HALVING_EPOCHS}

    def ended(accuracies: Mapping[int, float]) -> list[int]:
        for number, value in accuracies.items():
            at[number] = at.get(number, 0) + 1
            recorded.get(at[number], []).append(value)
        return [number for number, value in accuracies.items() if _ends(at[number], value)]

    def _ends(epoch: int, value: float) -> bool:
        values = sorted(recorded.get(epoch, []))
        return epoch == HALVING_EPOCHS or (bool(values) and value < values[-max(1, len(values) // ETA)])

    return ended


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine(device: str) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return {"device": name, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}


def column(data_dir: Path, effort: Effort, *, device: str, rows: Sequence[str]) -> list[Claim]:
    """Every row of the column, printed as it is measured."""
    precision, why = choose_precision(device)
    print(why, file=sys.stderr)
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in rows:
            workload = replace(WORKLOADS[name], n_train=effort.n_train, n_val=effort.n_val)
            places = Places(path=workload.write(Path(folder), data_dir), data_dir=data_dir)
            print(f"{name} ...", file=sys.stderr, flush=True)
            claims += row(workload, places, effort, device=device, precision=precision)
            if name == "mnist":
                claims.append(refill(workload, places, effort, device=device, precision=precision))
    return claims


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="torchvision's files")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", nargs="+", choices=BOUNDS, default=list(BOUNDS))
    parser.add_argument("--slots", nargs="+", type=int, default=[16, 64])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parsed = parser.parse_args(arguments)
    effort = Effort(slots=tuple(parsed.slots))
    claims, facts = column(parsed.data_dir, effort, device=parsed.device, rows=parsed.rows), machine(parsed.device)
    print(rendered(claims, facts))
    if parsed.json:
        parsed.json.write_text(json.dumps({"machine": facts, "claims": [asdict(claim) for claim in claims]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
