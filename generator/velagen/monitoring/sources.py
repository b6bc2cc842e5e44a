"""The table of sources: which raw series say what of a model. No other module holds a metric's name.

The GPU simulator alone has its own copy of the names it gives and reads, since it is installed without the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

#: Units in a second, and bytes in a MiB.
MILLISECONDS: Final = 1_000
MICROSECONDS: Final = 1_000_000
MIB: Final = 1024 * 1024

#: Who counts: the model's own server, a gateway before it, the mesh, or Knative's proxy in the pod. The label route.
Route = Literal["server", "envoy", "istio", "knative"]


@dataclass(frozen=True)
class Series:
    """A counter or gauge: its name, and the matchers (PromQL, without braces) that single out what is meant."""

    name: str
    where: str = ""


@dataclass(frozen=True)
class Histogram:
    """Times in buckets, from which a percentile can be told. *name* is without ``_bucket``, ``_sum``, ``_count``."""

    name: str
    #: Units of its values in a second.
    per_second: int = 1
    where: str = ""
    #: What of the traffic it does not see; empty where it sees all.
    only: str = ""
    #: The upper bounds of its buckets, in its unit: only at these the share of faster requests can be counted.
    bounds: tuple[float, ...] = ()
    #: Counters of all requests, where the histogram leaves out those that nobody answered.
    asked: tuple[Series, ...] = ()

    @property
    def requests(self) -> tuple[Series, ...]:
        """Counters that add up to all requests of which a share is faster than a bound."""
        return self.asked or (Series(f"{self.name}_count", self.where),)


@dataclass(frozen=True)
class Mean:
    """Two counters, the sum of all times and how many there were: a mean, and never a percentile."""

    total: str
    count: str
    #: Units of *total* in a second.
    per_second: int = 1
    where: str = ""


@dataclass(frozen=True)
class Source:
    """A program that gives metrics, and what can be read from them. What is None or empty it does not give."""

    name: str
    title: str
    route: Route
    #: Where the facts are from.
    fact: str
    #: Counters that add up to all requests; the first counts those that were answered.
    requests: tuple[Series, ...]
    #: Counters of requests that failed by the server's fault.
    errors: tuple[Series, ...] = ()
    #: Whether a counter is there only once it has counted, as those with a label of the outcome are.
    born_late: bool = False
    histogram: Histogram | None = None
    mean: Mean | None = None
    #: Gauges: requests being worked on, and requests that wait.
    inflight: Series | None = None
    waiting: Series | None = None
    #: Time that requests waited, against how many there were.
    queue: Mean | None = None
    #: Inferences and executions: their ratio is the mean batch.
    batch: tuple[Series, Series] | None = None
    #: A gauge of the part of an LLM server's cache that is used, 0 to 1.
    cache: Series | None = None
    tokens: Series | None = None
    first_token: Histogram | None = None
    #: Counters of the time spent computing, with their units in a second: how the GPU simulator knows a pod's load.
    busy: tuple[tuple[str, int], ...] = ()
    #: What to know before its numbers are believed.
    note: str = ""
    #: Whether its series tell Knative's revisions apart, by their label version.
    by_revision: bool = False

    @property
    def answered(self) -> Series:
        """The counter of answered requests, by which the trait autoscale counts."""
        return self.requests[0]

    @property
    def names(self) -> frozenset[str]:
        """All its metrics' names; a histogram's without suffix."""
        pairs = (one for one in (self.mean, self.queue) if one)
        return frozenset(
            [
                *(one.name for one in (*self.requests, *self.errors, *(self.batch or ()))),
                *(one.name for one in (self.inflight, self.waiting, self.cache, self.tokens) if one),
                *(one.name for one in (self.histogram, self.first_token) if one),
                *(name for pair in pairs for name in (pair.total, pair.count)),
                *(name for name, _ in self.busy),
            ]
        )


_TRITON_TIME: Final = "nv_inference_request_duration_us"
_MLSERVER_TIME: Final = "model_infer_request_duration"
_KSERVE_TIME: Final = "request_predict_seconds"
_ISTIO_TIME: Final = "istio_request_duration_milliseconds"
_KNATIVE_TIME: Final = "kn_serving_invocation_duration_seconds"
_TENSORFLOW_COUNT: Final = ":tensorflow:serving:request_count"
_VLLM_TIME: Final = "vllm:e2e_request_latency_seconds"
_ENVOY_REQUESTS: Final = (Series("envoy_cluster_upstream_rq_completed"),)

# Bounds of buckets: prometheus_client's own (prometheus_client/metrics.py, DEFAULT_BUCKETS), which MLServer's exporter
# and KServe's servers take; vLLM's (vllm/v1/metrics/loggers.py, request_latency_buckets); Envoy's
# (source/common/stats/histogram_impl.cc), which Istio keeps for its own; Knative's (latencyBounds, see its fact).
_CLIENT_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_VLLM_BOUNDS: Final = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680)
_ENVOY_BOUNDS: Final = (0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000)

_ALL: Final = (
    Source(
        name="triton",
        title="Triton",
        route="server",
        fact="Triton docs/user_guide/metrics.md; seen on Triton 2.51",
        requests=(Series("nv_inference_request_success"), Series("nv_inference_request_failure")),
        # A request that its client gave up is not the server's fault.
        errors=(Series("nv_inference_request_failure", 'reason!="CANCELED"'),),
        mean=Mean(_TRITON_TIME, "nv_inference_request_success", MICROSECONDS),
        waiting=Series("nv_inference_pending_request_count"),
        queue=Mean("nv_inference_queue_duration_us", "nv_inference_request_success", MICROSECONDS),
        batch=(Series("nv_inference_count"), Series("nv_inference_exec_count")),
        busy=(
            ("nv_inference_compute_input_duration_us", MICROSECONDS),
            ("nv_inference_compute_infer_duration_us", MICROSECONDS),
            ("nv_inference_compute_output_duration_us", MICROSECONDS),
        ),
        note="Warm-up requests that Triton makes by itself count. Each member of an ensemble counts too. A request "
        "that it refuses before it runs (malformed, of a wrong shape) does not count at all. An error that a model in "
        "the Python backend answers with counts as success, one that it raises as failure.",
    ),
    Source(
        name="mlserver",
        title="MLServer",
        route="server",
        fact="mlserver/handlers/dataplane.py, mlserver/rest/app.py; seen on MLServer 1.7.1",
        requests=(Series("model_infer_request_success_total"), Series("model_infer_request_failure_total")),
        errors=(Series("model_infer_request_failure_total"),),
        born_late=True,
        histogram=Histogram(
            "rest_server_request_duration_seconds",
            where='path=~".+/infer"',
            only="REST, not gRPC",
            bounds=_CLIENT_BOUNDS,
        ),
        mean=Mean(f"{_MLSERVER_TIME}_sum", f"{_MLSERVER_TIME}_count"),
        inflight=Series("rest_server_requests_in_progress"),
        busy=((f"{_MLSERVER_TIME}_sum", 1),),
        note="A request that the model refuses counts as a failure, whoever is to blame. In flight: REST alone.",
    ),
    # Before KServe's: the Hugging Face server gives both, and the first that answers is taken.
    Source(
        name="vllm",
        title="vLLM",
        route="server",
        fact="vLLM docs/usage/metrics.md",
        requests=(Series("vllm:request_success_total"),),
        histogram=Histogram(_VLLM_TIME, bounds=_VLLM_BOUNDS),
        mean=Mean(f"{_VLLM_TIME}_sum", f"{_VLLM_TIME}_count"),
        inflight=Series("vllm:num_requests_running"),
        waiting=Series("vllm:num_requests_waiting"),
        cache=Series("vllm:kv_cache_usage_perc"),
        tokens=Series("vllm:generation_tokens_total"),
        first_token=Histogram("vllm:time_to_first_token_seconds"),
        note="KServe's Hugging Face server with the backend vLLM gives these beside its own. Counts finished requests; "
        "those that failed are not told apart.",
    ),
    Source(
        name="kserve",
        title="KServe's Python servers",
        route="server",
        fact="kserve v0.20.0 python/kserve/kserve/metrics.py",
        requests=(Series(f"{_KSERVE_TIME}_count"),),
        histogram=Histogram(_KSERVE_TIME, bounds=_CLIENT_BOUNDS),
        mean=Mean(f"{_KSERVE_TIME}_sum", f"{_KSERVE_TIME}_count"),
        busy=((f"{_KSERVE_TIME}_sum", 1),),
        note="The time in predict alone, without pre- and postprocessing. Failed requests are not told apart.",
    ),
    Source(
        name="torchserve",
        title="TorchServe",
        route="server",
        fact="pytorch/serve docs/metrics.md",
        requests=(Series("ts_inference_requests_total"),),
        mean=Mean("ts_inference_latency_microseconds", "ts_inference_requests_total", MICROSECONDS),
        queue=Mean("ts_queue_latency_microseconds", "ts_inference_requests_total", MICROSECONDS),
        note="Failed requests are not told apart by model.",
    ),
    Source(
        name="tensorflow",
        title="TensorFlow Serving",
        route="server",
        fact="tensorflow/serving servables/tensorflow/util.cc",
        requests=(Series(_TENSORFLOW_COUNT),),
        errors=(Series(_TENSORFLOW_COUNT, 'status!="OK"'),),
        born_late=True,
        histogram=Histogram(":tensorflow:serving:request_latency", MICROSECONDS),
        mean=Mean(":tensorflow:serving:request_latency_sum", ":tensorflow:serving:request_latency_count", MICROSECONDS),
        note="Only with --monitoring_config_file, which KServe's runtime does not set.",
    ),
    Source(
        name="envoy",
        title="Envoy (Gateway API)",
        route="envoy",
        fact="Envoy docs, cluster statistics; seen on Contour 1.33 with Envoy 1.40",
        requests=_ENVOY_REQUESTS,
        errors=(Series("envoy_cluster_upstream_rq_xx", 'envoy_response_code_class="5"'),),
        born_late=True,
        histogram=Histogram(
            "envoy_cluster_upstream_rq_time", MILLISECONDS, bounds=_ENVOY_BOUNDS, asked=_ENVOY_REQUESTS
        ),
        mean=Mean("envoy_cluster_upstream_rq_time_sum", "envoy_cluster_upstream_rq_time_count", MILLISECONDS),
        inflight=Series("envoy_cluster_upstream_rq_active"),
        # Not upstream_rq_total: it counts tries, a retried request several times, and one that found no pod not at all.
        note="Requests that no pod answered count as errors, and a retried one counts once. The times are of requests "
        "that were answered. The series of 5xx is absent until the first one.",
    ),
    Source(
        name="istio",
        title="Istio",
        route="istio",
        fact="istio.io standard metrics",
        requests=(Series("istio_requests_total", 'reporter="destination"'),),
        errors=(Series("istio_requests_total", 'reporter="destination",response_code=~"5.."'),),
        born_late=True,
        histogram=Histogram(_ISTIO_TIME, MILLISECONDS, 'reporter="destination"', bounds=_ENVOY_BOUNDS),
        mean=Mean(f"{_ISTIO_TIME}_sum", f"{_ISTIO_TIME}_count", MILLISECONDS, 'reporter="destination"'),
        note="Needs a sidecar, or a waypoint in ambient mode. Counted at the pod: a request that reaches none is not "
        "seen.",
    ),
    # After the pods' own: where these count, a request is not counted a second time.
    Source(
        name="istio-gateway",
        title="Istio's gateway",
        route="istio",
        fact="istio.io standard metrics; istio manifests/charts/istio-control/istio-discovery/files/kube-gateway.yaml",
        requests=(Series("istio_requests_total", 'reporter="source"'),),
        errors=(Series("istio_requests_total", 'reporter="source",response_code=~"5.."'),),
        born_late=True,
        histogram=Histogram(_ISTIO_TIME, MILLISECONDS, 'reporter="source"', bounds=_ENVOY_BOUNDS),
        mean=Mean(f"{_ISTIO_TIME}_sum", f"{_ISTIO_TIME}_count", MILLISECONDS, 'reporter="source"'),
        note="Where the model's pods have no sidecar: counted by the gateway and by callers in the mesh. Requests that "
        "no pod answered count as errors.",
    ),
    Source(
        name="knative",
        title="Knative's queue-proxy",
        route="knative",
        fact="knative.dev/serving v0.48.1 pkg/queue/request_metric.go",
        requests=(Series(f"{_KNATIVE_TIME}_count"),),
        errors=(Series(f"{_KNATIVE_TIME}_count", 'http_response_status_code=~"5.."'),),
        born_late=True,
        histogram=Histogram(_KNATIVE_TIME, bounds=_CLIENT_BOUNDS),
        mean=Mean(f"{_KNATIVE_TIME}_sum", f"{_KNATIVE_TIME}_count"),
        inflight=Series("kn_serving_queue_depth"),
        note="Only with request-metrics-protocol: prometheus in Knative's config-observability.",
    ),
)


#: The label of what Envoy counts by; the gateway's controller chooses its values.
ENVOY_CLUSTER: Final = "envoy_cluster_name"
_PART: Final = "-(?:predictor|transformer)"
#: A namespace or a name, as short as it can be, so that the part's name is not taken for a part of the model's.
_NAME: Final = "([^_/|]+?)"


@dataclass(frozen=True)
class Naming:
    """How a gateway's controller calls what Envoy counts by."""

    title: str
    #: Where the fact is from.
    fact: str
    #: Regular expression of the whole name, where the arguments of :meth:`of` stand in braces.
    form: str

    @property
    def expression(self) -> str:
        """Of the names that are a model's, with two groups: the namespace, and the InferenceService's name.

        The transformer where requests come in there.
        """
        return self.of(_NAME, f"{_NAME}{_PART}", "[0-9]+", f"{_NAME}(?:{_PART})?")

    def of(self, space: str, service: str, port: str, route: str) -> str:
        """The name, or an expression of names, for a namespace, a Service, its port's number, or a route's name."""
        return self.form.format(space=space, service=service, port=port, route=route)


