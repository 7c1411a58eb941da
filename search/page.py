"""The report as one HTML page, from its findings alone: no state, no clock."""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from search import charts
from search.charts import FORBIDDEN, OFF_WIDTH, Mark, axis
from search.findings import (
    Ablated,
    Confusions,
    Effect,
    Interval,
    Learning,
    Measure,
    Report,
    capitalized,
    fixed,
    number,
)

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

ANSWERS: Mapping[str, tuple[str, str]] = {
    "confirmed": ("Yes", "good"),
    "not shown": ("Not shown", "open"),
    "it hurts": ("No", "bad"),
}
"""Does regularization help: the word before the verdict, and its color."""
EFFECTS: Mapping[Effect, tuple[str, str]] = {
    "helps": ("▲", "good"),
    "hurts": ("▼", "bad"),
    "equivalent": ("=", "plain"),
    "no evidence": ("?", "open"),
}
N_CLASSES = 20
"""Up to so many classes the confusion matrix is shown whole; beyond, the most frequent confusions."""
N_CONFUSIONS = 20
Figures = list[tuple[str, str, str]]
"""Small multiples: name, note and SVG of each."""


def render(report: Report) -> str:
    """The whole page; it refers to nothing outside of itself, holds no script, and escapes every text."""
    drawn: dict[str, str | Figures] = {
        "headline": _headline(report),
        "ablation": _ablation(report),
        "interactions": _interactions(report),
        "doses": _doses(report),
        "best_curves": _curves(report.best_curves),
        "typical_curves": _curves(report.typical_curves),
        "diagnoses": _diagnoses(report),
        "importance": _importance(report),
        "expected_best": _expected_best(report),
        "recalls": _recalls(report),
        "calibration": _calibration(report),
    }
    whole = _template().render(
        r=report, m=report.measure, charts={name: _safe(chart) for name, chart in drawn.items()},
        answers=ANSWERS, effects=EFFECTS, confusions=_confusions(report.confusion), n_classes=N_CLASSES,
        duration=_duration, number=number, minus=_minus, percent=_percent, capitalized=capitalized,
        rate=_rate,
    )  # fmt: skip
    return FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"\n\s*\n+", "\n", whole))


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")


def _safe(chart: str | Figures) -> "Markup | list[tuple[str, str, Markup]]":
    """Our own SVG, whose texts charts.py has escaped; everything else is escaped by the template."""
    from markupsafe import Markup

    if isinstance(chart, str):
        return Markup(chart)  # noqa: S704
    return [(name, note, Markup(svg)) for name, note, svg in chart]  # noqa: S704


# ---------------------------------------------------------------- the charts


def _headline(report: Report) -> str:
    if (confirmation := report.confirmation) is None:
        return ""
    told, tones = report.measure.told, {"winner": "good", "runner-up": "plain"}
    marks = [
        Mark(
            label=each.role,
            told=_beside(report.measure, each.mean, each.interval),
            value=each.mean,
            low=each.interval[0],
            high=each.interval[1],
            tone=tones.get(each.role, "rest"),
            note=each.name if each.name != each.role else "",
        )
        for each in confirmation.candidates
    ]
    said = None if report.found is None else report.found.value
    told_said = "" if said is None else f"the search said {told(said)}"
    shown = [end for each in confirmation.candidates for end in each.interval]
    left = said is None or 2 * said > min(shown) + max(shown)
    return charts.forest(
        marks, report.measure.tick, title=f"Test {report.measure.name} of the finalists", desc=_listed(marks),
        reference=said, ends=(told_said, "") if left else ("", told_said),
    )  # fmt: skip


def _ablation(report: Report) -> str:
    if report.ablation is None or not report.ablation.rows:
        return ""
    return _effects(report, report.ablation.rows, "What each regularizer gains", report.ablation.margin)


def _interactions(report: Report) -> str:
    if report.ablation is None or not report.ablation.interactions:
        return ""
    return _effects(report, report.ablation.interactions, "What they gain together beyond their sum", None)


