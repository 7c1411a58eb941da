"""Claims of search/confirmation.py: what is trained again, on which seeds, and what a budget takes away."""

import itertools
from collections.abc import Sequence

import pytest

from search.confirmation import (
    EFFORTS,
    FINAL,
    SELECT,
    SWEEP,
    ConfirmationPlan,
    candidates,
    roles,
    told_power,
    unregularized,
    values_of,
)
from search.contract import Value
from search.definition import StudyDefinition, baseline_raw
from search.sampling import trial_seed
from search.space import contains, is_off
from search.state import State, Trial
from tests.phases import Truth, follow
from tests.searches import searched
from tests.studies import definition

STUDY = definition()
POINT: dict[str, Value] = {
    "lr": 1e-2,
    "weight_decay": 1e-3,
    "dropout": 0.3,
    "width": 64,
    "depth": 2,
    "batch_norm": True,
}


def search_of(values: Sequence[float], study: StudyDefinition = STUDY) -> State:
    """The baseline, then trials that differ in dropout; each with its value."""
    points = [POINT | {"dropout": 0.1 + 0.01 * i} for i in range(len(values) - 1)]
    return searched(study, list(zip([baseline_raw(study), *points], values, strict=True)))


def quality(values: dict[str, float]) -> Truth:
    """A truth by configuration; every seed adds a little of its own."""
    return lambda run: values.get(run.configuration, 0.5) + (run.seeds[0] % 7) * 1e-4


def test_candidates_are_the_best_that_differ() -> None:
    state = searched(
        STUDY,
        [(baseline_raw(STUDY), 0.5), (POINT, 0.6), (POINT, 0.59), (POINT | {"depth": 3}, 0.55), (POINT, None)],
    )
    assert list(candidates(STUDY, state, 2)) == ["trial 1", "trial 3"]
    assert list(candidates(STUDY, state, 5)) == ["trial 1", "trial 3", "baseline"]


def test_pruned_trials_are_no_candidates() -> None:
    state = searched(
        STUDY, [(baseline_raw(STUDY), 0.5), (POINT, 0.9), (POINT | {"depth": 3}, 0.6)], ends={1: ("pruned", "rung")}
    )
    assert list(candidates(STUDY, state, 5)) == ["trial 2", "baseline"]


def test_minimizing_study_takes_the_smallest() -> None:
    study = definition(metric="val_loss", direction="minimize")
    assert next(iter(candidates(study, search_of([0.5, 0.7, 0.2], study), 1))) == "trial 2"


def test_unregularized_has_every_declared_regularizer_off_and_keeps_the_rest_but_the_learning_rate() -> None:
    found = unregularized(STUDY, POINT)
    assert len(found) == 4
    for values in found.values():
        assert all(is_off(p, values[name]) for name, p in STUDY.space.items() if p.regularizer)
        assert (values["width"], values["depth"]) == (POINT["width"], POINT["depth"])
        assert all(contains(p, values[name]) for name, p in STUDY.space.items())
    rates = [values["lr"] for values in found.values()]
    assert rates == pytest.approx([1e-2, 3e-3, 3e-2, 1e-3])


def test_sweep_stays_in_the_range_of_the_learning_rate_and_tries_none_twice() -> None:
    rates = [values["lr"] for values in unregularized(STUDY, POINT | {"lr": 2.9e-2}).values()]
    assert max(rates) == 3e-2
    assert len(set(rates)) == len(rates)
    assert len(unregularized(STUDY, POINT | {"lr": 1e-4})) == 3  # 1, 3 and 10 times: below is the lower end


def test_study_that_does_not_search_the_learning_rate_has_one_unregularized_configuration() -> None:
    study = definition(
        space={name: p for name, p in definition().model_dump()["space"].items() if name != "lr"},
        baseline={name: v for name, v in STUDY.baseline.items() if name != "lr"},
    )
    values = {name: value for name, value in POINT.items() if name != "lr"}
    assert list(unregularized(study, values)) == ["unregularized"]


def confirmed(values: dict[str, float], search: State | None = None) -> State:
    search = search or search_of([0.50, 0.60, 0.59, 0.58, 0.57, 0.56, 0.55])
    plan = ConfirmationPlan(definition=STUDY, search=search, phase="confirm-1")
    return follow(STUDY, search, "confirm-1", plan, quality(values), tested=FINAL)


def runs(state: State, stage: str) -> list[Trial]:
    return [trial for trial in state.trials.values() if trial.stage == stage]


def test_stages_train_what_they_promise() -> None:
    state = confirmed({"trial 3": 0.7, "trial 1": 0.65, "baseline": 0.4, "unregularized, lr 0.003": 0.6})
    assert {run.configuration for run in runs(state, SELECT)} == {*(f"trial {i}" for i in range(1, 6)), "baseline"}
    assert len(runs(state, SELECT)) == 6 * 4
    assert len(runs(state, SWEEP)) == 4 * 2
    assert len(runs(state, FINAL)) == 4 * 13
    assert roles(STUDY, state) == {
        "winner": "trial 3",
        "runner-up": "trial 1",
        "baseline": "baseline",
        "unregularized": "unregularized, lr 0.003",
    }
    assert {run.configuration for run in runs(state, FINAL)} == set(roles(STUDY, state).values())
    winner = values_of(STUDY, next(run for run in runs(state, FINAL) if run.configuration == "trial 3"))
    plain = values_of(STUDY, next(run for run in runs(state, FINAL) if run.configuration.startswith("unreg")))
    assert {name for name in winner if winner[name] != plain[name]} == {"lr", "weight_decay", "dropout", "batch_norm"}


