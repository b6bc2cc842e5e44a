"""The trait accelerator: the kind of hardware that a model's pods run on, and what else follows from it.

A trait and no property of the component: every application renders the component, and few choose hardware.

Sources: _accelerators.py; Kubernetes pkg/scheduler/framework/plugins/nodeaffinity (nodeSelectorTerms are alternatives;
scores are brought to 0 to 100, so only the proportion of weights counts); KServe v0.20.0 pkg/utils, IsGPUEnabled, and
pkg/controller/v1beta1/inferenceservice/utils, UpdateImageTag; vLLM config/model.py, _resolve_auto_dtype.
"""

from __future__ import annotations

from _accelerators import AMD, ANY, CPU, LABELS, NVIDIA, PRODUCTS, RESOURCES, VENDOR_OF, WITH_SHARED, WITHOUT_BFLOAT16
from _kserve import INFERENCE_SERVICE, has_canary, not_a_model
from _pod import SERVER
from _runtimes import SHIPPED

from velagen import (
    Status,
    Trait,
    cases,
    choose,
    comment,
    concat,
    context,
    each,
    first_given,
    flatten,
    floor,
    given,
    has_prefix,
    if_else,
    join,
    length,
    let,
    matches,
    merge_by,
    missing,
    refuse,
    replace_list,
    to_json,
    unique,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Reference, Value

predictor = context.output.spec.predictor
model = predictor.model
node_affinity = predictor.affinity.nodeAffinity
required = node_affinity.requiredDuringSchedulingIgnoredDuringExecution
preferred = node_affinity.preferredDuringSchedulingIgnoredDuringExecution

is_cpu = let(first_given(p.type, "") == CPU)
is_any = let(first_given(p.type, "") == ANY)

kinds = let(comment("The kinds of GPU that will do, the preferred one first.", first_given(p.anyOf, [p.type], [])))
vendors = let(unique([each(kinds, lambda kind: choose(kind, VENDOR_OF, NVIDIA.name))]))
vendor = let(first_given(vendors[0], NVIDIA.name))
resource = let(choose(vendor, RESOURCES, NVIDIA.resource))
label = let(choose(vendor, LABELS, NVIDIA.label))

# What is asked for already --------------------------------------------------------------------------------------------

container = let(
    comment(
        "The server's container: a runtime's, or the first where the image is the user's own.",
        if_else(
            given(model), {"resources": first_given(model.resources, {})}, first_given(predictor.containers[0], {})
        ),
    )
)
limits = let(first_given(container.resources.limits, {}))
GPU_NAMES = "^(nvidia[.]com/(gpu|mig-)|amd[.]com/gpu|volcano[.]sh/vgpu-)"
gpus_asked = let(
    comment(
        "What asks for GPUs before this trait: the component's resources, or gpu-share in one of its modes.",
        [
            each(limits, lambda name, _: name, where=lambda name, _: matches(name, GPU_NAMES)),
            each(
                container.resources.claims,
                lambda _: "a device by gpu-share",
                where=lambda claim: claim.name == "gpu-share",
            ),
            when(given(predictor.annotations["gpu-fraction"]), "a part of a GPU by gpu-fraction"),
            when(given(predictor.annotations["gpu-memory"]), "a part of a GPU by gpu-memory"),
        ],
    )
)
is_asked = length(gpus_asked) > 0
of_other_vendor = let(
    [
        each(
            gpus_asked,
            lambda name: name,
            where=lambda name: has_prefix(name, AMD.resource) != (resource == AMD.resource),
        )
    ]
)

# Nodes ----------------------------------------------------------------------------------------------------------------


values_by_kind = let(
    comment(
        "What the nodes' label may say, kind by kind. Nodes that share GPUs under the old resource name say it with a "
        "suffix, and give a part where a whole one is asked for.",
        [each(kinds, lambda kind: if_else(is_asked, choose(kind, WITH_SHARED, []), choose(kind, PRODUCTS, [])))],
    )
)
values = let(flatten(values_by_kind))
nodes = let(
    comment(
        "Which nodes will do.",
        [
            when(is_cpu, {"key": "nvidia.com/gpu.present", "operator": "NotIn", "values": replace_list(["true"])}),
            when(is_cpu, {"key": NVIDIA.label, "operator": "DoesNotExist"}),
            when(is_cpu, {"key": AMD.label, "operator": "DoesNotExist"}),
            when(is_any, {"key": NVIDIA.label, "operator": "Exists"}),
            when(
                is_any & ~is_asked,
                {
                    "key": "nvidia.com/gpu.sharing-strategy",
                    "operator": "NotIn",
                    "values": replace_list(["time-slicing", "mps"]),
                },
            ),
            when(~is_cpu & ~is_any, {"key": label, "operator": "In", "values": replace_list(values)}),
        ],
    )
)


def narrowed(term: Reference) -> Value:
    """One of the component's terms, and ours beside what it has."""
    return {
        "matchExpressions": replace_list(concat(first_given(term.matchExpressions, []), nodes)),
        when(given(term.matchFields)): {"matchFields": replace_list(term.matchFields)},
    }


terms = let(
    comment(
        "Terms are alternatives, so ours goes into each of the component's. A term without a condition fits no node, "
        "and must not come to fit one.",
        cases(
            (
                given(required.nodeSelectorTerms),
                [
                    each(
                        required.nodeSelectorTerms,
                        narrowed,
                        where=lambda term: (
                            length(first_given(term.matchExpressions, [])) + length(first_given(term.matchFields, []))
                            > 0
                        ),
                    )
                ],
            ),
            otherwise=[{"matchExpressions": replace_list(nodes)}],
        ),
    )
)
last = length(kinds) - 1


def liked(place: Reference, own: Reference) -> Value:
    """How much nodes of a kind are preferred."""
    return {
        "weight": floor(100 * (last - place) / last),
        "preference": {
            "matchExpressions": replace_list([{"key": label, "operator": "In", "values": replace_list(own)}])
        },
    }


order = let(
    comment(
        "The first has 100 and the last nothing, with equal steps between. The scheduler brings the sums to 0 to 100 "
        "anyway: with 100 beside 90, a node that is a little emptier would outweigh the order.",
        [each(values_by_kind, liked, where=lambda place, _: place < last)],
    )
)

# Precision ------------------------------------------------------------------------------------------------------------

args = let(join(first_given(model.args, []), " "))
server = let(first_given(model.modelFormat.name, ""))
is_vllm = (server == "vLLM") | ((server == "huggingface") & ~matches(args, "--backend[= ]huggingface( |$)"))
#: vLLM's own word for it, --dtype auto, is what the device has: float16, or float32 for models that float16 breaks.
without_bfloat16 = let([each(kinds, lambda kind: kind, where=lambda kind: choose(kind, WITHOUT_BFLOAT16, False))])

#: None of these has an image for AMD's GPUs; without nvidia.com/gpu KServe takes the CPU's, or leaves CUDA's.
SHIPPED_BY_KSERVE = dict.fromkeys(SHIPPED, True)
is_kserves_own = choose(first_given(model.runtime, ""), SHIPPED_BY_KSERVE, False)

amount = first_given(p.count, 1)
asks = {"resources": {"limits": {resource: amount}}}
has_own_image = missing(model) & given(predictor.containers)

accelerator = Trait(
    name="accelerator",
    description="Says on which hardware a model's pods run.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    conflicts_with=["accelerator"],
    pod_disruptive=True,
    patch={
        "spec": {
            "predictor": {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": replace_list(terms)},
                        when(length(kinds) > 1): {
                            "preferredDuringSchedulingIgnoredDuringExecution": replace_list(
                                concat(first_given(preferred, []), order)
                            )
                        },
                    }
                },
                when(~is_cpu & ~is_asked & given(model)): {"model": asks},
                when(~is_cpu & ~is_asked & has_own_image): {
                    "containers": merge_by("name", [{"name": SERVER, **asks}]),
                },
            }
        }
    },
    checks=[
        not_a_model("accelerator"),
        refuse(
            has_canary,
            "write accelerator before canary: the new version copies what the component is at canary's turn",
        ),
        refuse(
            matches(
                f"{to_json(first_given(required, {}))} {to_json(first_given(predictor.nodeSelector, {}))}",
                '"(nvidia[.]com/gpu[.]product|amd[.]com/gpu[.]product-name)"',
            ),
            f"accelerator chooses the nodes by {NVIDIA.label} and {AMD.label}, and the component does too: drop them "
            "from its nodeSelector and pod.affinity (and write accelerator once; for several kinds of GPU write anyOf)",
        ),
        refuse(
            length(vendors) > 1,
            f"anyOf holds GPUs of {join(vendors, ' and ')}, and a pod asks for one resource ({NVIDIA.resource} or "
            f"{AMD.resource}) with one image: write those of one vendor, and a second component for the other's",
        ),
        refuse(
            is_cpu & is_asked,
            f"type: cpu keeps the pods off nodes with GPUs, and they ask for one ({gpus_asked[0]}): drop it from the "
            "component's resources (and gpu-share), or write type: any",
        ),
        refuse(is_cpu & given(p.count), "count is of GPUs, and type: cpu has none: drop count, or write type: any"),
        refuse(
            ~is_cpu & (length(of_other_vendor) > 0),
            f"{of_other_vendor[0]} is asked for, and this accelerator is {resource}: drop the former from the "
            "component's resources (and gpu-share), or choose a GPU of its vendor here",
        ),
        refuse(
            ~is_cpu
            & is_asked
            & (length(of_other_vendor) == 0)
            & given(p.count)
            & (first_given(f"{limits[resource]}", "") != f"{p.count}"),
            f"count: {p.count} contradicts what is asked for already ({gpus_asked[0]}): drop count, which then follows "
            "the component's resources (or gpu-share), or drop it there",
        ),
        refuse(
            (vendor == AMD.name) & given(model) & missing(model.runtimeVersion) & is_kserves_own,
            "this GPU is AMD's, and KServe's runtimes name images for CUDA or the CPU: write servingRuntime with a "
            "runtime of yours whose image is built for ROCm, image with a server of your own, or runtimeVersion with "
            "the tag of such a build where your registry has one under the runtime's name",
        ),
        refuse(
            is_vllm & (length(without_bfloat16) > 0) & matches(args, "--dtype[= ]bfloat16( |$)"),
            f"args hold --dtype=bfloat16, which a {without_bfloat16[0]} does not have, and vLLM ends with that: drop "
            "it, vLLM then takes float16 (or float32, where the model does not bear it)",
        ),
    ],
    status=Status(
        message=cases(
            (given(p.anyOf), f"on {join(p.anyOf, ', else on ')}"),
            otherwise=f"on {first_given(p.type, 'any')}",
        )
    ),
)
