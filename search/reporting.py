"""What a report says of a study: its findings, from the ledger's state and what the networks predicted. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median_low

from scipy import special

from search import findings, headline, landscape
from search import provenance as origin
from search.ablation import phase_after
from search.cautions import warnings
from search.conclusions import active
from search.contract import Value
from search.definition import StudyDefinition
from search.diagnoses import Diagnoses
from search.diagnosis import REMEDIES, Diagnosis
from search.findings import Diagnosed, Dose, Found, Learning, Measure, Report, Row, Setting, capitalized
from search.headline import Evidence
from search.importance import importance
from search.landscape import Bin, dose_response, expected_best
from search.result import shown
from search.space import Bool, Parameter, is_off
from search.state import State, Trial

N_BEST = 5
UNCONFIRMABLE = {
    "train": "it was measured on its own training examples, which say nothing of new data",
    "original_test": "it was measured on the published test set, so that no unseen data are left",
}
"""By what the trials were measured on."""
INSTEAD = "Give [data] validation a number of examples, in another study."


def reported(definition: StudyDefinition, state: State, evidence: Evidence, *, written: str) -> Report:
    """Return all that the page says of a study, be it finished, under way or never confirmed.

    Args:
        written: the date of the report.
    """
    measure, why_not = measured(definition, state), unconfirmable(definition, state)
    diagnosed = Diagnoses().of(state)
    best = state.ranked(maximize=definition.maximize)[:N_BEST]
    return Report(
        study=definition.name,
        title=definition.title,
        question=definition.question,
        written=written,
        measure=measure,
        so_far=_so_far(definition, state, evidence),
        unconfirmable=why_not,
        unablated=_unablated(definition, state, evidence, why_not),
        found=_found(state, best, measure),
        confirmation=headline.confirmation(definition, measure, evidence),
        settings=_settings(definition, evidence, best),
        best=[_row(definition, trial, diagnosed[trial.number]) for trial in best],
        ablation=headline.ablated(evidence.ablation),
        doses=list(_doses(definition, state, evidence)),
        best_curves=[
            _learning(trial, f"Trial {trial.number}", _told(measure, trial)) for trial in best if _curves(trial)
        ],
        typical_curves=list(_typical(state, diagnosed)),
        diagnoses=_diagnoses(diagnosed),
        importance=_importance(definition, state),
        warnings=warnings(definition, state),
        expected_best=[(b.n_trials, b.expected, b.low, b.high) for b in expected_best(definition, state)],
        confusion=headline.confusion(evidence, _classes(state)),
        calibration=headline.calibrated(evidence),
        cost=origin.cost(definition, state) if state.trials else None,
        phase_costs=origin.phase_costs(definition, state),
        provenance=origin.provenance(definition, state),
        test_uses=origin.test_uses(state),
        commands=origin.commands(state, _origin(state, evidence, best), confirmable=not why_not),
    )


def measured(definition: StudyDefinition, state: State) -> Measure:
    """What the study is judged by, in words: val_accuracy is the accuracy of validation examples."""
    part, _, name = definition.metric.partition("_")
    if part not in ("val", "train"):
        name = definition.metric
    on = {"train": "training", "original_test": "published test"}.get(state.measured_on, "validation")
    return Measure(
        name=name.replace("_", " "),
        percent=definition.metric.endswith("accuracy"),
        maximize=definition.maximize,
        on="training" if part == "train" else on,
    )


def unconfirmable(definition: StudyDefinition, state: State) -> str:
    """Why the study cannot be confirmed, and what to do; empty where it can."""
    if state.measured_on != "held_out":
        return f"{UNCONFIRMABLE[state.measured_on]}. {INSTEAD}"
    if not definition.metric.startswith("val_"):
        return (
            f"it judges by {definition.metric}, which says nothing of new data. Search by one of the validation set, "
            "in another study."
        )
    return ""


def _so_far(definition: StudyDefinition, state: State, evidence: Evidence) -> str:
    n = max(definition.n_trials, len(state.trials))
    parts = [] if len(state.finished) >= n else [f"{len(state.finished)} of {n} trials finished"]
    through = {each.phase for each in evidence.confirmations} | (
        {evidence.ablation.phase} if evidence.ablation else set()
    )
    parts += [
        f"{name} not finished"
        for name, phase in state.phases.items()
        if name not in through and (not name.startswith("reproduce-") or len(phase.finished) < len(phase.trials))
    ]
    return f"so far: {', '.join(parts)}" if parts else ""


def _unablated(definition: StudyDefinition, state: State, evidence: Evidence, why_not: str) -> str:
    if why_not:
        return "Not ablated: only a confirmed winner can be taken apart."
    if (last := evidence.last) is None:
        return ""
    if not active(definition, last.winner.values):
        return "The winner has no active regularizer: there is nothing to take apart."
    phase = phase_after(last.phase)
    if phase in state.phases and evidence.ablation is None:
        return f"{phase} is not finished: run python -m search.ablate --study {definition.name}, which continues it."
    return ""


# ---------------------------------------------------------------- the best trials


def _found(state: State, best: Sequence[Trial], measure: Measure) -> Found | None:
    assert state.created is not None
    facts = state.created.facts
    if not best or best[0].value is None:
        return None
    n_examples = facts["n_train" if measure.on == "training" else "n_validation"]
    return Found(trial=best[0].number, value=best[0].value, n_trials=len(state.finished), n_examples=int(n_examples))


def _settings(definition: StudyDefinition, evidence: Evidence, best: Sequence[Trial]) -> list[Setting]:
    if evidence.last is not None:
        values = evidence.last.winner.values
    elif best:
        values = best[0].hyperparameters
    else:
        return []
    return [_setting(name, p, definition.baseline[name], values[name]) for name, p in definition.space.items()]


def _setting(name: str, parameter: Parameter, baseline: Value, winner: Value) -> Setting:
    on = [parameter.regularizer and not is_off(parameter, value) for value in (baseline, winner)]
    told = [_strength(parameter, value) for value in (baseline, winner)]
    return Setting(
        name=name,
        baseline=told[0],
        winner=told[1],
        regularizer=parameter.regularizer,
        baseline_on=on[0],
        winner_on=on[1],
    )


def _strength(parameter: Parameter, value: Value) -> str:
    """Empty where on or off says it all."""
    if parameter.regularizer and (isinstance(parameter, Bool) or is_off(parameter, value)):
        return ""
    return shown(value)


def _row(definition: StudyDefinition, trial: Trial, diagnosis: Diagnosis | None) -> Row:
    assert trial.value is not None
    return Row(
        trial=trial.number,
        value=trial.value,
        best_epoch=trial.best_epoch or 0,
        diagnosis=diagnosis.label if diagnosis else "",
        settings=[_cell(p, trial.hyperparameters[name]) for name, p in definition.space.items()],
    )


def _cell(parameter: Parameter, value: Value) -> str:
    return "off" if parameter.regularizer and is_off(parameter, value) else shown(value)


def _told(measure: Measure, trial: Trial) -> str:
    return "" if trial.value is None else measure.told(trial.value)


def _origin(state: State, evidence: Evidence, best: Sequence[Trial]) -> int | None:
    """The trial that the winner was, or the search's best."""
    if evidence.last is not None:
        word, _, number = evidence.last.winner.name.partition(" ")
        if word == "trial":
            return int(number)
        return state.baseline.number if state.baseline else None
    return best[0].number if best else None


