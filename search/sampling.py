"""The next trial from what is known: the baseline, then a grid or Optuna's samplers, seeded anew for each trial."""

import hashlib
import importlib.util
import math
import warnings
from collections.abc import Collection, Mapping
from itertools import islice

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.contract import Replicate, Value
from search.definition import StudyDefinition, baseline_raw
from search.errors import DefinitionError
from search.promise import Promises, PromisingStorage
from search.space import distribution, grid
from search.state import State, Trial
from search.tpe import OneAsk

REPLAYED = ("cmaes", "qmc")
"""Samplers that keep notes in Optuna's study, which can be had back only by asking again, in the same order."""

DRAWN_APART = ("tpe", "random")
"""Samplers that draw each parameter on its own."""

BLIND_TO_PRUNED = ("gp",)
"""Samplers that learn from complete trials alone, and so are told what pruned ones promise."""

N_STARTUP = 5
"""Trials that are drawn at random before TPE or the Gaussian process learns: fewer than Optuna's 10, and for TPE one
density per parameter instead of its multivariate one, since studies here are short (tests/benchmarks/sampler.py: a
median of 56.2 instead of 54.7)."""


def trial_seed(study_seed: int, trial: int, replicate: int = 0) -> int:
    """Return the seed that a replicate of a trial is trained with, 0 to 2**63 - 1."""
    return _hashed("trial", study_seed, trial, replicate)


def replicate_seeds(definition: StudyDefinition, seed: int) -> tuple[int, ...]:
    """The seeds of the replicates of a run that was given one: where there are folds, each has its own."""
    n = definition.n_replicates
    return (seed,) if n == 1 else tuple(_hashed("replicate", seed, i) for i in range(n))


def fresh_seeds(study_seed: int, purpose: str, n: int) -> tuple[int, ...]:
    """Return n seeds, 0 to 2**63 - 1, that no trial of the search and no other purpose has."""
    return tuple(_hashed("fresh", study_seed, purpose, i) for i in range(n))


def replicates(definition: StudyDefinition, trial: Trial) -> tuple[Replicate, ...]:
    """Return the trainings of a trial, each with its own seed; where there are folds, each seed's on all of them."""
    numbers = range(definition.n_replicates)
    folds = [None if definition.folds is None else i % definition.folds for i in numbers]
    seeds = trial.seeds or [trial_seed(definition.seed, trial.number, i) for i in numbers]
    return tuple(Replicate(seed=seed, fold=fold) for seed, fold in zip(seeds, folds, strict=True))


