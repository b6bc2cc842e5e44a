"""What `pip install velagen` leaves out: a command that meets a missing package says which extra brings it."""

from __future__ import annotations

from typing import Final

from velagen.errors import Problem

#: Package of velagen -> the extra of pyproject.toml that brings what it imports beyond velagen's own dependencies.
EXTRAS: Final = {
    "adopt": "adopt",
    "gpusim": "gpusim",
    "lab": "lab",
    "model": "model",
    "monitoring": "metrics",
    "promote": "s3",
    "scaling": "lab",
}
#: Extras that a single package needs, whoever imports it.
_ALONE: Final = {"boto3": "s3", "botocore": "s3"}


def missing_extra(error: ModuleNotFoundError) -> Problem | None:
    """What to install where an import of velagen failed; None where the module belongs to no extra.

    The extra is that of the package whose code asked: one library is in several of them.
    """
    module = (error.name or "").partition(".")[0]
    if module in {"", "velagen"}:
        return None
    asking = ""
    trace = error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.startswith("velagen."):
            asking = name.split(".")[1]
        trace = trace.tb_next
    extra = _ALONE.get(module) or EXTRAS.get(asking)
    if extra is None:
        return None
    return Problem(
        f"this needs the Python package {error.name}, which is not installed",
        hint=f"pip install 'velagen[{extra}]'",
    )
