"""A page: a heading, sections of blocks, and what a reader must know of its figures."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Protocol
from xml.etree.ElementTree import Element

from velagen.page.chart import Chart, Tone
from velagen.page.markup import element, serialised


class Block(Protocol):
    """Anything that a section may hold."""

    def element(self, name: str) -> Element:
        """It as an element; *name* is unique on the page."""


@dataclass(frozen=True)
class Tile:
    """One figure, large."""

    name: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Tiles:
    """Figures side by side."""

    tiles: Sequence[Tile]

    def element(self, name: str) -> Element:
        """A list of terms."""
        made = element("dl", class_="tiles", id=name)
        for one in self.tiles:
            note = element("dd", one.note, class_="note") if one.note else None
            made.append(element("div", element("dt", one.name), element("dd", one.value), note, class_=one.tone))
        return made


@dataclass(frozen=True)
class Table:
    """Rows under a head. The first cell of a row is its name; ``slots`` gives the rows the colours of series."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    tones: Sequence[Tone] = ()
    slots: Sequence[int] = ()
    #: Columns of figures are set to the right.
    figures: bool = True
    #: What is said where there are no rows.
    missing: str = "None."

    def element(self, name: str) -> Element:
        """A table that scrolls by itself where the page is narrow."""
        heading = element("h3", self.title, id=f"{name}-title")
        if not self.rows:
            return element("section", heading, element("p", self.missing, class_="nothing"), class_="block", id=name)
        head = element("tr", *(element("th", one, scope="col") for one in self.head))
        body = element("tbody")
        for place, row in enumerate(self.rows):
            tone = self.tones[place] if place < len(self.tones) else "plain"
            key = element("i", class_=f"key c{self.slots[place]}") if place < len(self.slots) else None
            first = element("th", key, row[0], scope="row")
            body.append(element("tr", first, *(element("td", cell) for cell in row[1:]), class_=tone))
        table = element("table", element("thead", head), body, aria_labelledby=f"{name}-title")
        table.set("class", "figures" if self.figures else "texts")
        return element("section", heading, element("div", table, class_="scroll"), class_="block", id=name)


@dataclass(frozen=True)
class Note:
    """A paragraph."""

    text: str
    tone: Tone = "plain"

    def element(self, name: str) -> Element:
        """A paragraph."""
        return element("p", self.text, class_=f"note {self.tone}", id=name)


@dataclass(frozen=True)
class Section:
    """Blocks under a title; charts that follow each other stand side by side where there is room."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """One self-contained page."""

    title: str
    #: Whose it is and of when.
    subtitle: str
    sections: Sequence[Section]
    #: Where the figures are from, and what is missing.
    notes: Sequence[str] = ()
    #: What kind of page this is, above the title.
    kind: str = "Report"

    def html(self) -> str:
        """The page as a file in UTF-8 holds it."""
        style, script = _resource("style.css"), _resource("cursor.js")
        policy = (
            f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
            "base-uri 'none'; form-action 'none'"
        )
        head = element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=policy),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", f"{self.title} - {self.kind.lower()}"),
            element("style", style),
        )
        heading = element(
            "header",
            element("p", self.kind, class_="kind"),
            element("h1", self.title),
            element("p", self.subtitle, class_="subtitle"),
        )
        main = element("main")
        for place, section in enumerate(self.sections):
            main.append(_section(section, f"s{place}"))
        notes = element("ul", *(element("li", one) for one in self.notes))
        footer = element("footer", element("h2", "About these figures"), notes) if self.notes else None
        body = element("body", element("div", heading, main, footer, class_="page"), element("script", script))
        return "<!DOCTYPE html>\n" + serialised(element("html", head, body, lang="en")) + "\n"


def _section(section: Section, name: str) -> Element:
    made = element("section", element("h2", section.title) if section.title else None, class_="section")
    grid: Element | None = None
    for place, block in enumerate(section.blocks):
        child = block.element(f"{name}-{place}")
        if not isinstance(block, Chart):
            grid = None
            made.append(child)
            continue
        if grid is None:
            grid = element("div", class_="charts")
            made.append(grid)
        grid.append(child)
    return made


def _resource(name: str) -> str:
    # As the parser sees it: the hash is of the text between the tags.
    return "\n" + resources.files(__package__).joinpath(name).read_text(encoding="utf-8").strip() + "\n"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
