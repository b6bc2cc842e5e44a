"""Grafana's dashboards, one for a model and one for the platform, as `velagen.monitoring.dashboards.make` wrote them.

The files lie beside this module: who uses them needs no library of Grafana's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: A dashboard's name -> its uid in Grafana, by which links and alerts find it.
UIDS: Final = {"model": "kfserving-model", "platform": "kfserving-platform"}


def dashboard(name: str) -> str:
    """A dashboard's JSON, as Grafana provisions it from a file."""
    return path_of(name).read_text(encoding="utf-8")


def path_of(name: str) -> Path:
    """Where a dashboard's file lies."""
    return Path(__file__).with_name(f"{name}.json")
