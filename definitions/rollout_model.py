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
- An operation that ends a run is written out with all that its parameters depend on (github.com/kubevela/pkg
  cue/cuex/error.go), for minutes where that is much: so they depend on the answer of an echo.
- An error behind an #ApplyComponent that waits leaves the step frozen (pkg/executor): it comes last, one in a run.
"""

from __future__ import annotations

from _routes import HTTP, KSERVE_GATEWAY, backend, destination, http_route, virtual_service

from velagen import (
    Reference,
    WorkflowStep,
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
    floor,
    from_json,
    given,
    has_prefix,
    if_else,
    join,
    length,
    let,
    matches,
    missing,
    one_of,
    operation,
    replace_text,
    result_of,
    sha256,
    sort_by,
    split,
    to_bytes,
    to_json,
    trim_suffix,
    url_encode,
    when,
)
from velagen import parameter as p
from velagen.rollout import transitions, verdict
from velagen.template.expression import Expression, Value

stable_name = p.component
candidate_name = f"{p.component}-canary"
state_name = f"{p.component}-rollout"
namespace = context.namespace

# ---------------------------------------------------------------- what there is


def read(api_version: str, kind: str, name: Value, where: Value = namespace) -> Expression:
    """An object as it is on the cluster."""
    metadata = {"name": name} if where is None else {"name": name, "namespace": where}
    return operation("vela/kube", "#Read", {"value": {"apiVersion": api_version, "kind": kind, "metadata": metadata}})


def answer(group: str, name: str) -> Reference:
    """What an operation of this step answered."""
    return result_of(group)[name]["$returns"]


stored = let(first_given(answer("seen", "state").value.data, {}))
settings_then = let(from_json(first_given(stored.settings, "{}")))
SETTINGS = (
    "steps",
    "interval",
    "checks",
    "failureLimit",
    "onInconclusive",
    "inconclusiveLimit",
    "deadline",
    "warmUp",
    "settle",
)
#: In no schema: KubeVela makes no OpenAPI schema of a list with a default.
STEPS = first_given(p.steps, [10, 30, 60])
#: The step that tidies up goes by what the first one was told.
settings = {
    name: if_else(p.tidy, first_given(settings_then[name], asked_for), asked_for)
    for name, asked_for in ((name, getattr(p, name) if name != "steps" else STEPS) for name in SETTINGS)
}
rules = let({**settings, "steps": [each(settings["steps"], floor)]})
route_asked = let(if_else(p.tidy, first_given(settings_then.route, {}), first_given(p.route, {})))

component = let(first_given(answer("seen", "components").value[p.component], {}))
#: What makes no new version: how many replicas there are, and who says so.
SCALE_PROPERTIES = ("minReplicas", "maxReplicas")
SCALE_TRAITS = ("autoscale", "scaler", "hpa", "cpuscaler")
version = let(
    {
        each(component, where=lambda key, _: ~contains(["properties", "traits"], key)): lambda key, value: {key: value},
        "properties": {
            each(
                first_given(component.properties, {}), where=lambda key, _: ~contains(list(SCALE_PROPERTIES), key)
            ): lambda key, value: {key: value}
        },
        "traits": [
            each(
                first_given(component.traits, []),
                lambda trait: trait,
                where=lambda trait: ~contains(list(SCALE_TRAITS), first_given(trait.type, "")),
            )
        ],
    }
)
target = let(sha256(to_json(version)))

live = answer("seen", "live").value
candidate = answer("there", "candidate").value


def second_of(time: Expression) -> Value:
    """A time without its microseconds, as an Event takes it."""
    return f"{trim_suffix(split(time, '.')[0], 'Z')}Z"


def is_ready(model: Reference) -> Expression:
    """Whether KServe says so."""
    return length(conditions(model.status.conditions, "Ready", "True")) > 0


def is_whole(deployment: Reference) -> Expression:
    """All its pods are of the template that it has now: KServe's Ready may be the one of before a change."""
    status, wanted = deployment.status, deployment.spec.replicas
    seen_all = given(status.updatedReplicas) & given(status.availableReplicas) & given(status.observedGeneration)
    return cases(
        (
            seen_all & given(wanted) & given(deployment.metadata.generation) & given(status.replicas),
            (status.observedGeneration == deployment.metadata.generation)
            & (status.updatedReplicas == wanted)
            & (status.availableReplicas == wanted)
            & (status.replicas == wanted),
        ),
        otherwise=False,
    )


