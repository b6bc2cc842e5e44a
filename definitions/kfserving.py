"""The component kfserving: a model that KServe serves.

Sources: KServe v0.20.0 config/runtimes/*.yaml (ports, protocols, flags), pkg/apis/serving/v1beta1 (fields, what the
webhook refuses), pkg/controller/v1beta1/inferenceservice/utils/utils.go (how a runtime and a model are merged: flags
are appended, command and probes replaced).
"""

from __future__ import annotations

from _builtin_traits import INSTEAD_OF, NO_TEMPLATE
from _flags import flags_taken
from _kserve import (
    DEPLOYMENT_MODE,
    HTTP_PORT,
    INFERENCE_SERVICE,
    MODES,
    STOP,
    argument,
    is_rendered,
    longest_name,
    script,
)
from _pod import (
    COLLOCATED,
    MODELS_PATH,
    PARTS,
    SERVER,
    is_restricted,
    labels,
    mounts,
    parts_given,
    pod_checks,
    pods_made,
    spec_of,
    volumes,
)
from _runtimes import (
    GRPC_PORTS,
    GRPC_PREFIXES,
    GRPC_VERSIONS,
    METRICS_PORTS,
    MODEL_FORMATS,
    NAME_FLAGS,
    REST_VERSIONS,
    SERVING_RUNTIMES,
)

