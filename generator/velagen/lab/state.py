"""What an embedded lab's cluster looks like, and what is written down of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from velagen.lab.home import write_state
from velagen.lab.process import Process
from velagen.tools import table


@dataclass(frozen=True)
class LabOptions:
    """What a lab's cluster looks like."""

    nodes: int = 2
    gpus_per_node: int = 2
    #: A key of `velagen.lab.objects.GPUS`.
    gpu_model: str = "T4"
    #: Above 1 the GPUs are time-sliced: nodes offer nvidia.com/gpu.shared.
    gpu_replicas: int = 1
    #: KServe's default deployment mode: Standard or Knative.
    deployment_mode: str = "Standard"
    #: A version of vela-core in the table of tools.
    kubevela: str = field(default_factory=lambda: table().row("vela-core").version)
    #: Seconds after which KubeVela looks again at an application that has settled (KubeVela's own default is 300).
    resync_seconds: int = 15
    #: Feature gates of Kubernetes, as its programs take them: ``DRAConsumableCapacity=true``.
    feature_gates: str = ""


@dataclass
class LabState:
    """What is written down: enough to find, revive and remove a lab."""

    mark: str
    options: LabOptions
    ports: dict[str, int]
    processes: list[Process] = field(default_factory=list)
    #: Whether everything was applied; before that a lab is not worth reviving.
    ready: bool = False

    def process(self, name: str) -> Process | None:
        """Give a component's process; None where it never started."""
        return next((process for process in self.processes if process.name == name), None)

    def write(self, path: Path) -> None:
        """Write it to a file that only its owner can read."""
        write_state(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> LabState | None:
        """Give what was written down; None where there is nothing, or something no version of ours wrote."""
        try:
            data = json.loads(path.read_text())
            return cls(
                mark=data["mark"],
                # Before there was a choice it was 1.10.9.
                options=LabOptions(**{"kubevela": "1.10.9", **data["options"]}),
                ports=data["ports"],
                processes=[Process(**process) for process in data["processes"]],
                ready=data["ready"],
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
