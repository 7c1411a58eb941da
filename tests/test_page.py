"""The page: whole in itself, safe with any text, and saying every number it was given."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.findings import Confusions, Effect, Measure, Recall, Report, Role
from search.page import ANSWERS, render
from tests.example_report import example_report

VOID = {"meta", "br", "link", "img"}
WORDS = {*get_args(Role), *get_args(Effect), *ANSWERS}
"""Texts that are a choice of ours, not a user's."""
HOSTILE = "</style><script>alert('1')</script><img src=x onerror=\"alert(2)\">{{ 7 * 7 }}" + "W" * 200
BARE = Report(study="s", title="T", question="Q?", written="2026", measure=Measure(name="accuracy", percent=True))


class Page(HTMLParser):
    """What a browser would make of it: tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())

    @property
    def structure(self) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in self.tags]


def with_texts(value: Any, text: str) -> Any:
    """The same findings with every text of a user's replaced."""
    if isinstance(value, str):
        return value if not value or value in WORDS else text
    if isinstance(value, list | tuple):
        return type(value)(with_texts(each, text) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {f.name: with_texts(getattr(value, f.name), text) for f in fields(value)}
        return replace(value, **changed)
    return value


def bare_reports() -> Iterator[Report]:
    """The example with each finding missing in turn, then with all."""
    whole = example_report(n_trials=20)
    for field in fields(BARE):
        yield replace(whole, **{field.name: getattr(BARE, field.name)})
    yield BARE


def charts_in(html: str) -> Iterator[str]:
    """Each outermost SVG that has a namespace: the charts, not the legends' little ones."""
    for begin in (found.start() for found in re.finditer("<svg xmlns", html)):
        depth = 0
        for tag in re.finditer(r"<svg|</svg>", html[begin:]):
            depth += 1 if tag.group() == "<svg" else -1
            if depth == 0:
                yield html[begin : begin + tag.end()]
                break


# ---------------------------------------------------------------- well-formed, safe, alone


def test_every_element_is_closed_in_order() -> None:
    assert Page(render(example_report())).open == []


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=40).filter(lambda text: " (" not in text))
def test_no_text_changes_what_the_page_consists_of(text: str) -> None:
    report = example_report(n_trials=20)
    with_x = Page(render(with_texts(report, "x" * len(text))))
    assert Page(render(with_texts(report, text))).structure == with_x.structure


@pytest.mark.parametrize("n_classes", [10, 21])
def test_hostile_text_in_every_place_stays_text(n_classes: int) -> None:
    report = replace(example_report(n_trials=20), confusion=_confusions(n_classes))
    html = render(with_texts(report, HOSTILE))
    assert not re.search(r"<script|<img|</style>.*</style>", html, re.DOTALL)
    assert "49" not in html.split("{{", 1)[1][:12]
    assert {tag for tag, _ in Page(html).tags} == {tag for tag, _ in Page(render(report)).tags}


def test_a_page_with_forbidden_characters_can_be_written_as_utf8() -> None:
    html = render(with_texts(example_report(n_trials=20), "a\x00b\ud800c"))
    assert "\x00" not in html
    assert "a\N{REPLACEMENT CHARACTER}b" in html.encode().decode()


def test_page_refers_to_nothing_outside_of_itself_and_runs_nothing() -> None:
    html = render(example_report())
    page = Page(html)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "base", "form"}
        assert not any(name.startswith("on") or name in {"src", "srcset", "action"} for name in attributes)
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
    assert not re.search(r"url\(|@import|javascript:", html)
    assert set(re.findall(r"https?://[^\"' ]*", html)) == {"http://www.w3.org/2000/svg"}
    policies = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]


def test_every_chart_in_the_page_is_well_formed_and_named() -> None:
    charts = list(charts_in(render(example_report())))
    assert len(charts) == 1 + 2 + 8 + 10 + 1 + 1 + 1 + 1 + 1
    for svg in charts:
        assert ElementTree.fromstring(svg).attrib["role"] == "img"


@pytest.mark.parametrize("report", [example_report(n_trials=20), *bare_reports()])
def test_ids_are_unique_and_every_link_leads_somewhere(report: Report) -> None:
    tags = Page(render(report)).tags
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for _, a in tags if "href" in a} <= set(ids)


