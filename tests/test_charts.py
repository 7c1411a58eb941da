"""Charts: well-formed whatever they are given, and true to their numbers."""

import math
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.charts import OFF_WIDTH, PLOT, Axis, Mark, axis, band, bars, curves, dose, forest, reliability

NUMBERS = st.floats(-1e6, 1e6)
LOSSES = st.floats()
"""NaN and infinities among them."""
TEXTS = st.text(max_size=40)
HOSTILE = "<script>alert(\"1\")</script> & 'so' \x00\ud800"
SVG = "{http://www.w3.org/2000/svg}"


def told(value: float) -> str:
    return f"{value:g}"


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def words(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in parsed(svg).iter(f"{SVG}text")]


def share(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name].removesuffix("%")) / 100


def mark(label: str = "winner", value: float = 1.0, half: float = 0.5, note: str = "") -> Mark:
    return Mark(label=label, told=told(value), value=value, low=value - half, high=value + half, note=note)


def every_chart(text: str) -> list[str]:
    named: Any = {"title": text, "desc": text}
    across, up = axis([0.0, 10.0], told), axis([0.0, 1.0], lambda _: text)
    marks = [mark(text, 1.0, note=text), mark(text, 3.0)]
    return [
        forest(marks, lambda _: text, reference=0.0, band=0.5, ends=(text, text), **named),
        bars([(text, marks)], **named),
        curves([("train", [(0, 0.9), (1, math.nan)]), ("val", [(0, 0.8)])], across, up, best=(0, 0.8), **named),
        band([(1, 0.5, 0.4, 0.6), (2, 0.6, 0.5, 0.7)], across, up, **named),
        dose([(None, 0.5, False), (3.0, 0.6, True)], [(None, 0.5, 0.4, 0.6)], across, up, has_winner=True, **named),
        reliability([(0.5, 0.4, 1.0)], lambda _: text, **named),
    ]


@settings(max_examples=40)
@given(TEXTS)
def test_every_chart_is_well_formed_and_named_whatever_its_texts(text: str) -> None:
    for svg in every_chart(text):
        root = parsed(svg)
        assert root.attrib["role"] == "img"
        ids = [root[0].attrib["id"], root[1].attrib["id"]]
        assert [root[0].tag, root[1].tag] == [f"{SVG}title", f"{SVG}desc"]
        assert root.attrib["aria-labelledby"].split() == ids


def test_hostile_texts_are_letters_and_nothing_else() -> None:
    for svg in every_chart(HOSTILE):
        assert "<script" not in svg
        svg.encode()  # no lone surrogate is left
        assert {element.tag.removeprefix(SVG) for element in parsed(svg).iter()} <= {
            "svg", "title", "desc", "text", "line", "rect", "circle", "path",
        }  # fmt: skip


