"""The runs of a phase: stage after stage, each planned when all runs of the one before are through."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from search import definition as definitions
from search.cohort import TrainerLoad, place
from search.contract import Capacity, HyperparameterRule
from search.definition import StudyDefinition, hyperparameters
from search.events import StagePlanned, TrialAsked
from search.sampling import replicate_seeds
from search.space import raw_from
from search.state import State, Trial

Plan = Callable[[State], StagePlanned | None]
"""The next stage, from what the phase has found so far; None: it is through. Asked when nothing is in training."""


@dataclass(slots=True, kw_only=True)
class Planned:
    """Satisfies search.admission.Admission: every configuration of a stage with each of its seeds, all at once."""

    definition: StudyDefinition
    state: State
    """Of the phase."""
    rules: Mapping[str, HyperparameterRule]
    plan: Plan
    record: Callable[..., None]
    clock: Callable[[], float]
    seeds: Callable[[StudyDefinition, int], tuple[int, ...]] = replicate_seeds
    """The seeds of a run's replicates, from the stage's."""
    capacity: dict[str, int] = field(default_factory=dict)
    exhausted: bool = False

    @property
    def asks(self) -> bool:
        return False

    def fill(self, loads: Callable[[], Sequence[TrainerLoad]]) -> Iterator[tuple[Trial, int]]:
        while True:
            yield from self._waiting(loads)
            if self.exhausted or len(self.state.finish_order) < len(self.state.trials):
                return
            stage = self.plan(self.state)
            if stage is None:
                self.exhausted = True
                return
            self._add(stage)

    def structure(self, trial: Trial) -> str:
        return definitions.structure(trial.hyperparameters, self.rules)

    def slots_wanted(self, capacity: Capacity) -> int:
        return capacity.slots

    def tell(self, trial: Trial) -> None:
        """Nothing is learned from a run: what a stage found is in the state."""

    def close(self) -> None:
        """Nothing was begun."""

    def _waiting(self, loads: Callable[[], Sequence[TrainerLoad]]) -> Iterator[tuple[Trial, int]]:
        for trial in self.state.waiting:
            number = place(
                self.structure(trial),
                alone=trial.alone_next,
                loads=loads(),
                capacity=self.capacity,
                replicates=self.definition.n_replicates,
                spread=True,
            )
            if number is not None:
                yield trial, number

    def _add(self, stage: StagePlanned) -> None:
        runs = [(name, seed) for name in stage.configurations for seed in stage.seeds]
        first, now = len(self.state.trials), self.clock()
        raws = {name: raw_from(self.definition.space, values) for name, values in stage.configurations.items()}
        self.record(
            stage,
            *(
                TrialAsked(
                    at=now,
                    trial=number,
                    raw=raws[name],
                    hyperparameters=hyperparameters(self.definition, raws[name], self.rules),
                    baseline=False,
                    stage=stage.stage,
                    configuration=name,
                    seeds=self.seeds(self.definition, seed),
                )
                for number, (name, seed) in enumerate(runs, start=first)
            ),
        )
