"""What both labs, the embedded and the kind one, are to those who use a cluster and don't ask which."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from velagen.lab.api import Api
from velagen.tools.report import Reporter


class Cluster(Protocol):
    """A local cluster, known by its name or its folder. `velagen.lab.Lab` and `velagen.lab.kind.KindLab` are such."""

    name: str
    #: Where its state is.
    folder: Path
    #: Who is told what it does.
    reporter: Reporter

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig; exists once the cluster is up."""

    @property
    def api(self) -> Api:
        """A client of its API server. Raises VelagenError where it is not up."""

    @property
    def running(self) -> bool:
        """Whether it is up and answers."""

    def up(self) -> None:
        """Start it; one that runs is left as it is. Raises VelagenError where something does not come up."""

    def down(self) -> bool:
        """Stop it and remove what it made; give whether there was one."""
