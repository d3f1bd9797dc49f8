# SPDX-License-Identifier: Apache-2.0
"""The samples on a real cluster, with what a real Istiod once said of them said again as istiod.istio-system."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci.cluster import kmesh
from ci.cluster import manifests as plain
from ci.cluster.image import REPOSITORY, TAG
from ci.cluster.sample import SERVER
from runtime.source.recorded import SERVICES, WORKLOADS, parse_recording
from tests.cluster.conftest import Cluster
from tests.cluster.test_cluster_uninstall import everything
from tests.launch.conftest import until

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]

BOOKS = "bookstore"
REVIEWS = "reviews.bookstore.svc.cluster.local"
ISTIOD = "istiod.istio-system.svc:15010"
IMAGE = {"image": f"{REPOSITORY}:{TAG}", "imagePullPolicy": "Never"}
# Asks a URL so many times, each time by a new connection; counts status, redirection and answer.
ASK = """
import collections, http.client, json, sys
host, port, method, path, count, headers = sys.argv[1:]
got = collections.Counter()
for _ in range(int(count)):
    try:
        c = http.client.HTTPConnection(host, int(port), timeout=5)
        c.request(method, path, headers=json.loads(headers))
        r = c.getresponse()
        got[f"{r.status} {r.getheader('Location') or r.read().decode().strip()}"] += 1
        c.close()
    except OSError as error:
        got[type(error).__name__] += 1
print(json.dumps(got))
"""


def recorded(checkout: Path) -> Path:
    return checkout / "tests" / "data" / "xds"


def sample(checkout: Path) -> Iterator[dict[str, Any]]:
    """The sample with an image that is here, servers that say who they are, and addresses as they were."""
    told = parse_recording((recorded(checkout) / BOOKS / "delta-Address.pb").read_bytes(), file="")
    services = [each for key, each in told.manifests.items() if key[0] == SERVICES]
    addresses = {each.name: str(each.addresses[0].address) for each in services if each.addresses}
    text = (recorded(checkout) / "samples" / "bookstore.yaml").read_text()
    for document in yaml.safe_load_all(text):
        if document["kind"] == "Pod":
            (container,) = document["spec"]["containers"]
            container |= IMAGE | {"command": ["python3", "-c", SERVER]}
            document["spec"]["terminationGracePeriodSeconds"] = 1
        if document["kind"] == "Service" and "clusterIP" not in document["spec"]:
            document["spec"]["clusterIP"] = addresses[document["metadata"]["name"]]
        yield document


def istiod(checkout: Path, now: dict[str, str]) -> dict[str, Any]:
    """The pod that says what Istiod said; the checkout is mounted into it, as the image has no tests."""
    argv = ["python3", "-m", "tests.cluster.recorded_istiod"]
    container = {
        **IMAGE,
        "name": "discovery",
        "command": [*argv, str(recorded(checkout) / BOOKS), json.dumps(now)],
        "workingDir": str(checkout),
        "env": [{"name": "PYTHONPATH", "value": str(checkout)}],
        "volumeMounts": [{"name": "checkout", "mountPath": str(checkout), "readOnly": True}],
        "readinessProbe": {"tcpSocket": {"port": 15010}, "periodSeconds": 1},
    }
    volume = {"name": "checkout", "hostPath": {"path": str(checkout)}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "istiod", "namespace": "istio-system"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": [volume],
        },
    }


def pod_addresses(cluster: Cluster, namespace: str) -> dict[str, str]:
    pods = cluster.get("-n", namespace, "pods")["items"]
    return {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in pods}


@pytest.fixture(scope="module")
def books(installed: Cluster, checkout: Path) -> Iterator[Cluster]:
    """The sample's pods, enrolled, and the daemon following Istiod; from the API server again afterwards."""
    everything = [
        *sample(checkout),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}},
    ]
    installed.machine.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": everything}))
    try:
        ready = ("--for=condition=Ready", "pod", "--all", "--timeout=120s")
        installed.kubectl("-n", BOOKS, "wait", *ready, seconds=150)
        told = parse_recording(
            (recorded(checkout) / BOOKS / "delta-Address.pb").read_bytes(), file=""
        )
        now = pod_addresses(installed, BOOKS)
        moved = {
            str(each.addresses[0]): now[each.name]
            for key, each in told.manifests.items()
            if key[0] == WORKLOADS and each.namespace == BOOKS and each.name in now
        }
        installed.machine.apply(json.dumps(istiod(checkout, moved)))
        installed.kubectl("-n", "istio-system", "wait", *ready, seconds=150)
        kmesh.install(
            installed.machine,
            {
                **kmesh.VALUES,
                "source": "istiod",
                "routes": True,
                "xds": {"address": ISTIOD},
                "hostAliases": aliases(installed),
            },
        )
        for pod in ("frontend-v1", "reviews-v1"):
            until(partial(_is_enrolled, installed, pod), f"{pod} is not enrolled")
        yield installed
    finally:
        kmesh.install(installed.machine)
        installed.kubectl("delete", "namespace", BOOKS, "istio-system", "--wait=true")


def aliases(cluster: Cluster) -> list[dict[str, Any]]:
    """No DNS here tells where Istiod is."""
    where = pod_addresses(cluster, "istio-system")["istiod"]
    return [{"ip": where, "hostnames": [ISTIOD.partition(":")[0]]}]


def _is_enrolled(cluster: Cluster, pod: str) -> bool:
    found = cluster.get("-n", BOOKS, "pod", pod)["metadata"].get("annotations") or {}
    return bool(found.get("kmesh.net/redirection") == "enabled")


