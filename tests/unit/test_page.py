"""Pages: what they draw, that they need no network, and that nothing in them is taken for markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.unit.browser import Tab, browse

from velagen.page import (
    Bar,
    Chart,
    Dot,
    Lane,
    Limit,
    Moment,
    Note,
    Page,
    Section,
    Series,
    Table,
    Tile,
    Tiles,
    Timeline,
)
from velagen.page.markup import clean, element, serialised
from velagen.page.scale import ticks, time_label, time_ticks, utc

START = 1_795_860_000.0
TIMES = [START + 30 * place for place in range(121)]
EVIL = (
    """</style></script><script>document.title="ran"</script><img src=x onerror='document.title="ran"'>"'&\x00\ud800"""
)


def chart(title: str = "Requests a second", **more: object) -> Chart:
    values: list[float | None] = [float(place % 40) for place in range(121)]
    values[30:40] = [None] * 10
    series = [Series("stable", values), Series("new", [None] * 60 + [7.0] * 61, 1, "step")]
    return Chart(title, "rate", TIMES, series, **more)  # type: ignore[arg-type]


def page(text: str = "m") -> Page:
    moments = [Moment(TIMES[20], text), Moment(TIMES[40], text, TIMES[60], "critical")]
    return Page(
        text,
        text,
        [
            Section(
                text,
                [
                    Note(text, "warning"),
                    Tiles([Tile(text, text, text, "critical")]),
                    Timeline(
                        text, TIMES[0], TIMES[-1], [Lane(text, [Dot(TIMES[1], text), Bar(TIMES[2], TIMES[9], text)])]
                    ),
                    Table(text, [text, text], [[text, text]], ["warning"], [0]),
                    Chart(text, "ratio", TIMES, [Series(text, [0.5] * 121)], text, Limit(0.7, text), moments),
                    chart(moments=moments),
                    Chart("Empty", "rate", TIMES, [Series("stable", [None] * 121)], missing=text),
                ],
            )
        ],
        [text],
    )


# ---------------------------------------------------------------- drawing


def test_a_gap_is_drawn_as_a_gap_and_never_as_0() -> None:
    drawn = serialised(chart().element("c"))
    (stable, new) = re.findall(r'<path d="([^"]+)" class="series', drawn)
    assert stable.count("M") == 2, "two runs, before and after the gap"
    assert new.count("M") == 1
    assert "L" not in new, "a step goes across and up"
    rows = re.findall(r"<tr><th scope=\"row\">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>", drawn)
    assert len(rows) == 121, "a row for each time"
    assert rows[35][1:] == ("-", "-")
    assert rows[90][1:] == ("10", "7")


def test_a_value_that_stands_alone_is_seen() -> None:
    values: list[float | None] = [None] * 121
    values[50] = 3.0
    drawn = serialised(Chart("C", "rate", TIMES, [Series("m", values)]).element("c"))
    assert '<circle cx="' in drawn
    assert "<path" not in drawn


def test_a_chart_without_data_says_why() -> None:
    empty = Chart("C", "rate", TIMES, [Series("m", [None] * 121)], missing="Nobody counted.")
    assert not empty.has_data
    drawn = serialised(empty.element("c"))
    assert "Nobody counted." in drawn
    assert "<svg" not in drawn


def test_a_legend_says_where_a_series_ended() -> None:
    values: list[float | None] = [1.0] * 100 + [None] * 21
    drawn = serialised(Chart("C", "seconds", TIMES, [Series("m", values)]).element("c"))
    assert "<b>1 s (ended)</b>" in drawn


def test_a_limit_is_in_the_picture() -> None:
    drawn = serialised(chart(limit=Limit(400, "at most 400")).element("c"))
    assert 'class="limit"' in drawn
    assert ">400<" in drawn


def test_bars_that_overlap_lie_side_by_side() -> None:
    bars = [Bar(TIMES[0], TIMES[50], "a"), Bar(TIMES[10], TIMES[20], "b"), Bar(TIMES[60], TIMES[70], "c")]
    drawn = serialised(Timeline("T", TIMES[0], TIMES[-1], [Lane("Alerts", bars)]).element("t"))
    heights = re.findall(r'<rect x="[^"]+" y="([^"]+)"', drawn)
    assert len(heights) == 3
    assert len(set(heights)) == 2


