"""What the definitions say of KServe in common."""

from __future__ import annotations

from pathlib import Path

from velagen import Workload

INFERENCE_SERVICE = Workload("serving.kserve.io/v1beta1", "InferenceService")
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"
#: What KServe calls the modes (pkg/constants/constants.go); RawDeployment and Serverless are their old names.
STANDARD, KNATIVE = "Standard", "Knative"
#: The port on which every model server of KServe's runtimes answers HTTP.
HTTP_PORT = 8080


def script(name: str) -> str:
    """A program that runs inside a container: the file *name* in scripts/, without its module docstring's quotes.

    KServe parses the container as a Go template (ReplacePlaceholders, pkg/controller/v1beta1/inferenceservice/utils)
    and Kubernetes expands $(…) in commands: neither may occur.
    """
    text = (Path(__file__).parent / "scripts" / name).read_text(encoding="utf-8")
    for forbidden in ("{{", "$("):
        if forbidden in text:
            raise ValueError(f"scripts/{name} may not contain {forbidden}")
    return text
