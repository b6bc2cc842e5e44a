"""The trait gpu-share: half a GPU becomes what Kubernetes and the nodes' sharing software understand.

Sources: NVIDIA k8s-device-plugin (sharing, renameByDefault) and gpu-feature-discovery (labels), NVIDIA MIG user guide
(profiles), Project-HAMi examples/nvidia, volcano-vgpu-device-plugin, KAI scheduler docs/gpu-sharing.
"""

from __future__ import annotations

from _kserve import CANARY_OUTPUT, INFERENCE_SERVICE, not_a_model

from velagen import (
    Status,
    Trait,
    choose,
    comment,
    context,
    first_given,
    floor,
    given,
    let,
    missing,
    one_of,
    refuse,
    when,
)
from velagen import parameter as p
from velagen.gpu.parts import MIG_PROFILES, MOST_MPS

predictor = context.output.spec.predictor
limits = predictor.model.resources.limits

divides_equally = one_of(p.mode, "time-slicing", "mps")
takes_percents = one_of(p.mode, "hami", "volcano")

shares = let(comment("Time-slicing and MPS give one of so many equal parts.", floor(1 / p.fraction + 0.5)))
sum_of_shares = let(
    comment("0.33 is meant as a third: the parts may miss the whole by one percent.", shares * p.fraction)
)
percent = let(comment("HAMi and Volcano take whole percents of the GPU.", floor(p.fraction * 100 + 0.5)))

#: By GPU and part of its memory, as "a30 0.25".
PROFILES = {f"{gpu} {part}": name for gpu, own in MIG_PROFILES.items() for part, name in own.items()}
gpu_and_part = let(comment("What the MIG profiles are found by.", f"{first_given(p.gpu, 'none')} {p.fraction}"))
mig_profile = let(
    comment(
        "The MIG profile with that part of the GPU's memory; empty where there is none.",
        choose(gpu_and_part, PROFILES, ""),
    )
)

#: pkg/utils, IsGPUEnabled; UpdateImageTag
hides_the_gpu = (divides_equally & (p.resourceName == "nvidia.com/gpu.shared")) | one_of(p.mode, "volcano", "kai")
image_depends_on_gpu = let(
    comment(
        "KServe takes the GPU build of these servers' images only where it finds nvidia.com/gpu or nvidia.com/mig-... "
        "in the limits, unless a tag is given.",
        choose(
            first_given(predictor.model.modelFormat.name, ""),
            dict.fromkeys(("vLLM", "huggingface", "tensorflow", "pytorch"), True),
            False,
        ),
    )
)

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
                                "nvidia.com/gpu.replicas": f"{shares}",
                            },
                        )
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
                                    "nvidia.com/gpumem-percentage": percent,
                                    "nvidia.com/gpucores": percent,
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
                                "volcano.sh/vgpu-memory-percentage": percent,
                                "volcano.sh/vgpu-cores": percent,
                            }
                        }
                    },
                },
                when(p.mode == "kai"): {
                    "schedulerName": comment("KAI reads the part from an annotation of the pod.", "kai-scheduler"),
                    "annotations": {"gpu-fraction": f"{p.fraction}"},
                    when(given(p.queue)): {"labels": {"kai.scheduler/queue": p.queue}},
                },
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
            given(context.outputs[CANARY_OUTPUT]),
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
            given(predictor.schedulerName) & one_of(p.mode, "volcano", "kai"),
            f"gpu-share with mode: {p.mode} has a scheduler of its own: drop pod.schedulerName from the component (and "
            "write gpu-share once)",
        ),
        refuse(
            divides_equally & ((sum_of_shares > 1.01) | (sum_of_shares < 0.99) | (shares < 2)),
            f"fraction: {p.fraction} can't be had with mode: {p.mode}, which divides a GPU in equal parts: write 0.5, "
            "0.33, 0.25, 0.2, 0.125 or 0.1, or use mode hami, volcano or kai, which take any percent",
        ),
        refuse(
            (p.mode == "mps") & (shares > MOST_MPS),
            f"fraction: {p.fraction} needs {shares} parts of a GPU, and MPS makes {MOST_MPS} at most: write a larger "
            "fraction, or use mode time-slicing",
        ),
        refuse(
            takes_percents & ((p.fraction * 100 < percent) | (p.fraction * 100 > percent)),
            f"fraction: {p.fraction} can't be had with mode: {p.mode}, which takes whole percents: write 0.33 for a "
            "third",
        ),
        refuse(
            (p.mode == "mig") & missing(p.gpu),
            "gpu is missing: with mode: mig the parts' names depend on the GPU (a30, a100-40gb, a100-80gb, h100-80gb, "
            "h200-141gb)",
        ),
        refuse(
            (p.mode == "mig") & given(p.gpu) & (mig_profile == ""),
            f"fraction: {p.fraction} can't be had with mode: mig on {p.gpu}, whose parts are 0.5, 0.25 and, but for "
            "a30, 0.125 of its memory",
        ),
        refuse(
            (p.mode == "kai") & missing(p.queue),
            "queue is missing: the KAI scheduler runs pods of a queue only; name one that the cluster has",
        ),
        refuse(
            (p.mode != "mig") & given(p.gpu),
            "gpu belongs to mode: mig; on other modes choose nodes with the component's nodeSelector "
            "(nvidia.com/gpu.product)",
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
    status=Status(message=f"{p.fraction} of a GPU; where no node offers it: velagen gpu config"),
)
