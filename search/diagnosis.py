"""What a learning curve says: one label, the numbers that it rests on, and what to do about it. Pure.

Rules in this order, the first that holds wins; thresholds were set on the labelled curves of three data sets and scored
on those of others (tests/test_diagnosis.py). Losses are compared with each other only, so their unit does not matter.
Source: Goodfellow, Bengio, Courville (2016), "Deep Learning", chapters 5.2, 7 and 11.4; the remedies are theirs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from search.contract import Confusion

Label = Literal["diverged", "stalled", "overfit", "underfit", "still improving", "healthy"]
Metrics = Mapping[str, float]
"""One epoch's, by name: train_loss, val_loss, train_accuracy, val_accuracy, val_loss_se; any may be absent."""
REMEDIES: Mapping[Label, str] = {
    "diverged": "Lower the learning rate, a tenth at a time, warm it up or clip the gradient; normalize the inputs.",
    "stalled": "Raise the learning rate, or lower it where the loss rose; check inputs, labels and initial weights.",
    "overfit": "Regularize more, add data or augmentation, take a smaller network, or stop at the best epoch.",
    "underfit": "Take a larger network or better features, and regularize less.",
    "still improving": "Train for more epochs, or raise the learning rate: the budget was the limit.",
    "healthy": "Nothing is wrong; what is left to gain lies in more data or another kind of network.",
}
EXPLOSION = 10.0
"""A loss above so many times the untrained network's (or the class prior's, if that is more) has exploded."""
DOUBLED, N_LAST = 2.0, 3
"""Training losses all above so many times the first, over so many last epochs, are no spike."""
LOST = 0.5
"""Nor are they where so much of what was once gained is lost in all of them."""
MOVED = 0.001
"""A training loss that never fell by this part of the first has not moved."""
ABOVE_BEST = 0.05
"""How far above its best, as a part of it, a validation loss ends that overfits."""
N_ERRORS = 2.0
"""Standard errors beyond which a difference is more than chance."""
POINTS = 0.02
"""Of accuracy: a difference between trials, or between training and validation, that is small."""
PART = 0.1
"""The same of losses, as a part of the trial's lowest, where there is no accuracy."""
SHARE = 0.5
"""Of how far a trial is behind the study's best: a gap between training and validation that is small beside it."""
LATE_GAIN = 0.01
"""Of the whole gain: more in the last fifth of the epochs, and the budget was the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    label: Label
    evidence: str
    """The numbers, in words."""
    so_far: bool = False
    """The trial did not reach its last epoch."""

    @property
    def remedy(self) -> str:
        return REMEDIES[self.label]

    @property
    def told(self) -> str:
        """Label, evidence and remedy as sentences."""
        return f"{self.label}{' so far' if self.so_far else ''}: {self.evidence}. {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Yardstick:
    """What a trial is compared with; None where it is unknown."""

    n_validation: int | None = None
    majority: float | None = None
    """The share of the largest class: the accuracy of who always names it."""
    prior_loss: float | None = None
    """The loss of who knows the classes' shares alone."""
    best_loss: float | None = None
    """The study's lowest validation loss."""
    best_accuracy: float | None = None
    """The study's highest validation accuracy."""
    held_out: bool = True
    """Validation examples stand for new ones; else they are trained on, and their losses are no sample of anything."""


def diagnose(epochs: Sequence[Metrics], yardstick: Yardstick, *, so_far: bool = False) -> Diagnosis | None:
    """Diagnose a trial from its epochs, the untrained network's first.

    None where there is nothing to read: no epoch was trained, or neither loss is reported.
    """
    curves = Curves.of(epochs, held_out=yardstick.held_out)
    if len(epochs) < 2 or not (curves.train_loss or curves.val_loss):
        return None
    for label, rule in RULES:
        if (evidence := rule(curves, yardstick)) is not None:
            return Diagnosis(label=label, evidence=evidence, so_far=so_far)
    return Diagnosis(label="healthy", evidence=_calm(curves), so_far=so_far)


def exploded(loss: float, first: float, prior_loss: float | None) -> bool:
    """Whether a loss is EXPLOSION times what the network began with; without a scale to measure it, it is not."""
    known = [abs(loss) for loss in (first, prior_loss) if loss is not None and math.isfinite(loss)]
    scale = max(known, default=0.0)
    return scale > 0 and loss > EXPLOSION * scale


