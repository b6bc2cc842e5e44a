"""The pod of each part of a model: what users write in ``pod``, beside what the component puts there itself.

Sources: KServe v0.20.0 pkg/controller/v1beta1/inferenceservice/components (each part takes a pod's spec field by field)
and utils/utils.go (a model's pod is merged into the ServingRuntime's, volumes by name, mounts by path),
config/runtimes; Kubernetes core/v1 PodSpec, Pod Security Standards.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from velagen import (
    choose,
    comment,
    each,
    first_given,
    given,
    length,
    let,
    matches,
    missing,
    optional,
    refuse,
    replace_pattern,
    replace_text,
    to_json,
    when,
)
from velagen import parameter as p
from velagen.schema.opened import PLAIN, json_pattern
from velagen.template.body import Refusal, When
from velagen.template.expression import Expression, Reference, Value

_SCHEMAS = Path(__file__).parents[1] / "schemas"
_FIELDS = json.loads((_SCHEMAS / "pod.json").read_text(encoding="utf-8"))["$defs"]
#: The names of what ``pod`` takes.
_POD = json.loads((_SCHEMAS / "kfserving.json").read_text(encoding="utf-8"))["$defs"]["pod"]["properties"]

#: What of ``pod`` is a word of ours, belongs to the container, or is added to: all else goes to KServe as it is.
_OURS = (
    "volumes",
    "volumeMounts",
    "sharedMemory",
    "spread",
    "sidecars",
    "labels",
    "annotations",
    "security",
    "containerSecurityContext",
)

#: The volume of /dev/shm is called as that of KServe's own runtimes (vllm, huggingface), with which it is merged.
SHM = "devshm"
SHM_PATH = "/dev/shm"
MODELS_PATH = "/mnt/models"
#: The model server's container, and the one of a transformer that stands beside it.
SERVER, COLLOCATED = "kserve-container", "transformer-container"

#: By KServe's name of each part: what its properties begin with, and where they are.
PARTS: dict[str, tuple[str, Reference]] = {
    "predictor": ("", p),
    "transformer": ("transformer.", p.transformer),
    "explainer": ("explainer.", p.explainer),
}

NODE_LABELS = {"zone": "topology.kubernetes.io/zone", "node": "kubernetes.io/hostname"}


parts_given = let(
    comment(
        "The parts that the model has: what their properties begin with, and where these are.",
        [
            {"part": "predictor", "at": "", "of": p},
            *(
                when(given(own), {"part": part, "at": at, "of": own})
                for part, (at, own) in PARTS.items()
                if part != "predictor"
            ),
        ],
    )
)
pods_given = let(
    comment(
        "What users pass on to Kubernetes, by part.",
        [
            each(
                parts_given,
                lambda one: {
                    "part": one.part,
                    "at": f"{one.at}pod.",
                    "pod": one.of.pod,
                    "runsAs": given(one.of.runAsUser),
                },
                where=lambda one: given(one.of.pod),
            )
        ],
    )
)


def _made(one: Reference) -> Value:
    """What becomes of a part's ``pod``: fields of the pod's spec; volumes; where its container sees them."""
    pod = one.pod
    return {
        "spec": {
            each(pod, where=lambda name, _: ~matches(name, f"^({'|'.join(_OURS)})$")): lambda name, value: {
                name: value
            },
        },
        when(given(pod.spread)): {
            "spread": comment(
                "Among the pods of the same part and version: of the labels in matchLabelKeys each pod's own value "
                "counts.",
                [
                    {
                        "maxSkew": 1,
                        "topologyKey": choose(pod.spread, NODE_LABELS),
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchExpressions": [{"key": "component", "operator": "Exists"}]},
                        "matchLabelKeys": ["app", "pod-template-hash"],
                    }
                ],
            )
        },
        when(given(pod.volumes) | given(pod.sharedMemory)): {
            "volumes": [
                each(pod.volumes, lambda volume: volume),
                when(
                    given(pod.sharedMemory),
                    {"name": SHM, "emptyDir": {"medium": "Memory", "sizeLimit": pod.sharedMemory}},
                ),
            ]
        },
        when(given(pod.volumeMounts) | given(pod.sharedMemory)): {
            "mounts": [
                each(pod.volumeMounts, lambda mount: mount),
                when(given(pod.sharedMemory), {"name": SHM, "mountPath": SHM_PATH}),
            ]
        },
        when(given(pod.security) & (pod.security != "restricted")): {
            "security": comment(
                "runtime: the pod keeps what its images say. Without this it runs as restricted asks.", pod.security
            )
        },
    }


pods_made = let(
    comment(
        "What becomes of pod, by part: what goes into the pod's spec as it is, and what is put together with ours.",
        {each(pods_given): lambda _, one: {one.part: _made(one)}},
    )
)


def spec_of(part: str) -> dict[object, Value]:
    """What of ``pod`` goes into a part's pod spec as it is."""
    made = pods_made[part]
    return {
        when(given(made)): {each(made.spec): lambda name, value: {name: value}},
        **_listed("topologySpreadConstraints", made.spread, None, None),
    }


def volumes(part: str, *, own: When | None = None, is_made: Expression | None = None) -> dict[object, Value]:
    """The pod's volumes; *own* is one of the component's, which is there where *is_made*."""
    return _listed("volumes", pods_made[part].volumes, own, is_made)


def mounts(part: str, *, own: When | None = None, is_made: Expression | None = None) -> dict[object, Value]:
    """Where the container sees the volumes."""
    return _listed("volumeMounts", pods_made[part].mounts, own, is_made)


def _listed(field: str, made: Reference, own: When | None, is_made: Expression | None) -> dict[object, Value]:
    if own is None or is_made is None:
        return {field: optional(made)}
    return {when(given(made) | is_made): {field: [each(made, lambda one: one), own]}}


