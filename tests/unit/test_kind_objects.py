"""What the lab hands to kind, to the nodes and to the API server."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from velagen.errors import VelagenError
from velagen.kubevela import RELEASES, KubeVela
from velagen.lab import objects
from velagen.lab.images import recipes
from velagen.lab.kind import LAYERS, NODE_PORTS, KindLab, KindOptions, gateway, kserve, kubevela, models, stack
from velagen.lab.kind.certs import Pair, issue
from velagen.lab.kind.engine import Engine
from velagen.lab.kind.nodes import address, conflist, import_script, kind_config, routes
from velagen.lab.kind.state import KindState
from velagen.lab.kind.upstream import kustomized
from velagen.lab.process import Process

PAIR = Pair(b"certificate", b"key")


def test_every_port_is_mapped_on_loopback_alone() -> None:
    ports = {name: 20000 + at for at, name in enumerate(NODE_PORTS)}
    config = kind_config(KindOptions(), ports, [], assembled=True)
    (node,) = config["nodes"]
    mapped = {entry["containerPort"]: entry for entry in node["extraPortMappings"]}
    assert set(mapped) == set(NODE_PORTS.values())
    assert {entry["listenAddress"] for entry in mapped.values()} == {"127.0.0.1"}
    assert config["networking"]["apiServerAddress"] == "127.0.0.1"


def test_each_node_imports_the_assembled_images(tmp_path: Path) -> None:
    archives = [tmp_path / "a.tar", tmp_path / "b.tar"]
    config = kind_config(KindOptions(nodes=3), {}, archives, assembled=True)
    assert [node["role"] for node in config["nodes"]] == ["control-plane", "worker", "worker"]
    for node in config["nodes"]:
        assert [mount["containerPath"] for mount in node["extraMounts"]] == [
            "/kind/images/a.tar",
            "/kind/images/b.tar",
            "/kind/archives",
        ]
        assert all(mount["readOnly"] for mount in node["extraMounts"])
    assert config["networking"]["disableDefaultCNI"]
    patches = [yaml.safe_load(patch) for patch in config["nodes"][0]["kubeadmConfigPatches"]]
    assert {"kind": "InitConfiguration", "nodeRegistration": {"taints": []}} in patches
    (dns,) = [patch["dns"] for patch in patches if patch["kind"] == "ClusterConfiguration"]
    assert dns == {"imageRepository": "registry.k8s.io/coredns", "imageTag": "v1.15.0"}


def test_official_images_leave_kinds_own_network_and_dns() -> None:
    config = kind_config(KindOptions(), {}, [], assembled=False)
    assert not config["networking"]["disableDefaultCNI"]
    assert config["nodes"][0]["kubeadmConfigPatches"] == []
    assert "extraMounts" not in config["nodes"][0]


def test_an_image_is_imported_once_and_again_where_the_node_dropped_it(tmp_path: Path) -> None:
    # The node's part, run by this machine's shell with a containerd that says what it is told to have.
    (tmp_path / "ctr").write_text('#!/bin/sh\necho "$*" >> "$LOG"\ncase "$3" in list) cat "$HAS";; esac\n')
    (tmp_path / "ctr").chmod(0o755)
    has, log = tmp_path / "has", tmp_path / "log"
    has.touch()
    script = import_script("x-1.tar", "kserve/x:1").replace("/kind/imported", str(tmp_path / "imported"))
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HAS": str(has), "LOG": str(log)}

    def imports() -> int:
        log.write_text("")
        subprocess.run(["/bin/sh", "-euc", script], env=environment, check=True)
        return log.read_text().count("images import")

    assert imports() == 1
    has.write_text("docker.io/kserve/x:1\n")
    assert imports() == 0
    has.write_text("")
    assert imports() == 1
    assert "name==docker.io/kserve/x:1" in log.read_text()


def test_a_nodes_pods_get_its_own_range() -> None:
    config = conflist("10.244.3.0/24")
    assert config["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.3.0/24"}]]
    assert not config["plugins"][0]["ipMasq"]


def test_routes_are_a_script_that_can_run_twice() -> None:
    script = routes([("10.244.1.0/24", "172.18.0.3"), ("10.244.2.0/24", "172.18.0.4")])
    assert "ip route replace 10.244.1.0/24 via 172.18.0.3\n" in script
    assert "ip route replace 10.244.2.0/24 via 172.18.0.4\n" in script
    # Each pod's own route and those to other nodes are closer than this one.
    assert "ip route replace unreachable 10.244.0.0/16\n" in script
    assert "iptables -w -A OUTPUT -d 10.96.0.0/16 -p tcp -j REJECT --reject-with tcp-reset\n" in script
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    check, add = script.strip().splitlines()[-1].split("||")
    assert check.replace(" -C ", " -A ").replace("2>/dev/null", "").split() == add.split()


def test_an_address_is_ipv4() -> None:
    node: dict[str, Any] = {
        "metadata": {"name": "n"},
        "status": {
            "addresses": [
                {"type": "Hostname", "address": "n"},
                {"type": "InternalIP", "address": "fc00::2"},
                {"type": "InternalIP", "address": "172.18.0.2"},
            ]
        },
    }
    assert address(node) == "172.18.0.2"
    del node["status"]["addresses"][2]
    with pytest.raises(VelagenError, match="no IPv4"):
        address(node)


def test_a_state_survives_being_written_down(tmp_path: Path) -> None:
    engine = Engine("unix:///x", Process("dockerd", ["dockerd"], pid=7, identity="b/1"), "/x", "m", {"ip_forward": "0"})
    given = KindState("velagen-x", KindOptions(nodes=2, layers=("kubevela",)), engine, {"open": 1}, brought=["network"])
    given.write(tmp_path / "state.json")
    assert KindState.read(tmp_path / "state.json") == given
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{}", '{"mark": 1}', "[]"])
def test_a_state_nobody_of_ours_wrote_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    assert KindState.read(tmp_path / "state.json") is None


@pytest.mark.parametrize("name", ["", "UPPER", "a_b", "-a", "x" * 40])
def test_a_name_kind_would_refuse_is_refused(name: str) -> None:
    with pytest.raises(VelagenError, match="is not a valid lab name"):
        KindLab(name)


def test_a_lab_that_is_not_up_says_how_to_start_it(tmp_path: Path) -> None:
    lab = KindLab("x", folder=tmp_path / "lab")
    assert not lab.running
    for ask in (lambda: lab.api, lambda: lab.environment(), lambda: lab.url("open")):
        with pytest.raises(VelagenError, match="lab up --kind"):
            ask()
    assert not lab.down()


def test_other_options_than_those_it_runs_with_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lab"
    folder.mkdir()
    KindState("velagen-x", KindOptions(addon="/one"), Engine(), {}, ready=True).write(folder / "state.json")
    monkeypatch.setattr(KindLab, "running", True)
    with pytest.raises(VelagenError, match=r"addon: '/one', not '/other'\)(\n.*)*lab down --kind --name x --dir"):
        KindLab("x", folder=folder, options=KindOptions(addon="/other")).up()
    KindLab("x", folder=folder, options=KindOptions(addon="/one")).up()


def test_an_unknown_layer_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(VelagenError, match=", ".join(LAYERS)):
        stack.install(KindLab("x", folder=tmp_path), ["nonesuch"], None)


def test_a_certificate_is_for_its_names_and_signs_itself() -> None:
    pair = issue(["a.b.svc", "a.b.svc.cluster.local"])
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.b.svc", "a.b.svc.cluster.local"]
    assert certificate.issuer == certificate.subject
    assert b"PRIVATE KEY" in pair.key


def test_webhooks_keep_their_path_and_call_the_service() -> None:
    given = {
        "metadata": {"name": "x", "creationTimestamp": None},
        "webhooks": [
            {"clientConfig": {"url": "https://127.0.0.1:1234/validate/it", "caBundle": "old"}},
            {"clientConfig": {"service": {"name": "s", "namespace": "n", "path": "/mutate"}}},
        ],
    }
    (thing,) = kubevela.in_cluster([given], "hooks", "space", b"pem")
    clients = [hook["clientConfig"] for hook in thing["webhooks"]]
    assert [client["service"]["path"] for client in clients] == ["/validate/it", "/mutate"]
    assert {client["service"]["name"] for client in clients} == {"hooks"}
    assert {client["caBundle"] for client in clients} == {base64.b64encode(b"pem").decode()}
    assert all("url" not in client for client in clients)
    assert given["webhooks"][0]["clientConfig"]["caBundle"] == "old"  # type: ignore[index]


def test_kserves_images_have_the_release_as_their_tag() -> None:
    text = json.dumps({"image": "kserve/storage-initializer:latest"})
    given = {"a": [{"image": "kserve/sklearnserver:latest"}, {"image": "vllm/vllm-openai:latest"}], "b": text}
    assert kserve.pinned(given) == {
        "a": [{"image": "kserve/sklearnserver:v0.20.0"}, {"image": "vllm/vllm-openai:latest"}],
        "b": text.replace("latest", "v0.20.0"),
    }


def test_kserves_controller_is_upstreams_without_the_proxy_and_the_certificate_manager() -> None:
    things, hooks = kserve.kserve_objects(kustomized("kserve", "config/default"), PAIR)
    kinds = {thing["kind"] for thing in things}
    assert not kinds & {"CustomResourceDefinition", "Certificate", "Issuer"}
    (deployment,) = [thing for thing in things if thing["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "kserve/kserve-controller:v0.20.0"
    assert container["imagePullPolicy"] == "IfNotPresent"
    (certificate,) = [thing for thing in things if thing["metadata"]["name"] == "kserve-webhook-server-cert"]
    assert certificate["data"]["tls.crt"] == base64.b64encode(PAIR.certificate).decode()
    assert len(hooks) == 6
    assert not any("cert-manager.io/inject-ca-from" in str(hook["metadata"]) for hook in hooks)


def test_every_image_of_contours_manifests_is_one_the_lab_has() -> None:
    things = gateway.contour("velagen.local/envoy:1.40.0", 30080)
    images = {
        container["image"]
        for thing in things
        if thing["kind"] in {"Deployment", "DaemonSet", "Job"}
        for container in [
            *thing["spec"]["template"]["spec"]["containers"],
            *thing["spec"]["template"]["spec"].get("initContainers", []),
        ]
    }
    assert images == {"ghcr.io/projectcontour/contour:v1.33.8", "velagen.local/envoy:1.40.0"}
    assert "hostPort" not in json.dumps([thing for thing in things if thing["kind"] == "DaemonSet"])


def test_routes_to_models_go_to_the_gateway_that_is_made() -> None:
    config = gateway.routed({"data": {"ingress": json.dumps({"ingressDomain": "example.com"}), "deploy": "{}"}})
    ingress = json.loads(config["data"]["ingress"])
    (made,) = [thing for thing in gateway.gateway() if thing["kind"] == "Gateway"]
    assert ingress["kserveIngressGateway"] == f"{made['metadata']['namespace']}/{made['metadata']['name']}"
    assert ingress["enableGatewayApi"]
    assert ingress["ingressDomain"] == "example.com"


def test_a_small_model_reserves_little_while_it_is_fetched_too() -> None:
    """A pod reserves the most that any of its init containers asks for, as long as it lives."""
    (fetcher,) = [
        kserve.light(thing) for thing in objects.kserve_runtimes() if thing["kind"] == "ClusterStorageContainer"
    ]
    resources = fetcher["spec"]["container"]["resources"]
    assert resources["requests"]["cpu"] == "20m"
    assert resources["limits"] == {"cpu": "1", "memory": "1Gi"}


def test_the_store_needs_no_secret_from_an_application() -> None:
    given = {"spec": {"container": {"name": "storage-initializer", "image": "x"}}}
    container = models.with_store(given)["spec"]["container"]
    (endpoint,) = [entry["value"] for entry in container["env"] if entry["name"] == "AWS_ENDPOINT_URL"]
    (service,) = [thing for thing in models.store_objects() if thing["kind"] == "Service"]
    assert endpoint == f"http://{service['metadata']['name']}.{service['metadata']['namespace']}:5000"
    assert "env" not in given["spec"]["container"]


@pytest.mark.parametrize("release", RELEASES, ids=str)
def test_kubevelas_controller_is_of_the_release_and_starts_as_its_chart_has_it(release: KubeVela) -> None:
    (deployment,) = (thing for thing in kubevela.vela_objects(PAIR, release.version) if thing["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    image = recipes()[f"vela-core-{release.version}"]
    assert container["image"] in image.references
    assert {part.tool for part in image.parts} == {f"vela-core@{release.version}", None}
    assert {one["name"]: one["value"] for one in container["env"]} == dict(release.environment)
    assert "--feature-gates=MultiStageComponentApply=true" in container["args"]
    assert "--metrics-addr=:8080" in container["args"]
