"""How much each parameter of the space matters to a study's value: PED-ANOVA and fANOVA, with bootstrap intervals.

They answer different questions and can disagree: PED-ANOVA asks which parameters get a trial among the best tenth (or
the best five), fANOVA which explain the differences between values everywhere in the space. Both see raw values, which
fill the space as it was sampled, each parameter on its own scale.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.definition import StudyDefinition
from search.landscape import position, with_value
from search.space import distribution
from search.state import State, Trial

Floats = NDArray[np.float64]
Interval = tuple[float, float]

MIN_TRIALS = 10
"""Of fewer, N_BEST are more than half."""
N_BEST = 5
"""The best trials that PED-ANOVA needs at least, as its documentation in Optuna says."""
N_TREES, N_TREES_RESAMPLED = 64, 16
"""Optuna's own number for the estimate, and fewer for each resample. All in all 40 trials of 11 parameters take 4 s,
200 trials 9 s (one core, AMD EPYC, 200 resamples)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """One parameter's shares of the importance of all, 0 to 1, with 95 % intervals."""

    name: str
    ped_anova: float
    ped_anova_interval: Interval
    fanova: float
    fanova_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    parameters: tuple[Importance, ...]
    """The mean of the two highest first; empty where there is a reason."""
    n_trials: int
    """Those with a value, which it rests on."""
    reason: str = ""
    """Why nothing can be said; empty otherwise."""


def importance(definition: StudyDefinition, state: State, *, seed: int, n_bootstrap: int = 200) -> Importances:
    """Return the importance of every parameter, from all trials with an outcome and a finite value.

    Trials that were pruned count with the best value that they had: it is worse than that of the trials that went on
    from their rung, so they are not among the best tenth, and are where fANOVA should see bad values. A trial that
    diverged counts as no worse than the worst of the others, since one exploded loss would be all the variance. The
    baseline is a point of the space as any other.

    Each interval goes from the 2.5th to the 97.5th percentile of resampled trials, drawn with replacement, widened to
    the estimate where that lies outside: resamples repeat trials by chance, which makes strong parameters look weaker
    and weak ones stronger. No importance is below 0, so even a parameter that does nothing has an interval above it:
    compare intervals with each other, not with 0.
    """
    points, values = _sample(definition, state)
    n_trials = len(values)
    if reason := _reason(definition, values):
        return Importances(parameters=(), n_trials=n_trials, reason=reason)
    rng = np.random.default_rng(seed)
    everything = np.arange(n_trials)
    resamples = [rng.integers(0, n_trials, n_trials) for _ in range(n_bootstrap)]
    resamples = [chosen for chosen in resamples if np.ptp(values[chosen]) > 0]
    ped_anova, ped_anova_intervals = _estimated(_PedAnova(definition, points, values), everything, resamples)
    positions = np.array([[position(p, t.raw[n]) for n, p in definition.space.items()] for t in points])

    def forest_importance(chosen: NDArray[np.int64]) -> Floats:
        n_trees = N_TREES if chosen is everything else N_TREES_RESAMPLED
        return fanova(positions[chosen], values[chosen], n_trees=n_trees, seed=int(rng.integers(2**32)))

    by_forest, forest_intervals = _estimated(forest_importance, everything, resamples)
    found = [
        Importance(
            name=name,
            ped_anova=float(ped_anova[i]),
            ped_anova_interval=ped_anova_intervals[i],
            fanova=float(by_forest[i]),
            fanova_interval=forest_intervals[i],
        )
        for i, name in enumerate(definition.space)
    ]
    return Importances(
        parameters=tuple(sorted(found, key=lambda each: -(each.ped_anova + each.fanova))), n_trials=n_trials
    )


def _sample(definition: StudyDefinition, state: State) -> tuple[list[Trial], Floats]:
    """The trials, and their values, of which a greater one is better."""
    trials = with_value(state)
    values = np.array([trial.value for trial in trials], dtype=float) * (1 if definition.maximize else -1)
    diverged = np.array([trial.reason == "diverged" for trial in trials], dtype=bool)
    if diverged.any() and not diverged.all():
        values[diverged] = np.maximum(values[diverged], values[~diverged].min())
    return trials, values


def _reason(definition: StudyDefinition, values: Floats) -> str:
    if len(definition.space) < 2:
        return "The space has a single parameter, so there is nothing to compare it with."
    if len(values) < MIN_TRIALS:
        return f"{len(values)} trials have a value, and importance takes at least {MIN_TRIALS}."
    if np.ptp(values) == 0:
        return f"All {len(values)} trials have the same value, so no parameter explains a difference."
    return ""


