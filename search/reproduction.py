"""Whether a trial that was trained again gave the same: identical, equal up to rounding, or different. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from search.confirmation import values_of
from search.definition import StudyDefinition
from search.events import EpochReported, StagePlanned
from search.result import told
from search.sampling import trial_seed
from search.state import State, Trial

STAGE = "reproduction"
SAME_START = 1e-3
"""Relative: the untrained networks' metrics may differ by so much, which is rounding. Another initialization or other
data differ by more than that in some metric."""
SPREAD = {"float64": 1e-6, "float32": 0.009, "bfloat16": 0.0093}
"""Two deviations of the difference in validation accuracy between a trial fused and the same trained alone: what
rounding becomes in training. Source: tests/benchmarks/README.md, `--release`: intervals of 0.11 points from 60 pairs
and of 0.13 from 50, that is deviations of 0.43 and 0.47 points."""
RELATIVE_SPREAD = 0.05
"""The same of other metrics, as a part of the value: wide, since the check measures accuracies."""
Verdict = Literal["identical", "equal up to rounding", "different"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReproductionPlan:
    """Satisfies search.planned.Plan: one trial of the search, once more."""

    definition: StudyDefinition
    trial: Trial
    clock: Callable[[], float] = lambda: 0.0

    def __call__(self, phase: State) -> StagePlanned | None:
        if STAGE in phase.stages:
            return None
        values = values_of(self.definition, self.trial)
        return StagePlanned(
            at=self.clock(),
            stage=STAGE,
            configurations={f"trial {self.trial.number}": values},
            seeds=(trial_seed(self.definition.seed, self.trial.number),),
        )

    def seeds(self, definition: StudyDefinition, first: int) -> tuple[int, ...]:
        """Those that the trial was trained with."""
        return tuple(trial_seed(definition.seed, self.trial.number, i) for i in range(definition.n_replicates))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    verdict: Verdict
    why: str
    before: Mapping[int, float]
    """Epoch -> the study's metric, of the trial."""
    after: Mapping[int, float]
    """The same, trained again; of the epochs that both have."""


def compared(definition: StudyDefinition, trial: Trial, run: Trial, *, precision: str) -> Reproduction:
    """Compare a trial with its reproduction, over the epochs that both have."""
    both = [(a, b) for a in trial.reports for b in run.reports if a.epoch == b.epoch]
    metric = definition.metric
    before, after = ({each[i].epoch: each[i].metrics[metric] for each in both} for i in (0, 1))
    verdict, why = _verdict(both, metric, precision)
    return Reproduction(verdict=verdict, why=why, before=before, after=after)


def _verdict(both: Sequence[tuple[EpochReported, EpochReported]], metric: str, precision: str) -> tuple[Verdict, str]:
    if not any(a.epoch > 0 for a, _ in both):
        return "different", "there is no epoch that both have"
    if all(_same(a.metrics, b.metrics) for a, b in both):
        return "identical", f"every metric of all {len(both)} measured epochs is the same number"
    for name, start, again in _starts(both):
        if not math.isclose(start, again, rel_tol=SAME_START, abs_tol=SAME_START):
            return "different", f"the untrained networks differ already: {name} {start:.6g} before, {again:.6g} now"
    last, now = both[-1][0], both[-1][1]
    a, b = last.metrics[metric], now.metrics[metric]
    if not (math.isfinite(a) and math.isfinite(b)):
        same = math.isfinite(a) == math.isfinite(b)
        return ("equal up to rounding" if same else "different"), f"epoch {last.epoch}: {a} before, {b} now"
    allowed = SPREAD[precision] if metric.endswith("accuracy") else RELATIVE_SPREAD * max(abs(a), abs(b))
    told_both = f"epoch {last.epoch}: {metric} {told(metric, a)} before, {told(metric, b)} now"
    told_allowed = f"rounding alone explains {told(metric, allowed)}"
    return ("equal up to rounding" if abs(a - b) <= allowed else "different"), f"{told_both}; {told_allowed}"


def _starts(both: Sequence[tuple[EpochReported, EpochReported]]) -> list[tuple[str, float, float]]:
    """The losses of the untrained networks: (name, before, now)."""
    return [
        (name, value, b.metrics.get(name, math.nan))
        for a, b in both
        if a.epoch == 0
        for name, value in a.metrics.items()
        if name.endswith("loss") and math.isfinite(value)
    ]


def _same(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return a.keys() == b.keys() and all(x == b[name] or (x != x and b[name] != b[name]) for name, x in a.items())
