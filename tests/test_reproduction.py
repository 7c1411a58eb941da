"""Claims of search/reproduction.py: identical, equal up to rounding, or different, and why."""

import math
from collections.abc import Mapping

import pytest

from search.events import AttemptStarted, EpochReported, Event, TrialAsked
from search.reproduction import SPREAD, Reproduction, Verdict, compared
from search.state import Trial, fold
from tests.studies import definition

CURVE = {0: (2.3, 0.1), 1: (1.5, 0.45), 2: (1.2, 0.55)}
"""Epoch -> loss, accuracy."""


def trial_of(curve: Mapping[int, tuple[float, float]]) -> Trial:
    events: list[Event] = [
        TrialAsked(at=0, trial=0, raw={}, hyperparameters={}, baseline=False),
        AttemptStarted(at=0, trial=0, attempt=1, trainer=0, device="cpu", structure="", alone=False),
        *(
            EpochReported(at=1, trial=0, attempt=1, epoch=e, metrics={"val_loss": loss, "val_accuracy": accuracy})
            for e, (loss, accuracy) in curve.items()
        ),
    ]
    return fold(events).trials[0]


def found(again: Mapping[int, tuple[float, float]], before: Mapping[int, tuple[float, float]] = CURVE) -> Reproduction:
    return compared(definition(), trial_of(before), trial_of(again), precision="float32")


@pytest.mark.parametrize(
    ("again", "verdict", "why"),
    [
        (CURVE, "identical", "all 3 measured epochs"),
        (CURVE | {3: (1.0, 0.6)}, "identical", "all 3 measured epochs"),
        (CURVE | {1: (1.5000001, 0.45)}, "equal up to rounding", "epoch 2"),
        (CURVE | {2: (1.2, 0.55 + 0.9 * SPREAD["float32"])}, "equal up to rounding", "epoch 2"),
        (CURVE | {2: (1.2, 0.55 + 1.1 * SPREAD["float32"])}, "different", "rounding alone explains 0.90 %"),
        (CURVE | {0: (2.31, 0.1)}, "different", "the untrained networks differ already: val_loss 2.3 before, 2.31 now"),
        (CURVE | {2: (math.nan, math.nan)}, "different", "now"),
        ({0: CURVE[0]}, "different", "no epoch that both have"),
    ],
)
def test_verdict_follows_from_the_curves(again: Mapping[int, tuple[float, float]], verdict: Verdict, why: str) -> None:
    told = found(again)
    assert told.verdict == verdict
    assert why in told.why


def test_curves_that_diverge_alike_are_the_same() -> None:
    diverged = CURVE | {2: (math.nan, 0.1)}
    assert found(diverged, diverged).verdict == "identical"
    assert found(CURVE | {2: (math.inf, math.nan)}, CURVE | {2: (math.nan, math.nan)}).verdict == "equal up to rounding"


def test_losses_are_compared_as_a_part_of_themselves() -> None:
    study = definition(metric="val_loss", direction="minimize")
    for factor, verdict in ((1.04, "equal up to rounding"), (1.06, "different")):
        again = trial_of(CURVE | {2: (1.2 * factor, 0.55)})
        assert compared(study, trial_of(CURVE), again, precision="float32").verdict == verdict
