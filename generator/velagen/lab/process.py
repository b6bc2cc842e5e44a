"""Processes that outlive the command that started them, and are never mistaken for somebody else's."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Set in the environment of every process of a lab, to the lab's id.
MARK = "VELAGEN_LAB"
_PROC = Path("/proc")
#: Below the range Linux and macOS take outgoing ports from, so that no connection takes one before its server binds it.
_PORTS = range(20000, 30000)


@dataclass
class Process:
    """One process of a lab, as it is kept in the lab's state."""

    name: str
    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    pid: int | None = None
    #: What `identity` said right after the start.
    identity: str | None = None

    @property
    def alive(self) -> bool:
        """Whether the process runs: the pid exists and is still the process that was started."""
        return self.pid is not None and self.identity is not None and identity(self.pid) == self.identity

    def spawn(self, log: Path, folder: Path) -> None:
        """Start it, output appended to `log`, in a session of its own: Ctrl-C in the terminal must not reach it."""
        with log.open("ab") as out:
            started = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.env,
                cwd=folder,
                start_new_session=True,
            )
        self.pid = started.pid
        self.identity = identity(started.pid)
        # It is meant to go on without us; the object's destructor would complain.
        started.returncode = 0


def identity(pid: int) -> str | None:
    """Give what tells a process from a later one with the same pid: boot and start time.

    Returns:
        None = no such process, or a zombie.
    """
    with contextlib.suppress(ChildProcessError, OSError):
        os.waitpid(pid, os.WNOHANG)  # a dead child of ours stays as a zombie until somebody asks
    if _PROC.is_dir():
        try:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        if fields[0] in {"Z", "X"}:
            return None
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{fields[19]}"
    said = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = said.stdout.strip().partition(" ")
    return started.strip() if started and not state.startswith("Z") else None


def marked(mark: str) -> list[Process]:
    """Find processes that carry a lab's mark: also one whose starter was killed before it wrote it down.

    Linux only; elsewhere the state file is all there is.
    """
    found = []
    wanted = f"{MARK}={mark}".encode()
    for folder in _PROC.glob("[0-9]*") if _PROC.is_dir() else ():
        with contextlib.suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                pid = int(folder.name)
                found.append(Process(name=f"pid {pid}", argv=[], pid=pid, identity=identity(pid)))
    return [process for process in found if process.alive]


def stop(processes: Iterable[Process], *, patience: float = 3.0) -> None:
    """End processes: SIGTERM to all, SIGKILL to those that still run after `patience` seconds."""
    running = [process for process in processes if process.alive]
    for process in running:
        _send(process, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while any(process.alive for process in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in running:
        _send(process, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(process.alive for process in running) and time.monotonic() < deadline:
        time.sleep(0.02)


def _send(process: Process, number: signal.Signals) -> None:
    """Signal a process after making sure it is still the one we started."""
    if process.pid is None:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "pidfd_open"):
            # The handle stays with this process even if it ends and its pid is given away between look and signal.
            handle = os.pidfd_open(process.pid)
            try:
                if process.alive:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
        elif process.alive:
            os.kill(process.pid, number)


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Pick a port that nobody listens on for each name."""
    chosen: dict[str, int] = {}
    candidates = random.sample(_PORTS, len(_PORTS))
    for name in names:
        while name not in chosen:
            port = candidates.pop()
            with socket.socket() as probe:
                try:
                    # On all addresses: the webhook servers bind all.
                    probe.bind(("", port))
                except OSError:
                    continue
            chosen[name] = port
    return chosen
