"""What is known of an application's rollouts now: the step's state, KubeVela's workflow, and both versions' figures."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from velagen.errors import Problem, VelagenError, did_you_mean
from velagen.kubernetes.objects import KubernetesObject
from velagen.monitoring.cluster import Cluster
from velagen.monitoring.models import Model, View, Wanted
from velagen.monitoring.models import look as look_at_models
from velagen.monitoring.prometheus import Prometheus
from velagen.monitoring.scrape import LABEL_APP
from velagen.page.figures import span
from velagen.rollout.state import Stored, read

STEP_TYPE: Final = "rollout-model"
#: Written by the step on its ConfigMap (definitions/_rollout_history.py).
_LABEL: Final = "rollout.velagen/component"


@dataclass(frozen=True)
class Workflow:
    """What KubeVela says of the workflow."""

    #: Its phase: executing, suspending, succeeded, failed, terminated; empty where there is none yet.
    phase: str = ""
    suspended: bool = False
    finished: bool = False
    #: Of the step: its phase and message.
    step: str = ""
    said: str = ""


@dataclass(frozen=True)
class Rollout:
    """One component's rollout."""

    app: str
    namespace: str
    component: str
    stored: Stored
    workflow: Workflow
    #: Both versions, the stable one first.
    models: tuple[Model, ...] = ()

    @property
    def candidate(self) -> str:
        """The new version's InferenceService."""
        if self.stored.settings.get("via") == "kserve":
            return f"the new revision of {self.component}"
        return f"{self.component}-canary"

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows by itself any more."""
        return self.stored.has_ended or (self.workflow.finished and not self.workflow.suspended)


@dataclass(frozen=True)
class Seen:
    """All rollouts of an application at one time."""

    rollouts: tuple[Rollout, ...]
    view: View
    #: Seconds since 1970.
    at: float

    @property
    def has_ended(self) -> bool:
        """Whether all of them have."""
        return all(one.has_ended for one in self.rollouts)


def look(cluster: Cluster, prometheus: Prometheus, wanted: Wanted) -> Seen:
    """Look once. A Prometheus that does not answer is a problem of the view.

    Raises VelagenError where the cluster can't be asked, or there is no such application, or it has no rollout.
    """
    assert wanted.app
    assert wanted.namespace
    app = application(cluster, wanted.namespace, wanted.app)
    states = _states(cluster, wanted.namespace, wanted.app, app)
    try:
        view = look_at_models(cluster, prometheus, wanted)
    except VelagenError as error:
        # That it has no model yet is not a reason to keep the step's words back.
        view = View((), tuple(error.problems), prometheus.address, time.time())
    rollouts = tuple(
        Rollout(
            wanted.app,
            wanted.namespace,
            component,
            read(component, found),
            _workflow(app, component),
            tuple(one for one in view.models if one.version in (component, f"{component}-canary")),
        )
        for component, found in sorted(states.items())
    )
    return Seen(rollouts, view, time.time())


def application(cluster: Cluster, namespace: str, name: str) -> KubernetesObject:
    """The Application. Raises VelagenError where it is not there."""
    base = f"/apis/core.oam.dev/v1beta1/namespaces/{namespace}/applications"
    found = cluster.get(f"{base}/{name}")
    if found is None:
        names = [one["metadata"]["name"] for one in cluster.list("core.oam.dev/v1beta1", "applications", namespace)]
        near = did_you_mean(name, names)
        raise VelagenError(
            Problem(
                f"there is no application {name} in namespace {namespace}",
                hint=near or "another namespace is named with -n",
            )
        )
    return found


def steps_of(app: Mapping[str, Any]) -> Iterator[KubernetesObject]:
    """The application's steps of this type that bring something in, those in groups too."""
    for step in ((app.get("spec") or {}).get("workflow") or {}).get("steps") or ():
        for one in (step, *(step.get("subSteps") or ())):
            if one.get("type") == STEP_TYPE and not (one.get("properties") or {}).get("tidy"):
                yield one


def _states(cluster: Cluster, namespace: str, name: str, app: KubernetesObject) -> dict[str, KubernetesObject]:
    """Component -> ConfigMap, empty where there is none yet."""
    found: dict[str, KubernetesObject] = {}
    for step in steps_of(app):
        component = str((step.get("properties") or {}).get("component", ""))
        if component:
            path = f"/api/v1/namespaces/{namespace}/configmaps/{component}-rollout"
            found[component] = cluster.get(path) or {}
    # The steps may be a Workflow's of its own, which the application names.
    for one in cluster.list("v1", "configmaps", namespace, labelSelector=f"{LABEL_APP}={name},{_LABEL}"):
        found.setdefault(one["metadata"]["labels"][_LABEL], one)
    if not found:
        raise VelagenError(
            Problem(
                f"application {name} in namespace {namespace} has no rollout: no step of its workflow is of type"
                f" {STEP_TYPE}",
                hint=f"velagen top {name} shows its models; docs/rollout.md says how to write the step",
            )
        )
    return found


