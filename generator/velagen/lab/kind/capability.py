"""Which Linux capabilities this machine lets a container have."""

from __future__ import annotations

import re
from pathlib import Path

#: Names by bit, as in linux/capability.h.
NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)

#: What dockerd itself can't do without.
NEEDED = frozenset({"SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "MKNOD", "SETUID", "SETGID", "CHOWN", "SETPCAP"})


def missing(status: str, last: int) -> tuple[str, ...]:
    """Give the capabilities that are not in the bounding set, without ``CAP_``.

    Args:
        status: text of /proc/self/status.
        last: the highest capability the kernel knows, from /proc/sys/kernel/cap_last_cap.

    Raises:
        ValueError: the text has no CapBnd line.
    """
    found = re.search(r"^CapBnd:\s*([0-9a-fA-F]+)$", status, re.MULTILINE)
    if found is None:
        raise ValueError("no CapBnd line")
    bits = int(found[1], 16)
    known = NAMES + tuple(f"{bit}" for bit in range(len(NAMES), last + 1))
    return tuple(name for bit, name in enumerate(known[: last + 1]) if not bits >> bit & 1)


def lacking() -> tuple[str, ...]:
    """Give the capabilities this process can never have; nothing where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except OSError:
        return ()
    return missing(status, last)
