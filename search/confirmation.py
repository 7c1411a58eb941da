"""Which configurations a confirmation trains again, and on which seeds: three stages, each from the one before. Pure.

select   the best distinct configurations of the search and the baseline, on fresh seeds: gives winner and runner-up
sweep    the winner with every regularizer off, at a few learning rates: gives the best unregularized configuration
final    these four on further seeds: what is then measured on the test set chose nothing before
"""

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Self

from search.contract import Value
from search.cost import trainer_seconds
from search.definition import StudyDefinition
from search.events import StagePlanned
from search.sampling import fresh_seeds
from search.space import clipped, turned_off
from search.state import State, Trial
from search.statistics import power
from search.verdicts import ranking

SELECT, SWEEP, FINAL = "select", "sweep", "final"
STAGES = (SELECT, SWEEP, FINAL)
BASELINE = "baseline"
FACTORS, N_RATES = (1.0, 0.3, 3.0, 0.1, 10.0), 4
"""Of the winner's learning rate, in the sweep: the first four that are distinct within the range of the space."""
EFFECT = 1.5
"""Deviations between seeds that a final comparison should be able to see."""
OVERHEAD = 1.1
"""What starting, saving and testing add to the training."""
Values = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is trained."""

    candidates: int
    select_seeds: int
    sweep_seeds: int
    final_seeds: int

    @classmethod
    def of(cls, *numbers: int) -> Self:
        return cls(**dict(zip(cls.__slots__, numbers, strict=True)))


EFFORTS = tuple(
    Effort.of(*numbers)
    for numbers in (
        (5, 4, 2, 13),
        (5, 3, 2, 13),
        (4, 3, 1, 13),
        (3, 3, 1, 13),
        (3, 2, 1, 12),
        (3, 2, 1, 11),
        (3, 2, 1, 10),
        (2, 2, 1, 10),
        (2, 2, 1, 9),
        (2, 2, 1, 8),
        (2, 2, 1, 7),
        (2, 2, 1, 6),
        (2, 2, 1, 5),
    )
)
"""From what is wanted to the least that shows anything. A budget takes configurations and the seeds that choose among
them first: the final seeds carry the verdict. It never takes learning rates: with two in place of four the gain of
`cifar_reg` looked twice as large, since the better one was not tried (README, "Measured")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmationPlan:
    """Satisfies search.planned.Plan."""

    definition: StudyDefinition
    search: State
    phase: str
    n_trainers: int = 1
    budget_s: float | None = None
    """Of this run of the command."""
    elapsed_s: Callable[[], float] = lambda: 0.0
    """Since this run of the command began."""
    clock: Callable[[], float] = lambda: 0.0

    def __call__(self, phase: State) -> StagePlanned | None:
        planned = {SELECT: self._select, SWEEP: self._sweep, FINAL: self._final}
        following = next((stage for stage in STAGES if stage not in phase.stages), None)
        return None if following is None else planned[following](phase)

    def effort(self) -> Effort:
        """The most that the budget leaves, by what the search's trials cost; the least where it leaves nothing."""
        if self.budget_s is None:
            return EFFORTS[0]
        return next((each for each in EFFORTS if self.expected_s(each) <= self.budget_s), EFFORTS[-1])

    def n_runs(self) -> int:
        """How many runs there will be, if no two configurations turn out to be the same."""
        effort = self.effort()
        n_selected = len(self._candidates(effort)) * effort.select_seeds
        return n_selected + N_RATES * effort.sweep_seeds + 4 * effort.final_seeds

    def expected_s(self, effort: Effort) -> float:
        """How long it takes, trained at the pace of the search: a run is one of a trial's replicates."""
        shares = {number: s / self.definition.replicates for number, s in trainer_seconds(self.search).items()}
        found = candidates(self.definition, self.search, effort.candidates)
        n_found = max(len(found), 1)
        each = sum(shares[trial.number] for trial in found.values()) / n_found
        baseline = shares[self.search.baseline.number] if self.search.baseline else each
        runs = len(found) * effort.select_seeds + N_RATES * effort.sweep_seeds + 3 * effort.final_seeds
        total = each * runs + baseline * (effort.select_seeds + effort.final_seeds)
        return OVERHEAD * total / self.n_trainers

    def _select(self, phase: State) -> StagePlanned:
        effort = self.effort()
        chosen = {name: values_of(self.definition, t) for name, t in self._candidates(effort).items()}
        return self._stage(SELECT, chosen, effort.select_seeds, reduced(self.budget_s, effort))

    def _candidates(self, effort: Effort) -> Mapping[str, Trial]:
        found = candidates(self.definition, self.search, effort.candidates)
        return found if self.search.baseline is None else {**found, BASELINE: self.search.baseline}

    def _sweep(self, phase: State) -> StagePlanned:
        effort = self.effort()
        winner = phase.stages[SELECT].configurations[ranked(self.definition, phase, SELECT)[0]]
        configurations = unregularized(self.definition, winner)
        return self._stage(SWEEP, configurations, effort.sweep_seeds, "")

    def _final(self, phase: State) -> StagePlanned:
        chosen = {name: of_stages(phase)[name] for name in dict.fromkeys(roles(self.definition, phase).values())}
        n_seeds = self._affordable(phase, chosen)
        return self._stage(FINAL, chosen, n_seeds, "" if self.budget_s is None else told_power(n_seeds))

    def _affordable(self, phase: State, chosen: Mapping[str, Values]) -> int:
        """As many seeds as the rest of the budget leaves, at the pace of the stages before; 5 at least."""
        most, least = EFFORTS[0].final_seeds, EFFORTS[-1].final_seeds
        if self.budget_s is None:
            return most
        shares, left_s = trainer_seconds(phase), self.budget_s - self.elapsed_s()
        runs = {name: [t for t in phase.finished if t.configuration == name] for name in chosen}
        a_seed = sum(sum(shares[t.number] for t in of) / max(len(of), 1) for of in runs.values())
        n = left_s * self.n_trainers / (OVERHEAD * a_seed) if a_seed > 0 else most
        return max(least, min(most, int(n)))

    def _stage(self, stage: str, configurations: Mapping[str, Values], n_seeds: int, reduced: str) -> StagePlanned:
        return StagePlanned(
            at=self.clock(),
            stage=stage,
            configurations=configurations,
            seeds=fresh_seeds(self.definition.seed, f"{self.phase} {stage}", n_seeds),
            reduced=reduced,
        )


