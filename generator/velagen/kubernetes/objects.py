"""What a Kubernetes object is in this code."""

from __future__ import annotations

from typing import Any

#: An object as the API server gives and takes it: apiVersion, kind, metadata and the rest, as JSON values.
KubernetesObject = dict[str, Any]