def prior_loss(counts: Confusion) -> float | None:
    """The cross-entropy of who knows the classes' shares alone, of counts by true class; None without any."""
    total = sum(map(sum, counts))
    return -math.fsum(sum(row) / total * math.log(sum(row) / total) for row in counts if sum(row)) if total else None


def not_finite(metrics: Metrics) -> str | None:
    """The name of a loss that is NaN or infinite, if there is one."""
    return next((name for name, value in metrics.items() if name.endswith("loss") and not math.isfinite(value)), None)


# ---------------------------------------------------------------- the rules


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """What was reported at each epoch from 0 on; empty where it never was."""

    train_loss: Sequence[float]
    val_loss: Sequence[float]
    train_accuracy: Sequence[float]
    val_accuracy: Sequence[float]
    errors: Sequence[float]
    """The standard error of each change of the validation loss."""
    broken: str
    """Which loss is not finite first, and when; empty if none is."""

    @staticmethod
    def of(epochs: Sequence[Metrics], *, held_out: bool) -> "Curves":
        def series(name: str) -> Sequence[float]:
            return [each.get(name, math.nan) for each in epochs] if any(name in each for each in epochs) else ()

        broken = ((name, epoch) for epoch, each in enumerate(epochs) if (name := not_finite(each)) is not None)
        name, epoch = next(broken, ("", 0))
        val_loss = series("val_loss")
        jitter = math.sqrt(2) * _jitter(val_loss) if held_out else 0.0
        return Curves(
            train_loss=series("train_loss"),
            val_loss=val_loss,
            train_accuracy=series("train_accuracy"),
            val_accuracy=series("val_accuracy"),
            errors=(held_out and series("val_loss_se")) or [jitter] * len(val_loss),
            broken=f"{name} was not finite at epoch {epoch}" if name else "",
        )

    @property
    def learned(self) -> Sequence[float]:
        """The losses that training lowers, or, where they are not reported, those on the validation set."""
        return self.train_loss or self.val_loss

    @property
    def best(self) -> int:
        """The epoch of the lowest validation loss."""
        return min(range(len(self.val_loss)), key=self.val_loss.__getitem__, default=0)

    @property
    def n_late(self) -> int:
        """How many epochs the last fifth has."""
        return max(1, round((len(self.val_loss) - 1) / 5))

    @property
    def late_gain(self) -> float:
        """How much lower the validation loss got in them."""
        return min(self.val_loss[: -self.n_late]) - min(self.val_loss)


def _diverged(curves: Curves, yardstick: Yardstick) -> str | None:
    if curves.broken:
        return curves.broken
    losses, prior = curves.learned, yardstick.prior_loss
    first, last, highest, least = losses[0], losses[-1], max(losses[1:]), min(losses[1:][-N_LAST:])
    nothing = (1 - MOVED) * min(first, first if prior is None else prior)
    if least - first > (DOUBLED - 1) * abs(first) or (exploded(highest, first, prior) and last > nothing):
        return f"the training loss rose from {_told(first)} to {_told(highest)} and ended at {_told(last)}"
    if first - least < (1 - LOST) * (first - min(losses)) and first > min(losses):
        return f"the training loss fell from {_told(first)} to {_told(min(losses))}, but ended at {_told(last)}"
    if curves.val_loss and exploded(min(curves.val_loss[1:][-N_LAST:]), curves.val_loss[0], prior):
        return f"the validation loss rose from {_told(curves.val_loss[0])} and ended at {_told(curves.val_loss[-1])}"
    return None


def _stalled(curves: Curves, yardstick: Yardstick) -> str | None:
    losses = curves.learned
    first, least = losses[0], min(losses[1:])
    if first - least > MOVED * abs(first):
        return None
    told = f"the training loss began at {_told(first)} and never fell below {_told(least)}"
    if not curves.val_accuracy:
        return told
    chance, last = max(curves.val_accuracy[0], yardstick.majority or 0.0), curves.val_accuracy[-1]
    if last > chance + N_ERRORS * _accuracy_error(chance, yardstick):
        return None
    return f"{told}; validation accuracy is {_percent(last)}, and {_percent(chance)} without training"