def ask(
    cluster: Cluster,
    host: str,
    port: int,
    path: str = "/",
    *,
    count: int = 30,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Counter[str]:
    """What the frontend's pod gets."""
    command = ("-n", BOOKS, "exec", "frontend-v1", "--", "python3", "-c", ASK)
    request = (host, str(port), method, path, str(count), json.dumps(headers or {}))
    return Counter(json.loads(cluster.kubectl(*command, *request)))


def address(cluster: Cluster, service: str) -> str:
    value: str = cluster.get("-n", BOOKS, "service", service)["spec"]["clusterIP"]
    return value


def test_the_routes_of_the_sample_are_told_with_their_places(books: Cluster) -> None:
    until(
        lambda: books.ctl("routes", "--service", f"{BOOKS}/reviews")["routes"],
        "the routes do not come",
    )
    told = books.ctl("routes", "--service", f"{BOOKS}/reviews")
    by_name = {each["route"]: each for each in told["routes"]}
    assert {"testers", "admin", "old-path", "chaos", "slow", "rewritten", "gray-release"} <= {
        name.partition(" ")[0] for name in by_name
    }, by_name
    assert told["serves"] == (books.ctl("status")["mode"] == "enhanced")
    assert books.ctl("status")["sync"]["source"] == "istiod"


def test_pods_reach_each_other_by_what_istiod_said(books: Cluster) -> None:
    assert set(ask(books, address(books, "frontend"), 80)) == {"200 frontend-v1"}
    ratings = set(ask(books, address(books, "ratings"), 9080))
    if books.ctl("status")["mode"] != "enhanced":
        assert ratings == {"200 ratings-v1", "200 ratings-v2"}
        return
    told = books.ctl("routes", "--service", f"{BOOKS}/ratings")["routes"]
    (last,) = [each for each in told if each["port"] == 9080 and each["match"] == "everything"]
    if last["place"] == "kernel":
        assert ratings <= {"200 ratings-v1", "200 ratings-v2"}
    else:  # there is no waypoint here: it says so, and why
        assert last["why"]
        (told,) = ratings
        assert told.startswith(NO_WAYPOINT)


# A request, the route that takes it, and what comes of it where the node itself runs that route.
REQUESTS = [
    ("GET", "/", {"x-user": "jason"}, "testers", {"200 reviews-v2"}),
    ("DELETE", "/admin", {}, "admin", {"403 not here"}),
    ("GET", "/api/v1/reviews/7", {}, "old-path", {"301 http://{host}:9080/reviews/"}),
    ("GET", "/", {}, "gray-release", {f"200 reviews-v{number}" for number in (1, 2, 3)}),
]
NO_WAYPOINT = "503 it takes a waypoint, and there is none: "


def test_requests_go_where_the_plan_says(books: Cluster) -> None:
    host = address(books, "reviews")
    if books.ctl("status")["mode"] != "enhanced":  # a connection is balanced, whatever it asks for
        answers = ask(books, host, 9080, count=60, headers={"x-user": "jason"})
        assert set(answers) == {f"200 reviews-v{number}" for number in (1, 2, 3)}
        return
    told = books.ctl("routes", "--service", f"{BOOKS}/reviews")["routes"]
    places = {each["route"]: each["place"] for each in told}
    assert "kernel" in places.values()
    for method, path, headers, name, wanted in REQUESTS:
        expected = {each.format(host=host) for each in wanted}
        seen = set(ask(books, host, 9080, path, method=method, headers=headers))
        if places[name] != "kernel":
            expected = {one for one in seen if one.startswith(NO_WAYPOINT)}
        assert seen <= expected, (name, seen)


# Last: the chart's own objects go, and are there again afterwards.


def by_hand(cluster: Cluster, *names: str) -> str:
    """Plain manifests as one would change them for a cluster without a registry, DNS and kube-proxy."""
    documents = []
    for name in names:
        for document in yaml.safe_load_all(plain.written()[name]):
            if document["kind"] == "ConfigMap":
                document["data"]["KMESH_SOURCE"] = f"istiod:{ISTIOD}"
            if document["kind"] in ("DaemonSet", "Job"):
                spec = document["spec"]["template"]["spec"]
                spec["hostAliases"] = aliases(cluster)
                (container,) = spec["containers"]
                container |= IMAGE
                api = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
                container.setdefault("env", []).extend(
                    {"name": key, "value": value} for key, value in api.items()
                )
            documents.append(document)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})


def test_plain_manifests_serve_as_the_chart_does_and_are_cleaned_up_after(books: Cluster) -> None:
    kmesh.uninstall(books.machine)
    ours = by_hand(
        books, "serviceaccount.yaml", "clusterrole.yaml", "clusterrolebinding.yaml", "kmesh.yaml"
    )
    cleanup = by_hand(books, "cleanup.yaml")
    frontend = address(books, "frontend")
    try:
        assert "200" not in " ".join(ask(books, frontend, 80, count=1)), "somebody still balances"
        books.machine.apply(ours)
        kmesh.wait_ready(books.machine)
        until(partial(_is_enrolled, books, "frontend-v1"), "not enrolled")
        assert set(ask(books, frontend, 80)) == {"200 frontend-v1"}
        assert books.ctl("status")["sync"]["source"] == "istiod"
        books.machine.apply(cleanup)
        done = ("wait", "--for=condition=Complete", "job/kmesh-cleanup", "--timeout=150s")
        books.kubectl("-n", kmesh.NAMESPACE, *done, seconds=180)
        assert not _is_enrolled(books, "frontend-v1")
    finally:
        for manifest in (cleanup, ours):
            books.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=manifest)
    assert everything(books) == ""
