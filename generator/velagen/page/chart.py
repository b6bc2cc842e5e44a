"""Charts over time, as SVG that takes its colours from the page's style, with a table of its figures behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal
from xml.etree.ElementTree import Element

from velagen.page.figures import percent, rate, seconds
from velagen.page.markup import element
from velagen.page.scale import longest, ticks, time_label, time_ticks, utc

Unit = Literal["rate", "ratio", "seconds", "number"]
Tone = Literal["plain", "good", "warning", "critical"]
#: step: holds until it changes. dashed, dotted: something else of the same thing.
Form = Literal["line", "step", "dashed", "dotted", "dashed-step"]
_WRITTEN: Final[dict[Unit, Callable[[float | None], str]]] = {
    "rate": rate,
    "ratio": percent,
    "seconds": seconds,
    "number": rate,
}
#: As many colours as can be told apart, also by who does not see red or green as others do; then they come again.
COLOURS: Final = 6
# The drawing's own units; it is scaled to the room there is.
_WIDTH, _HEIGHT = 640.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 12.0, 12.0, 26.0
_LANE: Final = 26.0
_DAY: Final = 86_400


@dataclass(frozen=True)
class Series:
    """Values at the chart's times; None is a gap."""

    name: str
    values: Sequence[float | None]
    #: Which colour: the same thing has the same one in each chart of a page.
    slot: int = 0
    form: Form = "line"


@dataclass(frozen=True)
class Limit:
    """A level that should not be passed."""

    value: float
    name: str


