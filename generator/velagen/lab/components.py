"""The processes of an embedded lab: their tools, ports, health and flags."""

from __future__ import annotations

import os
from pathlib import Path

from velagen.lab import objects
from velagen.lab.process import MARK, Process
from velagen.lab.state import LabState

#: Tools a lab is made of, in the order of start.
COMPONENTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "vela-core",
    "kserve-manager",
)


PORTS = (
    "etcd",
    "etcd-peer",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
    "vela-core",
    "vela-core-metrics",
    "vela-core-webhook",
    "kserve-manager",
    "kserve-manager-metrics",
    "kserve-manager-webhook",
)


HEALTH = {
    "etcd": "https://127.0.0.1:{port}/health",
    "kube-apiserver": "https://127.0.0.1:{port}/readyz",
    "kube-controller-manager": "https://127.0.0.1:{port}/healthz",
    "kube-scheduler": "https://127.0.0.1:{port}/healthz",
    "kwok": "http://127.0.0.1:{port}/healthz",
    "vela-core": "http://127.0.0.1:{port}/readyz",
    "kserve-manager": "http://127.0.0.1:{port}/readyz",
}
#: The pairs below ``pki``, each a ``.crt`` and a ``.key``: what components serve with, what etcd serves with, and the
#: one by which etcd knows the API server. An etcd that asks for none gives every secret to every user of the machine.
SERVER, ETCD, ETCD_CLIENT = "server", "etcd", "etcd-client"


def tools_of(kubevela: str) -> dict[str, str | None]:
    """Give the tools a lab needs, by name: the version, or None for the pinned default.

    Args:
        kubevela: the version of KubeVela.
    """
    return {**dict.fromkeys((*COMPONENTS, "vela")), "vela-core": kubevela, "vela": kubevela}


def pair(folder: Path, name: str) -> tuple[Path, Path]:
    """Give the files of a certificate and its key in a lab's folder."""
    return folder / "pki" / f"{name}.crt", folder / "pki" / f"{name}.key"


def flags(folder: Path, state: LabState) -> dict[str, list[str]]:
    """Give the flags of each component.

    Args:
        folder: the lab's; its keys, certificates and stages are there.
    """
    ports = state.ports
    pki = folder / "pki"
    ca = pki / "ca.crt"
    kubeconfig = str(folder / "kubeconfig")
    client = [f"--kubeconfig={kubeconfig}"]
    etcd = f"https://127.0.0.1:{ports['etcd']}"
    peer = f"https://127.0.0.1:{ports['etcd-peer']}"
    certificate, key = pair(folder, SERVER)
    serving = [f"--tls-cert-file={certificate}", f"--tls-private-key-file={key}"]
    certificate, key = pair(folder, ETCD)
    closed = [
        option
        for prefix in ("", "peer-")
        for option in (
            f"--{prefix}cert-file={certificate}",
            f"--{prefix}key-file={key}",
            f"--{prefix}trusted-ca-file={ca}",
            f"--{prefix}client-cert-auth",
        )
    ]
    certificate, key = pair(folder, ETCD_CLIENT)
    core = objects.vela_core(state.options.kubevela)
    gates = [f"--feature-gates={state.options.feature_gates}"] if state.options.feature_gates else []
    secure = {name: f"--secure-port={ports[name]}" for name in COMPONENTS}
    return {
        "etcd": [
            "--name=lab",
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=lab={peer}",
            *closed,
            # A lab's data is worth nothing after a power cut, and fsync is most of etcd's time.
            "--unsafe-no-fsync",
            "--log-level=warn",
        ],
        "kube-apiserver": [
            f"--etcd-servers={etcd}",
            f"--etcd-cafile={ca}",
            f"--etcd-certfile={certificate}",
            f"--etcd-keyfile={key}",
            secure["kube-apiserver"],
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            # Nobody dials the API server through a Service here, and loopback addresses are not allowed in Endpoints.
            "--endpoint-reconciler-type=none",
            *serving,
            f"--cert-dir={pki}",
            f"--service-account-key-file={pki / 'service-account.key.pub'}",
            f"--service-account-signing-key-file={pki / 'service-account.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={pki / 'tokens.csv'}",
            "--allow-privileged=true",
            "--disable-admission-plugins=ServiceAccount",
            "--enable-priority-and-fairness=false",
            "--profiling=false",
            *gates,
        ],
        "kube-controller-manager": [
            *client,
            secure["kube-controller-manager"],
            "--bind-address=127.0.0.1",
            *serving,
            "--leader-elect=false",
            f"--service-account-private-key-file={pki / 'service-account.key'}",
            f"--root-ca-file={ca}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            # KServe leaves the number of replicas to an autoscaler, which looks every 15 s otherwise.
            "--horizontal-pod-autoscaler-sync-period=2s",
            *gates,
        ],
        "kube-scheduler": [
            *client,
            secure["kube-scheduler"],
            "--bind-address=127.0.0.1",
            *serving,
            "--leader-elect=false",
            *gates,
        ],
        "kwok": [
            *client,
            "--manage-all-nodes=true",
            "--cidr=10.244.0.0/16",
            "--node-ip=10.0.0.1",
            # Without leases nodes turn NotReady after 40 s, and pods lose Ready for good.
            "--node-lease-duration-seconds=40",
            f"--config={folder / 'stages.yaml'}",
            f"--server-address=127.0.0.1:{ports['kwok']}",
            "-v=WARN",
        ],
        "vela-core": core.arguments(
            metrics_addr=f"127.0.0.1:{ports['vela-core-metrics']}",
            health_addr=f"127.0.0.1:{ports['vela-core']}",
            enable_leader_election=False,
            use_webhook=True,
            webhook_port=ports["vela-core-webhook"],
            webhook_cert_dir=str(folder / "webhook"),
            application_re_sync_period=f"{state.options.resync_seconds}s",
            # KubeVela's own is 60: whoever watches a lab, and each test, waits for a waiting step's next run.
            max_workflow_wait_backoff_time=2,
            max_workflow_failed_backoff_time=10,
        ),
        "kserve-manager": [
            f"-kubeconfig={kubeconfig}",
            f"-health-probe-addr=127.0.0.1:{ports['kserve-manager']}",
            f"-metrics-addr=127.0.0.1:{ports['kserve-manager-metrics']}",
            f"-webhook-port={ports['kserve-manager-webhook']}",
        ],
    }


def processes(folder: Path, state: LabState, binaries: dict[str, Path]) -> dict[str, Process]:
    """Give the command of each component.

    Args:
        binaries: the program of each component.
    """
    # Little of the person's environment: a proxy, a kubeconfig or a ~/.kwok of theirs must not change the lab.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        # vela-core has no flag for it.
        "KUBECONFIG": str(folder / "kubeconfig"),
        # A start allocates much and frees all of it: collecting garbage less often halves its time.
        "GOGC": "400",
        # But not when that means gigabytes: an API server with so many CRDs would take two of them within minutes.
        "GOMEMLIMIT": "800MiB",
        "POD_NAMESPACE": objects.KSERVE_NAMESPACE,
        MARK: state.mark,
    }
    more = {"vela-core": objects.vela_core(state.options.kubevela).environment}
    return {
        name: Process(name=name, argv=[str(binaries[name]), *arguments], env=environment | more.get(name, {}))
        for name, arguments in flags(folder, state).items()
    }
