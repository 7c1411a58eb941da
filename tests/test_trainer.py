"""Claims of search/trainer.py: what it replies to its coordinator, order by order. The objective is the fake one."""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.contract import (
    Admit,
    Admitted,
    Estimate,
    Estimated,
    Evict,
    ExportModel,
    Failed,
    Measure,
    Measured,
    Open,
    Opened,
    Order,
    Part,
    Refused,
    Replicate,
    Reply,
    Report,
    Saved,
    Shutdown,
    SlotReport,
)
from search.trainer import Trainer
from tests.fakes import FakeObjective


class Line:
    """A channel on which `between` says what arrives at each look between two updates."""

    def __init__(self) -> None:
        self.orders: deque[Order] = deque()
        self.replies: list[Reply] = []
        self.between: Callable[[int], Order | None] = lambda look: None
        self.looks = 0

    def send(self, reply: Reply) -> None:
        self.replies.append(reply)

    def receive(self, *, block: bool) -> Order | None:
        if self.orders:
            return self.orders.popleft()
        self.looks += 1
        return self.between(self.looks)


class Session:
    """A trainer that has opened the fake objective."""

    def __init__(self, *, objective: str = "tests.fakes:FakeObjective", slots: int | None = 4, **data: Any) -> None:
        self.line = Line()
        self.trainer = Trainer(self.line)
        self.opened = self.sent(
            Open(
                objective=objective,
                data=data,
                data_dir="/nonexistent",
                seed=0,
                device="cpu",
                precision="float32",
                epochs=4,
                metric="val_accuracy",
                maximize=True,
                slots=slots,
            )
        )

    def sent(self, *orders: Order) -> list[Reply]:
        """Send orders, let the trainer take one step, and return what it said."""
        self.line.orders += orders
        self.trainer.step()
        replies, self.line.replies = self.line.replies, []
        return replies


def admit(
    trial: int, *, seeds: tuple[int, ...] = (7,), fault: str = "none", alone: bool = False, shape: int = 1
) -> Admit:
    return Admit(
        trial=trial,
        attempt=1,
        hyperparameters={"quality": 0.5 + trial / 10, "drop": 0.0, "shape": shape, "fault": fault},
        structure=f"shape={shape}",
        replicates=tuple(Replicate(seed=seed + trial) for seed in seeds),
        alone=alone,
    )


def epochs(replies: list[Reply]) -> list[dict[int, int]]:
    """Trial -> epoch, a report each."""
    return [{slot.trial: slot.epoch for slot in reply.slots} for reply in replies if isinstance(reply, Report)]


def test_admission_is_confirmed_then_the_untrained_network_reported_then_each_epoch() -> None:
    session = Session()
    first = session.sent(admit(0))
    assert isinstance(first[0], Admitted)
    assert (first[0].capacity.slots, first[0].n_parameters) == (4, 100)
    assert epochs(first) == [{0: 0}, {0: 1}]
    assert [epochs(session.sent()) for _ in range(4)] == [[{0: 2}], [{0: 3}], [{0: 4}], []]


def test_trial_that_joins_starts_at_its_own_first_epoch() -> None:
    session = Session()
    session.sent(admit(0))
    assert epochs(session.sent(admit(1))) == [{1: 0}, {0: 2, 1: 1}]


def test_trials_alone_and_of_other_structures_have_populations_of_their_own() -> None:
    session = Session()
    assert epochs(session.sent(admit(0), admit(1, shape=2), admit(2, alone=True))) == [{0: 0}, {0: 1}]
    assert epochs(session.sent()) == [{1: 0}, {1: 1}]
    assert epochs(session.sent()) == [{2: 0}, {2: 1}]
    assert epochs(session.sent()) == [{0: 2}]


def trained(turns: Sequence[list[Reply]]) -> list[list[int]]:
    """The trials that completed an epoch in each turn."""
    return [sorted(trial for epoch in epochs(turn) for trial, n in epoch.items() if n > 0) for turn in turns]


def test_all_trials_advance_at_one_pace_however_full_their_populations_are() -> None:
    session = Session()
    orders = [*(admit(trial) for trial in range(4)), admit(4, shape=2), admit(5, shape=2), admit(6, shape=3)]
    first = [session.sent(*orders), session.sent(), session.sent()]
    drained = [session.sent(Evict(trial=5, attempt=1)), *(session.sent() for _ in range(5))]
    assert trained(first) == [[0, 1, 2, 3], [4, 5], [6]]
    assert trained(drained) == [[0, 1, 2, 3], [4], [6]] * 2


