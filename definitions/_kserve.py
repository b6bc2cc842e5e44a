"""What the definitions say of KServe in common."""

from __future__ import annotations

from pathlib import Path

from velagen import Workload, context, each, given, has_prefix, length, minimum, refuse, replace_text
from velagen.template.body import Refusal
from velagen.template.expression import Expression, Value

INFERENCE_SERVICE = Workload("serving.kserve.io/v1beta1", "InferenceService")
DEPLOYMENT_MODE = "serving.kserve.io/deploymentMode"
#: true takes the pods away.
STOP = "serving.kserve.io/stop"
AUTOSCALER_CLASS = "serving.kserve.io/autoscalerClass"
#: What KServe calls the modes (pkg/constants/constants.go); RawDeployment and Serverless are their old names.
STANDARD, KNATIVE = "Standard", "Knative"
#: They by the property deploymentMode.
MODES = {"standard": STANDARD, "knative": KNATIVE}
#: The port on which every model server of KServe's runtimes answers HTTP.
HTTP_PORT = 8080

#: Holds when an application is rendered, not when the definition itself is compiled: a refusal of what is missing would
#: bite there too.
is_rendered = given(context.name)


def script(name: str) -> str:
    """A program that runs inside a container: the file *name* in scripts/. What it works on are its arguments.

    KServe parses the container as a Go template (ReplacePlaceholders, pkg/controller/v1beta1/inferenceservice/utils),
    and the kubelet reads $(…) and $$ in commands: none of these may occur.
    """
    text = (Path(__file__).parent / "scripts" / name).read_text(encoding="utf-8")
    for forbidden in ("{{", "$(", "$$"):
        if forbidden in text:
            raise ValueError(f"scripts/{name} may not contain {forbidden}")
    return text


def argument(value: Value) -> Expression:
    """A text as an argument of a command, where it arrives as it is.

    The kubelet reads $(NAME) in a command as a variable and $$ as $, in probes too (Kubernetes
    third_party/forked/golang/expansion, pkg/kubelet/prober).
    """
    return replace_text(value, "$", "$$")


def longest_name(part: Expression, *, added: Value = 0) -> Expression:
    """How many characters a component's name may have in standard mode.

    In: predictor or transformer, the longest part that the InferenceService has; by how much its name is longer than
    the component's. KServe makes the pods' label isvc.NAME-PART (GetRawServiceLabel, pkg/constants) and the host
    NAME-PART-NAMESPACE (domainTemplate of its configuration as it ships, reconcilers/ingress/domain.go), and 63
    characters are the most for a label and for a part of a host name. Services (63), Deployments, autoscalers and
    routes (253) are called NAME-PART.
    """
    left = 63 - added
    return minimum(left - len("isvc.-") - length(part), left - len("--") - length(part) - length(context.namespace))


def not_a_model(trait: str) -> Refusal:
    """Refuses a component that is not an InferenceService: KubeVela enforces appliesToWorkloads nowhere."""
    return refuse(
        context.output.kind != "InferenceService",
        f"the trait {trait} works on an InferenceService (a component of type kfserving), and this component writes "
        f"{context.output.kind}: move the trait, or drop it",
    )


#: The name of the canary's new version among the outputs, by which later traits know that it is made already.
CANARY_OUTPUT = "newVersion"
#: Of several candidates each has its own behind it.
_versions = [each(context.outputs, lambda made, _: made, where=lambda made, _: has_prefix(made, CANARY_OUTPUT))]
#: Or they are entries of the component's own InferenceService.
has_canary = (length(_versions) > 0) | given(context.output.spec.canary)
#: The name of the predictor's budget of disruptions among the outputs.
BUDGET = "predictor-budget"
