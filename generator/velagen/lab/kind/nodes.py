"""What nodes of a kind cluster are told: kind's configuration, their network, the import of images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from velagen.errors import Problem, VelagenError
from velagen.lab.images import images_dir, recipes
from velagen.lab.kind.options import NODE_PORTS, KindOptions

#: Where nodes see the folder of this machine that assembled images are kept in.
ARCHIVES = "/kind/archives"


POD_RANGE = "10.244.0.0/16"


SERVICE_RANGE = "10.96.0.0/16"


def kind_config(
    options: KindOptions, ports: Mapping[str, int], mounts: Iterable[Path], *, assembled: bool
) -> dict[str, Any]:
    """Give kind's configuration of a cluster.

    Args:
        ports: port on 127.0.0.1 for each key of `NODE_PORTS`.
        mounts: image archives that every node imports as it boots.
    """
    patches = []
    if options.nodes > 1:
        # The control plane runs pods too; where it is alone kind sees to that, and stumbles if it is done already.
        patches.append(yaml.safe_dump({"kind": "InitConfiguration", "nodeRegistration": {"taints": []}}))
    if assembled:
        tag = recipes()["coredns"].references[0].rpartition(":")[2]
        patches.append(
            yaml.safe_dump(
                {
                    "kind": "ClusterConfiguration",
                    "dns": {"imageRepository": "registry.k8s.io/coredns", "imageTag": tag},
                }
            )
        )
    first: dict[str, Any] = {
        "role": "control-plane",
        "kubeadmConfigPatches": patches,
        "extraPortMappings": [
            {"containerPort": NODE_PORTS[name], "hostPort": port, "listenAddress": "127.0.0.1"}
            for name, port in ports.items()
        ],
    }
    nodes = [first, *({"role": "worker"} for _ in range(options.nodes - 1))]
    shared = [
        {"hostPath": str(path), "containerPath": f"/kind/images/{path.name}", "readOnly": True} for path in mounts
    ]
    if assembled:
        shared.append({"hostPath": str(images_dir()), "containerPath": ARCHIVES, "readOnly": True})
        for node in nodes:
            node["extraMounts"] = shared
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            "apiServerAddress": "127.0.0.1",
            "podSubnet": POD_RANGE,
            "serviceSubnet": SERVICE_RANGE,
            # Ours has no pod for it: one file and a few routes do.
            "disableDefaultCNI": assembled,
        },
        "nodes": nodes,
    }


def import_script(archive: str, reference: str) -> str:
    """Give what a node does to have an image: nothing where it has imported this very archive, and kept it.

    Args:
        archive: name of a file in `ARCHIVES`, which holds the hash of its content.
        reference: one of its references; the kubelet removes images when the disk is full.
    """
    ctr = "ctr --namespace=k8s.io images"
    full = reference if "." in reference.partition("/")[0] else f"docker.io/{reference}"
    mark = f"/kind/imported/{archive}"
    return (
        f"if test -e {mark} && {ctr} list --quiet name=={full} | grep --quiet .; then exit 0; fi\n"
        f"{ctr} import --snapshotter=overlayfs {ARCHIVES}/{archive}\n"
        f"mkdir -p /kind/imported\ntouch {mark}\n"
    )


def conflist(pods: str) -> dict[str, Any]:
    """Give the CNI configuration of one node.

    Args:
        pods: the node's pod range.
    """
    return {
        "cniVersion": "0.3.1",
        "name": "velagen",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "mtu": 1500,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-ipam-state",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{"subnet": pods}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def routes(others: Iterable[tuple[str, str]]) -> str:
    """Give the script that joins a node to the others: routes to their pods, and an address for what leaves.

    The address of a pod that is gone can't be reached. By the default route it would leave the machine, and whatever
    answers there, such as a proxy, would be taken for the pod: kube-apiserver kept such a connection to KEDA's. So
    would the address of a Service that kube-proxy has not taken in yet: it kept one of those too, to metrics-server's.

    Args:
        others: (pod range, node address) of each other node.
    """
    rule = f"POSTROUTING -s {POD_RANGE} ! -d {POD_RANGE} -m addrtype ! --dst-type LOCAL -j MASQUERADE"
    lines = [f"ip route replace unreachable {POD_RANGE}"]
    lines += [f"ip route replace {pods} via {via}" for pods, via in others]
    lines.append(f"iptables -w -t nat -C {rule} 2>/dev/null || iptables -w -t nat -A {rule}")
    # By then an address of a Service has become a pod's, where there is one.
    rule = f"OUTPUT -d {SERVICE_RANGE} -p tcp -j REJECT --reject-with tcp-reset"
    lines.append(f"iptables -w -C {rule} 2>/dev/null || iptables -w -A {rule}")
    return "set -eu\n" + "\n".join(lines) + "\n"


def address(node: Mapping[str, Any]) -> str:
    """Give a node's internal IPv4 address.

    Raises:
        VelagenError: it has none.
    """
    for entry in node["status"]["addresses"]:
        if entry["type"] == "InternalIP" and ":" not in entry["address"]:
            return str(entry["address"])
    raise VelagenError(Problem(f"node {node['metadata']['name']} has no IPv4 address"))
