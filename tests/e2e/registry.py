"""MLflow's own server, with a registry of models, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from velagen.lab import wait_until


class Registry:
    """What a person does in MLflow."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, path: str, **body: Any) -> dict[str, Any]:
        answer = requests.post(f"{self.url}/api/2.0/mlflow/{path}", json=body, timeout=30)
        assert answer.ok, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def register(self, name: str, *sources: str) -> None:
        """A model with a version for each source, 1 the first."""
        self.call("registered-models/create", name=name)
        for source in sources:
            self.call("model-versions/create", name=name, source=source)

    def move(self, name: str, alias: str, version: int) -> None:
        self.call("registered-models/alias", name=name, alias=alias, version=str(version))


@contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """A server that keeps what it knows in the folder, while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--default-artifact-root", "s3://models"]
    # Jobs are run by a queue that MLflow without its extras does not bring; nothing here makes any.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "DO_NOT_TRACK": "true"}
    log = folder / "mlflow.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        if server.poll() is not None:
            raise AssertionError(log.read_text()[-2000:])
        try:
            return requests.get(f"{url}/health", timeout=5).ok
        except requests.RequestException:
            return False

    try:
        wait_until(answers, what="MLflow", timeout=420, every=0.5)
        yield Registry(url)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
