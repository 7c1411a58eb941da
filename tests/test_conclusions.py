"""Claims of search/conclusions.py: the numbers are those of the runs, and the words are those of the numbers."""

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from search.conclusions import Confirmation, concluded, sentences
from search.confirmation import FINAL, ConfirmationPlan
from search.contract import Value
from search.definition import StudyDefinition, baseline_raw
from search.errors import StudyStoppedError
from search.predictions import Floats
from search.state import State, Trial
from tests.phases import follow
from tests.searches import searched
from tests.studies import definition

N = 400
"""Test examples."""
ONE: dict[str, Value] = {
    "lr": 1e-2,
    "weight_decay": 1e-3,
    "dropout": 0.3,
    "width": 64,
    "depth": 2,
    "batch_norm": True,
}
OTHER = ONE | {"dropout": 0.0}
"""One regularizer less."""
WINNER, RUNNER_UP, PLAIN = "trial 1", "trial 2", "unregularized, lr 0.01"


def scores(run: Trial, level: float) -> Floats:
    """The first examples are right, but for a few that the seed decides."""
    rng = np.random.default_rng(run.seeds[0] % 2**32)
    right = np.arange(N) < N * level
    flipped = rng.random(N) < 0.02
    return (right ^ flipped).astype(float)


def confirmed(
    levels: Mapping[str, float], study: StudyDefinition | None = None, *, naive: float = 0.9
) -> tuple[StudyDefinition, Confirmation, State]:
    """A study whose configurations have these levels of accuracy; those that are not named have 0.6."""
    study = study or definition()
    search = searched(study, [(baseline_raw(study), 0.5), (ONE, naive), (OTHER, naive - 0.01)])

    def level(run: Trial) -> float:
        return levels.get(run.configuration, 0.6)

    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")
    follow(study, search, "confirm-1", plan, lambda run: float(scores(run, level(run)).mean()), tested=FINAL)
    found = concluded(study, search, "confirm-1", lambda run: scores(run, level(run)), n_examples=N)
    return study, found, search


def told(study: StudyDefinition, found: Confirmation) -> str:
    return "\n".join(sentences(study, found))


def test_planted_gain_is_confirmed_with_the_difference_of_the_means() -> None:
    study, found, search = confirmed({WINNER: 0.8, RUNNER_UP: 0.75, PLAIN: 0.7})
    assert found.roles == {"winner": WINNER, "runner-up": RUNNER_UP, "baseline": "baseline", "unregularized": PLAIN}
    assert found.verdict == found.baseline_verdict == "confirmed"
    runs = [r for r in search.phases["confirm-1"].trials.values() if r.stage == FINAL]
    own = {n: [r.value for r in runs if r.configuration == n] for n in found.roles.values()}
    gain = found.over_unregularized
    assert gain is not None
    difference = np.mean(own[WINNER]) - np.mean(own[PLAIN])  # type: ignore[arg-type]
    assert gain.difference == pytest.approx(difference)
    welch = stats.ttest_ind(own[WINNER], own[PLAIN], equal_var=False).confidence_interval()
    assert (gain.seeds_interval.low, gain.seeds_interval.high) == pytest.approx((welch.low, welch.high))
    text = told(study, found)
    assert text.startswith(
        "Does regularization help? Confirmed: weight_decay 0.001 + dropout 0.3 + batch_norm on gives"
    )
    assert f"{difference * 100:+.2f} points on the test set" in text
    assert "Against the baseline: confirmed" in text


def test_no_gain_is_not_shown_and_says_what_would_have_been_seen() -> None:
    study, found, _ = confirmed({WINNER: 0.7, RUNNER_UP: 0.65, PLAIN: 0.7, "baseline": 0.6})
    assert found.verdict == "not shown"
    text = told(study, found)
    assert "Not shown:" in text
    assert "includes 0. A gain of +" in text
    assert "That gain is not regularization's: learning rate and structure alone explain it." in text


