"""Claims of search/optuna_view.py and search/follower.py, on a real SQLite storage."""

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial, TrialState
from optuna_dashboard import get_note

from search.diagnoses import Diagnoses, counted
from search.errors import ViewError
from search.events import EpochReported, Event, StudyCreated, TrialFinished
from search.follower import Follower, View
from search.ledger import Ledger
from search.optuna_view import CURSOR, OptunaView, open_storage
from search.state import State, Trial, apply, fold
from search.workspace import Workspace, sqlite_url
from tests.histories import history, trained

EVENTS = history()
STATE = fold(EVENTS)


def a_url(trial: int, attempt: int) -> str | None:
    return f"http://127.0.0.1:5000/#/experiments/1/runs/{trial}-{attempt}"


def view_in(root: Path, *, run_url: Callable[[int, int], str | None] = a_url, study: str = "small_reg") -> OptunaView:
    places = Workspace(root)
    return OptunaView(study, places.optuna_url, places.optuna_artifacts, places.figures(study), run_url)


def write(view: View, events: Sequence[Event], *, begin: int = 0, batch: int = 7) -> None:
    """Bring the events from `begin` on into the view as the follower does, in batches, from a fresh connection."""
    view.prepare()
    created = events[0]
    assert isinstance(created, StudyCreated)
    view.open(created)
    state, numbered = fold(events[:begin]), list(enumerate(events, start=1))
    for first in range(begin, len(events), batch):
        for event in events[first : first + batch]:
            apply(state, event)
        view.take(numbered[first : first + batch], state)


def study_in(root: Path, study: str = "small_reg") -> optuna.Study:
    storage = open_storage(Workspace(root).optuna_url)
    return optuna.load_study(study_name=study, storage=storage, sampler=optuna.samplers.RandomSampler())


def stored(root: Path) -> tuple[dict[str, Any], str, list[dict[str, Any]]]:
    """Everything the storage holds of the study, without what is random: ids of trials and artifacts."""
    study = study_in(root)
    return study.user_attrs, get_note(study), [_plain(study, trial) for trial in study.get_trials()]


