"""GPUs on a real kubelet: offered, handed out, shared, measured, and what is left of them after faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import namespace_of
from tests.e2e.kind.serving import PATIENCE, checked, run_in_image
from tests.e2e.kind.test_kind_cluster import finished, pod
from tests.e2e.kind.test_kind_models import TRAIN_SKLEARN

from velagen.gpusim.inventory import node_gpus
from velagen.gpusim.manifest import NAME
from velagen.lab import condition, wait_until
from velagen.lab.kind import KindLab, gpus, prometheus
from velagen.lab.kind.stack import local
from velagen.lab.vela import vela

EXAMPLES = Path(__file__).parents[3] / "examples"
GPU = "nvidia.com/gpu"
SHARED = "nvidia.com/gpu.shared"
#: Two shares of a GPU, and no container may have both.
STRICT = yaml.safe_dump(
    {
        "version": "v1",
        "sharing": {
            "timeSlicing": {
                "renameByDefault": True,
                "failRequestsGreaterThanOne": True,
                "resources": [{"name": GPU, "replicas": 2}],
            }
        },
    }
)
SHOW = "import os; print(os.environ['NVIDIA_VISIBLE_DEVICES'])"
#: Says at its start what it sees, and says again and again how busy it is, for two minutes at most.
REPORT = """
import json, os, time, urllib.request
print(os.environ["NVIDIA_VISIBLE_DEVICES"], flush=True)
load = {"namespace": os.environ["SPACE"], "pod": "busy", "utilization": 82, "memoryMiB": 1200, "seconds": 5}
for _ in range(60):
    urllib.request.urlopen(os.environ["VELAGEN_GPUSIM_URL"], json.dumps(load).encode(), timeout=5).close()
    time.sleep(2)
"""


@pytest.fixture(scope="module")
def simulated(kind_lab: KindLab) -> Iterator[KindLab]:
    """The lab with the images the tests use; whole GPUs are left behind."""
    kind_lab.load(["python"])
    yield kind_lab
    gpus.install(kind_lab)


@pytest.fixture
def whole(simulated: KindLab) -> KindLab:
    gpus.install(simulated)
    becomes(lambda: held(simulated), set(), "no GPU held by a pod of an earlier test")
    return simulated


@pytest.fixture
def shared(simulated: KindLab) -> KindLab:
    gpus.install(simulated, config=STRICT)
    becomes(lambda: held(simulated), set(), "no GPU held by a pod of an earlier test")
    return simulated


def node(lab: KindLab) -> dict[str, Any]:
    return lab.api.list("v1", "Node")[0]


def allocatable(lab: KindLab, resource: str = GPU) -> int:
    return int(node(lab)["status"]["allocatable"].get(resource, 0))


def ids(lab: KindLab) -> list[str]:
    return [gpu.uuid for gpu in node_gpus(node(lab)["metadata"]["name"])]


def asking(lab: KindLab, name: str, space: str, *command: str, resource: str = GPU, count: int = 1) -> dict[str, Any]:
    """A pod with GPUs, on the first node."""
    thing = pod(name, space, *command)
    thing["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node(lab)["metadata"]["name"]}
    container = thing["spec"]["containers"][0]
    container["resources"] = {"limits": {resource: str(count)}}
    container["env"] = [{"name": "SPACE", "value": space}, {"name": "PYTHONUNBUFFERED", "value": "1"}]
    return thing


def phase(lab: KindLab, space: str, name: str) -> str:
    return str((lab.api.get("v1", "Pod", name, space) or {}).get("status", {}).get("phase", ""))


def run(lab: KindLab, space: str, name: str, code: str = f"{SHOW}\nimport time; time.sleep(600)") -> str:
    """Start a pod with one GPU; give what it sees.

    A pod that is bound before the plugin has registered again is refused by the kubelet for good, on real GPUs too; the
    next one is made then, as a Deployment does it.
    """
    thing = asking(lab, name, space, "python", "-c", code)
    lab.api.apply(thing)

    def seen() -> str:
        status = (lab.api.get("v1", "Pod", name, space) or {}).get("status", {})
        if status.get("phase") == "Failed":
            assert status.get("reason") == "UnexpectedAdmissionError", status
            print(f"{name}: {status.get('message')}")
            lab.kubectl("delete", "pod", name, "-n", space, "--force", "--wait")
            lab.api.apply(thing)
        return lab.kubectl("logs", name, "-n", space).strip() if status.get("phase") == "Running" else ""

    try:
        return wait_until(seen, what=f"pod {name}", timeout=90, every=0.5)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {(lab.api.get('v1', 'Pod', name, space) or {}).get('status')}") from error


def simulator(lab: KindLab) -> dict[str, Any]:
    """The simulator's pod, once there is one and no other."""

    def one() -> dict[str, Any] | None:
        found = [
            entry
            for entry in lab.api.list("v1", "Pod", gpus.NAMESPACE)
            if entry["metadata"].get("labels", {}).get("app.kubernetes.io/name") == NAME
            and entry["spec"]["nodeName"] == node(lab)["metadata"]["name"]
        ]
        return found[0] if len(found) == 1 and condition(found[0], "Ready") == "True" else None

    found = wait_until(one, what="the simulator's pod", timeout=90, every=0.5)
    assert found is not None
    return found


