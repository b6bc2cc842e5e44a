"""Where things are on a node, and which of its GPUs are out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

KUBELET_FOLDER: Final = Path("/var/lib/kubelet/device-plugins")
POD_RESOURCES: Final = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
STATE: Final = Path("/var/lib/velagen-gpusim")


@dataclass(frozen=True)
class Paths:
    """Where things are on the node."""

    plugins: Path = KUBELET_FOLDER
    pod_resources: Path = POD_RESOURCES
    #: What must outlive a crash: which GPUs are unplugged.
    state: Path = STATE

    @property
    def kubelet(self) -> Path:
        """The kubelet's registration socket."""
        return self.plugins / "kubelet.sock"


def unplug(state: Path, gpu: int) -> None:
    """Take GPU number ``gpu`` out; OSError when the state folder can't be written."""
    folder = state / "unplugged"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(gpu)).touch()


def plug(state: Path, gpu: int) -> None:
    """Put it back; the plugin says so at its next start, as the real one."""
    (state / "unplugged" / str(gpu)).unlink(missing_ok=True)


def unplugged(state: Path) -> frozenset[int]:
    """Numbers of the GPUs that are out."""
    try:
        return frozenset(int(entry.name) for entry in (state / "unplugged").iterdir() if entry.name.isdigit())
    except FileNotFoundError:
        return frozenset()
