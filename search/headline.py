"""The report's answer: a confirmation and an ablation in the page's own words and records. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from search import conclusions, findings
from search.ablation import Ablation
from search.conclusions import Contender, active
from search.definition import StudyDefinition
from search.findings import Candidate, Difference, Measure, Role
from search.result import shown
from search.statistics import Comparison, Interval, calibration, paired, proportion, reliability
from search.verdicts import Effect, Verdict

LONGEST = 190
"""Letters of the verdict's sentence that fit the first screen of a phone."""
ROLES: Mapping[str, Role] = {
    "winner": "winner",
    "runner-up": "runner-up",
    "baseline": "baseline",
    "unregularized": "best unregularized",
}
"""As search/confirmation.py calls them -> as the page does, in its order."""
Stored = Mapping[str, NDArray[np.generic]]
"""What one network said of the test set, as search/predictions.py reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a report rests on, beside the ledger's state."""

    confirmations: Sequence[conclusions.Confirmation] = ()
    """Those that are through, in order; the report is about the last."""
    predictions: Sequence[Stored] = ()
    """Of the last one's winner, seed by seed."""
    ablation: Ablation | None = None

    @property
    def last(self) -> conclusions.Confirmation | None:
        return self.confirmations[-1] if self.confirmations else None


def confirmation(definition: StudyDefinition, measure: Measure, evidence: Evidence) -> findings.Confirmation | None:
    if (found := evidence.last) is None:
        return None
    sign = 1 if definition.maximize else -1
    return findings.Confirmation(
        answer=found.verdict,
        sentence=sentence(definition, measure, found),
        baseline_sentence=_baseline(measure, found),
        take=f"{_taken(measure, found)}{told_apart(evidence.ablation)}",
        optimism=sign * (found.naive - _mean(found.winner.tested)),
        candidates=[_candidate(ROLES[r], found.contenders[n], sign) for r, n in found.roles.items()],
        differences=_differences(found),
        power=" ".join(found.reduced),
        lost=[f"{c.n_lost} runs of {c.name} gave no value and are left out." for c in _lossy(found)],
        earlier=[_earlier(measure, each) for each in evidence.confirmations[:-1]],
    )


def sentence(definition: StudyDefinition, measure: Measure, found: conclusions.Confirmation) -> str:
    """The verdict after its word, with as much of the winner's settings as fit."""
    gain, name = found.over_unregularized, found.winner.name
    if gain is None:
        return f"the winner, {name}, has every regularizer off; the search found nothing better than none."
    on = active(definition, found.winner.values)
    what = [
        " + ".join(_strength(regularizer, found.winner.values[regularizer]) for regularizer in on),
        " + ".join(on),
        f"{name}, with {len(on)} regularizers,",
    ]
    told = (
        [_gained(measure, settings, gain, found) for settings in what] if on else [_gained(measure, name, gain, found)]
    )
    return next((each for each in told if len(each) <= LONGEST), told[-1])


def _strength(name: str, value: object) -> str:
    return name if value is True else f"{name} {shown(value)}"  # type: ignore[arg-type]


def _gained(measure: Measure, what: str, gain: Comparison, found: conclusions.Confirmation) -> str:
    sure = f"{found.n_seeds} seeds, {found.n_examples:,} test examples"
    if found.verdict == "not shown":
        sure = f"a gain of {_amount(measure, gain.detectable)} would be seen in 80\N{NO-BREAK SPACE}% of cases"
    interval = "interval" if measure.maximize else "interval of the gain"
    return (
        f"{what} {_done(measure, gain, found.verdict)} the best unregularized network "
        f"(95\N{NO-BREAK SPACE}% {interval} {_range(measure, gain.interval)}; {sure})."
    )


def _done(measure: Measure, gain: Comparison, verdict: Verdict) -> str:
    amount = _amount(measure, gain.difference)
    if not measure.maximize:
        return f"{'lowers' if gain.difference > 0 else 'raises'} test {measure.name} by {amount} against"
    match verdict:
        case "confirmed":
            return f"gains {amount} of test {measure.name} over"
        case "it hurts":
            return f"loses {amount} of test {measure.name} against"
    return f"gives {_amount(measure, gain.difference, signed=True)} of test {measure.name} over"


