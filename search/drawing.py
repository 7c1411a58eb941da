"""Confusion matrices and learning curves as PNG, drawn with Pillow alone; not by several threads at once.

Matplotlib takes 0.6 s of CPU time for the two pictures of a trial, this about 0.03 (tests/benchmarks/README.md).
"""

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from search.contract import Confusion
from search.events import EpochReported

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont, ImageFont

N_NUMBERED = 20
"""Up to so many classes every cell carries its count; beyond, colors alone are readable."""
N_NAMED = 50
"""Up to so many classes every row and column is named; beyond, every k-th one."""
SMALL, NORMAL = 12, 15
"""Heights of letters, in pixels."""
BLUES = "f7fbff deebf7 c6dbef 9ecae1 6baed6 4292c6 2171b5 08519c 08306b"
"""From none to all. Source: ColorBrewer 2.0, "Blues"."""
BLACK, GRAY, PALE, WHITE = (0, 0, 0), (128, 128, 128), (225, 225, 225), (255, 255, 255)
CURVES = (("train", "training", (31, 119, 180)), ("val", "validation", (255, 127, 14)))
"""Prefix of a metric, its label and its color."""
PANEL = (550, 420)
LEFT, TOP, RIGHT, BOTTOM = 70, 66, 532, 372
"""The axes within a panel."""
FINE = 2
"""Curves are drawn so many times larger, then reduced: Pillow's lines have hard edges."""
Point = tuple[float, float]
Scale = Callable[[float], float]


# ---------------------------------------------------------------- the confusion matrix


