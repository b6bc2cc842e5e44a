"""What Kubernetes gives a pod: shared memory, a sidecar, files of two places, a budget; stopped, started again."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from tests.e2e.kind.serving import SMALL, Client, pods, put_model, run_in_image, up, wait_for, wait_healthy, wait_ready
from tests.e2e.kind.test_kind_models import TRAIN_SKLEARN

from velagen.lab import condition
from velagen.lab.api import ApiError
from velagen.lab.kind import KindLab
from velagen.lab.vela import vela

SERVER = "kserve/sklearnserver:v0.20.0"
#: Writes down what it finds, once a second, for half an hour at most.
BESIDE = "import time\nfor n in range(1800): open('/said/beside', 'w').write(str(n)); time.sleep(1)"
QUESTION = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
PATH = "/v1/models/whole:predict"


def properties(extra: str) -> dict[str, Any]:
    scratch = [{"name": "said", "mountPath": "/said"}]
    # What Pod Security restricted wants of every container; the addon writes it for its own alone.
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    beside = {"name": "beside", "image": SERVER, "command": ["python", "-c", BESIDE], "securityContext": closed}
    return {
        "runtime": "sklearn",
        "modelUri": "s3://models/iris",
        "artifacts": [{"uri": extra, "path": "/mnt/models/extra"}],
        "minReplicas": 2,
        "resources": SMALL,
        "pod": {
            "sharedMemory": "48Mi",
            "imagePullSecrets": [{"name": "hub"}],
            "volumes": [{"name": "said", "emptyDir": {}}],
            "volumeMounts": scratch,
            "sidecars": [{**beside, "resources": SMALL, "volumeMounts": scratch}],
        },
    }


def evict(lab: KindLab, space: str, pod: str) -> int:
    """Ask as a drain does; give the API server's HTTP status."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": space}}
    try:
        lab.api.request("POST", f"/api/v1/namespaces/{space}/pods/{pod}/eviction", json=body)
    except ApiError as error:
        return error.status
    return int(requests.codes.created)


@pytest.mark.seconds(120)
def test_a_whole_pod_runs_restricted_holds_a_drain_stops_and_starts(kind_lab: KindLab, space: str) -> None:
    kind_lab.load(["sklearnserver"])
    run_in_image(kind_lab, space, SERVER, TRAIN_SKLEARN)
    extra = put_model(kind_lab, f"{space}/extra", {"words.txt": "from another place"})
    # From here on: the pod that trained would be refused.
    restricted = {"name": space, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    kind_lab.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": restricted})
    budget = {"type": "availability", "properties": {"minAvailable": 1}}
    up(kind_lab, space, "whole", properties(extra), budget)
    wait_ready(kind_lab, space, "whole")
    client = Client(kind_lab, space, "whole")

    def answers() -> bool:
        # KServe's servers (uvicorn) close a connection that was idle for 5 s, and Envoy may send into it just then; the
        # next request is not that one's.
        found = next((one for one in (client.send(PATH, QUESTION) for _ in range(2)) if one.ok), None)
        return found is not None and found.json()["predictions"] == [0]

    assert answers()

    def both() -> list[dict[str, Any]]:
        found = [pod for pod in pods(kind_lab, space, "whole") if condition(pod, "Ready") == "True"]
        return found if len(found) == 2 else []

    # A Deployment begins with one; its autoscaler brings the other.
    wait_for(kind_lab, space, "whole", both, "two ready pods")
    running = both()
    first, second = (pod["metadata"]["name"] for pod in running)

    def inside(*command: str) -> str:
        return kind_lab.kubectl("exec", first, "-n", space, "-c", "kserve-container", "--", *command)

    # In KiB, as the kernel has it: 48 MiB, where a container has 64 of its own.
    assert inside("df", "-k", "/dev/shm").split("\n")[1].split()[1] == str(48 * 1024)
    assert inside("cat", "/mnt/models/extra/words.txt") == "from another place"
    assert "model.joblib" in inside("ls", "/mnt/models")
    assert inside("cat", "/said/beside").isdigit()
    assert running[0]["spec"]["imagePullSecrets"] == [{"name": "hub"}]

    # A drain takes one; the other one has to wait until there is a third.
    assert evict(kind_lab, space, first) == requests.codes.created
    assert evict(kind_lab, space, second) == requests.codes.too_many
    assert answers()

    def let_go() -> bool:
        status = evict(kind_lab, space, second)
        if status == requests.codes.created:
            # Only beside another one that is ready.
            assert answers()
            return True
        assert status == requests.codes.too_many
        time.sleep(1)
        return False

    wait_for(kind_lab, space, "whole", let_go, "the second pod let go")

    up(kind_lab, space, "whole", {**properties(extra), "stopped": True}, budget)
    wait_for(kind_lab, space, "whole", lambda: not pods(kind_lab, space, "whole"), "no pod left", 120)
    wait_healthy(kind_lab, space, "whole")
    assert "Stopped" in vela(kind_lab.kubeconfig, "status", "whole", "-n", space).stdout
    up(kind_lab, space, "whole", properties(extra), budget)
    wait_ready(kind_lab, space, "whole")
    wait_healthy(kind_lab, space, "whole")
    assert answers()
