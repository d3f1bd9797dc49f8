# SPDX-License-Identifier: Apache-2.0
"""kmeshctl against a cluster: an API server in memory, and a daemon behind a socket that stands for port-forward."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from runtime.cli.ctl import kmeshctl
from runtime.cluster.api import GATEWAYS, NODES, ApiError
from runtime.enrol.uninstall import Uninstaller
from runtime.errors import KmeshError
from runtime.server.http import Reply, serve_tcp
from tests.cluster_api.fake import FakeApi

STATUS = {
    "wanted": "auto",
    "mode": "compat",
    "version": "0.1.0",
    "ready": True,
    "not_ready": None,
    "sync": {"synced": "2026-01-01T00:00:00Z"},
    "counts": {"services": 3, "managed_pods": 2},
    "enrolment": {"governed": 2},
    "demotions": [],
    "reasons": ["enhanced: objects.enhanced is absent"],
}


class Reachable(FakeApi):
    """Two nodes; the daemon of one answers at a port of this machine."""

    port = 0

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[list[str]] = []

    def port_forward(self, namespace: str, pod: str, port: int) -> socket.socket:
        assert (namespace, port) == ("kmesh-system", 15200)
        if pod != "kmesh-a":
            raise ApiError(f"port-forward to {namespace}/{pod}:{port}: no")
        return socket.create_connection(("127.0.0.1", self.port))

    def run_in(self, namespace: str, pod: str, argv: Sequence[str]) -> str:
        assert (namespace, pod) == ("kmesh-system", "kmesh-a")
        self.ran.append(list(argv))
        facts = {"enforced": "enable" in argv, "disabled_since": "now", "policies": 2, "guarded": 0}
        return json.dumps(facts if "authz" in argv else {})


def node(api: FakeApi, name: str) -> None:
    api.put_node(name, **{"kmesh.net/mode": "compat"})
    api.get(f"{NODES}/{name}")
    api._kinds[NODES][f"{NODES}/{name}"]["status"] = {"nodeInfo": {"kernelVersion": "6.1.0"}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reachable]:
    made = Reachable()
    for name in ("a", "b", "c"):
        node(made, name)
    for name in ("a", "b"):
        pod = made.put_pod(f"kmesh-{name}", namespace="kmesh-system", labels={"app": "kmesh"})
        pod["spec"]["nodeName"] = name
    pods = [{"pod": "shop/web", "governed": True, "reason": "label", "trouble": "", "by": "netns"}]
    routes = {
        ("GET", "/status"): lambda _request: Reply(STATUS),
        ("GET", "/debug/loggers"): lambda _request: Reply({"kmesh": "info", "enrol": "debug"}),
        ("GET", "/pods"): lambda _request: Reply([{**each, "addresses": []} for each in pods]),
    }
    server = serve_tcp("127.0.0.1:0", routes)
    made.port = int(server.where.rpartition(":")[2])
    monkeypatch.setattr("runtime.cli.ctl_cluster.user_cluster", lambda: made)
    monkeypatch.setattr("runtime.cli.ctl_waypoint.user_cluster", lambda: made)
    monkeypatch.setattr("runtime.cli.kubeconfig.user_cluster", lambda: made)
    yield made
    server.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(kmeshctl, arguments)


def ask(*arguments: str) -> Any:
    done = run(*arguments, "--output", "json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.output)


@pytest.mark.usefixtures("api")
def test_every_node_has_a_row_whatever_is_wrong_there() -> None:
    good, silent, without = ask("nodes")
    assert (good["mode"], good["ready"], good["pods"], good["services"]) == ("compat", True, 2, 3)
    assert good["why"] == ["enhanced: objects.enhanced is absent"]
    assert not silent["ready"]
    assert "kmesh-b" in silent["why"][0]
    assert (without["mode"], without["why"]) == (None, ["no daemon runs there"])
    table = run("nodes").output
    assert all(f"\n{name} " in table for name in "abc")


@pytest.mark.usefixtures("api")
@pytest.mark.parametrize(
    ("wanted", "why"), [("compat", ["mode compat was asked for"]), ("auto", [])]
)
def test_a_mode_that_was_asked_for_is_the_reason_why_not_more(
    wanted: str, why: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STATUS, "wanted", wanted)
    monkeypatch.setitem(STATUS, "reasons", [])
    assert ask("nodes")[0]["why"] == why


@pytest.mark.usefixtures("api")
def test_question_goes_to_the_node_that_is_named() -> None:
    assert ask("--node", "a", "pods")[0]["pod"] == "shop/web"
    assert ask("--node", "a", "status")["mode"] == "compat"


@pytest.mark.usefixtures("api")
def test_levels_of_the_log_are_told() -> None:
    assert ask("--node", "a", "log") == {"kmesh": "info", "enrol": "debug"}
    assert ask("--node", "a", "log", "enrol") == {"enrol": "debug"}


def test_what_changes_a_node_is_run_in_its_pod(api: Reachable) -> None:
    """There the daemon's socket is; what port-forward reaches changes nothing."""
    ask("--node", "a", "log", "enrol", "info")
    run("--node", "a", "authz", "enable")
    done = run("--node", "a", "authz", "disable")
    assert "NOT ENFORCED" in done.output
    shared = ["--output", "json"]
    assert api.ran == [
        ["kmeshctl", "log", "enrol", "info", *shared],
        ["kmeshctl", "authz", "enable", *shared],
        ["kmeshctl", "authz", "disable", *shared],
    ]


