"""MLflow as a view of the ledger: experiment = study, a parent run, below it one run per attempt, those of phases too.

A run is ended last, when its metrics and artifacts are there. Everything is written under explicit run ids with the
times of the ledger, so that writing twice changes nothing: MLflow stores a metric once per (name, time, step, value).
"""

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from filelock import FileLock

from search import figures
from search.diagnoses import Diagnoses, counted, interrupted
from search.diagnosis import Diagnosis
from search.errors import ViewError
from search.events import (
    AttemptInterrupted,
    AttemptStarted,
    CheckpointRemoved,
    CheckpointSaved,
    EpochReported,
    Event,
    ModelExported,
    NetworkTested,
    SessionClosed,
    SessionOpened,
    StudyCreated,
    TrialFinished,
    phase_of,
)
from search.follower import ledger_id, relax, shown, sqlite_file
from search.state import Attempt, State, Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CURSOR, LEDGER, PHASE, TRIAL, ATTEMPT = "ledger_seq", "ledger", "phase", "trial", "attempt"
EVIDENCE = "diagnosis_evidence"
UI = "http://127.0.0.1:5000"
N_METRICS, N_OTHERS = 800, 100
"""Metrics, parameters and tags of a request. Source: MLflow's log-batch takes 1000 in all, 100 each of the others."""
Key = tuple[str, int, int]
"""Phase ("" is the search), trial, attempt."""
Row = tuple[str, float, float, int]
"""A metric: name, value, at, step."""
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