def _overfit(curves: Curves, yardstick: Yardstick) -> str | None:
    best = curves.best
    after = slice(max(best + 1, len(curves.val_loss) - N_LAST), None)
    if not curves.val_loss[after]:
        return None
    lowest, final, error = curves.val_loss[best], median(curves.val_loss[after]), median(curves.errors[after])
    if not (final - lowest > ABOVE_BEST * abs(lowest) and final - lowest > N_ERRORS * error):
        return None
    told = (
        f"the validation loss ended at {_told(final)}, {_ratio(final - lowest, lowest)} above its best, "
        f"{_told(lowest)} at epoch {best}"
    )
    if not curves.train_loss:
        return told
    before, fallen = curves.train_loss[best], median(curves.train_loss[after])
    return f"{told}, while the training loss fell from {_told(before)} to {_told(fallen)}" if fallen < before else None


def _underfit(curves: Curves, yardstick: Yardstick) -> str | None:
    if _improving(curves, yardstick) is not None:
        return None
    if curves.val_accuracy and curves.train_accuracy and yardstick.best_accuracy is not None:
        own, best = max(curves.val_accuracy), yardstick.best_accuracy
        behind, gap = best - own, _last(curves.train_accuracy) - _last(curves.val_accuracy)
        least = max(POINTS, N_ERRORS * math.sqrt(2) * _accuracy_error(own, yardstick))
        if behind > least and gap <= max(POINTS, SHARE * behind):
            return (
                f"validation accuracy {_percent(own)} is far from the study's best, {_percent(best)}, and accuracy on "
                f"the training set is no better: {_percent(_last(curves.train_accuracy))}"
            )
    elif not curves.val_accuracy and curves.val_loss and curves.train_loss and yardstick.best_loss is not None:
        own, best = min(curves.val_loss), yardstick.best_loss
        behind, gap = own - best, _last(curves.val_loss) - _last(curves.train_loss)
        if behind > PART * abs(own) and gap <= max(PART * abs(own), SHARE * behind):
            return (
                f"the validation loss {_told(own)} is far from the study's best, {_told(best)}, and the training loss "
                f"is no better: {_told(_last(curves.train_loss))}"
            )
    return None


def _improving(curves: Curves, yardstick: Yardstick) -> str | None:
    if not curves.val_loss:
        return None
    losses, late, whole = curves.val_loss, curves.late_gain, curves.val_loss[0] - min(curves.val_loss)
    early = len(losses) - curves.n_late
    error = sum(curves.errors[k] for k in range(early, len(losses)) if losses[k] < min(losses[:k]))
    if late > LATE_GAIN * whole and late > N_ERRORS * error:
        return f"{_ratio(late, whole)} of what the validation loss gained came in the last fifth of the epochs"
    return None


def _calm(curves: Curves) -> str:
    if not curves.val_loss:
        return f"the training loss fell from {_told(curves.train_loss[0])} to {_told(curves.train_loss[-1])}"
    lowest = min(curves.val_loss)
    above, whole = curves.val_loss[-1] - lowest, curves.val_loss[0] - lowest
    return (
        f"the validation loss ended {_ratio(above, lowest)} above its best, {_told(lowest)} at epoch {curves.best}; "
        f"{_ratio(curves.late_gain, whole)} of what it gained came in the last fifth of the epochs"
        f"{', which may be chance' if curves.late_gain > LATE_GAIN * whole else ''}"
    )


Rule = Callable[[Curves, Yardstick], str | None]
RULES: Sequence[tuple[Label, Rule]] = (
    ("diverged", _diverged),
    ("stalled", _stalled),
    ("overfit", _overfit),
    ("underfit", _underfit),
    ("still improving", _improving),
)


def _jitter(values: Sequence[float]) -> float:
    """The deviation of the noise in a curve's second half, robust: second differences know no trend; 0 without any.

    Source: Gasser, Sroka, Jennen-Steinmetz (1986), "Residual variance and residual pattern in nonlinear regression".
    """
    bends = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return median(bends[len(bends) // 2 :]) / (0.6745 * math.sqrt(6)) if bends else 0.0


def _accuracy_error(accuracy: float, yardstick: Yardstick) -> float:
    """The standard error of an accuracy; 0 where the number of examples is unknown."""
    return math.sqrt(max(0.0, accuracy * (1 - accuracy)) / yardstick.n_validation) if yardstick.n_validation else 0.0


def _last(values: Sequence[float]) -> float:
    """Where a curve ends, a single odd epoch apart."""
    return median(values[1:][-N_LAST:])


def _told(value: float) -> str:
    return f"{value:.4g}"


def _percent(value: float) -> str:
    return f"{value * 100:.1f} %"


def _ratio(part: float, of: float) -> str:
    return f"{part / abs(of) * 100:.3g} %" if of else _told(part)
