"""`python -m search.confirm`: is the gain real, how large is it on new data, and which configuration to take?"""

import time
from typing import TYPE_CHECKING, Any

import click

from search.options import CONTEXT, Duration, Request, begin, ended, options, stopped

if TYPE_CHECKING:
    from search.conclusions import Confirmation
    from search.confirmation import ConfirmationPlan
    from search.definition import StudyDefinition
    from search.session import Settings
    from search.state import State

KIND = "confirm"


@click.command(context_settings=CONTEXT)
@options
@click.option(
    "--budget", type=Duration(), metavar="TIME", help="Take about so long, as 20m: fewer runs, never shorter."
)
@click.option("--again", is_flag=True, help="Confirm anew, on new seeds: the test set is used once more.")
def main(budget: float | None, again: bool, **given: Any) -> None:
    """Train the best configurations of a finished search again, on fresh seeds, and measure them once on the test set.

    Running the same command again continues what was interrupted, and prints the result of what is finished.
    """

    ended(lambda: confirm(begin(given), budget_s=budget, again=again))


def confirm(request: Request, *, budget_s: float | None = None, again: bool = False) -> int:
    """Confirm the study's answer and print it; return the exit status.

    Raises:
        SearchError: there is nothing to confirm, or what search.session.taken_up raises.
    """
    from search.launch import orders
    from search.phase import run_phase, undisturbed
    from search.records import read
    from search.session import taken_up

    started, settings = time.monotonic(), request.settings
    definition, state = read(settings.workspace, request.study)
    check(definition, state)
    phase = current(definition, state, again=again)
    if phase not in finished(definition, state):
        with taken_up(settings, request.console, request.study, request.changes) as session:
            plan = plan_of(
                session.definition,
                session.state,
                phase,
                n_trainers=len(orders(session.definition, session.first, session.opened)),
                budget_s=budget_s,
                elapsed_s=lambda: time.monotonic() - started,
                clock=time.time,
            )
            reason = run_phase(
                session,
                phase,
                plan,
                definition=undisturbed(session.definition),
                header=_header(plan, session.state, phase),
                tested="final",
                n_expected=plan.n_runs(),
            )
            state = session.state
        if reason != "done":
            return stopped(request, reason)
    _print(definition, state, phase, request)
    return 0


def check(definition: "StudyDefinition", state: "State") -> None:
    """Refuse what cannot be confirmed.

    Raises:
        DefinitionError: why, and what to do.
    """
    from search.errors import DefinitionError

    if state.measured_on != "held_out":
        raise DefinitionError(
            f"{definition.name}: its trials were measured on {_MEASURED[state.measured_on]}, so that no examples are "
            "left to confirm anything on. Give [data] validation a number of examples, in another study."
        )
    if not definition.metric.startswith("val_"):
        raise DefinitionError(
            f"{definition.name}: it judges by {definition.metric}, which says nothing of new data. Search by one of "
            "the validation set, such as val_accuracy, in another study."
        )
    if not state.ranked(maximize=definition.maximize):
        raise DefinitionError(
            f"{definition.name}: no trial is complete yet. Run python -m search.run --study {definition.name} first."
        )


_MEASURED = {"train": "the training examples themselves", "original_test": "the published test set"}


def current(definition: "StudyDefinition", state: "State", *, again: bool) -> str:
    """The phase that the command is about: the last one, or a new one.

    Raises:
        DefinitionError: another one is asked for while the last is not through.
    """
    from search.errors import DefinitionError
    from search.phase import following, numbered

    known = numbered(state, KIND)
    if not known:
        return following(state, KIND)
    if again and known[-1] not in finished(definition, state):
        raise DefinitionError(
            f"{definition.name}: {known[-1]} is not finished. Finish it without --again, which would use the test set "
            "once more."
        )
    return following(state, KIND) if again else known[-1]


def finished(definition: "StudyDefinition", state: "State") -> list[str]:
    """The confirmations that are through, in order: trained and tested."""
    from search.phase import numbered, trained, untested

    return [
        name
        for name in numbered(state, KIND)
        if trained(state.phases[name], plan_of(definition, state, name)) and not untested(state.phases[name])
    ]


def plan_of(definition: "StudyDefinition", state: "State", phase: str, **more: Any) -> "ConfirmationPlan":
    from search.confirmation import ConfirmationPlan

    return ConfirmationPlan(definition=definition, search=state, phase=phase, **more)


def found(definition: "StudyDefinition", state: "State", phase: str, settings: "Settings") -> "Confirmation":
    """The conclusions of a phase that is through, from the ledger and the stored predictions."""
    from search.conclusions import concluded
    from search.predictions import Floats, read, scores
    from search.state import Trial

    folder = settings.workspace.study(definition.name) / phase
    tests = [run.tested for run in state.phases[phase].trials.values() if run.tested is not None]

    def scored(run: Trial) -> Floats:
        assert run.tested is not None
        stored = read(folder / run.tested.predictions, run.tested)
        return scores(stored, run.tested, metric=definition.metric, maximize=definition.maximize)

    return concluded(definition, state, phase, scored, n_examples=tests[0].n_examples if tests else 0)


def _print(definition: "StudyDefinition", state: "State", phase: str, request: Request) -> None:
    from search.conclusions import sentences

    lines = [
        *sentences(definition, found(definition, state, phase, request.settings)),
        *_notes(state, phase),
        f"To look further: python -m search.ablate --study {definition.name}",
        f"                 python -m search.report --study {definition.name}",
    ]
    for line in lines:
        request.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _notes(state: "State", phase: str) -> list[str]:
    """How often the test set was used, and whether the search went on since."""
    n_used = len(state.tests)
    notes = ["The test set was used once; the ledger says so."]
    if n_used > 1:
        notes = [
            f"The test set was used {n_used} times: what was chosen after the first is not confirmed on unseen data."
        ]
    planned_at = state.phases[phase].stages["select"].at
    if n_later := sum((trial.finished_at or 0.0) > planned_at for trial in state.finished):
        notes.append(
            f"The search has finished {n_later} more trials since; --again confirms anew, on the same test set."
        )
    return notes


def _header(plan: "ConfirmationPlan", state: "State", phase: str) -> str:
    from search.confirmation import N_RATES, minutes
    from search.result import examples

    assert state.created is not None
    effort = plan.effort()
    expected_s = plan.expected_s(effort)
    lines = [
        f"{plan.definition.name}, {phase}: {effort.candidates} configurations and the baseline on "
        f"{effort.select_seeds} fresh seeds each, a sweep of {N_RATES} learning rates without "
        f"regularization, the final four on {effort.final_seeds} more, tested once: about {plan.n_runs()} runs of "
        f"{plan.definition.epochs} epochs, some {minutes(expected_s)}",
        f"data: {examples(state.created.facts)}",
    ]
    if plan.budget_s is not None and expected_s > plan.budget_s:
        lines.append(f"That is the least that says anything; it will exceed the budget of {minutes(plan.budget_s)}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
