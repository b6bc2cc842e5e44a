"""What a run of the step rollout-model sees: its settings, the component, the objects, the clock."""

from __future__ import annotations

from velagen import (
    Reference,
    cases,
    concat,
    conditions,
    contains,
    contains_text,
    context,
    div,
    each,
    first_given,
    flatten,
    floor,
    from_json,
    given,
    if_else,
    length,
    let,
    operation,
    raw_cue,
    replace_pattern,
    result_of,
    sha256,
    split,
    to_bytes,
    to_json,
    trim_suffix,
    when,
)
from velagen import parameter as p
from velagen.template.expression import Expression, Value

stable_name = p.component
candidate_object = f"{p.component}-canary"
state_name = f"{p.component}-rollout"
namespace = context.namespace

# ---------------------------------------------------------------- what there is


def read(api_version: Value, kind: Value, name: Value, where: Value = namespace) -> Expression:
    """An object as it is on the cluster."""
    metadata = {"name": name} if where is None else {"name": name, "namespace": where}
    return operation("vela/kube", "#Read", {"value": {"apiVersion": api_version, "kind": kind, "metadata": metadata}})


def echo(value: Value) -> Expression:
    """An operation that gives back what it is given, for :func:`echoed`.

    An operation that ends the run is written out by the engine with all that its parameters depend on
    (github.com/kubevela/pkg cue/cuex/error.go), for minutes of processor time where that is much. What is made of an
    echo's answer depends on nothing else.
    """
    return operation("vela/util", "#ConvertString", {"bt": to_bytes(to_json(value))})


def echoed(group: str, name: str) -> Expression:
    """The value that :func:`echo` was given, as an operation of this step."""
    return from_json(first_given(answer(group, name).str, "{}"))


def apply(value: Value) -> Expression:
    """An object, written."""
    return operation("vela/kube", "#Apply", {"value": value})


def answer(group: str, name: str) -> Reference:
    """What an operation of this step answered."""
    return result_of(group)[name]["$returns"]


stored = let(first_given(answer("seen", "state").value.data, {}))
state_then = let(from_json(first_given(stored.state, "{}")))
phase_then = let(first_given(state_then.phase, ""))
stable_target = let(first_given(stored.stable, ""))
settings_then = let(from_json(first_given(stored.settings, "{}")))
component = let(first_given(answer("objects", "components").value[p.component], {}))
is_knative = let(first_given(component.properties.deploymentMode, "") == "knative")
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
    "pauseAt",
    "shadow",
    "via",
)
#: In no schema: KubeVela makes no OpenAPI schema of a list with a default.
STEPS = first_given(p.steps, [10, 30, 60])
#: The step that tidies up goes by what the first one was told.
ASKED = {name: getattr(p, name) for name in SETTINGS} | {
    "steps": STEPS,
    "pauseAt": first_given(p.pauseAt, []),
    "shadow": first_given(p.shadow.percent, 0),
    "via": first_given(p.via, if_else(is_knative, "kserve", "route")),
}
settings = {
    name: if_else(p.tidy, first_given(settings_then[name], asked_for), asked_for) for name, asked_for in ASKED.items()
}
via = let(settings["via"])
rules = let(
    {
        **settings,
        "via": via,
        "steps": [
            when((floor(settings["shadow"]) > 0) & (first_given(settings["steps"][0], 0) > 0), 0),
            each(settings["steps"], floor),
        ],
        "pauseAt": [each(settings["pauseAt"], floor)],
        "shadow": floor(settings["shadow"]),
    }
)
route_asked = let(if_else(p.tidy, first_given(settings_then.route, {}), first_given(p.route, {})))

#: KServe splits between two revisions of the component's own object: the step makes no second object and no route.
is_kserve = let(via == "kserve")
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
                # No pod is another one by it, so Knative would make no revision.
                where=lambda trait: (
                    ~contains(list(SCALE_TRAITS), first_given(trait.type, ""))
                    & ~(is_kserve & (first_given(trait.type, "") == "slo"))
                ),
            )
        ],
    }
)
target = let(sha256(to_json(version)))

live = answer("objects", "live").value
candidate = answer("objects", "candidate").value


def one_line(text: Expression) -> Expression:
    """A text without line breaks and runs of spaces."""
    return replace_pattern(text, r"[\x00-\x20]+", " ")


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


live_is_absent = let(contains_text(first_given(answer("objects", "live").err, ""), "not found"))


def trouble_of(model: Reference) -> Expression:
    """Why a model is not ready, where KServe says so."""
    failure = model.status.modelStatus.lastFailureInfo
    # A server's last words may be a page long: their end is what went wrong.
    last_words = replace_pattern(one_line(first_given(failure.message, "")), r"^.+(.{200})$", "… ${1}")
    return first_given(f": {failure.reason}: {last_words}", "")


trouble = let(trouble_of(candidate))


