"""Optuna's storage as a view of the ledger: what the Optuna dashboard and `optuna.load_study` show.

Optuna freezes a finished trial, so everything is attached first and its outcome told last. Trials are brought to the
state the ledger gives them, whatever the storage holds already: writing twice changes nothing.
"""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from filelock import FileLock
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search import figures, space
from search.definition import StudyDefinition
from search.errors import ViewError
from search.events import Event, StudyCreated
from search.follower import ledger_id, shown, sqlite_file
from search.state import State
from search.state import Trial as StudyTrial

CURSOR, LEDGER = "ledger_seq", "ledger"
LINK = "mlflow_run"
LINK_WAIT_S = 3.0
"""How long a finished trial waits for its MLflow run, once, before it is told without the link."""
DASHBOARD = "http://127.0.0.1:8080/dashboard"

_INTERMEDIATE = sa.table("trial_intermediate_values", sa.column("trial_id"), sa.column("step"))
_TRIALS = sa.table("trials", sa.column("trial_id"), sa.column("datetime_start"), sa.column("datetime_complete"))


class OptunaView:
    name = "Optuna"
    pause_s = 0.5

    def __init__(
        self,
        study: str,
        storage_url: str,
        artifacts: Path,
        figures: Path,
        run_url: Callable[[int, int], str | None],
    ) -> None:
        """Make the view; nothing is opened or created yet.

        Args:
            storage_url: as SQLAlchemy takes it.
            artifacts: where the files lie that the dashboard shows, of all studies.
            figures: where this study's pictures are drawn.
            run_url: (trial, attempt) -> the address of its MLflow run, None while there is none.
        """
        self._name = study
        self._url = storage_url
        self._artifacts = artifacts
        self._figures = figures
        self._run_url = run_url
        self._storage: RDBStorage | None = None
        self._study: Study | None = None
        self._ids: list[int] = []
        self._linked: dict[int, str | None] = {}
        self._unlinked: dict[int, int] = {}
        self._wait_s = LINK_WAIT_S
        self._noted = ""
        self._shown_url = shown(storage_url)

    def check(self) -> None:
        """Make sure that the storage can be used, without creating anything.

        Raises:
            ViewError: it cannot.
        """
        with trouble(self._shown_url):
            path = sqlite_file(self._url)
            if path is None or path.exists():
                sa.create_engine(self._url).connect().close()

    def prepare(self) -> None:
        """Connect, and create the database if it is missing.

        Raises:
            ViewError: the storage cannot be reached or written.
        """
        with trouble(self._shown_url):
            self._storage = open_storage(self._url)
            self._artifacts.mkdir(parents=True, exist_ok=True)

    def open(self, created: StudyCreated) -> int:
        """Find or create the study; return the last sequence number it holds.

        Raises:
            ViewError: a study of this name is there that this ledger did not write.
        """
        assert self._storage is not None, "prepare() comes first"
        with trouble(self._shown_url):
            study = optuna.create_study(
                study_name=self._name,
                storage=self._storage,
                direction=created.definition["direction"],
                sampler=RandomSampler(),  # nothing is asked here
                load_if_exists=True,
            )
            if LEDGER not in study.user_attrs and not study.trials:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)
                    study.set_metric_names([created.definition["metric"]])
                study.set_user_attr(LEDGER, ledger_id(created))
            if study.user_attrs.get(LEDGER) != ledger_id(created):
                raise ViewError(
                    f"{self._shown_url}: the Optuna study {self._name!r} was not written from this study's ledger. "
                    f"Remove it (python -m search.delete --study {self._name}) or start under another --name."
                )
            trials = study.get_trials(deepcopy=False)
            self._ids = [trial._trial_id for trial in trials]
            self._linked = {t.number: t.user_attrs.get(LINK) for t in trials if t.state.is_finished()}
            self._unlinked = {t.number: t.user_attrs["attempt"] for t in trials if t.state.is_finished()}
            self._study = study
            return int(study.user_attrs.get(CURSOR, 0))

    def take(self, events: Sequence[tuple[int, Event]], state: State) -> None:
        with trouble(self._shown_url):
            study, storage = self._opened
            for number in sorted({event.trial for _, event in events if hasattr(event, "trial")}):
                while len(self._ids) <= number:
                    self._ids.append(storage.create_new_trial(study._study_id, _asked(state, len(self._ids))))
                self._bring_up_to_date(state.trials[number], state)
            self._add_late_links()
            self._write_note(state)
            study.set_user_attr(CURSOR, events[-1][0])

    def trial_url(self, trial: int) -> str | None:
        """The trial's page in the dashboard at its default address; None while the study is unknown."""
        return f"{DASHBOARD}/studies/{self._study._study_id}/trials?numbers={trial}" if self._study else None

    @property
    def _opened(self) -> tuple[Study, RDBStorage]:
        assert self._study is not None, "open() comes first"
        assert self._storage is not None
        return self._study, self._storage

    def _bring_up_to_date(self, trial: StudyTrial, state: State) -> None:
        _, storage = self._opened
        trial_id = self._ids[trial.number]
        frozen = storage.get_trial(trial_id)
        if not frozen.state.is_finished():
            self._write_values(frozen, _values(trial, state.definition["metric"]), storage)
            for name, value in _attributes(trial).items():
                if frozen.user_attrs.get(name) != value:
                    storage.set_trial_user_attr(trial_id, name, value)
            if trial.outcome is not None:
                self._attach(frozen, trial, state, storage)
                self._link(frozen, trial, storage)
                storage.set_trial_state_values(trial_id, *_told(trial))
        if trial.finished_at is not None:
            self._stamp(trial_id, trial, storage)

    def _write_values(self, frozen: FrozenTrial, values: Mapping[int, float], storage: RDBStorage) -> None:
        """Make the intermediate values these, also where an interrupted attempt left others: Optuna removes none."""
        stale = set(frozen.intermediate_values) - set(values)
        if stale:
            with storage.engine.begin() as connection:
                columns = _INTERMEDIATE.c
                mine = (columns.trial_id == frozen._trial_id) & columns.step.in_(stale)
                connection.execute(sa.delete(_INTERMEDIATE).where(mine))
        for step, value in values.items():
            if frozen.intermediate_values.get(step) != value:
                storage.set_trial_intermediate_value(frozen._trial_id, step, value)

    def _attach(self, frozen: FrozenTrial, trial: StudyTrial, state: State, storage: RDBStorage) -> None:
        """Attach the confusion matrix, once: the entry of a file that a crash kept from being written gets it now."""
        assert state.created is not None
        picture = figures.confusion_file(self._figures, trial, state.created.facts.get("classes", ()))
        if picture is None:
            return
        store = FileSystemArtifactStore(self._artifacts)
        attached = get_all_artifact_meta(frozen, storage=storage)
        for artifact in attached:
            with picture.open("rb") as content:
                store.write(artifact.artifact_id, content)
        if not attached:
            upload_artifact(
                artifact_store=store,
                file_path=str(picture),
                study_or_trial=frozen,
                storage=storage,
                mimetype="image/png",
            )

    def _link(self, frozen: FrozenTrial, trial: StudyTrial, storage: RDBStorage) -> None:
        """Attach the address of the MLflow run, for which the first trials of a batch may wait a moment."""
        attempt, started = trial.attempts[-1].number, time.monotonic()
        while (url := self._run_url(trial.number, attempt)) is None and self._wait_s > 0:
            time.sleep(0.05)
            self._wait_s -= time.monotonic() - started
            started = time.monotonic()
        if url is None:
            self._unlinked[trial.number] = attempt
            return
        self._wait_s, self._linked[trial.number] = LINK_WAIT_S, url
        storage.set_trial_user_attr(frozen._trial_id, LINK, url)
        self._note_link(trial.number, url)

    def _stamp(self, trial_id: int, trial: StudyTrial, storage: RDBStorage) -> None:
        """Give the trial the times of the ledger; Optuna would keep when it was told."""
        assert trial.finished_at is not None
        with storage.engine.begin() as connection:
            connection.execute(
                sa.update(_TRIALS)
                .where(_TRIALS.c.trial_id == trial_id)
                .values(
                    datetime_start=datetime.fromtimestamp(trial.attempts[-1].started_at),
                    datetime_complete=datetime.fromtimestamp(trial.finished_at),
                )
            )

    def _add_late_links(self) -> None:
        """Tell finished trials of MLflow runs that came to be afterwards; only a note can still be changed then."""
        for number, attempt in list(self._unlinked.items()):
            url = self._run_url(number, attempt)
            if url is not None:
                if url != self._linked.get(number):
                    self._note_link(number, url)
                del self._unlinked[number]

    def _note_link(self, number: int, url: str) -> None:
        """Show the link where it can be clicked: the dashboard shows an attribute as plain text."""
        study, _ = self._opened
        _save_note(Trial(study, self._ids[number]), f"[MLflow run]({url})")

    def _write_note(self, state: State) -> None:
        """Say on the study's page what it asks and how to read it, with the way to MLflow once that is known."""
        study, _ = self._opened
        url = next(filter(None, self._linked.values()), None)
        body = _note(state, experiment_url=url.partition("/runs/")[0] if url else None)
        if body != self._noted:
            _save_note(study, body)
            self._noted = body