def candidates(definition: StudyDefinition, search: State, n: int) -> dict[str, Trial]:
    """The n best complete trials that differ in what is trained, best first, by name; the baseline under its own."""
    found: dict[str, Trial] = {}
    seen: list[Values] = []
    for trial in search.ranked(maximize=definition.maximize):
        values = values_of(definition, trial)
        if len(found) < n and values not in seen:
            seen.append(values)
            found[BASELINE if trial.baseline else f"trial {trial.number}"] = trial
    return found


def values_of(definition: StudyDefinition, trial: Trial) -> dict[str, Value]:
    """The effective value of every parameter of the space."""
    return {name: trial.hyperparameters[name] for name in definition.space}


def unregularized(definition: StudyDefinition, values: Values) -> dict[str, Values]:
    """The configuration with every declared regularizer off, at some learning rates around its own, by name.

    A study that does not search the learning rate has one.
    """
    plain = {name: turned_off(parameter, values[name]) for name, parameter in definition.space.items()}
    if "lr" not in definition.space:
        return {"unregularized": plain}
    lr = values["lr"]
    assert isinstance(lr, float | int), "learning rates are numbers"
    rates = [clipped(definition.space["lr"], lr * factor) for factor in FACTORS]
    distinct = list(dict.fromkeys(rates))[:N_RATES]
    return {f"unregularized, lr {rate:.3g}": plain | {"lr": rate} for rate in distinct}


def ranked(definition: StudyDefinition, phase: State, stage: str) -> list[str]:
    """The stage's configurations, best first, by the mean over its seeds; a run without a value is the worst there is.

    Source of the order among equals: as they were planned.
    """
    worst = float("-inf") if definition.maximize else float("inf")
    values = {
        name: [
            worst if trial.value is None else trial.value
            for trial in phase.trials.values()
            if (trial.stage, trial.configuration) == (stage, name)
        ]
        for name in phase.stages[stage].configurations
    }
    return ranking(values, maximize=definition.maximize)


def of_stages(phase: State) -> dict[str, Values]:
    """Every configuration that the phase has trained, by name."""
    return {name: values for stage in phase.stages.values() for name, values in stage.configurations.items()}


def roles(definition: StudyDefinition, phase: State) -> dict[str, str]:
    """Winner, runner-up, baseline and unregularized: the names of the final's configurations. Equal ones share a name.

    Needs the first two stages to be through. There is no runner-up where the search completed one configuration.
    """
    first, *others = ranked(definition, phase, SELECT)
    found = {"winner": first} | ({"runner-up": others[0]} if others else {})
    if BASELINE in phase.stages[SELECT].configurations:
        found[BASELINE] = BASELINE
    found["unregularized"] = ranked(definition, phase, SWEEP)[0]
    known = of_stages(phase)
    names: list[str] = []
    for role, name in found.items():
        same = next((each for each in names if known[each] == known[name]), name)
        names.append(same)
        found[role] = same
    return found


def reduced(budget_s: float | None, effort: Effort) -> str:
    """What a budget took away, in words; empty if nothing."""
    if effort == EFFORTS[0]:
        return ""
    numbers = zip(
        ("configurations", "seeds to choose among them", "seeds a learning rate"),
        astuple(effort)[:3],  # how many compare the final four is decided, and told, when the time left is known
        astuple(EFFORTS[0])[:3],
        strict=True,
    )
    told = ", ".join(f"{name} {now} of {full}" for name, now, full in numbers if now < full)
    return f"A budget of {minutes(budget_s or 0)} leaves: {told}."


def minutes(seconds: float) -> str:
    """A time for people."""
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def told_power(n_seeds: int) -> str:
    """How sure n + n seeds would find an effect that the full effort is meant to find."""
    full = EFFORTS[0].final_seeds
    if n_seeds >= full:
        return ""
    return (
        f"{n_seeds} seeds in place of {full}: an effect of {EFFECT} deviations between seeds is found in "
        f"{power(n_seeds, effect=EFFECT):.0%} of all cases, with {full} in {power(full, effect=EFFECT):.0%}."
    )
