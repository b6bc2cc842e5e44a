"""KubeVela takes over an InferenceService that serves, and its pods go on serving.

KubeVela labels what it applies, KServe copies an InferenceService's labels to its pods, and a Deployment replaces pods
whose template has other labels. Three facts of Kubernetes lead round it:

- The labels and annotations of a pod that runs can be changed.
- So can the template of a ReplicaSet: its selector alone is immutable (apps/v1 ReplicaSetSpec).
- Of several ReplicaSets with the Deployment's template its controller goes on with the oldest
  (pkg/controller/deployment/util/deployment_util.go, FindNewReplicaSet).

So the ReplicaSet that is there gets the Deployment's new labels as soon as the Deployment has them. The pod more that
the Deployment asked for in the meantime ends again. Where more than labels and annotations would change, nothing is
done: such pods have to be replaced.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from velagen.adopt.compare import compared
from velagen.errors import Problem, VelagenError
from velagen.kserve.cut import PARTS
from velagen.kubernetes.objects import KubernetesObject
from velagen.monitoring.cluster import Cluster, ClusterError

#: Seconds: KubeVela renders and applies, KServe follows.
PATIENCE: Final = 300.0
#: Seconds in which nothing may change before it is over.
_SETTLED: Final = 3.0
_EVERY: Final = 0.25
_ISVC: Final = "/apis/serving.kserve.io/v1beta1"
_SERVICE_OF: Final = "serving.kserve.io/inferenceservice"
_HASH: Final = "pod-template-hash"
_REVISION: Final = "deployment.kubernetes.io/revision"
_APPLICATION: Final = "app.oam.dev/name"
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_TRIES: Final = 10
_LATER: Final = "vela up with the file gives it the rollout strategy that the file says"
#: A pod that serves ends only when another is ready. One more, however many there are: it is not for long.
_ONE_MORE: Final = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


class Writer(Cluster):
    """A cluster that is changed, too."""

    def patch(self, path: str, change: dict[str, Any]) -> None:
        """Merge a change into what lies at a path (RFC 7396). Raises ClusterError."""
        self._bytes(path, {}, "PATCH", change)

    def create(self, application: dict[str, Any]) -> KubernetesObject:
        """Create an Application, and give it as the API server has it. Raises ClusterError."""
        made: KubernetesObject = json.loads(self._bytes(_applications(application), {}, "POST", application))
        return made

    def replace(self, made: KubernetesObject, spec: dict[str, Any]) -> None:
        """Give an Application another spec, as `vela up` does, as long as it is the one that was made here.

        Raises VelagenError where somebody changed or deleted it, or put another in its place: theirs is kept.
        """
        name = made["metadata"]["name"]
        path = f"{_applications(made)}/{name}"
        for _ in range(_TRIES):
            there = self.get(path)
            if there is None or any(there["metadata"][key] != made["metadata"][key] for key in ("uid", "generation")):
                raise VelagenError(
                    Problem(
                        f"the Application {name} was changed or deleted meanwhile, and is left as it is", hint=_LATER
                    )
                )
            try:
                self._bytes(path, {}, "PUT", {**there, "spec": spec})
            except ClusterError as error:
                if error.status != _CONFLICT:  # KubeVela wrote its status between
                    raise
            else:
                return
        raise VelagenError(Problem(f"the Application {name} changes all the time", hint=_LATER))


@dataclass
class TakenOver:
    """What became of one InferenceService."""

    name: str
    #: Names of the pods that went on serving.
    kept: list[str] = field(default_factory=list)
    #: Why pods are replaced all the same, a line each; empty where they are not.
    replaced: list[str] = field(default_factory=list)


@dataclass
class _Held:
    """A Deployment, and the ReplicaSet and pods that serve."""

    deployment: KubernetesObject
    replicas: KubernetesObject
    pods: list[KubernetesObject]

    @property
    def name(self) -> str:
        return str(self.deployment["metadata"]["name"])


def services_of(application: Mapping[str, Any]) -> list[str]:
    """The InferenceServices that an Application takes over, by name; they are called as its components.

    Raises VelagenError where there is none, and where it has no policy take-over: without it KubeVela refuses what is
    there already.
    """
    spec = application.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    name = (application.get("metadata") or {}).get("name")
    if not any(one.get("type") == "take-over" for one in _dicts(spec.get("policies"))):
        raise VelagenError(
            Problem(f"the Application {name} has no policy take-over", hint="velagen adopt --cluster writes it")
        )
    names = [
        str(one.get("name", ""))
        for one in _dicts(spec.get("components"))
        if one.get("type") == "kfserving" or _has_service(one.get("properties"))
    ]
    if not names:
        raise VelagenError(Problem(f"the Application {name} has no model"))
    return names


def take_over(cluster: Writer, application: dict[str, Any], say: Callable[[str], None]) -> list[TakenOver]:
    """Create an Application over InferenceServices that serve, and keep their pods.

    In: a cluster; the Application, as `velagen adopt --cluster --keep-pods` wrote it, with its namespace; what hears of
    each step. Out: what became of each InferenceService. Raises VelagenError, before anything is changed, where the
    Application exists, or an InferenceService does not or is KubeVela's already; and where KubeVela or KServe does not
    follow in time.
    """
    namespace = application["metadata"]["namespace"]
    names = services_of(application)
    problems = [problem for name in names if (problem := _refused(cluster, namespace, name))]
    if cluster.get(f"{_applications(application)}/{application['metadata']['name']}"):
        problems.append(
            Problem(
                f"the Application {application['metadata']['name']} exists already in the namespace {namespace}",
                hint="vela up changes it; its models' pods are replaced once where it takes one over",
            )
        )
    held = {name: _held(cluster, namespace, name) for name in names}
    if not problems:
        problems = [problem for name in names if (problem := _unfit(cluster, name, held[name]))]
    if problems:
        raise VelagenError(problems)
    careful = _with_one_more(application, held)
    say("KubeVela takes over " + ", ".join(names))
    made = cluster.create(careful or application)
    results = _kept(cluster, namespace, held)
    if careful:
        say("the rollout strategy is what the Application says")
        cluster.replace(made, application["spec"])
    return results


def _applications(application: Mapping[str, Any]) -> str:
    return f"/apis/core.oam.dev/v1beta1/namespaces/{application['metadata']['namespace']}/applications"


def _has_service(properties: Any) -> bool:
    objects = properties.get("objects") if isinstance(properties, dict) else None
    return any(one.get("kind") == "InferenceService" for one in _dicts(objects))


def _dicts(listed: Any) -> list[dict[str, Any]]:
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _refused(cluster: Cluster, namespace: str, name: str) -> Problem | None:
    service = cluster.get(f"{_ISVC}/namespaces/{namespace}/inferenceservices/{name}")
    if service is None:
        return Problem(f"there is no InferenceService {name} in the namespace {namespace}")
    owner = (service["metadata"].get("labels") or {}).get(_APPLICATION)
    if owner:
        return Problem(
            f"the InferenceService {name} belongs to the Application {owner} already", hint="vela up changes it"
        )
    return None


def _unfit(cluster: Cluster, name: str, held: list[_Held]) -> Problem | None:
    """Why the pods of a service can't be kept now."""
    if not held:
        return Problem(
            f"the InferenceService {name} has no Deployment of its own: it is stopped, or in Knative mode, where a new "
            "revision takes over once it is ready",
            hint="vela up takes it over",
        )
    busy = [one.name for one in held if not _in_use(cluster, one.deployment, one)]
    if busy:
        return Problem(f"pods of {' and '.join(busy)} are being replaced", hint="wait until they are, and try again")
    return None