from velagen import (
    Component,
    Status,
    cases,
    choose,
    comment,
    concat,
    conditions,
    contains,
    contains_text,
    context,
    div,
    each,
    first_given,
    given,
    if_else,
    join,
    length,
    let,
    matches,
    maximum,
    missing,
    never,
    one_of,
    optional,
    refuse,
    replace_pattern,
    to_json,
    trim_suffix,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Reference, Value

# What is known of each runtime ------------------------------------------------------------------------------------

family = let(
    comment(
        "The runtime; other for a servingRuntime alone or an image of one's own, of which nothing is known but its "
        "name.",
        first_given(p.runtime, "other"),
    )
)
runtime_name = let(
    comment(
        "The ServingRuntime is named: KServe's own choice may change with what is installed, and its paths and flags "
        "with it.",
        first_given(p.servingRuntime, choose(family, SERVING_RUNTIMES, "")),
    )
)
own_format = choose(family, MODEL_FORMATS, family)
format_name = let(
    comment(
        "What KServe calls the format, where it is not the runtime's name.", first_given(p.modelFormat.name, own_format)
    )
)
location = let(
    comment("Empty with models, and where an image of one's own has the model in it.", first_given(p.modelUri, ""))
)
served_name = let(comment("The name clients call the model by.", first_given(p.modelName, context.name)))

is_triton = one_of(family, "triton", "onnx")
#: gRPC alone; with both, everything but the ports is as for REST.
is_grpc = let(p.protocol == "grpc")
is_both = p.protocol == "both"
is_knative = let(p.deploymentMode == "knative")

protocol_used = let(
    comment(
        "v1 or v2, as asked for or as the runtime speaks it.",
        cases(
            (given(p.protocolVersion), p.protocolVersion),
            (is_grpc, choose(family, GRPC_VERSIONS, "v2")),
            otherwise=choose(family, REST_VERSIONS, "v2"),
        ),
    )
)
grpc_prefix = choose(family, GRPC_PREFIXES, "grpc-")
kserve_version = let(
    comment(
        "protocolUsed as this ServingRuntime lists it: gRPC is grpc-v2 on most, v2 on the others.",
        if_else(is_grpc, f"{grpc_prefix}{protocol_used}", protocol_used),
    )
)
grpc_port = choose(family, GRPC_PORTS, 9000)

# Readiness and warm-up --------------------------------------------------------------------------------------------

ready_path = let(
    comment(
        "Answers 200 once the model is loaded, and not before; /v2/health/ready covers all models of the server.",
        cases(
            (given(p.readiness.path), p.readiness.path),
            (protocol_used != "v2", f"/v1/models/{served_name}"),
            # A name with / can't stand in a path, and the server has only one model.
            (
                contains_text(served_name, "/") | (is_triton & missing(p.modelName)) | given(p.models),
                "/v2/health/ready",
            ),
            otherwise=f"/v2/models/{served_name}/ready",
        ),
    )
)
ready_url = f"http://localhost:{HTTP_PORT}{ready_path}"
infer_path = let(
    comment(
        "Where warm-up sends the sample.",
        if_else(protocol_used == "v2", f"/v2/models/{served_name}/infer", f"/v1/models/{served_name}:predict"),
    )
)
probe_period = let(first_given(p.readiness.periodSeconds, 5))

#: Knative's queue-proxy asks a httpGet probe of the port that traffic goes to, which is not an HTTP port with gRPC
#: (serving pkg/reconciler/revision/resources/queue.go); it leaves an exec probe to the kubelet.
readiness_probe = {
    when(~(is_grpc & is_knative)): {"httpGet": {"path": ready_path, "port": HTTP_PORT}},
    when(is_grpc & is_knative & (family != "tensorflow")): {
        "exec": comment(
            "Knative's proxy would ask a httpGet probe on the port that traffic goes to, which is gRPC's.",
            {
                "command": [
                    "python3",
                    "-c",
                    "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=4)",
                    argument(ready_url),
                ]
            },
        )
    },
    when(is_grpc & is_knative & (family == "tensorflow")): {
        "tcpSocket": comment(
            "TensorFlow Serving's image comes without Python; it opens its port once the model is loaded.",
            {"port": 9000},
        )
    },
    "periodSeconds": probe_period,
    "timeoutSeconds": 5,
    "failureThreshold": 3,
    "successThreshold": 1,
}

WARMUP_PERIOD = 10
startup_probe = {
    "exec": {
        "command": [
            "python3",
            "-c",
            script("warmup.py"),
            argument(ready_url),
            f"http://localhost:{HTTP_PORT}{infer_path}",
            f"{p.warmup.requests}",
            argument(to_json(p.warmup.sample)),
        ]
    },
    "periodSeconds": WARMUP_PERIOD,
    "timeoutSeconds": p.warmup.timeoutSeconds,
    "failureThreshold": div(p.warmup.startupSeconds, WARMUP_PERIOD),
    "successThreshold": 1,
}

# The end of a pod -------------------------------------------------------------------------------------------------

#: Seconds for which a pod that is to end goes on answering. Kubernetes tells the server and the gateways at the same
#: moment; a server stops listening at once, and a gateway, or kube-proxy, sends requests until it has heard. A command
#: and not Kubernetes' own sleep, which clusters before 1.30 refuse. An image that has no `sleep` ends as it would
#: without. Knative's queue-proxy drains by itself, and Knative refuses the field.
DRAIN = 10
lifecycle: dict[object, Value] = {
    when(~is_knative): {
        "lifecycle": comment(
            "A pod that is to end goes on answering until gateways and kube-proxy have heard of it.",
            {"preStop": {"exec": {"command": ["sleep", f"{DRAIN}"]}}},
        )
    }
}


def grace(own: Reference) -> dict[object, Value]:
    """What Kubernetes gives by itself, and the time above: requests under way have as long as ever."""
    return {
        when(~is_knative & missing(own.pod.terminationGracePeriodSeconds)): {
            "terminationGracePeriodSeconds": comment(
                "Kubernetes' own 30, and the 10 for which a container that is to end goes on answering (its preStop).",
                30 + DRAIN,
            )
        }
    }


# Flags and environment --------------------------------------------------------------------------------------------

#: The last of two equal flags wins in all of these servers.
name_flag = let(
    comment(
        "The flag that names the model. It is always written: two versions of a service must answer under one name, "
        "and KServe's runtimes take the InferenceService's.",
        choose(family, NAME_FLAGS, ""),
    )
)

#: MLServer's adaptive batching: pkg mlserver/settings.py, ModelSettings, by environment; the time is in seconds.
largest_batch = first_given(p.dynamicBatching.maxBatchSize, maximum(p.dynamicBatching.preferredBatchSizes))
batches_here = given(p.dynamicBatching) & (family == "mlflow")
model_env = [
    when(family == "mlflow", {"name": "MLSERVER_MODEL_NAME", "value": served_name}),
    when(batches_here, {"name": "MLSERVER_MODEL_MAX_BATCH_SIZE", "value": f"{largest_batch}"}),
    when(
        batches_here,
        {
            "name": "MLSERVER_MODEL_MAX_BATCH_TIME",
            "value": f"{p.dynamicBatching.maxQueueDelayMicroseconds / 1000000}",
        },
    ),
    each(p.env, lambda variable: variable),
]

#: Triton has no flag that changes a model's configuration as it is loaded, and what KServe mounts at /mnt/models is
#: read-only and filled after a user's init containers. So the command becomes a small program that links the
#: repository into an emptyDir, with dynamic_batching merged into each config.pbtxt, and becomes the runtime's own
#: command, which KServe still appends as arguments. The settings stand in the command: a change rolls the pods.
TRITON_LINKS = "/mnt/batching-models"
LINKS = "batching-models"
is_batching = is_triton & given(p.dynamicBatching)
#: The same where nothing of dynamicBatching is written.
batches = let(
    comment("Whether Triton's program needs a volume, for its links to the models (see command below).", is_batching)
)
triton_settings = {
    "preferred_batch_size": p.dynamicBatching.preferredBatchSizes,
    "max_queue_delay_microseconds": p.dynamicBatching.maxQueueDelayMicroseconds,
    "max_batch_size": optional(p.dynamicBatching.maxBatchSize),
}

#: MLServer finds each model by a model-settings.json, and takes the name that stands there, or for lack of one the
#: name of the whole service: see the program.
names_models = given(p.models) & (family == "mlflow")

#: Servers that serve what lies in a folder of folders. KServe starts them without a model where it sees none: it looks
#: for storageUri and storage, and not for storageUris (pkg/apis/serving/v1beta1/inference_service_defaults.go,
#: SetTritonDefaults and SetMlServerDefaults, which its controller calls).
is_of_several = matches(family, "^(triton|onnx|mlflow)$")
places = let(
    comment(
        "What KServe brings where, if it is more than one place: beside the model artifacts, or several models, a "
        "folder each.",
        [
            when(given(p.artifacts), {"uri": location, "mountPath": MODELS_PATH}),
            each(p.artifacts, lambda one: {"uri": one.uri, "mountPath": one.path}),
            each(
                p.models,
                lambda one: {"uri": one.uri, "mountPath": f"{MODELS_PATH}/{one.name}"},
                where=lambda one: given(one.uri) & given(one.name),
            ),
        ],
    )
)

flags = flags_taken(family)
#: kubernetes/kserve/dockerd-entrypoint.sh: eval "$@"
shell_words = let(
    comment(
        "Arguments that a shell would read otherwise: TorchServe's image gives them to one.",
        [each(p.args, lambda arg: arg, where=lambda arg: ~matches(arg, "^[-A-Za-z0-9_=./:,@%+]*$"))],
    )
)

#: KServe parses the model server's container, as JSON, as a Go template and fills it in with the InferenceService's
#: metadata (ReplacePlaceholders, pkg/controller/v1beta1/inferenceservice/utils); of a transformer and an explainer it
#: does not. What else of a user's stands in the container has a pattern without braces.
BRACES = "[{][{]"
taken_for_templates = let(
    comment(
        "Properties with {{, which KServe takes for a template of its own.",
        [
            when(given(p.args) & matches(to_json(p.args), BRACES), "args"),
            when(given(p.env) & matches(to_json(p.env), BRACES), "env"),
            when(given(p.resources) & matches(to_json(p.resources), BRACES), "resources"),
            when(given(p.warmup) & matches(to_json(p.warmup), BRACES), "warmup.sample"),
        ],
    )
)


def container_resources(resources: Reference) -> Value:
    """Requests and limits, copied field by field so that a trait may add to them.

    KServe merges them into its own (the runtimes' and, for other containers, inferenceservice-config's: 1 CPU and 2Gi,
    requested and at most), where a limit below the request is refused by Kubernetes. So what is given for one of the
    two holds for the other too; of devices Kubernetes takes nothing else. The CRD takes no fraction that is a number,
    so amounts become texts; devices, whose names have a prefix, stay as they are.
    """
    requests, limits = resources.requests, resources.limits

    def amounts(own: Reference, other: Reference) -> Value:
        return {
            when(given(own)): {
                each(own): lambda name, amount: {name: if_else(is_device(name), amount, f"{amount}")},
            },
            when(given(other.cpu) & missing(own.cpu)): {"cpu": f"{other.cpu}"},
            when(given(other.memory) & missing(own.memory)): {"memory": f"{other.memory}"},
        }

    def is_device(name: Expression) -> Expression:
        return contains_text(name, "/")

    return {
        "requests": amounts(requests, limits),
        "limits": amounts(limits, requests),
        when(given(requests)): {
            "limits": {
                each(requests, where=lambda name, _: is_device(name) & missing(limits[name])): lambda name, amount: {
                    name: amount
                }
            }
        },
    }


resources_given = let(
    comment(
        "The parts that have resources.",
        [
            each(
                parts_given,
                lambda one: {"part": one.part, "at": one.at, "of": one.of.resources},
                where=lambda one: given(one.of.resources),
            )
        ],
    )
)
resources_made = let(
    comment(
        "Requests and limits by part. KServe has some of its own, so what is given for one of the two holds for both; "
        "its CRD takes no fraction that is a number, so amounts become texts, and devices (a name with /) stay as "
        "they are.",
        {each(resources_given): lambda _, one: {one.part: container_resources(one.of)}},
    )
)


#: KServe copies the InferenceService's labels and annotations to the pods' template, where the component's own win
#: (pkg/controller/v1beta1/inferenceservice/components/predictor.go, buildObjectMeta). These are KubeVela's, and change
#: when it applies the same object again, with any other edit of the application, and with KubeVela's version: every pod
#: would be replaced each time, and its model loaded anew.
_STILL_ANNOTATIONS = (
    "app.oam.dev/last-applied-configuration",
    "app.oam.dev/last-applied-time",
    "oam.dev/kubevela-version",
)
_STILL_LABELS = ("app.oam.dev/appRevision", "app.oam.dev/app-revision-hash", "oam.dev/render-hash")
still_labels = let(
    comment(
        "Empty here and in the annotations: KServe copies KubeVela's own to the pods, where these win. They change "
        "with every edit of the application, and each time all pods would be replaced.",
        dict.fromkeys(_STILL_LABELS, ""),
    )
)
still_annotations = let(dict.fromkeys(_STILL_ANNOTATIONS, ""))


# Whom the containers run as ------------------------------------------------------------------------------------------
#
# A namespace with pod-security.kubernetes.io/enforce: restricted takes a pod whose containers all have seccompProfile,
# runAsNonRoot, no way to more privileges and no capabilities (Kubernetes Pod Security Standards). KServe's runtimes
# have all but the first (config/runtimes/*.yaml); vLLM's, whose image is root's, lacks runAsNonRoot too.

SECCOMP = {"seccompProfile": {"type": "RuntimeDefault"}}


def pod_security(part: str) -> dict[object, Value]:
    """For the pod: a container's own comes before it, and storage-initializer and KServe's agent have it too.

    Knative takes seccomp's for a container alone (serving pkg/apis/serving/fieldmask.go, PodSecurityContextMask).
    """
    _, own = PARTS[part]
    return {
        when(~is_knative & missing(own.pod.securityContext) & is_restricted(part)): {"securityContext": SECCOMP},
    }


def security(is_root: Value) -> Value:
    """What a container may do: what restricted asks for, unless its user wants it to be root."""
    return {
        "runAsNonRoot": ~is_root,
        when(~is_root): {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        when(is_knative): SECCOMP,
    }


#: Without runAsUser the runtime's own stands, of which we know nothing where it is not one of KServe's.
model_security = {
    when(given(p.pod.containerSecurityContext)): {"securityContext": p.pod.containerSecurityContext},
    when(given(p.runAsUser)): {
        "securityContext": {
            "runAsUser": p.runAsUser,
            when(is_restricted("predictor")): security(p.runAsUser == 0),
        }
    },
    when(
        missing(p.runAsUser)
        & missing(p.pod.containerSecurityContext)
        & is_knative
        & (family != "other")
        & is_restricted("predictor")
    ): {"securityContext": SECCOMP},
}


# A server of one's own, and a transformer in its pod ----------------------------------------------------------------

has_image = given(p.image)
is_collocated = let(first_given(p.transformer.collocated, False))


def runs_apart(own: Reference) -> Expression:
    """Whether a transformer or explainer has pods of its own; of an explainer all else is refused (`apart`)."""
    return given(own) & ~(given(own.collocated) & own.collocated)


#: Where a transformer in the model's pod listens: 8080 and 8081 are the model server's. KServe's Service leads to the
#: first port of the container of its name (reconcilers/service/service_reconciler.go, createDefaultSvc).
COLLOCATED_PORT, COLLOCATED_GRPC_PORT = 8090, 8091
own_port = first_given(p.port, HTTP_PORT)


def _companion_wanted(one: Reference) -> Value:
    """KServe adds --predictor_host and --http_port, and --model_name unless it is there."""
    own = one.of
    return {
        "place": one.part,
        "name": SERVER,
        "of": own,
        "part": one.part,
        "pod": one.part,
        "flags": ["--model_name", served_name],
        "variables": [
            when(
                given(own.artifactsUri),
                {"name": comment("KServe downloads what it names.", "STORAGE_URI"), "value": own.artifactsUri},
            )
        ],
        "port": HTTP_PORT,
        "readyPath": optional(own.readinessPath),
        "every": 5,
    }


#: pkg/apis/serving/v1beta1/*_custom.go, GetStorageUri and GetProtocol: KServe reads the model's place and the protocol
#: from the environment. It adds no flags to a transformer in the model's pod.
containers_wanted = let(
    comment(
        "Containers of users' images: whose properties they have, in whose pod they are, and what only they have.",
        [
            when(
                has_image,
                {
                    "place": "server",
                    "name": SERVER,
                    "of": p,
                    "part": "predictor",
                    "pod": "predictor",
                    "flags": [],
                    "variables": [
                        when(given(p.modelUri) & missing(p.artifacts), {"name": "STORAGE_URI", "value": p.modelUri}),
                        when(given(p.protocolVersion), {"name": "PROTOCOL", "value": p.protocolVersion}),
                    ],
                    "port": own_port,
                    "readyPath": optional(p.readiness.path),
                    "every": probe_period,
                },
            ),
            when(
                given(p.transformer) & is_collocated,
                {
                    "place": "collocated",
                    "name": COLLOCATED,
                    "of": p.transformer,
                    "part": "transformer",
                    "pod": "predictor",
                    "flags": [
                        *("--model_name", served_name, "--predictor_host", f"localhost:{own_port}"),
                        *("--http_port", f"{COLLOCATED_PORT}", "--grpc_port", f"{COLLOCATED_GRPC_PORT}"),
                    ],
                    "variables": [],
                    "port": COLLOCATED_PORT,
                    "readyPath": optional(p.transformer.readinessPath),
                    "every": 5,
                },
            ),
            each(
                parts_given,
                _companion_wanted,
                where=lambda one: (one.part != "predictor") & ~first_given(one.of.collocated, False),
            ),
        ],
    )
)


def _container(one: Reference) -> dict[object, Value]:
    own, restricted = one.of, is_restricted(one.pod)
    context_given = own.pod.containerSecurityContext
    return {
        "name": one.name,
        "image": optional(own.image),
        "command": optional(own.command),
        when(given(own.args) | (length(one.flags) > 0)): {
            "args": [each(own.args, lambda arg: arg), each(one.flags, lambda flag: flag)]
        },
        when(given(own.env) | (length(one.variables) > 0)): {
            "env": [each(own.env, lambda variable: variable), each(one.variables, lambda variable: variable)]
        },
        "envFrom": optional(own.envFrom),
        "volumeMounts": optional(pods_made[one.part].mounts),
        "resources": optional(resources_made[one.part]),
        when(given(context_given)): {"securityContext": context_given},
        when(missing(context_given) & (given(own.runAsUser) | restricted)): {
            "securityContext": comment(
                "What Pod Security restricted asks for, but for what its user wrote; Knative takes seccomp's here "
                "alone.",
                {
                    "runAsUser": optional(own.runAsUser),
                    when(restricted): security(first_given(own.runAsUser, 1) == 0),
                },
            )
        },
        when(one.place == "server"): {
            when(given(p.port) | is_grpc): {
                "ports": [{when(is_grpc): {"name": "h2c"}, "containerPort": own_port, "protocol": "TCP"}]
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
        },
        when(one.place == "collocated"): {"ports": [{"containerPort": COLLOCATED_PORT, "protocol": "TCP"}]},
        **lifecycle,
        when(given(one.readyPath)): {
            "readinessProbe": {
                "httpGet": {"path": one.readyPath, "port": one.port},
                "periodSeconds": one.every,
                "timeoutSeconds": 5,
                "failureThreshold": 3,
                "successThreshold": 1,
            }
        },
    }


containers_made = let(
    comment(
        "These containers, by where they stand: server, collocated, transformer, explainer.",
        {each(containers_wanted): lambda _, one: {one.place: _container(one)}},
    )
)


def companion(part: str) -> Value:
    """A transformer or explainer: KServe adds --predictor_host and --http_port, and --model_name unless it is there."""
    _, own = PARTS[part]
    return {
        "minReplicas": optional(own.minReplicas),
        "maxReplicas": optional(own.maxReplicas),
        "scaleMetric": optional(own.scaleMetric),
        "scaleTarget": optional(own.scaleTarget),
        "logger": optional(own.logger),
        **labels(part, "labels", still_labels),
        **labels(part, "annotations", still_annotations),
        **volumes(part),
        **spec_of(part),
        **grace(own),
        **pod_security(part),
        when(given(p.serviceAccount)): {"serviceAccountName": p.serviceAccount},
        "containers": [
            when(given(containers_made[part]), containers_made[part]),
            each(own.pod.sidecars, lambda container: container),
        ],
    }


# The length of a name ---------------------------------------------------------------------------------------------

longest_part = let(
    comment(
        "KServe and Knative put a part's name behind the component's: with the longest, and what else stands around it "
        "(isvc. in a label, the namespace in a host), it has to fit 63 characters.",
        if_else(given(p.transformer) & ~is_collocated, "transformer", "predictor"),
    )
)
named = f"{context.name}-{longest_part}"
#: Knative's Service is a Kubernetes name of one part; its host has the namespace in another part.
most_characters = let(if_else(is_knative, 63 - len("-") - length(longest_part), longest_name(longest_part)))
longest_made = if_else(
    is_knative,
    f"Knative's Service {named}",
    f"KServe's host name {named}-{context.namespace} and label isvc.{named}",
)

# The rest of an InferenceService -----------------------------------------------------------------------------------

is_stopped = given(p.stopped) & p.stopped
#: Kubernetes apps/v1 DeploymentStrategy.
ROLLOUTS = {
    "surge": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
    "in-place": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
    "recreate": {"type": "Recreate"},
}
#: KServe's own list (pkg/controller/v1beta1/inferenceservice/utils/utils.go, SupportedStorageURIPrefixList).
SCHEMES = "^(s3|gs|hf|oci|oci[+]native|pvc|https?|hdfs|webhdfs|file)://"

# Status -----------------------------------------------------------------------------------------------------------

observed = context.output.status
conditions_seen = let(first_given(observed.conditions, []))
ready_conditions = let(conditions(conditions_seen, "Ready", "True"))


def failed_of(types: str) -> Expression:
    """What KServe says of the conditions that are False and of these types (RE2)."""
    return conditions(
        conditions_seen,
        status="False",
        matching=types,
        give=lambda condition: f"{condition.type}: {first_given(condition.message, condition.reason, '')}",
    )


#: Stopped is False while all is well. IngressReady and Ready follow from the others, and say less.
failed_conditions = let(
    comment(
        "The parts' first: the others follow from these, and say less.",
        concat(failed_of("^(Predictor|Transformer|Explainer)Ready$"), failed_of("Ready$")),
    )
)
#: What the details show as well, where KubeVela allows no intermediates (pkg/definition/ast/transformer.go).
transition_seen = first_given(observed.modelStatus.transitionStatus, "UpToDate")
state_seen = first_given(
    observed.modelStatus.states.targetModelState, observed.modelStatus.states.activeModelState, "Unknown"
)
url_seen = first_given(observed.url, observed.address.url, "")
#: What the storage initializer ends with (KServe python/storage-initializer/scripts/initializer-entrypoint).
FETCHING = "torage initialization(?: failed)?: "
#: The end of what a container wrote, which says the cause last; it may have eighty lines.
log_seen = first_given(observed.modelStatus.lastFailureInfo.message, "")


def reason_in(text: Value) -> Expression:
    """The last line of what a container wrote, without what the storage initializer begins it with."""
    return replace_pattern(replace_pattern(trim_suffix(text, "\n"), r"^(?s:.*)\n", ""), f"^.*{FETCHING}", "")


failure_seen = first_given(f"{observed.modelStatus.lastFailureInfo.reason}: {reason_in(log_seen)}", "")
#: A model that is Ready and has no pod (minReplicas 0, nobody asks) is Pending for KServe, as one that has none yet is.
settled = matches(first_given(observed.modelStatus.states.targetModelState, "Loaded"), "^(Loaded|Pending)$")
#: The message comes after the details and the verdict, and is given both.
seen = context.status.details
url, failure, model_state = seen.url, seen.failure, seen.modelState
#: Knative: a new revision that is made and not ready yet must not pass for the old one that is.
revision_created = let(first_given(observed.components.predictor.latestCreatedRevision, ""))
revision_ready = let(first_given(observed.components.predictor.latestReadyRevision, revision_created))
#: Standard mode: old replicas answer and new ones are not all there yet. KServe 0.20 counts that as Ready, with the
#: Deployment's reason (pkg/apis/serving/v1beta1/inference_service_status.go, PropagateRawStatus), which is
#: NewReplicaSetAvailable once all are; scaling leaves it so.
rolling_out = let(
    comment(
        "KServe 0.20 counts a Deployment as ready while old pods answer and new ones come; this is its reason until "
        "then.",
        conditions(conditions_seen, "PredictorReady", "True", reason="MinimumReplicasAvailable"),
    )
)
#: KServe's Ready follows from the predictor and the route, and the route follows from these only where KServe makes it
#: (pkg/apis/serving/v1beta1/inference_service_status.go, conditionSet; reconcilers/ingress).
companions_failed = let(failed_of("^(Transformer|Explainer)Ready$"))
#: Knative: the revision that is ready gets a pod, its first again or one more. KServe looks at one pod, and calls the
#: model Loading while that one fetches it, whatever the others do (PropagateModelStatus in the same file).
starts_a_pod = let(
    comment(
        "Knative: one pod more, or the first again; KServe says Loading of the model while this one fetches it.",
        (revision_ready != "")
        & (first_given(observed.modelStatus.states.activeModelState, "") == "Loaded")
        & (state_seen == "Loading"),
    )
)
stopped_conditions = let(conditions(conditions_seen, "Stopped", "True"))
is_healthy = let(
    comment(
        "Stopped as asked for; or ready with all its parts, in its newest version (Pending: no pod, as nobody "
        "asks; or it starts one).",
        (is_stopped & (length(stopped_conditions) > 0))
        | (
            ~is_stopped
            & (length(ready_conditions) > 0)
            & (length(companions_failed) == 0)
            & (length(rolling_out) == 0)
            & (settled | starts_a_pod)
            & (revision_created == revision_ready)
        ),
    )
)

# What is wrong, in a user's words, with KServe's own sentence behind a colon or in brackets ---------------------------

log = let(log_seen)
cause = let(
    comment(
        "The log's last line, without what KServe's storage initializer begins it with ([Ss]torage).", reason_in(log)
    )
)
#: A server that is killed may have said nothing.
because = let(if_else(cause != "", f": {cause}", ""))
exit_code = let(first_given(observed.modelStatus.lastFailureInfo.exitCode, 0))
copies = let(first_given(observed.modelStatus.copies.totalCopies, 0))
#: By the trait autoscale too.
may_have_none = first_given(context.output.spec.predictor.minReplicas, 1) == 0

locations = let([when(given(p.modelUri), p.modelUri), each(p.models, lambda one: first_given(one.uri, ""))])
fetched_from = let(join(locations, ", "))
#: Sentences of KServe's python/storage/kserve_storage/storage_errors.py, and of the clients behind it.
UNREACHABLE = "(?i)connect|timed? ?out|unreachable|name resolution"
NOT_ALLOWED = "(?i)authentication|credentials|denied|forbidden|signature"
NOT_THERE = "(?i)not found|no model found|does not exist|cannot locate"
is_fetching = matches(log, FETCHING)
not_fetched: list[tuple[Expression, Value]] = [
    (
        matches(cause, UNREACHABLE),
        f"The model's storage can't be reached, which is tried again by itself: {cause}",
    ),
    (
        matches(cause, NOT_ALLOWED),
        f"The model's storage refuses access (check serviceAccount or storageKey): {cause}",
    ),
    (
        matches(cause, NOT_THERE),
        f"There is no model at {fetched_from} (check {if_else(given(p.models), 'models', 'modelUri')}, or put it "
        f"there; KServe keeps looking): {cause}",
    ),
]
#: 128 + the signal that ended it. Who is killed says nothing, and the last line is of something else; SIGKILL comes by
#: hand or from a kernel that has no more memory to give.
is_killed = one_of(exit_code, 137, 143)
failed_by = let(
    cases(
        (seen.transition == "InvalidSpec", f"KServe can't make it: {failure}"),
        *((is_fetching & condition, sentence) for condition, sentence in not_fetched),
        (is_fetching, f"The model can't be fetched from {fetched_from}: {cause}"),
        (
            is_killed,
            f"The model server was killed, and is started again by itself (exit code {exit_code}"
            f"{if_else(exit_code == 137, '; if it happens again, raise resources.limits.memory', '')})",
        ),
        (
            exit_code > 128,
            f"The model server crashed, and is started again by itself (exit code {exit_code}){because}",
        ),
        otherwise=f"The model can't be loaded (see vela logs {context.appName}){because}",
    )
)
last_failure = if_else(is_killed, f"the server's end (exit code {exit_code})", failure)


not_ready = let(conditions(conditions_seen, status="False", matching="^(Predictor|Transformer|Explainer)Ready$"))


#: Neither KServe nor the Deployment passes on that an image can't be pulled.
secrets_wanted = let(
    comment(
        "Nobody passes on that an image can't be pulled: what it may be for lack of.",
        [
            when(
                given(image) & missing(pod.imagePullSecrets) & waits,
                f"; if the registry of {image} asks for a password, name its secret in {at}pod.imagePullSecrets",
            )
            for image, waits, at, pod in (
                (p.image, contains(not_ready, "PredictorReady"), "", p.pod),
                (p.transformer.image, contains(not_ready, "PredictorReady") & is_collocated, "", p.pod),
                (p.transformer.image, contains(not_ready, "TransformerReady"), "transformer.", p.transformer.pod),
                (p.explainer.image, contains(not_ready, "ExplainerReady"), "explainer.", p.explainer.pod),
            )
        ],
    )
)
#: KServe looks at one pod, which may be of the version before, and never takes a failure back.
locations_seen = let(
    comment(
        "Those that the storage initializer's log names: a failure whose log names others is of the version before.",
        [each(locations, lambda one: one, where=lambda one: contains_text(log, f"Copying contents of {one} "))],
    )
)
is_of_before = matches(log, "Copying contents of [a-z0-9]+://") & (length(locations_seen) == 0)
waiting = let(
    cases(
        (
            (length(ready_conditions) > 0) & (length(rolling_out) > 0),
            "Rolling out: replicas of the version before answer until the new ones are ready; if it lasts, see vela "
            f"logs {context.appName}, or write rollout: in-place where no node has room for a pod more",
        ),
        (model_state == "Loading", f"The model is being fetched from {fetched_from}"),
        (length(failed_conditions) == 0, f"Waiting for KServe, model {model_state}"),
        (
            matches(failed_conditions[0], "minimum availability|MinimumReplicasUnavailable"),
            "Replicas wait for a node or an image, or load the model; for the reason: kubectl describe pod "
            f"-n {first_given(context.output.metadata.namespace, '')} "
            f"-l serving.kserve.io/inferenceservice={context.name} ({failed_conditions[0]}){join(secrets_wanted, '')}",
        ),
        (
            matches(failed_conditions[0], "^IngressReady"),
            f"The model's way through the gateway is not open yet ({failed_conditions[0]})",
        ),
        otherwise=failed_conditions[0],
    )
)

# What does not go together -------------------------------------------------------------------------------------------

#: Properties that belong to a server that KServe knows.
_OF_RUNTIMES = ("runtime", "servingRuntime", "modelFormat", "runtimeVersion", "dynamicBatching", "warmup", "storageKey")
owned_variables = [each(p.env, lambda one: one, where=lambda one: one_of(one.name, "STORAGE_URI", "PROTOCOL"))]
beside_image = let(
    comment(
        "What does not go with image, or not without it.",
        [
            when(
                missing(p.image) & given(p.command),
                "command belongs to image: a server that KServe knows has its own command, and args are added to it",
            ),
            when(
                missing(p.image) & given(p.port),
                "port belongs to image: of a server that KServe knows it follows from runtime and protocol",
            ),
            *(
                when(
                    has_image & given(p[name]),
                    f"image is a server of your own, and {name} belongs to one that KServe knows: keep one of them",
                )
                for name in _OF_RUNTIMES
            ),
            when(
                has_image & is_both,
                "protocol: both is not supported with image, which opens one port: leave protocol out, or write grpc",
            ),
            when(
                has_image & is_grpc & given(p.readiness.path),
                "readiness.path is asked over HTTP, and with image and protocol: grpc the one port speaks gRPC: drop "
                "readiness, KServe then tries the port",
            ),
            when(
                has_image & missing(p.modelUri) & (given(p.artifacts) | given(p.storageContainer)),
                "artifacts and storageContainer stand beside modelUri, which is missing: write where the model lies",
            ),
            when(
                has_image & given(p.env) & (length(owned_variables) > 0),
                "env may not set STORAGE_URI or PROTOCOL, by which KServe is told the model's place and the protocol: "
                "write modelUri and protocolVersion in their place",
            ),
        ],
    )
)
#: What does not go with models, and what to do.
_BESIDE_MODELS: dict[str, Value] = {
    "modelUri": "models says where each model lies, and modelUri where the only one does: keep one of them",
    "modelName": "models has a name for each model: drop modelName",
    "storageKey": "models and storageKey don't go together, KServe takes one or the other: give the credentials by "
    "serviceAccount",
    "artifacts": "models and artifacts don't go together, for each folder is a model's: put the files into the folder "
    "of the model that they belong to",
    "transformer": "models and transformer don't go together: KServe sends all requests to the transformer, and tells "
    "it one model's name; write a component for the model that needs it",
    "explainer": "models and explainer don't go together: KServe tells an explainer one model's name; write a "
    "component for the model that needs it",
    "warmup": "warmup sends its sample to one model, and models has several: put model_warmup into each model's "
    "config.pbtxt, which Triton plays before it is ready, or drop warmup",
}
#: A list of {name, uri}, as JSON. pvc:// and oci:// are not among them: KServe mounts all of a volume, whatever the
#: path, and no two images beside each other (pkg/webhook/admission/pod/storage_initializer_injector.go,
#: pkg/utils/storage.go, ValidateOCIMountPaths).
_MODEL = '("name":"[A-Za-z0-9][-_.A-Za-z0-9]{0,126}",?|"uri":"(s3|gs|hf|https?|hdfs|webhdfs)://[^\\s/"][^\\s"]*",?){2}'
_MODELS = rf"^\[(\{{{_MODEL}\}},?)+\]$"
#: One alone, whose name is none of a volume, which KServe calls mnt-models-NAME then.
_ALONE = r'^\[[^{]*\{[^{]*"name":"([^"]*[^-a-z0-9"][^"]*|[^"]*-|[^"]{53,})"[^{]*$'
_JSON = to_json(p.models)
_FOLDERS = {each(places): lambda _, one: {f"{one.mountPath}": 1}}
beside_models = let(
    comment(
        "What does not go with models. The first two are asked of its JSON, since its items may be anything: each is a "
        "name and a uri; one alone has a name that KServe makes a volume's of.",
        [
            when(
                given(p.models) & ~matches(_JSON, _MODELS),
                "models must be a list of {name, uri}: a name of letters, digits, -, _ and ., at most 127 characters, "
                "and a uri that KServe fetches into a folder of its own, s3://, gs://, hf://, http://, https://, "
                "hdfs:// or webhdfs:// (models in one folder of a volume are modelUri: pvc://CLAIM/FOLDER)",
            ),
            when(
                given(p.models) & matches(_JSON, _ALONE),
                "models has one model alone, and KServe names a volume by it: its name must be small letters, digits "
                "and -, at most 52 characters",
            ),
            when(
                length(_FOLDERS) < length(places),
                "models has two of one name, and clients call a model by its name",
            ),
            when(
                ~is_of_several,
                "models works with runtime triton, onnx and mlflow: KServe runs the other servers with one model each; "
                "write a component for each model",
            ),
            each(_BESIDE_MODELS, lambda _, sentence: sentence, where=lambda name, _: given(p[name])),
        ],
    )
)
apart = let(
    comment(
        "What a transformer in the model's pod can't have.",
        [
            *(
                when(
                    is_collocated & given(p.transformer[name]),
                    f"transformer.{name} belongs to pods of its own, and with collocated: true it runs in the model's: "
                    "write it at the component, or drop collocated",
                )
                for name in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "logger", "pod")
            ),
            when(
                is_collocated & (is_grpc | is_both),
                "transformer.collocated needs protocol: rest: all requests come in at the transformer's one port",
            ),
            when(
                is_collocated & given(p.transformer.artifactsUri),
                "transformer.artifactsUri is not supported with collocated: true, where KServe gives the container the "
                "model's files at /mnt/models: put its files there too (artifacts)",
            ),
            when(
                given(p.explainer.collocated),
                "explainer.collocated is not supported: KServe runs an explainer in pods of its own; drop collocated",
            ),
        ],
    )
)


def _scaled(at: str, own: Reference) -> list[Value]:
    """What KServe's webhook refuses of a part's scaling (validateScalingHPACompExtension and KPA's)."""
    wants_requests = one_of(own.scaleMetric, "concurrency", "rps")
    return [
        when(
            given(own.scaleMetric) & ~is_knative & wants_requests,
            f"{at}.scaleMetric: {own.scaleMetric} needs deploymentMode: knative: in standard mode "
            "Kubernetes scales by cpu or memory",
        ),
        when(
            given(own.scaleMetric) & is_knative & ~wants_requests,
            f"{at}.scaleMetric: {own.scaleMetric} needs deploymentMode: standard: Knative scales by concurrency or rps",
        ),
        when(
            given(own.scaleTarget) & ~is_knative & (own.scaleTarget > 100),
            f"{at}.scaleTarget is per cent of the request in standard mode: write 1 to 100",
        ),
    ]


_PAIRS = zip(_scaled("transformer", p.transformer), _scaled("explainer", p.explainer), strict=True)
in_other_mode = let(
    comment("Scaling by what the other deploymentMode knows.", [one for pair in _PAIRS for one in pair])
)


def _logs(one: Reference) -> Value:
    """What KServe's webhook refuses of a logger (validateLogger)."""
    return f"{one.at}logger.storage needs key, path and parameters, all three of them: KServe refuses it otherwise"


def _stores_half(one: Reference) -> Expression:
    storage = one.of.logger.storage
    return given(storage) & (missing(storage.key) | missing(storage.path) | missing(storage.parameters))


loggers = let(comment("Loggers that KServe refuses.", [each(parts_given, _logs, where=_stores_half)]))


def _uneven(one: Reference) -> Value:
    """Kubernetes pkg/apis/core/validation, ValidateResourceRequirements: extended resources and huge pages."""
    requests, limits = one.of.requests, one.of.limits

    def limit(name: Expression) -> Expression:
        return first_given(f"{limits[name]}", "")

    return [
        each(
            first_given(requests, {}),
            lambda name, amount: (
                f"{one.at}resources has {amount} of {name} in requests and {limit(name)} in limits, and "
                "Kubernetes takes the same number in both: write it in limits alone"
            ),
            where=lambda name, amount: (
                matches(name, "/|^hugepages-") & (limit(name) != "") & (limit(name) != f"{amount}")
            ),
        )
    ]


uneven_by_part = let(
    comment("Kubernetes takes one amount of a device, or of huge pages.", [each(resources_given, _uneven)])
)
uneven = let(
    comment(
        "The first of each part.",
        [each(uneven_by_part, lambda found: found[0], where=lambda found: length(found) > 0)],
    )
)

#: What pods say to Prometheus where they don't say it in pod.annotations. In Knative mode KServe's webhook writes the
#: port of Knative's proxy over it, and does not say that there is something to scrape
#: (pkg/webhook/admission/pod/metrics_aggregate_injector.go).
SCRAPED: dict[str, Value] = {
    "prometheus.io/scrape": "true",
    "prometheus.io/port": choose(family, METRICS_PORTS, f"{HTTP_PORT}"),
    "prometheus.io/path": "/metrics",
}

# The component ----------------------------------------------------------------------------------------------------

kfserving = Component(
    name="kfserving",
    description="A model served by KServe.",
    workload=INFERENCE_SERVICE,
    # predictor is the pod's spec: traits that look for one find it there.
    pod_spec_path="spec.predictor",
    instead_of=INSTEAD_OF,
    child_resource_kinds=[
        {"apiVersion": "apps/v1", "kind": "Deployment"},
        {"apiVersion": "v1", "kind": "Service"},
    ],
    output={
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": context.name,
            "annotations": {
                DEPLOYMENT_MODE: comment(
                    "Always written: KServe's default may be another, and the mode can never be changed later.",
                    choose(p.deploymentMode, MODES),
                ),
                when(is_knative & p.scrape): {"serving.kserve.io/enable-prometheus-scraping": "true"},
                when(is_stopped): {STOP: "true"},
            },
        },
        "spec": {
            "template": never(NO_TEMPLATE),
            "predictor": {
                "minReplicas": optional(p.minReplicas),
                "maxReplicas": optional(p.maxReplicas),
                "storageContainerName": optional(p.storageContainer),
                "timeout": optional(p.timeoutSeconds),
                "containerConcurrency": optional(p.containerConcurrency),
                "serviceAccountName": optional(p.serviceAccount),
                "nodeSelector": optional(p.nodeSelector),
                "tolerations": optional(p.tolerations),
                when(given(p.rollout)): {"deploymentStrategy": choose(p.rollout, ROLLOUTS)},
                when(length(places) > 0): {"storageUris": places},
                # Links to the models, and their configurations with dynamic batching; no data.
                **volumes("predictor", own=when(batches, {"name": LINKS, "emptyDir": {}}), is_made=batches),
                **spec_of("predictor"),
                **grace(p),
                **pod_security("predictor"),
                when(has_image | is_collocated | given(p.pod.sidecars)): {
                    "containers": [
                        when(given(containers_made.server), containers_made.server),
                        when(given(containers_made.collocated), containers_made.collocated),
                        each(p.pod.sidecars, lambda container: container),
                    ]
                },
                **labels("predictor", "labels", still_labels),
                **labels("predictor", "annotations", still_annotations),
                when(p.scrape & (is_knative | ~matches(family, "^(tensorflow|other)$"))): {
                    "annotations": {
                        when(missing(p.pod.annotations[key])): {key: value} for key, value in SCRAPED.items()
                    },
                },
                when(~has_image): {
                    "model": {
                        "modelFormat": {"name": format_name, "version": optional(p.modelFormat.version)},
                        "runtime": runtime_name,
                        "runtimeVersion": optional(p.runtimeVersion),
                        when(family != "vllm"): {
                            "protocolVersion": comment(
                                "vLLM's runtime lists no protocol: it speaks OpenAI's.", kserve_version
                            )
                        },
                        when(missing(p.storageKey) & (length(places) == 0)): {"storageUri": location},
                        when(is_of_several & (length(places) > 0)): {
                            "storage": comment(
                                "Without it KServe 0.20 has this server load nothing by itself, and be ready.", {}
                            )
                        },
                        when(given(p.storageKey)): {
                            "storage": {
                                "key": p.storageKey,
                                "path": replace_pattern(location, "^s3://[^/]*/", ""),
                                "parameters": {
                                    "type": "s3",
                                    "bucket": replace_pattern(location, "^s3://([^/]*)/.*$", "$1"),
                                },
                            }
                        },
                        when(is_batching): {
                            "command": comment(
                                "Triton has no flag for batching, and /mnt/models is read-only: the program links the "
                                "models into a volume, with dynamic_batching in each config.pbtxt, and becomes Triton.",
                                ["python3", "-c", script("triton_batching.py"), to_json(triton_settings)],
                            ),
                        },
                        when(names_models): {
                            "command": comment(
                                "MLServer names models by a file in each folder, and /mnt/models is read-only: the "
                                "program links the models, gives each its name, and becomes MLServer.",
                                ["python3", "-c", script("mlserver_models.py")],
                            ),
                        },
                        **mounts(
                            "predictor",
                            own=when(batches, {"name": LINKS, "mountPath": TRITON_LINKS}),
                            is_made=batches,
                        ),
                        when((name_flag != "") | given(p.args)): {
                            "args": [
                                when(name_flag != "", f"{name_flag}={served_name}"),
                                each(p.args, lambda arg: arg),
                            ]
                        },
                        when((family == "mlflow") | given(p.env)): {"env": model_env},
                        "envFrom": optional(p.envFrom),
                        "resources": optional(resources_made.predictor),
                        **model_security,
                        # reconcilers/service/service_reconciler.go, reconcilers/ingress/httproute_reconciler.go
                        when(is_grpc | is_both): {
                            "ports": comment(
                                "KServe's Service and route send gRPC to the port called h2c, all else to the first.",
                                [
                                    when(is_both, {"name": "http1", "containerPort": HTTP_PORT, "protocol": "TCP"}),
                                    {"name": "h2c", "containerPort": grpc_port, "protocol": "TCP"},
                                ],
                            )
                        },
                        "terminationMessagePolicy": comment(
                            "What the server says at its end goes into the pod's status, and from there into ours.",
                            "FallbackToLogsOnError",
                        ),
                        **lifecycle,
                        when((family != "vllm") | given(p.readiness)): {
                            "readinessProbe": comment(
                                "vLLM's runtime asks its own path, and has a startup probe with time to load.",
                                readiness_probe,
                            )
                        },
                        when(given(p.warmup)): {
                            "startupProbe": comment(
                                "Sends the sample until the model has answered it as often as asked.", startup_probe
                            )
                        },
                    },
                },
                when(given(p.logger)): {"logger": {each(p.logger): lambda name, value: {name: value}}},
                when(given(p.batcher)): {
                    "batcher": {"maxBatchSize": p.batcher.maxBatchSize, "maxLatency": p.batcher.maxLatencyMilliseconds}
                },
            },
            when(runs_apart(p.transformer)): {"transformer": companion("transformer")},
            when(runs_apart(p.explainer)): {"explainer": companion("explainer")},
        },
    },
    checks=[
        refuse(
            ~matches(context.name, "^[a-z]([-a-z0-9]*[a-z0-9])?$"),
            f"the component's name {context.name} is not taken by KServe: write small letters, digits and -, beginning "
            "with a letter",
        ),
        refuse(
            length(context.name) > most_characters,
            f"the component's name may have at most {most_characters} characters here, and has {length(context.name)}: "
            f"{longest_made} may have 63",
        ),
        refuse(
            length(context.appName) > 63 - len("-v1"),
            f"the application's name may have at most 60 characters, and has {length(context.appName)}: KubeVela "
            f"labels its objects {context.appName}-v1, and a label may have 63",
        ),
        refuse(
            is_rendered & missing(p.modelUri) & missing(p.image) & missing(p.models),
            "modelUri is required: where the model lies, for example s3://models/sentiment/1, or hf://ORG/MODEL in the "
            "place of --model_id or --model in args",
        ),
        refuse(
            is_rendered & missing(p.runtime) & missing(p.servingRuntime) & missing(p.image),
            "runtime is missing: name the model server (triton, sklearn, mlflow, ...), a ServingRuntime in "
            "servingRuntime, or your own server's image in image",
        ),
        refuse(length(beside_image) > 0, f"{beside_image[0]}"),
        refuse(given(p.models) & (length(beside_models) > 0), f"{beside_models[0]}"),
        refuse(length(apart) > 0, f"{apart[0]}"),
        refuse(length(in_other_mode) > 0, f"{in_other_mode[0]}"),
        refuse(length(uneven) > 0, f"{uneven[0]}"),
        refuse(
            given(p.servingRuntime) & missing(p.runtime) & missing(p.modelFormat),
            "modelFormat is missing: with servingRuntime alone KServe must be told the model's format, for example "
            "modelFormat: {name: onnx}",
        ),
        refuse(
            given(p.modelFormat)
            & given(p.runtime)
            & missing(p.servingRuntime)
            & (family != "triton")
            & (format_name != own_format),
            "modelFormat does not fit this runtime, which serves one format: leave modelFormat out, or use runtime: "
            "triton or a servingRuntime",
        ),
        refuse(
            given(p.dynamicBatching) & ~is_triton & (family != "mlflow"),
            "dynamicBatching works with runtime triton, onnx and mlflow: choose one of them, or use batcher (V1 REST)",
        ),
        refuse(
            given(p.batcher) & given(p.dynamicBatching),
            "batcher and dynamicBatching both make batches: keep dynamicBatching and drop batcher",
        ),
        refuse(
            given(p.batcher) & ((protocol_used == "v2") | is_grpc),
            "batcher understands V1 REST requests only: write protocolVersion: v1 and protocol: rest where the runtime "
            "serves it, or use dynamicBatching",
        ),
        refuse(
            is_both & given(p.transformer),
            "protocol: both is not supported with a transformer, to which KServe sends all requests and which opens "
            "one port: leave protocol out",
        ),
        refuse(
            given(p.warmup) & is_triton & missing(p.modelName),
            "warmup needs modelName here: the model's folder in the repository, to which the sample is sent",
        ),
        refuse(
            given(p.warmup) & contains_text(served_name, "/"),
            "warmup sends its sample to an address that names the model, where modelName with / can't stand: write one "
            "without",
        ),
        refuse(
            given(p.warmup) & (family == "vllm"),
            "warmup is not for runtime vllm, which runs the model before it is ready anyway: drop warmup",
        ),
        refuse(
            given(p.warmup) & (family == "tensorflow"),
            "warmup is not for runtime tensorflow, whose image can't send requests: put the sample into the model's "
            "assets.extra/tf_serving_warmup_requests, which TensorFlow Serving plays itself",
        ),
        refuse(
            (family == "pytorch") & missing(p.modelName),
            "modelName is missing: runtime pytorch (TorchServe) takes it from the model's config.properties, and "
            "readiness is asked of that name",
        ),
        refuse(
            given(p.storageKey) & ~matches(location, "^s3://[^/]+/.+"),
            "storageKey works with modelUri: s3://BUCKET/PATH only; for other locations use serviceAccount",
        ),
        refuse(
            ~is_knative & (first_given(p.containerConcurrency, 0) > 0),
            "containerConcurrency needs deploymentMode: knative; in standard mode nothing bounds it, which is what 0 "
            "says",
        ),
        refuse(
            given(p.modelUri) & missing(p.storageContainer) & ~matches(location, SCHEMES),
            "modelUri must be a location that KServe can fetch: s3://, gs://, hf://, oci://, oci+native://, pvc://, "
            "http://, https:// (Azure blobs too), hdfs://, webhdfs:// or file://; for another scheme write "
            "storageContainer, the ClusterStorageContainer that fetches it",
        ),
        refuse(
            contains_text(first_given(p.modelName, ""), "/") & (family != "vllm") & (family != "huggingface"),
            "modelName may hold / on vllm and huggingface alone: in the address of another server it would be a folder",
        ),
        refuse(
            given(p.artifacts) & given(p.storageKey),
            "artifacts and storageKey don't go together, KServe takes one or the other: give the credentials by "
            "serviceAccount",
        ),
        refuse(
            given(p.rollout) & is_knative,
            "rollout needs deploymentMode: standard; Knative replaces pods in its own way",
        ),
        refuse(length(loggers) > 0, f"{loggers[0]}"),
        refuse(length(flags) > 0, f"{flags[0]}"),
        *pod_checks(),
        refuse(
            (family == "mlflow") & given(p.args[0]) & matches(p.args[0], "^-"),
            "args are MLServer's whole command with runtime mlflow, and flags alone start nothing: set MLServer by env "
            "(MLSERVER_DEBUG and so on), or write the command, which is [mlserver, start, /mnt/models]",
        ),
        refuse(
            (family == "pytorch") & (length(shell_words) > 0),
            "args of runtime pytorch are read by a shell in TorchServe's image: they may hold letters, digits and "
            "-_=./:,@%+ only",
        ),
        refuse(
            missing(p.image) & (length(taken_for_templates) > 0),
            f"{taken_for_templates[0]} may not hold two opening braces in a row, which KServe takes for a template of "
            "its own: give such a text in a file that lies with the model",
        ),
    ],
    status=Status(
        healthy=is_healthy,
        message=cases(
            (is_stopped, "Stopped, no pod runs: drop stopped to start it"),
            (
                context.status.healthy & starts_a_pod & (copies == 0) & may_have_none,
                f"Starts a pod because a request came, which waits until the model is there; ready at {url}",
            ),
            (context.status.healthy & starts_a_pod, f"Starts a pod; ready at {url}"),
            (context.status.healthy, f"Ready at {url}"),
            (
                (failure != "")
                & one_of(seen.transition, "BlockedByFailedLoad", "InvalidSpec")
                & (copies == 0)
                & ~is_of_before,
                failed_by,
            ),
            (failure != "", f"The last failure was {last_failure}; now: {waiting}"),
            otherwise=waiting,
        ),
        details={
            "url": url_seen,
            "modelState": state_seen,
            "transition": transition_seen,
            "runtime": first_given(observed.clusterServingRuntimeName, observed.servingRuntimeName, ""),
            "failure": failure_seen,
        },
    ),
)
