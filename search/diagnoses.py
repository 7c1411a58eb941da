"""The diagnoses of a study: what its trials are compared with, kept up to date as more of them finish."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from search.diagnosis import REMEDIES, Diagnosis, Yardstick, diagnose, prior_loss
from search.events import EpochReported
from search.state import State, Trial


class Diagnoses:
    """Remembers what was found in a study that grows, since a view asks again and again."""

    def __init__(self) -> None:
        self._best = Yardstick()
        self._found: dict[int, Diagnosis | None] = {}
        self._n_seen = 0

    def of(self, state: State) -> Mapping[int, Diagnosis | None]:
        """Every finished trial's; of one that did not complete, so far. None without a trained epoch.

        Args:
            state: of the study that was asked about before, with at least the trials that were finished then.
        """
        new = [state.trials[number] for number in state.finish_order[self._n_seen :]]
        self._n_seen += len(new)
        if new and (best := _better(self._best, new)) != self._best:
            self._best, new = best, state.finished
        for trial in new:
            so_far = trial.outcome != "complete"
            self._found[trial.number] = _diagnosis(trial.reports, state, self._best, so_far=so_far)
        return self._found


def interrupted(reports: Sequence[EpochReported], state: State) -> Diagnosis | None:
    """Diagnose an attempt that ended without a result, by itself: what others reach later changes nothing."""
    return _diagnosis(reports, state, Yardstick(), so_far=True)


def counted(found: Iterable[Diagnosis | None]) -> str:
    """How often each label was given, in words; empty if none was."""
    counts = Counter(each.label for each in found if each is not None)
    return ", ".join(f"{counts[label]} {label}" for label in REMEDIES if counts[label])


def _better(best: Yardstick, finished: Iterable[Trial]) -> Yardstick:
    """The best of what was reached before and by these."""
    epochs = [report.metrics for trial in finished for report in trial.reports]
    losses, accuracies = _finite(epochs, "val_loss"), _finite(epochs, "val_accuracy")
    return Yardstick(
        best_loss=min(_known(best.best_loss, losses), default=None),
        best_accuracy=max(_known(best.best_accuracy, accuracies), default=None),
    )


def _diagnosis(reports: Sequence[EpochReported], state: State, best: Yardstick, *, so_far: bool) -> Diagnosis | None:
    counts = next((report.confusion for report in reports if report.confusion is not None), ())
    compared = replace(
        best,
        held_out=state.measured_on != "train",
        n_validation=state.created.facts.get("n_validation") if state.created else None,
        majority=max(map(sum, counts)) / sum(map(sum, counts)) if counts else None,
        prior_loss=prior_loss(counts),
    )
    return diagnose([report.metrics for report in reports], compared, so_far=so_far)


def _known(before: float | None, values: Iterator[float]) -> Iterator[float]:
    return values if before is None else chain((before,), values)


def _finite(epochs: Iterable[Mapping[str, float]], name: str) -> Iterator[float]:
    return (each[name] for each in epochs if math.isfinite(each.get(name, math.nan)))
