# SPDX-License-Identifier: Apache-2.0
"""Finding a pod's network namespace and control group, by what kubelets and runtimes make."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from runtime.enrol.places import Namespaces, PodCgroups, addresses_in, is_pod, place_at
from runtime.kernel.netns import NetnsError
from runtime.model.mesh import IPAddress
from tests.dataplane.world import World

UID = "0f5c1c4e-7e0b-4d51-9a3b-2f6d5a7f9c11"
OTHER = "1f5c1c4e-7e0b-4d51-9a3b-2f6d5a7f9c11"


def addresses(*texts: str) -> frozenset[IPAddress]:
    return frozenset(ip_address(text) for text in texts)


@pytest.mark.root
def test_namespace_is_found_by_all_of_its_addresses(world: World, tmp_path: Path) -> None:
    world.add_address("10.244.7.1/32")
    world.add_address("fd00:244::7/128")
    kept = tmp_path / "netns"
    kept.mkdir()
    (kept / "cni-1").symlink_to(world.netns)
    (kept / "stale").write_text("")
    namespaces = Namespaces(kept, processes=tmp_path)
    both, wrong = addresses("10.244.7.1", "fd00:244::7"), addresses("10.244.7.1", "10.244.7.2")
    assert namespaces.find([both, wrong]) == {both: kept / "cni-1"}
    assert addresses_in(world.netns) >= both


@pytest.mark.root
def test_namespace_of_a_process_is_found_where_the_runtime_keeps_none(
    world: World, tmp_path: Path
) -> None:
    world.add_address("10.244.7.9/32")
    agent = world.agent()
    wanted = addresses("10.244.7.9")
    found = Namespaces(tmp_path / "none").find([wanted])
    assert found[wanted].stat().st_ino == Path(f"/proc/{agent.process.pid}/ns/net").stat().st_ino


@pytest.mark.root
def test_nodes_own_namespace_is_nobodys(tmp_path: Path) -> None:
    processes = tmp_path / "1" / "ns"
    processes.mkdir(parents=True)
    (processes / "net").symlink_to("/proc/self/ns/net")
    here = Namespaces(tmp_path / "none", processes=tmp_path)
    assert here.find([addresses("127.0.0.1")]) == {}


@pytest.mark.root
def test_place_has_the_namespaces_cookie(world: World, objects: Path) -> None:
    from runtime.kernel.netns import netns_cookie

    place = place_at(world.netns, cgroup=None)
    assert place.cookie == netns_cookie(world.netns, objects=objects)
    assert place.inode == world.netns.stat().st_ino
    with pytest.raises(NetnsError):
        place_at(world.netns.with_name("gone"), cgroup=None)


CONTAINER = "0f" * 32


@pytest.mark.parametrize(
    "parts",
    [
        (f"cri-containerd-{CONTAINER}.scope",),
        # CRI-O: below the pod's group, named by its driver; crun makes another level in it.
        (f"crio-{CONTAINER}.scope/container", f"crio-conmon-{CONTAINER}.scope"),
        (f"crio-{CONTAINER}", f"crio-conmon-{CONTAINER}"),
    ],
    ids=["containerd", "crio-systemd", "crio-cgroupfs"],
)
@pytest.mark.parametrize(
    "path",
    [
        f"kubepods/pod{UID}",
        f"kubepods/burstable/pod{UID}",
        f"kubepods/besteffort/pod{UID}",
        f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice",
        f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice",
        f"kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID.replace('-', '_')}.slice",
        f"system.slice/docker.service/kubepods/burstable/pod{UID}",
    ],
)
def test_pods_cgroup_is_found_with_every_driver_and_runtime(
    tmp_path: Path, path: str, parts: tuple[str, ...]
) -> None:
    for part in parts:
        (tmp_path / path / part).mkdir(parents=True)
    (tmp_path / path.replace(UID[:8], OTHER[:8])).mkdir()
    cgroups = PodCgroups(tmp_path)
    assert cgroups.find(UID) == tmp_path / path
    assert cgroups.find(OTHER) == tmp_path / path.replace(UID[:8], OTHER[:8]), "the next is as good"
    assert is_pod(tmp_path / path)
    assert not is_pod((tmp_path / path).parent)
    assert not any(is_pod(tmp_path / path / part) for part in parts)


def test_pod_without_a_cgroup_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "kubepods" / "burstable").mkdir(parents=True)
    (tmp_path / "system.slice" / f"pod{UID}").mkdir(parents=True)
    assert PodCgroups(tmp_path).find(UID) is None
