"""Optuna's TPE with the trials ranked once an ask, against Optuna's own."""

import random

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from search.promise import PromisingStorage
from search.tpe import OneAsk

KINDS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
    "depth": IntDistribution(1, 4),
    "width": CategoricalDistribution((64, 128, 256)),
}


def asked(sampler: BaseSampler, *, direction: str, n_trials: int) -> dict[str, object]:
    """What the sampler draws after so many trials, pruned, failed, complete and promising ones among them."""
    rng, storage = random.Random(n_trials), PromisingStorage()
    study = optuna.create_study(storage=storage, direction=StudyDirection[direction.upper()], sampler=sampler)
    states = (TrialState.PRUNED, TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING)
    for number in range(n_trials):
        state, value = states[number % 5], rng.choice([0.1, 0.2, rng.random()])
        params = {"lr": 1e-4 * 10 ** (3 * rng.random()), "dropout": 0.6 * rng.random(), "depth": rng.randint(1, 4)}
        reports = dict.fromkeys(range(1, rng.randint(1, 4)), value)
        study.add_trial(
            create_trial(
                state=state,
                value=value if state == TrialState.COMPLETE else None,
                params=params | {"width": rng.choice([64, 128, 256])},
                distributions=KINDS,
                intermediate_values=reports,
            )
        )
    storage.promise(study._study_id, {number: rng.random() for number in range(4, n_trials, 10)})
    return study.ask(KINDS).params


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("n_trials", [0, 5, 6, 60])
def test_each_parameter_is_what_optuna_draws(direction: str, n_trials: int) -> None:
    for seed in range(3):
        found = asked(OneAsk(seed=seed, n_startup_trials=5), direction=direction, n_trials=n_trials)
        optunas = TPESampler(seed=seed, n_startup_trials=5, multivariate=False)
        assert found == asked(optunas, direction=direction, n_trials=n_trials)