def inside(lab: KindLab, *command: str) -> str:
    return lab.kubectl("exec", simulator(lab)["metadata"]["name"], "-n", gpus.NAMESPACE, "--", *command)


def metrics(lab: KindLab) -> list[tuple[str, dict[str, str], float]]:
    """What the simulator serves, through the API server's proxy."""
    name = simulator(lab)["metadata"]["name"]
    text = lab.api.request("GET", f"/api/v1/namespaces/{gpus.NAMESPACE}/pods/{name}:9400/proxy/metrics")
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def held(lab: KindLab) -> set[str]:
    """The pods that have GPUs, as the kubelet tells the simulator."""
    return {tags["pod"] for _, tags, _ in metrics(lab) if tags["pod"]}


def of_pod(lab: KindLab, space: str, name: str) -> dict[str, float]:
    return {key: value for key, tags, value in metrics(lab) if (tags["namespace"], tags["pod"]) == (space, name)}


def becomes(look: Callable[[], object], wanted: object, what: str, timeout: float = 60) -> None:
    seen: list[object] = []

    def same() -> bool:
        seen[:] = [look()]
        return seen[0] == wanted

    try:
        wait_until(same, what=what, timeout=timeout, every=0.5)
    except TimeoutError as error:
        raise AssertionError(f"{error}: {seen[0]!r}, not {wanted!r}") from error


def scheduler_says(lab: KindLab, space: str, name: str) -> str:
    """The scheduler's sentence about a pod it found no node for."""
    for entry in (lab.api.get("v1", "Pod", name, space) or {}).get("status", {}).get("conditions", []):
        if entry["type"] == "PodScheduled" and entry["status"] == "False":
            assert entry["reason"] == "Unschedulable"
            return str(entry["message"])
    return ""


# -- what a kubelet and a scheduler see


def test_every_node_offers_two_t4s_with_the_labels_of_gpu_feature_discovery(whole: KindLab) -> None:
    for found in whole.api.list("v1", "Node"):
        assert found["status"]["allocatable"][GPU] == found["status"]["capacity"][GPU] == "2"
        labels = found["metadata"]["labels"]
        assert {key: labels.get(f"{GPU}.{key}") for key in ("product", "count", "memory", "replicas", "family")} == {
            "product": "Tesla-T4",
            "count": "2",
            "memory": "15360",
            "replicas": "1",
            "family": "turing",
        }
        assert labels[f"{GPU}.sharing-strategy"] == "none"


def test_a_container_sees_one_gpu_of_its_node(whole: KindLab, space: str) -> None:
    whole.api.apply(asking(whole, "one", space, "python", "-c", SHOW))
    assert finished(whole, space, "one").strip() in ids(whole)


def test_a_container_with_two_gpus_sees_both(whole: KindLab, space: str) -> None:
    whole.api.apply(asking(whole, "two", space, "python", "-c", SHOW, count=2))
    assert sorted(finished(whole, space, "two").strip().split(",")) == sorted(ids(whole))


def test_a_pod_without_a_gpu_sees_none(whole: KindLab, space: str) -> None:
    whole.api.apply(pod("none", space, "python", "-c", "import os; print(os.environ.get('NVIDIA_VISIBLE_DEVICES'))"))
    assert finished(whole, space, "none").strip() == "None"