class Sampling:
    """Optuna's study in memory. Rebuilt from the state at any time, it asks what an uninterrupted one would ask."""

    def __init__(self, definition: StudyDefinition, state: State) -> None:
        """Tell Optuna of every trial in the state.

        Raises:
            DefinitionError: the sampler needs a package that is not installed.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        _check_installed(definition)
        self._definition = definition
        self._listed = _listed(definition)
        self._distributions = {name: distribution(definition.space[name]) for name in sorted(definition.space)}
        self._storage = PromisingStorage()
        self._promises = Promises(metric=definition.metric, maximize=definition.maximize)
        self._pruned: list[Trial] = []
        self._study = optuna.create_study(
            storage=self._storage, direction=definition.direction, sampler=_sampler(definition, 0)
        )
        self._study_id = self._storage.get_study_id_from_name(self._study.study_name)
        finished = iter(state.finish_order)
        n_told = 0
        for trial in state.trials.values():
            for number in islice(finished, trial.asked_after - n_told):
                self.tell(state.trials[number])
            n_told = trial.asked_after
            self._adopt(trial)
        for number in finished:
            self.tell(state.trials[number])

    def ask(self, number: int, in_training: Collection[Trial] = ()) -> dict[str, Value]:
        """Return the raw values of trial `number`, which must be the next; those of trial 0 are the baseline's.

        Args:
            in_training: trials of which something may be known before they end.

        Raises:
            ValueError: it is not the next.
        """
        n_asked = len(self._study.get_trials(deepcopy=False))
        if number != n_asked:
            raise ValueError(f"trials are asked in order: {n_asked} is the next, got {number}.")
        if number >= len(self._listed):
            if self._definition.sampler in ("tpe", *BLIND_TO_PRUNED):
                self._storage.promise(self._study_id, self._promised(in_training))
            return self._ask(number)
        self._add(self._listed[number])
        return self._listed[number]

    @property
    def replayed(self) -> bool:
        """Whether its trials depend on when it was told of others."""
        return self._definition.sampler in REPLAYED

    @property
    def can_hold(self) -> bool:
        """Whether each parameter is drawn on its own, so that replacing some of them makes a conditional draw."""
        return self._definition.sampler in DRAWN_APART

    def hold(self, number: int, values: Mapping[str, Value]) -> None:
        """Replace raw values of a trial that was just asked: it is trained with these."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        for name, value in values.items():
            kind = self._distributions[name]
            self._storage.set_trial_param(trial_id, name, kind.to_internal_repr(value), kind)

    def tell(self, trial: Trial) -> None:
        """Let the sampler learn from a finished trial. Optuna is never given a value that is not finite."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
        metric = self._definition.metric
        reports = {r.epoch: r.metrics[metric] for r in trial.reports if r.epoch > 0 and metric in r.metrics}
        reports = {epoch: value for epoch, value in reports.items() if math.isfinite(value)}
        for epoch, value in reports.items():
            self._storage.set_trial_intermediate_value(trial_id, epoch, value)
        outcome, values = TrialState.FAIL, None
        if trial.outcome == "complete" and trial.value is not None and math.isfinite(trial.value):
            outcome, values = TrialState.COMPLETE, [trial.value]
            self._promises.learn(trial)
        elif trial.outcome == "pruned":
            if self._definition.sampler in BLIND_TO_PRUNED:
                self._pruned.append(trial)
            outcome, values = TrialState.PRUNED, [reports[max(reports)]] if reports else None
        self._storage.set_trial_state_values(trial_id, outcome, values)

    def _promised(self, in_training: Collection[Trial]) -> dict[int, float]:
        """What to take trials for that are not complete, by number; diverged ones for the worst of the others."""
        trials = [*in_training, *self._pruned]
        known = {trial.number: self._promises.of(trial) for trial in trials if trial.reason != "diverged"}
        values = {number: value for number, value in known.items() if value is not None}
        if not values:
            return {}
        worst = min(values.values()) if self._definition.maximize else max(values.values())
        return values | {trial.number: worst for trial in trials if trial.reason == "diverged"}

    def _ask(self, number: int) -> dict[str, Value]:
        self._study.sampler = _sampler(self._definition, number)
        trial = self._study.ask(self._distributions)
        return {name: _plain(trial.params[name]) for name in self._definition.space}

    def _adopt(self, trial: Trial) -> None:
        """Add a trial that was asked before, as running."""
        if self._definition.sampler not in REPLAYED or trial.number == 0:
            self._add(trial.raw)
            return
        self._ask(trial.number)
        self.hold(trial.number, trial.raw)  # another version of Optuna may draw otherwise: what was trained counts

    def _add(self, raw: Mapping[str, Value]) -> None:
        self._study.add_trial(_running(raw, self._distributions))


def _listed(definition: StudyDefinition) -> list[dict[str, Value]]:
    """The raw values of the trials that need no sampler: the baseline, then the other points of a grid."""
    baseline = baseline_raw(definition)
    points = grid(definition.space) if definition.sampler == "grid" else []
    return [baseline, *(point for point in points if point != baseline)]


def _running(
    raw: Mapping[str, Value], distributions: Mapping[str, optuna.distributions.BaseDistribution]
) -> FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING, params={name: raw[name] for name in distributions}, distributions=dict(distributions)
    )


def _sampler(definition: StudyDefinition, number: int) -> BaseSampler:
    seed = _hashed("sampler", definition.seed, number) % 2**32  # what NumPy takes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match definition.sampler:
            case "tpe":
                return OneAsk(seed=seed, n_startup_trials=N_STARTUP)
            case "random" | "grid":
                return optuna.samplers.RandomSampler(seed=seed)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=N_STARTUP)
            case "cmaes":
                # Most trials are pruned: without them a generation would hardly ever be full.
                return optuna.samplers.CmaEsSampler(
                    seed=seed, consider_pruned_trials=True, warn_independent_sampling=False
                )
            case "qmc":
                # One sequence for the whole study: its scrambling must not change from trial to trial.
                return optuna.samplers.QMCSampler(
                    scramble=True,
                    seed=_hashed("sampler", definition.seed) % 2**32,
                    independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                    warn_independent_sampling=False,
                )


def _check_installed(definition: StudyDefinition) -> None:
    needed = {"gp": ("scipy", "torch"), "cmaes": ("cmaes",), "qmc": ("scipy",)}.get(definition.sampler, ())
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        raise DefinitionError(
            f"{definition.origin}: sampler: {definition.sampler} needs {' and '.join(missing)}, "
            f"which is not installed. Run pip install {' '.join(missing)}, or choose another sampler."
        )


def _hashed(*words: str | int) -> int:
    digest = hashlib.sha256(":".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _plain(value: object) -> Value:
    """A drawn value without NumPy's types, which JSON does not know."""
    item = getattr(value, "item", None)
    plain = value if item is None else item()
    assert isinstance(plain, bool | int | float | str)
    return plain
