"""Claims of search/optuna_tables.py, against what Optuna itself writes through its storage."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import get_note, save_note

from search import optuna_tables as tables
from search import space
from search.definition import StudyDefinition
from search.optuna_view import open_storage
from search.workspace import sqlite_url
from tests.histories import DEFINITION

KINDS = {name: space.distribution(kind) for name, kind in StudyDefinition.model_validate(DEFINITION).space.items()}
RAW = {"lr": 1e-3, "l1": 1e-7, "batch_norm": True, "width": 128}
BEGAN, ENDED = datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 3, 9)
ATTRIBUTES: Mapping[str, Any] = {"reason": "rung", "best_epoch": 2, "interrupted": "", "hidden": [64, 32], "x": None}
VALUES = {0: 0.1, 1: 0.25, 2: 1 / 3}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[RDBStorage]:
    opened = open_storage(sqlite_url(tmp_path / "optuna.db"))
    yield opened
    opened.engine.dispose()


def study_of(storage: RDBStorage, name: str) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name=name, direction="maximize")


def asked(state: TrialState, value: float | None) -> FrozenTrial:
    frozen = create_trial(
        state=state,
        value=value,
        params=RAW,
        distributions=KINDS,
        user_attrs=dict(ATTRIBUTES),
        intermediate_values=VALUES,
    )
    frozen.datetime_start = BEGAN
    return frozen


def rows(storage: RDBStorage, table: str) -> list[dict[str, Any]]:
    """What a table holds, without its numbering."""
    with storage.engine.connect() as connection:
        found = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings().all()
    kept = [{k: v for k, v in each.items() if not k.endswith("_id")} for each in found]
    return sorted(kept, key=lambda each: str(sorted(each.items(), key=str)))


@pytest.mark.parametrize(
    ("state", "value"), [(TrialState.COMPLETE, 1 / 3), (TrialState.PRUNED, 0.25), (TrialState.FAIL, None)]
)
def test_trial_reads_as_if_optuna_had_written_it(storage: RDBStorage, state: TrialState, value: float | None) -> None:
    theirs = study_of(storage, "theirs")
    frozen = create_trial(
        state=state,
        value=value,
        params=RAW,
        distributions=KINDS,
        user_attrs=dict(ATTRIBUTES),
        intermediate_values=VALUES,
    )
    frozen.datetime_start, frozen.datetime_complete = BEGAN, ENDED
    theirs.add_trial(frozen)
    ours = study_of(storage, "ours")
    with storage.engine.begin() as connection:
        ids = tables.new_trials(connection, ours._study_id, {0: (BEGAN, RAW)}, KINDS)
        tables.set_attributes(connection, tables.ATTRIBUTES, ids[0], ATTRIBUTES)
        tables.set_reports(connection, ids[0], VALUES)
        tables.finish(connection, ids[0], state, value, began=BEGAN, ended=ENDED)

    def plain(trial: FrozenTrial) -> dict[str, Any]:
        return {name: field for name, field in vars(trial).items() if name != "_trial_id"}

    assert plain(ours.trials[0]) == plain(theirs.trials[0])


def test_rows_are_those_that_optuna_writes(tmp_path: Path) -> None:
    stores = [open_storage(sqlite_url(tmp_path / name)) for name in ("theirs.db", "ours.db")]
    studies = [study_of(storage, "s") for storage in stores]
    frozen = create_trial(
        state=TrialState.RUNNING,
        params=RAW,
        distributions=KINDS,
        user_attrs=dict(ATTRIBUTES),
        intermediate_values=VALUES,
    )
    frozen.datetime_start = BEGAN
    studies[0].add_trial(frozen)
    with stores[1].engine.begin() as connection:
        ids = tables.new_trials(connection, studies[1]._study_id, {0: (BEGAN, RAW)}, KINDS)
        tables.set_attributes(connection, tables.ATTRIBUTES, ids[0], ATTRIBUTES)
        tables.set_reports(connection, ids[0], VALUES)
    for table in ("trials", "trial_params", "trial_user_attributes", "trial_intermediate_values"):
        assert rows(stores[1], table) == rows(stores[0], table)


def test_reports_replace_those_of_their_epochs_or_all(storage: RDBStorage) -> None:
    study = study_of(storage, "s")
    with storage.engine.begin() as connection:
        ids = tables.new_trials(connection, study._study_id, {0: (BEGAN, RAW)}, KINDS)
        tables.set_reports(connection, ids[0], VALUES)
        tables.set_reports(connection, ids[0], {2: 0.5}, replacing={2, 3})
    assert study.trials[0].intermediate_values == VALUES | {2: 0.5}
    with storage.engine.begin() as connection:
        tables.set_reports(connection, ids[0], {1: 0.75})
    assert study.trials[0].intermediate_values == {1: 0.75}


@pytest.mark.parametrize("before", ["", "short", "x" * 5000])
@pytest.mark.parametrize("body", ["# title", "ä" * 4500])
def test_note_is_read_by_the_dashboard_and_replaces_one_that_a_user_wrote(
    storage: RDBStorage, before: str, body: str
) -> None:
    study = study_of(storage, "s")
    study.add_trial(create_trial(state=TrialState.RUNNING))
    trial_id = study.trials[0]._trial_id
    trial = optuna.trial.Trial(study, trial_id)
    if before:
        save_note(study, before)
        save_note(trial, before)
    with storage.engine.begin() as connection:
        tables.set_note(connection, study._study_id, None, body)
        tables.set_note(connection, study._study_id, trial_id, body + "!")
    assert get_note(study) == body
    assert get_note(trial) == body + "!"
    save_note(study, "once more")
    assert get_note(study) == "once more"


def test_a_thousand_trials_are_numbered_as_they_were_asked(storage: RDBStorage) -> None:
    study = study_of(storage, "s")
    with storage.engine.begin() as connection:
        ids = tables.new_trials(connection, study._study_id, dict.fromkeys(range(1000), (BEGAN, RAW)), KINDS)
    assert [trial.number for trial in study.get_trials(deepcopy=False)] == list(range(1000))
    assert [trial._trial_id for trial in study.get_trials(deepcopy=False)] == [ids[number] for number in range(1000)]


def test_deleted_study_is_noticed(storage: RDBStorage) -> None:
    study = study_of(storage, "s")
    with storage.engine.begin() as connection:
        tables.check_study(connection, study._study_id, "s")
        with pytest.raises(KeyError):
            tables.check_study(connection, study._study_id, "another")