def test_two_pods_run_and_the_third_waits_for_a_gpu(whole: KindLab, space: str) -> None:
    first, second = (run(whole, space, name) for name in ("a", "b"))
    assert sorted([first, second]) == sorted(ids(whole))
    whole.api.apply(asking(whole, "c", space, "python", "-c", SHOW))
    said = wait_until(lambda: scheduler_says(whole, space, "c"), what="the scheduler's reason", timeout=60, every=0.5)
    assert f"1 Insufficient {GPU}" in said
    assert phase(whole, space, "c") == "Pending"
    whole.api.delete("v1", "Pod", "a", space)
    assert finished(whole, space, "c").strip() == first


def test_load_follows_what_the_pod_reports(whole: KindLab, space: str) -> None:
    visible = run(whole, space, "busy", REPORT)
    becomes(
        lambda: of_pod(whole, space, "busy").get("DCGM_FI_DEV_GPU_UTIL"), 82.0, "the reported utilization", timeout=30
    )
    found = of_pod(whole, space, "busy")
    assert found["DCGM_FI_DEV_FB_USED"] == 1200
    assert found["DCGM_FI_DEV_FB_FREE"] == 15360 - 1200
    series = {tags["UUID"]: (tags, value) for name, tags, value in metrics(whole) if name == "DCGM_FI_DEV_GPU_UTIL"}
    tags, _ = series.pop(visible)
    assert (tags["namespace"], tags["pod"], tags["container"]) == (space, "busy", "main")
    assert (tags["modelName"], tags["Hostname"]) == ("Tesla T4", node(whole)["metadata"]["name"])
    # The other GPU is idle, and nobody's.
    ((tags, value),) = series.values()
    assert (tags["pod"], value) == ("", 0)
    whole.api.delete("v1", "Pod", "busy", space)
    becomes(lambda: of_pod(whole, space, "busy"), {}, "no series of a pod that is gone")


def test_prometheus_has_the_load_of_a_pod(whole: KindLab, space: str) -> None:
    if whole.api.get("apps/v1", "Deployment", prometheus.NAME, prometheus.NAMESPACE) is None:
        pytest.skip("the lab runs without the layer prometheus")
    run(whole, space, "busy", REPORT)
    query = {"query": f'DCGM_FI_DEV_GPU_UTIL{{namespace="{space}",pod="busy"}}'}

    def value() -> str:
        try:
            answer = local().get(f"{whole.url('prometheus')}/api/v1/query", params=query, timeout=10).json()
        except requests.RequestException:
            return ""
        series = answer["data"]["result"]
        return str(series[0]["value"][1]) if series else ""

    becomes(value, "82", "the series in Prometheus")


# -- faults


def test_a_gpu_that_breaks_is_offered_no_more_and_its_pod_goes_on(whole: KindLab, space: str) -> None:
    visible = run(whole, space, "holder")
    number = str(ids(whole).index(visible))
    inside(whole, "velagen", "gpusim", "unplug", number)
    try:
        becomes(lambda: allocatable(whole), 1, "one GPU left")
        assert int(node(whole)["status"]["capacity"][GPU]) == 2
        assert of_pod(whole, space, "holder")["DCGM_FI_DEV_XID_ERRORS"] == 79
        assert phase(whole, space, "holder") == "Running"
        # The scheduler counts and knows no ids: the pod on the broken GPU takes the place of the one that is left.
        whole.api.apply(asking(whole, "next", space, "python", "-c", SHOW))
        wait_until(lambda: scheduler_says(whole, space, "next"), what="no place", timeout=60, every=0.5)
        whole.api.delete("v1", "Pod", "holder", space)
        # Handed out then is the whole one, and not the broken one that is free as well.
        assert finished(whole, space, "next").strip() == next(id_ for id_ in ids(whole) if id_ != visible)
        run(whole, space, "other")
    finally:
        inside(whole, "velagen", "gpusim", "plug", number)
    # As with the real plugin, only a new start finds it again.
    time.sleep(3)
    assert allocatable(whole) == 1
    inside(whole, "sh", "-c", "kill -HUP 1")
    becomes(lambda: allocatable(whole), 2, "both GPUs again")
    assert phase(whole, space, "other") == "Running"
    assert run(whole, space, "again") == visible


def on_node(lab: KindLab, *command: str) -> None:
    lab._need().engine.run("exec", node(lab)["metadata"]["name"], *command, timeout=120)


