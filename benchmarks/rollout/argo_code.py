"""Argo Rollouts' own analysis, built from its Go module by benchmarks/rollout/argo, and asked over stdin."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from velagen.tools import cache_dir
from velagen.tools.gobuild import build, key, workshop
from velagen.tools.report import Reporter
from velagen.tools.table import Build, Row

#: As pinned in argo/go.mod. 1.10.2 differs from it in the version of Go that its go.mod asks for alone.
VERSION: Final = "1.10.1"
_ROW: Final = Row(
    name="argo-analysis",
    version=VERSION,
    default=True,
    about="Argo Rollouts' analysis over traces",
    ask=(),
    answer="",
    build=Build(package=".", local="../../benchmarks/rollout/argo", minutes=8, gigabytes=4),
    release=None,
    image=None,
)


def binary(reporter: Reporter) -> Path:
    """The path of the built program; it is built where it is not there yet.

    Raises VelagenError where there is no Go, or the build fails.
    """
    cache = cache_dir()
    path = cache / "tools" / _ROW.name / key(_ROW) / _ROW.name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with workshop(cache, reporter) as shop:
            build(_ROW, path, shop)
    return path


def outcomes(program: Path, traces: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Argo says of each trace (see argo/main.go).

    Raises CalledProcessError where one is not a trace.
    """
    asked = "".join(json.dumps(trace) + "\n" for trace in traces)
    said = subprocess.run([program], input=asked, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in said.splitlines()]
