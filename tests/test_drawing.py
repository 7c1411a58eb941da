"""Claims of search/drawing.py, read from the pixels."""

import math
from io import BytesIO

import pytest
from PIL import Image

from search import drawing
from search.contract import Confusion
from search.events import EpochReported

BLUE, ORANGE = (drawing.CURVES[k][2] for k in range(2))
DARKEST = tuple(bytes.fromhex(drawing.BLUES.split()[-1]))


def reports(*losses: float) -> list[EpochReported]:
    return [
        EpochReported(
            at=float(epoch),
            trial=3,
            attempt=1,
            epoch=epoch,
            metrics={"train_loss": loss, "val_loss": loss, "train_accuracy": 0.5, "val_accuracy": 0.4},
        )
        for epoch, loss in enumerate(losses)
    ]


def diagonal(n_classes: int) -> Confusion:
    return tuple(tuple(9 * (i == j) for j in range(n_classes)) for i in range(n_classes))


def picture(png: bytes) -> Image.Image:
    with Image.open(BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def pixels(image: Image.Image, color: tuple[int, ...]) -> list[tuple[int, int]]:
    """(x, y) of every pixel of this color."""
    return [(x, y) for x in range(image.width) for y in range(image.height) if image.getpixel((x, y)) == color]


@pytest.mark.parametrize("n_classes", [2, 10, 100])
def test_confusion_matrix_shows_a_perfect_network_as_a_dark_diagonal(n_classes: int) -> None:
    drawn = picture(drawing.confusion_matrix(diagonal(n_classes), [f"class {k}" for k in range(n_classes)], "t"))
    assert 300 < drawn.width == drawn.height < 2000
    dark = pixels(drawn, DARKEST)
    left, top = min(x for x, _ in dark), min(y for _, y in dark)
    side = max(x for x, _ in dark) - left
    assert side > 250
    assert all(abs((x - left) - (y - top)) <= side / n_classes + 1 for x, y in dark)


def test_true_classes_are_the_rows() -> None:
    drawn = picture(drawing.confusion_matrix(((0, 9), (0, 9)), ["a", "b"], "t"))
    dark = pixels(drawn, DARKEST)
    assert min(x for x, _ in dark) > drawn.width / 2, "both were taken for b, the second column"
    assert min(y for _, y in dark) < drawn.height / 3 < 2 * drawn.height / 3 < max(y for _, y in dark)


def test_names_of_other_alphabets_are_told_apart() -> None:
    assert drawing.confusion_matrix(diagonal(2), ["ä", "ж"], "t") != drawing.confusion_matrix(
        diagonal(2), ["ä", "щ"], "t"
    )


def test_curve_falls_with_the_loss_and_training_and_validation_differ_in_color() -> None:
    falling = [{**report.metrics, "train_loss": 2 * report.metrics["train_loss"]} for report in reports(2.0, 1.0, 0.5)]
    told = [
        EpochReported(at=0.0, trial=0, attempt=1, epoch=epoch, metrics=metrics) for epoch, metrics in enumerate(falling)
    ]
    axes = picture(drawing.learning_curves(told, None, "t")).crop(
        (drawing.LEFT, drawing.TOP, drawing.RIGHT, drawing.BOTTOM)
    )
    for color in (BLUE, ORANGE):
        drawn = pixels(axes, color)
        assert max(drawn)[1] - min(drawn)[1] > 100, "further to the right, further down"
    assert min(y for _, y in pixels(axes, BLUE)) < min(y for _, y in pixels(axes, ORANGE)) - 20


def test_values_that_are_not_finite_leave_a_gap() -> None:
    whole = picture(drawing.learning_curves(reports(2.0, 1.5, 1.0), None, "t"))
    broken = picture(drawing.learning_curves(reports(2.0, math.inf, 1.0), None, "t"))
    middle = (drawing.LEFT + drawing.RIGHT) // 2
    box = (middle - 20, drawing.TOP, middle + 20, drawing.BOTTOM)
    assert pixels(whole.crop(box), ORANGE)
    assert not pixels(broken.crop(box), ORANGE)


@pytest.mark.parametrize(
    "losses", [(), (2.0,), (2.0, 1.0, 3.0), (2.0, math.inf, math.nan), (0.0, 0.0), (1e-8, 3e9), (1.0, 1.00001), (-1.0,)]
)
def test_learning_curves_are_drawn_whatever_the_losses_are(losses: tuple[float, ...]) -> None:
    assert picture(drawing.learning_curves(reports(*losses), 1 if losses else None, "t")).width > 300


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.31, 0.33), (-2.0, 7.0), (0, 27), (1e-9, 2e-9)])
def test_ticks_are_round_and_neither_few_nor_many(low: float, high: float) -> None:
    ticks = drawing._round_ticks(low, high)
    assert 4 <= len(ticks) <= 11
    assert all(len(f"{tick:g}") < 8 for tick in ticks)


@pytest.mark.parametrize(("low", "high"), [(0.01, 2.3), (1e-8, 3e9), (2.30, 2.32), (0.5, 2.5)])
def test_ticks_of_a_log_scale_lie_within_it(low: float, high: float) -> None:
    ticks = drawing._log_ticks(low, high)
    assert 3 <= len(ticks) <= 16
    assert all(low <= tick <= high for tick in ticks)
