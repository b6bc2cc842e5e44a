"""Model packages: whether a directory will serve, and how it gets to where KServe fetches it."""

from velagen.model.check import ModelReport, check_model
from velagen.model.pickles import PickleReport, scan
from velagen.model.runtimes import Runtime, load_runtimes

__all__ = ["ModelReport", "PickleReport", "Runtime", "check_model", "load_runtimes", "scan"]
