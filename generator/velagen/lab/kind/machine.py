"""What a Docker engine changes on the machine (firewall, forwarding, links, mounts): noted, and put back after it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from velagen.lab.process import identity

#: Where Debian keeps daemons, which is not always on a user's PATH.
SBIN = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin"))


def search_path() -> str:
    """The user's PATH, and the folders of daemons after it."""
    return os.pathsep.join([os.environ.get("PATH", ""), SBIN])


_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def present() -> dict[str, str]:
    """Note what a daemon changes on the machine: forwarding, its policy, and the firewall's chains."""
    noted = {}
    if _FORWARD.exists():
        noted["ip_forward"] = _FORWARD.read_text().strip()
    for table_name in ("filter", "nat"):
        noted[table_name] = _iptables("-t", table_name, "-S")
    noted["links"] = " ".join(sorted(_links()))
    return noted


_LINKS = Path("/sys/class/net")


def _links() -> set[str]:
    return {path.name for path in _LINKS.iterdir()} if _LINKS.is_dir() else set()


def left_behind(before: set[str], now: set[str]) -> list[str]:
    """Give the interfaces that an engine left: new ones with the names Docker gives, and no other program."""
    return sorted(name for name in now - before if re.fullmatch(r"veth[0-9a-f]{7}|br-[0-9a-f]{12}", name))


def restore(before: Mapping[str, str]) -> None:
    """Put back what `present` noted: rules and chains that were not there go, policies and forwarding return."""
    for table_name in ("filter", "nat"):
        if table_name not in before:
            continue
        for rule in undo(before[table_name], _iptables("-t", table_name, "-S")):
            _iptables("-t", table_name, *rule)
    if "links" in before and (ip := shutil.which("ip", path=search_path())):
        # An engine that was killed forgets the outer ends of its containers' cables.
        for name in left_behind(set(before["links"].split()), _links()):
            if not (_LINKS / name / "master").exists():
                subprocess.run([ip, "link", "delete", name], check=False, capture_output=True)
    if "ip_forward" in before and _FORWARD.read_text().strip() != before["ip_forward"]:
        _FORWARD.write_text(before["ip_forward"] + "\n")


def undo(before: str, after: str) -> list[list[str]]:
    """Give the iptables arguments that lead from one listing (``iptables -S``) back to an earlier one.

    Only what Docker makes is taken away: chains that begin with DOCKER, and rules that name one.
    """
    old = before.splitlines()
    steps: list[list[str]] = []
    chains = [line.split()[1] for line in after.splitlines() if line.startswith("-N DOCKER") and line not in old]
    for line in after.splitlines():
        fields = line.split()
        if fields[:1] == ["-A"] and fields[1] not in chains and line not in old and any("DOCKER" in f for f in fields):
            steps.append(["-D", *fields[1:]])
    steps += [["-F", chain] for chain in chains]
    steps += [["-X", chain] for chain in chains]
    for line in old:
        if line.startswith("-P") and line not in after.splitlines():
            steps.append(line.split())
    return steps


def daemons() -> list[int]:
    """Give the pids of engines that run on this machine."""
    found = []
    for name in Path("/proc").glob("[0-9]*/comm"):
        try:
            # One that ended and that nobody asked for is still listed, and runs no more.
            if name.read_text().strip() == "dockerd" and identity(int(name.parent.name)):
                found.append(int(name.parent.name))
        except OSError:
            continue
    return found


def _iptables(*arguments: str) -> str:
    path = shutil.which("iptables", path=search_path())
    if path is None:
        return ""
    done = subprocess.run([path, "--wait", *arguments], capture_output=True, text=True, check=False)
    return done.stdout


def kill_containers(folder: Path) -> None:
    """End containers whose engine is gone for good: of each, containerd notes the process all others end with."""
    for note in folder.glob("run/containerd/daemon/io.containerd.runtime.v2.task/moby/*/init.pid"):
        try:
            pid = int(note.read_text())
            # The pid may be another process's by now: a container's own is in a control group of its name.
            if note.parent.name in (Path("/proc") / str(pid) / "cgroup").read_text():
                os.kill(pid, signal.SIGKILL)
        except (OSError, ValueError):
            continue


def unmount_below(folder: Path) -> bool:
    """Take away mounts that a killed daemon left; false where one stays, with files under it that are not its own."""
    for point in sorted(_mounts_below(folder), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    return not _mounts_below(folder)


def _mounts_below(folder: Path) -> list[str]:
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return []
    # fstab(5): a space is written as \040.
    points = [line.split()[1].replace("\\040", " ") for line in mounts.read_text().splitlines()]
    return [point for point in points if Path(point).is_relative_to(folder)]
