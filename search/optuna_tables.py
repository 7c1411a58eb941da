"""Optuna's tables, written many rows at a time.

Through `RDBStorage` every value is a transaction of its own that looks its trial up first: for a trial of 20 reports
0.1 s of CPU time, many times what it takes this way (tests/benchmarks/README.md). Optuna makes and reads the tables.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from search.contract import Value

STUDIES = models.StudyModel.__table__
STUDY_ATTRIBUTES = models.StudyUserAttributeModel.__table__
STUDY_SYSTEM = models.StudySystemAttributeModel.__table__
TRIALS = models.TrialModel.__table__
ATTRIBUTES = models.TrialUserAttributeModel.__table__
SYSTEM = models.TrialSystemAttributeModel.__table__
PARAMETERS = models.TrialParamModel.__table__
REPORTS = models.TrialIntermediateValueModel.__table__
VALUES = models.TrialValueModel.__table__
NOTE_PIECE = 2045
"""Characters. Source: SYSTEM_ATTR_MAX_LENGTH in optuna_dashboard/_note.py."""


def check_study(connection: sa.Connection, study_id: int, name: str) -> None:
    """Make sure that nobody has deleted the study.

    Raises:
        KeyError: somebody has.
    """
    mine = (STUDIES.c.study_id == study_id) & (STUDIES.c.study_name == name)
    if connection.scalar(sa.select(sa.func.count()).where(mine)) == 0:
        raise KeyError(name)


def new_trials(
    connection: sa.Connection,
    study_id: int,
    asked: Mapping[int, tuple[datetime, Mapping[str, Value]]],
    distributions: Mapping[str, BaseDistribution],
) -> dict[int, int]:
    """Add running trials, by number with when and what was asked; return number -> trial_id."""
    rows = [
        {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": at}
        for number, (at, _) in asked.items()
    ]
    connection.execute(sa.insert(TRIALS), rows)
    mine = (TRIALS.c.study_id == study_id) & TRIALS.c.number.in_(asked)
    found = connection.execute(sa.select(TRIALS.c.number, TRIALS.c.trial_id).where(mine))
    ids = {row.number: row.trial_id for row in found}
    texts = {name: distribution_to_json(kind) for name, kind in distributions.items()}
    parameters = [
        {
            "trial_id": ids[number],
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": texts[name],
        }
        for number, (_, raw) in asked.items()
        for name, value in raw.items()
    ]
    connection.execute(sa.insert(PARAMETERS), parameters)
    return ids


def set_attributes(connection: sa.Connection, table: sa.Table, owner: int, attributes: Mapping[str, object]) -> None:
    """Give a study or trial these attributes, in place of those of the same names."""
    owned_by = "trial_id" if "trial_id" in table.c else "study_id"
    mine = (table.c[owned_by] == owner) & table.c.key.in_(attributes)
    connection.execute(sa.delete(table).where(mine))
    rows = [{owned_by: owner, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]
    connection.execute(sa.insert(table), rows)


def set_reports(
    connection: sa.Connection, trial_id: int, values: Mapping[int, float], *, replacing: Collection[int] | None = None
) -> None:
    """Give a trial these intermediate values, finite ones, in place of those of the epochs `replacing`, or of all."""
    mine = REPORTS.c.trial_id == trial_id
    connection.execute(sa.delete(REPORTS).where(mine if replacing is None else mine & REPORTS.c.step.in_(replacing)))
    kind = models.TrialIntermediateValueModel.TrialIntermediateValueType.FINITE
    rows = [
        {"trial_id": trial_id, "step": step, "intermediate_value": value, "intermediate_value_type": kind}
        for step, value in values.items()
    ]
    if rows:
        connection.execute(sa.insert(REPORTS), rows)


def finish(
    connection: sa.Connection,
    trial_id: int,
    state: TrialState,
    value: float | None,
    *,
    began: datetime,
    ended: datetime,
) -> None:
    """Tell a trial's outcome, with the times of the ledger; Optuna would keep when it was told."""
    if value is not None:
        kind = models.TrialValueModel.TrialValueType.FINITE
        row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": kind}
        connection.execute(sa.insert(VALUES), row)
    told = {"state": state, "datetime_start": began, "datetime_complete": ended}
    connection.execute(sa.update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(told))


def set_note(connection: sa.Connection, study_id: int, trial_id: int | None, body: str) -> None:
    """Write the text on the page of a study or a trial, as `optuna_dashboard.save_note` stores it.

    That one would import scikit-learn, which takes 2 s, and read the notes of all trials to write one.
    """
    place = "dashboard" if trial_id is None else f"dashboard:{trial_id}"
    table, version, pieces = STUDY_SYSTEM, f"{place}:note_ver", f"{place}:note_str:"
    mine = table.c.study_id == study_id
    before = connection.scalar(sa.select(table.c.value_json).where(mine & (table.c.key == version)))
    connection.execute(sa.delete(table).where(mine & table.c.key.startswith(pieces, autoescape=True)))
    texts = [body[k : k + NOTE_PIECE] for k in range(0, len(body), NOTE_PIECE)]
    attributes = {f"{pieces}{k}": text for k, text in enumerate(texts)}
    set_attributes(connection, table, study_id, attributes | {version: int(before or 0) + 1})