def test_trial_admitted_between_two_updates_joins_at_once_in_a_phase_of_its_own() -> None:
    session = Session()
    session.sent(admit(0))
    begin = session.line.looks
    session.line.between = lambda look: admit(1) if look == begin + 3 else None
    replies = session.sent()
    assert epochs(replies) == [{1: 0}, {0: 2}]
    assert sum(isinstance(reply, Admitted) for reply in replies) == 1
    assert epochs(session.sent()) == [{1: 1}, {0: 3}]


def test_report_tells_the_updates_since_the_last_one() -> None:
    session = Session()
    session.sent(admit(0))
    begin = session.line.looks
    session.line.between = lambda look: admit(1) if look == begin + 3 else None
    reports = [r for r in (*session.sent(), *session.sent()) if isinstance(r, Report)]
    assert [report.updates for report in reports] == [2, 2, 2, 2]
    assert {(report.structure, report.epoch_updates) for report in reports} == {("shape=1", 4)}


def test_eviction_between_two_updates_is_obeyed_at_once() -> None:
    session = Session()
    session.sent(admit(0), admit(1))
    begin = session.line.looks
    session.line.between = lambda look: Evict(trial=0, attempt=1) if look == begin + 3 else None
    assert epochs(session.sent()) == [{1: 2}]


def test_epoch_of_nobody_is_abandoned() -> None:
    session = Session()
    session.sent(admit(0))
    begin = session.line.looks
    session.line.between = lambda look: Evict(trial=0, attempt=1) if look == begin + 3 else None
    assert session.sent() == []
    assert epochs(session.sent(admit(1))) == [{1: 0}, {1: 1}]


def test_eviction_of_another_attempt_is_not_obeyed() -> None:
    session = Session()
    session.sent(admit(0))
    assert epochs(session.sent(Evict(trial=0, attempt=2))) == [{0: 2}]


def test_shutdown_is_obeyed_between_two_updates() -> None:
    session = Session()
    session.sent(admit(0))
    begin = session.line.looks
    session.line.between = lambda look: Shutdown() if look == begin + 3 else None
    assert not session.trainer.step()
    assert session.line.replies == []