def _held(cluster: Cluster, namespace: str, name: str) -> list[_Held]:
    """The Deployments of a service with what serves; Knative's have other names."""
    found = []
    names = {f"{name}-{part}" for part in PARTS}
    for deployment in cluster.list("apps/v1", "deployments", namespace, labelSelector=f"{_SERVICE_OF}={name}"):
        if deployment["metadata"]["name"] not in names:
            continue
        revision = (deployment["metadata"].get("annotations") or {}).get(_REVISION)
        for replicas in _replica_sets(cluster, deployment):
            if (replicas["metadata"].get("annotations") or {}).get(_REVISION) == revision:
                found.append(_Held(deployment, replicas, _pods(cluster, replicas)))
    return found


def _replica_sets(cluster: Cluster, deployment: KubernetesObject) -> list[KubernetesObject]:
    return _owned(cluster, deployment, "apps/v1", "replicasets")


def _pods(cluster: Cluster, replicas: KubernetesObject) -> list[KubernetesObject]:
    found = _owned(cluster, replicas, "v1", "pods")
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


def _owned(cluster: Cluster, owner: KubernetesObject, group: str, plural: str) -> list[KubernetesObject]:
    selector = ",".join(f"{key}={value}" for key, value in owner["spec"]["selector"]["matchLabels"].items())
    listed = cluster.list(group, plural, owner["metadata"]["namespace"], labelSelector=selector)
    uid = owner["metadata"]["uid"]
    return [one for one in listed if any(ref["uid"] == uid for ref in one["metadata"].get("ownerReferences") or ())]


def _with_one_more(application: dict[str, Any], held: Mapping[str, list[_Held]]) -> dict[str, Any] | None:
    """The Application under which no pod ends before another is ready; None where it is so already."""
    careful = copy.deepcopy(application)
    changed = False
    for component in careful["spec"]["components"]:
        strategies = {
            part: {"deploymentStrategy": _ONE_MORE}
            for part in PARTS
            for one in held.get(component["name"], ())
            if one.name == f"{component['name']}-{part}" and _may_lack(one.deployment)
        }
        if strategies:
            patch = {"type": "json-merge-patch", "properties": {"spec": strategies}}
            component["traits"] = [*(component.get("traits") or ()), patch]
            changed = True
    return careful if changed else None