def revision_of(model: Reference) -> Expression:
    """The application's revision that an object was last applied in."""
    return first_given(model.metadata.labels["app.oam.dev/appRevision"], "")


live_is_absent = let(contains_text(first_given(answer("seen", "live").err, ""), "not found"))
failure = candidate.status.modelStatus.lastFailureInfo
trouble = let(first_given(f": {failure.reason}: {first_given(failure.message, '')}", ""))
candidate_is_ready = let(is_ready(candidate))

times_of_leases = let(
    [
        each(
            first_given(answer("seen", "leases")["values"]["items"], []),
            lambda lease: first_given(lease.spec.renewTime, ""),
        )
    ]
)
times_of_state = let(
    [
        each(
            first_given(answer("seen", "state").value.metadata.managedFields, []),
            lambda entry: first_given(entry.time, ""),
        )
    ]
)
written_at = let(first_given(sort_by(times_of_state, descending=True)[0], ""))
now_at = let(first_given(sort_by(concat(times_of_leases, times_of_state), descending=True)[0], ""))

# ---------------------------------------------------------------- what can't be rolled out

queries = first_given(p.analysis.queries, [])
hosts = first_given(route_asked.hosts, [])
gateway_name = first_given(route_asked.gateway.name, KSERVE_GATEWAY[1])
gateway_namespace = first_given(route_asked.gateway.namespace, KSERVE_GATEWAY[0])
is_istio = let(first_given(route_asked.provider, "gateway-api") == "istio")


def rises(number: Expression, one: Expression) -> Expression:
    """Whether a step is above the one before it."""
    return cases((number > 0, one > first_given(rules.steps[number - 1], 0)), otherwise=True)


#: Steps that are not above the one before.
falling = let([each(rules.steps, lambda _, one: one, where=lambda number, one: ~rises(number, one))])
traits_of_component = [each(first_given(component.traits, []), lambda trait: first_given(trait.type, ""))]
unbounded = let([each(queries, lambda one: one.name, where=lambda one: missing(one.atLeast) & missing(one.atMost))])
is_in_cluster = r"[.]svc([.]|$)|[.]cluster[.]local$"
foreign = let([each(hosts, lambda host: host, where=lambda host: matches(host, is_in_cluster))])
nothing_measured = (
    (p.analysis.successRatio == 0)
    & (p.analysis.latency.timesStable == 0)
    & missing(p.analysis.latency.milliseconds)
    & (length(queries) == 0)
)


#: The first of them is said, and nothing is created.
refusal = let(
    cases(
        (
            missing(component.type),
            f"the application has no component {p.component}: write the name of the component that is rolled out",
        ),
        (
            component.type != "kfserving",
            f"rollout-model works on a component of type kfserving, and {p.component} is of type {component.type}",
        ),
        (p.tidy, ""),
        (
            contains(traits_of_component, "canary"),
            f"{p.component} has the trait canary, and both would split the same traffic: drop the trait, or the step",
        ),
        (
            first_given(component.properties.deploymentMode, "") == "knative",
            "rollout-model works in standard mode: drop deploymentMode, or use the trait canary",
        ),
        (length(falling) > 0, f"steps must rise, and {falling[0]} does not: write [10, 30, 60]"),
        (
            ~is_istio & (length(hosts) == 0),
            "route.hosts is missing: a Gateway API route needs the host names that clients call, for example "
            "hosts: [sentiment.example.com] (or write provider: istio, which splits inside the mesh)",
        ),
        (
            is_istio & given(route_asked.gateway) & (length(hosts) == 0),
            "route.hosts is missing: at a gateway clients call a host name, for example hosts: [sentiment.example.com] "
            "(or drop route.gateway: inside the mesh the model's own Service is split without one)",
        ),
        (
            length(foreign) > 0,
            f"route.hosts holds {foreign[0]}, a Service's name inside the cluster: write names that "
            "clients outside call",
        ),
        (
            contains_text(first_given(answer("there", "gateway").err, ""), "not found"),
            f"there is no Gateway {gateway_namespace}/{gateway_name}: write the one that clients come in by as "
            "route.gateway, with name and namespace",
        ),
        (nothing_measured, "analysis looks at nothing: leave successRatio or latency on, or write a query"),
        (
            length(unbounded) > 0,
            f"the query {unbounded[0]} of analysis has no bound: write atLeast or atMost",
        ),
        (
            rules.deadline < rules.interval * rules.checks,
            f"deadline is {rules.deadline} s, and the {rules.checks} checks of a step take "
            f"{rules.interval * rules.checks} s: raise it, or lower interval or checks",
        ),
        otherwise="",
    )
)
is_fit = let(refusal == "")