def confusion_matrix(counts: Confusion, names: Sequence[str], title: str) -> bytes:
    """Draw counts [true class][predicted class] as a PNG, colored by the share of each true class."""
    from PIL import Image

    n, margin = len(counts), 45
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    widest = max(_font(SMALL).getlength(name) for name in names)
    left, cell = margin + round(widest), max(min(60, 1400 // n), math.ceil(320 / n))
    right, bottom = left + cell * n, margin + cell * n
    picture, draw = _blank(right + margin, bottom + left)
    squares = Image.new("RGB", (n, n))
    squares.putdata([_blue(share) for row in shares for share in row])
    picture.paste(squares.resize((cell * n, cell * n), Image.Resampling.NEAREST), (left, margin))
    draw.rectangle((left, margin, right, bottom), outline=BLACK)
    for k in range(0, n, math.ceil(n / N_NAMED)):
        at = (k + 0.5) * cell
        draw.text((left - 6, margin + at), names[k], fill=BLACK, font=_font(SMALL), anchor="rm")
        _place(picture, _turned(names[k], SMALL) if widest > cell else _label(names[k], SMALL), left + at, bottom + 6)
    if n <= N_NUMBERED:
        for k, row in enumerate(counts):
            for j, count in enumerate(row):
                at_xy = left + (j + 0.5) * cell, margin + (k + 0.5) * cell
                color = WHITE if shares[k][j] > 0.5 else BLACK
                draw.text(at_xy, str(count), fill=color, font=_font(SMALL), anchor="mm")
    total, correct = sum(map(sum, counts)), sum(row[k] for k, row in enumerate(counts))
    told = f"{title}\n{correct} of {total} correct ({correct / max(total, 1):.2%})"
    draw.multiline_text((left, 4), told, fill=BLACK, font=_font(NORMAL), spacing=3)
    draw.text(((left + right) / 2, bottom + left - 6), "predicted", fill=BLACK, font=_font(NORMAL), anchor="ms")
    _place(picture, _turned("true", NORMAL), 14, (margin + bottom) / 2 - 14)
    return _png(picture)


def _blue(share: float) -> tuple[int, ...]:
    stops = [bytes.fromhex(stop) for stop in BLUES.split()]
    k = min(int(share * (len(stops) - 1)), len(stops) - 2)
    part = share * (len(stops) - 1) - k
    return tuple(round(a + part * (b - a)) for a, b in zip(stops[k], stops[k + 1], strict=True))


# ---------------------------------------------------------------- learning curves


def learning_curves(reports: Sequence[EpochReported], best_epoch: int | None, title: str) -> bytes:
    """Draw losses (log scale) and, where there are any, accuracies by epoch as a PNG, with the best epoch marked.

    Values that are not finite leave a gap.
    """
    panels = [name for name in ("loss", "accuracy") if any(f"val_{name}" in r.metrics for r in reports)] or [""]
    width, height = PANEL
    picture, _ = _blank(width * len(panels), height)
    for k, name in enumerate(panels):
        picture.paste(_panel(reports, name, best_epoch), (k * width, 0))
    _place(picture, _label(title, NORMAL), picture.width / 2, 6)
    return _png(picture)


def _panel(reports: Sequence[EpochReported], name: str, best_epoch: int | None) -> "Image":
    values = {
        prefix: [(r.epoch, r.metrics.get(f"{prefix}_{name}", math.nan)) for r in reports] for prefix, *_ in CURVES
    }
    finite = [value for points in values.values() for _, value in points if math.isfinite(value)]
    logarithmic = name == "loss" and any(value > 0 for value in finite)
    least = 0.0 if logarithmic else -math.inf  # a loss of zero has no place on a log scale: it leaves a gap
    shown = [value for value in finite if value > least]
    low, high = _room(min(shown, default=0.0), max(shown, default=1.0), logarithmic=logarithmic)
    x = _scale(-0.3, max([1, *(r.epoch for r in reports)]) + 0.3, LEFT, RIGHT)
    y = _scale(low, high, BOTTOM, TOP, logarithmic=logarithmic)
    large, fine = _blank(PANEL[0] * FINE, PANEL[1] * FINE)
    x_ticks = [tick for tick in _round_ticks(0, max([1, *(r.epoch for r in reports)])) if tick == int(tick)]
    y_ticks = _log_ticks(low, high) if logarithmic else _round_ticks(low, high)
    for tick in x_ticks:
        _line(fine, [(x(tick), TOP), (x(tick), BOTTOM)], PALE, 1)
    for tick in y_ticks:
        _line(fine, [(LEFT, y(tick)), (RIGHT, y(tick))], PALE, 1)
    if best_epoch is not None:
        for dash in range(TOP, BOTTOM, 8):
            _line(fine, [(x(best_epoch), dash), (x(best_epoch), min(dash + 5, BOTTOM))], GRAY, 1)
    for prefix, _, color in CURVES:
        points = [(x(epoch), y(value)) if least < value < math.inf else None for epoch, value in values[prefix]]
        _curve(fine, points, color)
    _line(fine, [(LEFT, TOP), (RIGHT, TOP), (RIGHT, BOTTOM), (LEFT, BOTTOM), (LEFT, TOP)], BLACK, 1)
    picture = large.reduce(FINE)
    _write_axes(picture, name, [(x(t), f"{t:g}") for t in x_ticks], [(y(t), f"{t:g}") for t in y_ticks])
    _write_legend(picture, best_epoch)
    return picture


def _curve(fine: "ImageDraw", points: Sequence[Point | None], color: tuple[int, ...]) -> None:
    """Draw the points, and a line from each to the next where both are there."""
    for before, point in zip([None, *points], points, strict=False):
        if point is not None:
            if before is not None:
                _line(fine, [before, point], color, 1.6)
            fine.circle((point[0] * FINE, point[1] * FINE), 3 * FINE, fill=color)


def _line(fine: "ImageDraw", points: Sequence[Point], color: tuple[int, ...], width: float) -> None:
    fine.line([(x * FINE, y * FINE) for x, y in points], fill=color, width=round(width * FINE))


def _write_axes(
    picture: "Image", name: str, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]
) -> None:
    draw = _drawer(picture)
    for at, text in x_ticks:
        draw.text((at, BOTTOM + 6), text, fill=BLACK, font=_font(SMALL), anchor="ma")
    for at, text in y_ticks:
        draw.text((LEFT - 6, at), text, fill=BLACK, font=_font(SMALL), anchor="rm")
    _place(picture, _label("epoch", NORMAL), (LEFT + RIGHT) / 2, PANEL[1] - 24)
    turned = _turned(name, NORMAL)
    _place(picture, turned, 14, (TOP + BOTTOM - turned.height) / 2)


def _write_legend(picture: "Image", best_epoch: int | None) -> None:
    """Above the axes, where no curve can run through it."""
    draw, at = _drawer(picture), float(LEFT)
    entries = [(label, color) for _, label, color in CURVES]
    for text, color in entries + ([(f"best epoch ({best_epoch})", GRAY)] if best_epoch is not None else []):
        draw.line([(at, TOP - 14), (at + 18, TOP - 14)], fill=color, width=3)
        draw.text((at + 24, TOP - 14), text, fill=BLACK, font=_font(SMALL), anchor="lm")
        at += 44 + _font(SMALL).getlength(text)


# ---------------------------------------------------------------- scales


def _room(low: float, high: float, *, logarithmic: bool) -> Point:
    """The range with a margin of a twentieth on either side."""
    if logarithmic:
        margin = max((high / low) ** 0.05, 1.01)
        return low / margin, high * margin
    margin = max((high - low) * 0.05, abs(high) * 0.01, 1e-9)
    return low - margin, high + margin


def _scale(low: float, high: float, begin: float, end: float, *, logarithmic: bool = False) -> Scale:
    """Values from low to high -> pixels from begin to end."""
    if logarithmic:
        straight = _scale(math.log(low), math.log(high), begin, end)
        return lambda value: straight(math.log(value))
    return lambda value: begin + (end - begin) * (value - low) / (high - low)


def _round_ticks(low: float, high: float) -> list[float]:
    """Between four and ten multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = max(factor * power for factor in (1, 2, 5) if factor * power <= (high - low) / 4)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; over many decades powers alone, within less than one what is round."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 5 else (1,)
    every = math.ceil(len(decades) / 10)
    ticks = [factor * 10.0**k for k in decades[::every] for factor in factors]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks if len(ticks) > 2 else _round_ticks(low, high)


# ---------------------------------------------------------------- Pillow


def _blank(width: float, height: float) -> "tuple[Image, ImageDraw]":
    from PIL import Image

    picture = Image.new("RGB", (round(width), round(height)), WHITE)
    return picture, _drawer(picture)


def _drawer(picture: "Image") -> "ImageDraw":
    from PIL import ImageDraw

    return ImageDraw.Draw(picture)


@cache
def _font(size: int) -> "FreeTypeFont | ImageFont":
    """DejaVu Sans, which matplotlib carries, and which knows more alphabets than Pillow's own."""
    from PIL import ImageFont

    found = importlib.util.find_spec("matplotlib")  # without importing it: that takes as long as ten pictures
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.exists():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def _label(text: str, size: int) -> "Image":
    left, top, right, bottom = _font(size).getbbox(text or " ")
    picture, draw = _blank(right - left, bottom - top)
    draw.text((-left, -top), text, fill=BLACK, font=_font(size))
    return picture


def _turned(text: str, size: int) -> "Image":
    return _label(text, size).rotate(90, expand=True)


def _place(picture: "Image", label: "Image", center_x: float, top: float) -> None:
    picture.paste(label, (round(center_x - label.width / 2), round(top)))


def _png(picture: "Image") -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="png", compress_level=1)
    return buffer.getvalue()
