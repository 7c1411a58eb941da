"""What a learning curve says, scored on real curves that were labelled by how they were made (tests/curves.py)."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.diagnosis import REMEDIES, Yardstick, diagnose, exploded, not_finite, prior_loss
from tests.curves import CALIBRATED_ON, PATH, SERIES

Curve = Mapping[str, Any]
CURVES: Sequence[Curve] = json.loads(PATH.read_text())["curves"]
HALVES = {
    "calibrated on": [curve for curve in CURVES if curve["data"] in CALIBRATED_ON],
    "held out": [curve for curve in CURVES if curve["data"] not in CALIBRATED_ON],
}
RIGHT = {"calibrated on": (112, 112), "held out": (146, 148)}
"""Of so many curves, the thresholds as they were before the held-out half was looked at."""


def epochs_of(curve: Curve, *, without: Sequence[str] = ()) -> list[dict[str, float]]:
    names = [name for name in SERIES if name in curve and name not in without]
    return [dict(zip(names, values, strict=True)) for values in zip(*(curve[name] for name in names), strict=True)]


def yardstick_of(curve: Curve) -> Yardstick:
    """The curves of a data set are a study: its best is the best of them."""
    study = [other for other in CURVES if other["data"] == curve["data"]]
    counts = tuple((n,) for n in curve["class_counts"])
    return Yardstick(
        n_validation=curve["n_validation"],
        held_out=curve["validation"] != "train",
        majority=max(curve["class_counts"], default=0) / curve["n_validation"] or None,
        prior_loss=prior_loss(counts),
        best_loss=min(loss for other in study for loss in other["val_loss"] if math.isfinite(loss)),
        best_accuracy=max((best for other in study for best in other.get("val_accuracy", ())), default=None),
    )


def label_of(curve: Curve, *, without: Sequence[str] = ()) -> str:
    found = diagnose(epochs_of(curve, without=without), yardstick_of(curve))
    assert found is not None
    return found.label


def wrong(curves: Sequence[Curve], *, without: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """(data set, how it was labelled, what is said in its place)."""
    told = [(curve["data"], curve["label"], label_of(curve, without=without)) for curve in curves]
    return [each for each in told if each[1] != each[2]]


def test_the_curves_are_many_and_of_every_label_in_both_halves() -> None:
    assert len(CURVES) >= 120
    assert len({curve["data"] for curve in CURVES}) >= 4
    for half in HALVES.values():
        assert len(half) >= len(CURVES) / 3
        assert min(Counter(curve["label"] for curve in half)[label] for label in REMEDIES) >= 5


@pytest.mark.parametrize("half", HALVES)
def test_95_of_100_labels_are_right_and_of_diverged_and_stalled_all(half: str) -> None:
    mistakes, n = wrong(HALVES[half]), len(HALVES[half])
    assert (n - len(mistakes), n) == RIGHT[half], mistakes
    assert len(mistakes) <= 0.05 * n
    assert not [each for each in mistakes if {"diverged", "stalled"} & set(each)]


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("without", [("train_accuracy", "val_accuracy"), ("val_loss_se",)], ids=["accuracy", "errors"])
def test_without_accuracy_or_errors_reported_95_of_100_are_right(half: str, without: Sequence[str]) -> None:
    mistakes = wrong(HALVES[half], without=without)
    assert len(mistakes) <= 0.05 * len(HALVES[half]), mistakes


def test_softmax_regression_of_the_textbook_swings_and_never_becomes_nan_and_has_diverged() -> None:
    """Source of the costs: the textbook's notebook on learning rates, before each of 20 updates."""
    costs = {1e5: (1.280268, 1971322.625), 1e-10: (3.187324, 3.187324), 0.1: (1.341573, 0.961836)}
    labels = {1e5: "diverged", 1e-10: "stalled", 0.1: "still improving"}
    curves = {curve["hyperparameters"]["lr"]: curve for curve in CURVES if curve["data"] == "lr_softmax"}
    assert curves.keys() == costs.keys()
    for lr, curve in curves.items():
        assert (curve["train_loss"][0], curve["train_loss"][-1]) == pytest.approx(costs[lr], rel=5e-5)
        assert len(curve["train_loss"]) == 20
        assert all(map(math.isfinite, curve["train_loss"]))
        assert label_of(curve) == labels[lr]


def test_a_single_spike_that_recovers_is_no_divergence() -> None:
    spiked = [curve for curve in CURVES if "spoilt_at" in curve]
    assert len(spiked) >= 10
    for curve in spiked:
        prior = yardstick_of(curve).prior_loss or 0.0
        assert exploded(max(curve["train_loss"]), curve["train_loss"][0], prior), "a spike that deserves the name"
        assert label_of(curve) != "diverged"