@dataclass(frozen=True)
class Moment:
    """Something that happened, marked in each chart: a line, or a strip where it lasted."""

    at: float
    name: str
    until: float | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Chart:
    """One chart; the times are in seconds since 1970, and evenly spaced."""

    title: str
    unit: Unit
    times: Sequence[float]
    series: Sequence[Series]
    #: What is measured, in a sentence.
    about: str = ""
    limit: Limit | None = None
    moments: Sequence[Moment] = ()
    #: Why there is nothing, where there is nothing.
    missing: str = "Nothing was measured."
    #: The axis ends there at least; for shares 1.
    at_least: float = 0.0

    @property
    def has_data(self) -> bool:
        """Whether anything was measured."""
        return any(value is not None for one in self.series for value in one.values)

    def element(self, name: str) -> Element:
        """The figure; *name* is unique on the page.

        The table is what a reader without the picture reads, and where the page's script finds the values.
        """
        written = _WRITTEN[self.unit]
        shown = [one for one in self.series if any(value is not None for value in one.values)]
        heading = element("h3", self.title, id=f"{name}-title")
        about = element("p", self.about, class_="about") if self.about else None
        if not shown:
            nothing = element("p", self.missing, class_="nothing")
            return element("figure", heading, about, nothing, class_="chart empty", id=name)
        legend = element("ul", class_="legend")
        for one in shown:
            last = next((value for value in reversed(one.values) if value is not None), None)
            ended = one.values[-1] is None
            legend.append(
                element(
                    "li",
                    _sample(one),
                    element("span", one.name, class_="name"),
                    element("b", written(last) + (" (ended)" if ended else "")),
                )
            )
        if self.limit:
            legend.append(element("li", _line_sample("limit"), element("span", self.limit.name, class_="name")))
        return element(
            "figure",
            element("div", heading, element("output", class_="at"), class_="head"),
            about,
            legend,
            self._drawing(shown, name),
            self._table(shown),
            class_="chart",
            id=name,
        )

    def _drawing(self, shown: Sequence[Series], name: str) -> Element:
        written = _WRITTEN[self.unit]
        most = max(longest(value for one in shown for value in one.values), self.at_least)
        if self.limit:
            most = max(most, self.limit.value)
        marks = ticks(most)
        if self.unit == "number" and marks[-1] <= len(marks) - 1:
            marks = [float(one) for one in range(max(2, int(-(-most // 1)) + 1))]
        plane = _Plane(self.times[0], self.times[-1], marks[-1])
        drawing = element(
            "svg",
            viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
            role="img",
            tabindex="0",
            aria_labelledby=f"{name}-title",
            aria_description=self._in_words(shown),
            data_left=f"{_LEFT / _WIDTH:.5f}",
            data_right=f"{(_WIDTH - _RIGHT) / _WIDTH:.5f}",
        )
        for moment in self.moments:
            drawing.extend(_marked(moment, plane))
        for value in marks:
            y = plane.y(value)
            kind = "grid" if value else "base"
            drawing.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_=kind))
            drawing.append(element("text", _axis(written(value)), x=_LEFT - 7, y=y + 3.5, class_="value"))
        drawing.extend(_times(plane, _HEIGHT - _BOTTOM))
        if self.limit:
            y = plane.y(self.limit.value)
            drawing.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="limit"))
        for one in shown:
            drawing.extend(_drawn(one, self.times, plane))
        drawing.append(element("line", x1=0, x2=0, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="cursor"))
        return drawing

    def _table(self, shown: Sequence[Series]) -> Element:
        written = _WRITTEN[self.unit]
        date = self.times[-1] - self.times[0] > _DAY / 2
        head = element(
            "tr", element("th", "UTC", scope="col"), *(element("th", one.name, scope="col") for one in shown)
        )
        body = element("tbody")
        for place, at in enumerate(self.times):
            cells = (element("td", written(one.values[place])) for one in shown)
            body.append(element("tr", element("th", utc(at, date=date), scope="row"), *cells))
        table = element("table", element("caption", self.title), element("thead", head), body)
        return element("details", element("summary", "Figures"), element("div", table, class_="scroll"))

    def _in_words(self, shown: Sequence[Series]) -> str:
        written = _WRITTEN[self.unit]
        said = []
        for one in shown:
            there = [value for value in one.values if value is not None]
            said.append(f"{one.name}: {written(min(there))} to {written(max(there))}, at last {written(there[-1])}")
        return "; ".join(said)


@dataclass(frozen=True)
class Dot:
    """Something that happened at a time."""

    at: float
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Bar:
    """Something that lasted."""

    start: float
    end: float
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Lane:
    """Things of one kind."""

    name: str
    things: Sequence[Dot | Bar] = field(default_factory=tuple)


@dataclass(frozen=True)
class Timeline:
    """What happened when, a lane for each kind. A mark's tooltip says what it is; so should a table on the page."""

    title: str
    start: float
    end: float
    lanes: Sequence[Lane]

    def element(self, name: str) -> Element:
        """The figure; *name* is unique on the page."""
        rows = [
            (lane.name if not place else "", row)
            for lane in self.lanes
            for place, row in enumerate(_side_by_side(lane))
        ]
        height = _TOP + _LANE * len(rows) + _BOTTOM
        left = 96.0
        said = "; ".join(f"{lane.name}: {len(lane.things)}" for lane in self.lanes)
        # Twice as wide as a chart, so its letters are as large.
        drawing = element(
            "svg",
            viewBox=f"0 0 {2 * _WIDTH:g} {height:g}",
            role="img",
            aria_labelledby=f"{name}-title",
            aria_description=said,
        )
        plane = _Plane(self.start, self.end, 1, left=left, width=2 * _WIDTH)
        for place, (title, things) in enumerate(rows):
            middle = _TOP + _LANE * (place + 0.5)
            drawing.append(element("line", x1=left, x2=2 * _WIDTH - _RIGHT, y1=middle, y2=middle, class_="grid"))
            drawing.append(element("text", title, x=left - 12, y=middle + 4, class_="lane"))
            for one in things:
                if isinstance(one, Bar):
                    x, width = plane.x(one.start), max(4.0, plane.x(one.end) - plane.x(one.start))
                    made = element("rect", x=x, y=middle - 7, width=width, height=14, rx=3, class_=f"thing {one.tone}")
                else:
                    made = element("circle", cx=plane.x(one.at), cy=middle, r=5.5, class_=f"thing {one.tone}")
                made.append(element("title", one.text))
                drawing.append(made)
        drawing.extend(_times(plane, height - _BOTTOM, count=12))
        heading = element("h3", self.title, id=f"{name}-title")
        return element("figure", heading, drawing, class_="timeline", id=name)


# ---------------------------------------------------------------- drawing


@dataclass(frozen=True)
class _Plane:
    """Where times and values lie in the drawing."""

    start: float
    end: float
    most: float
    left: float = _LEFT
    width: float = _WIDTH

    def x(self, at: float) -> float:
        share = (at - self.start) / (self.end - self.start) if self.end > self.start else 0.5
        return self.left + min(1.0, max(0.0, share)) * (self.width - self.left - _RIGHT)

    def y(self, value: float) -> float:
        # Below 0 there is nothing to be drawn but a budget that is overspent: it lies on the base.
        return _HEIGHT - _BOTTOM - min(1.0, max(0.0, value / self.most)) * (_HEIGHT - _BOTTOM - _TOP)


def _side_by_side(lane: Lane) -> list[list[Dot | Bar]]:
    """The lane's things in as many rows as it takes for no bar to lie on another."""
    rows: list[list[Dot | Bar]] = [[]]
    ends = [float("-inf")]
    for one in lane.things:
        if isinstance(one, Dot):
            rows[0].append(one)
            continue
        place = next((place for place, end in enumerate(ends) if end <= one.start), len(rows))
        if place == len(rows):
            rows.append([])
            ends.append(0.0)
        rows[place].append(one)
        ends[place] = one.end
    return rows


def _drawn(series: Series, times: Sequence[float], plane: _Plane) -> Iterator[Element]:
    """The line, broken where nothing was measured; what stands alone is a dot."""
    colour = f"c{series.slot % COLOURS}"
    path: list[str] = []
    for run in _runs(series.values):
        points = [(plane.x(times[place]), plane.y(value)) for place, value in run]
        if len(points) == 1:
            yield element("circle", cx=points[0][0], cy=points[0][1], r=2.2, class_=f"alone {colour}")
            continue
        path.append(f"M{_number(points[0][0])} {_number(points[0][1])}")
        for (_, before), (x, y) in pairwise(points):
            if "step" not in series.form:
                path.append(f"L{_number(x)} {_number(y)}")
            elif before != y:
                path += [f"H{_number(x)}", f"V{_number(y)}"]
        if "step" in series.form:
            path.append(f"H{_number(points[-1][0])}")
    if path:
        yield element("path", d="".join(path), class_=f"series {colour} {series.form}")


def _runs(values: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    run: list[tuple[int, float]] = []
    for place, value in enumerate(values):
        if value is not None:
            run.append((place, value))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _marked(moment: Moment, plane: _Plane) -> Iterator[Element]:
    x = plane.x(moment.at)
    where = {"y": _TOP, "height": _HEIGHT - _BOTTOM - _TOP}
    if moment.until is not None:
        width = max(2.0, plane.x(moment.until) - x)
        made = element("rect", x=x, width=width, class_=f"moment strip {moment.tone}", **where)
    else:
        made = element("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_=f"moment {moment.tone}")
    made.append(element("title", moment.name))
    yield made


def _times(plane: _Plane, bottom: float, count: int = 6) -> Iterator[Element]:
    for at in time_ticks(plane.start, plane.end, count):
        x = plane.x(at)
        yield element("line", x1=x, x2=x, y1=bottom, y2=bottom + 4, class_="base")
        label = time_label(at, plane.end - plane.start)
        edge = " end" if x > plane.width - _RIGHT - 14 else ""
        yield element("text", label, x=x, y=bottom + 17, class_=f"time{edge}")


def _axis(text: str) -> str:
    """0 has no unit."""
    return "0" if text in ("0 %", "0 ms") else text


def _sample(series: Series) -> Element:
    return _line_sample(f"series c{series.slot % COLOURS} {series.form}")


def _line_sample(kind: str) -> Element:
    line = element("line", x1=1, x2=21, y1=5, y2=5, class_=kind)
    return element("svg", line, viewBox="0 0 22 10", class_="sample", aria_hidden="true")


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