# ---------------------------------------------------------------- the state, and what this run sees

state_then = let(from_json(first_given(stored.state, "{}")))
phase_then = let(first_given(state_then.phase, ""))
same_session = first_given(stored.session, "") == context.stepSessionID


def of_state(name: str) -> Expression:
    """A field of the state as it is stored; what an earlier release did not write is as at the beginning."""
    value = first_given(state_then[name], transitions.BLANK[name])
    return floor(value) if isinstance(transitions.BLANK[name], int) else value


had = let(
    {
        **{name: of_state(name) for name in transitions.BLANK},
        # The engine counts a step's errors anew in each run of the workflow.
        "errors": if_else(same_session, of_state("errors"), 0),
    }
)
stable_target = let(first_given(stored.stable, ""))
has_ended = one_of(phase_then, *transitions.ENDS)
is_changed = let(
    ~p.tidy
    & (
        (first_given(stored.target, "") != target)
        | (has_ended & (first_given(stored.revision, "") != context.appRevision))
    )
)
#: A version that went back is not tried again in the same revision: its objects are the stable version's by now, and
#: nothing would tell these from the version that is to be promoted.
is_run_again = (phase_then == "failed") & ~same_session
in_place = let(
    cases((stable_target != "", stable_target == target), (phase_then == "deploy", True), otherwise=live_is_absent)
)
waited = let(
    cases(
        (
            given(answer("clock", "now").timestamp) & given(answer("clock", "written").timestamp),
            answer("clock", "now").timestamp - answer("clock", "written").timestamp,
        ),
        otherwise=0,
    )
)
before_check = let(
    {
        **transitions.unseen(),
        "changed": is_changed,
        "inPlace": in_place,
        "aborted": p.tidy,
        "ready": candidate_is_ready & is_whole(answer("there", "candidateDeployment").value),
        "live": (revision_of(live) == context.appRevision)
        & is_ready(live)
        & is_whole(answer("there", "liveDeployment").value),
        "waited": waited,
        "trouble": trouble,
    }
)
is_due = let(is_fit & ~is_changed & ~p.tidy & transitions.due(had, before_check, rules))
marked = let(transitions.asking(had, before_check, rules))
begin = let({name: if_else(is_due, marked[name], had[name]) for name in transitions.BLANK})

# ---------------------------------------------------------------- a check

WINDOW_SECONDS = 300
#: Who counts, in the order in which they are believed: what stands in front of both versions sees all failures.
ROUTES = ("envoy", "istio", "server")


def record(name: str, of: Value, route: str) -> Value:
    """A record of one version, by one that counts (docs/monitoring.md)."""
    return f'{name}{{namespace="{namespace}",version="{of}",route="{route}"}}'


def first_of(*queries: Value) -> Value:
    """The first query that has an answer, without labels."""
    parts = [f"max({one})" for one in queries]
    text = parts[0]
    for part in parts[1:]:
        text = f"{text} or {part}"
    return text


percentile = p.analysis.latency.percentile


def latency(of: Value, route: str) -> Value:
    """The percentile, in seconds."""
    return record(f"model:latency_seconds:{percentile}", of, route)


def mean(of: Value, route: str) -> Value:
    """The mean, in seconds."""
    return record("model:latency_seconds:mean", of, route)