CONTOUR: Final = Naming(
    "Contour", "contour v1.33.8 internal/envoy/cluster.go, AltStatName; seen on it", "{space}_{service}_{port}"
)
#: A name fits one of them at most.
NAMINGS: Final = (
    CONTOUR,
    Naming(
        "Envoy Gateway with mergeBackends",
        "gateway v1.9.1 internal/gatewayapi/helpers.go, irBackendClusterName",
        "service/{space}/{service}/{port}(?:/[-a-zA-Z0-9_]+)?",
    ),
    Naming(
        "Envoy Gateway with clusterStatName: %BACKEND_REFS%",
        "gateway v1.9.1 api/v1alpha1/envoyproxy_metric_types.go, internal/gatewayapi/route.go, buildStatName",
        "{space}/{service}",
    ),
    # A rule's name and not a Service's: KServe's own routes have one backend each, and are called after the model.
    Naming(
        "Envoy Gateway",
        "gateway v1.9.1 internal/gatewayapi/helpers.go, irRouteDestinationName; kserve v0.20.0 "
        "pkg/controller/v1beta1/inferenceservice/reconcilers/ingress/httproute_reconciler.go",
        "(?:httproute|grpcroute)/{space}/{route}/rule/[0-9]+",
    ),
)


@dataclass(frozen=True)
class Named:
    """The labels that say whose a series of a mesh is, in place of a pod's own."""

    #: The label of the namespace, and that of the workload or the Service.
    namespace: str
    name: str
    #: Regular expression of *name*'s values, whose group is the InferenceService's name.
    expression: str


