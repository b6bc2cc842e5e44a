"""The workflow step rollout-model: a new version of a model comes in by steps, and goes back by itself if it is bad.

One step as a state machine. KubeVela's engine runs it again and again while it waits; each run reads what there is,
takes one transition of velagen.rollout's table, writes the state down and then does what the state asks for. All of
that can be done again, so a controller that is killed goes on where it was. The candidate is the component once more,
called NAME-canary; a route splits the traffic between both.

What KubeVela's engine makes necessary (sources: github.com/kubevela/workflow, github.com/oam-dev/kubevela):

- An endpoint that refuses the connection is an error of the run, and ten end the workflow (pkg/providers/http,
  pkg/executor): so the state says that a query is under way before it is sent, and the table gives up below ten.
- A step has no clock: the time is taken from the API server's lease (kube-system, renewed every 10 s), and the state's
  managedFields tell when it was last written. The time may be late, never early.
- kube.#Apply writes nothing where the rendered object is the same (pkg/utils/apply/apply.go): drift of the route is
  undone by an annotation that names the version which is written over.
- A successful workflow deletes what only an older revision's ResourceTracker has: what a rollback leaves standing is
  applied again, from the component as it was when it became stable. Not before the rollback: a component that the
  tracker of this revision has and that is healthy is not applied any more (application/dispatcher.go, with the chart's
  featureGates.multiStageComponentApply), and the promotion would wait for ever. The trackers themselves are compressed
  (featureGates.zstdResourceTracker), so no step reads them.
- An operation that ends a run (an object that may not be written, an endpoint without an answer) is written out with
  all that its parameters depend on, for minutes where that is much: so they depend on the answer of an echo.
- An error behind an #ApplyComponent that waits leaves the step frozen (pkg/executor): it comes last, one in a run.
"""

from __future__ import annotations

from _rollout_analysis import asked, check, question, why
from _rollout_hosts import gateway_name, gateway_namespace, hosts, is_istio
from _rollout_next import (
    KEPT,
    KEPT_BY_KSERVE,
    as_candidate,
    following,
    is_back,
    is_named,
    is_of_revision,
    is_over,
    is_shadow,
    itself_with_pods,
    kept,
    knows_stable,
    percent,
    phase,
    row,
    state_object,
    wants_candidate,
    wants_component,
    wants_percent,
    wants_stable,
    weight,
    with_percent,
)
from _rollout_quiet import glance, is_patient, is_quiet, quiet_message, wait_in_words
from _rollout_refusals import is_fit, refusal, webhooks
from _rollout_route import gateway_route, is_route_written, route_name, service_of_istio, split_wanted, stable_host
from _rollout_seen import (
    answer,
    apply,
    candidate_is_ready,
    candidate_name,
    candidate_object,
    echo,
    echoed,
    is_kserve,
    namespace,
    now_at,
    phase_then,
    read,
    route_asked,
    rules,
    second_of,
    stable_name,
    state_name,
    stored,
    trouble,
)
from _rollout_state import begin, is_due, is_paused, is_run_again, paused_at, shortage
from _rollout_webhooks import bodies, is_asked, requests

from velagen import (
    WorkflowStep,
    cases,
    choose,
    context,
    each,
    first_given,
    given,
    if_else,
    length,
    let,
    missing,
    one_of,
    operation,
    result_of,
    to_json,
    trim_suffix,
    url_encode,
    when,
)
from velagen import parameter as p
from velagen.rollout import transitions
from velagen.template.expression import Expression, Value

counted = f"{following.passed} of {rules.checks} checks passed, {following.failed} failed"
said_why = first_given(stored.why, "")
silent_why = let(if_else(check == "inconclusive", why, said_why))
silence = if_else(following.silent > 0, f", {following.silent} without a verdict ({silent_why})", "")
copies = if_else(is_shadow, f", and copies of {rules.shadow} %", "")
said_of_phase = let(
    choose(
        phase,
        {
            "deploy": f"{stable_name} is being deployed",
            "prepare": f"{candidate_name} is getting ready, without traffic yet",
            "warm": f"{candidate_name} is warming up, without traffic yet",
            "step": f"{weight} % of the traffic goes to {candidate_name}{copies}, step {following.step + 1} of "
            f"{length(rules.steps)}: {counted}{silence}",
            "pause": f"{weight} % of the traffic goes to {candidate_name}, and a person lets it go on: "
            f"vela workflow resume {context.appName} -n {namespace}",
            "promote": f"all checks passed: {candidate_name} has all traffic while {stable_name} becomes the new "
            "version",
            "settle": f"{stable_name} is the new version, and is about to take the traffic over",
            "return": f"{stable_name} is the new version; the gateway is about to send it all traffic",
            "drain": f"{stable_name} is the new version and has all traffic",
            "revert": f"rolled back: {following.reason}; {stable_name} becomes the version of before",
            "done": f"{stable_name} is deployed",
            "failed": f"rolled back: {following.reason}"
            f"{if_else(is_run_again, '; vela up --publish-version NAME tries this version again', '')}",
        },
        default=phase,
    )
)
while_waiting = if_else(row == "", wait_in_words(phase, trouble, rules.interval), "")
message = let(f"{said_of_phase}{if_else(phase == 'prepare', shortage, '')}{while_waiting}")