@pytest.mark.usefixtures("api")
def test_node_without_a_daemon_is_named_and_no_map_of_this_host_read() -> None:
    for name, told in (("c", "no daemon of Kmesh on node 'c'"), ("b", "kmesh-b")):
        done = run("--node", name, "status")
        assert isinstance(done.exception, KmeshError)
        assert told in str(done.exception)


def gateway(api: FakeApi, name: str, kind: str = "istio-waypoint", **status: Any) -> None:
    path = f"{GATEWAYS}/namespaces/shop/gateways"
    value = {
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"gatewayClassName": kind},
        "status": status,
    }
    api.put(path, f"{path}/{name}", value)


def test_waypoint_that_is_generated_is_istios_own() -> None:
    done = run("waypoint", "generate", "-n", "shop", "--for", "all", "--revision", "r1")
    made = yaml.safe_load(done.output)
    assert made["metadata"]["labels"] == {"istio.io/waypoint-for": "all", "istio.io/rev": "r1"}
    assert made["spec"] == {
        "gatewayClassName": "istio-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    }


def test_waypoint_is_applied_and_its_namespace_enrolled(api: Reachable) -> None:
    api.put_namespace("shop")
    gateway(api, "waypoint")
    done = run("waypoint", "apply", "-n", "shop", "--enroll-namespace")
    assert done.exit_code == 0, done.exception
    labels = api.get("/api/v1/namespaces/shop")["metadata"]["labels"]
    assert labels["istio.io/use-waypoint"] == "waypoint"
    assert api.patched[0][0].endswith("/namespaces/shop/gateways/waypoint")


def test_waypoints_are_listed_with_what_istio_says_of_them(api: Reachable) -> None:
    good = {"type": "Programmed", "status": "True"}
    gateway(api, "good", conditions=[good], addresses=[{"value": "10.0.0.9"}])
    gateway(api, "bad", conditions=[{"type": "Programmed", "status": "False", "message": "why"}])
    gateway(api, "ingress", kind="istio")
    bad, fine = ask("waypoint", "list", "-n", "shop")
    assert (fine["name"], fine["programmed"], fine["addresses"]) == ("good", True, ["10.0.0.9"])
    assert (bad["programmed"], bad["reason"]) == (False, "why")
    assert run("waypoint", "status", "-n", "shop", "good").exit_code == 0
    assert isinstance(run("waypoint", "status", "-n", "shop", "bad").exception, KmeshError)
    assert isinstance(run("waypoint", "status", "-n", "shop", "none").exception, KmeshError)


def test_waypoints_are_deleted_by_name_or_all(api: Reachable) -> None:
    for name in ("one", "two", "three"):
        gateway(api, name)
    gateway(api, "ingress", kind="istio")
    assert run("waypoint", "delete", "-n", "shop").exit_code == 2
    assert run("waypoint", "delete", "-n", "shop", "one").exit_code == 0
    assert run("waypoint", "delete", "-n", "shop", "--all").exit_code == 0
    left = api._kinds[f"{GATEWAYS}/namespaces/shop/gateways"]
    assert [one["metadata"]["name"] for one in left.values()] == ["ingress"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_are_told_how_to_complete(shell: str) -> None:
    assert "_KMESHCTL_COMPLETE" in run("completion", shell).output


DAEMONS = "/apis/apps/v1/namespaces/kmesh-system/daemonsets"


def test_uninstall_cleans_up_and_may_be_repeated(api: Reachable) -> None:
    api.put(DAEMONS, f"{DAEMONS}/kmesh", {"metadata": {"name": "kmesh"}})
    status = {"desiredNumberScheduled": 2, "numberReady": 2, "observedGeneration": 1}
    cleaner = {"metadata": {"name": "kmesh-cleanup", "generation": 1}, "status": status}
    api.put(DAEMONS, f"{DAEMONS}/kmesh-cleanup", cleaner)
    api.put_pod("web", annotations={"kmesh.net/redirection": "enabled", "other": "stays"})
    for _ in range(2):
        Uninstaller(api, namespace="kmesh-system", seconds=5, say=lambda _text: None).run()
    assert f"{DAEMONS}/kmesh" not in api._kinds[DAEMONS]
    assert api.get(f"{NODES}/a")["metadata"]["labels"] == {}
    assert api.pod("web")["metadata"]["annotations"] == {"other": "stays"}


@pytest.mark.parametrize(
    "status",
    [
        {"desiredNumberScheduled": 2, "numberReady": 1, "observedGeneration": 1},
        {"desiredNumberScheduled": 0, "numberReady": 0},
    ],
)
def test_uninstall_waits_for_every_node(api: Reachable, status: dict[str, int]) -> None:
    cleaner = {"metadata": {"name": "kmesh-cleanup", "generation": 1}, "status": status}
    api.put(DAEMONS, f"{DAEMONS}/kmesh-cleanup", cleaner)
    with pytest.raises(KmeshError, match="not every node is clean"):
        Uninstaller(api, namespace="kmesh-system", seconds=0.1, say=lambda _text: None).run()
    assert "kmesh.net/mode" in api.get(f"{NODES}/a")["metadata"]["labels"]


@pytest.mark.usefixtures("api")
def test_uninstall_without_cleaners_says_what_is_missing() -> None:
    with pytest.raises(KmeshError, match="no daemon set kmesh-system/kmesh-cleanup"):
        Uninstaller(Reachable(), namespace="kmesh-system", seconds=5, say=print).run()