@pytest.mark.parametrize("report", [example_report(n_trials=20), *bare_reports()])
def test_headings_descend_one_level_at_a_time(report: Report) -> None:
    levels = [int(tag[1]) for tag, _ in Page(render(report)).tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_page_says_its_language_and_every_table_heading_its_scope() -> None:
    tags = Page(render(example_report())).tags
    assert ("html", {"lang": "en"}) in tags
    assert all(a.get("scope") in {"row", "col"} for tag, a in tags if tag == "th")


@pytest.mark.parametrize("n_trials", [200, 5000])
def test_page_stays_small(n_trials: int) -> None:
    assert len(render(example_report(n_trials=n_trials)).encode()) < 300_000


# ---------------------------------------------------------------- it says what it was given


def numbers_of(report: Report) -> Iterator[str]:
    """Every number but those that are only drawn, as a reader expects it to be written."""

    def points(value: float) -> str:
        return f"{100 * value:+.1f}".replace("-", "−")

    def percents(*values: float) -> Iterator[str]:
        return (f"{100 * value:.1f}" for value in values)

    assert report.confirmation is not None
    assert report.ablation is not None
    assert report.confusion is not None
    assert report.calibration is not None
    assert report.cost is not None
    assert report.found is not None
    yield from percents(report.found.value, report.confirmation.optimism)
    for each in report.confirmation.candidates:
        yield from percents(each.mean, *each.interval, *each.seeds_interval, each.deviation)
    for other in report.confirmation.differences:
        yield from map(points, (other.difference, *other.interval, *other.seeds_interval))
        yield from percents(other.probability, *other.probability_interval)
    for row in report.best:
        yield from (f"{100 * row.value:.1f}", str(row.best_epoch), str(row.trial))
    for effect in (*report.ablation.rows, *report.ablation.interactions):
        yield points(effect.gain)
        yield from (f"{100 * end:.1f}".replace("-0.0", "0.0").replace("-", "−") for end in effect.interval)
    for effect in report.ablation.rows:
        yield from [] if effect.seeds_needed is None else [str(effect.seeds_needed)]
    for parameter in report.importance:
        for found in (parameter.ped_anova, parameter.fanova):
            yield from [] if found is None else (f"{100 * v:.0f}" for v in (found[0], *found[1]))
    for class_ in report.confusion.recalls:
        yield from percents(class_.recall, *class_.interval)
    for counts in report.confusion.counts:
        yield from percents(*(count / sum(counts) for count in counts))
    yield from percents(report.calibration.ece, *report.calibration.ece_interval)
    yield from (f"{v:.4g}" for v in (report.calibration.nll, *report.calibration.nll_interval))
    yield from (f"{report.cost.epochs_trained:,}", f"{report.cost.epochs_saved:,}", "1 h 23 min", "2 h 44 min", "143.3")
    for _, cost in report.phase_costs:
        yield from (str(cost.n_trials), f"{cost.epochs_trained:,}", "1 h 8 min", "2 h 15 min", "70.24")
    yield from (str(each.count) for each in report.diagnoses)
    yield from (str(each.n_networks) for each in report.test_uses)


def test_every_number_is_written_as_often_as_it_was_given() -> None:
    report = example_report(n_trials=20)
    text = Page(render(report)).text
    written = {told: len(re.findall(rf"(?<![\d.]){re.escape(told)}(?![.]?\d)", text)) for told in numbers_of(report)}
    assert {told: n for told, n in Counter(numbers_of(report)).items() if written[told] < n} == {}


@pytest.mark.parametrize(
    "row",
    [
        "winner trial 23 57.2 % 56.4, 58.0 57.0, 57.5 0.4 13",
        "best unregularized lr 0.003 53.1 % 52.2, 54.0 52.7, 53.5 0.6 13",
        "runner-up +0.6 +0.1 to +1.1 +0.3 to +0.8 81.0 % [61.0, 100.0] take the winner",
        "dropout ○ off ● on 0.21",
        "label_smoothing ○ off ○ off",
        "shift ? no evidence +0.4 0.410 37",
        "batch_norm ▲ helps +2.1 < 0.001 –",
        "overfit 61 Regularize more,",
        "2026-03-14 10:12 confirm-1: the four finalists 52",
        "Commit e3db728c01b2",
    ],
)
def test_a_row_reads_as_its_findings(row: str) -> None:
    assert row in Page(render(example_report(n_trials=20))).text


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from texts_of(each)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from texts_of(getattr(value, field.name))


def test_every_text_is_written_somewhere() -> None:
    report = example_report(n_trials=20)
    text = Page(render(report)).text
    answers = set(ANSWERS)  # told by a word of their own
    assert [each for each in texts_of(report) if each not in answers and each not in text] == []


@pytest.mark.parametrize(("answer", "word"), [("confirmed", "Yes:"), ("not shown", "Not shown:"), ("it hurts", "No:")])
def test_verdict_begins_with_the_answer_in_a_word(answer: Any, word: str) -> None:
    report = example_report(n_trials=20)
    assert report.confirmation is not None
    changed = replace(report, confirmation=replace(report.confirmation, answer=answer))
    assert f"{word} dropout 0.21" in Page(render(changed)).text


def test_without_a_confirmation_the_first_screen_says_that_the_number_flatters() -> None:
    text = Page(render(replace(example_report(n_trials=20), confirmation=None))).text
    first = text[: text.index("Baseline against")]
    assert "No verdict yet: 58.9 % is the best of 20 trials" in first
    assert "That number flatters." in first
    assert "Not confirmed: run python -m search.confirm --study cifar_reg" in first
    assert "Yes:" not in text


def test_without_an_ablation_the_page_names_the_command() -> None:
    text = Page(render(replace(example_report(n_trials=20), ablation=None))).text
    assert "Not ablated: run python -m search.ablate --study cifar_reg" in text


def test_an_untouched_test_set_is_said_to_be_untouched() -> None:
    assert "None: nothing has read it." in Page(render(replace(example_report(n_trials=20), test_uses=()))).text


def test_what_is_missing_leaves_no_empty_heading() -> None:
    for report in bare_reports():
        html = render(report)
        assert not re.search(r"</h[23]>\s*</section>", html)
        assert not re.search(r"<tbody>\s*</tbody>", html)


def test_a_reduced_run_says_what_its_seeds_can_still_find() -> None:
    assert (
        "8 seeds instead of 13: an effect of 1.5 deviations would be found in 80 %."
        in Page(render(example_report(n_trials=20))).text
    )


def test_a_number_that_was_too_low_is_called_so() -> None:
    report = example_report(n_trials=20)
    assert report.confirmation is not None
    changed = replace(report, confirmation=replace(report.confirmation, optimism=-0.004))
    assert "0.4 points too low" in Page(render(changed)).text


def test_differences_of_a_loss_are_told_without_points_and_percent() -> None:
    measure = Measure(name="loss", percent=False, maximize=False)
    assert (measure.told(1.23456), measure.gain(-0.0123), measure.unit, measure.points) == ("1.235", "−0.0123", "", "")
    text = Page(render(replace(example_report(n_trials=20), measure=measure))).text
    assert "Confirmed test loss 0.5723" in text


@given(st.floats(-1, 1))
def test_no_number_is_told_as_minus_zero(value: float) -> None:
    measure = Measure(name="accuracy", percent=True)
    assert "−0.0" not in (measure.told(value).split("\N{NO-BREAK SPACE}")[0], measure.gain(value))
    assert float(measure.gain(value).replace("−", "-")) == pytest.approx(100 * value, abs=0.0501)


def _confusions(n: int) -> Confusions:
    counts: Sequence[Sequence[int]] = [[90 if k == j else k for j in range(n)] for k in range(n)]
    recalls = [Recall(name=f"class {k}", recall=0.5, interval=(0.4, 0.6), n=100) for k in range(n)]
    return Confusions(counts=counts, recalls=recalls, n_seeds=3)


def test_with_many_classes_the_most_frequent_confusions_stand_for_the_matrix() -> None:
    text = Page(render(replace(example_report(n_trials=20), confusion=_confusions(100)))).text
    assert "The 20 most frequent confusions" in text
    assert "class 99 class 0 99" in text
    assert "(20 of 100)" in text