#: Without the stable version's objects among those of this revision, a success would delete them.
fails = ~is_fit | ((phase == "failed") & ~p.tidy & ((p.afterRollback == "fail") | ~knows_stable | ~is_back))
saying = {"fails": fails, "waits": is_fit & ~is_over, "message": if_else(is_fit, message, refusal)}
#: What this run writes and says.
rest = {
    "said": saying,
    when(is_fit): {
        "state": state_object(
            following,
            weight,
            {
                each(kept): lambda key, value: {key: value},
                "said": said_of_phase,
                "weight": f"{weight}",
                "routed": if_else(is_kserve, f"{percent}", split_wanted),
            },
        )
    },
    when(is_fit & is_istio): {
        "mesh": service_of_istio(route_name, [stable_host], "mesh", {}),
        when(length(hosts) > 0): {
            "hosts": service_of_istio(
                f"{route_name}-hosts",
                [each(hosts, lambda host: host)],
                first_given(f"{route_asked.gateway.namespace}/{route_asked.gateway.name}", "mesh"),
                {when(missing(route_asked.gateway)): {"exportTo": ["."]}},
            )
        },
    },
    when(is_fit & ~is_istio & (length(hosts) > 0) & ~is_route_written): {"http": gateway_route},
}
echoed_rest = let(echoed("rest", "echo"))
said = echoed_rest.said

event: Value = {
    "apiVersion": "v1",
    "kind": "Event",
    "metadata": {"name": f"{state_name}.{context.stepSessionID}", "namespace": namespace},
    "type": "Warning",
    "reason": "RolledBack",
    "message": message,
    "source": {"component": "rollout-model"},
    "involvedObject": {
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "name": context.appName,
        "namespace": namespace,
        "uid": first_given(result_of("end")["app"]["$returns"].value.metadata.uid, ""),
    },
    "firstTimestamp": second_of(now_at),
    "lastTimestamp": second_of(now_at),
    "count": 1,
}


def apply_component(value: Value) -> Expression:
    """A component rendered and applied, as KubeVela does without a workflow."""
    return operation("vela/oam", "#ApplyComponent", {"value": value})


# ---------------------------------------------------------------- the step

#: A check, where one is due.
asking: dict[object, Value] = {
    "pause": {
        when(is_paused): {
            # The engine remembers by this name that a person resumed it.
            f"at-{paused_at}-percent-until-vela-workflow-resume": operation("vela/builtin", "#Suspend", {}),
        },
    },
    "texts": {
        when(is_due): {
            "mark": echo(
                state_object(
                    begin,
                    paused_at,
                    {
                        **{key: first_given(stored[key], "") for key in KEPT},
                        when(is_kserve): {key: first_given(stored[key], "") for key in KEPT_BY_KSERVE},
                        "state": to_json(begin),
                    },
                )
            ),
        },
        when(is_asked & (length(webhooks) > 0)): {"bodies": echo(bodies)},
    },
    "ask": {
        when(is_due): {
            "mark": apply(echoed("texts", "mark")),
            when(candidate_is_ready): {
                "query": operation(
                    "vela/http",
                    "#HTTPDo",
                    {
                        "method": "GET",
                        "url": f"{trim_suffix(p.prometheus, '/')}/api/v1/query?query={url_encode(question)}",
                        "request": {"timeout": "5s"},
                    },
                ),
            },
        },
    },
    "call": {when(is_asked): requests},
    "asked": {when(is_asked & (length(webhooks) > 0)): {"all": echo({})}},
}
#: What follows from all that is known then.
acting: dict[object, Value] = {
    "rest": {"echo": echo(rest)},
    "keep": {when(is_fit): {"state": apply(first_given(echoed_rest.state, {}))}},
    "route": {
        when(is_fit & is_istio): {
            "mesh": apply(first_given(echoed_rest.mesh, {})),
            when(length(hosts) > 0): {"hosts": apply(first_given(echoed_rest.hosts, {}))},
        },
        when(given(echoed_rest.http)): {"http": apply(echoed_rest.http)},
    },
    "gone": {
        when(is_fit & is_over & ~is_kserve): {
            "made": operation(
                "vela/query",
                "#ListAppliedResources",
                {
                    "app": {
                        "name": context.appName,
                        "namespace": namespace,
                        "filter": {"components": [candidate_object]},
                    }
                },
            ),
            "model": operation(
                "vela/kube",
                "#Delete",
                {
                    "value": {
                        "apiVersion": "serving.kserve.io/v1beta1",
                        "kind": "InferenceService",
                        "metadata": {"name": candidate_object, "namespace": namespace},
                    }
                },
            ),
            "objects": {
                each(
                    first_given(result_of("gone")["made"]["$returns"].list, []), where=lambda _, one: is_named(one)
                ): lambda _, one: {
                    f"{one.kind}/{one.name}": operation(
                        "vela/kube",
                        "#Delete",
                        {
                            "value": {
                                "apiVersion": one.apiVersion,
                                "kind": one.kind,
                                "metadata": {"name": one.name, "namespace": namespace},
                            }
                        },
                    )
                }
            },
        },
    },
    "act": {
        when(is_fit & wants_candidate): {"candidate": apply_component(as_candidate)},
        # KubeVela 1.11 writes no component that is healthy already (application/dispatcher.go): so it is rendered,
        # and written as an object.
        when(is_fit & wants_percent): {
            "rendered": operation(
                "vela/oam",
                "#RenderComponent",
                {
                    "value": with_percent,
                    "patch": {"workload": {"spec": {"predictor": {"canaryTrafficPercent": percent}}}},
                },
            ),
            "model": apply(first_given(result_of("act")["rendered"]["$returns"].output, {})),
        },
        when(is_fit & (wants_component | wants_stable)): {"component": apply_component(itself_with_pods)},
    },
    "end": {
        when(is_fit & (phase == "failed")): {
            "app": read("core.oam.dev/v1beta1", "Application", context.appName),
            "told": echo(event),
            "event": apply(echoed("end", "told")),
        },
        "then": {
            when(first_given(said.fails, False)): {
                "fail": operation("vela/builtin", "#Fail", {"message": first_given(said.message, "")})
            },
            when(first_given(said.waits, False)): {
                "wait": operation(
                    "vela/builtin",
                    "#ConditionalWait",
                    {"continue": False, "message": first_given(said.message, "")},
                )
            },
            when(given(said.message)): {"message": operation("vela/builtin", "#Message", {"message": said.message})},
        },
    },
}

