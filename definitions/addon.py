"""The addon's own Application, and what it tells the person who enabled it.

By default it installs nothing: the definitions work with the KServe that is on the cluster, and enabling needs no
network. With install=true the Application holds KServe's charts: by the component type helm of the addon fluxcd, or by
KubeVela's own helmchart, which 1.11 brings. A template of an addon is not told KubeVela's version (addon.go,
renderNotes and render.go give it metadata and parameters only), so a parameter says which.

Sources: KServe v0.20.0 charts/*/values.yaml; kubevela pkg/workflow/providers/query/tree.go (rules.oam.dev/resources),
1.11's vela-templates/definitions/internal/component/helmchart.cue and pkg/cue/cuex/providers/helm/chart_fetch.go.
"""

from __future__ import annotations

import _admission
import _dashboards
import _monitoring
import _packing
from _kserve import MODES

from velagen import AddonTemplate, choose, has_prefix, if_else, let, matches, otherwise, to_yaml, when
from velagen import parameter as p
from velagen.template.expression import Value

#: What an InferenceService makes; vela status --tree and vela logs follow these rules.
RESOURCE_TREE = [
    {
        "parentResourceType": {"group": "serving.kserve.io", "kind": "InferenceService"},
        "childrenResourceType": [
            {"apiVersion": "apps/v1", "kind": "Deployment"},
            {"apiVersion": "v1", "kind": "Service"},
            {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"},
            {"apiVersion": "serving.knative.dev/v1", "kind": "Service"},
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"},
            {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress"},
        ],
    },
    {
        "parentResourceType": {"group": "serving.knative.dev", "kind": "Service"},
        "childrenResourceType": [{"apiVersion": "serving.knative.dev/v1", "kind": "Configuration"}],
    },
    {
        "parentResourceType": {"group": "serving.knative.dev", "kind": "Configuration"},
        "childrenResourceType": [{"apiVersion": "serving.knative.dev/v1", "kind": "Revision"}],
    },
    {
        "parentResourceType": {"group": "serving.knative.dev", "kind": "Revision"},
        "childrenResourceType": [{"apiVersion": "apps/v1", "kind": "Deployment"}],
    },
]


native = let(p.installWith == "helmchart")
oci = let(has_prefix(p.chartUrl, "oci://"))


def chart(name: str, values: Value, *, after: Value = None, deployment: str = "") -> Value:
    """One of KServe's charts, installed once the charts *after* are; healthy once its *deployment* is available."""
    by_kubevela = {
        "chart": {
            # By helmchart's rule: an oci:// address names the chart, that of a repository stands beside it.
            "source": if_else(oci, f"{p.chartUrl}/{name}", name),
            when(~oci): {"repoURL": p.chartUrl},
            "version": p.version,
        },
        "release": {"name": name, "namespace": p.namespace},
    }
    if deployment:
        healthy = {"resource": {"kind": "Deployment", "name": deployment}, "condition": {"type": "Available"}}
        by_kubevela["healthStatus"] = [healthy]
    by_flux = {
        "repoType": if_else(oci, "oci", "helm"),
        "url": p.chartUrl,
        "chart": name,
        "version": p.version,
        "releaseName": name,
        "targetNamespace": p.namespace,
    }
    component = {
        "name": name,
        "type": if_else(native, "helmchart", "helm"),
        "properties": {"values": values, when(native): by_kubevela, otherwise(): by_flux},
    }
    return component if after is None else {**component, "dependsOn": after}


controller = {
    "deploymentMode": choose(p.deploymentMode, MODES),
    "gateway": {
        "disableIngressCreation": p.gateway == "none",
        "ingressGateway": {"enableGatewayApi": p.gateway == "gateway-api", "className": "istio"},
    },
}

#: The chart gives the container that fetches models all that restricted asks for but this
#: (charts/kserve-resources/values.yaml), which in standard mode it has from its pod.
storage = {"containerSecurityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}

version_used = if_else(p.install, p.version, p.kserve)

addon = AddonTemplate(
    output={
        "apiVersion": "core.oam.dev/v1beta1",
        "kind": "Application",
        "spec": {
            "components": [
                when(p.install, chart("kserve-crd", {})),
                when(
                    p.install,
                    chart(
                        "kserve-resources",
                        {"kserve": {"controller": controller, "storage": storage}},
                        after=["kserve-crd"],
                        deployment="kserve-controller-manager",
                    ),
                ),
                # The controller's webhook judges the runtimes.
                when(p.install, chart("kserve-runtime-configs", {}, after=["kserve-resources"])),
                *_admission.components,
                *_dashboards.components,
                *_monitoring.components,
                *_packing.components,
            ],
            **_monitoring.workflow,
        },
    },
    defaults=_monitoring.defaults,
    outputs={
        "resourceTree": {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "kfserving-resource-tree",
                "namespace": "vela-system",
                "labels": {"rules.oam.dev/resources": "true", "rules.oam.dev/resource-format": "yaml"},
            },
            "data": {"rules": to_yaml(RESOURCE_TREE)},
        }
    },
    notes=if_else(
        p.install,
        f"KServe {p.version} is being installed into {p.namespace}: vela status addon-kfserving -n vela-system shows "
        "how far it is.\n",
        f"The KServe {p.kserve} in namespace {p.namespace} is used.\n",
    )
    + if_else(
        matches(version_used, "^v?0[.]20([.-]|$)"),
        "",
        f"The definitions were written for KServe 0.20 and run on it alone: on {version_used} try a model before you "
        "rely on them.\n",
    )
    + """
Deploy a model:

    cat <<END | vela up -f -
    apiVersion: core.oam.dev/v1beta1
    kind: Application
    metadata:
      name: sentiment
    spec:
      components:
        - name: sentiment
          type: kfserving
          properties:
            runtime: "triton"
            minReplicas: 2
            modelUri: "s3://models/sentiment/1"
    END

See how it is:            vela status sentiment
See what it is made of:   vela status sentiment --tree
What may be written:      vela show kfserving
                          (or accelerator, autoscale, availability, canary, gpu-share, slo, model-scope, check-model,
                          check-slo)
""",
)