def _amount(measure: Measure, gain: float, *, signed: bool = False) -> str:
    told = measure.gain(gain if signed else abs(gain))
    return f"{told if signed else told.removeprefix('+')} {measure.points}".rstrip()


def _range(measure: Measure, interval: Interval) -> str:
    return f"{measure.gain(interval.low)} to {measure.gain(interval.high)}"


def _baseline(measure: Measure, found: conclusions.Confirmation) -> str:
    over, gain = found.over_baseline, found.over_unregularized
    if over is None:
        return ""
    told = (
        f"Against the baseline: {found.baseline_verdict}, {_amount(measure, over.difference, signed=True)} "
        f"(95\N{NO-BREAK SPACE}% interval {_range(measure, over.interval)})."
    )
    if found.baseline_verdict != "confirmed" or gain is None:
        return told
    if found.verdict != "confirmed":
        return f"{told} That gain is not regularization’s: learning rate and structure alone explain it."
    rest = _amount(measure, over.difference - gain.difference, signed=True)
    return f"{told} {rest} of it come from learning rate and structure."


def _taken(measure: Measure, found: conclusions.Confirmation) -> str:
    but = " But the best unregularized network beats it." if found.verdict == "it hurts" else ""
    return f"{_chosen(measure, found)}{but}"


def told_apart(found: Ablation | None) -> str:
    """Which of the winner's regularizers does anything, as a sentence to follow another; empty before an ablation."""
    if found is None:
        return ""
    by_label = {
        label: [name for name, effect in found.effects.items() if effect.label == label]
        for label in ("helps", "hurts", "equivalent", "no evidence")
    }
    helps, hurts, equivalent, unknown = by_label.values()
    if not helps and not hurts:
        return "" if unknown else " Turned off alone, none of its regularizers is missed."
    verbs = ((helps, "help"), (hurts, "hurt"))
    parts = [f"{_listed(names)} {verb}{'s' if len(names) == 1 else ''}" for names, verb in verbs if names]
    if equivalent:
        parts.append(f"without {_listed(equivalent)} it is as good" + (", each alone" if len(equivalent) > 1 else ""))
    return f" Of its regularizers {'; '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _chosen(measure: Measure, found: conclusions.Confirmation) -> str:
    choice, over, other = found.choice, found.over_runner_up, found.roles.get("runner-up", "")
    if over is None:
        return f"{choice.name}."
    interval = f"95\N{NO-BREAK SPACE}% interval {_range(measure, over.interval)}"
    told = f"{_amount(measure, over.difference, signed=True)}, {interval}"
    if choice.tie:
        other = f"the runner-up, {other}" if choice.name == found.winner.name else f"the winner, {found.winner.name}"
        return f"{choice.name}: a tie with {other} ({told}), and it has {choice.reason}."
    if choice.name == found.winner.name:
        return f"{choice.name}. Its lead over the runner-up, {other}, is real ({told})."
    return f"{choice.name}: on the test set {found.winner.name}, chosen on the validation set, is worse ({told})."


def _candidate(role: Role, contender: Contender, sign: int) -> Candidate:
    return Candidate(
        role=role,
        name=contender.name.removeprefix("unregularized, "),
        mean=sign * contender.test.mean,
        deviation=contender.test.deviation,
        interval=_ends(contender.test.interval, sign),
        seeds_interval=_ends(paired(contender.tested).interval, 1),
        n_seeds=contender.test.n,
    )


def _differences(found: conclusions.Confirmation) -> list[Difference]:
    take = "a tie" if found.choice.tie else "not a tie"
    rows: list[tuple[Role, Comparison | None, str]] = [
        ("best unregularized", found.over_unregularized, f"regularization: {_said(found.verdict)}"),
        ("baseline", found.over_baseline, f"better than the baseline: {_said(found.baseline_verdict)}"),
        ("runner-up", found.over_runner_up, f"{take}: take {found.choice.name}"),
    ]
    return [
        Difference(
            against=role,
            difference=over.difference,
            interval=_ends(over.interval, 1),
            seeds_interval=_ends(over.seeds_interval, 1),
            probability=over.probability,
            probability_interval=_ends(over.probability_interval, 1),
            verdict=verdict,
        )
        for role, over, verdict in rows
        if over is not None
    ]