#: By source. Istio's workload is the Deployment, for Knative that of a revision; of a mesh's two hops the second is the
#: model's. A gateway's caller knows the Service.
NAMED: Final = {
    "istio": Named("destination_workload_namespace", "destination_workload", "(.+)-predictor(?:-[0-9]+-deployment)?"),
    "istio-gateway": Named("destination_service_namespace", "destination_service_name", f"(.+){_PART}"),
}

#: Knative's revision of a pod, by its name: the Deployment is called REVISION-deployment
#: (knative.dev/serving pkg/reconciler/revision/resources/names), and KServe's Service NAME-predictor.
REVISION_OF_POD: Final = "(.+-predictor-[0-9]+)-deployment-.+"
#: The same for a mesh's series.
REVISION_OF_WORKLOAD: Final = Named(
    "destination_workload_namespace", "destination_workload", "(.+-predictor-[0-9]+)-deployment"
)

#: By name, in the order of the documents.
SOURCES: Final = {source.name: source for source in _ALL}


@dataclass(frozen=True)
class GpuSource:
    """What DCGM's exporter says of a GPU, with labels namespace and pod of the one that holds it."""

    #: Per cent. Absent in MIG mode, where *engine* is what there is.
    utilization: str = "DCGM_FI_DEV_GPU_UTIL"
    #: Ratio of the time that the engine computes, 0 to 1.
    engine: str = "DCGM_FI_PROF_GR_ENGINE_ACTIVE"
    #: MiB.
    memory_used: str = "DCGM_FI_DEV_FB_USED"
    memory_free: str = "DCGM_FI_DEV_FB_FREE"
    #: The last XID error's number.
    xid: str = "DCGM_FI_DEV_XID_ERRORS"
    fact: str = "NVIDIA/dcgm-exporter etc/default-counters.csv"

    @property
    def names(self) -> frozenset[str]:
        """All its metrics' names."""
        return frozenset((self.utilization, self.engine, self.memory_used, self.memory_free, self.xid))