def test_harm_is_told() -> None:
    study, found, _ = confirmed({WINNER: 0.7, PLAIN: 0.8})
    assert found.verdict == "it hurts"
    assert "It hurts:" in told(study, found)
    assert f"Which one to take: {PLAIN}, which beats the winner, {WINNER}." in told(study, found)


def test_tie_is_decided_by_fewer_regularizers() -> None:
    study, found, _ = confirmed({WINNER: 0.8, RUNNER_UP: 0.8, PLAIN: 0.7})
    assert found.choice.tie
    assert found.choice.name == RUNNER_UP if found.roles["winner"] == WINNER else WINNER
    assert "winner and runner-up are a tie" in told(study, found)


def test_search_s_own_best_is_said_to_flatter_by_what_it_lost() -> None:
    study, found, _ = confirmed({WINNER: 0.8, RUNNER_UP: 0.7, PLAIN: 0.7}, naive=0.9)
    mean = np.mean(found.winner.tested)
    assert found.naive == 0.9
    assert f"the number was {(0.9 - mean) * 100:.2f} points too good" in told(study, found)


def test_winner_without_regularizers_shows_nothing() -> None:
    study = definition()
    search = searched(study, [(baseline_raw(study), 0.9), (ONE, 0.5)])
    levels = {"baseline": 0.8, "unregularized, lr 0.001": 0.8}
    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")

    def of(run: Trial) -> Floats:
        return scores(run, levels.get(run.configuration, 0.5))

    follow(study, search, "confirm-1", plan, lambda run: float(of(run).mean()), tested=FINAL)
    found = concluded(study, search, "confirm-1", of, n_examples=N)
    assert found.over_unregularized is None
    assert found.verdict == "not shown"
    assert "has every regularizer off" in told(study, found)


def test_loss_is_better_when_it_is_smaller() -> None:
    study = definition(metric="val_loss", direction="minimize")
    search = searched(study, [(baseline_raw(study), 0.9), (ONE, 0.3), (OTHER, 0.35)])
    losses = {WINNER: 0.3, RUNNER_UP: 0.35, PLAIN: 0.5}

    def of(run: Trial) -> Floats:
        rng = np.random.default_rng(run.seeds[0] % 2**32)
        return -(losses.get(run.configuration, 0.6) + 0.02 * rng.standard_normal(N))

    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")
    follow(study, search, "confirm-1", plan, lambda run: -float(of(run).mean()), tested=FINAL)
    found = concluded(study, search, "confirm-1", of, n_examples=N)
    assert found.verdict == "confirmed"
    assert found.over_unregularized is not None
    assert found.over_unregularized.difference == pytest.approx(0.2, abs=0.01)
    text = told(study, found)
    assert (
        "winner:        0.3 (95 % interval 0.29" in text
        or "winner:        0.30" in text
        or "winner:        0.29" in text
    )


def test_run_without_finite_scores_is_left_out_and_said() -> None:
    study = definition()
    search = searched(study, [(baseline_raw(study), 0.5), (ONE, 0.9), (OTHER, 0.89)])
    levels = {WINNER: 0.8, RUNNER_UP: 0.75, PLAIN: 0.7}

    def of(run: Trial) -> Floats:
        return scores(run, levels.get(run.configuration, 0.6))

    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")
    follow(study, search, "confirm-1", plan, lambda run: float(of(run).mean()), tested=FINAL)
    lost = next(r for r in search.phases["confirm-1"].trials.values() if (r.stage, r.configuration) == (FINAL, WINNER))

    def some(run: Trial) -> Floats:
        return np.full(N, np.nan) if run.number == lost.number else of(run)

    found = concluded(study, search, "confirm-1", some, n_examples=N)
    assert found.winner.n_lost == 1
    assert found.winner.test.n == found.n_seeds == 12
    assert "1 runs of trial 1 gave no value and are left out." in told(study, found)
    with pytest.raises(StudyStoppedError, match="no final run of trial 1 gave finite numbers"):
        concluded(study, search, "confirm-1", lambda run: of(run) * np.nan, n_examples=N)