def _said(verdict: Verdict | None) -> str:
    return verdict or "not shown"


def _ends(interval: Interval, sign: int) -> findings.Interval:
    return (interval.low, interval.high) if sign > 0 else (-interval.high, -interval.low)


def _lossy(found: conclusions.Confirmation) -> list[Contender]:
    return [each for each in found.contenders.values() if each.n_lost]


def _earlier(measure: Measure, found: conclusions.Confirmation) -> str:
    gain = found.over_unregularized
    told = (
        "" if gain is None else f" ({_amount(measure, gain.difference, signed=True)}, {_range(measure, gain.interval)})"
    )
    return f"{found.phase} said: {found.verdict}{told}."


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


# ---------------------------------------------------------------- ablation


def ablated(found: Ablation | None) -> findings.Ablation | None:
    """The page's table of effects, and of the interactions where there was a full factorial."""
    if found is None:
        return None
    return findings.Ablation(
        rows=[_effect(name, effect) for name, effect in found.effects.items()],
        interactions=[
            _effect(" × ".join(sorted(names)), effect) for names, effect in found.factorial.items() if len(names) > 1
        ],
        n_seeds=found.n_seeds,
        margin=found.margin,
        power=" ".join(found.reduced),
    )


def _effect(name: str, effect: Effect) -> findings.Ablated:
    return findings.Ablated(
        name=name,
        gain=effect.paired.mean,
        interval=_ends(effect.paired.interval, 1),
        effect=effect.label,
        seeds_needed=effect.seeds_needed,
        p_value=effect.p_value,
    )


# ---------------------------------------------------------------- what the winner said of the test set


def classified(evidence: Evidence) -> bool:
    """Whether the winner told classes, of which there are confusions and probabilities."""
    return bool(evidence.predictions) and all(
        stored["outputs"].shape[1] > 1 and np.issubdtype(stored["targets"].dtype, np.integer)
        for stored in evidence.predictions
    )


def confusion(evidence: Evidence, classes: Sequence[str]) -> findings.Confusions | None:
    """The winner's confusions, summed over its seeds.

    A class's recall is the mean over the seeds; its interval counts its test examples once, however many seeds there
    are, since all networks saw the same.
    """
    if not classified(evidence):
        return None
    counts_KK = np.sum([_counts(stored) for stored in evidence.predictions], axis=0)
    n_seeds = len(evidence.predictions)
    names = list(classes) if len(classes) == len(counts_KK) else [str(k) for k in range(len(counts_KK))]
    return findings.Confusions(
        counts=counts_KK.tolist(),
        recalls=[
            _recall(name, float(row[k]) / n_seeds, int(row.sum()) // n_seeds)
            for k, (name, row) in enumerate(zip(names, counts_KK, strict=True))
        ],
        n_seeds=n_seeds,
    )


def _counts(stored: Stored) -> NDArray[np.int64]:
    outputs, targets = stored["outputs"], stored["targets"].astype(np.int64)
    n = outputs.shape[1]
    return np.bincount(targets * n + outputs.argmax(axis=1), minlength=n * n).reshape(n, n)


def _recall(name: str, n_right: float, n: int) -> findings.Recall:
    return findings.Recall(
        name=name, recall=n_right / n if n else math.nan, interval=_ends(proportion(n_right, n), 1), n=n
    )


def calibrated(evidence: Evidence) -> findings.Calibration | None:
    """Means of the winner's seeds, with t-intervals over them; the bins hold all seeds' predictions together."""
    if not classified(evidence):
        return None
    outputs, targets = ([stored[name] for stored in evidence.predictions] for name in ("outputs", "targets"))
    each = [calibration(o, t) for o, t in zip(outputs, targets, strict=True)]
    eces, nlls = (paired([getattr(one, name) for one in each]) for name in ("ece", "nll"))
    return findings.Calibration(
        bins=reliability(np.concatenate(outputs), np.concatenate(targets)),
        ece=eces.mean,
        ece_interval=_ends(eces.interval, 1),
        nll=nlls.mean,
        nll_interval=_ends(nlls.interval, 1),
    )