REQUESTS = first_of(
    *(f"avg_over_time({record('model:requests:rate1m', candidate_name, one)}[5m]) * {WINDOW_SECONDS}" for one in ROUTES)
)
SUCCESS = first_of(*(f"1 - {record('model:errors:ratio5m', candidate_name, one)}" for one in ROUTES))
LATENCY = first_of(*(f"1000 * {latency(candidate_name, one)}" for one in ROUTES))
#: Like with like: both versions by the same counter, and where one has no percentile by the mean.
BESIDE_STABLE = first_of(
    *(f"max({of(candidate_name, one)}) / max({of(stable_name, one)})" for of in (latency, mean) for one in ROUTES)
)


def named(name: Value, query: Value) -> Value:
    """A query whose answer is known by the label rollout among others."""
    return f'label_replace({query}, "rollout", "{name}", "", "")'


def rounded(query: Value, to: str) -> Value:
    """A number that can be read in a reason."""
    return f"round({query}, {to})"


def of_user(query: Expression) -> Expression:
    """The user's query with the versions in it."""
    text = replace_text(replace_text(query, "VERSION", candidate_name), "STABLE", stable_name)
    return replace_text(text, "NAMESPACE", namespace)


bounded = p.analysis.latency
#: One question for all that a check looks at: it is answered as a whole or not at all.
question = let(
    join(
        [
            named("requests", rounded(REQUESTS, "1")),
            when(p.analysis.successRatio > 0, named("success ratio", rounded(SUCCESS, "0.000001"))),
            when(given(bounded.milliseconds), named("latency", rounded(LATENCY, "0.1"))),
            when(bounded.timesStable > 0, named("beside stable", rounded(BESIDE_STABLE, "0.001"))),
            each(queries, lambda one: named(f"query {one.name}", f"({of_user(one.query)})")),
        ],
        " or ",
    )
)
asked = answer("ask", "query")
body = let(first_given(asked.body, ""))
has_answer = let(
    (first_given(asked.statusCode, 0) == 200)
    & (has_prefix(body, '{"status":"success"') & contains_text(body, '"resultType":"vector"'))
)
answered = let(if_else(has_answer, from_json(body), {}))
results = let(first_given(answered.data.result, []))


def measured(name: Value) -> Expression:
    """What was measured, as text; empty where there is nothing, or more than one number."""
    found = [
        each(
            results,
            lambda one: first_given(one.value[1], ""),
            where=lambda one: first_given(one.metric.rollout, "") == name,
        )
    ]
    return join(found, " and ")


def bound(name: Value, value: Value, limit: Value, *, unit: str = "", at_most: bool) -> dict[str, Value]:
    """See velagen.rollout.verdict."""
    return {"name": name, "value": value, "unit": unit, "limit": limit, "atMost": at_most}


bounds = let(
    [
        when(
            p.analysis.successRatio > 0,
            bound("success ratio", measured("success ratio"), p.analysis.successRatio, at_most=False),
        ),
        when(
            given(bounded.milliseconds),
            bound(f"latency ({percentile})", measured("latency"), bounded.milliseconds, unit=" ms", at_most=True),
        ),
        when(
            bounded.timesStable > 0,
            bound(
                f"latency ({percentile})",
                measured("beside stable"),
                bounded.timesStable,
                unit=f" times {stable_name}'s",
                at_most=True,
            ),
        ),
        each(
            queries,
            lambda one: bound(one.name, measured(f"query {one.name}"), one.atLeast, at_most=False),
            where=lambda one: given(one.atLeast),
        ),
        each(
            queries,
            lambda one: bound(one.name, measured(f"query {one.name}"), one.atMost, at_most=True),
            where=lambda one: given(one.atMost),
        ),
    ]
)
requests_seen = let(measured("requests"))
broken = let(verdict.broken(bounds))
unmeasured = let(verdict.unmeasured(bounds))
judged = (broken, unmeasured, requests_seen, p.analysis.minimumRequests)
check = let(
    cases(
        (~is_due, "none"),
        (~candidate_is_ready, "bad"),
        (~has_answer, "inconclusive"),
        otherwise=verdict.verdict(*judged),
    )
)
why = let(
    cases(
        (~is_due, ""),
        (~candidate_is_ready, f"{candidate_name} was not ready{trouble}"),
        (~has_answer, f"Prometheus answered {first_given(asked.statusCode, 0)}, and no numbers"),
        otherwise=verdict.reason(*judged),
    )
)
seen_now = let(
    {
        **{name: before_check[name] for name in transitions.unseen() if name not in ("check", "why")},
        "check": check,
        "why": why,
    }
)