def _effects(report: Report, rows: Sequence[Ablated], title: str, margin: float | None) -> str:
    measure = report.measure
    marks = [
        Mark(
            label=row.name,
            told=f"{measure.gain(row.gain)} [{_short(measure, row.interval)}]",
            value=row.gain,
            low=row.interval[0],
            high=row.interval[1],
            tone=EFFECTS[row.effect][1],
            note=f"{EFFECTS[row.effect][0]} {row.effect}",
        )
        for row in rows
    ]
    return charts.forest(
        marks, measure.tick, title=title, desc=_listed(marks), reference=0.0, band=margin, ends=("hurts ◂", "▸ helps")
    )


def _doses(report: Report) -> Figures:
    drawn = []
    y = axis(_worth_showing(report), report.measure.tick)
    for each in report.doses:
        values = [at for at, _, _ in each.points if at is not None]
        if each.switch:
            x = charts.Axis(low=0.0, high=2.0, ticks=[(1.0, "on")], begin=OFF_WIDTH)
        else:
            x = axis(values, lambda v: f"{v:g}", n=4, log=each.log, begin=OFF_WIDTH)
        bins = "; ".join(
            f"{'off' if at is None else f'{at:.2g}'}: {report.measure.told(mean)}" for at, mean, _, _ in each.trend
        )
        svg = charts.dose(
            each.points, each.trend, x, y,
            title=f"{capitalized(report.measure.searched)} by {each.parameter}", desc=f"Means of the bins: {bins}.",
            winner=each.winner, has_winner=report.found is not None,
        )  # fmt: skip
        drawn.append((each.parameter, f"{len(each.points)} trials", svg))
    return drawn


