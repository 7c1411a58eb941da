"""What each regularizer of a confirmed winner does: the winner with it turned off, seed by seed, on validation. Pure.

Up to three active regularizers are tried in all combinations, so that their interactions are seen as well; of more,
each alone is turned off. The winner's own runs are those of the confirmation.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from search.conclusions import active, between
from search.confirmation import FINAL, OVERHEAD, Values, of_stages, roles
from search.cost import trainer_seconds
from search.definition import StudyDefinition
from search.events import StagePlanned
from search.result import difference
from search.space import turned_off
from search.state import State, Trial
from search.verdicts import Effect, effects, factorial

STAGE = "ablation"
N_SEEDS, LEAST_SEEDS = 10, 4
"""Of the winner's final seeds; what a budget leaves at least."""
N_FACTORIAL = 3
"""Up to so many active regularizers all combinations are trained."""
POINTS, SHARE = 0.005, 0.01
"""Within so much two values are as good as equal: of an accuracy; of other metrics, a part of the winner's mean."""
Off = frozenset[str]
"""The regularizers that are turned off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationPlan:
    """Satisfies search.planned.Plan."""

    definition: StudyDefinition
    search: State
    confirmation: str
    """The phase whose winner is taken apart."""
    n_trainers: int = 1
    budget_s: float | None = None
    clock: Callable[[], float] = lambda: 0.0

    def __call__(self, phase: State) -> StagePlanned | None:
        configurations = self.configurations()
        if STAGE in phase.stages or not configurations:
            return None
        n = self.n_seeds()
        return StagePlanned(
            at=self.clock(),
            stage=STAGE,
            configurations=configurations,
            seeds=tuple(run.seeds[0] for run in self.winners_runs()[:n]),
            reduced="" if n >= N_SEEDS else f"{n} seeds in place of {N_SEEDS}.",
        )

    def configurations(self) -> dict[str, Values]:
        """What is trained, by name: the winner with some of its regularizers off."""
        values = self.winner()
        return {without(off): switched_off(self.definition, values, off) for off in subsets(self.active()) if off}

    def winner(self) -> Values:
        confirmed = self.search.phases[self.confirmation]
        return of_stages(confirmed)[roles(self.definition, confirmed)["winner"]]

    def active(self) -> list[str]:
        """The winner's regularizers that are on."""
        return active(self.definition, self.winner())

    def winners_runs(self) -> list[Trial]:
        """The winner's final runs that have a value, in the order of their seeds."""
        confirmed = self.search.phases[self.confirmation]
        name = roles(self.definition, confirmed)["winner"]
        return [
            run
            for run in confirmed.trials.values()
            if (run.stage, run.configuration) == (FINAL, name) and run.value is not None
        ]

    def n_seeds(self) -> int:
        """As many as the budget leaves at the pace of the confirmation."""
        most = min(N_SEEDS, len(self.winners_runs()))
        if self.budget_s is None:
            return most
        n = self.budget_s / max(self.expected_s(1), 1e-9)
        return max(min(LEAST_SEEDS, most), min(most, int(n)))

    def expected_s(self, n_seeds: int) -> float:
        """How long it takes with so many seeds, at the pace of the winner's runs."""
        shares = trainer_seconds(self.search.phases[self.confirmation])
        runs = self.winners_runs()
        each = fmean(shares[run.number] for run in runs) if runs else 0.0
        return OVERHEAD * each * len(self.configurations()) * n_seeds / self.n_trainers


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Effects are positive where a regularizer makes the metric better."""

    phase: str
    confirmation: str
    active: tuple[str, ...]
    effects: Mapping[str, Effect]
    """Of each active regularizer, turned off in the winner."""
    factorial: Mapping[Off, Effect]
    """Main effects and interactions, where all combinations were trained; else empty."""
    means: Mapping[str, float]
    """The metric of each configuration, the winner among them, over the seeds."""
    margin: float
    n_seeds: int
    reduced: tuple[str, ...]


def subsets(names: Sequence[str]) -> list[Off]:
    """What is turned off together: every set of up to three names, of more than three each name alone; and nothing."""
    sizes = range(len(names) + 1) if len(names) <= N_FACTORIAL else range(2)
    return [frozenset(chosen) for size in sizes for chosen in combinations(names, size)]


def phase_after(confirmation: str) -> str:
    """The name of the phase that takes a confirmation's winner apart: confirm-2 -> ablate-2."""
    return f"ablate-{confirmation.rpartition('-')[2]}"


def without(off: Off) -> str:
    return "without " + " and ".join(sorted(off))


def switched_off(definition: StudyDefinition, values: Values, off: Off) -> Values:
    """The configuration with some of its regularizers turned off."""
    return {name: turned_off(definition.space[name], value) if name in off else value for name, value in values.items()}


def ablated(plan: AblationPlan, phase: str) -> Ablation:
    """Draw the conclusions of an ablation whose runs are all through."""
    definition, state = plan.definition, plan.search.phases[phase]
    names, stage = plan.active(), state.stages[STAGE]
    own = {run.seeds[0]: run.value for run in plan.winners_runs()}
    values: dict[Off, list[float]] = {frozenset(): [_number(own[seed]) for seed in stage.seeds]}
    for off in subsets(names)[1:]:
        by_seed = {run.seeds[0]: run.value for run in state.trials.values() if run.configuration == without(off)}
        values[off] = [_number(by_seed.get(seed)) for seed in stage.seeds]
    mean = fmean(values[frozenset()])
    margin = POINTS if definition.metric.endswith("accuracy") else SHARE * abs(mean)
    alone = {name: values[frozenset({name})] for name in names}
    on = {frozenset(names) - off: found for off, found in values.items()}
    return Ablation(
        phase=phase,
        confirmation=plan.confirmation,
        active=tuple(names),
        effects=effects(values[frozenset()], alone, maximize=definition.maximize, margin=margin),
        factorial=factorial(on, maximize=definition.maximize, margin=margin) if 1 < len(names) <= N_FACTORIAL else {},
        means={without(off) if off else "winner": fmean(found) for off, found in values.items()},
        margin=margin,
        n_seeds=len(stage.seeds),
        reduced=(stage.reduced,) if stage.reduced else (),
    )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


# ---------------------------------------------------------------- in words


def sentences(definition: StudyDefinition, found: Ablation) -> list[str]:
    """What each regularizer does, a line each."""
    metric = definition.metric
    head = (
        f"What each of the winner's regularizers does, on {found.n_seeds} seeds ({metric}; how much better "
        "the winner is than without it; labels after Holm's correction):"
    )
    blocks = [_block(metric, head, found.effects)]
    if found.factorial:
        head = "In all combinations (main effects over all settings of the others, then interactions):"
        named = {" x ".join(sorted(names)): effect for names, effect in found.factorial.items()}
        blocks.append(_block(metric, head, named))
    return [*blocks, *found.reduced]


def _block(metric: str, head: str, found: Mapping[str, Effect]) -> str:
    width = max(map(len, found)) + 2
    return "\n".join([head, *(f"  {name + ':':<{width}}{_told(metric, effect)}" for name, effect in found.items())])


def _told(metric: str, effect: Effect) -> str:
    told_effect = f"{difference(metric, effect.paired.mean)} ({between(metric, effect.paired.interval)})"
    more = ""
    if effect.label == "no evidence" and effect.seeds_needed is not None:
        more = f": {effect.seeds_needed:,} seeds would be needed to see an effect of the margin"
    return f"{effect.label}, {told_effect}{more}"