# ---------------------------------------------------------------- what follows

row = let(transitions.happened(begin, seen_now, rules))
following = let(transitions.following(row, begin, seen_now, rules))
weight = let(transitions.weight(following, rules))
phase = following.phase
is_over = one_of(phase, *transitions.ENDS)

is_done = phase == "done"
kept = let(
    {
        "state": to_json(following),
        "stable": if_else(is_done & ~p.tidy, target, stable_target),
        "stableComponent": if_else(is_done & ~p.tidy, to_json(component), first_given(stored.stableComponent, "")),
        "target": if_else(p.tidy, first_given(stored.target, ""), target),
        "revision": if_else(p.tidy, first_given(stored.revision, ""), context.appRevision),
        "why": if_else(check == "inconclusive", why, first_given(stored.why, "")),
        "session": if_else(p.tidy, first_given(stored.session, ""), context.stepSessionID),
        "settings": if_else(p.tidy, first_given(stored.settings, "{}"), to_json({**settings, "route": route_asked})),
    }
)


#: All of it but the state.
KEPT = ("stable", "stableComponent", "target", "revision", "session", "settings", "why")


def state_object(data: Value) -> Expression:
    """The ConfigMap that holds the state."""
    return operation(
        "vela/kube",
        "#Apply",
        {
            "value": {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": state_name, "namespace": namespace},
                "data": data,
            }
        },
    )


#: The candidate is the component once more, with the name that clients call the model by.
DROPPED_TRAITS = ("canary",)
properties = let(first_given(component.properties, {}))
as_candidate = {
    each(component, where=lambda key, _: ~contains(["name", "properties", "traits"], key)): lambda key, value: {
        key: value
    },
    "name": candidate_name,
    "properties": {
        each(properties, where=lambda key, _: key != "modelName"): lambda key, value: {key: value},
        "modelName": first_given(properties.modelName, p.component),
    },
    "traits": [
        each(
            first_given(component.traits, []),
            lambda trait: trait,
            where=lambda trait: ~contains(list(DROPPED_TRAITS), first_given(trait.type, "")),
        )
    ],
}
is_of_revision = revision_of(candidate) == context.appRevision
wants_candidate = one_of(phase, "prepare", "warm", "step") & ~is_of_revision
wants_component = one_of(phase, "deploy", "promote", "done") & ~p.tidy


#: What a rollback leaves standing, as it was when it became stable; none where the model was there before the step.
stable_component = let(if_else(kept.stableComponent != "", from_json(kept.stableComponent), {}))
knows_stable = let(kept.stableComponent != "")


def is_named(one: Reference) -> Expression:
    """Whether it can be deleted by what is known of it."""
    return given(one.apiVersion) & given(one.kind) & given(one.name)


# ---------------------------------------------------------------- the route

#: Requests come in at the transformer where there is one.
entry = let(if_else(given(properties.transformer), "transformer", "predictor"))
ports = let(first_given(live.spec.predictor.model.ports, []))
has_grpc = let((entry == "predictor") & (length(ports) > 1))
grpc_port = first_given(ports[1].containerPort, 9000)
#: The candidate is not a backend before its first request: it may not have a Service yet.
is_split = let(one_of(phase, "step", "promote", "settle", "return"))
domain = f"{namespace}.svc.cluster.local"
stable_host = f"{stable_name}-{entry}.{domain}"
route_name = f"{p.component}-rollout"

