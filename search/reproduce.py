"""`python -m search.reproduce`: train one trial again, as it was, and say whether it gives the same."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from search.options import CONTEXT, Request, begin, ended, options, stopped

if TYPE_CHECKING:
    from search.state import State, Trial

KIND = "reproduce"


@click.command(context_settings=CONTEXT)
@options
@click.option("--trial", required=True, type=int, metavar="N", help="The trial's number.")
def main(trial: int, **given: Any) -> None:
    """Train a trial of a study again, with its own seed, and say: identical, equal up to rounding, or different.

    It differs in nothing but its company: it trains alone. Exit status 1 where it is different.
    """
    ended(lambda: reproduce(begin(given), trial))


def reproduce(request: Request, number: int) -> int:
    """Train the trial again and print how it compares; return the exit status.

    Raises:
        SearchError: there is no such trial, or what search.session.taken_up raises.
    """
    from search.definition import Pruning
    from search.phase import following, run_phase
    from search.records import read
    from search.reproduction import ReproductionPlan, compared
    from search.session import taken_up

    definition, state = read(request.settings.workspace, request.study)
    trial = _trial(definition.name, state.trials, number)
    with taken_up(request.settings, request.console, request.study, request.changes) as session:
        undisturbed = Pruning(kind="none", patience=definition.pruning.patience)
        runs = session.definition.model_copy(update={"pruning": undisturbed, "timeout_s": None})
        plan = ReproductionPlan(definition=session.definition, trial=trial, clock=time.time)
        phase = _unfinished(session.state, number) or following(session.state, KIND)
        reason = run_phase(
            session,
            phase,
            plan,
            definition=runs,
            header=f"{request.study}, {phase}: trial {number} again, {definition.epochs} epochs",
            n_expected=1,
            seeds=plan.seeds,
        )
        state = session.state
    if reason != "done":
        return stopped(request, reason)
    assert state.created is not None
    run = state.phases[phase].trials[0]
    found = compared(definition, trial, run, precision=state.created.precision)
    request.console.print(
        f"Trial {number}: {found.verdict}: {found.why}.", markup=False, highlight=False, soft_wrap=True
    )
    return 0 if found.verdict != "different" else 1


def _trial(study: str, trials: "Mapping[int, Trial]", number: int) -> "Trial":
    from search.errors import DefinitionError

    if (trial := trials.get(number)) is not None and any(report.epoch > 0 for report in trial.reports):
        return trial
    trained = [str(n) for n, each in trials.items() if any(report.epoch > 0 for report in each.reports)]
    raise DefinitionError(
        f"--trial: {study} has no trial {number} that trained an epoch. It has {', '.join(trained) or 'none'}."
    )


def _unfinished(state: "State", number: int) -> str | None:
    """The phase that an interrupted reproduction of this trial left."""
    from search.phase import numbered

    return next(
        (
            name
            for name in numbered(state, KIND)
            if [t.configuration for t in state.phases[name].trials.values()] == [f"trial {number}"]
            and not state.phases[name].finished
        ),
        None,
    )


if __name__ == "__main__":
    main()