def test_saved_weights_are_those_of_the_best_epoch_and_hashed(tmp_path: Path) -> None:
    session = Session()
    replies = session.sent(admit(0))
    for _ in range(3):
        replies += session.sent()
    values = {slot.epoch: slot.metrics["val_accuracy"] for r in replies if isinstance(r, Report) for slot in r.slots}
    path = tmp_path / "checkpoints" / "best"
    (saved,) = session.sent(Evict(trial=0, attempt=1, save=str(path)))
    assert isinstance(saved, Saved)
    assert (saved.path, saved.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    del values[0]
    assert json.loads(path.read_text())["epoch"] == max(values, key=lambda epoch: values[epoch])


def test_weights_that_cannot_be_written_fail_their_trial_alone(tmp_path: Path) -> None:
    session = Session()
    session.sent(admit(0, fault="disk full"), admit(1))
    failed, report = session.sent(Evict(trial=0, attempt=1, save=str(tmp_path / "best")))
    assert isinstance(failed, Failed)
    assert failed.trials == ((0, 1),)
    assert "No space left" in failed.error
    assert list(tmp_path.iterdir()) == []
    assert epochs([report]) == [{1: 2}]


def test_replicates_are_averaged_and_their_counts_added() -> None:
    session = Session()
    together = session.sent(admit(0, seeds=(1, 2)))
    apart: list[SlotReport] = []
    for seed in (1, 2):
        replies = Session().sent(admit(0, seeds=(seed,)))
        apart.append(next(r.slots[0] for r in replies if isinstance(r, Report) and r.slots[0].epoch == 1))
    report = next(r.slots[0] for r in together if isinstance(r, Report) and r.slots[0].epoch == 1)
    mean = sum(each.metrics["val_loss"] for each in apart) / 2
    assert report.metrics["val_loss"] == pytest.approx(mean, rel=1e-15)
    assert report.replicates == tuple(each.metrics for each in apart)
    assert report.confusion is not None
    for i, row in enumerate(report.confusion):
        assert row == tuple(sum(each.confusion[i][j] for each in apart if each.confusion) for j in range(2))


def test_failure_names_all_trials_of_the_population_and_spares_the_others() -> None:
    session = Session()
    session.sent(admit(0, fault="raise"), admit(1), admit(2, shape=2))
    session.sent()  # the other population
    (failed,) = session.sent()
    assert isinstance(failed, Failed)
    assert set(failed.trials) == {(0, 1), (1, 1)}
    assert failed.error == "ValueError: this trial always raises"
    assert "tests/fakes.py" in failed.traceback
    assert not failed.out_of_memory
    assert epochs(session.sent()) == [{2: 2}]


def test_out_of_memory_is_told_apart() -> None:
    session = Session()
    session.sent(*(admit(trial, fault="memory") for trial in range(3)))
    (failed,) = session.sent()
    assert isinstance(failed, Failed)
    assert failed.out_of_memory


def test_refusal_for_the_user_has_no_traceback_and_a_bug_has_one() -> None:
    (refused,) = Session(refuse="the moon is full").opened
    assert refused == Refused(message="the moon is full", traceback="")
    (refused,) = Session(objective="tests.test_trainer:Broken").opened
    assert isinstance(refused, Refused)
    assert "ZeroDivisionError: division by zero" in refused.message
    assert "in Broken" in refused.traceback


def Broken(**_settings: object) -> object:  # noqa: N802 - stands for a class
    return 1 / 0


def test_opening_tells_what_the_objective_accepts_and_reports() -> None:
    (opened,) = Session().opened
    assert isinstance(opened, Opened)
    assert opened.hyperparameters["shape"].structural
    assert opened.metrics["val_accuracy"] == "maximize"
    assert opened.facts["data_set"] == "fake"
    assert (opened.device, opened.precision) == ("cpu", "float32")


def test_estimate_times_updates_without_leaving_anything_in_training() -> None:
    session = Session(update_s=0.01)
    (told,) = session.sent(Estimate(hyperparameters=admit(0).hyperparameters, structure="shape=1"))
    assert isinstance(told, Estimated)
    assert told.n_parameters == 100
    assert told.update_s >= 0.01
    assert told.epoch_s >= 4 * told.update_s
    assert session.sent() == []


@pytest.mark.parametrize(
    "job", [partial(ExportModel, destination="model"), partial(Measure, predictions="p.npz", part="test")]
)
def test_one_off_job_that_fails_names_its_weights_and_no_trial(
    job: Callable[..., Order], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (failed,) = Session().sent(job(checkpoint="none"))
    assert isinstance(failed, Failed)
    assert (failed.trials, failed.checkpoint) == ((), "none")
    assert failed.error.startswith("FileNotFoundError")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("part", "checksum"), [("validation", ""), ("test", "7e57")])
def test_measured_weights_are_told_with_what_they_predict(tmp_path: Path, part: Part, checksum: str) -> None:
    weights, predictions = tmp_path / "w", tmp_path / "tested" / "p.npz"
    weights.write_text(json.dumps({"seed": 5, "epoch": 1, "quality": 0.7}))
    (told,) = Session().sent(Measure(checkpoint=str(weights), predictions=str(predictions), part=part))
    assert isinstance(told, Measured)
    assert (told.checkpoint, told.predictions, told.part) == (str(weights), str(predictions), part)
    found = np.load(predictions)
    accuracy, loss = ("test_accuracy", "test_loss") if part == "test" else ("val_accuracy", "val_loss")
    right = found["outputs"].argmax(1) == found["targets"]
    assert told.metrics == {accuracy: right.mean(), loss: found["losses"].mean()}
    assert (told.n_examples, told.checksum) == (len(found["index"]), checksum)
    assert told.sha256 == hashlib.sha256(predictions.read_bytes()).hexdigest()
    assert {path.name for path in predictions.parent.iterdir()} == {"p.npz", "p.npz.sha256"}


def test_measuring_that_fails_half_way_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(objective: object, checkpoint: Path, predictions: Path, *, part: Part) -> None:
        predictions.write_bytes(b"PK half of")
        raise OSError("disk full")

    monkeypatch.setattr(FakeObjective, "measure", half)
    (failed,) = Session().sent(Measure(checkpoint="w", predictions=str(tmp_path / "p.npz")))
    assert isinstance(failed, Failed)
    assert list(tmp_path.iterdir()) == []
