"""The vela command line, pointed at one cluster."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from velagen.errors import Problem, VelagenError
from velagen.tools import tool

#: In a lab's folder: the vela of its own release, for people and for `vela` below.
PROGRAM = "bin/vela"


def put_program(folder: Path, path: Path) -> None:
    """Link `PROGRAM` of a lab's folder to a vela."""
    program = folder / PROGRAM
    program.parent.mkdir(exist_ok=True, mode=0o700)
    program.unlink(missing_ok=True)
    program.symlink_to(path)


def environment(kubeconfig: Path) -> dict[str, str]:
    """Give the environment in which vela and kubectl see one cluster, and nothing of the person's own settings."""
    return {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        # Else the person's ~/.vela, with their current environment and namespace, would take part.
        "VELA_HOME": str(kubeconfig.parent / "home" / "vela"),
    }


def vela(
    kubeconfig: Path, *arguments: str | Path, check: bool = True, timeout: float = 300, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run vela against a cluster: the one in the lab's folder, else the pinned default.

    Args:
        check: a non-zero exit is an error.
        timeout: seconds.
        stdin: what it reads.

    Returns:
        exit code, stdout and stderr.

    Raises:
        VelagenError: it failed (with `check`), or did not end in time; the message holds what it printed.
    """
    program = kubeconfig.parent / PROGRAM
    command = [str(program if program.exists() else tool("vela")), *map(str, arguments)]
    shown = " ".join(["vela", *map(str, arguments)])
    try:
        done = subprocess.run(
            command,
            env=environment(kubeconfig),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
        raise VelagenError(Problem(f"`{shown}` did not end within {timeout:.0f} s:\n{said}")) from error
    if check and done.returncode != 0:
        raise VelagenError(Problem(f"`{shown}` failed:\n{done.stdout}{done.stderr}".rstrip()))
    return done