@pytest.mark.parametrize("log", [False, True])
@given(values=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_axis_holds_all_values_and_few_round_ticks(log: bool, values: list[float]) -> None:
    found = axis(values, lambda v: f"{v!r}", log=log, begin=0.1, end=0.9)
    assert all(0.1 - 1e-9 <= found.at(value) <= 0.9 + 1e-9 for value in values)
    assert len(found.ticks) <= 6
    assert all(found.low <= at <= found.high for at, _ in found.ticks)
    if max(values) > 1.5 * min(values):
        assert len(found.ticks) >= 2
        assert all(_is_round(at, found) for at, _ in found.ticks)


def _is_round(at: float, found: Axis) -> bool:
    """A multiple of a tenth of the range's power of ten."""
    unit = 10.0 ** (math.floor(math.log10(found.high - found.low)) - 1)
    return at < unit or math.isclose(at / unit, round(at / unit), abs_tol=1e-6)


@given(st.lists(NUMBERS, min_size=2, max_size=9))
def test_an_axis_keeps_the_order_of_values(values: list[float]) -> None:
    found = axis(values, told)
    places = [found.at(value) for value in sorted(values)]
    assert places == sorted(places)


def test_ticks_of_a_wide_log_axis_are_powers_of_ten() -> None:
    assert [text for _, text in axis([1e-5, 1e-1], told, log=True).ticks] == ["10⁻⁵", "10⁻⁴", "10⁻³", "10⁻²", "10⁻¹"]
    assert [text for _, text in axis([1, 200], told, log=True).ticks] == ["1", "10", "100"]
    assert [text for _, text in axis([0.4, 2.3], told, log=True).ticks] == ["0.5", "1", "2"]


@given(value=NUMBERS, half=st.floats(0.01, 1e3), other=NUMBERS)
def test_forest_draws_estimate_and_interval_where_its_ticks_say(value: float, half: float, other: float) -> None:
    """Position and value of any two ticks give every other position by proportion."""
    root = parsed(forest([mark(value=value, half=half), mark(value=other)], repr, title="t", desc="d"))
    ticks = [e for e in root.iter(f"{SVG}text") if e.attrib["class"] == "tick"]
    (x0, v0), (x1, v1) = [(share(e, "x"), float(e.text or "")) for e in (ticks[0], ticks[-1])]
    if v0 == v1:
        return

    def expected(v: float) -> float:
        return x0 + (x1 - x0) * (v - v0) / (v1 - v0)

    circle = next(root.iter(f"{SVG}circle"))
    line = next(e for e in root.iter(f"{SVG}line") if e.attrib["class"].startswith("interval"))
    assert share(circle, "cx") == pytest.approx(expected(value), abs=1e-3)
    assert share(line, "x1") == pytest.approx(expected(value - half), abs=1e-3)
    assert share(line, "x2") == pytest.approx(expected(value + half), abs=1e-3)


def test_forest_says_label_number_and_note_of_each_row() -> None:
    svg = forest([mark("dropout", 2.5, note="helps"), mark("l1", -1)], told, title="t", desc="d")
    assert {"dropout", "2.5", "helps", "l1", "-1"} <= set(words(svg))


def test_a_long_label_is_cut_and_kept_whole_as_its_tooltip() -> None:
    name = "a_very_long_class_name_" * 4
    text = next(parsed(forest([mark(name)], told, title="t", desc="d")).iter(f"{SVG}text"))
    assert text[0].text == name
    assert (text[0].tail or "").endswith("…")
    assert len(text[0].tail or "") <= 30


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
def test_bars_are_as_long_as_their_values(values: list[float]) -> None:
    marks = [Mark(label="x", told=told(v), value=v) for v in values]
    widths = [share(e, "width") for e in parsed(bars([("", marks)], title="t", desc="d")).iter(f"{SVG}rect")]
    for value, width in zip(values, widths, strict=True):
        assert width == pytest.approx(max(0.6 * (value / (max(values) or 1)), 0.002), abs=1e-3)


@given(st.lists(LOSSES, min_size=1, max_size=30))
def test_what_is_not_finite_leaves_a_gap_in_a_curve(losses: list[float]) -> None:
    points = list(enumerate(losses))
    across, up = axis([0, 30], told), axis(losses, told)
    (path,) = parsed(curves([("val", points)], across, up, title="t", desc="d")).iter(f"{SVG}path")
    finite = [math.isfinite(loss) for loss in losses]
    begins = sum(now and not before for before, now in zip([False, *finite], finite, strict=False))
    assert path.attrib["d"].count("M") == begins
    assert path.attrib["d"].count("M") + path.attrib["d"].count("L") == sum(finite)
    assert "nan" not in path.attrib["d"]
    assert "inf" not in path.attrib["d"]


def test_values_beyond_an_axis_lie_at_its_edge() -> None:
    across, up = axis([0, 1], told), Axis(low=0.0, high=1.0, ticks=[])
    (path,) = parsed(curves([("val", [(0, -5.0), (1, 7.0)])], across, up, title="t", desc="d")).iter(f"{SVG}path")
    ys = [float(step.split()[1]) for step in path.attrib["d"][1:].split("L")]
    assert ys == [PLOT, 0]


def test_trials_without_the_regularizer_stand_apart_from_all_doses() -> None:
    points = [(None, 0.5, False)] * 30 + [(0.0, 0.5, False), (0.6, 0.5, False)]
    across, up = axis([0.0, 0.6], told, begin=OFF_WIDTH), axis([0, 1], told)
    svg = dose(points, [], across, up, title="t", desc="d")
    dots = next(e for e in parsed(svg).iter(f"{SVG}path") if e.attrib["class"] == "dots complete")
    xs = [float(step.split()[0]) / 1000 for step in dots.attrib["d"][1:].split("M")]
    assert max(xs[:30]) < OFF_WIDTH < min(xs[30:])
    assert "off" in words(svg)


def test_pruned_trials_are_drawn_apart_from_complete_ones() -> None:
    points = [(0.1, 0.5, False), (0.2, 0.4, True), (0.3, 0.3, True)]
    across, up = axis([0.1, 0.3], told, begin=OFF_WIDTH), axis([0, 1], told)
    paths = parsed(dose(points, [], across, up, title="t", desc="d")).iter(f"{SVG}path")
    counts = {e.attrib["class"]: e.attrib["d"].count("M") for e in paths if "dots" in e.attrib["class"]}
    assert counts == {"dots pruned": 2, "dots complete": 1}


@pytest.mark.parametrize(
    "draw",
    [
        lambda n, x, y: dose([(k / n, k / n, False) for k in range(n)], [], x, y, title="t", desc="d"),
        lambda n, x, y: curves([("val", [(k / n, k / n) for k in range(n)])], x, y, title="t", desc="d"),
    ],
)
def test_a_hundred_thousand_points_are_thinned_to_a_small_picture(draw: Callable[[int, Axis, Axis], str]) -> None:
    small, large = (draw(n, axis([0, 1], told), axis([0, 1], told)) for n in (400, 100_000))
    assert len(large) < 1.2 * len(small) < 12_000
