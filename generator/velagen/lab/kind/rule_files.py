"""Brings rule files out of labelled ConfigMaps to the lab's Prometheus, as k8s-sidecar does for users.

Runs in a container beside Prometheus, with Python's own library alone. Its arguments are the label that the ConfigMaps
have (``NAME=VALUE``), the folder that Prometheus reads, and the address that makes Prometheus read it again.
"""

from __future__ import annotations

import json
import ssl
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: What Kubernetes gives each pod: docs, "Accessing the Kubernetes API from a Pod".
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_API = "https://kubernetes.default.svc/api/v1/configmaps"
#: Seconds between two looks.
_EVERY = 2


def wanted(listed: Mapping[str, Any]) -> dict[str, str]:
    """By name the files in a list of ConfigMaps: components of one name in two namespaces have one each."""
    files = {}
    for one in listed.get("items") or ():
        metadata = one["metadata"]
        for key, text in (one.get("data") or {}).items():
            files[f"{metadata['namespace']}.{metadata['name']}.{key}"] = text
    return files


def write(files: dict[str, str], folder: Path) -> bool:
    """Make the folder hold these files and no others; give whether it did not before."""
    there = {path.name: path for path in folder.iterdir()}
    gone = [path for name, path in there.items() if name not in files]
    new = {name: text for name, text in files.items() if name not in there or there[name].read_text() != text}
    for path in gone:
        path.unlink()
    for name, text in new.items():
        (folder / name).write_text(text)
    return bool(gone or new)


def listed(label: str) -> dict[str, Any]:
    """Ask the API server for the ConfigMaps with a label."""
    request = urllib.request.Request(f"{_API}?labelSelector={urllib.parse.quote(label)}")
    request.add_header("Authorization", f"Bearer {(_ACCOUNT / 'token').read_text()}")
    trusted = ssl.create_default_context(cafile=str(_ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def main(label: str, folder: Path, reload: str) -> None:
    """Look for ever; what fails is said, and tried again with the next look."""
    is_read = True
    while True:
        try:
            is_read = not write(wanted(listed(label)), folder) and is_read
            if not is_read:
                with urllib.request.urlopen(urllib.request.Request(reload, method="POST"), timeout=30):
                    is_read = True
                print(f"rule files: {sorted(path.name for path in folder.iterdir())}", flush=True)
        except OSError as error:  # what urllib raises is one
            print(f"{error}", flush=True)
        time.sleep(_EVERY)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