# ---------------------------------------------------------------- curves and diagnoses


def _learning(trial: Trial, title: str, note: str) -> Learning:
    train, val = ([(r.epoch, r.metrics[name]) for r in trial.reports if name in r.metrics] for name in LOSSES)
    return Learning(title=title, note=note, train=train, val=val, best_epoch=trial.best_epoch)


LOSSES = ("train_loss", "val_loss")


def _curves(trial: Trial) -> bool:
    return any(math.isfinite(report.metrics.get(name, math.nan)) for report in trial.reports for name in LOSSES)


def _typical(state: State, diagnosed: Mapping[int, Diagnosis | None]) -> Iterator[Learning]:
    """Of each diagnosis the trial whose value is the median."""
    for label in REMEDIES:
        trials = [state.trials[n] for n, found in diagnosed.items() if found and found.label == label]
        if not (trials := [trial for trial in trials if _curves(trial)]):
            continue
        middle = median_low([_order(trial) for trial in trials])
        typical = next(trial for trial in trials if _order(trial) == middle)
        yield _learning(typical, capitalized(label), f"trial {typical.number}")


def _order(trial: Trial) -> float:
    return trial.value if trial.value is not None and math.isfinite(trial.value) else -math.inf


def _diagnoses(diagnosed: Mapping[int, Diagnosis | None]) -> list[Diagnosed]:
    labels = [found.label for found in diagnosed.values() if found]
    return [
        Diagnosed(label=label, count=labels.count(label), remedy=remedy)
        for label, remedy in REMEDIES.items()
        if label in labels
    ]


def _classes(state: State) -> list[str]:
    assert state.created is not None
    return [str(each) for each in state.created.facts.get("classes", ())]


# ---------------------------------------------------------------- the space


def _importance(definition: StudyDefinition, state: State) -> list[findings.Importance]:
    return [
        findings.Importance(
            parameter=each.name,
            ped_anova=(each.ped_anova, each.ped_anova_interval),
            fanova=(each.fanova, each.fanova_interval),
        )
        for each in importance(definition, state, seed=definition.seed).parameters
    ]


def _doses(definition: StudyDefinition, state: State, evidence: Evidence) -> Iterator[Dose]:
    """Of each regularizer whose values have a scale."""
    best = state.ranked(maximize=definition.maximize)[:1]
    values = evidence.last.winner.values if evidence.last else best[0].hyperparameters if best else definition.baseline
    for found in dose_response(definition, state):
        parameter = definition.space[found.name]
        if not found.points or not all(isinstance(p.value, int | float) for p in found.points):
            continue
        yield Dose(
            parameter=found.name,
            points=[(_dose(parameter, p.value), p.response, p.outcome == "pruned") for p in found.points],
            trend=[_binned(each) for each in found.trend],
            log=found.log,
            switch=isinstance(parameter, Bool),
            winner=_dose(parameter, values[found.name]),
        )


def _dose(parameter: Parameter, value: Value) -> float | None:
    return None if is_off(parameter, value) else float(landscape.number(value))


def _binned(found: Bin) -> tuple[float | None, float, float, float]:
    """A bin at the middle of its doses, with its mean's t-interval; that of one trial is a point."""
    low, high = float(landscape.number(found.low)), float(landscape.number(found.high))
    half = 0.0
    if found.standard_error is not None:
        half = float(special.stdtrit(found.n_trials - 1, 0.975)) * found.standard_error
    middle = math.sqrt(low * high) if low > 0 else (low + high) / 2
    return None if found.off else middle, found.mean, found.mean - half, found.mean + half
