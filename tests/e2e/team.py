"""A team that delivers models by examples/pipeline: its repository, and who stands in for GitHub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tests.e2e.registry import Registry

from velagen.tools import tool

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples/pipeline/pipeline.sh"
#: Stands in for GitHub's command: it writes down what it was asked.
GH = """#!/bin/sh
for one; do printf '%s\\n' "$one"; done > "$GH_LOG"
while [ $# -gt 0 ]; do [ "$1" = --body-file ] && cp "$2" "$GH_LOG.body"; shift; done
"""


def with_workflow(app: str, *steps: dict[str, Any]) -> str:
    """An application's text with a workflow behind it, in one line."""
    workflow = yaml.safe_dump({"steps": list(steps)}, default_flow_style=True, width=10_000).strip()
    return f"{app}  workflow: {workflow}\n"


class Team:
    """A repository with the application's file, its remote, and the commands that the pipeline calls."""

    def __init__(self, folder: Path, mlflow: Registry, app: str, **environment: str) -> None:
        self.log = folder / "gh.log"
        commands = folder / "bin"
        commands.mkdir()
        for name, text in (
            ("gh", GH),
            ("velagen", f'#!/bin/sh\nexec {sys.executable} -m velagen.cli "$@"\n'),
            ("vela", f'#!/bin/sh\nexec {tool("vela")} "$@"\n'),
        ):
            (commands / name).write_text(text)
            (commands / name).chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "generator"),
            "GH_LOG": str(self.log),
            "MLFLOW_TRACKING_URI": mlflow.url,
            "GIT_CONFIG_GLOBAL": os.devnull,
            **{f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            **environment,
        }
        self.work = folder / "work"
        self.run("git", "init", "-q", "--bare", "-b", "main", str(folder / "remote"), at=folder)
        self.run("git", "clone", "-q", str(folder / "remote"), str(self.work), at=folder)
        self.file = self.work / "app.yaml"
        self.file.write_text(app)
        self.run("git", "switch", "-q", "-c", "main")
        self.run("git", "add", ".")
        self.run("git", "commit", "-q", "-m", "Version 1")
        self.run("git", "push", "-q", "-u", "origin", "main")

    def run(
        self, *command: str, at: Path | None = None, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=at or self.work,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def propose(self, model: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        self.log.unlink(missing_ok=True)
        return self.run("bash", str(SCRIPT), "propose", "app.yaml", model, check=check)

    def deploy(
        self, namespace: str, kubeconfig: Path, *, timeout: int, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Apply what is merged, and wait for its rollout."""
        command = ("bash", str(SCRIPT), "deploy", "app.yaml", namespace)
        return self.run(*command, check=check, KUBECONFIG=str(kubeconfig), TIMEOUT=str(timeout))

    def branches(self) -> list[str]:
        return self.run("git", "ls-remote", "--heads", "origin").stdout.split()[1::2]

    def approve(self) -> None:
        """What a person does with the pull request."""
        branch = self.run("git", "branch", "--show-current").stdout.strip()
        self.run("git", "switch", "-q", "main")
        self.run("git", "merge", "-q", "--no-edit", branch)
        self.run("git", "push", "-q", "origin", "main")
