"""Why pods are not ready."""

from __future__ import annotations

from velagen.lab.api import Api, condition


def not_ready(api: Api, namespace: str | None = None) -> str:
    """Give a line for each pod that is not ready, with the reason its containers give."""
    lines = []
    for pod in api.list("v1", "Pod", namespace):
        if condition(pod, "Ready") == "True":
            continue
        reasons = [
            f"{name}: {entry.get('reason', '')} {str(entry.get('message', ''))[:300]}".strip()
            for container in [
                *pod["status"].get("initContainerStatuses", []),
                *pod["status"].get("containerStatuses", []),
            ]
            for name, entry in container.get("state", {}).items()
            if name != "running"
        ]
        reasons += [
            str(entry.get("message", ""))[:300]
            for entry in pod["status"].get("conditions", [])
            if entry.get("reason") == "Unschedulable"
        ]
        named = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        lines.append(f"    {named}: {pod['status'].get('phase')} {'; '.join(reasons)}")
    return "\n".join(lines)