def test_what_a_stage_compares_shares_its_seeds_and_no_other_stage_or_trial_has_them() -> None:
    state = confirmed({"trial 3": 0.7})
    by_stage = {}
    for stage in (SELECT, SWEEP, FINAL):
        seeds = {
            name: [run.seeds for run in of]
            for name, of in itertools.groupby(runs(state, stage), lambda run: run.configuration)
        }
        assert len({tuple(each) for each in seeds.values()}) == 1
        by_stage[stage] = {seed for each in seeds.values() for (seed,) in each}
    assert len(set().union(*by_stage.values())) == sum(map(len, by_stage.values())) == 4 + 2 + 13
    searched_with = {trial_seed(STUDY.seed, number) for number in range(1000)}
    assert not searched_with & set().union(*by_stage.values())


def test_another_confirmation_has_seeds_of_its_own() -> None:
    search = search_of([0.5, 0.6])
    for phase in ("confirm-1", "confirm-2"):
        plan = ConfirmationPlan(definition=STUDY, search=search, phase=phase)
        follow(STUDY, search, phase, plan, quality({}))
    first, second = ({run.seeds for run in search.phases[name].trials.values()} for name in ("confirm-1", "confirm-2"))
    assert not first & second


def test_winner_without_regularization_is_compared_with_itself_once() -> None:
    """The best of the search is the baseline: its unregularized form at its own learning rate is the same network."""
    state = confirmed({"baseline": 0.9, "unregularized, lr 0.001": 0.9})
    found = roles(STUDY, state)
    assert found["winner"] == found["baseline"] == found["unregularized"] == "baseline"
    assert len(runs(state, FINAL)) == 2 * 13


def test_run_without_a_value_makes_its_configuration_the_last() -> None:
    search = search_of([0.5, 0.6, 0.59])
    plan = ConfirmationPlan(definition=STUDY, search=search, phase="confirm-1")

    def truth(run: Trial) -> float | None:
        return None if run.configuration == "trial 1" and run.stage == SELECT else 0.5 + (run.seeds[0] % 7) * 1e-4

    state = follow(STUDY, search, "confirm-1", plan, truth)
    assert roles(STUDY, state)["winner"] != "trial 1"


# ---------------------------------------------------------------- budgets


def test_efforts_only_ever_shrink_and_the_final_seeds_shrink_last() -> None:
    for more, less in itertools.pairwise(EFFORTS):
        for name in type(more).__slots__:
            assert getattr(more, name) >= getattr(less, name)
    with_all = [effort for effort in EFFORTS if effort.final_seeds == EFFORTS[0].final_seeds]
    assert with_all[-1].candidates <= 3


def test_budget_is_kept_by_the_pace_of_the_search_and_said() -> None:
    search = search_of([0.50, 0.60, 0.59, 0.58, 0.57, 0.56, 0.55])
    whole = ConfirmationPlan(definition=STUDY, search=search, phase="confirm-1")
    full_s = whole.expected_s(EFFORTS[0])
    each_s = 2 / len(search.trials)  # all trained at once, for two seconds
    assert full_s == pytest.approx(1.1 * each_s * (6 * 4 + 4 * 2 + 4 * 13))
    for part in (0.4, 0.5, 0.8):
        plan = ConfirmationPlan(definition=STUDY, search=search, phase="confirm-1", budget_s=part * full_s)
        assert plan.expected_s(plan.effort()) <= part * full_s
        stage = plan(State())
        assert stage is not None
        assert "leaves" in stage.reduced
    assert whole(State()).reduced == ""  # type: ignore[union-attr]
    least = ConfirmationPlan(definition=STUDY, search=search, phase="confirm-1", budget_s=0.01)
    assert least.effort() == EFFORTS[-1]


def test_run_costs_one_of_a_trial_s_replicates() -> None:
    values = [0.50, 0.60, 0.59]
    one, three = (
        ConfirmationPlan(definition=study, search=search_of(values, study), phase="confirm-1").expected_s(EFFORTS[0])
        for study in (definition(), definition(replicates=3))
    )
    assert three == pytest.approx(one / 3)


def test_final_seeds_are_what_the_rest_of_the_budget_leaves() -> None:
    search = search_of([0.50, 0.60, 0.59])
    spent = [0.0]
    plan = ConfirmationPlan(
        definition=STUDY, search=search, phase="confirm-1", budget_s=1000.0, elapsed_s=lambda: spent[0]
    )
    state = State()
    search.phases["confirm-1"] = state
    spent[0] = 1000.0 - 1.1 * 4 * 8 * 2.0 - 1  # what is left suffices for 8 seeds of four configurations of 2 s

    state = follow(STUDY, search, "confirm-1", plan, quality({"trial 1": 0.9}), run_s=2.0)
    n_final = len(runs(state, FINAL)) / len(state.stages[FINAL].configurations)
    assert n_final == 8
    assert state.stages[FINAL].reduced == told_power(8)
    assert "80%" in told_power(8)
    assert told_power(13) == ""
