"""Which trials end at a report, and how: divergence, the last epoch, patience, successive halving. Pure.

Source: Li et al. (2020), "A system for massively parallel hyperparameter tuning" (ASHA); here all values recorded at
a rung are compared, those of the same report included, so that the order of a report's trials means nothing.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from search.definition import Pruning, StudyDefinition
from search.diagnosis import exploded, not_finite, prior_loss
from search.state import State, Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a trial ends."""

    outcome: Literal["complete", "pruned"]
    reason: Literal["epochs", "patience", "rung", "diverged"]
    value: float | None
    """The metric at its best epoch; None where no epoch gave a finite one."""
    best_epoch: int | None


def decide(state: State, trials: Collection[int], definition: StudyDefinition) -> dict[int, Decision]:
    """Return how each of the trials that end now ends; those that go on are absent.

    Called when the state holds all slots of one report. The baseline is never ended by a rung or by patience, but its
    values count; when it diverges it ends like any other, since nothing can be learnt from going on.
    """
    bars: dict[int, float] = {}
    decisions = {}
    for number in trials:
        trial = state.trials[number]
        epoch = trial.reports[-1].epoch if trial.reports else 0
        if epoch == 0:
            continue
        if epoch in rungs(definition.pruning, epochs=definition.epochs) and epoch not in bars:
            bars[epoch] = _bar(state, epoch, definition)
        ending = _ending(trial, epoch, bars.get(epoch), definition)
        if ending is not None:
            outcome, reason = ending
            best_epoch, value = _best(trial, definition) or (None, None)
            decisions[number] = Decision(outcome=outcome, reason=reason, value=value, best_epoch=best_epoch)
    return decisions


def rungs(pruning: Pruning, *, epochs: int) -> tuple[int, ...]:
    """The epochs, ascending, after which successive halving compares: min_epochs * eta**k below `epochs`."""

    def below() -> Iterator[int]:
        rung = pruning.min_epochs
        while rung < epochs:
            yield rung
            rung *= pruning.eta

    return tuple(below()) if pruning.kind == "successive_halving" else ()


def survived(trial: Trial, definition: StudyDefinition) -> bool:
    """Whether a trial went on after the first rung; after its first epoch, where there are no rungs."""
    first = min(rungs(definition.pruning, epochs=definition.epochs), default=0)
    return bool(trial.reports) and trial.reports[-1].epoch > first


def has_diverged(trial: Trial) -> bool:
    """Whether the last report shows that training broke down.

    Any metric whose name ends in "loss" is not finite, or `train_loss` has exploded: whatever follows, the trial would
    be diagnosed `diverged`, unless it recovers. A NaN check alone does not find divergence: a network can swing between
    huge losses for ever. An objective without such metrics never diverges.
    """
    metrics, untrained = trial.reports[-1].metrics, trial.reports[0]
    if not_finite(metrics):
        return True
    first = untrained.metrics.get("train_loss", math.nan) if untrained.epoch == 0 else math.nan
    return exploded(metrics.get("train_loss", 0.0), first, prior_loss(untrained.confusion or ()))


Ending = tuple[Literal["complete", "pruned"], Literal["epochs", "patience", "rung", "diverged"]]


def _ending(trial: Trial, epoch: int, bar: float | None, definition: StudyDefinition) -> Ending | None:
    if definition.stop_diverged and has_diverged(trial):
        return "pruned", "diverged"
    if epoch >= definition.epochs:
        return "complete", "epochs"
    if trial.baseline:
        return None
    best_epoch, _ = _best(trial, definition) or (0, None)
    patience = definition.pruning.patience
    if patience is not None and epoch - best_epoch >= patience:
        return "complete", "patience"
    if bar is not None and _score(trial, epoch, definition) < bar:
        return "pruned", "rung"
    return None


def _bar(state: State, rung: int, definition: StudyDefinition) -> float:
    """The least score that survives a rung: fewer than max(1, n // eta) of the n recorded are strictly better."""
    scores = sorted(
        _score(trial, rung, definition)
        for trial in state.trials.values()
        if trial.reports and trial.reports[-1].epoch >= rung
    )
    return scores[-max(1, len(scores) // definition.pruning.eta)]


def _score(trial: Trial, epoch: int, definition: StudyDefinition) -> float:
    """The best value so far, made so that more is better; minus infinity without a finite one."""
    best = trial.best(definition.metric, maximize=definition.maximize, until=epoch)
    if best is None:
        return -math.inf
    return best[1] if definition.maximize else -best[1]


def _best(trial: Trial, definition: StudyDefinition) -> tuple[int, float] | None:
    return trial.best(definition.metric, maximize=definition.maximize)