def _may_lack(deployment: KubernetesObject) -> bool:
    """Whether a Deployment ends pods before others are ready (apps/v1 DeploymentStrategy, percentages round down)."""
    strategy = deployment["spec"].get("strategy") or {}
    allowed = (strategy.get("rollingUpdate") or {}).get("maxUnavailable", 0)
    if isinstance(allowed, str):
        allowed = math.floor(int(allowed.rstrip("%")) / 100 * int(deployment["spec"].get("replicas", 1)))
    more = (strategy.get("rollingUpdate") or {}).get("maxSurge", 1)
    # Kubernetes makes one of two zeros a pod that may be missing.
    return strategy.get("type") == "Recreate" or int(allowed) > 0 or more in (0, "0%")


def _kept(cluster: Writer, namespace: str, held: Mapping[str, list[_Held]]) -> list[TakenOver]:
    """Follow all Deployments until they have settled, and keep the ReplicaSets of those in use that it can be for.

    All at once: KServe changes them at the same time, and what one asks for more may be ready within seconds.
    """
    ends = time.monotonic() + PATIENCE
    followed = {name: [_Followed(one) for one in own] for name, own in held.items()}
    while open_ones := [one for own in followed.values() for one in own if not one.is_over]:
        if time.monotonic() > ends:
            raise VelagenError(one.overdue for one in open_ones)
        for one in open_ones:
            one.look(cluster, namespace)
        time.sleep(_EVERY)
    results = []
    for name, own in followed.items():
        result = TakenOver(name, replaced=[line for one in own for line in one.replaced])
        for one in own:
            there = {pod["metadata"]["uid"] for pod in _pods(cluster, one.held.replicas)}
            result.kept += [pod["metadata"]["name"] for pod in one.held.pods if pod["metadata"]["uid"] in there]
        results.append(result)
    return results


class _Followed:
    """One Deployment, from before it is changed until it has settled."""

    def __init__(self, held: _Held) -> None:
        self.held = held
        self.replaced: list[str] = []
        self._relabelled = False
        self._settled = time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether it has settled, or its pods are replaced."""
        return bool(self.replaced) or (self._relabelled and time.monotonic() - self._settled > _SETTLED)

    @property
    def overdue(self) -> Problem:
        """What is said where it is not over in time."""
        told = "settle" if self._relabelled else "get KubeVela's labels"
        return Problem(
            f"the Deployment {self.held.name} did not {told} within {PATIENCE:.0f} s",
            hint="vela status says how far KubeVela came; vela up with the file goes on, and replaces pods that don't "
            "have its labels yet",
        )

    def look(self, cluster: Writer, namespace: str) -> None:
        """Give the ReplicaSet that is there the Deployment's labels and annotations, where they have changed."""
        held = self.held
        deployment = cluster.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{held.name}")
        if deployment is None:
            raise VelagenError(Problem(f"the Deployment {held.name} was deleted meanwhile"))
        template, before = deployment["spec"]["template"], held.deployment["spec"]["template"]
        if template == before and not self._relabelled:
            return
        others = list(compared(_bare(before), _bare(template)))
        if others:
            self.replaced = [f"{held.name}: {one}" for one in others]
            return
        if _relabelled(cluster, held, template["metadata"]) or not _in_use(cluster, deployment, held):
            self._settled = time.monotonic()
        self._relabelled = True


def _bare(template: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in template.items() if key != "metadata"}


def _relabelled(cluster: Writer, held: _Held, wanted: Mapping[str, Any]) -> bool:
    """Give a ReplicaSet's template, and its pods, these labels and annotations; whether they had others."""
    template = held.replicas["spec"]["template"]
    change = {}
    for kind in ("labels", "annotations"):
        old, new = template["metadata"].get(kind) or {}, wanted.get(kind) or {}
        gone = dict.fromkeys(key for key in old if key not in new and key != _HASH)
        change[kind] = {**gone, **{key: value for key, value in new.items() if old.get(key) != value}}
    if not any(change.values()):
        return False
    base = f"namespaces/{held.replicas['metadata']['namespace']}"
    cluster.patch(
        f"/apis/apps/v1/{base}/replicasets/{held.replicas['metadata']['name']}",
        {"spec": {"template": {"metadata": change}}},
    )
    for pod in _pods(cluster, held.replicas):
        try:
            cluster.patch(f"/api/v1/{base}/pods/{pod['metadata']['name']}", {"metadata": change})
        except ClusterError as error:
            if error.status != _NOT_FOUND:  # an autoscaler ended it
                raise
    labels = {**(wanted.get("labels") or {}), _HASH: template["metadata"]["labels"][_HASH]}
    template["metadata"] = {**wanted, "labels": labels}
    return True


def _in_use(cluster: Cluster, deployment: KubernetesObject, held: _Held) -> bool:
    """Whether all of a Deployment's pods are of the ReplicaSet that was there."""
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"]["generation"]:
        return False
    uid = held.replicas["metadata"]["uid"]
    return all(
        one["metadata"]["uid"] == uid or not (one.get("status") or {}).get("replicas")
        for one in _replica_sets(cluster, deployment)
    )
