"""The report's charts as inline SVG: numbers in, one string out, colored by the page's style sheet alone.

Horizontal positions are shares of the width and vertical ones pixels, so that a chart fills whatever column it stands
in while its letters keep their size: no scrolling on a phone, no tiny print. Curves lie in a nested picture, which
stretches.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from zlib import crc32

Point = tuple[float, float]
Told = Callable[[float], str]
N_POINTS = 400
"""A panel's points beyond so many are thinned evenly: no eye can tell, and the page stays small."""
N_LETTERS = 30
"""A longer label is cut: SVG does not wrap. The whole text is its tooltip."""
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids even escaped."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
HUGE = 1e100
"""A value beyond it, as a diverged loss may be, is as good as infinite: no axis stretches to it."""
PLOT = 150
"""Height of a plot's axes, in pixels."""
ROWS = 0.6
"""Share of a row that its interval or bar may take; its number in words stands at the right."""
OFF_WIDTH = 0.15
"""Share of a dose-response plot that the column of trials without the regularizer takes."""
ROOM = 0.12
"""Nearer to the left end a reference has no letters to its left."""
LAST = 0.96
"""From this share on a tick's letters end at it: centered they would leave the plot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One estimate of a forest plot, or one bar: what it is, its number in words, its interval."""

    label: str
    told: str
    value: float
    low: float | None = None
    high: float | None = None
    tone: str = ""
    """A class of the style sheet: good, bad, plain, open; the label or the note says the same in words."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Values from low to high -> shares of an axis, with ticks at round numbers."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    log: bool = False
    begin: float = 0.0
    end: float = 1.0

    def at(self, value: float) -> float:
        """Where the value lies, from begin to end; values beyond the ends lie at the ends."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        inside = min(max(value, self.low), self.high)
        return self.begin + (self.end - self.begin) * ((math.log(inside) if self.log else inside) - low) / (high - low)


def axis(
    values: Sequence[float], told: Told, *, n: int = 6, log: bool = False, begin: float = 0.0, end: float = 1.0
) -> Axis:
    """The axis that holds all values that are finite, with a small margin, and at most n ticks."""
    finite = [v for v in values if abs(v) < HUGE and (v > 1 / HUGE or not log)] or [1.0]
    low, high = min(finite), max(finite)
    if log:
        margin = max((high / low) ** 0.05, 1.05)
        low, high = low / margin, high * margin
        return Axis(low=low, high=high, ticks=_log_ticks(low, high, told, n), log=True, begin=begin, end=end)
    margin = max((high - low) * 0.06, abs(high) * 1e-3) or 1.0
    low, high = low - margin, high + margin
    return Axis(low=low, high=high, ticks=[(t, told(t)) for t in _round_ticks(low, high, n)], begin=begin, end=end)