def labels(part: str, field: str, still: Reference) -> dict[object, Value]:
    """The pods' labels, or annotations: KubeVela's own made still, and the user's."""
    own = PARTS[part][1].pod[field]
    return {field: still, when(given(own)): {field: {each(own): lambda key, value: {key: value}}}}


def is_restricted(part: str | Reference) -> Expression:
    """Whether the pods run under Pod Security restricted, as far as it is in the component's hand."""
    return missing(pods_made[part].security)


# What is refused ----------------------------------------------------------------------------------------------------


#: What the JSON of a container's envFrom looks like, made plain.
_ENV_FROM = json_pattern(_FIELDS["envFrom"])[1:-1]
#: Fields with a sentence of their own.
_JUDGED = ("sharedMemory", "spread", "security")


def _patterns() -> dict[str, str]:
    """By field of ``pod``: what its JSON looks like, made plain."""
    ours = dict.fromkeys(_JUDGED, ".*")
    names = sorted({*_POD} & {*_FIELDS} - {"sidecars"})
    free = {"type": "object", "additionalProperties": {"type": "string"}}
    ours |= dict.fromkeys(("labels", "annotations"), json_pattern(free)[1:-1])
    return {name: json_pattern(_usual(name))[1:-1] for name in names} | ours


#: Kinds of volume that are read to the bottom; of the others, most of them gone from Kubernetes, the name alone.
_USUAL = (
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "hostPath",
    "nfs",
    "persistentVolumeClaim",
    "projected",
    "secret",
)


def _usual(field: str) -> dict[str, Any]:
    schema: dict[str, Any] = _FIELDS[field]
    if field != "volumes":
        return schema
    kinds = schema["items"]["properties"]
    read = {name: one if name in (*_USUAL, "name") else {"type": "object"} for name, one in kinds.items()}
    return {**schema, "items": {**schema["items"], "properties": read}}


pod_fields = let(
    comment(
        "What Kubernetes has in each field, as a pattern over the value's JSON in which <NAME> is a key and s a text: "
        "the API server drops a field that it does not know without a word.",
        _patterns(),
    )
)


def _plain(value: Value) -> Expression:
    text: Expression = to_json(value)
    for pattern, new in PLAIN:
        text = replace_pattern(text, pattern, new)
    return text


def _refused(one: Reference) -> Value:
    """The sentences about one part's pod."""
    pod, at = one.pod, one.at
    own_volumes = [each(pod.volumes, lambda volume: volume, where=lambda volume: first_given(volume.name, "") == SHM)]
    own_servers = [each(pod.sidecars, lambda one: one, where=lambda one: first_given(one.name, "") == SERVER)]
    return [
        each(
            pod,
            lambda name, _: (
                f"{at}{name} is not a field of a pod, or holds one that Kubernetes does not have there, or a "
                "value of another type: velagen check says which"
            ),
            where=lambda name, value: (
                ~matches(
                    _plain(value),
                    f"^(?:{first_given(pod_fields[replace_text(name, 'sidecars', 'initContainers')], '-')})$",
                )
            ),
        ),
        when(
            given(pod.sharedMemory) & ~matches(to_json(pod.sharedMemory), '^"[0-9]+([.][0-9]+)?[kMGT]i?"$'),
            f"{at}sharedMemory must be an amount of memory with a unit of Kubernetes, such as 8Gi",
        ),
        when(
            ~matches(to_json(first_given(pod.spread, "zone")), '^"(zone|node)"$'),
            f"{at}spread must be zone or node; for a rule of your own write {at}topologySpreadConstraints",
        ),
        when(
            ~matches(to_json(first_given(pod.security, "runtime")), '^"(restricted|runtime)"$'),
            f"{at}security must be restricted or runtime; for fields of your own write {at}securityContext and "
            f"{at}containerSecurityContext",
        ),
        when(
            given(pod.spread) & given(pod.topologySpreadConstraints),
            f"{at}spread and {at}topologySpreadConstraints set the same field: keep one of them",
        ),
        when(
            given(pod.sharedMemory) & (length(own_volumes) > 0),
            f"{at}sharedMemory makes the volume {SHM}, mounted at {SHM_PATH}: drop the volume of that name, or "
            "sharedMemory",
        ),
        when(
            given(pod.containerSecurityContext) & one.runsAs,
            f"{at}containerSecurityContext sets the container's user, and runAsUser does: write it in the former",
        ),
        when(
            length(own_servers) > 0,
            f"{at}sidecars may not hold {SERVER}, which is the part's own container: give it another name",
        ),
    ]


pods_refused = let(comment("What is wrong with each pod, all of it.", [each(pods_given, _refused)]))
pod_refused = let(
    comment(
        "The first of each, and what envFrom of a container may not hold.",
        [
            each(pods_refused, lambda found: found[0], where=lambda found: length(found) > 0),
            each(
                parts_given,
                lambda one: (
                    f"{one.at}envFrom holds a field that Kubernetes does not have there, or a value of another type: "
                    "velagen check says which"
                ),
                where=lambda one: given(one.of.envFrom) & ~matches(_plain(one.of.envFrom), f"^(?:{_ENV_FROM})$"),
            ),
        ],
    )
)


def pod_checks() -> list[Refusal]:
    """What pods may not hold."""
    return [
        refuse(length(pod_refused) > 0, f"{pod_refused[0]}"),
        refuse(
            given(p.nodeSelector) & given(p.pod.nodeSelector),
            "nodeSelector and pod.nodeSelector set the same field: keep one of them",
        ),
        refuse(
            given(p.tolerations) & given(p.pod.tolerations),
            "tolerations and pod.tolerations set the same field: keep one of them",
        ),
    ]
