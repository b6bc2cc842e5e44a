"""The administrator of a kind cluster."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Problem, VelagenError
from velagen.tools import tool

_ADMIN: tuple[dict[str, Any], ...] = (
    {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "velagen-admin", "namespace": "kube-system"},
    },
    {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "velagen-admin"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "velagen-admin", "namespace": "kube-system"}],
    },
)


def write_admin(made: Path, name: str, target: Path) -> None:
    """Write a kubeconfig with a token of an administrator: the form every client of the lab reads.

    Args:
        made: kind's own kubeconfig; the file of the authority goes beside it.
        name: the cluster's.

    Raises:
        VelagenError: kubectl can't make the account.
    """
    given = yaml.safe_load(made.read_text())
    cluster = given["clusters"][0]["cluster"]
    authority = made.with_name("ca.crt")
    authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    kubectl = [str(tool("kubectl")), f"--kubeconfig={made}"]
    things = "---\n".join(yaml.safe_dump(thing) for thing in _ADMIN)
    for arguments, said in (
        (["apply", "-f", "-"], things),
        (["create", "token", "velagen-admin", "-n", "kube-system", "--duration=8760h"], None),
    ):
        done = subprocess.run(
            [*kubectl, *arguments], input=said, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            raise VelagenError(Problem(f"kubectl {arguments[0]}: {done.stderr.strip()}"))
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {"server": cluster["server"], "certificate-authority": str(authority)},
            }
        ],
        "users": [{"name": "admin", "user": {"token": done.stdout.strip()}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin"}}],
        "current-context": name,
    }
    target.touch(mode=0o600)
    target.write_text(yaml.safe_dump(config))