GPU: Final = GpuSource()


@dataclass(frozen=True)
class ClusterSource:
    """What kube-state-metrics says of pods, Deployments, autoscalers and the state of rollouts, by their names."""

    available: str = "kube_deployment_status_replicas_available"
    wanted: str = "kube_deployment_spec_replicas"
    #: Labels condition and status (true, false, unknown), as for *scaler_condition*.
    deployment_condition: str = "kube_deployment_status_condition"
    #: Labels container and reason; the same for init containers.
    waiting: str = "kube_pod_container_status_waiting_reason"
    init_waiting: str = "kube_pod_init_container_status_waiting_reason"
    restarts: str = "kube_pod_container_status_restarts_total"
    unschedulable: str = "kube_pod_status_unschedulable"
    #: Label resource, with _ for what no label may hold: nvidia_com_gpu.
    requests: str = "kube_pod_container_resource_requests"
    scaler_condition: str = "kube_horizontalpodautoscaler_status_condition"
    scaler_now: str = "kube_horizontalpodautoscaler_status_current_replicas"
    scaler_least: str = "kube_horizontalpodautoscaler_spec_min_replicas"
    scaler_most: str = "kube_horizontalpodautoscaler_spec_max_replicas"
    #: Of the ConfigMap that holds a rollout's state; the labels are told where --metric-labels-allowlist names them.
    rollout: str = "kube_configmap_labels"
    rollout_version: str = "kube_configmap_metadata_resource_version"
    fact: str = "kube-state-metrics docs/metrics"

    @property
    def names(self) -> frozenset[str]:
        """All its metrics' names."""
        return frozenset(getattr(self, name) for name in self.__dataclass_fields__ if name != "fact")


CLUSTER: Final = ClusterSource()
#: The labels of a rollout's state (definitions/_rollout_history.py).
ROLLOUT_LABELS: Final = tuple(f"rollout.velagen/{name}" for name in ("component", "phase", "weight", "check"))
#: What kube-state-metrics is to be started with.
ROLLOUT_FLAG: Final = f"--metric-labels-allowlist=configmaps=[{','.join(ROLLOUT_LABELS)}]"

#: Time that a model server spent computing: the counter's name -> seconds in one unit of it.
BUSY: Final = {name: 1 / units for source in _ALL for name, units in source.busy}
