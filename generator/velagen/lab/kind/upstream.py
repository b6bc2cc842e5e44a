"""Manifests as upstream's own sources make them."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import Any

import yaml

from velagen.errors import Problem, VelagenError
from velagen.kubernetes.objects import KubernetesObject
from velagen.tools import source, tool


@cache
def kustomized(name: str, folder: str) -> str:
    """Give what ``kubectl kustomize`` prints of a folder of pinned sources.

    Args:
        name: of a source in the table of tools.
        folder: a kustomization in it.

    Raises:
        VelagenError: it failed.
    """
    done = subprocess.run(
        [str(tool("kubectl")), "kustomize", str(source(name) / folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode != 0:
        raise VelagenError(Problem(f"kubectl kustomize: {done.stderr.strip()[-800:]}"))
    return done.stdout


def parse(text: str) -> list[KubernetesObject]:
    """Give the objects of a manifest."""
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [thing for thing in yaml.load_all(text, loader) if thing]
