"""What a layer is handed: as much of a kind lab as it takes to put something into its cluster."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from velagen.lab.api import Api
from velagen.lab.kind.options import KindOptions
from velagen.tools.report import Reporter


class Site(Protocol):
    """A cluster that is up, with bare Kubernetes or the layers below in it."""

    #: Who is told what a layer does.
    reporter: Reporter

    @property
    def cluster(self) -> str:
        """The cluster's name."""

    @property
    def api(self) -> Api:
        """A client of its API server."""

    @property
    def started_with(self) -> KindOptions:
        """The options it was started with."""

    @property
    def assembled(self) -> bool:
        """Whether images are assembled on this machine, and none is pulled."""

    def load(self, names: Iterable[str]) -> None:
        """Bring images, named as recipes, to every node."""

    def put(self, folder: Path, place: str) -> None:
        """Copy a folder of this machine to a path on every node."""

    def wait_deployment(self, namespace: str, name: str) -> None:
        """Wait until a Deployment has all its pods. Raises VelagenError, with what its pods say, where it has not."""

    def pods(self, namespace: str | None = None) -> str:
        """Give a line for each pod that is not ready."""

    def url(self, what: str) -> str:
        """Give the address on this machine of a key of `velagen.lab.kind.options.NODE_PORTS`."""

    def environment(self) -> dict[str, str]:
        """Give the environment in which kubectl and vela work on the cluster."""
