"""Claims of search/figures.py."""

import math
import threading
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
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


def pixels(png: bytes) -> tuple[int, int]:
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.size


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


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_confusion_matrix_is_drawn_for_two_to_a_hundred_classes(n_classes: int) -> None:
    counts = tuple(tuple(9 if i == j else 1 for j in range(n_classes)) for i in range(n_classes))
    width, height = pixels(figures.confusion_matrix(counts, [f"class {k}" for k in range(n_classes)], "t"))
    assert 300 < width == height < 2000


def test_confusion_matrix_numbers_the_classes_where_names_are_missing() -> None:
    with_names = figures.confusion_matrix(COUNTS, CLASSES, "t")
    assert (
        figures.confusion_matrix(COUNTS, [], "t")
        == figures.confusion_matrix(COUNTS, ["0", "1", "2"], "t")
        != with_names
    )


@pytest.mark.parametrize("losses", [(), (2.0,), (2.0, 1.0, 3.0), (2.0, math.inf, math.nan), (0.0, 0.0)])
def test_learning_curves_are_drawn_whatever_the_losses_are(losses: tuple[float, ...]) -> None:
    assert pixels(figures.learning_curves(reports(*losses), 1 if losses else None, "t"))[0] > 300


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
