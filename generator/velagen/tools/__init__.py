"""Pinned tools and upstream sources: where they are, and the road that brings them."""

from velagen.tools.road import ROADS, cache_dir, in_cache, install, on_path, source, tool, without_go
from velagen.tools.table import Row, Source, Table, table, this_platform, wanted

__all__ = [
    "ROADS",
    "Row",
    "Source",
    "Table",
    "cache_dir",
    "in_cache",
    "install",
    "on_path",
    "source",
    "table",
    "this_platform",
    "tool",
    "wanted",
    "without_go",
]