def _round_ticks(low: float, high: float, n: int) -> list[float]:
    """At most n multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (math.floor(math.log10(high - low)) - 1)
    for step in (factor * power for factor in (1, 2, 5, 10, 20, 50)):
        first, last = math.ceil(low / step), math.floor(high / step)
        if last - first < n:
            return [min(max(k * step, low), high) for k in range(first, last + 1)]  # rounding may leave the axis
    return [low, high]


def _log_ticks(low: float, high: float, told: Told, n: int) -> list[tuple[float, str]]:
    """Powers of ten, every k-th where there are many; 1, 2 and 5 times them, or round numbers, where there are few."""
    tens = [10.0**k for k in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    if len(tens) >= 3:
        plain = tens[0] >= 0.01 and tens[-1] <= 1e4
        chosen = tens[:: math.ceil(len(tens) / n)]
        return [(t, told(t) if plain else "10" + str(round(math.log10(t))).translate(SUPERSCRIPTS)) for t in chosen]
    power = math.floor(math.log10(low))
    fine = [f * 10.0**k for k in range(power, power + 4) for f in (1, 2, 5) if low <= f * 10.0**k <= high]
    chosen = fine if 2 <= len(fine) <= n else tens if len(tens) == 2 else _round_ticks(low, high, n)
    return [(t, told(t)) for t in chosen]


# ---------------------------------------------------------------- rows: forest plots and bars


def forest(
    marks: Sequence[Mark],
    told: Told,
    *,
    title: str,
    desc: str,
    reference: float | None = None,
    band: float | None = None,
    ends: tuple[str, str] = ("", ""),
) -> str:
    """Estimates below each other, each with its interval; a dashed line at the reference, a band of ± around it.

    Args:
        ends: what is written left and right of the reference's upper end.
    """
    values = [v for m in marks for v in (m.value, m.low, m.high) if v is not None]
    x = axis([*values, *([] if reference is None else [reference])], told, end=ROWS)
    row, top = 40, 20 if any(ends) else 4
    bottom = top + row * len(marks)
    body = []
    if reference is not None:
        if band is not None:
            left, right = x.at(reference - band), x.at(reference + band)
            body.append(
                f'<rect class="band" x="{_p(left)}" y="{top}" width="{_p(right - left)}" height="{bottom - top}"/>'
            )
        body.append(_line(x.at(reference), top, x.at(reference), bottom, "reference"))
        fits = x.at(reference) > ROOM
        body += [_words(x.at(reference) - 0.012, 11, ends[0], "small", "end")] if ends[0] and fits else []
        body += [_words(x.at(reference) + 0.012, 11, ends[1], "small")] if ends[1] else []
    for k, mark in enumerate(marks):
        body += _mark(mark, x, top + row * k)
    for value, text in x.ticks:
        body.append(_line(x.at(value), bottom, x.at(value), bottom + 4, "axis"))
        body.append(_words(x.at(value), bottom + 16, text, "tick", _anchor(x.at(value))))
    body.append(_line(0, bottom, ROWS, bottom, "axis"))
    return _svg("rows", bottom + 20, body, title, desc)


def _mark(mark: Mark, x: Axis, top: float) -> list[str]:
    y = top + 25
    parts = [_words(0, top + 13, mark.label, "label", whole=mark.label), _words(1, y + 4, mark.told, "value", "end")]
    if mark.note:
        parts.append(_words(1, top + 11, _cut(mark.note, N_LETTERS // 2), f"note {mark.tone}", "end", whole=mark.note))
    if mark.low is not None and mark.high is not None:
        parts.append(_line(x.at(mark.low), y, x.at(mark.high), y, f"interval {mark.tone}"))
    parts.append(f'<circle class="estimate {escape(mark.tone)}" cx="{_p(x.at(mark.value))}" cy="{y}" r="4.5"/>')
    return parts


def bars(groups: Sequence[tuple[str, Sequence[Mark]]], *, title: str, desc: str) -> str:
    """Named groups of bars from zero, each bar with its interval and, at the right, its number in words."""
    marks = [mark for _, group in groups for mark in group]
    most = max((max(m.value, m.high or 0) for m in marks), default=0) or 1.0
    y, body = 0.0, []
    for name, group in groups:
        body.append(_words(0, y + 13, name, "label", whole=name))
        for mark in group:
            y += 18
            body.append(_bar(mark, most, y))
        y += 26
    return _svg("rows", y, body, title, desc)


def _bar(mark: Mark, most: float, y: float) -> str:
    width = _p(max(ROWS * (mark.value / most), 0.002))
    drawn = f'<rect class="bar {escape(mark.tone)}" x="0" y="{y:g}" width="{width}" height="11" rx="1.5"/>'
    if mark.low is not None and mark.high is not None:
        drawn += _line(ROWS * mark.low / most, y + 5.5, ROWS * mark.high / most, y + 5.5, "whisker")
    return drawn + _words(1, y + 10, mark.told, "value", "end")


# ---------------------------------------------------------------- plots


def curves(
    series: Sequence[tuple[str, Sequence[Point]]], x: Axis, y: Axis, *, title: str, desc: str, best: Point | None = None
) -> str:
    """Lines of a class each ("train" dashed, "val" solid); the best point is marked by a line and a dot."""
    body = [_path(points, x, y, name) for name, points in series]
    if best is not None:
        at = x.at(best[0])
        body.append(_line(at, 0, at, PLOT, "reference"))
        body.append(_dot(x, y, best, "estimate good"))
        body.append(_words(at, -5, f"best: epoch {best[0]:g}", "small", _anchor(at, 0.3)))
    return _plot(body, x, y, title, desc)


def band(points: Sequence[tuple[float, float, float, float]], x: Axis, y: Axis, *, title: str, desc: str) -> str:
    """A line of (x, middle, low, high) within its band."""
    around = [(at, high) for at, _, _, high in points] + [(at, low) for at, _, low, _ in reversed(points)]
    line = [(at, middle) for at, middle, _, _ in points]
    return _plot([_path(around, x, y, "area"), _path(line, x, y, "val")], x, y, title, desc)


def dose(
    points: Sequence[tuple[float | None, float, bool]],
    trend: Sequence[tuple[float | None, float, float, float]],
    x: Axis,
    y: Axis,
    *,
    title: str,
    desc: str,
    winner: float | None = None,
    has_winner: bool = False,
) -> str:
    """Trials as (dose, value, pruned) with the binned trend (dose, mean, low, high); a dose of None is off.

    The axis must leave room for the column of those that are off: begin=OFF_WIDTH.
    """

    def at(value: float | None) -> float:
        return OFF_WIDTH * 0.4 if value is None else x.at(value)

    crowded = 2 * len({d for d, _, _ in points}) < len(points)
    spread = {d for d, _, _ in points} if crowded else {None}
    body = [
        _line(OFF_WIDTH * 0.8, 0, OFF_WIDTH * 0.8, PLOT, "divide"),
        _words(at(None), PLOT + 15, "off", "tick", "middle"),
    ]
    if has_winner:
        body.append(_line(at(winner), 0, at(winner), PLOT, "reference"))
        body.append(_words(at(winner), -5, "winner", "small", _anchor(at(winner), 0.12)))
    for pruned, name in ((True, "pruned"), (False, "complete")):
        some = [(at(d) + (_jitter(k) if d in spread else 0), v) for k, (d, v, p) in enumerate(points) if p == pruned]
        body.append(_dots(_thinned(some), y, name))
    body.append(_path([(at(d), mean) for d, mean, _, _ in trend if d is not None], None, y, "trend"))
    for d, mean, low, high in trend:
        body.append(_line(at(d), _y(y, low), at(d), _y(y, high), "whisker"))
        body.append(f'<circle class="estimate" cx="{_p(at(d))}" cy="{_y(y, mean):.1f}" r="3.5"/>')
    return _plot(body, x, y, title, desc)


def reliability(bins: Sequence[tuple[float, float, float]], told: Told, *, title: str, desc: str) -> str:
    """Share correct against mean confidence, per bin (confidence, accuracy, share of examples), beside the diagonal."""
    x = axis([0.0, 1.0], told)
    body = [_path([(0.0, 0.0), (1.0, 1.0)], x, x, "reference")]
    body += [_line(x.at(c), _y(x, a), x.at(c), _y(x, c), "whisker") for c, a, _ in bins]
    body.append(_path([(c, a) for c, a, _ in bins], x, x, "val"))
    for c, a, share in bins:
        radius = 2.5 + 9 * math.sqrt(max(share, 0))
        body.append(f'<circle class="bin" cx="{_p(x.at(c))}" cy="{_y(x, a):.1f}" r="{radius:.1f}"/>')
    return _plot(body, x, x, title, desc)


def _plot(body: Sequence[str], x: Axis, y: Axis, title: str, desc: str) -> str:
    """The body over its grid; letters stand in the margins that the style sheet keeps for them."""
    grid = []
    for value, text in y.ticks:
        grid.append(_line(0, _y(y, value), 1, _y(y, value), "grid"))
        grid.append(f'<text class="tick" x="-6" y="{_y(y, value) + 4:.1f}" text-anchor="end">{_escaped(text)}</text>')
    for value, text in x.ticks:
        grid.append(_words(x.at(value), PLOT + 15, text, "tick", "end" if x.at(value) > LAST else "middle"))
    grid.append(_line(0, PLOT, 1, PLOT, "axis"))
    return _svg("plot", PLOT, [*grid, *body], title, desc)


def _path(points: Sequence[Point], x: Axis | None, y: Axis, name: str) -> str:
    """A line in a picture of its own, which is stretched to the width; gaps where a value is not finite."""
    steps, pen = [], "M"
    for across, value in _thinned(points):
        if not math.isfinite(value):
            pen = "M"
            continue
        steps.append(f"{pen}{1000 * (x.at(across) if x else across):.0f} {_y(y, value):.1f}")
        pen = "L"
    closed = "Z" if name == "area" else ""
    return (
        f'<svg class="stretch" width="100%" height="{PLOT}" viewBox="0 0 1000 {PLOT}" preserveAspectRatio="none">'
        f'<path class="{name}" d="{"".join(steps)}{closed}" vector-effect="non-scaling-stroke"/></svg>'
    )


def _dots(points: Sequence[Point], y: Axis, name: str) -> str:
    """Points at (share, value), in one path of lines without length: a tenth of the bytes of as many circles."""
    steps = "".join(f"M{1000 * across:.0f} {_y(y, value):.1f}h0" for across, value in points if math.isfinite(value))
    return (
        f'<svg class="stretch" width="100%" height="{PLOT}" viewBox="0 0 1000 {PLOT}" preserveAspectRatio="none">'
        f'<path class="dots {name}" d="{steps}" vector-effect="non-scaling-stroke"/></svg>'
    )


def _dot(x: Axis, y: Axis, point: Point, name: str) -> str:
    return f'<circle class="{name}" cx="{_p(x.at(point[0]))}" cy="{_y(y, point[1]):.1f}" r="4"/>'


# ---------------------------------------------------------------- parts


def _svg(kind: str, height: float, body: Sequence[str], title: str, desc: str) -> str:
    drawn = "".join(body)
    key = f"c{crc32(f'{title}{desc}{drawn}'.encode(errors='replace')):08x}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart {kind}" role="img" width="100%" height="{height:g}" '
        f'aria-labelledby="{key}t {key}d"><title id="{key}t">{_escaped(title)}</title>'
        f'<desc id="{key}d">{_escaped(desc)}</desc>{drawn}</svg>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line class="{escape(name)}" x1="{_p(x1)}" y1="{y1:.4g}" x2="{_p(x2)}" y2="{y2:.4g}"/>'


def _words(x: float, y: float, text: str, name: str, anchor: str = "start", whole: str = "") -> str:
    tooltip = f"<title>{_escaped(whole)}</title>" if len(whole) > N_LETTERS else ""
    return f'<text class="{name}" x="{_p(x)}" y="{y:g}" text-anchor="{anchor}">{tooltip}{_escaped(_cut(text))}</text>'


def _cut(text: str, n: int = N_LETTERS) -> str:
    return text if len(text) <= n else f"{text[: n - 1]}…"


def _escaped(text: str) -> str:
    return escape(FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text))


def _p(share: float) -> str:
    return f"{100 * share:.2f}%"


def _y(y: Axis, value: float) -> float:
    return PLOT * (1 - y.at(value))


def _anchor(share: float, margin: float = 0.05) -> str:
    """Letters near an end of the axis stay within the chart."""
    return "start" if share < margin else "end" if share > 1 - margin else "middle"


def _jitter(k: int) -> float:
    """Spreads points that share a place, the same way each time. Source: the golden ratio's sequence."""
    return ((k * 0.618034) % 1 - 0.5) * OFF_WIDTH * 0.45


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most about N_POINTS of them, evenly, the last one kept."""
    step = math.ceil(len(points) / N_POINTS) or 1
    return points if step == 1 else [*points[:-1:step], points[-1]]
