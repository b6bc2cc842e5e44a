"""The releases of KubeVela that an addon has to live with. A third one is a line here, and rows in tools/table.toml."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from velagen.errors import Problem, VelagenError

CueVersion = Literal["0.9.2", "0.14.1"]


@dataclass(frozen=True)
class KubeVela:
    """One release."""

    #: Of its tools and its source in the table of tools.
    version: str
    #: The CUE it embeds, which is also the version of the cue-oracle that is linked with its code.
    cue: CueVersion
    #: What its chart sets in vela-core's environment. Source: charts/vela-core/templates/kubevela-controller.yaml.
    environment: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """``KubeVela 1.11.0``."""
        return f"KubeVela {self.version}"


RELEASES = (
    KubeVela("1.10.9", "0.9.2"),
    KubeVela("1.11.0", "0.14.1", (("CUE_EXPERIMENT", "evalv3=0,keepvalidators=0"),)),
)
VERSIONS = tuple(release.version for release in RELEASES)


def release(version: str) -> KubeVela:
    """Give a release by its version.

    Raises:
        VelagenError: it is not one of `RELEASES`.
    """
    for one in RELEASES:
        if one.version == version:
            return one
    raise VelagenError(Problem(f"KubeVela {version} is not supported", hint=f"Supported: {', '.join(VERSIONS)}."))


def tools_asked(versions: Iterable[str], *, addon: bool = True) -> list[tuple[str, str]]:
    """The tools, with their versions, that a check by these releases asks; without *addon* those for applications."""
    releases = [release(version) for version in versions]
    oracles = [("cue-oracle", str(one.cue)) for one in releases] if addon else []
    return [*(("vela", one.version) for one in releases), *oracles]
