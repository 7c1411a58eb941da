"""Optuna's storage as a view of the ledger: what the Optuna dashboard and `optuna.load_study` show.

What Optuna shows of a trial is frozen with its outcome, so a trial gets everything else before or with it. Values come
first: pictures of finished trials, which take longer, are drawn when all that was reported is there.
"""

import json
import math
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from filelock import FileLock
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState

from search import figures, space
from search import optuna_tables as tables
from search.definition import StudyDefinition
from search.diagnoses import Diagnoses, counted
from search.errors import ViewError
from search.events import EpochReported, Event, StudyCreated, phase_of
from search.follower import ledger_id, relax, shown, sqlite_file
from search.state import State, Trial

CURSOR, LEDGER = "ledger_seq", "ledger"
LINK, EVIDENCE = "mlflow_run", "diagnosis_evidence"
DASHBOARD = "http://127.0.0.1:8080/dashboard"
FINISHED_TOGETHER = 20
"""Trials that get picture and outcome in one transaction: some two thirds of a second."""


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
        self._ids: dict[int, int] = {}
        self._finished: set[int] = set()
        self._links: dict[int, str | None] = {}
        """The address that each finished trial shows."""
        self._unlinked: set[int] = set()
        """Finished trials whose runs MLflow has not told yet; at first all, since it may have been written anew."""
        self._noted = ""
        self._diagnoses = Diagnoses()
        self._diagnosed: dict[int, str | None] = {}
        """What each finished trial shows of it."""
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
            self._ids = {trial.number: trial._trial_id for trial in trials}
            self._finished = {trial.number for trial in trials if trial.state.is_finished()}
            self._links = {trial.number: trial.user_attrs.get(LINK) for trial in trials}
            self._unlinked = set(self._finished)
            self._diagnosed = {trial.number: trial.user_attrs.get(EVIDENCE) for trial in trials}
            self._study, self._diagnoses = study, Diagnoses()  # the ledger is folded anew
            return int(study.user_attrs.get(CURSOR, 0))

    def take(self, events: Sequence[tuple[int, Event]], state: State) -> None:
        with trouble(self._shown_url):
            study, engine = self._opened
            new = _by_trial(event for _, event in events)
            with engine.begin() as connection:
                tables.check_study(connection, study._study_id, self._name)
                self._ask(connection, max(new, default=-1), state)
                for number, of_trial in new.items():
                    if number not in self._finished:
                        self._report(connection, state.trials[number], of_trial, state)
            ended = [n for n in new if state.trials[n].outcome is not None and n not in self._finished]
            for k in range(0, len(ended), FINISHED_TOGETHER):
                with engine.begin() as connection:
                    for number in ended[k : k + FINISHED_TOGETHER]:
                        self._finish(connection, state.trials[number], state)
                    self._add_links(connection, state)
            with engine.begin() as connection:
                self._add_links(connection, state)
                self._diagnose(connection, state)
                self._write_note(connection, state)
                tables.set_attributes(connection, tables.STUDY_ATTRIBUTES, study._study_id, {CURSOR: events[-1][0]})

    def trial_url(self, trial: int) -> str | None:
        """The trial's page in the dashboard at its default address; None while the study is unknown."""
        return f"{DASHBOARD}/studies/{self._study._study_id}/trials?numbers={trial}" if self._study else None

    @property
    def _opened(self) -> tuple[Study, sa.Engine]:
        assert self._study is not None, "open() comes first"
        assert self._storage is not None
        return self._study, self._storage.engine

    def _ask(self, connection: sa.Connection, last: int, state: State) -> None:
        """Add the trials that are missing, up to this one."""
        study, _ = self._opened
        new = {number: state.trials[number] for number in range(last + 1) if number not in self._ids}
        if new:
            definition = StudyDefinition.model_validate(state.definition)
            kinds = {name: space.distribution(parameter) for name, parameter in definition.space.items()}
            asked = {number: (datetime.fromtimestamp(trial.asked_at), trial.raw) for number, trial in new.items()}
            self._ids |= tables.new_trials(connection, study._study_id, asked, kinds)

    def _report(self, connection: sa.Connection, trial: Trial, new: Sequence[Event], state: State) -> None:
        """Write what is new of a trial without an outcome: its values, and, where more happened, its attributes."""
        trial_id, values = self._ids[trial.number], _values(trial, state.definition["metric"])
        if all(isinstance(event, EpochReported) for event in new):
            epochs = {event.epoch for event in new if isinstance(event, EpochReported)}
            values = {epoch: value for epoch, value in values.items() if epoch in epochs}
            tables.set_reports(connection, trial_id, values, replacing=epochs)
        else:  # another attempt takes back what the one before reported
            tables.set_reports(connection, trial_id, values)
            tables.set_attributes(connection, tables.ATTRIBUTES, trial_id, _attributes(trial))

    def _finish(self, connection: sa.Connection, trial: Trial, state: State) -> None:
        """Attach the confusion matrix and tell the outcome."""
        assert trial.finished_at is not None
        self._attach(connection, trial, state)
        outcome, value = _told(trial)
        began, ended = trial.attempts[-1].started_at, trial.finished_at
        tables.finish(
            connection,
            self._ids[trial.number],
            outcome,
            value,
            began=datetime.fromtimestamp(began),
            ended=datetime.fromtimestamp(ended),
        )
        self._finished.add(trial.number)
        self._unlinked.add(trial.number)

    def _attach(self, connection: sa.Connection, trial: Trial, state: State) -> None:
        """The artifact's id follows from the trial: a picture that a crash left is written over."""
        assert state.created is not None
        picture = figures.confusion_file(self._figures, trial, state.created.facts.get("classes", ()))
        if picture is None:
            return
        named = f"{ledger_id(state.created)} {self._name} {trial.number} {picture.name}"
        artifact = ArtifactMeta(str(uuid.uuid5(uuid.NAMESPACE_OID, named)), picture.name, "image/png", None)
        with picture.open("rb") as content:
            FileSystemArtifactStore(self._artifacts).write(artifact.artifact_id, content)
        entry = {f"artifacts:{artifact.artifact_id}": json.dumps(asdict(artifact))}
        tables.set_attributes(connection, tables.SYSTEM, self._ids[trial.number], entry)

    def _add_links(self, connection: sa.Connection, state: State) -> None:
        """Lead from finished trials to their MLflow runs as these come to be: as an attribute and, to click, a note."""
        study, _ = self._opened
        for number in sorted(self._unlinked):
            url = self._run_url(number, state.trials[number].attempts[-1].number)
            if url is not None and url != self._links.get(number):
                tables.set_attributes(connection, tables.ATTRIBUTES, self._ids[number], {LINK: url})
                tables.set_note(connection, study._study_id, self._ids[number], f"[MLflow run]({url})")
                self._links[number] = url
            if url is not None:
                self._unlinked.remove(number)

    def _diagnose(self, connection: sa.Connection, state: State) -> None:
        """Say what is to be read in the curves of finished trials; what others reach may change it later."""
        for number, found in self._diagnoses.of(state).items():
            if found is not None and found.told != self._diagnosed.get(number):
                attributes = {"diagnosis": found.label, EVIDENCE: found.told}
                tables.set_attributes(connection, tables.ATTRIBUTES, self._ids[number], attributes)
                self._diagnosed[number] = found.told

    def _write_note(self, connection: sa.Connection, state: State) -> None:
        """Say on the study's page what it asks and how to read it, with the way to MLflow once that is known."""
        study, _ = self._opened
        url = next(filter(None, self._links.values()), None)
        experiment_url = url.partition("/runs/")[0] if url else None
        body = _note(state, experiment_url=experiment_url, diagnoses=counted(self._diagnoses.of(state).values()))
        if body != self._noted:
            tables.set_note(connection, study._study_id, None, body)
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
    relax(storage.engine)
    return storage


