# SPDX-License-Identifier: Apache-2.0
"""The daemon goes in every way that there is, and no request fails."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ci.cluster import kmesh
from tests.cluster.conftest import LOAD, SHOP, Cluster
from tests.cluster.test_cluster_enrolment import FIRST, phase, pod
from tests.launch.conftest import until

pytestmark = [pytest.mark.root, pytest.mark.docker, pytest.mark.cluster]


@contextmanager
def load(cluster: Cluster) -> Iterator[Callable[[], dict[str, int]]]:
    """Requests from the client while something happens; then what came of them."""
    stop = "/dev/shm/stop"
    inside = ("-n", SHOP, "exec", "client", "--")
    cluster.kubectl(*inside, "rm", "-f", stop)
    argv = cluster.machine.inside(cluster.in_pod(LOAD, cluster.address, stop))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as run:
        assert run.stdout
        assert run.stdout.readline() == "up\n"

        def result() -> dict[str, int]:
            assert run.stdout
            cluster.kubectl(*inside, "touch", stop)
            found: dict[str, int] = json.loads(run.stdout.readline())
            return found

        try:
            yield result
        finally:
            run.kill()


def delete_pod(cluster: Cluster) -> None:
    cluster.kubectl("-n", kmesh.NAMESPACE, "delete", "pod", "-l", "app=kmesh", "--wait=true")


def crash(cluster: Cluster) -> None:
    """SIGKILL, by the node; PIDs are the machine's, as the daemon shares them."""
    (line,) = [
        each
        for each in cluster.machine.run("pgrep", "-fa", "kmesh run").splitlines()
        if "python3" in each and "pgrep" not in each and "nsenter" not in each
    ]
    cluster.machine.run("kill", "-KILL", line.split()[0])


def upgrade(cluster: Cluster) -> None:
    values = {**kmesh.VALUES, "logLevel": "debug"}
    kmesh.install(cluster.machine, values)


def restore(cluster: Cluster) -> None:
    kmesh.install(cluster.machine)


@pytest.mark.parametrize("away", [delete_pod, crash, upgrade, restore])
def test_no_request_fails_while_the_daemon_is_replaced(
    labelled: Cluster, away: Callable[[Cluster], None]
) -> None:
    before = labelled.identity()
    with load(labelled) as result:
        away(labelled)
        labelled.until_ready(other_than=before)
        found = result()
    assert set(found) == {"answered"}, found
    assert found["answered"] > 50
    assert labelled.governed() == 3
    assert set(labelled.ask(20)) <= labelled.servers()


def test_pod_starts_without_a_daemon_and_is_governed_when_it_is_back(labelled: Cluster) -> None:
    nowhere = {**kmesh.VALUES, "nodeSelector": {"no-such": "node"}}
    machine = labelled.machine
    machine.run(
        *("helm", "upgrade", kmesh.RELEASE, str(kmesh.CHART), "-n", kmesh.NAMESPACE, "-f", "-"),
        stdin=json.dumps(nowhere),
    )
    try:
        kubectl = labelled.kubectl
        kubectl("-n", kmesh.NAMESPACE, "wait", "--for=delete", "pod", "-l", "app=kmesh")
        machine.apply(pod("late", f"import time; time.sleep(20)\n{FIRST}"))
        until(lambda: phase(labelled, "late") == "Running", "CNI ADD failed without a daemon")
        assert labelled.annotation("late") is None
        kmesh.install(machine)
        labelled.until_annotated("late", "enabled")
        until(lambda: phase(labelled, "late") in ("Succeeded", "Failed"), "the pod does not end")
        assert phase(labelled, "late") == "Succeeded"
    finally:
        kmesh.install(machine)
        labelled.kubectl("-n", SHOP, "delete", "pod", "late", "--ignore-not-found")


def test_what_changed_while_the_daemon_was_away_is_made_up_for(labelled: Cluster) -> None:
    """A backend goes and another comes while there is no daemon."""
    before = labelled.identity()
    (gone, *_) = sorted(labelled.servers())
    crash(labelled)
    labelled.kubectl("-n", SHOP, "delete", "pod", gone, "--wait=true")
    labelled.until_ready(other_than=before)
    labelled.kubectl("-n", SHOP, "rollout", "status", "deployment/web", "--timeout=60s")
    until(lambda: set(labelled.ask(30)) == labelled.servers(), "the endpoints are old")
