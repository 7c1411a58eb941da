"""Claims of search/ablation.py: what is trained without which regularizer, and that a planted truth is found."""

from collections.abc import Mapping
from itertools import combinations

import pytest

from search.ablation import STAGE, Ablation, AblationPlan, ablated, sentences, subsets
from search.confirmation import FINAL, ConfirmationPlan
from search.contract import Value
from search.definition import StudyDefinition, baseline_raw
from search.space import is_off
from search.state import State, Trial
from tests.phases import follow
from tests.searches import searched
from tests.studies import definition

POINT: dict[str, Value] = {
    "lr": 1e-2,
    "weight_decay": 1e-3,
    "dropout": 0.3,
    "width": 64,
    "depth": 2,
    "batch_norm": True,
}
MANY = definition(
    space={
        "lr": {"kind": "log_float", "low": 1e-4, "high": 3e-2},
        **{name: {"kind": "float", "low": 0.0, "high": 1.0, "regularizer": True, "off": 0.0} for name in "abcd"},
    },
    baseline={"lr": 1e-3, **dict.fromkeys("abcd", 0.0)},
)


def noise(run: Trial, scale: float = 0.002) -> float:
    """The same for a seed, whatever the configuration, and a little of the run's own."""
    return scale * ((run.seeds[0] % 1009) / 1009 - 0.5) + 0.0002 * ((run.number * 7919 % 101) / 101 - 0.5)


def study_with(
    study: StudyDefinition, point: Mapping[str, Value], worth: Mapping[str, float], *, interaction: float = 0.0
) -> tuple[StudyDefinition, State, AblationPlan]:
    """A confirmed study whose regularizers are worth so much each, in the metric; all of them together a bit more."""

    def truth(run: Trial) -> float:
        on = [name for name in worth if not is_off(study.space[name], run.hyperparameters[name])]
        together = interaction if len(on) == len(worth) else 0.0
        return 0.6 + sum(worth[name] for name in on) + together + noise(run)

    search = searched(study, [(baseline_raw(study), 0.5), (point, 0.9)])
    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")
    follow(study, search, "confirm-1", plan, truth, tested=FINAL)
    ablation = AblationPlan(definition=study, search=search, confirmation="confirm-1")
    follow(study, search, "ablate-1", ablation, truth)
    return study, search, ablation


def found_with(
    study: StudyDefinition, point: Mapping[str, Value], worth: Mapping[str, float], **more: float
) -> Ablation:
    _, _, plan = study_with(study, point, worth, **more)
    return ablated(plan, "ablate-1")


def test_up_to_three_regularizers_are_tried_in_all_combinations_of_more_each_alone() -> None:
    assert set(subsets("abc")) == {frozenset(c) for size in range(4) for c in combinations("abc", size)}
    assert set(subsets("abcd")) == {frozenset(), *(frozenset(name) for name in "abcd")}


def test_runs_are_on_the_winner_s_seeds_and_its_own_are_not_trained_again() -> None:
    _, search, _ = study_with(definition(), POINT, {"weight_decay": 0.02, "dropout": 0.0, "batch_norm": 0.01})
    runs = search.phases["ablate-1"].trials.values()
    winners = {run.seeds for run in search.phases["confirm-1"].trials.values() if run.stage == FINAL}
    assert len(runs) == 7 * 10
    assert {run.seeds for run in runs} < winners
    assert {run.stage for run in runs} == {STAGE}
    assert "winner" not in {run.configuration for run in runs}
    for run in runs:
        named = set(run.configuration.removeprefix("without ").split(" and "))
        space = definition().space
        assert named == {n for n, p in space.items() if p.regularizer and is_off(p, run.hyperparameters[n])}
        assert run.hyperparameters["lr"] == POINT["lr"]


def test_planted_help_harm_and_nothing_are_labelled_so() -> None:
    found = found_with(definition(), POINT, {"weight_decay": 0.03, "dropout": -0.02, "batch_norm": 0.0})
    labels = {name: effect.label for name, effect in found.effects.items()}
    assert labels == {"weight_decay": "helps", "dropout": "hurts", "batch_norm": "equivalent"}
    assert found.effects["weight_decay"].paired.mean == pytest.approx(0.03, abs=2e-4)
    assert found.means["winner"] - found.means["without weight_decay"] == pytest.approx(0.03, abs=2e-4)
    assert found.n_seeds == 10
    told = " ".join("\n".join(sentences(definition(), found)).split())
    assert "weight_decay: helps, +3.0" in told
    assert "dropout: hurts, -2.0" in told


def test_interaction_of_all_combinations_is_found() -> None:
    worth = {"weight_decay": 0.02, "dropout": 0.01, "batch_norm": 0.0}
    plain, more = found_with(definition(), POINT, worth), found_with(definition(), POINT, worth, interaction=0.08)
    everything = frozenset(worth)
    assert plain.factorial[everything].label == "equivalent"
    assert more.factorial[everything].label == "helps"
    assert more.factorial[everything].paired.mean == pytest.approx(0.08 / 4, abs=2e-4)


def test_more_than_three_regularizers_have_no_factorial() -> None:
    point = {"lr": 1e-2, **dict.fromkeys("abcd", 0.5)}
    found = found_with(MANY, point, {"a": 0.02, "b": 0.0, "c": 0.01, "d": -0.01})
    assert found.factorial == {}
    assert {name: e.label for name, e in found.effects.items()} == {
        "a": "helps",
        "b": "equivalent",
        "c": "helps",
        "d": "hurts",
    }


def test_loss_is_better_when_it_is_smaller() -> None:
    study = definition(metric="val_loss", direction="minimize")
    search = searched(study, [(baseline_raw(study), 0.9), (POINT, 0.3)])

    def truth(run: Trial) -> float:
        return (0.3 if run.hyperparameters["batch_norm"] else 0.4) + noise(run)

    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")
    follow(study, search, "confirm-1", plan, truth, tested=FINAL)
    ablation = AblationPlan(definition=study, search=search, confirmation="confirm-1")
    follow(study, search, "ablate-1", ablation, truth)
    found = ablated(ablation, "ablate-1")
    assert found.effects["batch_norm"].label == "helps"
    assert found.effects["dropout"].label == "equivalent"
    assert found.margin == pytest.approx(0.01 * found.means["winner"])


def test_budget_takes_seeds_and_says_so() -> None:
    study, search, plan = study_with(definition(), POINT, {"weight_decay": 0.02, "dropout": 0.0, "batch_norm": 0.0})
    less = AblationPlan(definition=study, search=search, confirmation="confirm-1", budget_s=plan.expected_s(1) * 6.5)
    stage = less(State())
    assert stage is not None
    assert len(stage.seeds) == 6
    assert stage.reduced == "6 seeds in place of 10."


def test_run_without_a_value_leaves_its_seed_out_of_the_effects_that_need_it() -> None:
    study = definition()
    search = searched(study, [(baseline_raw(study), 0.5), (POINT, 0.9)])
    plan = ConfirmationPlan(definition=study, search=search, phase="confirm-1")
    follow(
        study,
        search,
        "confirm-1",
        plan,
        lambda run: (0.5 if run.configuration == "baseline" else 0.6) + noise(run),
        tested=FINAL,
    )
    ablation = AblationPlan(definition=study, search=search, confirmation="confirm-1")
    follow(study, search, "ablate-1", ablation, lambda run: None if run.number == 0 else 0.6 + noise(run))
    found = ablated(ablation, "ablate-1")
    assert {effect.paired.n for effect in found.effects.values()} == {9, 10}
