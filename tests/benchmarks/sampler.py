"""Which of Optuna's samplers, and how set, suits a short study, on an additive model of the space of `cifar_reg`.

    python -m tests.benchmarks.sampler [N_SEEDS] [N_TRIALS]

Nothing is trained: a trial's accuracy after epochs 1, 3 and 9 follows from its parameters, with noise. The model is
ours, shaped by a few dozen real trials of `cifar_reg`; it says which sampler finds more in such a landscape.
"""

import math
import random
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna

from search import space
from search.contract import Value
from search.definition import StudyDefinition, load
from search.promise import PromisingStorage
from search.sampling import trial_seed
from search.workspace import Workspace

ETA = 3
Sampler = Callable[[int], optuna.samplers.BaseSampler]


def tpe(n_startup: int, *, multivariate: bool) -> Sampler:
    return lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=n_startup, multivariate=multivariate)


def gp(n_startup: int) -> Sampler:
    return lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=n_startup)


PROMISING = "Gaussian process, 5 random first, pruned trials as they promise"
SAMPLERS: Mapping[str, Sampler] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "TPE, 10 random first, multivariate (Optuna's defaults)": tpe(10, multivariate=True),
    "TPE, 5 random first, multivariate": tpe(5, multivariate=True),
    "TPE, 10 random first, a density per parameter": tpe(10, multivariate=False),
    "TPE, 5 random first, a density per parameter": tpe(5, multivariate=False),
    "Gaussian process, 10 random first (Optuna's defaults)": gp(10),
    PROMISING: gp(5),
}


def final_accuracy(h: Mapping[str, Value]) -> float:
    """Percent after 9 epochs, without noise."""
    number = {name: float(value) for name, value in h.items() if not isinstance(value, str | tuple)}
    log = {name: math.log10(number[name]) for name in ("lr", "l1", "l2", "weight_decay") if number[name] > 0}
    accuracy: float = 53 - 3 * (log["lr"] + 2.8) ** 2
    accuracy -= 7 * math.pow(max(0.0, log.get("l1", -9) + 5.4), 1.1)
    accuracy -= 6 * math.pow(max(0.0, log.get("l2", -9) + 3), 1.3)
    accuracy -= max(0.0, log.get("weight_decay", -9) + 1.5)
    accuracy -= 25 * math.pow(max(0.0, number["dropout"] - 0.15), 1.3) * (1.5 if number["width"] < 512 else 1)
    accuracy += 2.5 * number["batch_norm"] + 1.5 * number["flip"] + 5 * number["label_smoothing"]
    accuracy += 1.2 * (math.log2(number["width"]) - 9) - 0.8 * abs(number["depth"] - 2.5)
    return max(accuracy - 0.5 * math.pow(max(0.0, number["shift"] - 1), 1.2), 10.0)


def best_of_study(definition: StudyDefinition, seed: int, sampler: Sampler, n_trials: int, *, promising: bool) -> float:
    """One study with successive halving at epochs 1 and 3, the baseline first.

    Args:
        promising: a pruned trial is seen as complete with its last value and what complete ones gained from there on.
    """
    noise, rungs, storage = random.Random(seed), {1: list[float](), 3: list[float]()}, PromisingStorage()
    gains, pruned = {1: list[float](), 3: list[float]()}, list[tuple[int, int, float]]()
    study = optuna.create_study(direction="maximize", storage=storage)
    study.enqueue_trial(space.raw_from(definition.space, definition.baseline))
    distributions = {name: space.distribution(parameter) for name, parameter in definition.space.items()}
    best = 0.0
    for number in range(n_trials):
        study.sampler = sampler(trial_seed(seed, number) % 2**32)
        if promising:
            promised = {n: value + statistics.fmean(gains[epoch]) for n, epoch, value in pruned if gains[epoch]}
            storage.promise(study._study_id, promised)
        trial = study.ask(distributions)
        final = final_accuracy(space.effective(definition.space, trial.params))
        curve = {1: 3 + 0.7 * final + noise.gauss(0, 0.8), 3: 1.8 + 0.82 * final + noise.gauss(0, 0.7)}
        for epoch, value in curve.items():
            trial.report(value, epoch)
            rungs[epoch].append(value)
            if number and sum(other > value for other in rungs[epoch]) >= max(1, len(rungs[epoch]) // ETA):
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                pruned.append((number, epoch, value))
                break
        else:
            value = final + noise.gauss(0, 0.4)
            best = max(best, value)
            study.tell(trial, value)
            for epoch, early in curve.items():
                gains[epoch].append(value - early)
    return best


def main(n_seeds: int, n_trials: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    definition = load("cifar_reg", Workspace(Path.cwd()), {})
    print(f"best of {n_trials} trials, percent, over {n_seeds} seeds: quartiles, and the mean with its standard error")
    for name, sampler in SAMPLERS.items():
        promising = name == PROMISING
        found = [best_of_study(definition, seed, sampler, n_trials, promising=promising) for seed in range(n_seeds)]
        quartiles = "  ".join(f"{q:.2f}" for q in statistics.quantiles(found, n=4))
        error = statistics.stdev(found) / math.sqrt(n_seeds)
        print(f"{name:<66}{quartiles}   {statistics.fmean(found):.2f} +- {error:.2f}", flush=True)


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    main(*[*given, *(60, 24)[len(given) :]])
