"""What trials that have not trained to their end promise, so that the sampler learns from them.

Optuna's TPE counts every trial in training among the bad ones: with many in flight, those that do best are held
against their own neighborhood. Optuna's Gaussian process does not see pruned trials, which are most of a study. Here
such trials count as complete with the value that their curves promise.
"""

import math
from collections import defaultdict
from collections.abc import Container, Mapping
from copy import copy
from dataclasses import dataclass, field

from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from search.state import Trial


@dataclass(slots=True, kw_only=True)
class Promises:
    """What the complete trials still gained after each epoch, learned as they end."""

    metric: str
    maximize: bool
    _gains: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def learn(self, trial: Trial) -> None:
        """Take in a complete trial: its value, against its best until each epoch."""
        if trial.value is None or not math.isfinite(trial.value):
            return
        for epoch in range(1, max((report.epoch for report in trial.reports), default=0) + 1):
            if best := self._best(trial, until=epoch):
                self._gains[epoch].append(trial.value - best)

    def of(self, trial: Trial) -> float | None:
        """Return its best value so far and the mean of what complete trials gained from its epoch on; None: unknown."""
        epoch = max((report.epoch for report in trial.reports), default=0)
        best, gains = self._best(trial, until=epoch), self._gains.get(epoch)
        return best + math.fsum(gains) / len(gains) if best is not None and gains else None

    def _best(self, trial: Trial, *, until: int) -> float | None:
        found = trial.best(self.metric, maximize=self.maximize, until=until)
        return None if found is None else found[1]


class PromisingStorage(InMemoryStorage):
    """Optuna's storage in memory, of one study, in which trials that promise something look complete."""

    def __init__(self) -> None:
        super().__init__()
        self._promised: dict[int, FrozenTrial] = {}

    def promise(self, study_id: int, values: Mapping[int, float]) -> None:
        """Let these trials in training or pruned, by number, be seen with these values, until the next call."""
        self._promised = {}
        unfinished = (TrialState.RUNNING, TrialState.PRUNED)
        for trial in super().get_all_trials(study_id, deepcopy=False, states=unfinished):
            if trial.number in values:
                seen = self._promised[trial.number] = copy(trial)
                seen.state, seen.value = TrialState.COMPLETE, values[trial.number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if not self._promised:
            return super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        trials = super().get_all_trials(study_id, deepcopy=deepcopy, states=None)
        for number, seen in self._promised.items():
            trials[number] = seen
        return [trial for trial in trials if states is None or trial.state in states]
