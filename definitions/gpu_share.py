"""The trait gpu-share: half a GPU becomes what Kubernetes and the nodes' sharing software understand.

Sources: NVIDIA k8s-device-plugin (sharing, renameByDefault) and gpu-feature-discovery (labels), NVIDIA MIG user guide
(profiles), Project-HAMi examples/nvidia, volcano-vgpu-device-plugin, KAI scheduler docs/gpu-sharing; for mode dra
Kubernetes resource.k8s.io/v1 and dra-driver-nvidia-gpu (deviceinfo.go, consumable_shares.go, demo/specs).
"""

from __future__ import annotations

from _kserve import INFERENCE_SERVICE, has_canary, not_a_model

from velagen import (
    Status,
    Trait,
    cases,
    ceil,
    choose,
    comment,
    context,
    first_given,
    floor,
    given,
    if_else,
    let,
    merge_by,
    missing,
    one_of,
    otherwise,
    quantity,
    refuse,
    replace_list,
    replace_pattern,
    sha256,
    to_json,
    when,
)
from velagen import parameter as p
from velagen.gpu.parts import GPU_MIB, ISOLATION, MIG_MIB, MIG_PROFILES, MOST_MPS
from velagen.template.expression import Expression

predictor = context.output.spec.predictor
limits = predictor.model.resources.limits

divides_equally = one_of(p.mode, "time-slicing", "mps")
takes_percents = one_of(p.mode, "hami", "volcano")

asked = let(
    cases((given(p.memory), f"memory: {p.memory}"), (given(p.fraction), f"fraction: {p.fraction}"), otherwise="")
)
mib = let(
    comment(
        "The memory that is asked for in whole MiB, rounded up; 0 with fraction.",
        cases((given(p.memory), ceil(quantity(p.memory) / (1 << 20))), otherwise=0),
    )
)
gpu_mib = choose(p.gpu, GPU_MIB)

parts = let(
    comment(
        "In how many equal parts the GPU is cut: 1/fraction, or as many as still have the memory; 0 where it is not "
        "known.",
        cases(
            (given(p.fraction), floor(1 / p.fraction + 0.5)),
            (given(p.memory) & given(p.gpu), floor(gpu_mib / mib)),
            otherwise=0,
        ),
    )
)
sum_of_parts = let(
    comment(
        "0.33 is meant as a third: the parts may miss the whole by one percent.",
        cases((given(p.fraction), parts * p.fraction), otherwise=1),
    )
)
percent = let(
    comment("HAMi and Volcano take whole percents of the GPU.", floor(first_given(p.fraction, 0) * 100 + 0.5))
)

#: By GPU and part of its memory, as "a30 0.25".
PROFILES = {f"{gpu} {part}": name for gpu, own in MIG_PROFILES.items() for part, name in own.items()}
PROFILES_MIB = {f"{gpu} {part}": own_mib for gpu, own in MIG_MIB.items() for part, own_mib in own.items()}


def has_memory(part: str) -> Expression:
    """Whether that part of the GPU's memory has a MIG device with as much as is asked for."""
    return mib <= choose(f"{first_given(p.gpu, 'none')} {part}", PROFILES_MIB, 0)


gpu_and_part = let(
    comment(
        "What the MIG profiles are found by: the part that is asked for, or the smallest with the memory.",
        cases(
            (given(p.fraction), f"{first_given(p.gpu, 'none')} {p.fraction}"),
            *((has_memory(part), f"{first_given(p.gpu, 'none')} {part}") for part in ("0.125", "0.25", "0.5")),
            otherwise="none",
        ),
    )
)
mig_profile = let(
    comment(
        "The MIG profile with that part of the GPU's memory; empty where there is none.",
        choose(gpu_and_part, PROFILES, ""),
    )
)
#: The most memory that a MIG device of a GPU has which is not all of the GPU.
MOST_MIG_MIB = {gpu: max(own.values()) for gpu, own in MIG_MIB.items()}
most_mig_mib = choose(p.gpu, MOST_MIG_MIB, 0)


uses_dra = p.mode == "dra"
by_profile = (p.mode == "mig") | (uses_dra & ~p.shared)
has_own_device = uses_dra & ~p.shared
DRA_OUTPUT = "gpuClaim"

#: How mode dra finds a device. A CEL expression that reads what a device has not ends the search with an error, so each
#: asks first. The domain of a driver's own attributes is the driver's name.
HAS_PROFILE = '"profile" in device.attributes[device.driver] && device.attributes[device.driver].profile == '
HAS_MEMORY = '"memory" in device.capacity[device.driver] && device.capacity[device.driver].memory.compareTo('
HAS_SHARES = '"shares" in device.capacity[device.driver] && device.capacity[device.driver].shares.compareTo('
#: Only API servers that can share a device know the word, and any other refuses it; without it they would drop the
#: capacity that is asked for, and give a whole device.
IS_SHARED = "device.allowMultipleAllocations && "