def _worth_showing(report: Report) -> list[float]:
    """The values that the axis of all dose-response plots holds: of the worst complete trials some lie at its edge."""
    sign = 1 if report.measure.maximize else -1
    complete = sorted(sign * value for dose in report.doses for _, value, pruned in dose.points if not pruned)
    kept = [sign * value for value in complete[len(complete) // 20 :]]
    return kept + [mean for dose in report.doses for _, mean, _, _ in dose.trend]


def _curves(trials: Sequence[Learning]) -> Figures:
    """Small multiples on shared axes, so that they can be compared."""
    losses = [loss for each in trials for curve in (each.train, each.val) for _, loss in curve]
    low, high = _middle(losses)
    positive = bool(losses) and low > 0
    y = axis([low, high], lambda v: f"{v:.3g}", log=positive and high / low > 4)
    x = axis([epoch for each in trials for epoch, _ in (*each.train, *each.val)], lambda v: f"{v:.0f}")
    x = charts.Axis(low=x.low, high=x.high, ticks=[tick for tick in x.ticks if tick[0] == round(tick[0])])
    drawn = []
    for each in trials:
        best = next(((at, loss) for at, loss in each.val if at == each.best_epoch), None)
        told = "no finite loss" if best is None else f"lowest at epoch {best[0]:g}, {number(best[1])}"
        desc = f"Training loss (dashed) and validation loss (solid) by epoch; the best epoch: {told}."
        svg = charts.curves([("train", each.train), ("val", each.val)], x, y, title=each.title, desc=desc, best=best)
        drawn.append((each.title, each.note, svg))
    return drawn


def _diagnoses(report: Report) -> str:
    if not report.diagnoses:
        return ""
    total = sum(each.count for each in report.diagnoses) or 1
    groups = [
        (
            each.label,
            [Mark(label=each.label, value=each.count, told=f"{each.count} ({100 * each.count / total:.0f} %)")],
        )
        for each in report.diagnoses
    ]
    desc = ", ".join(f"{each.label} {each.count}" for each in report.diagnoses)
    return charts.bars(groups, title="How many trials got which diagnosis", desc=desc)


def _importance(report: Report) -> str:
    if not report.importance:
        return ""
    groups = []
    for each in report.importance:
        methods = (("PED-ANOVA", each.ped_anova, ""), ("fANOVA", each.fanova, "hollow"))
        marks = [
            Mark(
                label=name,
                value=found[0],
                low=found[1][0],
                high=found[1][1],
                tone=tone,
                told=f"{100 * found[0]:.0f} % [{100 * found[1][0]:.0f}, {100 * found[1][1]:.0f}]",
            )
            if found is not None
            else Mark(label=name, value=0.0, told="too few trials", tone=tone)
            for name, found, tone in methods
        ]
        groups.append((each.parameter, marks))
    return charts.bars(
        groups, title="Importance of each parameter", desc="; ".join(f"{n}: {_listed(m)}" for n, m in groups)
    )


def _expected_best(report: Report) -> str:
    points = report.expected_best
    if len(points) < 2:
        return ""
    x = axis([n for n, *_ in points], lambda v: f"{v:.0f}", log=True)
    y = axis([v for _, *values in points for v in values], report.measure.tick)
    first, last, told = points[0], points[-1], report.measure.told
    desc = f"From {told(first[1])} after {first[0]:g} to {told(last[1])} after {last[0]:g} trials."
    return charts.band(points, x, y, title="Expected best against the number of trials", desc=desc)


def _recalls(report: Report) -> str:
    if report.confusion is None:
        return ""
    recalls = sorted(report.confusion.recalls, key=lambda each: each.recall)[:N_CLASSES]
    marks = [
        Mark(
            label=each.name, value=each.recall, low=each.interval[0], high=each.interval[1], tone="plain",
            told=f"{_percent(each.recall)} [{_percent(each.interval[0], '')}, {_percent(each.interval[1], '')}]",
        )
        for each in recalls
    ]  # fmt: skip
    return charts.forest(
        marks, lambda v: f"{100 * v:.4g}", title="Recall of each class, the lowest first", desc=_listed(marks)
    )


def _calibration(report: Report) -> str:
    if report.calibration is None:
        return ""
    desc = "; ".join(f"confidence {_percent(c)}: {_percent(a)} correct" for c, a, _ in report.calibration.bins)
    return charts.reliability(
        report.calibration.bins, lambda v: f"{100 * v:.0f}", title="Share correct against confidence", desc=desc
    )


# ---------------------------------------------------------------- words and numbers


def _confusions(confusion: Confusions | None) -> Sequence[tuple[str, str, int, float]]:
    """The most frequent confusions: (true, predicted, count, share of the true class)."""
    if confusion is None:
        return []
    names = [each.name for each in confusion.recalls]
    wrong = [
        (names[k], names[j], count, count / max(sum(row), 1))
        for k, row in enumerate(confusion.counts)
        for j, count in enumerate(row)
        if j != k and count
    ]
    return sorted(wrong, key=lambda each: -each[2])[:N_CONFUSIONS]


def _listed(marks: Sequence[Mark]) -> str:
    return "; ".join(f"{mark.label} {mark.told}{f' ({mark.note})' if mark.note else ''}" for mark in marks)


def _middle(losses: Sequence[float]) -> Interval:
    """The range of the losses but the highest few, which would squeeze all others."""
    ordered = sorted(loss for loss in losses if math.isfinite(loss)) or [0.0, 1.0]
    return ordered[0], ordered[-1 - len(ordered) // 50]


def _minus(measure: Measure, interval: Interval) -> str:
    """An interval without its unit: "57.1, 58.0"."""
    return ", ".join((fixed(100 * end, 1) if measure.percent else number(end)).replace("-", "−") for end in interval)


def _beside(measure: Measure, mean: float, interval: Interval) -> str:
    """What fits beside a row of a chart on a phone."""
    if measure.percent:
        return f"{measure.told(mean)} [{_minus(measure, interval)}]"
    return f"{mean:.3g} [{_short(measure, interval)}]".replace("-", "−")


def _short(measure: Measure, interval: Interval) -> str:
    """An interval beside a row of a chart."""
    if measure.percent:
        return _minus(measure, interval)
    return ", ".join(f"{end:.3g}" for end in interval).replace("-", "−")


def _percent(share: float, unit: str = "\N{NO-BREAK SPACE}%") -> str:
    return f"{100 * share:.1f}{unit}"


def _rate(an_hour: float) -> str:
    return number(an_hour) if an_hour < 1000 else f"{an_hour:,.0f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"