@contextmanager
def trouble(url: str) -> Iterator[None]:
    """Raise ViewError for whatever the storage raises; a KeyError is a study or trial deleted while it is written."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, StorageInternalError, OSError, ImportError, KeyError) as error:
        raise ViewError(f"{url}: {type(error).__name__}: {error}. Check that it can be reached and written.") from error


def open_storage(url: str) -> RDBStorage:
    """Open Optuna's storage, created if it is missing; on SQLite so that a dashboard may read while we write."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = sqlite_file(url)
    if path is None:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}})
    storage.engine.dispose()
    sa.event.listen(storage.engine, "connect", _relaxed)
    return storage


def _relaxed(connection: Any, _record: object) -> None:
    """WAL without a disk flush per transaction: what a power cut takes, the ledger gives again."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _asked(state: State, number: int) -> FrozenTrial:
    """The trial as Optuna holds one that has just been asked."""
    trial = state.trials[number]
    definition = StudyDefinition.model_validate(state.definition)
    frozen = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=dict(trial.raw),
        distributions={name: space.distribution(definition.space[name]) for name in trial.raw},
        user_attrs=_attributes(trial),
    )
    frozen.datetime_start = datetime.fromtimestamp(trial.asked_at)
    return frozen


def _values(trial: StudyTrial, metric: str) -> dict[int, float]:
    """Epoch -> the metric, where it is finite."""
    values = {report.epoch: report.metrics.get(metric, math.nan) for report in trial.reports}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}


def _attributes(trial: StudyTrial) -> dict[str, Any]:
    """The trial's user attributes; they depend on the ledger alone, so that a rebuilt storage has the same."""
    attributes: dict[str, Any] = {f"effective_{name}": trial.hyperparameters[name] for name in trial.raw}
    attributes["baseline"] = trial.baseline
    if trial.attempts:
        attempt = trial.attempts[-1]
        attributes |= {"attempt": attempt.number, "structure": attempt.structure, "device": attempt.device}
        if len(trial.attempts) > 1 or attempt.interrupted:
            attributes["interrupted"] = attempt.interrupted
    if trial.outcome is not None:
        attributes["reason"] = trial.reason
    if trial.best_epoch is not None:
        attributes["best_epoch"] = trial.best_epoch
    if trial.error:
        attributes["error"] = trial.error
    return attributes