device_selector = let(
    comment(
        "What DRA looks for, in CEL: a device that shares its memory, or its shares; a MIG profile; so much memory.",
        cases(
            (p.shared & given(p.memory), f'{IS_SHARED}{HAS_MEMORY}quantity("{mib}Mi")) >= 0'),
            (p.shared, f'{IS_SHARED}{HAS_SHARES}quantity("{parts}")) == 0'),
            (given(p.gpu), f'{HAS_PROFILE}"{mig_profile}"'),
            otherwise=f'{HAS_MEMORY}quantity("{mib}Mi")) >= 0',
        ),
    )
)
device_request = let(
    comment(
        "What each pod claims: one device of the class, and with shared a part of it.",
        {
            "name": "gpu",
            "exactly": {
                "deviceClassName": first_given(p.deviceClass, if_else(p.shared, "gpu.nvidia.com", "mig.nvidia.com")),
                "selectors": [{"cel": {"expression": device_selector}}],
                when(p.shared): {
                    "capacity": {
                        "requests": {
                            when(given(p.memory)): {"memory": f"{mib}Mi"},
                            otherwise(): {"shares": "1"},
                        }
                    }
                },
            },
        },
    )
)
template_name = let(
    comment(
        "A ResourceClaimTemplate can't be changed: another request is another one, and pods of the old keep theirs.",
        f"{context.name}-gpu-{replace_pattern(sha256(to_json(device_request)), '^(.{8}).*$', '$1')}",
    )
)


def modes_with(*levels: str) -> list[str]:
    """The modes that isolate so much."""
    return [mode for mode, level in ISOLATION.items() if level in levels]


#: pkg/utils, IsGPUEnabled; UpdateImageTag
hides_the_gpu = (divides_equally & (p.resourceName == "nvidia.com/gpu.shared")) | one_of(
    p.mode, "volcano", "kai", "dra"
)
image_depends_on_gpu = let(
    comment(
        "By modelFormat.name: KServe takes the GPU build of these servers' images only where it finds nvidia.com/gpu "
        "or nvidia.com/mig-... in the limits, unless a tag is given.",
        choose(
            first_given(predictor.model.modelFormat.name, ""),
            dict.fromkeys(("vLLM", "huggingface", "tensorflow", "pytorch"), True),
            False,
        ),
    )
)

#: Why a mode keeps no pod from memory of another's part. Sources: docs/gpu.md.
NO_LIMIT = {
    "time-slicing": "whose pods take what they get of the GPU's memory",
    "kai": "whose scheduler counts memory and limits none",
}
#: Why a fault of one pod may end another.
NO_FAULT_LINE = {
    "time-slicing": "which keeps no faults apart",
    "mps": "where a fault of one pod ends all on the GPU",
    "hami": "which limits memory and cores and keeps no faults apart",
    "volcano": "which limits memory and cores and keeps no faults apart",
    "kai": "which keeps no faults apart",
}
assert list(NO_LIMIT) == modes_with("none")
assert list(NO_FAULT_LINE) == modes_with("none", "memory")

#: Nodes whose GPUs have so many parts of so much memory each.
with_memory = {"key": "nvidia.com/gpu.memory", "operator": "Gt", "values": replace_list([f"{parts * mib - 1}"])}
required_nodes = predictor.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution

