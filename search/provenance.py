"""Where a report's numbers come from: data, split, seeds, versions, devices, cost, uses of the test set. Pure."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from search.cost import epochs_saved, epochs_trained, trainer_seconds, wall_seconds
from search.definition import StudyDefinition
from search.events import TestSetUsed
from search.findings import Cost, UseOfTestSet
from search.reproduction import compared
from search.result import examples
from search.state import State


def provenance(definition: StudyDefinition, state: State) -> list[tuple[str, str]]:
    """Rows of (what, told), those that there is something to tell of."""
    assert state.created is not None
    created, facts = state.created, state.created.facts
    rows = [
        ("Data", f"{examples(facts)}; checksum {facts['checksum']}"),
        ("Split", _split(definition, facts)),
        ("Test set", _test_set(state)),
        ("Search", _search(definition)),
        ("Seeds", _seeds(definition, state)),
        ("Versions", ", ".join(f"{name} {version}" for name, version in created.versions.items())),
        ("Device", _devices(state)),
        ("Precision", f"training in {created.precision}, measured in float32"),
        ("Commit", created.commit),
        ("Begun", f"{date(created.at)} UTC"),
        ("Fingerprint of the definition", created.fingerprint),
        *(("Reproduced", told) for told in _reproduced(definition, state)),
    ]
    return [(name, told) for name, told in rows if told]


def date(at: float) -> str:
    """Of seconds since the epoch: "2026-03-14 10:12", UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _split(definition: StudyDefinition, facts: Mapping[str, Any]) -> str:
    if facts.get("validation", "held_out") != "held_out":
        return ""
    folds = f", {definition.folds} folds" if definition.folds else ""
    asked = ", ".join(f"{name} = {value}" for name, value in definition.data.items() if name not in ("name", "path"))
    return f"by the study’s seed, {definition.seed}{folds}{f' ({asked})' if asked else ''}"


def _test_set(state: State) -> str:
    tested = [run.tested for phase in state.phases.values() for run in phase.trials.values() if run.tested is not None]
    found = {f"{each.n_examples:,} examples, checksum {each.checksum}": None for each in tested}
    found |= {f"checksum {used.checksum}": None for used in state.tests if used.checksum}
    return "; ".join(found)


def _search(definition: StudyDefinition) -> str:
    pruning = definition.pruning
    rungs = (
        f"successive halving (eta {pruning.eta}, from epoch {pruning.min_epochs})"
        if pruning.kind == "successive_halving"
        else "no pruning"
    )
    several = f", {definition.n_replicates} networks a trial" if definition.n_replicates > 1 else ""
    return (
        f"{definition.n_trials} trials of at most {definition.epochs} epochs{several}, sampler {definition.sampler}, "
        f"{rungs}; {definition.metric}, {definition.direction}d"
    )


def _seeds(definition: StudyDefinition, state: State) -> str:
    told = [f"study {definition.seed}"]
    for name, phase in state.phases.items():
        stages = [
            f"{len(stage.seeds)} to {_PURPOSES[each]}" for each, stage in phase.stages.items() if each in _PURPOSES
        ]
        told += [f"{name}: {', '.join(stages)}"] if stages else []
    return "; ".join(told)


_PURPOSES = {
    "select": "choose winner and runner-up",
    "sweep": "choose the best unregularized",
    "final": "compare on the test set",
    "ablation": "ablate (those of the winner’s final runs)",
}
"""What fresh seeds were for, by stage."""


def _devices(state: State) -> str:
    sessions = [*state.sessions, *(session for phase in state.phases.values() for session in phase.sessions)]
    told = {f"{each.device}, {each.n_trainers} trainer{'s' * (each.n_trainers != 1)}": None for each in sessions}
    return "; ".join(told)


def _reproduced(definition: StudyDefinition, state: State) -> Iterator[str]:
    assert state.created is not None
    for name, phase in state.phases.items():
        for run in phase.finished:
            word, _, number = run.configuration.partition(" ")
            if name.startswith("reproduce-") and word == "trial" and (trial := state.trials.get(int(number))):
                found = compared(definition, trial, run, precision=state.created.precision)
                yield f"{run.configuration}: {found.verdict}: {found.why}"


# ---------------------------------------------------------------- cost


def cost(definition: StudyDefinition, state: State) -> Cost:
    """Of a search, or of a phase."""
    return Cost(
        n_trials=len(state.finished),
        epochs_trained=epochs_trained(state),
        epochs_saved=epochs_saved(state, epochs=definition.epochs),
        wall_s=wall_seconds(state),
        trainer_s=math.fsum(trainer_seconds(state).values()),
    )


def phase_costs(definition: StudyDefinition, state: State) -> list[tuple[str, Cost]]:
    return [(name, cost(definition, phase)) for name, phase in state.phases.items()]


# ---------------------------------------------------------------- the test set, and the way back


def test_uses(state: State) -> list[UseOfTestSet]:
    """The test set's own ledger."""
    return [_use(state, used) for used in state.tests]


def _use(state: State, used: TestSetUsed) -> UseOfTestSet:
    if used.purpose not in state.phases:
        purpose = f"{used.purpose}: every epoch of every trial was measured on it"
        return UseOfTestSet(date=date(used.at), purpose=purpose, n_networks=len(state.trials))
    runs = [run for run in state.phases[used.purpose].trials.values() if run.tested is not None]
    names = ", ".join(dict.fromkeys(run.configuration for run in runs))
    purpose = f"{used.purpose}: {names}" if names else used.purpose
    return UseOfTestSet(date=date(used.at), purpose=purpose, n_networks=len(runs))


def commands(state: State, trial: int | None, *, confirmable: bool) -> list[str]:
    """What makes all of this again, and the trial that the answer rests on."""
    answer = ("confirm", "ablate") if confirmable else ()
    told = [f"python -m search.{command} --study {state.study}" for command in ("run", *answer, "report")]
    return told if trial is None else [*told, f"python -m search.reproduce --study {state.study} --trial {trial}"]