def _told(trial: StudyTrial) -> tuple[TrialState, list[float] | None]:
    """State and value for Optuna, in which a complete trial must have a finite value."""
    values = None if trial.value is None or not math.isfinite(trial.value) else [trial.value]
    if trial.outcome == "complete" and values:
        return TrialState.COMPLETE, values
    return (TrialState.PRUNED, values) if trial.outcome == "pruned" else (TrialState.FAIL, None)


def _note(state: State, *, experiment_url: str | None) -> str:
    assert state.created is not None
    definition, facts = state.definition, state.created.facts
    lines = [
        f"# {definition.get('title') or state.study}",
        f"{definition.get('question', '')}\n",
        f"Data set **{facts.get('data_set')}**. Objective: {definition['direction']} **{definition['metric']}** on the "
        "validation set; a trial's value is the metric at its best epoch.\n",
        "- Trial 0 is the baseline: no regularization; it is never pruned.",
        "- Parameters are what the sampler drew, `effective_...` what was trained: below its threshold a "
        "regularizer is off.",
        "- `interrupted` trials are trained again under the same number, from their first epoch.",
        "- A trial's page shows its confusion matrix at the best epoch, and the way to its MLflow run.",
    ]
    if experiment_url:
        runs = (
            f"{experiment_url}/runs?workflowType=machine_learning"  # plain, the UI opens on pages for language models
        )
        lines.append(f"- Curves, checkpoints and the champion model: [MLflow experiment]({runs})")
    return "\n".join(lines)


def _save_note(place: Study | Trial, body: str) -> None:
    from optuna_dashboard import save_note

    save_note(place, body)
