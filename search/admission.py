"""Which trial of a search comes next, and on which trainer: those that wait first, then what the sampler draws.

Where a population has room, what is drawn next is given its structure, within limits that keep the search as good as
with one trial at a time (tests/benchmarks/README.md).
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from search import definition as definitions
from search.asking import Asking
from search.cohort import TrainerLoad, idle, place, refill
from search.contract import Capacity, HyperparameterRule, Value
from search.definition import StudyDefinition, hyperparameters
from search.events import TrialAsked
from search.flight import foreseen, most_in_flight, slots_wanted
from search.pruning import survived
from search.sampling import Sampling
from search.state import State, Trial

DEBT_SHARE = 25
"""One in so many may be given a structure beyond those the sampler drew with it, and no more than have survived the
first rung with it: the more are pruned, the more room there is, and it would be filled with what is pruned again."""


class Admission(Protocol):
    """Adds trials and finds places for them. Whoever takes them starts them in the state before the next."""

    capacity: dict[str, int]
    """Structure -> the most slots of a population, as far as it is known."""

    @property
    def asks(self) -> bool:
        """Whether the next trial is being made at this moment."""

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will be added."""

    def fill(self, loads: Callable[[], Sequence[TrainerLoad]]) -> Iterator[tuple[Trial, int]]:
        """Yield trials with the trainer that takes each, as long as there are both: interrupted ones before all."""

    def structure(self, trial: Trial) -> str: ...

    def slots_wanted(self, capacity: Capacity) -> int:
        """Return how many slots of a structure are to train at once."""

    def tell(self, trial: Trial) -> None:
        """Hear of a finished trial."""

    def close(self) -> None:
        """Finish what was begun."""


def sampled(
    definition: StudyDefinition,
    state: State,
    rules: Mapping[str, HyperparameterRule],
    *,
    aside: bool,
    clock: Callable[[], float],
) -> Callable[[Callable[..., None]], Admission]:
    """What makes a search's admission, given how it records what it decides.

    Args:
        aside: the sampler works beside the coordinator (search/asking.py).
    """
    return lambda record: Sampled(
        definition=definition,
        state=state,
        rules=rules,
        asking=Asking(Sampling(definition, state), aside=aside),
        record=record,
        clock=clock,
    )


@dataclass(slots=True, kw_only=True)
class Sampled:
    """The trials of a search, which a sampler draws."""

    definition: StudyDefinition
    state: State
    rules: Mapping[str, HyperparameterRule]
    asking: Asking
    record: Callable[[TrialAsked], None]
    clock: Callable[[], float]
    capacity: dict[str, int] = field(default_factory=dict)
    """Structure -> the most slots of a population, as far as it is known."""
    _drawing: Future[dict[str, Value]] | None = None
    """The raw values of the next trial, while the sampler is at it and until it is wanted."""
    _debts: Counter[str] = field(default_factory=Counter)
    """Structure -> trials that were given it, less those the sampler drew with it."""
    _survivors: Counter[str] = field(default_factory=Counter)
    """Structure -> finished trials that had survived the first rung."""
    _shapes: dict[str, Mapping[str, Value]] = field(default_factory=dict)
    """Structure -> its raw values."""

    def __post_init__(self) -> None:
        for trial in self.state.trials.values():
            self._note(trial)
            if trial.outcome is not None:
                self._count(trial)

    @property
    def asks(self) -> bool:
        """Whether the sampler is at work."""
        return self._drawing is not None

    @property
    def exhausted(self) -> bool:
        return len(self.state.trials) >= self.definition.n_trials

    def fill(self, loads: Callable[[], Sequence[TrainerLoad]]) -> Iterator[tuple[Trial, int]]:
        while (yield from self._waiting(loads)) and not self.exhausted:
            waiting, now = self.state.waiting, loads()
            most = most_in_flight(self.definition, len(now), n_asked=len(self.state.trials))
            if len(waiting) + len(self.state.running) >= most:
                return
            held = self._to_hold(now, waiting)
            if held is None and place(None, alone=False, loads=now, capacity=self.capacity) is None:
                return
            if self._drawing is None:
                self._drawing = self.asking.ask(len(self.state.trials), self.state.running)
            if not self._drawing.done():
                return
            drawn, self._drawing = self._drawing.result(), None
            self._add(drawn, held)

    def structure(self, trial: Trial) -> str:
        return definitions.structure(trial.hyperparameters, self.rules)

    def slots_wanted(self, capacity: Capacity) -> int:
        return slots_wanted(self.definition, capacity)

    def tell(self, trial: Trial) -> None:
        self._count(trial)
        self.asking.tell(trial)

    def close(self) -> None:
        self.asking.close()

    def _waiting(self, loads: Callable[[], Sequence[TrainerLoad]]) -> Generator[tuple[Trial, int], None, bool]:
        """Yield what finds a place; return False if a trial is left that does not merely wait for its population."""
        in_training = {trial.attempts[-1].structure for trial in self.state.running}
        for trial in self.state.waiting:
            key = self.structure(trial)
            now = loads()
            ahead = trial.held and not trial.attempts and key in in_training and not idle(now)
            number = place(
                key,
                alone=trial.alone_next,
                loads=now,
                capacity=self.capacity,
                replicates=self.definition.n_replicates,
                joins=ahead,
            )
            if number is not None:
                yield trial, number
            elif not ahead:
                return False
        return True

    def _to_hold(self, loads: Sequence[TrainerLoad], waiting: Sequence[Trial]) -> str | None:
        if not self.asking.can_hold:
            return None
        most = foreseen(self.definition, len(self.state.trials)) // DEBT_SHARE
        survivors = self._survivors + Counter(
            self.structure(trial) for trial in self.state.running if survived(trial, self.definition)
        )
        return refill(
            loads,
            capacity=self.capacity,
            waiting=Counter(map(self.structure, waiting)),
            debts=self._debts,
            limits={structure: min(most, n) for structure, n in survivors.items()},
            replicates=self.definition.n_replicates,
        )

    def _add(self, drawn: Mapping[str, Value], structure: str | None) -> None:
        """Add the next trial as drawn; with the structure held, if one is given."""
        number = len(self.state.trials)
        held = {} if structure is None or number == 0 else self._shapes[structure]
        self.asking.hold(number, held)
        raw = {**drawn, **held}
        self.record(
            TrialAsked(
                at=self.clock(),
                trial=number,
                raw=raw,
                hyperparameters=hyperparameters(self.definition, raw, self.rules),
                baseline=number == 0,
                drawn={name: drawn[name] for name in held},
            )
        )
        self._note(self.state.trials[number])

    def _count(self, trial: Trial) -> None:
        if survived(trial, self.definition):
            self._survivors[self.structure(trial)] += 1

    def _note(self, trial: Trial) -> None:
        key = self.structure(trial)
        self._shapes[key] = {name: value for name, value in trial.raw.items() if self.rules[name].structural}
        if trial.drawn:
            drawn = hyperparameters(self.definition, {**trial.raw, **trial.drawn}, self.rules)
            self._debts[key] += 1
            self._debts[definitions.structure(drawn, self.rules)] -= 1