def _plain(study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    fields = {name: getattr(trial, name) for name in ("number", "state", "values", "params", "distributions")}
    fields |= {name: getattr(trial, name) for name in ("intermediate_values", "user_attrs", "datetime_start")}
    artifacts = [(meta.filename, meta.mimetype) for meta in get_all_artifact_meta(trial, storage=study._storage)]
    note = get_note(optuna.trial.Trial(study, trial._trial_id))
    return fields | {"datetime_complete": trial.datetime_complete, "artifacts": artifacts, "note": note}


def _finite(trial: Trial) -> dict[int, float]:
    values = {report.epoch: report.metrics["val_accuracy"] for report in trial.reports}
    return {epoch: value for epoch, value in values.items() if math.isfinite(value)}


def with_pictures(root: Path, drawn: Path) -> Path:
    """A workspace in which the pictures are drawn already, where that is not what is tested."""
    shutil.copytree(Workspace(drawn).figures("small_reg"), Workspace(root).figures("small_reg"))
    return root


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("written")
    write(view_in(root), EVENTS)
    return root


def test_every_trial_stands_under_its_number_with_outcome_and_value(written: Path) -> None:
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    state = fold(EVENTS)
    for trial in study_in(written).get_trials():
        ours = state.trials[trial.number]
        assert ours.outcome is not None
        assert trial.state == states[ours.outcome]
        assert trial.params == dict(ours.raw)
        assert trial.values == (None if ours.value is None else [ours.value])
        assert trial.datetime_complete is not None
        assert trial.datetime_complete.timestamp() == ours.finished_at


def test_reports_of_the_last_attempt_alone_are_the_intermediate_values(written: Path) -> None:
    state = fold(EVENTS)
    trials = study_in(written).get_trials()
    for trial in trials:
        assert trial.intermediate_values == _finite(state.trials[trial.number])
    assert max(trials[4].intermediate_values) == 3, "the interrupted attempt had reached epoch 4"


def test_attributes_say_what_was_trained_and_where_to_look_further(written: Path) -> None:
    trial = study_in(written).get_trials()[4]
    ours = fold(EVENTS).trials[4]
    assert {name: trial.user_attrs[f"effective_{name}"] for name in ours.raw} == {
        name: ours.hyperparameters[name] for name in ours.raw
    }
    assert trial.user_attrs["attempt"] == 2
    assert trial.user_attrs["interrupted"] == ""
    assert trial.user_attrs["best_epoch"] == ours.best_epoch
    assert trial.user_attrs["mlflow_run"] == a_url(4, 2)
    assert _plain(study_in(written), trial)["note"] == f"[MLflow run]({a_url(4, 2)})"


def test_confusion_matrix_is_attached_once_to_each_trial_that_has_one(written: Path) -> None:
    study = study_in(written)
    for trial in study.get_trials():
        attached = get_all_artifact_meta(trial, storage=study._storage)
        assert [meta.filename for meta in attached] == ["confusion_matrix.png"] * (trial.number not in (3, 5))
        for meta in attached:
            content = (Workspace(written).optuna_artifacts / meta.artifact_id).read_bytes()
            assert content.startswith(b"\x89PNG")


def test_study_page_says_what_it_asks_and_leads_to_mlflow(written: Path) -> None:
    note = get_note(study_in(written))
    assert "Which regularization helps?" in note
    assert "(http://127.0.0.1:5000/#/experiments/1/runs?" in note


def test_every_trained_trial_says_what_its_curves_say_and_the_study_s_page_counts(written: Path) -> None:
    found = Diagnoses().of(STATE)
    for trial in study_in(written).get_trials():
        expected = found[trial.number]
        told = trial.user_attrs.get("diagnosis"), trial.user_attrs.get("diagnosis_evidence")
        assert told == ((expected.label, expected.told) if expected else (None, None))
    assert f": {counted(found.values())}." in get_note(study_in(written))


def flat(*, loss: float, accuracy: float) -> list[dict[str, float]]:
    """A curve that is what it will be after one epoch."""
    untrained, learned = (
        {"train_loss": one, "val_loss": one, "train_accuracy": other, "val_accuracy": other}
        for one, other in ((2.3, 0.1), (loss, accuracy))
    )
    return [untrained, *[learned] * 5]


def test_a_finished_trial_s_diagnosis_changes_when_another_does_far_better(tmp_path: Path) -> None:
    poor, good = flat(loss=1.5, accuracy=0.4), flat(loss=0.2, accuracy=0.9)
    events = [EVENTS[0], *trained(0, poor)]
    write(view_in(tmp_path), events)
    assert study_in(tmp_path).get_trials()[0].user_attrs["diagnosis"] == "healthy"
    write(view_in(tmp_path), [*events, *trained(1, good)], begin=len(events))
    told = [trial.user_attrs["diagnosis"] for trial in study_in(tmp_path).get_trials()]
    assert told == ["underfit", "healthy"]
    assert "1 underfit, 1 healthy" in get_note(study_in(tmp_path))


@pytest.mark.parametrize("batch", [1, 1000])
def test_batches_decide_nothing(written: Path, tmp_path: Path, batch: int) -> None:
    write(view_in(with_pictures(tmp_path, written)), EVENTS, batch=batch)
    assert stored(tmp_path) == stored(written)


def test_values_of_finished_trials_do_not_wait_for_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("search.figures.confusion_file", killed)
    with pytest.raises(KeyboardInterrupt):
        write(view_in(tmp_path), EVENTS, batch=1000)
    reached = {trial.number: max(trial.intermediate_values) for trial in study_in(tmp_path).get_trials()}
    assert reached == {n: max(_finite(trial)) for n, trial in fold(EVENTS).trials.items()}


def test_study_deleted_while_it_is_written_is_an_error_mended_by_opening_it(written: Path, tmp_path: Path) -> None:
    view = view_in(with_pictures(tmp_path, written))
    write(view, EVENTS[:20])
    optuna.delete_study(study_name="small_reg", storage=open_storage(Workspace(tmp_path).optuna_url))
    with pytest.raises(ViewError):
        view.take([(21, EVENTS[20])], fold(EVENTS[:21]))
    write(view_in(tmp_path), EVENTS)
    assert stored(tmp_path) == stored(written)


@pytest.mark.parametrize("cut", [5, 33])
def test_kill_between_write_and_cursor_leaves_the_storage_as_once(written: Path, tmp_path: Path, cut: int) -> None:
    write(view_in(with_pictures(tmp_path, written)), EVENTS[:cut])
    write(view_in(tmp_path), EVENTS, begin=max(0, cut - 7))
    assert stored(tmp_path) == stored(written)


def test_kill_between_attaching_and_telling_leaves_one_readable_picture(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    view = view_in(with_pictures(tmp_path, written))
    with monkeypatch.context() as patched:
        patched.setattr("search.optuna_tables.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            write(view, EVENTS)
    for picture in Workspace(tmp_path).optuna_artifacts.iterdir():
        picture.unlink()  # as if the kill had come before the file was written
    write(view_in(tmp_path), EVENTS)
    study = study_in(tmp_path)
    attached = get_all_artifact_meta(study.get_trials()[0], storage=study._storage)
    assert len(attached) == 1
    assert (Workspace(tmp_path).optuna_artifacts / attached[0].artifact_id).exists()


def test_trial_runs_as_soon_as_it_is_asked_and_stays_unfinished_while_interrupted(tmp_path: Path) -> None:
    cut = next(k for k, event in enumerate(EVENTS, start=1) if type(event).__name__ == "AttemptInterrupted")
    write(view_in(tmp_path), EVENTS[:cut])
    trial = study_in(tmp_path).get_trials()[4]
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs["interrupted"] == "the trainer ended"
    assert trial.intermediate_values == {}


def test_link_to_a_run_that_comes_late_is_added(written: Path, tmp_path: Path) -> None:
    with_pictures(tmp_path, written)
    write(view_in(tmp_path, run_url=lambda trial, attempt: None), EVENTS[:-1], batch=1000)
    assert "mlflow_run" not in study_in(tmp_path).get_trials()[0].user_attrs
    write(view_in(tmp_path), EVENTS, begin=len(EVENTS) - 1)
    study = study_in(tmp_path)
    assert stored(tmp_path)[2] == stored(written)[2]
    notes = [get_note(optuna.trial.Trial(study, trial._trial_id)) for trial in study.get_trials()]
    attempts = [2 if number == 4 else 1 for number in range(6)]
    assert notes == [f"[MLflow run]({a_url(number, attempt)})" for number, attempt in enumerate(attempts)]


def test_link_follows_to_an_mlflow_that_was_written_anew(written: Path, tmp_path: Path) -> None:
    write(view_in(with_pictures(tmp_path, written)), EVENTS)
    write(view_in(tmp_path, run_url=lambda trial, attempt: "http://elsewhere"), EVENTS, begin=len(EVENTS) - 1)
    study = study_in(tmp_path)
    assert {trial.user_attrs["mlflow_run"] for trial in study.get_trials()} == {"http://elsewhere"}
    assert get_note(optuna.trial.Trial(study, study.get_trials()[0]._trial_id)) == "[MLflow run](http://elsewhere)"


def test_study_of_another_ledger_is_refused_with_the_way_out(tmp_path: Path) -> None:
    write(view_in(tmp_path), EVENTS[:7])
    before = stored(tmp_path)
    view = view_in(tmp_path)
    view.prepare()
    created = EVENTS[0]
    assert isinstance(created, StudyCreated)
    with pytest.raises(ViewError, match=r"not written from this study's ledger.*search\.delete --study small_reg"):
        view.open(StudyCreated(**{name: getattr(created, name) for name in created.__slots__} | {"at": 1.0}))
    assert stored(tmp_path) == before


@pytest.mark.parametrize("folder", ["with space", "{braces}", "ä#%&'+"])
def test_folder_names_need_no_care(tmp_path: Path, folder: str) -> None:
    write(view_in(tmp_path / folder), EVENTS[:20])
    assert study_in(tmp_path / folder).user_attrs[CURSOR] == 20


def test_check_creates_nothing_and_names_what_cannot_be_used(tmp_path: Path) -> None:
    view_in(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    broken = tmp_path / "broken.db"
    broken.mkdir()
    with pytest.raises(ViewError, match=r"broken\.db"):
        OptunaView("s", sqlite_url(broken), tmp_path, tmp_path, a_url).check()
    with pytest.raises(ViewError) as caught:
        OptunaView("s", "postgresql://me:secret@127.0.0.1:1/x", tmp_path, tmp_path, a_url).check()
    assert "secret" not in str(caught.value)


def test_follower_brings_the_view_up_to_a_growing_ledger(written: Path, tmp_path: Path) -> None:
    with_pictures(tmp_path, written)
    ledger = Ledger(tmp_path / "studies" / "small_reg" / "ledger.db", create=True)
    follower = Follower(view_in(tmp_path), ledger, on_trouble=pytest.fail)
    ledger.append(*EVENTS[:10])
    follower.start()
    for first in range(10, len(EVENTS), 5):
        ledger.append(*EVENTS[first : first + 5])
    assert follower.stop(drain_s=60)
    ours, reference = stored(tmp_path), stored(written)
    assert ours == reference


def test_deleted_storage_is_rebuilt_from_the_ledger_equal(written: Path, tmp_path: Path) -> None:
    with_pictures(tmp_path, written)
    ledger = Ledger(tmp_path / "studies" / "small_reg" / "ledger.db", create=True)
    ledger.append(*EVENTS)
    for _ in range(2):
        follower = Follower(view_in(tmp_path), ledger, on_trouble=pytest.fail)
        follower.start()
        assert follower.stop(drain_s=60)
        assert stored(tmp_path) == stored(written)
        for file in (tmp_path / "studies").glob("optuna.db*"):
            file.unlink()


class Unreachable:
    """A view that cannot be written before it has failed `failures` times."""

    name, pause_s = "Far away", 0.0

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.taken: list[Event] = []

    def check(self) -> None: ...

    def prepare(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise ViewError("nobody answers")

    def open(self, created: StudyCreated) -> int:
        return len(self.taken)

    def take(self, events: Sequence[tuple[int, Event]], state: State) -> None:
        self.taken += [event for _, event in events]


def test_unreachable_view_gets_everything_later_and_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.follower.RETRY_S", (0.01,))
    events = [event for event in EVENTS if not isinstance(event, EpochReported | TrialFinished)]
    ledger, view, said = Ledger(tmp_path / "ledger.db", create=True), Unreachable(3), list[str]()
    follower = Follower(view, ledger, on_trouble=said.append)
    ledger.append(*events)
    follower.start()
    while view.failures:
        pass
    assert follower.stop(drain_s=10)
    assert view.taken == events
    assert said == ["Far away cannot be written, training goes on: nobody answers"]


def test_stop_gives_up_on_an_unreachable_view(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db", create=True)
    ledger.append(*EVENTS)
    follower = Follower(Unreachable(10**9), ledger, on_trouble=lambda _: None)
    follower.start()
    assert not follower.stop(drain_s=10)
