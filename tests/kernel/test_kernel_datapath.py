# SPDX-License-Identifier: Apache-2.0
"""The data path's life: opened, adopted, turned over to another layout, destroyed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.bpf.info import ids
from runtime.bpf.lib import BpfError
from runtime.bpf.maps import BpfMap
from runtime.kernel import programs
from runtime.kernel.apply import ApplyError
from runtime.kernel.bpffs import BpffsError, ensure_bpffs
from runtime.kernel.cgroup import CgroupError
from runtime.kernel.cleanup import cleanup
from runtime.kernel.datapath import DataPath
from runtime.kernel.lock import InUseError
from runtime.kernel.mounts import mount_of
from runtime.kernel.programs import ObjectsError
from runtime.source.update import Update
from runtime.tables.layout import DIGEST
from runtime.tables.services import ServiceTables
from tests.dataplane.world import wait_for
from tests.tables.tables_model import Maps, service, workload

pytestmark = pytest.mark.root

# The verifier gives up at a million instructions; far from it means under a tenth.
FAR = 100_000

WHOLE = Update(
    services=(service("a", "10.96.0.1", "fd00:96::1", ports=(80, 443)), service("b", "10.96.0.2")),
    workloads=tuple(
        workload(f"w{n}", f"10.244.0.{n}", serves=("a", "b"), ports=(80, 443), capacity=n)
        for n in range(1, 9)
    ),
    complete=True,
)


def map_ids(pins: Path) -> set[int]:
    """The numbers of the maps that are pinned."""
    return {_id(path) for path in (pins / "compat" / DIGEST[:16]).iterdir()}


def _id(pin: Path) -> int:
    opened = BpfMap.pinned(pin)
    text = Path(f"/proc/self/fdinfo/{opened.fd}").read_text()
    opened.close()
    return int(text.split("map_id:")[1].split()[0])


def test_what_is_applied_is_in_the_maps(objects: Path, pins: Path) -> None:
    path, maps = DataPath.open(objects, pins=pins), Maps()
    ops = ServiceTables().apply(WHOLE)
    path.apply(ops)
    maps.run(ops)
    assert path.contents() == maps.contents()
    path.destroy()


def test_programs_are_far_from_the_verifiers_limit(objects: Path, pins: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    verified = {program.name: program.verified for program in path.programs()}
    path.destroy()
    if not any(verified.values()):
        pytest.skip("this kernel does not tell (before 5.16)")
    assert all(0 < count < FAR for count in verified.values()), verified


def test_a_restart_adopts_and_finds_nothing_to_do(objects: Path, pins: Path, cgroup: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    path.apply(ServiceTables().apply(WHOLE))
    path.enroll_cgroup(cgroup)
    before = map_ids(pins)
    path.close()
    again = DataPath.open(objects, pins=pins)
    assert map_ids(pins) == before
    assert again.cgroups == [cgroup]
    tables = ServiceTables(existing=again.contents())
    assert tables.apply(WHOLE) == []
    assert tables.used == {
        name: len(table) for name, table in Maps(again.contents()).tables.items()
    }
    again.destroy()


def test_links_are_turned_over_and_never_lost(objects: Path, pins: Path, cgroup: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    path.enroll_cgroup(cgroup)
    old = {program.id for program in path.programs()}
    path.close()
    assert old & ids("prog")  # pinned links keep what runs
    again = DataPath.open(objects, pins=pins)
    wait_for(lambda: not old & ids("prog"), "the old programs are gone")
    again.destroy()


def test_one_process_at_a_time(objects: Path, pins: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    with pytest.raises(InUseError, match="another process"):
        DataPath.open(objects, pins=pins)
    with pytest.raises(InUseError):
        cleanup(pins)
    path.close()
    DataPath.open(objects, pins=pins).destroy()


LOADER = """
import sys, time
from pathlib import Path
from runtime.kernel.datapath import DataPath
from runtime.kernel.netns import netns_cookie
from runtime.tables.services import ServiceTables
from tests.kernel.test_kernel_datapath import WHOLE
path = DataPath.open(Path(sys.argv[1]), pins=Path(sys.argv[2]))
path.apply(ServiceTables().apply(WHOLE))
path.enroll_cgroup(Path(sys.argv[3]))
path.enroll_netns(netns_cookie(objects=Path(sys.argv[1])))
print(*(program.id for program in path.programs()), flush=True)
time.sleep(600)
"""


@pytest.fixture
def killed(checkout: Path, objects: Path, pins: Path, cgroup: Path) -> Callable[[], set[int]]:
    """Run a loader and kill it; returns the numbers of its programs."""

    def run() -> set[int]:
        process = subprocess.Popen(
            [sys.executable, "-c", LOADER, str(objects), str(pins), str(cgroup)],
            stdout=subprocess.PIPE, text=True, cwd=checkout,
        )  # fmt: skip
        assert process.stdout
        programs = {int(number) for number in process.stdout.readline().split()}
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        return programs

    return run


def test_a_killed_process_leaves_what_the_next_one_adopts(
    objects: Path, pins: Path, cgroup: Path, killed: Callable[[], set[int]]
) -> None:
    programs = killed()
    assert programs <= ids("prog")
    path = DataPath.open(objects, pins=pins)
    assert ServiceTables(existing=path.contents()).apply(WHOLE) == []
    assert path.cgroups == [cgroup]
    assert len(path.namespaces) == 1
    path.destroy()


def test_cleanup_after_a_killed_process_leaves_nothing(
    pins: Path, cgroup: Path, killed: Callable[[], set[int]]
) -> None:
    programs = killed()
    maps = map_ids(pins)
    assert programs
    assert maps
    removed = cleanup(pins)
    assert any(str(cgroup) in what for what in removed)
    assert mount_of(pins).type != "bpf"
    assert list(pins.iterdir()) == []
    wait_for(lambda: not programs & ids("prog"), "its programs are gone")
    wait_for(lambda: not maps & ids("map"), "its maps are gone")
    assert cleanup(pins) == []


def test_destroy_leaves_nothing(objects: Path, pins: Path, cgroup: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    path.enroll_cgroup(cgroup)
    programs, maps = {program.id for program in path.programs()}, map_ids(pins)
    path.destroy()
    path.destroy()
    assert list(pins.iterdir()) == []
    wait_for(lambda: not programs & ids("prog"), "its programs are gone")
    wait_for(lambda: not maps & ids("map"), "its maps are gone")


def test_another_layout_is_filled_before_traffic_turns_over(
    objects: Path, pins: Path, cgroup: Path
) -> None:
    path = DataPath.open(objects, pins=pins)
    path.apply(ServiceTables().apply(WHOLE))
    path.enroll_cgroup(cgroup)
    path.enroll_netns(12345)
    old = {program.id for program in path.programs()}
    path.close()
    home = pins / "compat"
    (home / DIGEST[:16]).rename(home / "0123456789abcdef")  # as another version would have left it
    again = DataPath.open(objects, pins=pins)
    assert Maps(again.contents()).view() == {}
    assert old <= ids("prog")  # still running
    assert again.namespaces == [12345]
    again.enroll_cgroup(cgroup)  # enrolled already: its traffic waits for full tables too
    again.enroll_netns(12345)
    assert old <= ids("prog")
    again.apply(ServiceTables(existing=again.contents()).apply(WHOLE))
    wait_for(lambda: not old & ids("prog"), "the old programs are gone")
    assert {one.name for one in home.iterdir()} == {DIGEST[:16], "links", "sockets"}
    assert again.cgroups == [cgroup]
    again.destroy()


def test_a_cgroup_that_is_gone_is_forgotten(objects: Path, pins: Path, cgroup: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    path.enroll_cgroup(cgroup)
    cgroup.rmdir()
    path.release_cgroup(cgroup)
    assert path.cgroups == []
    cgroup.mkdir()
    path.enroll_cgroup(cgroup)
    cgroup.rmdir()
    path.close()
    again = DataPath.open(objects, pins=pins)
    assert again.cgroups == []
    again.destroy()


def test_what_is_no_cgroup_is_refused(objects: Path, pins: Path, tmp_path: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    for wrong in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CgroupError, match=str(wrong)):
            path.enroll_cgroup(wrong)
    assert path.cgroups == []
    path.destroy()


def test_a_full_map_names_the_resource_and_the_rest_works(objects: Path, pins: Path) -> None:
    path = DataPath.open(objects, pins=pins, sizes={"slots": 8})
    tables = ServiceTables()
    first = Update(
        services=(service("a", "10.96.0.1"),),
        workloads=tuple(workload(f"a{n}", f"10.244.0.{n}") for n in range(1, 7)),
        complete=True,
    )
    second = Update(
        services=(service("b", "10.96.0.2"), service("c", "10.96.0.3")),
        workloads=(
            *(workload(f"b{n}", f"10.244.1.{n}", serves=("b",)) for n in range(1, 10)),
            workload("c1", "10.244.2.1", serves=("c",)),
        ),
    )
    path.apply(tables.apply(first))
    with pytest.raises(ApplyError, match="ns/b: map slots") as refused:
        path.apply(tables.apply(second))
    assert "ns/a" not in refused.value.failed
    after = Maps(path.contents())
    assert len(next(iter(after.view().values()))) == 6
    limited = ServiceTables(
        existing=path.contents(), limits={"frontends": 9, "clusters": 9, "slots": 8}
    )
    both = Update(
        services=(*first.services, *second.services),
        workloads=(*first.workloads, *second.workloads),
        complete=True,
    )
    path.apply(limited.apply(both))
    assert any("does not fit" in problem.reason for problem in limited.problems)
    Maps(path.contents()).check_weights()
    path.destroy()


def test_resync_goes_by_what_really_is_there(objects: Path, pins: Path) -> None:
    path, tables = DataPath.open(objects, pins=pins), ServiceTables()
    path.apply(tables.apply(WHOLE))
    wanted = path.contents()
    lost = BpfMap.pinned(pins / "compat" / DIGEST[:16] / "slots")
    for key in list(wanted.slots)[:5]:
        lost.delete(key)
    lost.close()
    path.apply(tables.resync(path.contents()))
    assert Maps(path.contents()).view() == Maps(wanted).view()
    path.destroy()


def test_missing_objects_leave_nothing_behind(pins: Path, tmp_path: Path) -> None:
    with pytest.raises(ObjectsError, match="no compiled objects"):
        DataPath.open(tmp_path, pins=pins)
    assert mount_of(pins).type != "bpf"
    assert list(pins.iterdir()) == []


def test_objects_of_another_version_are_refused(
    objects: Path, pins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(programs._DIGESTS, "compat", "another")
    with pytest.raises(ObjectsError, match="lay their maps out otherwise"):
        DataPath.open(objects, pins=pins)
    assert list(pins.iterdir()) == []


def test_no_place_to_pin_is_one_line_and_a_hint() -> None:
    with pytest.raises(BpffsError, match="/proc"):
        ensure_bpffs(Path("/proc/kmesh-test"))


def test_a_foreign_bpf_file_system_is_used_and_stays(objects: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "bpf", "other", str(tmp_path)], check=True)
    try:
        DataPath.open(objects, pins=tmp_path / "deep/er").destroy()
        cleanup(tmp_path / "deep/er")
        assert mount_of(tmp_path).type == "bpf"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_errors_are_the_kernels(objects: Path, pins: Path) -> None:
    path = DataPath.open(objects, pins=pins)
    with pytest.raises(BpfError) as refused:
        BpfMap.pinned(pins / "nothing")
    assert refused.value.errno == errno.ENOENT
    assert os.path.ismount(pins)
    path.destroy()


def test_a_file_system_that_is_read_only_is_said_to_be(objects: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "bpf", "other", str(tmp_path)], check=True)
    try:
        (tmp_path / "pins").mkdir()
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(BpffsError, match=r"cannot pin at .*: Read-only file system"):
            DataPath.open(objects, pins=tmp_path / "pins")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
