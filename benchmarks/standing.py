"""The kind lab that a benchmark measures on."""

from __future__ import annotations

from pathlib import Path

from velagen.errors import Problem, VelagenError
from velagen.lab.kind import KindLab


def standing(which: str) -> KindLab:
    """Give a lab that is up.

    Args:
        which: its name, or its folder (with a slash in it).

    Raises:
        VelagenError: it is not up.
    """
    lab = KindLab(Path(which).name, folder=Path(which)) if "/" in which else KindLab(which)
    if not lab.running:
        raise VelagenError(Problem(f"kind lab {which} is not up", hint="Start it with: velagen lab up --kind"))
    return lab
