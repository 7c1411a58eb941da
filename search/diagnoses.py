"""The diagnoses of a study: what its trials are compared with, kept up to date as more of them finish."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from search.diagnosis import REMEDIES, Diagnosis, Yardstick, diagnose, prior_loss
from search.events import EpochReported
from search.state import State


class Diagnoses:
    """Remembers what was found, since a view asks again and again."""

    def __init__(self) -> None:
        self._best = Yardstick()
        self._found: dict[int, Diagnosis | None] = {}

    def of(self, state: State) -> Mapping[int, Diagnosis | None]:
        """Every finished trial's; of one that did not complete, so far. None without a trained epoch."""
        if (best := _best(state)) != self._best:
            self._best, self._found = best, {}
        for trial in state.finished:
            if trial.number not in self._found:
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


def _best(state: State) -> Yardstick:
    """The best that the study's finished trials reached."""
    epochs = [report.metrics for trial in state.finished for report in trial.reports]
    return Yardstick(
        best_loss=min(_finite(epochs, "val_loss"), default=None),
        best_accuracy=max(_finite(epochs, "val_accuracy"), default=None),
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


def _finite(epochs: Iterable[Mapping[str, float]], name: str) -> Iterator[float]:
    return (each[name] for each in epochs if math.isfinite(each.get(name, math.nan)))