class MlflowView:
    name = "MLflow"
    pause_s = 2.0

    def __init__(
        self,
        study: str,
        tracking_uri: str,
        artifacts: Path,
        study_folder: Path,
        trial_url: Callable[[int], str | None] = lambda trial: None,
    ) -> None:
        """Make the view; nothing is opened or created yet.

        Args:
            tracking_uri: an SQLAlchemy URL, or the address of an MLflow server.
            artifacts: where runs keep their files unless a server decides.
            study_folder: holds the checkpoints and exported models that events name, and the pictures.
            trial_url: trial -> its page in Optuna's dashboard, None while there is none.
        """
        self._name = study
        self._uri = tracking_uri
        self._shown_uri = shown(tracking_uri)
        self._artifacts = artifacts
        self._folder = study_folder
        self.trial_url = trial_url
        self._client: MlflowClient | None = None
        self._experiment = self._parent = ""
        self._runs: dict[Key, str] = {}
        self._diagnoses: defaultdict[str, Diagnoses] = defaultdict(Diagnoses)
        """Of each phase."""
        self._diagnosed: dict[str, str] = {}
        """Run -> what it says of its curves."""

    def check(self) -> None:
        """Make sure that MLflow can be used, without creating anything.

        Raises:
            ViewError: it cannot.
        """
        path = sqlite_file(self._uri)
        if path is None or path.exists():
            self.prepare()

    def prepare(self) -> None:
        """Connect; a missing database is created, which takes some five seconds.

        Raises:
            ViewError: MLflow cannot be reached, or the database not written.
        """
        with trouble(self._shown_uri):
            self._client = connect(self._uri)
            self._client.search_experiments(max_results=1)

    def open(self, created: StudyCreated) -> int:
        """Find or create the experiment and its parent run; return the last sequence number they hold.

        Raises:
            ViewError: an experiment of this name is there that this ledger did not write, or it was deleted.
        """
        with trouble(self._shown_uri):
            self._experiment = self._found_experiment() or self._new_experiment(created)
            runs = list(_all_runs(self._connected, self._experiment))
            parents = [run for run in runs if LEDGER in run.data.tags]
            if any(run.data.tags[LEDGER] != ledger_id(created) for run in parents):
                raise ViewError(
                    f"{self._shown_uri}: the MLflow experiment {self._name!r} was not written from this study's "
                    f"ledger. Remove it (python -m search.delete --study {self._name}) or start under another --name."
                )
            self._runs = {
                (run.data.tags.get(PHASE, ""), int(run.data.tags[TRIAL]), int(run.data.tags[ATTEMPT])): run.info.run_id
                for run in runs
                if TRIAL in run.data.tags and ATTEMPT in run.data.tags
            }
            self._diagnosed = {run.info.run_id: run.data.tags[EVIDENCE] for run in runs if EVIDENCE in run.data.tags}
            self._diagnoses.clear()  # the ledger is folded anew
            if parents:
                self._parent = parents[0].info.run_id
                return int(parents[0].data.tags.get(CURSOR, 0))
            tags = study_tags(created) | {"mlflow.runName": self._name, LEDGER: ledger_id(created)}
            self._parent = self._created_run(created.at, tags)
            return 0

    def take(self, events: Sequence[tuple[int, Event]], state: State) -> None:
        with trouble(self._shown_uri):
            of_attempts: dict[Key, list[Event]] = {}
            for _, event in events:
                if key := _attempt_of(event, state):
                    of_attempts.setdefault(key, []).append(event)
            for key, new in of_attempts.items():
                self._write_attempt(key, state.phases[key[0]] if key[0] else state, new)
            if any(isinstance(event, ModelExported) for _, event in events):
                self._register(state)
            self._diagnose(state)
            self._write_parent(state, [event for _, event in events])
            self._connected.set_tag(self._parent, CURSOR, str(events[-1][0]))

    def run_url(self, trial: int, attempt: int) -> str | None:
        """The run's page in the MLflow UI at its default address; None while there is no such run."""
        return self._url(self._runs.get(("", trial, attempt)))

    def parent_url(self) -> str | None:
        """The page of the study's parent run, as `run_url` has it; None before `open`."""
        return self._url(self._parent)

    def _url(self, run: str | None) -> str | None:
        base = self._uri.rstrip("/") if self._uri.startswith("http") else UI
        return f"{base}/#/experiments/{self._experiment}/runs/{run}" if run else None

    @property
    def _connected(self) -> "MlflowClient":
        assert self._client is not None, "prepare() comes first"
        return self._client

    def _found_experiment(self) -> str | None:
        experiment = self._connected.get_experiment_by_name(self._name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise ViewError(
                f"{self._shown_uri}: the MLflow experiment {self._name!r} was deleted there, but not for good. Restore "
                f"it (mlflow experiments restore --experiment-id {experiment.experiment_id}), or remove the study: "
                f"python -m search.delete --study {self._name}."
            )
        return str(experiment.experiment_id)

    def _new_experiment(self, created: StudyCreated) -> str:
        local = None if self._uri.startswith("http") else (self._artifacts / self._name).resolve().as_uri()
        tags = study_tags(created) | {
            "mlflow.note.content": str(created.definition.get("question") or created.definition.get("title", "")),
        }
        return str(self._connected.create_experiment(self._name, artifact_location=local, tags=tags))

    def _created_run(self, at: float, tags: Mapping[str, str]) -> str:
        run = self._connected.create_run(self._experiment, start_time=_ms(at), tags=dict(tags))
        return str(run.info.run_id)

    def _write_attempt(self, key: Key, state: State, new: Sequence[Event]) -> None:
        """Write what is new about one attempt together, then its files; its end, if that is among it, comes last.

        Args:
            state: of the search, or of the phase.
        """
        phase, number, _ = key
        trial = state.trials[number]
        attempt = next(a for a in trial.attempts if a.number == key[2])
        if key not in self._runs:
            tags = _attempt_tags(state, trial, attempt) | self._told_apart(key, trial)
            self._runs[key] = self._created_run(attempt.started_at, tags | {"mlflow.parentRunId": self._parent})
        run = self._runs[key]
        kinds = {type(event) for event in new}
        metrics = _epoch_metrics(attempt, {event.epoch for event in new if isinstance(event, EpochReported)})
        metrics += [row for event in new if isinstance(event, NetworkTested) for row in _test_metrics(event)]
        tags, status = {}, ""
        if AttemptInterrupted in kinds and attempt.interrupted:
            tags, status = {"attempt_state": "interrupted", "reason": attempt.interrupted}, "KILLED"
            tags |= _diagnosis_tags(interrupted(attempt.reports, state))
        if TrialFinished in kinds:
            metrics += _result_metrics(trial, state.definition["metric"])
            tags, status = _result_tags(trial) | self._told_apart(key, trial), STATUS[str(trial.outcome)]
            tags |= self._new_diagnosis(run, phase, number, state)
        self._log(run, metrics, params=_params(trial) if AttemptStarted in kinds else {}, tags=tags)
        if attempt is trial.attempts[-1] and not phase:
            self._write_checkpoint(run, trial, removed=CheckpointRemoved in kinds)
        if TrialFinished in kinds and not phase:
            self._write_pictures(run, state, trial)
        if TrialFinished in kinds and trial.error:
            self._connected.log_text(run, trial.traceback or trial.error, "traceback.txt")
        if status:
            self._connected.set_terminated(run, status, _ms(attempt.ended_at or 0.0))

    def _told_apart(self, key: Key, trial: Trial) -> dict[str, str]:
        """What tells runs of phases from those of the search, which lead to Optuna."""
        return _phase_tags(key, trial) if key[0] else self._link(trial)

    def _link(self, trial: Trial) -> dict[str, str]:
        """The run's description, once Optuna has the study: at the start or, if it was slower, with the result."""
        link = self.trial_url(trial.number)
        return {"mlflow.note.content": f"[Trial {trial.number} in the Optuna dashboard]({link})"} if link else {}

    def _write_pictures(self, run: str, state: State, trial: Trial) -> None:
        """Confusion matrix and learning curves; of a phase's runs the report has those that matter."""
        assert state.created is not None
        client, pictures = self._connected, self._folder / "figures"
        classes = state.created.facts.get("classes", ())
        for picture in (figures.curves_file(pictures, trial), figures.confusion_file(pictures, trial, classes)):
            if picture is not None:
                client.log_artifact(run, str(picture))
        if trial.confusion is not None:
            counts = {"classes": list(classes), "epoch": trial.best_epoch, "counts": [list(r) for r in trial.confusion]}
            client.log_dict(run, counts, "confusion_matrix.json")
            table = {"epoch": trial.best_epoch, "classes": figures.precision_recall(trial.confusion, classes)}
            client.log_dict(run, table, "precision_recall.json")

    def _diagnose(self, state: State) -> None:
        """Tag finished trials anew where what others reached has changed what their curves say."""
        for number in self._diagnoses[""].of(state):
            run = self._runs.get(("", number, state.trials[number].attempts[-1].number))  # None: a user deleted it
            if run is not None:
                self._log(run, tags=self._new_diagnosis(run, "", number, state))

    def _new_diagnosis(self, run: str, phase: str, trial: int, state: State) -> dict[str, str]:
        """The tags that the finished trial's run lacks."""
        tags = _diagnosis_tags(self._diagnoses[phase].of(state)[trial])
        if tags.get(EVIDENCE) == self._diagnosed.get(run):
            return {}
        self._diagnosed[run] = tags[EVIDENCE]
        return tags

    def _write_checkpoint(self, run: str, trial: Trial, *, removed: bool) -> None:
        """Make the run's checkpoint folder what the ledger says: the kept weights with their SHA-256, or nothing."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        if trial.checkpoint is not None:
            path = self._folder / trial.checkpoint.path
            for file in (path, path.with_name(f"{path.name}.sha256")):
                with contextlib.suppress(FileNotFoundError):  # removed since, as a later event says
                    self._connected.log_artifact(run, str(file), "checkpoint")
        elif removed and self._connected.list_artifacts(run, "checkpoint"):
            uri = self._connected.get_run(run).info.artifact_uri
            repository = get_artifact_repository(uri, tracking_uri=self._uri)
            repository.delete_artifacts("checkpoint")  # type: ignore[no-untyped-call]

    def _log(
        self,
        run: str,
        metrics: Sequence[Row] = (),
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write these in as few requests as MLflow takes, leaving out values that are not finite.

        MLflow would draw infinity as 1.8e308.
        """
        from mlflow.entities import Metric, Param, RunTag

        rows = [Metric(name, value, _ms(at), step) for name, value, at, step in metrics if math.isfinite(value)]
        pairs = [Param(*pair) for pair in (params or {}).items()]
        marks = [RunTag(*pair) for pair in (tags or {}).items()]
        while rows or pairs or marks:
            self._connected.log_batch(run, rows[:N_METRICS], pairs[:N_OTHERS], marks[:N_OTHERS])
            rows, pairs, marks = rows[N_METRICS:], pairs[N_OTHERS:], marks[N_OTHERS:]

    def _write_parent(self, state: State, new: Sequence[Event]) -> None:
        """Count the study's outcomes on the parent run, and end it with the session."""
        finished = {event.trial for event in new if isinstance(event, TrialFinished) and not event.phase}
        if finished:
            counts = counted(self._diagnoses[""].of(state).values())
            self._log(self._parent, _summary_metrics(state, finished), tags={"diagnoses": counts})
        for event in new:
            if isinstance(event, SessionOpened):
                self._connected.update_run(self._parent, status="RUNNING")
            elif isinstance(event, SessionClosed):
                status = "FINISHED" if event.reason == "done" else "KILLED"
                self._log(self._parent, tags={"state": event.reason})
                self._connected.set_terminated(self._parent, status, _ms(event.at))

    def _register(self, state: State) -> None:
        from search.champion import register

        exported = state.exported
        assert exported is not None
        attempt = state.trials[exported.trial].attempts[-1].number
        run, program = self._runs["", exported.trial, attempt], self._folder / exported.path
        if program.exists():
            register(self._connected, self._name, program=program, trial=exported.trial, run=run)


@contextlib.contextmanager
def trouble(uri: str) -> Iterator[None]:
    """Raise ViewError for whatever MLflow raises."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, sa.exc.SQLAlchemyError, OSError) as error:
        raise ViewError(f"{uri}: {type(error).__name__}: {error}. Check that it can be reached and written.") from error


def connect(uri: str) -> "MlflowClient":
    """A client that fails fast where nobody answers, creates a missing database silently, and reports to nobody."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    import logging

    from mlflow import MlflowClient

    for logger in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    path = sqlite_file(uri)
    if path is not None:
        if not path.exists():
            _create_database(path)
        uri = f"sqlite:///{path}"  # without percent-encoded braces: MLflow makes the folder under the encoded name too
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    if path is not None:
        relax(client._tracking_client.store.engine)
    return client


def _create_database(path: Path) -> None:
    """Let MLflow make its database under another name, and move it: killed half-way, it could never be opened again.

    It makes its tables in dozens of steps that do not belong to one transaction, and not twice.
    """
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            return
        partial = path.with_name(f".{path.name}.partial")
        for left in path.parent.glob(f"{partial.name}*"):  # SQLite would play an old journal into the new file
            left.unlink()
        client = MlflowClient(tracking_uri=f"sqlite:///{partial}", registry_uri=f"sqlite:///{partial}")
        client.search_experiments(max_results=1)
        client._tracking_client.store._dispose_engine()
        partial.replace(path)


def study_tags(created: StudyCreated) -> dict[str, str]:
    """What every run of a study carries, so that the UI can filter by it."""
    facts = created.facts
    return {
        "study": created.study,
        "data_set": str(facts.get("data_set", "")),
        "data_checksum": str(facts.get("checksum", "")),
        "metric": str(created.definition["metric"]),
        "direction": str(created.definition["direction"]),
        "precision": created.precision,
        "versions": ", ".join(f"{name} {version}" for name, version in created.versions.items()),
        "git_commit": created.commit,
        "mlflow.source.git.commit": created.commit,
        "mlflow.source.name": "search.run",
        "fingerprint": created.fingerprint,
    }


def _attempt_tags(state: State, trial: Trial, attempt: Attempt) -> dict[str, str]:
    assert state.created is not None
    again = f", attempt {attempt.number}" if attempt.number > 1 else ""
    return study_tags(state.created) | {
        "mlflow.runName": f"trial {trial.number}{again}",
        TRIAL: str(trial.number),
        ATTEMPT: str(attempt.number),
        "state": "running",
        "attempt_state": "running",
        "baseline": str(trial.baseline).lower(),
        "structure": attempt.structure,
        "device": attempt.device,
    }


def _params(trial: Trial) -> dict[str, str]:
    return {
        name: str(list(value) if isinstance(value, tuple) else value) for name, value in trial.hyperparameters.items()
    }


def _result_tags(trial: Trial) -> dict[str, str]:
    return {"state": str(trial.outcome), "attempt_state": "finished", "reason": str(trial.reason)}


def _diagnosis_tags(found: Diagnosis | None) -> dict[str, str]:
    return {"diagnosis": found.label, EVIDENCE: found.told} if found else {}


def _phase_tags(key: Key, trial: Trial) -> dict[str, str]:
    phase, _, attempt = key
    again = f", attempt {attempt}" if attempt > 1 else ""
    return {
        "mlflow.runName": f"{phase}, {trial.stage}: {trial.configuration}, seed {trial.seeds[0]}{again}",
        PHASE: phase,
        "stage": trial.stage,
        "configuration": trial.configuration,
        "seeds": ", ".join(map(str, trial.seeds)),
    }


def _attempt_of(event: Event, state: State) -> Key | None:
    """The attempt whose run the event changes, if it changes one."""
    trials = (state.phases[phase] if (phase := phase_of(event)) else state).trials
    if isinstance(event, CheckpointRemoved | NetworkTested):
        return phase, event.trial, trials[event.trial].attempts[-1].number
    if isinstance(event, AttemptStarted | EpochReported | CheckpointSaved | AttemptInterrupted | TrialFinished):
        return phase, event.trial, event.attempt
    return None


def _test_metrics(event: NetworkTested) -> list[Row]:
    return [(name, value, event.at, 0) for name, value in event.metrics.items()]


def _epoch_metrics(attempt: Attempt, epochs: set[int]) -> list[Row]:
    """(name, value, at, epoch) of these epochs; `gap` is the validation loss less the training loss."""
    rows, before = [], attempt.started_at
    for report in attempt.reports:
        metrics = dict(report.metrics) | {"epoch_s": report.at - before}
        if {"train_loss", "val_loss"} <= report.metrics.keys():
            metrics["gap"] = report.metrics["val_loss"] - report.metrics["train_loss"]
        before = report.at
        if report.epoch in epochs:
            rows += [(name, value, report.at, report.epoch) for name, value in metrics.items()]
    return rows


def _result_metrics(trial: Trial, metric: str) -> list[Row]:
    """The value, where it was reached, and how long the trial trained."""
    at = trial.finished_at or 0.0
    values = {"n_epochs": float(max((r.epoch for r in trial.reports), default=0))}
    if trial.value is not None and trial.best_epoch is not None:
        values |= {f"best_{metric}": trial.value, "best_epoch": float(trial.best_epoch)}
    return [(name, value, at, 0) for name, value in values.items()]


def _summary_metrics(state: State, new: set[int]) -> list[Row]:
    """The study after each of the new outcomes: counts, and the best value so far, by number of finished trials."""
    maximize = state.definition["direction"] == "maximize"
    counts, best, rows = dict.fromkeys(STATUS, 0), None, []
    for step, trial in enumerate(sorted(state.finished, key=lambda t: (t.finished_at or 0.0, t.number)), start=1):
        counts[str(trial.outcome)] += 1
        if trial.outcome == "complete" and trial.value is not None:
            best = trial.value if best is None else (max if maximize else min)(best, trial.value)
        if trial.number in new:
            at = trial.finished_at or 0.0
            rows += [(f"n_{outcome}", float(count), at, step) for outcome, count in counts.items()]
            rows += [("best_value", best, at, step)] if best is not None else []
    return rows


def _all_runs(client: "MlflowClient", experiment: str) -> Iterator["Run"]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _ms(at: float) -> int:
    return int(at * 1000)