gpu_share = Trait(
    name="gpu-share",
    description="Gives each pod of a model a part of a GPU.",
    patches=INFERENCE_SERVICE,
    applies_to=[INFERENCE_SERVICE.type],
    conflicts_with=["gpu-share"],
    pod_disruptive=True,
    patch={
        "spec": {
            "predictor": {
                when(divides_equally): {
                    "model": comment(
                        "One of the equal parts that NVIDIA's device plugin makes of a GPU.",
                        {"resources": {"limits": {p.resourceName: 1}}},
                    ),
                    when(p.selectNodes): {
                        "nodeSelector": comment(
                            "Only nodes that divide their GPUs in just as many parts.",
                            {
                                "nvidia.com/gpu.sharing-strategy": p.mode,
                                "nvidia.com/gpu.replicas": f"{parts}",
                            },
                        ),
                        when(given(p.memory)): {
                            "affinity": comment(
                                "And whose GPUs have the memory for as many parts of this size (Gt is more than, so "
                                "one less is written).",
                                {
                                    "nodeAffinity": {
                                        "requiredDuringSchedulingIgnoredDuringExecution": {
                                            "nodeSelectorTerms": replace_list(
                                                [{"matchExpressions": replace_list([with_memory])}]
                                            )
                                        }
                                    }
                                },
                            )
                        },
                    },
                },
                when(p.mode == "mig"): {
                    "model": comment(
                        "A part that the hardware has cut off.",
                        {"resources": {"limits": {f"nvidia.com/mig-{mig_profile}": 1}}},
                    )
                },
                when(p.mode == "hami"): {
                    "model": comment(
                        "Project HAMi: a GPU of which memory and cores are limited.",
                        {
                            "resources": {
                                "limits": {
                                    "nvidia.com/gpu": 1,
                                    when(given(p.memory)): {"nvidia.com/gpumem": mib},
                                    otherwise(): {
                                        "nvidia.com/gpumem-percentage": percent,
                                        "nvidia.com/gpucores": percent,
                                    },
                                }
                            }
                        },
                    )
                },
                when(p.mode == "volcano"): {
                    "schedulerName": comment("Volcano's device plugin shares by its own scheduler.", "volcano"),
                    "model": {
                        "resources": {
                            "limits": {
                                "volcano.sh/vgpu-number": 1,
                                when(given(p.memory)): {"volcano.sh/vgpu-memory": mib},
                                otherwise(): {
                                    "volcano.sh/vgpu-memory-percentage": percent,
                                    "volcano.sh/vgpu-cores": percent,
                                },
                            }
                        }
                    },
                },
                when(p.mode == "kai"): {
                    "schedulerName": comment("KAI reads the part from an annotation of the pod.", "kai-scheduler"),
                    when(given(p.memory)): {"annotations": {"gpu-memory": f"{mib}"}},
                    when(given(p.fraction)): {"annotations": {"gpu-fraction": f"{p.fraction}"}},
                    when(given(p.queue)): {"labels": {"kai.scheduler/queue": p.queue}},
                },
                when(uses_dra): {
                    "resourceClaims": comment(
                        "A claim for each pod, made from the template beside the model.",
                        merge_by("name", [{"name": "gpu-share", "resourceClaimTemplateName": template_name}]),
                    ),
                    "model": {"resources": {"claims": merge_by("name", [{"name": "gpu-share"}])}},
                },
            }
        }
    },
    outputs={
        when(uses_dra): {
            DRA_OUTPUT: {
                "apiVersion": "resource.k8s.io/v1",
                "kind": "ResourceClaimTemplate",
                "metadata": {"name": template_name},
                "spec": {"spec": {"devices": {"requests": [device_request]}}},
            }
        }
    },
    checks=[
        not_a_model("gpu-share"),
        refuse(
            missing(predictor.model) & given(predictor.containers),
            "gpu-share works on servers that KServe knows, and this component has an image of its own: write what the "
            "nodes offer in resources.limits, such as nvidia.com/gpu.shared: 1",
        ),
        refuse(
            has_canary,
            "write gpu-share before canary: the new version copies what the component is at canary's turn",
        ),
        refuse(
            given(limits["nvidia.com/gpu"]),
            "gpu-share gives the part of a GPU itself: drop nvidia.com/gpu from the component's resources.limits (and "
            "write gpu-share once)",
        ),
        refuse(
            given(limits["nvidia.com/gpu.shared"]),
            "gpu-share gives the part of a GPU itself: drop nvidia.com/gpu.shared from the component's "
            "resources.limits, and write gpu-share once",
        ),
        refuse(
            given(context.outputs[DRA_OUTPUT]),
            "gpu-share stands here already, with mode: dra: write it once",
        ),
        refuse(
            given(predictor.schedulerName) & one_of(p.mode, "volcano", "kai"),
            f"gpu-share with mode: {p.mode} has a scheduler of its own: drop pod.schedulerName from the component (and "
            "write gpu-share once)",
        ),
        *(
            refuse(
                (p.isolation == "memory") & (p.mode == mode),
                f"isolation: memory can't be had with mode: {mode}, {why}: write mode: mps, hami, volcano, mig or dra",
            )
            for mode, why in NO_LIMIT.items()
        ),
        *(
            refuse(
                (p.isolation == "fault") & (p.mode == mode),
                f"isolation: fault can't be had with mode: {mode}, {why}: write mode: mig and gpu, or mode: dra",
            )
            for mode, why in NO_FAULT_LINE.items()
        ),
        refuse(
            uses_dra & p.shared & (p.isolation != "none"),
            f"isolation: {p.isolation} can't be had with shared, which counts the parts of a device and limits none: "
            "drop shared, and each pod has a device of its own",
        ),
        refuse(
            has_own_device & given(p.fraction) & missing(p.gpu),
            "gpu is missing: with mode: dra a fraction is a MIG profile, whose name depends on the GPU "
            f"({', '.join(MIG_PROFILES)}): write gpu, or memory in place of fraction, or shared: true",
        ),
        refuse(
            divides_equally & given(p.memory) & missing(p.gpu),
            f"gpu is missing: with mode: {p.mode} a GPU is divided in equal parts, and how many have {asked} depends "
            "on its memory: write gpu (t4, l4, a100-40gb ...), or use mode hami, volcano or kai",
        ),
        refuse(
            divides_equally & given(p.memory) & given(p.gpu) & (parts < 2),
            f"{asked} can't be had with mode: {p.mode} on {p.gpu}, which has {gpu_mib} MiB for two parts at least: "
            f"write {floor(gpu_mib / 2)}Mi or less, or ask for the whole GPU with the component's resources.limits "
            "nvidia.com/gpu: 1",
        ),
        refuse(
            divides_equally & given(p.memory) & p.selectNodes & given(required_nodes),
            "memory chooses nodes by nodeAffinity, and the component has one: write nvidia.com/gpu.memory, "
            "nvidia.com/gpu.replicas and nvidia.com/gpu.sharing-strategy into it, and selectNodes: false here",
        ),
        refuse(
            (divides_equally | (uses_dra & p.shared))
            & given(p.fraction)
            & ((sum_of_parts > 1.01) | (sum_of_parts < 0.99) | (parts < 2)),
            f"{asked} can't be had with mode: {p.mode}, which gives one of several equal parts: write "
            "0.5, 0.33, 0.25, 0.2, 0.125 or 0.1, or use mode hami, volcano or kai, which take any percent",
        ),
        refuse(
            (p.mode == "mps") & (parts > MOST_MPS),
            f"{asked} needs {parts} parts of a GPU, and MPS makes {MOST_MPS} at most: write more, or use mode "
            "time-slicing",
        ),
        refuse(
            takes_percents & given(p.fraction) & ((p.fraction * 100 < percent) | (p.fraction * 100 > percent)),
            f"{asked} can't be had with mode: {p.mode}, which takes whole percents: write 0.33 for a third",
        ),
        refuse(
            (p.mode == "mig") & missing(p.gpu),
            f"gpu is missing: with mode: mig the parts' names depend on the GPU ({', '.join(MIG_PROFILES)})",
        ),
        refuse(
            by_profile & given(p.gpu) & (most_mig_mib == 0),
            f"gpu: {p.gpu} can't be divided by MIG: write {', '.join(MIG_PROFILES)}, or another mode",
        ),
        refuse(
            by_profile & given(p.gpu) & given(p.fraction) & (mig_profile == ""),
            f"{asked} can't be had with mode: {p.mode} on {p.gpu}, whose parts are 0.5, 0.25 and, but for "
            "a30, 0.125 of its memory",
        ),
        refuse(
            by_profile & given(p.gpu) & given(p.memory) & (mig_profile == ""),
            f"{asked} can't be had with mode: {p.mode} on {p.gpu}, whose largest part has {most_mig_mib} MiB: write "
            f"{most_mig_mib}Mi or less, or ask for the whole GPU with the component's resources.limits "
            "nvidia.com/gpu: 1",
        ),
        refuse(
            (p.mode == "kai") & missing(p.queue),
            "queue is missing: the KAI scheduler runs pods of a queue only; name one that the cluster has",
        ),
        refuse(
            ~by_profile & ~(divides_equally & given(p.memory)) & given(p.gpu),
            "gpu belongs to mode: mig, to mode: dra without shared, and to memory with mode: mps or time-slicing; else "
            "choose nodes with the component's nodeSelector (nvidia.com/gpu.product)",
        ),
        refuse(
            ~uses_dra & (given(p.deviceClass) | p.shared),
            "deviceClass and shared belong to mode: dra: drop them, or write mode: dra",
        ),
        refuse((p.mode != "kai") & given(p.queue), "queue belongs to mode: kai: drop queue, or write mode: kai"),
        refuse(
            hides_the_gpu & image_depends_on_gpu & missing(predictor.model.runtimeVersion),
            "runtimeVersion of the component is missing: for this runtime KServe takes the image without GPU unless "
            "nvidia.com/gpu is asked for, so name the tag of the image with it (or use mode hami or mig)",
        ),
    ],
    # A trait sees no pods: what the scheduler says of them stands in the step check-model's message. Nor does a status
    # see defaults, so the mode may be unknown here.
    status=Status(
        message=cases(
            (
                given(context.outputs[DRA_OUTPUT].kind),
                "a device that DRA allocates; where none is left: kubectl get resourceclaims,resourceslices",
            ),
            (given(p.memory), f"{p.memory} of a GPU's memory; where no node offers it: velagen gpu config"),
            otherwise=f"{first_given(p.fraction, 0)} of a GPU; where no node offers it: velagen gpu config",
        )
    ),
)