def _estimated(
    evaluate: Callable[[NDArray[np.int64]], Floats],
    everything: NDArray[np.int64],
    resamples: Sequence[NDArray[np.int64]],
) -> tuple[Floats, list[Interval]]:
    estimate = evaluate(everything)
    if not resamples:
        return estimate, [(0.0, 1.0)] * len(estimate)
    ends = np.percentile([evaluate(chosen) for chosen in resamples], [2.5, 97.5], axis=0)
    low, high = np.minimum(ends[0], estimate), np.maximum(ends[1], estimate)
    return estimate, [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def _shares(importances: Floats) -> Floats:
    total = importances.sum()
    return importances / total if total > 0 else importances


# ---------------------------------------------------------------- PED-ANOVA, by Optuna


class _PedAnova:
    """Called with the indices of trials: the shares of PED-ANOVA among them."""

    def __init__(self, definition: StudyDefinition, trials: Sequence[Trial], values: Floats) -> None:
        import optuna
        from optuna.trial import create_trial

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._names = list(definition.space)
        distributions = {name: distribution(parameter) for name, parameter in definition.space.items()}
        self._frozen = [
            create_trial(params=dict(trial.raw), distributions=distributions, value=float(value))
            for trial, value in zip(trials, values, strict=True)
        ]

    def __call__(self, chosen: NDArray[np.int64]) -> Floats:
        """Source: Watanabe, Bansal, Hutter (2023), "PED-ANOVA: efficiently quantifying hyperparameter importance in
        arbitrary subspaces", as Optuna has it.
        """
        import optuna

        study = optuna.create_study(direction="maximize")
        study.add_trials([self._frozen[i] for i in chosen])
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, N_BEST / len(chosen)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # too few trials, or equal ones: importance and cautions say so
            found = evaluator.evaluate(study)  # without target, with which it would take lower values for better
        return _shares(np.array([found[name] for name in self._names]))


# ---------------------------------------------------------------- fANOVA


def fanova(positions_ND: Floats, values_N: Floats, *, n_trees: int, seed: int) -> Floats:
    """Return each parameter's share of the variance that single parameters explain (D,), of a random forest.

    Args:
        positions_ND: 0 to 1, each parameter on its own scale.

    Optuna has it too, but integrates over what a logarithmic parameter is, not over its logarithm: of a weight decay
    from 1e-6 to 1e-1 nine tenths of the integral lie above 1e-2. It also takes ten times as long for 200
    trials, and its caches keep every tree.

    Source: Hutter, Hoos, Leyton-Brown (2014), "An efficient approach for assessing hyperparameter importance".
    """
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=n_trees, random_state=seed).fit(positions_ND, values_N)
    explained = [_explained(*_leaves(each.tree_)) for each in forest.estimators_ if each.tree_.node_count > 1]
    return _shares(np.mean(explained, axis=0)) if explained else np.zeros(positions_ND.shape[1])


def _leaves(tree: object) -> tuple[Floats, Floats, Floats]:
    """Each leaf's lower and upper corner in the unit cube (L, D), and its value (L,)."""
    left, right, feature, threshold, value = (
        getattr(tree, name) for name in ("children_left", "children_right", "feature", "threshold", "value")
    )
    low = np.zeros((len(left), tree.n_features))  # type: ignore[attr-defined]
    high = np.ones_like(low)
    for node in np.flatnonzero(left >= 0):  # parents come before their children
        for child, corner in ((left[node], high), (right[node], low)):
            low[child], high[child] = low[node], high[node]
            corner[child, feature[node]] = threshold[node]
    leaf = left < 0
    return low[leaf], high[leaf], value[leaf, 0, 0]


def _explained(low_LD: Floats, high_LD: Floats, value_L: Floats) -> Floats:
    """Return the share of a tree's variance over the unit cube that each dimension explains alone (D,)."""
    width_LD = high_LD - low_LD
    volume_L = width_LD.prod(axis=1)
    centered_L = value_L - volume_L @ value_L
    explained_D: Floats = np.empty(width_LD.shape[1])
    for d, width_L in enumerate(width_LD.T):
        edges = np.unique([low_LD[:, d], high_LD[:, d]])
        middle_C = (edges[1:] + edges[:-1]) / 2
        covers_CL = (low_LD[:, d] < middle_C[:, None]) & (middle_C[:, None] < high_LD[:, d])
        marginal_C = covers_CL @ (centered_L * volume_L / width_L)
        explained_D[d] = np.diff(edges) @ marginal_C**2
    total: float = volume_L @ centered_L**2
    return explained_D / total
