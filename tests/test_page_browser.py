"""The report as a person sees it: Chromium, both themes, a desktop, a phone and paper."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from search.page import render
from tests.example_report import example_report
from tests.test_browser import CHROMIUM, FLAGS
from tests.test_page import HOSTILE, with_texts

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
Theme = Literal["light", "dark"]
THEMES = ("light", "dark")
DESKTOP, PHONE = (1280, 800), (360, 740)
REPORTS = {
    "whole": example_report(),
    "bare": replace(example_report(n_trials=20), confirmation=None, ablation=None, confusion=None, calibration=None),
    "long words": with_texts(example_report(n_trials=20), "W" * 200),
    "hostile": with_texts(example_report(n_trials=20), HOSTILE),
}
CONTRASTS = """() => {
  const paper = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = color => {
    paper.clearRect(0, 0, 1, 1); paper.fillStyle = color; paper.fillRect(0, 0, 1, 1);
    return [...paper.getImageData(0, 0, 1, 1).data];
  };
  const over = (top, below) => top.slice(0, 3).map((v, k) => v * top[3] / 255 + below[k] * (1 - top[3] / 255));
  const ground = element => {
    const own = rgba(getComputedStyle(element).backgroundColor);
    if (own[3] == 255) return own;
    return [...over(own, element.parentElement ? ground(element.parentElement) : [255, 255, 255]), 255];
  };
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  return [...document.querySelectorAll('body *')]
    .filter(e => !['TITLE', 'DESC'].includes(e.tagName.toUpperCase()))
    .filter(e => [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
    .map(e => {
      const style = getComputedStyle(e), below = ground(e);
      const [a, b] = [light(over(rgba(e.tagName == 'text' ? style.fill : style.color), below)), light(below)];
      return [e.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
    });
}"""
BOXES = """() => {
  const boxes = [], walker = document.createTreeWalker(document.querySelector('header.top'), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, range = document.createRange();
    if (!node.data.trim() || ['title', 'desc'].includes(node.parentElement.tagName)) continue;
    range.selectNodeContents(node);
    for (const r of range.getClientRects()) boxes.push([node.data.trim(), r.left, r.top, r.right, r.bottom]);
  }
  for (const mark of document.querySelectorAll('header.top circle, header.top .interval')) {
    const r = mark.getBoundingClientRect();
    boxes.push(['a mark', r.left, r.top - 2, r.right, r.bottom + 2]);
  }
  return boxes;
}"""
"""The boxes of all letters and marks of the first screen."""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def shown(
    browser: "Browser", folder: Path, *, name: str = "whole", size: tuple[int, int] = DESKTOP, theme: Any = "light"
) -> Iterator["Page"]:
    (folder / "report.html").write_text(render(REPORTS[name]))
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    page.goto((folder / "report.html").as_uri())
    yield page
    page.close()


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_page_never_scrolls_sideways(browser: "Browser", tmp_path: Path, width: int, name: str, theme: Theme) -> None:
    with shown(browser, tmp_path, name=name, size=(width, 740), theme=theme) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("media", ["screen", "print"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", ["whole", "bare"])
def test_every_text_stands_out_from_its_ground(
    browser: "Browser", tmp_path: Path, name: str, theme: Theme, media: Literal["screen", "print"]
) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 to 1."""
    with shown(browser, tmp_path, name=name, theme=theme) as page:
        page.emulate_media(media=media, color_scheme=theme)
        contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_first_screen_holds_question_verdict_numbers_choice_and_finalists(
    browser: "Browser", tmp_path: Path, size: tuple[int, int]
) -> None:
    with shown(browser, tmp_path, size=size) as page:
        for part in ("h1", ".verdict", ".numbers", ".take", ".first figure"):
            box = page.locator(part).first.bounding_box()
            assert box is not None
            assert box["y"] >= 0
            assert box["y"] + box["height"] <= size[1], part


@pytest.mark.parametrize("name", ["whole", "bare"])
@pytest.mark.parametrize("size", [DESKTOP, (1010, 700), (830, 700), PHONE])
def test_no_letters_of_the_first_screen_lie_on_others_or_on_a_mark(
    browser: "Browser", tmp_path: Path, size: tuple[int, int], name: str
) -> None:
    with shown(browser, tmp_path, name=name, size=size) as page:
        boxes = page.evaluate(BOXES)
    assert len(boxes) > 10
    overlaps = [
        (a[0], b[0])
        for k, a in enumerate(boxes)
        for b in boxes[k + 1 :]
        if not a[0] == b[0] == "a mark"
        and min(a[3], b[3]) - max(a[1], b[1]) > 1
        and min(a[4], b[4]) - max(a[2], b[2]) > 3
    ]
    assert overlaps == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_no_letter_of_a_chart_leaves_the_screen(browser: "Browser", tmp_path: Path, size: tuple[int, int]) -> None:
    with shown(browser, tmp_path, size=size) as page:
        outside = page.evaluate(
            "[...document.querySelectorAll('svg text')].filter(e => { const r = e.getBoundingClientRect();"
            " return r.left < 0 || r.right > innerWidth }).map(e => e.textContent)"
        )
    assert outside == []


def test_a_wide_table_scrolls_within_itself(browser: "Browser", tmp_path: Path) -> None:
    with shown(browser, tmp_path, size=PHONE) as page:
        inner, outer = page.locator("#best .scroll").evaluate("e => [e.scrollWidth, e.clientWidth]")
    assert inner > outer


def test_themes_differ_in_ground_and_letters(browser: "Browser", tmp_path: Path) -> None:
    seen = []
    for theme in THEMES:
        with shown(browser, tmp_path, theme=theme) as page:
            seen.append(page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))"))
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_paper_is_white_in_the_dark_theme_too_and_hides_no_section(browser: "Browser", tmp_path: Path) -> None:
    with shown(browser, tmp_path, theme="dark") as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        heights = page.evaluate("[...document.querySelectorAll('section, svg.chart')].map(e => e.clientHeight)")
    assert min(heights) > 20


def test_page_asks_for_nothing_and_complains_of_nothing(browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render(REPORTS["hostile"]))
    page, asked, complaints = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto((tmp_path / "report.html").as_uri())
    page.close()
    assert asked == [(tmp_path / "report.html").as_uri()]
    assert complaints == []
