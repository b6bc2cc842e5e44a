"""Processor time of a pod, and the cores it runs on, read and written in the control groups of this machine.

kind's nodes are containers of this machine, so a pod's control groups are below the node's, in version 1 (a hierarchy
for each controller) and in version 2 (one for all). Sources: the kernel's admin-guide/cgroup-v1/{cpuacct,cpusets}.rst
and cgroup-v2.rst; the kubelet's pkg/kubelet/cm (names of the groups).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from velagen.errors import Problem, VelagenError


def mounts(text: str) -> dict[str, Path]:
    """Give where each controller of version 1 is mounted; the whole of version 2 is called ``unified``.

    Args:
        text: /proc/self/mounts.
    """
    found: dict[str, Path] = {}
    for line in text.splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup2":
            found.setdefault("unified", Path(point))
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, Path(point))
    return found


def groups(text: str) -> dict[str, str]:
    """Give the group of a process in each hierarchy; that of version 2 is called ``unified``.

    Args:
        text: /proc/PID/cgroup.
    """
    found = {}
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        for name in controllers.split(",") if controllers else ["unified"]:
            found[name if number != "0" else "unified"] = path
    return found


def of_container(controller: str, mounted: dict[str, Path], grouped: dict[str, str], container: str) -> Path:
    """Give the folder of a container in a controller's hierarchy, or in version 2's where that controller is there.

    Args:
        grouped: groups of a process in the container, which may be deeper.
        container: its id, part of the folder's name (``docker/ID``, ``docker-ID.scope``).

    Raises:
        VelagenError: it is in no group of its own.
    """
    key = controller if controller in mounted and controller in grouped else "unified"
    parts = Path(grouped.get(key, "/")).parts
    for depth, part in enumerate(parts):
        if container in part and key in mounted:
            return mounted[key].joinpath(*parts[1 : depth + 1])
    raise VelagenError(
        Problem(
            f"the control group {controller} of container {container[:12]} is not on this machine",
            hint="The engine must run on this machine, on Linux: its containers' processor time is read here.",
        )
    )


def of_pod(node: Path, uid: str) -> Path:
    """Give a pod's folder below its node's: ``podUID``, or with systemd's names ``...-podUID_WITH_UNDERSCORES.slice``.

    Raises:
        VelagenError: it is not there.
    """
    ends = (f"pod{uid}", f"pod{uid.replace('-', '_')}.slice")
    for folder, names, _ in os.walk(node):
        for name in names:
            if name.endswith(ends):
                return Path(folder) / name
    raise VelagenError(Problem(f"no control group of pod {uid} is below {node}"))


def seconds(folder: Path) -> float:
    """Give the processor seconds that all processes of a group and below it have used."""
    first = folder / "cpuacct.usage"
    if first.exists():
        return int(first.read_text()) / 1e9
    fields = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    return int(fields["usage_usec"]) / 1e6


def pin(folder: Path, core: int) -> None:
    """Let a pod's containers run on one core.

    The containers come first: in version 1 a group's cores must be among those of the group above.

    Raises:
        OSError: no right to, or in version 2 no cpuset controller there.
    """
    for group in sorted((path for path in folder.iterdir() if path.is_dir()), reverse=True):
        (group / "cpuset.cpus").write_text(str(core))


def processes(folder: Path) -> Iterator[int]:
    """Give the processes of a group and of all below it."""
    for path in folder.rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            yield from (int(line) for line in path.read_text().split())


def move(pids: Iterator[int] | list[int], cores: set[int]) -> int:
    """Let processes, with all their threads, run on these cores; give how many threads could be moved."""
    moved = 0
    for pid in pids:
        try:
            threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:
            continue  # it ended
        for thread in threads:
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, cores)
                moved += 1
    return moved


@dataclass(frozen=True)
class Core:
    """What a core has done since the machine started, in seconds (/proc/stat)."""

    busy: float
    #: Taken by the host this virtual machine runs on.
    steal: float


def core(number: int, text: str, ticks: int) -> Core:
    """Read one core.

    Args:
        text: /proc/stat.
        ticks: a second's (SC_CLK_TCK).

    Raises:
        StopIteration: there is no such core.
    """
    line = next(line for line in text.splitlines() if line.startswith(f"cpu{number} "))
    user, nice, system, _, _, irq, softirq, steal = (int(field) / ticks for field in line.split()[1:9])
    return Core(user + nice + system + irq + softirq, steal)