def new_version_is_ready(model: Reference, by_kserve: Expression) -> Expression:
    """Whether the version that is brought in is ready, where KServe splits or where we do.

    Of a revision its own word counts: Ready is the route's too, and is Unknown for as long as the ingress takes in each
    share.
    """
    return if_else(
        by_kserve,
        length(conditions(model.status.conditions, "PredictorConfigurationReady", "True")) > 0,
        is_ready(model),
    )


candidate_is_ready = let(new_version_is_ready(candidate, is_kserve))


# ---------------------------------------------------------------- Knative's revisions

of_predictor = live.status.components.predictor
created = let(first_given(of_predictor.latestCreatedRevision, ""))
latest_ready = let(first_given(of_predictor.latestReadyRevision, ""))


def rolled_out_of(model: Reference) -> Expression:
    """The one that KServe pins what the newest does not get to (reconcilers/knative/ksvc_reconciler.go)."""
    return first_given(model.status.components.predictor.latestRolledoutRevision, "")


def percent_of(model: Reference) -> Expression:
    """What the newest revision gets, as it is written; -1 where nothing is."""
    return first_given(model.spec.predictor.canaryTrafficPercent, -1)


rolled_out = let(rolled_out_of(live))
#: The newest when the phase began: another one was made since. KServe's status has no generation of its own.
is_new = let((created != "") & (created != first_given(stored.before, "")))
has_all = let((created != "") & (created == latest_ready) & (created == rolled_out))
is_of_this_revision = revision_of(live) == context.appRevision
percent_written = let(percent_of(live))
stable_has_all = let(
    length(
        [
            each(
                first_given(of_predictor.traffic, []),
                lambda one: first_given(one.percent, 0),
                where=lambda one: (
                    (first_given(one.revisionName, "") == rolled_out) & (first_given(one.percent, 0) == 100)
                ),
            )
        ]
    )
    > 0
)
#: By the names that its series have, and that people are told.
candidate_name = let(
    cases(
        (is_kserve & is_new, created),
        (is_kserve, f"the new revision of {stable_name}"),
        otherwise=candidate_object,
    )
)
stable_version = let(if_else(is_kserve & (rolled_out != ""), rolled_out, stable_name))

times_of_leases = let(
    [
        each(
            first_given(answer("clock", "leases")["values"]["items"], []),
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
times = let(concat(times_of_leases, times_of_state))


def latest(of: Reference) -> Expression:
    """The last of some times; empty where there is none."""
    # Compared by CUE's own library: by an expression each time would cost a run that waits a fifth more.
    return first_given(let(raw_cue(f"list.SortStrings({of})", imports=("list",)), name="sorted")[length(of) - 1], "")


written_at = let(latest(times_of_state))
now_at = let(latest(times))


def seconds_of(time: Reference) -> Expression:
    """Seconds of a time as the API server writes it, since a day long ago."""
    # An intermediate is worked out whether it is asked for or not.
    whole = let(if_else(time == "", "2000-03-01T00:00:00Z", time))
    parts = let(raw_cue(f"time.Split({whole})", imports=("time",)))
    names = ("year", "month", "day", "hour", "minute", "second")
    at = let({name: floor(first_given(parts[name], 0)) for name in names})
    # A year begins with March, so that the day that it may lack is its last one.
    month = if_else(at.month > 2, at.month - 3, at.month + 9)
    year = let(if_else(at.month > 2, at.year, at.year - 1))
    days = 365 * year + div(year, 4) - div(year, 100) + div(year, 400) + div(153 * month + 2, 5) + at.day
    return 86400 * days + 3600 * at.hour + 60 * at.minute + at.second


#: Seconds since the state was last written.
waited = let(cases((written_at != "", seconds_of(now_at) - seconds_of(written_at)), otherwise=0))


# ---------------------------------------------------------------- the route, as it is


found_route = answer("objects", "httpRoute").value
generation = first_given(found_route.metadata.generation, 0)
#: Controllers that have not seen the route as it is now: Gateway API's status says of which generation it is.
behind = let(
    flatten(
        [
            each(
                first_given(found_route.status.parents, []),
                lambda parent: [
                    each(
                        first_given(parent.conditions, []),
                        lambda one: first_given(one.type, ""),
                        where=lambda one: first_given(one.observedGeneration, 0) < generation,
                    )
                ],
            )
        ]
    )
)


found_routes = let(first_given(found_route.spec.rules, answer("objects", "virtualService").value.spec.http, []))


def weights(of: Reference) -> Expression:
    """The weights that a rule of a route has, as text."""
    refs = first_given(of.backendRefs, first_given(of.route, []))
    return to_json([each(refs, lambda ref: first_given(ref.weight, 100))])


#: Both versions are backends, the candidate gets nothing, and who serves the route says that it has it like this. Istio
#: says nothing of its own: what is written is what there is.
is_routed_away = let(
    (length(behind) == 0)
    & (length(found_routes) > 0)
    & (length([each(found_routes, weights, where=lambda of: weights(of) != "[100,0]")]) == 0)
)
