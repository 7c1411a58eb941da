"""What a confirmation found: the gain of regularization, how sure it is, and which configuration to take. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from search.confirmation import BASELINE, FINAL, SELECT, Values, of_stages, roles
from search.definition import StudyDefinition
from search.errors import StudyStoppedError
from search.predictions import Floats, test_name
from search.result import difference, shown, told
from search.space import is_off
from search.state import State, Trial
from search.statistics import Comparison, Interval, Summary, compare, summary
from search.verdicts import Candidate, Choice, Verdict, choose, verdict

BOOTSTRAP_SEED = 0
Scores = Callable[[Trial], Floats]
"""A run's score of each test example (N,), higher is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A configuration of the final comparison."""

    name: str
    values: Values
    """Effective, of every parameter of the space."""
    n_regularizers: int
    """Active ones."""
    n_parameters: int
    chosen_by: tuple[float, ...]
    """The metric on the validation set of the runs by which it was chosen, its sign as the study's."""
    validated: tuple[float, ...]
    """The same of the final runs, seed by seed."""
    tested: tuple[float, ...]
    """The metric of the final runs on the test set, seed by seed."""
    test: Summary
    """Higher is better: of a metric that is minimized its sign is turned."""
    n_lost: int
    """Final runs that failed or never had a value: they are missing in all of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """Differences are the winner's less the other's, positive where the winner is better."""

    phase: str
    contenders: Mapping[str, Contender]
    roles: Mapping[str, str]
    """Winner, runner-up, baseline, unregularized -> a contender; several may be the same."""
    over_unregularized: Comparison | None
    """None: they are the same."""
    over_baseline: Comparison | None
    over_runner_up: Comparison | None
    verdict: Verdict
    baseline_verdict: Verdict | None
    choice: Choice
    naive: float
    """The best value of the search."""
    naive_trial: str
    retrained: float
    """The mean of that trial's configuration on fresh seeds, on the same validation set."""
    n_examples: int
    n_seeds: int
    reduced: tuple[str, ...]

    @property
    def winner(self) -> Contender:
        return self.contenders[self.roles["winner"]]

    @property
    def unregularized(self) -> Contender:
        return self.contenders[self.roles["unregularized"]]


def concluded(
    definition: StudyDefinition, search: State, phase: str, scores: Scores, *, n_examples: int
) -> Confirmation:
    """Draw the conclusions of a phase whose stages are all through, its networks tested.

    Raises:
        StudyStoppedError: every final run of a configuration failed or diverged.
    """
    state = search.phases[phase]
    who = roles(definition, state)
    scored = {name: _scored(_runs(state, FINAL, name), scores) for name in dict.fromkeys(who.values())}
    if lost := [name for name, of in scored.items() if not of]:
        raise StudyStoppedError(
            f"{definition.name}: no final run of {lost[0]} gave finite numbers, so that nothing can be concluded. Its "
            f"runs are in the ledger; look at their curves with python -m search.serve."
        )
    matrices = {name: np.stack([score for _, score in of]) for name, of in scored.items()}
    contenders = {
        name: _contender(definition, state, name, [run for run, _ in of], matrices[name]) for name, of in scored.items()
    }

    def over(role: str) -> Comparison | None:
        other = who.get(role)
        if other is None or other == who["winner"]:
            return None
        return compare(matrices[who["winner"]], matrices[other], seed=BOOTSTRAP_SEED)

    over_unregularized, over_baseline, over_runner_up = over("unregularized"), over(BASELINE), over("runner-up")
    best = search.ranked(maximize=definition.maximize)[0]
    naive_trial = BASELINE if best.baseline else f"trial {best.number}"
    return Confirmation(
        phase=phase,
        contenders=contenders,
        roles=who,
        over_unregularized=over_unregularized,
        over_baseline=over_baseline,
        over_runner_up=over_runner_up,
        verdict="not shown" if over_unregularized is None else verdict(over_unregularized),
        baseline_verdict=None if over_baseline is None else verdict(over_baseline),
        choice=_choice(who, contenders, over_runner_up),
        naive=best.value or 0.0,
        naive_trial=naive_trial,
        retrained=_mean([t.value for t in _runs(state, SELECT, naive_trial)]),
        n_examples=n_examples,
        n_seeds=min(each.test.n for each in contenders.values()),
        reduced=tuple(stage.reduced for stage in state.stages.values() if stage.reduced),
    )


def _runs(state: State, stage: str, name: str) -> list[Trial]:
    return [trial for trial in state.trials.values() if (trial.stage, trial.configuration) == (stage, name)]


def _scored(runs: Sequence[Trial], scores: Scores) -> list[tuple[Trial, Floats]]:
    """The runs that were tested, with their scores; one whose scores are not all finite says nothing."""
    found = [(run, scores(run)) for run in runs if run.tested is not None]
    return [(run, score) for run, score in found if np.isfinite(score).all()]


def _contender(
    definition: StudyDefinition, state: State, name: str, kept: Sequence[Trial], matrix: Floats
) -> Contender:
    before = [t for t in state.trials.values() if t.stage != FINAL and t.configuration == name]
    values = of_stages(state)[name]
    metric = test_name(definition.metric)
    return Contender(
        name=name,
        values=values,
        n_regularizers=len(active(definition, values)),
        n_parameters=next((run.n_parameters for run in kept if run.n_parameters is not None), 0),
        chosen_by=tuple(run.value for run in before if run.value is not None),
        validated=tuple(run.value for run in kept if run.value is not None),
        tested=tuple(run.tested.metrics[metric] for run in kept if run.tested is not None),
        test=summary(matrix, seed=BOOTSTRAP_SEED),
        n_lost=len(_runs(state, FINAL, name)) - len(kept),
    )