def _by_trial(events: Iterable[Event]) -> dict[int, list[Event]]:
    """The events of each trial of the search, in the order of their numbers."""
    found: dict[int, list[Event]] = {}
    for event in events:
        if not phase_of(event) and (trial := getattr(event, "trial", None)) is not None:
            found.setdefault(trial, []).append(event)
    return dict(sorted(found.items()))


def _values(trial: Trial, metric: str) -> dict[int, float]:
    """Epoch -> the metric, where it is finite."""
    values = {report.epoch: report.metrics.get(metric, math.nan) for report in trial.reports}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}


def _attributes(trial: Trial) -> dict[str, Any]:
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


def _told(trial: Trial) -> tuple[TrialState, float | None]:
    """State and value for Optuna, in which a complete trial must have a finite value."""
    value = None if trial.value is None or not math.isfinite(trial.value) else trial.value
    if trial.outcome == "complete" and value is not None:
        return TrialState.COMPLETE, value
    return (TrialState.PRUNED, value) if trial.outcome == "pruned" else (TrialState.FAIL, None)


def _note(state: State, *, experiment_url: str | None, diagnoses: str) -> str:
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
    if diagnoses:
        lines.append(f"- What the curves say (a trial's `diagnosis`, with evidence and remedy): {diagnoses}.")
    if experiment_url:
        runs = (
            f"{experiment_url}/runs?workflowType=machine_learning"  # plain, the UI opens on pages for language models
        )
        lines.append(f"- Curves, checkpoints and the champion model: [MLflow experiment]({runs})")
    return "\n".join(lines)
