"""Pages that are read without a network: one file with charts, tables, and the figures behind each chart.

Charts are drawn here and not by a library: they take their colours from the page's style (light, dark, print), leave
gaps where nothing was measured, and mark the same events in each; nothing is installed for it, and nothing has to run.
What a page says is escaped by the serialiser, and its Content-Security-Policy allows its own script alone.
"""

from velagen.page.chart import Bar, Chart, Dot, Lane, Limit, Moment, Series, Timeline
from velagen.page.document import Note, Page, Section, Table, Tile, Tiles
from velagen.page.scale import utc

__all__ = [
    "Bar",
    "Chart",
    "Dot",
    "Lane",
    "Limit",
    "Moment",
    "Note",
    "Page",
    "Section",
    "Series",
    "Table",
    "Tile",
    "Tiles",
    "Timeline",
    "utc",
]
