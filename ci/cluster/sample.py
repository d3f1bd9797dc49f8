# SPDX-License-Identifier: Apache-2.0
"""`make cluster`: a cluster with Kmesh and an application on it, and what to try."""

from __future__ import annotations

import json
import time
from pathlib import Path

from ci.cluster import image, kmesh
from ci.cluster.image import REPOSITORY, TAG
from ci.cluster.machine import Machine

ADDRESS = "10.96.7.7"
GATEWAY_API = Path(__file__).with_name("gateway-api.yaml")
SERVER = """
import http.server, socket
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{socket.gethostname()}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512
Server(("", 8080), Handler).serve_forever()
"""
_CURL = "import urllib.request as u;print(u.urlopen('http://{address}/').read().decode(),end='')"


def manifest(namespace: str = "sample", *, address: str = ADDRESS, label: bool = True) -> str:
    """Two web servers, a service in front of them, and a client; as JSON, which kubectl reads too."""
    container = {"image": f"{REPOSITORY}:{TAG}", "imagePullPolicy": "Never"}
    labels = {"istio.io/dataplane-mode": "kmesh"} if label else {}
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    server = {"name": "web", "command": ["python3", "-c", SERVER], "readinessProbe": probe}
    web = {"terminationGracePeriodSeconds": 1, "containers": [server | container]}
    client = {
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "client", "command": ["sleep", "infinity"], **container}],
    }
    items = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": labels},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": web},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "selector": {"app": "web"},
                "clusterIP": address,
                "ports": [{"port": 80, "targetPort": 8080}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client", "namespace": namespace, "labels": {"app": "client"}},
            "spec": client,
        },
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def deploy(
    machine: Machine, namespace: str = "sample", *, address: str = ADDRESS, label: bool = True
) -> None:
    """Bring the application up, and wait for it."""
    machine.apply(manifest(namespace, address=address, label=label))
    machine.kubectl(
        "-n", namespace, "rollout", "status", "deployment/web", "--timeout=120s", seconds=150
    )
    machine.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")


def route(namespace: str = "sample") -> str:
    """An HTTPRoute for the service: what is below /old has moved to /new."""
    moved = {
        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"},
        "statusCode": 302,
    }
    rules = [
        {
            "name": "moved",
            "matches": [{"path": {"type": "PathPrefix", "value": "/old"}}],
            "filters": [{"type": "RequestRedirect", "requestRedirect": moved}],
        },
        {"name": "rest", "backendRefs": [{"name": "web", "port": 80}]},
    ]
    return json.dumps(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                "rules": rules,
            },
        }
    )


def bring_up(machine: Machine) -> None:
    """From nothing to a cluster with Kmesh and an application to curl.

    Raises:
        KmeshError: something on the way failed.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:5.1f} s  {text}", flush=True)

    say("building the image (kept outside the clone) ...")
    archive = image.archive()
    say("bringing up etcd, the control plane, containerd and the kubelet ...")
    machine.up()
    say("loading the image ...")
    machine.load_image(archive)
    say("helm install ...")
    machine.apply(GATEWAY_API.read_text())
    kmesh.install(machine)
    deploy(machine)
    machine.apply(route())
    say("ready")
    _tell(machine)


def _tell(machine: Machine) -> None:
    enter = f"{Path('.venv/bin/python')} -m ci.cluster exec --"
    print(machine.kubectl("get", "nodes", "-L", "kmesh.net/mode"), end="")
    print(machine.kubectl("-n", "sample", "get", "pods", "-o", "wide"), end="")
    code = _CURL.format(address=ADDRESS)
    print("\nThe service, asked six times by the pod `client`:")
    for _ in range(6):
        out = machine.kubectl("-n", "sample", "exec", "client", "--", "python3", "-c", code)
        print(f"  {out}", end="")
    print(
        f"""
Try:
  {enter} kubectl -n sample exec client -- python3 -c "{code}"
  {enter} kubectl -n kmesh-system exec ds/kmesh -- kmeshctl explain {ADDRESS}:80
  {enter} kubectl -n kmesh-system exec ds/kmesh -- kmeshctl routes
  {enter} kubectl -n sample get httproute web -o yaml
  {enter} kubectl label namespace sample istio.io/dataplane-mode-
  make cluster-down"""
    )
