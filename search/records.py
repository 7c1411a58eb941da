"""A study as its ledger tells it, for whoever only reads."""

from search.definition import StudyDefinition
from search.errors import LedgerError
from search.ledger import Ledger
from search.state import State, fold
from search.workspace import Workspace


def read(workspace: Workspace, study: str) -> tuple[StudyDefinition, State]:
    """Return the definition under which the study was begun, and its state.

    Raises:
        LedgerError: there is no such study here.
    """
    path = workspace.ledger(study)
    if not path.exists():
        known = sorted(each.parent.name for each in workspace.studies.glob("*/ledger.db"))
        listed = f"Studies that were run here: {', '.join(known)}." if known else "None was run here."
        raise LedgerError(f"{study}: there is no such study. {listed} Run it first: python -m search.run --study NAME.")
    ledger = Ledger(path)
    try:
        state = fold(ledger.events())
    finally:
        ledger.close()
    return StudyDefinition.model_validate(state.definition), state