def test_charts_are_described() -> None:
    drawn = serialised(chart().element("c"))
    assert 'role="img"' in drawn
    assert 'aria-labelledby="c-title"' in drawn
    assert 'aria-description="stable: 0 to 39, at last 0; new: 7 to 7, at last 7"' in drawn
    assert "<caption>Requests a second</caption>" in drawn


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, [0, 1]), (1, [0, 0.25, 0.5, 0.75, 1]), (39, [0, 10, 20, 30, 40]), (0.0003, [0, 0.0001, 0.0002, 0.0003]),
        (1e9, [0, 2.5e8, 5e8, 7.5e8, 1e9]), (float("nan"), [0, 1]), (-1, [0, 1]),
    ],
)  # fmt: skip
def test_ticks_are_round_and_reach_the_top(most: float, expected: list[float]) -> None:
    assert ticks(most) == pytest.approx(expected)


@pytest.mark.parametrize("span", [60, 300, 3600, 7200, 86_400, 10 * 86_400, 365 * 86_400])
def test_times_are_round_and_few(span: int) -> None:
    found = time_ticks(START + 17, START + 17 + span)
    assert 2 <= len(found) <= 8
    labels = [time_label(at, span) for at in found]
    assert len(set(labels)) == len(labels)


def test_a_time_in_full() -> None:
    assert utc(0) == "1 Jan 1970 00:00:00"
    assert utc(61, date=False) == "00:01:01"


# ---------------------------------------------------------------- markup


class Elements(HTMLParser):
    """The elements of a page, and the texts of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(html)
    return parser.seen


def test_what_a_page_says_is_text() -> None:
    """The same elements, whatever the names and messages are."""
    hostile, tame = elements(page(EVIL).html()), elements(page("m").html())
    assert [tag for tag, _ in hostile] == [tag for tag, _ in tame]
    assert [tag for tag, _ in hostile].count("script") == 1
    assert not [name for _, attributes in hostile for name in attributes if name.startswith("on")]
    assert "\x00" not in page(EVIL).html()
    page(EVIL).html().encode("utf-8")


def test_a_page_asks_nobody_for_anything() -> None:
    html = page().html()
    assert not re.search(r"(src|href)=|url\(|@import|https?://", html)
    policy = next(one["content"] for tag, one in elements(html) if one.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_same_page_gives_the_same_bytes() -> None:
    assert page().html() == page().html()


def test_an_element_is_escaped() -> None:
    made = element("p", "<b>&", element("i", "x"), "after", None, title='"<', hidden=True, lang=None, class_="c")
    assert serialised(made) == '<p title="&quot;<" hidden="" class="c">&lt;b&gt;&amp;<i>x</i>after</p>'
    assert clean("a\x07b\ud800") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"


# ---------------------------------------------------------------- in a browser


@pytest.mark.slow
@pytest.mark.seconds(15)
def test_in_a_browser_without_a_network(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(page(EVIL).html(), encoding="utf-8")

    async def look(tab: Tab) -> None:
        await tab.open(path)
        assert tab.said == [], "no error, and nothing that the policy stopped"
        assert tab.asked == [path.as_uri()]
        assert await tab.value("document.title") != "ran"
        drawn = (
            "[...document.querySelectorAll('figure.chart path.series')].filter(p => p.getTotalLength() > 100).length"
        )
        assert await tab.value(drawn) == 3
        assert await tab.value("getComputedStyle(document.querySelector('.series.c0')).stroke") == "rgb(36, 99, 176)"
        # The cursor: all charts show what was at its time.
        move = """(() => {
            const svg = document.querySelectorAll('figure.chart svg[role=img]')[1], box = svg.getBoundingClientRect();
            const x = box.left + box.width * (+svg.dataset.left + (svg.dataset.right - svg.dataset.left) * 0.75);
            svg.dispatchEvent(new PointerEvent('pointermove', {clientX: x, clientY: box.top + 50}));
            return [...document.querySelectorAll('.legend b')].map(b => b.textContent);
        })()"""
        assert await tab.value(move) == ["50 %", "10", "7"]
        assert await tab.value("document.querySelector('output.at').textContent") == "28 Nov 2026 10:45:00 UTC"[12:]
        await tab.value("document.querySelectorAll('svg[role=img]')[2].dispatchEvent(new PointerEvent('pointerleave'))")
        assert await tab.value("document.querySelectorAll('.legend b')[1].textContent") == "0"
        # By keys, too.
        press = "document.querySelector('.chart > svg').dispatchEvent(new KeyboardEvent('keydown', {key: 'Home'}))"
        await tab.value(press)
        assert (await tab.value("document.querySelector('output.at').textContent")).startswith("10:00:00")
        # Nothing is wider than a phone, and the dark page is dark.
        await tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
        assert await tab.value("document.documentElement.scrollWidth") <= 390
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        await tab.call("Emulation.setEmulatedMedia", features=dark)
        assert await tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
        await tab.call("Emulation.setEmulatedMedia", media="print", features=dark)
        assert await tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.said == []

    browse(look)
