# SPDX-License-Identifier: Apache-2.0
"""The processes of a node and its control plane, with the settings that they need on a small machine.

Tried on a VM without CAP_SYS_RESOURCE and with version 1 control groups: containers' OOM scores stay as they
are, and the kubelet leaves cgroups to the runtime.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ci.cluster.archive import PAUSE

NODE = "node1"
NODE_IP = "192.0.2.1"  # TEST-NET-1: nobody's
SERVICES, PODS = "10.96.0.0/16", "10.244.0.0/16"
SERVER = "https://127.0.0.1:6443"
ETCD = "http://127.0.0.1:2379"
CNI_BIN, CNI_CONF = Path("/opt/cni/bin"), Path("/etc/cni/net.d")

_CONTAINERD = """version = 2
root = "{home}/containerd"
state = "/run/containerd/state"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"
"""
_RUNTIME = """  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{program}"
"""
_KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
    "authorization": {"mode": "AlwaysAllow"},
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "failSwapOn": False,
    "localStorageCapacityIsolation": False,
    "resolvConf": "",
    "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
    "featureGates": {"KubeletInUserNamespace": True},
    "evictionHard": {
        "memory.available": "50Mi",
        "nodefs.available": "1%",
        "imagefs.available": "1%",
    },
    "imageGCHighThresholdPercent": 100,
    "syncFrequency": "10s",
}
_BRIDGE = {
    "cniVersion": "1.0.0",
    "name": "kmesh-cluster",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.244.0.0/24"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def write_config(home: Path, *, runtime: Path | None = None) -> None:
    """Write what containerd, the kubelet and the network's plugin read.

    Args:
        home: the machine's directory.
        runtime: what containerd has make containers, instead of runc.
    """
    text = _CONTAINERD.format(home=home, pause=PAUSE, cni_bin=CNI_BIN, cni_conf=CNI_CONF)
    if runtime is not None:
        text += _RUNTIME.format(program=runtime)
    (home / "containerd.toml").write_text(text)
    (home / "kubelet.yaml").write_text(json.dumps(_KUBELET))
    (CNI_CONF / "10-bridge.conflist").write_text(json.dumps(_BRIDGE, indent=2))


def commands(home: Path, kube: Path) -> Mapping[str, list[str]]:
    """Every process by name, in the order of starting."""
    pki, config = home / "pki", f"--kubeconfig={home / 'kubeconfig'}"
    return {
        "etcd": [
            *("etcd", "--data-dir", str(home / "etcd"), "--unsafe-no-fsync"),
            *("--listen-client-urls", ETCD, "--advertise-client-urls", ETCD),
            *("--listen-peer-urls", "http://127.0.0.1:2380", "--logger", "zap"),
        ],
        "containerd": ["containerd", "-c", str(home / "containerd.toml")],
        "apiserver": [
            *(str(kube), "kube-apiserver", f"--etcd-servers={ETCD}"),
            *("--secure-port=6443", f"--advertise-address={NODE_IP}"),
            f"--service-cluster-ip-range={SERVICES}",
            *(f"--tls-cert-file={pki}/api.crt", f"--tls-private-key-file={pki}/api.key"),
            *(f"--client-ca-file={pki}/ca.crt", f"--token-auth-file={pki}/tokens.csv"),
            "--service-account-issuer=https://kubernetes.default.svc",
            *(
                f"--service-account-key-file={pki}/sa.pub",
                f"--service-account-signing-key-file={pki}/sa.key",
            ),
            *("--authorization-mode=Node,RBAC", "--allow-privileged=true"),
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "controller-manager": [
            *(str(kube), "kube-controller-manager", config, "--leader-elect=false"),
            *(f"--root-ca-file={pki}/ca.crt", f"--service-account-private-key-file={pki}/sa.key"),
            *(
                "--use-service-account-credentials",
                "--controllers=*,-nodeipam,-cloud-node-lifecycle",
            ),
        ],
        "scheduler": [str(kube), "kube-scheduler", config, "--leader-elect=false"],
        "kubelet": [
            *(str(kube), "kubelet", config, f"--config={home / 'kubelet.yaml'}"),
            *(
                f"--hostname-override={NODE}",
                f"--node-ip={NODE_IP}",
                f"--root-dir={home / 'kubelet'}",
            ),
        ],
    }