def active(definition: StudyDefinition, values: Values) -> list[str]:
    """The regularizers that are on."""
    return [name for name, p in definition.space.items() if p.regularizer and not is_off(p, values[name])]


def _choice(who: Mapping[str, str], contenders: Mapping[str, Contender], over_runner_up: Comparison | None) -> Choice:
    winner, other = (contenders[who[role]] if role in who else None for role in ("winner", "runner-up"))
    assert winner is not None
    if other is None or over_runner_up is None:
        return Choice(name=winner.name, tie=False, reason="it is better")
    return choose(_candidate(winner), _candidate(other), over_runner_up)


def _candidate(contender: Contender) -> Candidate:
    return Candidate(name=contender.name, n_regularizers=contender.n_regularizers, n_parameters=contender.n_parameters)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else math.nan


# ---------------------------------------------------------------- in words


def sentences(definition: StudyDefinition, found: Confirmation) -> list[str]:
    """The outcome in words, a sentence or a short block each: the answer first."""
    return [
        answer(definition, found),
        *_baseline(definition, found),
        _taken(definition, found),
        _flattery(definition, found),
        *_table(definition, found),
        *(f"{each.n_lost} runs of {each.name} gave no value and are left out." for each in _lossy(found)),
        *found.reduced,
    ]


def answer(definition: StudyDefinition, found: Confirmation) -> str:
    """Whether regularization helps, and by how much."""
    gain = found.over_unregularized
    if gain is None:
        return (
            f"Does regularization help? Not shown: the winner, {found.winner.name}, has every regularizer off. "
            "Nothing that regularizes was better on fresh seeds."
        )
    metric = definition.metric
    told_gain = f"{difference(metric, gain.difference)} on the test set against the best unregularized network"
    interval = f"95 % interval {between(metric, gain.interval)}"
    settings = " + ".join(_shown_active(definition, found.winner.values)) or "no regularizer"
    match found.verdict:
        case "confirmed":
            return f"Does regularization help? Confirmed: {settings} gives {told_gain} ({interval})."
        case "it hurts":
            return f"Does regularization help? It hurts: {settings} gives {told_gain} ({interval})."
        case _:
            return (
                f"Does regularization help? Not shown: {settings} gives {told_gain}, and the {interval} includes 0. "
                f"A gain of {difference(metric, gain.detectable)} would have been seen in 80 % of all cases."
            )


def between(metric: str, interval: Interval) -> str:
    """An interval of differences for people."""
    if not metric.endswith("accuracy"):
        return f"{interval.low:+.4g} to {interval.high:+.4g}"
    return f"{interval.low * 100:+.2f} to {interval.high * 100:+.2f} points"


def _shown_active(definition: StudyDefinition, values: Values) -> list[str]:
    return [f"{name} {shown(values[name])}" for name in active(definition, values)]


def _baseline(definition: StudyDefinition, found: Confirmation) -> list[str]:
    over = found.over_baseline
    if over is None:
        return []
    told_gain = (
        f"{difference(definition.metric, over.difference)} (95 % interval {between(definition.metric, over.interval)})"
    )
    line = f"Against the baseline: {found.baseline_verdict}, {told_gain}."
    if found.baseline_verdict == "confirmed" and found.verdict != "confirmed":
        line += " That gain is not regularization's: learning rate and structure alone explain it."
    return [line]


def _taken(definition: StudyDefinition, found: Confirmation) -> str:
    choice, over = found.choice, found.over_runner_up
    if found.verdict == "it hurts":
        return f"Which one to take: {found.unregularized.name}, which beats the winner, {found.winner.name}."
    if over is None:
        return f"Which one to take: {choice.name}."
    told_gain = f"{difference(definition.metric, over.difference)}, {between(definition.metric, over.interval)}"
    if choice.tie:
        return f"Which one to take: {choice.name}, by {choice.reason}: winner and runner-up are a tie ({told_gain})."
    return f"Which one to take: {choice.name}; winner against runner-up: {told_gain}."


def _flattery(definition: StudyDefinition, found: Confirmation) -> str:
    metric = definition.metric
    sign = 1 if definition.maximize else -1
    mean = fmean(found.winner.tested) if found.winner.tested else math.nan
    flattery = sign * (found.naive - mean)
    return (
        f"The search's own best said {told(metric, found.naive)} ({found.naive_trial}); on fresh "
        f"seeds it reaches {told(metric, found.retrained)} on the same validation set, and the winner "
        f"{told(metric, mean)} on the test set: the number was "
        f"{difference(metric, abs(flattery)).lstrip('+')} too {'good' if flattery >= 0 else 'bad'}."
    )


def _lossy(found: Confirmation) -> list[Contender]:
    return [each for each in found.contenders.values() if each.n_lost]


def _table(definition: StudyDefinition, found: Confirmation) -> list[str]:
    metric, sign = definition.metric, 1 if definition.maximize else -1
    lines = [f"On {found.n_examples:,} test examples, each network once:"]
    for role, name in found.roles.items():
        each = found.contenders[name]
        low, high = sorted((sign * each.test.interval.low, sign * each.test.interval.high))
        spread = difference(metric, each.test.deviation).lstrip("+")
        lines.append(
            f"  {role + ':':<15}{told(metric, sign * each.test.mean)} (95 % interval {told(metric, low)} to "
            f"{told(metric, high)}; {each.test.n} seeds, deviation {spread}), {name}"
        )
    if (gain := found.over_unregularized) is not None:
        lines.append(
            f"  a seed of the winner beats one of the best unregularized in {gain.probability:.0%} of all pairs; "
            f"over seeds alone the gain's interval is {between(metric, gain.seeds_interval)}"
        )
    return ["\n".join(lines)]
