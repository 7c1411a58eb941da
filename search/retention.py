"""Which trials keep their weights on disk, and which of them is the champion: pure functions of the state."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from search.definition import StudyDefinition
from search.state import State, Trial


class Retention(Protocol):
    """What a coordinator keeps of its trials."""

    def keeps(self, trial: Trial, value: float | None, state: State) -> bool:
        """Whether a trial that completes with this value keeps its weights."""

    def overtaken(self, state: State) -> list[Trial]:
        """The trials whose weights are on disk and no longer wanted."""

    def champion(self, state: State) -> Trial | None:
        """The trial whose network is to be exported next."""


@dataclass(frozen=True, slots=True)
class OfTheBest:
    """A search keeps the weights of its best trials, and exports the first of them."""

    definition: StudyDefinition

    def keeps(self, trial: Trial, value: float | None, state: State) -> bool:
        return keeps_weights(value, self.definition, state)

    def overtaken(self, state: State) -> list[Trial]:
        return overtaken(self.definition, state)

    def champion(self, state: State) -> Trial | None:
        return unexported_champion(self.definition, state)


@dataclass(frozen=True, slots=True)
class OfStage:
    """A phase keeps the weights of one stage's trials: whoever measures them removes them."""

    stage: str

    def keeps(self, trial: Trial, value: float | None, state: State) -> bool:
        return trial.stage == self.stage and value is not None

    def overtaken(self, state: State) -> list[Trial]:
        return []

    def champion(self, state: State) -> Trial | None:
        return None


def keeps_weights(value: float | None, definition: StudyDefinition, state: State) -> bool:
    """Whether a trial that completes with this value is among the best that keep their weights."""
    if value is None or definition.checkpoints == 0:
        return False
    kept = state.ranked(maximize=definition.maximize)[: definition.checkpoints]
    if len(kept) < definition.checkpoints:
        return True
    last = kept[-1].value
    assert last is not None, "ranked trials have a value"
    return value > last if definition.maximize else value < last


def overtaken(definition: StudyDefinition, state: State) -> list[Trial]:
    """The trials that have weights on disk and are no longer among the best."""
    ranked = state.ranked(maximize=definition.maximize)
    return [trial for trial in ranked[definition.checkpoints :] if trial.checkpoint is not None]


def unexported_champion(definition: StudyDefinition, state: State) -> Trial | None:
    """The study's best trial, where it has weights and its network has not been exported yet."""
    best = next(iter(state.ranked(maximize=definition.maximize)), None)
    if best is None or best.checkpoint is None:
        return None
    return None if state.exported is not None and state.exported.trial == best.number else best


def model_path(trial: Trial) -> Path:
    """Where the exported network of a trial lies, relative to the study's folder."""
    return Path(f"models/trial-{trial.number:05d}.pt2")
