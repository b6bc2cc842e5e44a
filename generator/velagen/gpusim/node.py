"""What a node has already: a simulated GPU beside a real one would take its name, its socket and its pods."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path
from typing import Final

#: Where /proc, /sys and /dev are. A pod sees the node's /proc and /sys; of /dev only what it was given.
ROOT: Final = Path("/")
#: Made by NVIDIA's kernel modules, and seen in any container. nvgpu is Tegra's, whose GPU is not a PCI device.
_DRIVER: Final = ("proc/driver/nvidia", "sys/module/nvidia", "sys/module/nvgpu")
_DEVICES: Final = ("dev/nvidia[0-9]*", "dev/nvidiactl", "dev/nvhost-ctrl-gpu")
#: PCI: NVIDIA, and its classes of displays and 3D controllers (pci.ids).
_VENDOR: Final = "0x10de"
_DISPLAY: Final = "0x03"
#: Seconds a listening program may take to be reached; a local connection is made by the kernel at once.
_CONNECT: Final = 2.0


def real_gpus(root: Path = ROOT) -> list[str]:
    """Give what says that a node has a real GPU or its driver, as paths; empty where it has neither."""
    found = [path for path in _DRIVER if (root / path).exists()]
    found += [str(path.relative_to(root)) for pattern in _DEVICES for path in sorted(root.glob(pattern))]
    for device in sorted((root / "sys/bus/pci/devices").glob("*")):
        if _read(device / "vendor") == _VENDOR and _read(device / "class").startswith(_DISPLAY):
            found.append(str(device.relative_to(root)))
    return [f"/{path}" for path in found]


def live_plugins(folder: Path) -> list[Path]:
    """Give the sockets of NVIDIA's device plugins, or of ours, on which somebody listens."""
    return [path for path in sorted(folder.glob("nvidia*")) if path.is_socket() and _answers(path)]


def remove_dead(path: Path) -> None:
    """Make room for a socket: one that a killed plugin left goes.

    Raises:
        OSError: somebody listens on it, or it is something else.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "not a socket, so it is left alone", str(path))
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "another device plugin listens there", str(path))
    path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_CONNECT)
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # too busy to be reached, or not for us
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