def test_so_far_a_network_that_ends_healthy_was_still_improving() -> None:
    """After one epoch of many the budget was the limit, whatever comes later; unless it made the loss worse."""
    healthy = [curve for curve in CURVES if curve["label"] == "healthy" and curve["val_loss"][1] < curve["val_loss"][0]]
    assert len(healthy) > 60
    early = [diagnose(epochs_of(curve)[:2], yardstick_of(curve), so_far=True) for curve in healthy]
    assert {each.label for each in early if each} == {"still improving"}
    assert all(each.told.startswith("still improving so far: ") for each in early if each)


def test_the_best_of_a_study_never_underfits() -> None:
    for curve in CURVES:
        epochs, yardstick = epochs_of(curve), yardstick_of(curve)
        own = replace(
            yardstick,
            best_loss=min(curve["val_loss"]),
            best_accuracy=max(curve["val_accuracy"]) if "val_accuracy" in curve else None,
        )
        assert (found := diagnose(epochs, own)) is not None
        assert found.label != "underfit"


# ---------------------------------------------------------------- any numbers at all

NUMBERS = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, -1.0, 2.3, 1e308, -1e308, math.nan, math.inf, -math.inf]))
SOME_NAMES = st.sets(st.sampled_from([*SERIES, "penalty", "other_loss"]))
EPOCHS = SOME_NAMES.flatmap(
    lambda names: st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(sorted(names), NUMBERS)), max_size=12)
)
KNOWN = st.one_of(st.none(), NUMBERS)
YARDSTICKS = st.builds(
    Yardstick,
    n_validation=st.one_of(st.none(), st.integers(0, 10_000)),
    majority=KNOWN,
    prior_loss=KNOWN,
    best_loss=KNOWN,
    best_accuracy=KNOWN,
    held_out=st.booleans(),
)


@settings(deadline=None, max_examples=200)
@given(epochs=EPOCHS, yardstick=YARDSTICKS)
def test_every_list_of_numbers_has_a_label_its_evidence_and_a_remedy(
    epochs: list[dict[str, float]], yardstick: Yardstick
) -> None:
    found = diagnose(epochs, yardstick)
    if found is None:
        assert len(epochs) < 2 or not any(name in each for each in epochs for name in ("train_loss", "val_loss"))
    else:
        assert found.label in REMEDIES
        assert found.evidence
        assert found.remedy in found.told
        assert any(map(not_finite, epochs)) <= (found.label == "diverged")


LOSSES = st.floats(1e-6, 1e6)
LISTS = st.lists(st.tuples(LOSSES, LOSSES, LOSSES, st.floats(0, 1)), max_size=12)
IN_UNITS = ("train_loss", "val_loss", "val_loss_se")


@settings(deadline=None, max_examples=100)
@given(values=LISTS, power=st.integers(-40, 40), prior=LOSSES, best=LOSSES, reported=st.booleans())
def test_the_unit_of_the_losses_does_not_matter(
    values: list[tuple[float, float, float, float]], power: int, prior: float, best: float, reported: bool
) -> None:
    def label(unit: float) -> str | None:
        epochs = [
            {name: each * unit for name, each in zip(IN_UNITS[: 2 + reported], row, strict=False)}
            | {"train_accuracy": row[3], "val_accuracy": row[3]}
            for row in values
        ]
        yardstick = Yardstick(n_validation=100, majority=0.1, prior_loss=prior * unit, best_loss=best * unit)
        found = diagnose(epochs, yardstick)
        return found.label if found else None

    assert label(2.0**power) == label(1.0)


@pytest.mark.parametrize("value", [0.0, 2.3, -1.0])
def test_what_never_changes_has_stalled(value: float) -> None:
    epochs = [{"train_loss": value, "val_loss": value}] * 5
    assert (found := diagnose(epochs, Yardstick())) is not None
    assert found.label == "stalled"


def test_a_network_that_loses_what_it_had_learned_has_diverged() -> None:
    losses = [2.3, 1.2, 0.8, 0.5, 2.2, 2.31, 2.3, 2.3]
    epochs = [{"train_loss": loss, "val_loss": loss} for loss in losses]
    assert (found := diagnose(epochs, Yardstick())) is not None
    assert found.label == "diverged"
    assert "fell from 2.3 to 0.5, but ended at 2.3" in found.evidence


def test_evidence_of_overfitting_names_the_gap_and_the_epoch() -> None:
    train, val = [2.0, 1.0, 0.5, 0.2, 0.1], [2.0, 1.0, 0.8, 0.9, 1.0]
    epochs = [{"train_loss": a, "val_loss": b, "val_loss_se": 0.01} for a, b in zip(train, val, strict=True)]
    assert (found := diagnose(epochs, Yardstick())) is not None
    assert found.told == (
        "overfit: the validation loss ended at 0.95, 18.7 % above its best, 0.8 at epoch 2, while the training loss "
        "fell from 0.5 to 0.15. Regularize more, add data or augmentation, take a smaller network, or stop at the best "
        "epoch."
    )
    doubtful = [each | {"val_loss_se": 0.1} for each in epochs]
    assert (found := diagnose(doubtful, Yardstick())) is not None
    assert found.label != "overfit"
