"""What a report's page says, read as a person would: text by section, tables, descriptions of charts."""

from html.parser import HTMLParser


class Said(HTMLParser):
    """The page's text, its tables by their labels, and what its charts say of themselves."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.charts: dict[str, str] = {}
        self.sections: dict[str, str] = {}
        self.scripts = 0
        self._label = self._title = self._section = ""
        self._open: list[str] = []
        self._cell: list[str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._open.append(tag)
        self.scripts += tag == "script"
        if tag in ("header", "section"):
            self._section = given.get("id") or "answer"
            self.sections.setdefault(self._section, "")
        if given.get("role") == "region":
            self._label = given["aria-label"] or ""
            self.tables[self._label] = []
        if tag == "tr" and self._label:
            self.tables[self._label].append([])
        if tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag in ("td", "th") and self._cell is not None:
            self.tables[self._label][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        if tag == "table":
            self._label = ""

    def handle_data(self, data: str) -> None:
        text = data.replace("\N{NO-BREAK SPACE}", " ").replace("−", "-")
        inside = self._open[-1] if self._open else ""
        if inside == "title":
            self._title = text
        elif inside == "desc":
            self.charts[self._title] = text
        elif inside != "style" and self._section:
            self.sections[self._section] = f"{self.sections[self._section].rstrip()} {text.strip()}"
        if self._cell is not None:
            self._cell.append(text)

    def rows(self, label: str) -> dict[str, list[str]]:
        """Of a table, by the first cell, without its head."""
        return {row[0]: row[1:] for row in self.tables[label][1:]}


def tells(text: str, value: float) -> bool:
    """Whether a text in % or points is this value, rounded: either way where that is half a digit."""
    return abs(float(text.removesuffix(" %")) - 100 * value) <= 0.05 + 1e-9


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def points(value: float) -> str:
    told = f"{100 * value:+.1f}"
    return "+0.0" if told == "-0.0" else told


def ends(low: float, high: float) -> str:
    return ", ".join(f"{100 * end:.1f}".replace("-0.0", "0.0") for end in (low, high))


def between(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"
