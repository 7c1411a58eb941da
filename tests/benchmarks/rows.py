"""A per-workload row: both other sides at their best setting and our service, alternating in one run."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from tests.benchmarks import fused, memory, validity
from tests.benchmarks.measuring import Burst, Pool, Prepare, in_fresh_process
from tests.benchmarks.sides import Places, Setting
from tests.benchmarks.table import Claim, alternating, ratios, spread
from tests.benchmarks.workloads import Workload

N_WORKERS = (0, 1, 2, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How long a row measures."""

    repeats: int = 3
    burst_s: float = 2.5
    sweep_s: float = 0.4
    steady_s: float = 4.0
    """Of our service."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the rows of one run share."""

    root: Path
    """A workspace for our studies; the data and Optuna's journals of the others lie there too."""
    data_dir: Path
    pools: Mapping[str, Pool]
    """By how the processes were started: "plain" and "tuned"."""
    fast_bf16: bool
    effort: Effort

    def places(self, workload: Workload) -> Places:
        return Places(path=workload.write(self.root, self.data_dir), data_dir=self.data_dir)

    @property
    def precision(self) -> str:
        return "bfloat16" if self.fast_bf16 else "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A side at one setting, and the processes it runs in."""

    side: str
    pool: str
    setting: Setting

    def __str__(self) -> str:
        named = [f"{2 // self.setting.threads} process(es) of {self.setting.threads} thread(s)"]
        named += [f"{self.setting.n_workers} DataLoader workers"] if self.side == "usual" else []
        named += ["channels_last"] if self.setting.channels_last else []
        named += ["allocator tuned"] if self.pool == "tuned" else []
        return ", ".join(named)


def measured(workload: Workload, bench: Bench) -> tuple[list[Claim], dict[str, Any]]:
    """Return the row's claims, and every figure behind them."""
    places = bench.places(workload)
    contenders, sweeps = contenders_of(workload, places, bench)
    for contender in contenders.values():
        _prepare(contender, workload, places, bench)
    rates: dict[str, list[float]] = {side: [] for side in (*contenders, "fused")}
    bare: dict[str, list[float]] = {side: [] for side in contenders}
    paces: list[fused.Pace] = []
    with fused.service(workload, places, bench.root, name=workload.name) as service:
        service.burst(0.0)  # from here on it is in its steady state
        for _, side in alternating([*contenders, "fused"], bench.effort.repeats):
            if side == "fused":
                paces.append(service.burst(bench.effort.steady_s))
                rates[side].append(paces[-1].rate)
            else:
                rate, without_reports = _burst(contenders[side], bench, bench.effort.burst_s, whole=True)
                rates[side].append(rate)
                bare[side].append(without_reports)
    slots = max(pace.slots for pace in paces)
    with ThreadPoolExecutor() as both:
        comparing = both.submit(in_fresh_process, validity.difference, workload, bench.root, bench.data_dir)
        used = in_fresh_process(memory.used, workload, places, slots, bench.precision)
    difference = comparing.result()
    void = "" if difference < validity.SAME else f"fused differs from unfused by {difference:.1e}"
    ours = f"ours {spread(rates['fused'])}/s, {slots} slots a trainer"
    floors = workload.floors(fast_bf16=bench.fast_bf16)
    bounds = {"usual": floors.usual, "resident": floors.resident, "resident bf16": floors.bf16}
    claims = [
        Claim(
            row=workload.name,
            title=workload.title,
            figure=f"x {side}",
            values=ratios(rates["fused"], rates[side]),
            bound=bounds[side],
            void=void,
            note=f"{ours}; {side} {spread(rates[side])}/s ({contender})",
        )
        for side, contender in contenders.items()
    ]
    claims.append(
        Claim(
            row=workload.name,
            title=workload.title,
            figure="memory, of what it must take",
            values=[used.ratio],
            bound=1.3,
            at_most=True,
            note=f"{used.peak_mb:,.0f} MB for {used.slots} slots, must {used.must_mb:,.0f} MB",
        )
    )
    claims.append(
        Claim(
            row=workload.name,
            title=workload.title,
            figure="start-up, s",
            values=[paces[0].start_s],
            note=f"from the command to the first report of a trained epoch; {paces[0].views_s:.1f} s until both views "
            "are loaded and follow",
        )
    )
    detail = {
        "difference_float64": difference,
        "updates_per_s": rates,
        "updates_per_s_without_optuna": bare,
        "sweep": sweeps,
        "ours": [asdict(pace) for pace in paces],
    }
    return claims, detail


def contenders_of(workload: Workload, places: Places, bench: Bench) -> tuple[dict[str, Contender], dict[str, Any]]:
    """Each side at the setting that a short sweep found fastest."""
    formats = (False, True) if workload.hyperparameters["model"] == "cnn" else (False,)
    singles = [
        Contender(side="resident", pool=pool, setting=Setting(channels_last=form))
        for pool, form in product(bench.pools, formats)
    ]
    resident, resident_rates = _fastest(singles, workload, places, bench)
    plain = Setting(channels_last=resident.setting.channels_last)
    by_workers = [Contender(side="usual", pool="plain", setting=replace(plain, n_workers=n)) for n in N_WORKERS]
    usual, usual_rates = _fastest(by_workers, workload, places, bench)
    lone = [
        replace(usual, setting=replace(usual.setting, threads=2, n_workers=n)) for n in {0, usual.setting.n_workers}
    ]
    usual, lone_rates = _fastest([usual, *lone], workload, places, bench)
    usual, tuned_rates = _fastest([usual, replace(usual, pool="tuned")], workload, places, bench)
    chosen = {"usual": usual, "resident": resident}
    if bench.fast_bf16:
        setting = replace(resident.setting, autocast=True)
        chosen["resident bf16"] = replace(resident, side="resident bf16", setting=setting)
    return chosen, {"usual": usual_rates | lone_rates | tuned_rates, "resident": resident_rates}


def _fastest(
    candidates: Sequence[Contender], workload: Workload, places: Places, bench: Bench
) -> tuple[Contender, dict[str, float]]:
    rates = {}
    for candidate in candidates:
        _prepare(candidate, workload, places, bench)
        rates[str(candidate)] = _burst(candidate, bench, bench.effort.sweep_s, whole=False)[0]
    return max(candidates, key=lambda candidate: rates[str(candidate)]), rates


def _prepare(contender: Contender, workload: Workload, places: Places, bench: Bench) -> None:
    journal = bench.root / f"{workload.name}-{contender.side.replace(' ', '-')}.journal"
    bench.pools[contender.pool].prepare(
        Prepare(
            side=contender.side, workload=workload, setting=contender.setting, places=places, journal=journal, seed=0
        )
    )


def _burst(contender: Contender, bench: Bench, seconds: float, *, whole: bool) -> tuple[float, float]:
    """Updates per second of all processes together, with reporting to Optuna and without."""
    done = bench.pools[contender.pool].burst(
        contender.setting, Burst(side=contender.side, seconds=seconds, whole=whole)
    )
    return sum(each.rate for each in done), sum(each.updates / (each.seconds - each.reporting_s) for each in done)