def _workflow(app: KubernetesObject, component: str) -> Workflow:
    status = (app.get("status") or {}).get("workflow") or {}
    names = {one.get("name") for one in steps_of(app) if (one.get("properties") or {}).get("component") == component}
    every = [one for step in status.get("steps") or () for one in (step, *(step.get("subSteps") or ()))]
    mine: KubernetesObject = next((one for one in every if one.get("name") in names), {})
    return Workflow(
        str(status.get("status") or ""),
        bool(status.get("suspend")),
        bool(status.get("finished")),
        str(mine.get("phase") or ""),
        str(mine.get("message") or ""),
    )


# ---------------------------------------------------------------- in words


def in_words(rollout: Rollout, now: float) -> list[str]:
    """How things stand and what is waited for, in sentences."""
    stored, workflow = rollout.stored, rollout.workflow
    state, name, candidate = stored.state, rollout.component, rollout.candidate
    said: list[str] = []
    match stored.phase:
        case "":
            said.append(workflow.said or f"{name} has no rollout yet: the step has not run")
        case "deploy":
            said.append(f"{name} is being deployed, as it is: there is nothing to compare it with")
        case "prepare":
            said.append(f"{candidate} is getting ready, without traffic yet")
            if workflow.said and workflow.said != said[-1]:
                said.append(workflow.said)
        case "warm":
            said.append(
                f"{candidate} is ready and warms up for {stored.settings.get('warmUp', 0)} s before it gets traffic"
            )
        case "step":
            said += _step_in_words(rollout, now)
        case "pause":
            said.append(
                f"{stored.weight} % of the traffic goes to {candidate}, and a person lets it go on: "
                f"vela workflow resume {rollout.app} -n {rollout.namespace}"
            )
        case "promote":
            said.append(f"all checks are passed: {candidate} has all traffic while {name} becomes the new version")
        case "settle":
            said.append(f"{name} is the new version; it takes the traffic over when it was ready for a while")
        case "return":
            said.append(f"{name} is the new version; {candidate} stays until the gateway sends nothing to it")
        case "drain":
            said.append(f"{name} is the new version and has all traffic; {candidate} is about to be removed")
        case "done":
            said.append(f"{name} is deployed and has all traffic")
        case "revert":
            said.append(f"rolled back: {state['reason']}; {name} becomes the version of before")
        case "failed":
            said.append(f"rolled back: {state['reason']}")
            said.append(
                f"{name} serves the version from before; change the component and run vela up, or try this version "
                "again with vela up --publish-version NAME"
            )
        case other:
            said.append(f"the phase {other} is not known to this velagen")
    if workflow.suspended and not stored.has_ended and stored.phase != "pause":
        said.append(f"suspended: the weights stay until vela workflow resume {rollout.app} -n {rollout.namespace}")
    elif workflow.finished and not stored.has_ended:
        ended = workflow.phase or "finished"
        why = f" ({workflow.said})" if workflow.said and workflow.said not in said else ""
        said.append(
            f"the workflow is {ended}{why}, and nothing goes on by itself: vela workflow restart {rollout.app} "
            f"-n {rollout.namespace}"
        )
    if stored.unreadable:
        said.append(f"the state of {name} can't be read in full: {', '.join(stored.unreadable)}")
    return said


def _step_in_words(rollout: Rollout, now: float) -> Iterator[str]:
    stored = rollout.stored
    state, settings = stored.state, stored.settings
    needed, limit = settings.get("checks", "?"), settings.get("failureLimit", "?")
    yield (
        f"{stored.weight} % of the traffic goes to {rollout.candidate}, step {state['step'] + 1} of"
        f" {len(stored.steps)}: {state['passed']} of {needed} checks passed, {state['failed']} of {limit} failed"
    )
    if state["silent"]:
        why = next((one.why for one in reversed(stored.checks) if one.verdict == "inconclusive"), "")
        held = f", for {span(state['held'])}" if state["held"] else ""
        ends = f"after {span(settings['deadline'])} it goes back" if "deadline" in settings else ""
        yield f"{state['silent']} checks in a row gave no verdict{held}: {why or 'no answer'}; {ends}"
    last = next((one.at for one in reversed(stored.history) if one.at is not None), None)
    interval = settings.get("interval")
    if last is not None and isinstance(interval, int | float) and not rollout.workflow.suspended:
        left = last + interval - now
        yield f"the next check is due in about {span(left)}" if left >= 1 else "a check is due"
