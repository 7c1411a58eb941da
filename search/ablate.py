"""`python -m search.ablate`: which of the winner's regularizers does anything, and what they do together."""

import time
from typing import TYPE_CHECKING, Any

import click

from search.options import CONTEXT, Duration, Request, begin, ended, options, stopped

if TYPE_CHECKING:
    from search.ablation import AblationPlan
    from search.definition import StudyDefinition
    from search.state import State


@click.command(context_settings=CONTEXT)
@options
@click.option("--budget", type=Duration(), metavar="TIME", help="Take about so long, as 20m: fewer seeds, all epochs.")
def main(budget: float | None, **given: Any) -> None:
    """Train the confirmed winner with each of its regularizers turned off, on the seeds it was confirmed on.

    Running the same command again continues what was interrupted, and prints the result of what is finished.
    """
    ended(lambda: ablate(begin(given), budget_s=budget))


def ablate(request: Request, *, budget_s: float | None = None) -> int:
    """Take the confirmed winner apart and print what was found; return the exit status.

    Raises:
        SearchError: there is no confirmed winner, or what search.session.taken_up raises.
    """
    from search.ablation import ablated, phase_after, sentences
    from search.confirmation import minutes
    from search.launch import orders
    from search.phase import run_phase, trained, undisturbed
    from search.records import read
    from search.session import taken_up

    definition, state = read(request.settings.workspace, request.study)
    confirmation = confirmed(definition, state)
    phase = phase_after(confirmation)
    plan = plan_of(definition, state, confirmation)
    if not plan.active():
        request.console.print("The winner has no active regularizer: there is nothing to take apart.")
        return 0
    if phase not in state.phases or not trained(state.phases[phase], plan):
        with taken_up(request.settings, request.console, request.study, request.changes) as session:
            n_trainers = len(orders(session.definition, session.first, session.opened))
            plan = plan_of(
                session.definition,
                session.state,
                confirmation,
                n_trainers=n_trainers,
                budget_s=budget_s,
                clock=time.time,
            )
            n_seeds = plan.n_seeds()
            n_runs = len(plan.configurations()) * n_seeds
            reason = run_phase(
                session,
                phase,
                plan,
                definition=undisturbed(session.definition),
                header=f"{request.study}, {phase}: the winner without {', '.join(plan.active())}: "
                f"{n_runs} runs on {n_seeds} of the winner's seeds, some {minutes(plan.expected_s(n_seeds))}",
                n_expected=n_runs,
            )
            state = session.state
        if reason != "done":
            return stopped(request, reason)
    found = ablated(plan_of(definition, state, confirmation), phase)
    for line in (*sentences(definition, found), f"To look further: python -m search.report --study {request.study}"):
        request.console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def confirmed(definition: "StudyDefinition", state: "State") -> str:
    """The last phase of the study that confirmed a winner.

    Raises:
        DefinitionError: there is none, or it is not through.
    """
    from search.confirm import finished
    from search.errors import DefinitionError

    through = finished(definition, state)
    if not through:
        raise DefinitionError(
            f"{definition.name}: no winner is confirmed yet, so that nothing can be taken apart. "
            f"Run python -m search.confirm --study {definition.name} first."
        )
    return through[-1]


def plan_of(definition: "StudyDefinition", state: "State", confirmation: str, **more: Any) -> "AblationPlan":
    from search.ablation import AblationPlan

    return AblationPlan(definition=definition, search=state, confirmation=confirmation, **more)


if __name__ == "__main__":
    main()