found_routes = let(
    first_given(answer("seen", "httpRoute").value.spec.rules, answer("seen", "virtualService").value.spec.http, [])
)
found_version = first_given(
    answer("seen", "httpRoute").value.metadata.resourceVersion,
    answer("seen", "virtualService").value.metadata.resourceVersion,
    "",
)


def weights(of: Reference) -> Expression:
    """The weights that a rule of a route has, as text."""
    refs = first_given(of.backendRefs, first_given(of.route, []))
    return to_json([each(refs, lambda ref: first_given(ref.weight, 100))])


wanted_weights = let(to_json(cases((is_split, [100 - weight, weight]), otherwise=[100])))
drifted = let([each(found_routes, weights, where=lambda of: weights(of) != wanted_weights)])


def route_metadata(name: Value) -> dict[object, Value]:
    """Name and namespace, and what makes a change by hand be written over."""
    return {
        "name": name,
        "namespace": namespace,
        when(length(drifted) > 0): {
            "annotations": {
                "rollout.velagen/written-over": comment(
                    "An equal object is not written, and what somebody changed by hand would stay.",
                    found_version,
                )
            }
        },
    }


def backends(port: Value) -> Value:
    """Both versions, for a route of Gateway API."""
    return [
        backend(f"{stable_name}-{entry}", port, 100 - weight),
        when(is_split, backend(f"{candidate_name}-{entry}", port, weight)),
    ]


def destinations(port: Value) -> Value:
    """The same for Istio."""
    return [
        destination(stable_host, port, 100 - weight),
        when(is_split, destination(f"{candidate_name}-{entry}.{domain}", port, weight)),
    ]


def service_of_istio(name: str, of: Value, gateway: Value, seen_by: dict[object, Value]) -> Expression:
    """Istio's route for the hosts *of* at one *gateway*."""
    value = virtual_service(
        route_metadata(name),
        of,
        gateway,
        seen_by,
        http=destinations(HTTP),
        grpc=destinations(grpc_port),
        has_grpc=has_grpc,
    )
    return operation("vela/kube", "#Apply", {"value": value})


gateway_route = operation(
    "vela/kube",
    "#Apply",
    {
        "value": http_route(
            route_metadata(route_name),
            route_asked.gateway,
            [each(hosts, lambda host: host)],
            http=backends(HTTP),
            grpc=backends(grpc_port),
            has_grpc=has_grpc,
        )
    },
)

# ---------------------------------------------------------------- what is said

#: Another text lets the engine look again at once, an equal one lets it back off up to a minute: so it changes when the
#: next check comes near.
comes_near = if_else((10 * waited >= 7 * rules.interval) & (row == ""), ", the next one is due", "")
in_wait = if_else((waited >= 30) & (row == ""), f", for {div(waited, 30) * 30} s by now", "")
counted = f"{following.passed} of {rules.checks} checks passed, {following.failed} failed"
said_why = first_given(stored.why, "")
silent_why = let(if_else(check == "inconclusive", why, said_why))
silence = if_else(following.silent > 0, f", {following.silent} without a verdict ({silent_why})", "")
message = let(
    choose(
        phase,
        {
            "deploy": f"{stable_name} is being deployed{in_wait}",
            "prepare": f"{candidate_name} is getting ready, without traffic yet{trouble}{in_wait}",
            "warm": f"{candidate_name} is warming up, without traffic yet",
            "step": f"{weight} % of the traffic goes to {candidate_name}, step {following.step + 1} of "
            f"{length(rules.steps)}: {counted}{silence}{comes_near}",
            "promote": f"all checks passed: {candidate_name} has all traffic while {stable_name} becomes the new "
            f"version{in_wait}",
            "settle": f"{stable_name} is the new version, and is about to take the traffic over",
            "return": f"{stable_name} is the new version and has all traffic",
            "done": f"{stable_name} is deployed",
            "failed": f"rolled back: {following.reason}"
            f"{if_else(is_run_again, '; vela up --publish-version NAME tries this version again', '')}",
        },
        default=phase,
    )
)

#: Without the stable version's objects among those of this revision, a success would delete them.
fails = ~is_fit | ((phase == "failed") & ~p.tidy & ((p.afterRollback == "fail") | ~knows_stable))
saying = {"fails": fails, "waits": is_fit & ~is_over, "message": if_else(is_fit, message, refusal)}
said = let(from_json(first_given(result_of("end")["said"]["$returns"].str, "{}")))

