"""Models that the lab brings along, so that an application has something to serve."""

from velagen.lab.models import sentiment

__all__ = ["sentiment"]