is_answered = let(
    cases(
        (~is_asked, True),
        (length(webhooks) > 0, given(answer("asked", "all").str)),
        otherwise=given(asked.statusCode),
    )
)

rollout_model = WorkflowStep(
    name="rollout-model",
    description="Brings a new version of a model in step by step, by what is measured of it, and takes a bad one back.",
    category="Application Delivery",
    body={
        "seen": {"state": read("v1", "ConfigMap", state_name)},
        "clock": {
            "leases": operation(
                "vela/kube",
                "#List",
                {
                    "resource": {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"},
                    "filter": {
                        "namespace": "kube-system",
                        "matchingLabels": {"apiserver.kubernetes.io/identity": "kube-apiserver"},
                    },
                },
            ),
        },
        "glance": glance,
        # Below, nothing is worked out before that is read, and little where there is only to wait.
        when(given(answer("clock", "leases")) & (~is_patient | given(answer("glance", "model")))): {
            when(is_quiet): {
                # No echo here: what this says is made of so little that it can be written out.
                "quietly": operation("vela/builtin", "#ConditionalWait", {"continue": False, "message": quiet_message}),
            },
            when(~is_quiet): {
                "objects": {
                    "components": operation("vela/oam", "#LoadComponets", {}),
                    "live": read("serving.kserve.io/v1beta1", "InferenceService", stable_name),
                    when(is_istio): {
                        "virtualService": read("networking.istio.io/v1beta1", "VirtualService", route_name),
                    },
                    when(~is_istio): {"httpRoute": read("gateway.networking.k8s.io/v1", "HTTPRoute", route_name)},
                    "candidate": read(
                        "serving.kserve.io/v1beta1",
                        "InferenceService",
                        if_else(is_kserve, stable_name, candidate_object),
                    ),
                    "all": echo({}),
                },
                when(given(answer("objects", "all").str)): {
                    "more": {
                        when(~is_istio & ~is_kserve): {
                            "kserveRoute": read("gateway.networking.k8s.io/v1", "HTTPRoute", stable_name),
                        },
                        when(missing(stored.target) & ~is_istio & ~is_kserve): {
                            "gateway": read("gateway.networking.k8s.io/v1", "Gateway", gateway_name, gateway_namespace),
                            "routes": operation(
                                "vela/kube",
                                "#List",
                                {
                                    "resource": {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"},
                                    "filter": {"namespace": namespace},
                                },
                            ),
                        },
                        when(first_given(stored.revision, "") != context.appRevision): {
                            "app": read("core.oam.dev/v1beta1", "Application", context.appName)
                        },
                        # Before a rollout they only show whether this account may read them.
                        when(one_of(phase_then, "", *transitions.ENDS)): {"event": read("v1", "Event", state_name)},
                        when(
                            ~is_kserve
                            & (
                                one_of(phase_then, "", *transitions.ENDS, "deploy", "promote", "settle")
                                | ~is_of_revision
                            )
                        ): {
                            "liveDeployment": read("apps/v1", "Deployment", f"{stable_name}-predictor"),
                        },
                        when(one_of(phase_then, "prepare", "warm", "pause") & ~is_kserve): {
                            "candidateDeployment": read("apps/v1", "Deployment", f"{candidate_object}-predictor")
                        },
                    },
                    "read": {"all": echo({})},
                    when(given(answer("read", "all").str)): {
                        **asking,
                        when(is_answered): acting,
                    },
                },
            },
        },
    },
    checks=[],
)
