"""Claims of search/figures.py."""

import math
import threading
from pathlib import Path

import pytest
from sklearn.metrics import precision_recall_fscore_support

from search import figures
from search.events import EpochReported
from search.state import Attempt, Trial

COUNTS = ((5, 1, 0), (2, 3, 0), (1, 0, 0))
CLASSES = ["cat", "dog", "eel"]


def reports(*losses: float) -> list[EpochReported]:
    return [
        EpochReported(
            at=float(epoch),
            trial=3,
            attempt=1,
            epoch=epoch,
            metrics={"train_loss": loss, "val_loss": loss, "train_accuracy": 0.5, "val_accuracy": 0.4},
            confusion=COUNTS,
        )
        for epoch, loss in enumerate(losses)
    ]


def finished_trial(*losses: float) -> Trial:
    attempt = Attempt(
        number=1,
        trainer=0,
        device="cpu",
        structure="",
        alone=False,
        started_at=0.0,
        ended_at=9.0,
        reports=tuple(reports(*losses)),
    )
    return Trial(
        number=3,
        raw={},
        hyperparameters={},
        baseline=False,
        asked_at=0.0,
        attempts=(attempt,),
        outcome="complete",
        best_epoch=1 if losses else None,
    )


def test_precision_and_recall_equal_scikit_learns() -> None:
    true = [k for k, row in enumerate(COUNTS) for count in row for _ in range(count)]
    predicted = [j for row in COUNTS for j, count in enumerate(row) for _ in range(count)]
    precision, recall, _, support = precision_recall_fscore_support(true, predicted, zero_division=math.nan)
    for k, row in enumerate(figures.precision_recall(COUNTS, CLASSES)):
        assert row["class"] == CLASSES[k]
        assert row["support"] == support[k]
        assert row["recall"] == pytest.approx(recall[k])
        expected = None if math.isnan(precision[k]) else pytest.approx(precision[k])
        assert row["precision"] == expected


def test_class_without_examples_has_no_recall() -> None:
    table = figures.precision_recall(((2, 1), (0, 0)), ["a", "b"])
    assert table[1] == {"class": "b", "precision": 0.0, "recall": None, "support": 0}


def test_classes_are_numbered_where_their_names_are_missing(tmp_path: Path) -> None:
    files = [
        figures.confusion_file(tmp_path / str(len(names)), finished_trial(2.0, 1.0), names)
        for names in ([], ["0", "1", "2"])
    ]
    assert files[0] is not None
    assert files[1] is not None
    assert files[0].read_bytes() == files[1].read_bytes()


def test_picture_is_drawn_once_and_for_all_by_many_threads(tmp_path: Path) -> None:
    trial, drawn = finished_trial(2.0, 1.0), []
    threads = [
        threading.Thread(target=lambda: drawn.append(figures.confusion_file(tmp_path, trial, CLASSES)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 4
    (path,) = set(drawn)
    assert path is not None
    assert [p.name for p in path.parent.iterdir()] == ["confusion_matrix.png"]
    before = path.stat().st_mtime_ns
    assert figures.confusion_file(tmp_path, trial, CLASSES) == path
    assert path.stat().st_mtime_ns == before


def test_trial_without_counts_or_reports_has_no_pictures(tmp_path: Path) -> None:
    assert figures.confusion_file(tmp_path, finished_trial(), CLASSES) is None
    assert figures.curves_file(tmp_path, finished_trial()) is None
    assert list(tmp_path.iterdir()) == []