def restart_kubelet(lab: KindLab) -> None:
    on_node(lab, "systemctl", "restart", "kubelet")


def kill_plugin(lab: KindLab) -> None:
    (status,) = simulator(lab)["status"]["containerStatuses"]
    container = status["containerID"].removeprefix("containerd://")
    on_node(lab, "ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)
    becomes(
        lambda: simulator(lab)["status"]["containerStatuses"][0]["restartCount"],
        status["restartCount"] + 1,
        "the next start of the plugin",
        timeout=120,
    )


def delete_plugin(lab: KindLab) -> None:
    name = simulator(lab)["metadata"]["name"]
    lab.api.delete("v1", "Pod", name, gpus.NAMESPACE)
    wait_until(lambda: simulator(lab)["metadata"]["name"] != name, what="another pod", timeout=120, every=0.5)


@pytest.mark.parametrize(
    "fault",
    [pytest.param(restart_kubelet, marks=pytest.mark.alone), kill_plugin, delete_plugin],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_is_survived_with_the_same_ids(whole: KindLab, space: str, fault: Callable[[KindLab], None]) -> None:
    before = run(whole, space, "before")
    fault(whole)
    # Registered again: the free GPU, and not the one that is taken, goes to the next pod.
    after = run(whole, space, "after")
    assert sorted([before, after]) == sorted(ids(whole))
    becomes(lambda: allocatable(whole), 2, "both GPUs")
    started = (whole.api.get("v1", "Pod", "before", space) or {})["status"]
    assert started["phase"] == "Running"
    assert started["containerStatuses"][0]["restartCount"] == 0
    # Who holds what is still known: the kubelet wrote it down, and the ids are those it knows.
    holders = {tags["pod"]: tags["UUID"] for name, tags, _ in metrics(whole) if name == "DCGM_FI_DEV_GPU_UTIL"}
    assert holders == {"before": before, "after": after}


# -- sharing


def test_shares_have_a_name_of_their_own_and_labels_that_say_so(shared: KindLab, space: str) -> None:
    assert (allocatable(shared, SHARED), allocatable(shared)) == (4, 0)
    labels = node(shared)["metadata"]["labels"]
    assert labels[f"{GPU}.replicas"] == "2"
    assert labels[f"{GPU}.sharing-strategy"] == "time-slicing"
    # Whole GPUs are no longer available.
    shared.api.apply(asking(shared, "whole", space, "python", "-c", SHOW))
    said = wait_until(
        lambda: scheduler_says(shared, space, "whole"), what="the scheduler's reason", timeout=60, every=0.5
    )
    assert f"1 Insufficient {GPU}" in said


def test_the_kubelet_refuses_a_container_that_asks_for_two_shares(shared: KindLab, space: str) -> None:
    shared.api.apply(asking(shared, "greedy", space, "python", "-c", SHOW, resource=SHARED, count=2))
    becomes(lambda: phase(shared, space, "greedy"), "Failed", "a refusal")
    status = (shared.api.get("v1", "Pod", "greedy", space) or {})["status"]
    assert status["reason"] == "UnexpectedAdmissionError"
    assert "maximum request size for shared resources is 1; found 2" in status["message"]


# -- models that share GPUs


def application(name: str, space: str, resource: str = "") -> dict[str, Any]:
    """A small model with half a GPU by the trait, or with a whole one of this resource by the component."""
    resources: dict[str, Any] = {"requests": {"cpu": "20m"}, "limits": {"cpu": "1"}}
    component: dict[str, Any] = {"name": name, "type": "kfserving"}
    if resource:
        resources["limits"][resource] = 1
    else:
        component["traits"] = [{"type": "gpu-share", "properties": {"fraction": 0.5}}]
    component["properties"] = {
        "runtime": "sklearn",
        "modelUri": "s3://models/iris",
        "minReplicas": 1,
        "maxReplicas": 1,
        "resources": resources,
    }
    return checked(component, space)


@pytest.fixture(scope="module")
def model(simulated: KindLab) -> None:
    """The addon, and one model in the store that all applications serve."""
    found = simulated.api.get("core.oam.dev/v1beta1", "ComponentDefinition", "kfserving", "vela-system")
    assert found is not None, "the addon is not enabled"
    simulated.load(["sklearnserver"])
    with namespace_of(simulated.api, "k") as space:
        run_in_image(simulated, space, "kserve/sklearnserver:v0.20.0", TRAIN_SKLEARN)


def ready(lab: KindLab, space: str) -> list[str]:
    services = lab.api.list("serving.kserve.io/v1beta1", "InferenceService", space)
    return sorted(entry["metadata"]["name"] for entry in services if condition(entry, "Ready") == "True")


def some_fit(lab: KindLab, space: str, fit: int, resource: str) -> None:
    """Deploy one more model than there is room for: it alone waits, and its status says for what."""
    whole = GPU if resource == GPU else ""
    names = [f"model-{number}" for number in range(1, fit + 2)]
    for name in names[:-1]:
        lab.api.apply(application(name, space, whole))
    becomes(lambda: ready(lab, space), names[:-1], f"{fit} models", timeout=PATIENCE)
    last = names[-1]
    lab.api.apply(application(last, space, whole))
    # The component's own message says that pods wait; the step's for what, in the scheduler's words.
    wanted = (
        "wait for a node",
        "1 of its pods can't be scheduled: 0/1 nodes are available",
        f"1 Insufficient {resource}",
    )

    def said() -> str:
        return vela(lab.kubeconfig, "status", last, "-n", space).stdout

    def told() -> bool:
        shown = said()
        return all(part in shown for part in wanted)

    try:
        wait_until(told, what="the scheduler's reason in vela status", timeout=120, every=3)
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{said()}") from error
    (waits,) = lab.api.list("v1", "Pod", space, selector=f"serving.kserve.io/inferenceservice={last}")
    assert waits["status"]["phase"] == "Pending"
    assert ready(lab, space) == names[:-1]
    # One goes, the one that waited comes.
    lab.api.delete("core.oam.dev/v1beta1", "Application", names[0], space)
    becomes(lambda: ready(lab, space), names[1:], "the model that waited", timeout=PATIENCE)


def test_four_models_of_half_a_gpu_run_and_the_fifth_says_why_it_waits(
    shared: KindLab, model: None, space: str
) -> None:
    some_fit(shared, space, 4, SHARED)
    held = [tags for name, tags, _ in metrics(shared) if name == "DCGM_FI_DEV_GPU_UTIL" and tags["namespace"] == space]
    # Two of them on each GPU.
    assert sorted(tags["UUID"] for tags in held) == sorted([*ids(shared), *ids(shared)])


def test_with_whole_gpus_two_models_run_and_the_third_says_why_it_waits(
    whole: KindLab, model: None, space: str
) -> None:
    some_fit(whole, space, 2, GPU)


def test_on_a_full_pool_surge_waits_and_says_so_and_in_place_goes_on(whole: KindLab, model: None, space: str) -> None:
    """Two models have a GPU each, and one of them is changed."""
    for name in ("model-1", "model-2"):
        whole.api.apply(application(name, space, GPU))
    becomes(lambda: ready(whole, space), ["model-1", "model-2"], "both models", timeout=PATIENCE)
    changed = application("model-2", space, GPU)
    told = changed["spec"]["components"][0]["properties"]
    told.update(env=[{"name": "CHANGED", "value": "1"}], rollout="surge")
    whole.api.apply(changed)

    def said() -> str:
        return " ".join(vela(whole.kubeconfig, "status", "model-2", "-n", space).stdout.split())

    becomes(lambda: "rollout: in-place" in said(), True, "in-place named by vela status", timeout=120)
    selector = "serving.kserve.io/inferenceservice=model-2"
    assert sorted(pod["status"]["phase"] for pod in whole.api.list("v1", "Pod", space, selector=selector)) == [
        "Pending",
        "Running",
    ]
    told["rollout"] = "in-place"
    whole.api.apply(changed)

    def rolled() -> bool:
        (*others, pod) = whole.api.list("v1", "Pod", space, selector=selector) or [{}]
        return not others and condition(pod, "Ready") == "True" and "CHANGED" in str(pod["spec"])

    becomes(rolled, True, "the new version in the old one's place", timeout=PATIENCE)


# -- every mode's pods


#: What a container asks for in each mode, beside cpu and memory.
ASKED = {
    "time-slicing": {SHARED: "1"},
    "mps": {SHARED: "1"},
    "mig": {"nvidia.com/mig-3g.20gb": "1"},
    "hami": {GPU: "1", "nvidia.com/gpumem-percentage": "30", "nvidia.com/gpucores": "30"},
    "volcano": {
        "volcano.sh/vgpu-number": "1",
        "volcano.sh/vgpu-memory-percentage": "30",
        "volcano.sh/vgpu-cores": "30",
    },
    "kai": {},
}


@pytest.mark.parametrize("mode", ASKED)
def test_the_pods_of_every_mode_are_made(whole: KindLab, model: None, space: str, mode: str) -> None:
    """KServe and the API server take them; what they ask for is not there, so they wait."""
    thing = yaml.safe_load((EXAMPLES / f"gpu-share-{mode}.yaml").read_text())
    thing["metadata"]["namespace"] = space
    (component,) = thing["spec"]["components"]
    whole.api.apply(thing)
    selector = f"serving.kserve.io/inferenceservice={component['name']}"
    found = wait_until(
        lambda: whole.api.list("v1", "Pod", space, selector=selector), what="pods", timeout=90, every=0.5
    )
    spec, metadata = found[0]["spec"], found[0]["metadata"]
    (server,) = [entry for entry in spec["containers"] if entry["name"] == "kserve-container"]
    limits = server["resources"]["limits"]
    assert {key: value for key, value in limits.items() if key not in {"cpu", "memory"}} == ASKED[mode]
    # An amount of what can't be overcommitted is asked for as it is limited.
    assert {key: server["resources"]["requests"][key] for key in ASKED[mode]} == ASKED[mode]
    assert found[0]["status"]["phase"] == "Pending"
    if mode in {"volcano", "kai"}:
        # Nobody places it here: the scheduler it names is not installed.
        assert spec["schedulerName"] == {"volcano": "volcano", "kai": "kai-scheduler"}[mode]
    else:
        said = wait_until(
            lambda: scheduler_says(whole, space, metadata["name"]), what="the scheduler's reason", timeout=60, every=0.5
        )
        assert "0/1 nodes are available" in said
    if mode == "kai":
        # What KAI's admission asks for: a fraction below 1, no whole GPU beside it (its gpu_request_validator.go).
        assert 0 < float(metadata["annotations"]["gpu-fraction"]) < 1
        assert metadata["labels"]["kai.scheduler/queue"]
    # Neither HAMi's nor KAI's admission takes what is placed already or privileged.
    assert "nodeName" not in spec
    assert not any((entry.get("securityContext") or {}).get("privileged") for entry in spec["containers"])


def test_a_pod_gets_a_mig_device(simulated: KindLab, space: str) -> None:
    kind = "a100-40gb:3g.20gb,3g.20gb"
    gpus.install(simulated, (kind,), yaml.safe_dump({"version": "v1", "flags": {"migStrategy": "mixed"}}))
    name = "nvidia.com/mig-3g.20gb"
    assert allocatable(simulated, name) == 2
    labels = node(simulated)["metadata"]["labels"]
    assert labels[f"{name}.product"] == "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"
    simulated.api.apply(asking(simulated, "part", space, "python", "-c", SHOW, resource=name))
    (gpu,) = node_gpus(node(simulated)["metadata"]["name"], (kind,))
    assert finished(simulated, space, "part").strip() in {device.uuid for device in gpu.mig}


def test_a_pod_gets_a_share_by_mps(simulated: KindLab, space: str) -> None:
    sharing = {"mps": {"renameByDefault": True, "resources": [{"name": GPU, "replicas": 2}]}}
    gpus.install(simulated, config=yaml.safe_dump({"version": "v1", "sharing": sharing}))
    assert allocatable(simulated, SHARED) == 4
    assert node(simulated)["metadata"]["labels"][f"{GPU}.sharing-strategy"] == "mps"
    code = f"{SHOW}; print(os.environ['CUDA_MPS_PIPE_DIRECTORY'], os.path.isdir(os.environ['CUDA_MPS_PIPE_DIRECTORY']))"
    thing = asking(simulated, "client", space, "python", "-c", code, resource=SHARED)
    # What the trait gpu-share writes for this mode.
    thing["spec"]["nodeSelector"] = {f"{GPU}.sharing-strategy": "mps", f"{GPU}.replicas": "2"}
    simulated.api.apply(thing)
    visible, directory = finished(simulated, space, "client").split("\n", 1)
    assert visible in ids(simulated)
    assert directory.strip() == f"/mps/{SHARED}/pipe True"