event = operation(
    "vela/kube",
    "#Apply",
    {
        "value": {
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
    },
)


def apply_component(value: Value) -> Expression:
    """A component rendered and applied, as KubeVela does without a workflow."""
    return operation("vela/oam", "#ApplyComponent", {"value": value})


# ---------------------------------------------------------------- the step

rollout_model = WorkflowStep(
    name="rollout-model",
    description="Brings a new version of a model in step by step, by what is measured of it, and takes a bad one back.",
    category="Application Delivery",
    body={
        "seen": {
            "state": read("v1", "ConfigMap", state_name),
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
            "components": operation("vela/oam", "#LoadComponets", {}),
            "live": read("serving.kserve.io/v1beta1", "InferenceService", stable_name),
            when(is_istio): {"virtualService": read("networking.istio.io/v1beta1", "VirtualService", route_name)},
            when(~is_istio): {"httpRoute": read("gateway.networking.k8s.io/v1", "HTTPRoute", route_name)},
        },
        "there": {
            when(missing(stored.target) & ~is_istio): {
                "gateway": read("gateway.networking.k8s.io/v1", "Gateway", gateway_name, gateway_namespace)
            },
            when(one_of(phase_then, "deploy", "promote", "settle")): {
                "liveDeployment": read("apps/v1", "Deployment", f"{stable_name}-predictor"),
            },
            when(one_of(phase_then, "prepare", "warm", "step")): {
                "candidate": read("serving.kserve.io/v1beta1", "InferenceService", candidate_name),
                "candidateDeployment": read("apps/v1", "Deployment", f"{candidate_name}-predictor"),
            },
        },
        "clock": {
            when(written_at != ""): {
                "now": operation("vela/time", "#DateToTimestamp", {"date": now_at}),
                "written": operation("vela/time", "#DateToTimestamp", {"date": written_at}),
            },
        },
        "ask": {
            when(is_due): {
                "mark": state_object({**{key: first_given(stored[key], "") for key in KEPT}, "state": to_json(begin)}),
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
        "keep": {when(is_fit): {"state": state_object(kept)}},
        "route": {
            when(is_fit & is_istio): {
                "mesh": service_of_istio(route_name, [stable_host], "mesh", {}),
                when(length(hosts) > 0): {
                    "hosts": service_of_istio(
                        f"{route_name}-hosts",
                        [each(hosts, lambda host: host)],
                        first_given(f"{route_asked.gateway.namespace}/{route_asked.gateway.name}", "mesh"),
                        {when(missing(route_asked.gateway)): {"exportTo": ["."]}},
                    ),
                },
            },
            when(is_fit & ~is_istio): {"http": gateway_route},
        },
        "gone": {
            when(is_fit & is_over): {
                "made": operation(
                    "vela/query",
                    "#ListAppliedResources",
                    {
                        "app": {
                            "name": context.appName,
                            "namespace": namespace,
                            "filter": {"components": [candidate_name]},
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
                            "metadata": {"name": candidate_name, "namespace": namespace},
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
            when(is_fit & wants_component): {"component": apply_component(component)},
            when(is_fit & (phase == "failed") & knows_stable): {"stable": apply_component(stable_component)},
        },
        "end": {
            when(is_fit & (phase == "failed")): {
                "app": read("core.oam.dev/v1beta1", "Application", context.appName),
                "event": event,
            },
            "said": operation(
                "vela/util",
                "#ConvertString",
                {
                    "bt": comment(
                        "An operation that ends the run is written out by the engine with all that its parameters "
                        "depend on (github.com/kubevela/pkg cue/cuex/error.go), which took half a minute of processor "
                        "time. So they depend on the answer of this one, which gives back what it is given.",
                        to_bytes(to_json(saying)),
                    )
                },
            ),
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
                when(given(said.message)): {
                    "message": operation("vela/builtin", "#Message", {"message": said.message})
                },
            },
        },
    },
    checks=[],
)
