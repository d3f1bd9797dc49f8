# SPDX-License-Identifier: Apache-2.0
"""The daemon, for real: a process, programs in this kernel, connections through them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from runtime.bpf.info import ids
from runtime.bpf.lib import check, lib
from tests.launch.conftest import Node, until

pytestmark = pytest.mark.root


def test_it_is_ready_only_when_connections_are_served(node: Node) -> None:
    daemon = node.daemon()
    reasons = set()

    def ready() -> bool:
        assert daemon.process.poll() is None, daemon.log
        status, body = node.http("/debug/ready")
        reasons.add((status, body.strip()))
        return bool(status == 200)

    node.until(ready, "not ready in time")
    assert set(node.answers(40)) == {"blue", "green"}
    assert reasons <= {(0, ""), (200, "OK")} | {(503, reason) for _, reason in reasons}
    assert all(reason.startswith("not ready: ") for status, reason in reasons if status == 503)


def test_the_log_has_the_milestones_and_the_decision(node: Node) -> None:
    log = node.daemon().wait_ready().log
    order = [
        "options InitDaemonConfig successful",
        "mode enhanced",
        "bpf Start successful",
        "controller Start successful: 1 service, 2 workloads",
    ]
    assert sorted(order, key=log.index) == order


def without_enhanced(node: Node, objects: Path) -> str:
    """Where a build's objects are that has no enhanced path."""
    lesser = node.path / "objects"
    shutil.copytree(objects, lesser, ignore=shutil.ignore_patterns("enhanced"))
    return str(lesser)


def test_a_build_without_the_enhanced_path_says_so(node: Node, objects: Path) -> None:
    log = node.daemon(KMESH_OBJECTS=without_enhanced(node, objects)).wait_ready().log
    assert "mode compat" in log
    assert "not enhanced: " in log, log


def test_a_process_that_is_not_managed_is_not_touched(node: Node) -> None:
    node.daemon().wait_ready()
    outside = node.check([sys.executable, "-c", node.client, node.vip, "1"])
    assert outside.strip() == "OSError"  # the network is unreachable: nobody has that address


def test_changes_of_the_files_reach_the_kernel(node: Node) -> None:
    node.daemon().wait_ready()
    node.write(node.service() + node.endpoints("green"))
    node.until(lambda: len(node.ask("services")[0]["endpoints"]) == 1, "change not seen")
    assert node.answers() == {"green": 20}
    node.write(node.service("10.96.0.77") + node.endpoints("green"))
    node.until(lambda: node.ask("services")[0]["addresses"] == ["10.96.0.77"], "change not seen")
    assert node.answers(2, "10.96.0.77") == {"green": 2}
    assert set(node.answers(2)) == {"OSError"}


def test_a_service_without_endpoints_refuses_at_once(node: Node) -> None:
    node.daemon().wait_ready()
    node.write(node.service() + node.endpoints())
    node.until(lambda: not node.ask("services")[0]["endpoints"], "change not seen")
    assert set(node.answers(3)) <= {"ConnectionRefusedError", "PermissionError"}


def test_bad_yaml_keeps_the_last_good_state_and_is_reported(node: Node) -> None:
    daemon = node.daemon().wait_ready()
    node.write("oh: [no")
    node.until(lambda: node.ask("status")["sync"]["rejected"], "rejection not seen")
    assert set(node.answers(40)) == {"blue", "green"}
    assert "rejected web.yaml document 1: not YAML" in daemon.log
    assert "rejected" in node.kmeshctl("status")
    assert node.http("/debug/ready")[0] == 200
    node.write(node.service() + node.endpoints("blue"))
    node.until(lambda: not node.ask("status")["sync"]["rejected"], "recovery not seen")
    assert node.answers() == {"blue": 20}


def pinned_id(path: Path) -> tuple[str, int] | None:
    """The kernel's number of what is pinned at a path, as /proc tells of its descriptor."""
    fd = check(lib().bpf_obj_get(os.fsencode(path)), str(path))
    try:
        text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    facts = dict(line.split(":", 1) for line in text.splitlines())
    named = {"link": "link_id", "map": "map_id", "prog": "prog_id"}
    return next(((k, int(facts[name])) for k, name in named.items() if name in facts), None)


def kernel_ids() -> set[tuple[str, int]]:
    return {(kind, number) for kind in ("prog", "map", "link") for number in ids(kind)}


def test_sigterm_leaves_nothing(node: Node) -> None:
    daemon = node.daemon().wait_ready()
    shell = Shell(node)
    shell.ask()
    pinned = [path for path in node.pins.rglob("*") if path.is_file() and not path.is_symlink()]
    ours = {number for path in pinned for number in [pinned_id(path)] if number}
    assert len(ours) == len(pinned) > 0
    assert daemon.terminate() == 0, daemon.log
    assert shell.ask() == "OSError"
    # The kernel frees maps some time after the last that held them is gone.
    until(lambda: not ours & kernel_ids(), "programs, maps or links stay")
    assert not node.pins.exists()
    assert not node.run_dir.exists()
    shell.end()


def test_it_is_not_ready_when_its_pins_were_removed(node: Node) -> None:
    node.daemon().wait_ready()
    shell = Shell(node)
    shell.ask()
    shutil.rmtree(node.pins)
    status, reason = node.http("/debug/ready")
    assert status == 503
    assert "restart the daemon" in reason
    shell.end()


def test_sigint_is_as_good(node: Node) -> None:
    daemon = node.daemon().wait_ready()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert not node.pins.exists()


def test_sigterm_while_it_starts_leaves_nothing(node: Node) -> None:
    daemon = node.daemon()
    node.until(lambda: "InitDaemonConfig" in daemon.log, "not started")
    assert daemon.terminate() == 0, daemon.log
    assert not node.pins.exists()
    assert not node.run_dir.exists()


class Shell:
    """A managed command that lives on and makes a connection whenever it is told to."""

    def __init__(self, node: Node) -> None:
        loop = "for line in sys.stdin:\n    sys.argv[1:] = line.split()\n" + textwrap.indent(
            node.client, "    "
        )
        code = f"import sys\n{loop}    print('.', flush=True)\n"
        command = [
            sys.executable,
            "-m",
            "runtime.cli.main",
            "exec",
            "--",
            sys.executable,
            "-c",
            code,
        ]
        self._process = subprocess.Popen(
            node.inside(command),
            env=node.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._node = node

    def ask(self) -> str:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{self._node.vip} 1\n")
        process.stdin.flush()
        answer = process.stdout.readline().strip()
        assert process.stdout.readline() == ".\n"
        return answer

    def end(self) -> int:
        self._process.communicate()
        return self._process.returncode


@pytest.mark.parametrize("mode", ["compat", "enhanced"])
def test_after_kill_9_connections_go_on_and_cleanup_removes_everything(
    node: Node, mode: str
) -> None:
    daemon = node.daemon("--mode", mode).wait_ready()
    shell = Shell(node)
    assert shell.ask() in {"blue", "green"}
    daemon.kill()
    assert shell.ask() in {"blue", "green"}
    done = node.kmesh("cleanup", "--output", "json")
    assert done.returncode == 0, done.stderr
    removed = json.loads(done.stdout)["removed"]
    assert f"maps of the {mode} path" in removed
    assert any(item.startswith("programs attached to ") for item in removed)
    assert shell.ask() == "OSError"
    shell.end()
    assert not node.pins.exists()
    assert not node.run_dir.exists(), list(node.run_dir.rglob("*"))
    assert node.kmesh("cleanup").stdout == "nothing to remove\n"


def test_after_kill_9_the_next_daemon_takes_over(node: Node) -> None:
    daemon = node.daemon().wait_ready()
    shell = Shell(node)
    assert shell.ask() in {"blue", "green"}
    daemon.kill()
    node.write(node.service() + node.endpoints("green"))
    node.daemon().wait_ready()
    assert {shell.ask() for _ in range(20)} == {"green"}
    assert len(node.ask("status")["managed"]) == 1
    assert shell.end() == 0
    assert node.ask("status")["managed"] == []


@pytest.mark.parametrize("mode", ["compat", "enhanced"])
def test_a_start_that_fails_leaves_serving_what_served(
    node: Node, objects: Path, tmp_path: Path, mode: str
) -> None:
    """In the same mode, and in another one."""
    daemon = node.daemon("--mode", mode).wait_ready()
    shell = Shell(node)
    assert shell.ask() in {"blue", "green"}
    daemon.kill()
    fewer = tmp_path / "objects"
    shutil.copytree(objects, fewer)
    shutil.rmtree(fewer / "bypass")
    node.environment["KMESH_OBJECTS"] = str(fewer)
    failed = node.daemon("--acceleration")
    assert failed.wait() == 1
    assert "stays pinned" in failed.log
    assert (node.pins / mode).exists()
    assert len([each for each in node.pins.iterdir() if each.name in ("compat", "enhanced")]) == 1
    assert shell.ask() in {"blue", "green"}
    shell.end()


def test_keep_datapath_leaves_it_serving_for_the_next(node: Node) -> None:
    daemon = node.daemon("--keep-datapath").wait_ready()
    shell = Shell(node)
    assert shell.ask() in {"blue", "green"}
    assert daemon.terminate() == 0
    assert "stays pinned" in daemon.log
    assert shell.ask() in {"blue", "green"}
    again = node.daemon().wait_ready()
    assert shell.ask() in {"blue", "green"}
    assert again.terminate() == 0
    assert shell.ask() == "OSError"
    shell.end()
    assert not node.pins.exists()


def test_cleanup_refuses_while_a_daemon_runs(node: Node) -> None:
    node.daemon().wait_ready()
    done = node.kmesh("cleanup")
    assert done.returncode == 1
    assert "runs already" in done.stderr
    assert set(node.answers(40)) == {"blue", "green"}


def test_a_second_instance_is_refused_and_the_first_goes_on(node: Node) -> None:
    node.daemon().wait_ready()
    second = node.daemon()
    assert second.wait() == 1
    assert "a kmesh daemon runs already (process " in second.log
    assert set(node.answers(40)) == {"blue", "green"}


def test_a_taken_port_is_an_error_that_leaves_nothing(node: Node) -> None:
    node.daemon().wait_ready()
    run_dir, pins = node.path / "run2", f"{node.pins}-2"
    second = node.daemon("--run-dir", str(run_dir), "--pins", pins)
    assert second.wait() == 1
    assert "cannot listen on 127.0.0.1:15200" in second.log
    assert not run_dir.exists()
    assert not Path(pins).exists()


def test_a_forced_mode_that_cannot_be_explains_itself(node: Node, objects: Path) -> None:
    daemon = node.daemon("--mode", "enhanced", KMESH_OBJECTS=without_enhanced(node, objects))
    assert daemon.wait() == 1
    assert "--mode enhanced" in daemon.log
    assert "objects.enhanced" in daemon.log
    assert "hint: " in daemon.log
    assert "Traceback" not in daemon.log
    assert not node.pins.exists()
    assert not node.run_dir.exists()


def test_without_the_right_to_load_bpf_it_says_denied(node: Node) -> None:
    drop = ("setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", "--inh-caps=-all", "--")
    daemon = node.daemon(prefix=drop)
    assert daemon.wait() == 1
    assert "no path can run" in daemon.log
    assert "denied" in daemon.log
    assert "Traceback" not in daemon.log
    assert not node.run_dir.exists()


def test_objects_are_compiled_where_none_is_prebuilt(node: Node, checkout: Path) -> None:
    empty = node.path / "empty"
    empty.mkdir()
    daemon = node.daemon(KMESH_OBJECTS=str(empty), KMESH_BPF_SOURCES=str(checkout / "bpf"))
    daemon.wait_ready()
    assert "compiling" in daemon.log
    assert set(node.answers(40)) == {"blue", "green"}
    assert node.ask("status")["compiled"].startswith(f"from {checkout}/bpf")
    assert daemon.terminate() == 0
    assert not node.run_dir.exists()


def test_sigterm_breaks_off_compiling(node: Node, checkout: Path) -> None:
    empty = node.path / "empty"
    empty.mkdir()
    daemon = node.daemon(KMESH_OBJECTS=str(empty), KMESH_BPF_SOURCES=str(checkout / "bpf"))
    node.until(lambda: "compiling" in daemon.log, "it does not compile")
    assert daemon.terminate() == 0, daemon.log
    assert "bpf Start" not in daemon.log
    assert not node.run_dir.exists(), (list(node.run_dir.rglob("*")), daemon.log)
    assert not node.pins.exists()


def test_without_objects_and_compiler_both_are_told(node: Node) -> None:
    empty = node.path / "empty"
    empty.mkdir()
    daemon = node.daemon(KMESH_OBJECTS=str(empty), KMESH_BPF_SOURCES=str(empty))
    assert daemon.wait() == 1
    assert "nothing was compiled here" in daemon.log
    assert "objects.compat" in daemon.log


def test_an_enhanced_path_that_does_not_start_is_demoted_loudly(node: Node, objects: Path) -> None:
    """A sound object of the enhanced path, which lacks the tables that a path must have."""
    crafted = node.path / "objects"
    shutil.copytree(objects, crafted)
    source = node.path / "sources" / "enhanced" / "broken.bpf.c"
    source.parent.mkdir(parents=True)
    source.write_text(
        "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
        'char LICENSE[] SEC("license") = "GPL";\n'
        'SEC("sockops") int broken(struct bpf_sock_ops *ctx) { return 1; }\n'
    )
    (crafted / "enhanced").mkdir(exist_ok=True)
    subprocess.run(
        [
            *("clang", "-O2", "-g", "-target", "bpf", f"-I/usr/include/{multiarch()}"),
            *("-c", str(source), "-o", str(crafted / "enhanced" / "broken.bpf.o")),
        ],
        check=True,
    )
    daemon = node.daemon(KMESH_OBJECTS=str(crafted))
    daemon.wait_ready()
    assert "the enhanced path failed to start: " in daemon.log
    assert "DEMOTED: starting the compat path in its place" in daemon.log
    status = node.ask("status")
    assert (status["mode"], [each["path"] for each in status["demotions"]]) == (
        "compat",
        ["enhanced"],
    )
    assert "demoted" in node.kmeshctl("status")
    assert "kmesh_demotions_total 1.0" in node.http("/status/metric", port=15020)[1]
    assert set(node.answers(40)) == {"blue", "green"}


def multiarch() -> str:
    done = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "x86_64-linux-gnu"


def test_status_can_be_read_in_every_way(node: Node) -> None:
    node.daemon().wait_ready()
    assert "10.244.0.11:8080, 10.244.0.12:8080" in node.kmeshctl("services")
    assert "web.default.svc.cluster.local" in node.kmeshctl("workloads")
    assert "connect.ipv4" in node.kmeshctl("probe")
    assert "libbpf:" in node.kmeshctl("version")
    dump = json.loads(node.kmeshctl("dump"))
    assert dump["status"]["mode"] == "enhanced"
    assert json.loads(node.http("/debug/config_dump")[1])["services"] == dump["services"]
    assert json.loads(node.http("/debug/probe")[1])["schema_version"] == 1
    metrics = node.http("/status/metric", port=15020)[1]
    assert "kmesh_services 1.0" in metrics.splitlines()
    assert 'kmesh_mode_info{mode="enhanced"} 1.0' in metrics.splitlines()


def test_exec_hands_on_the_exit_status_and_leaves_no_cgroup(node: Node) -> None:
    node.daemon().wait_ready()
    done = node.kmesh(
        "exec", "--name", "probe-me", "--", "sh", "-c", "cat /proc/self/cgroup; exit 7"
    )
    assert done.returncode == 7
    (path,) = [line[3:] for line in done.stdout.splitlines() if line.startswith("0::")]
    assert path.startswith("/kmesh/probe-me-")
    assert node.ask("status")["managed"] == []
    assert not list(Path("/sys/fs/cgroup").glob(f"**{path}"))


def test_exec_waits_for_a_daemon_that_starts(node: Node) -> None:
    command = [
        sys.executable,
        "-m",
        "runtime.cli.main",
        "exec",
        "--wait",
        "120",
        "--",
        "echo",
        "ran",
    ]
    early = subprocess.Popen(
        node.inside(command), env=node.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert early.stderr is not None
    try:
        said = early.stderr.readline()
        assert b"waiting up to 120 s for the daemon: nobody answers yet" in said
        node.daemon().wait_ready()
        assert early.communicate(timeout=60)[0] == b"ran\n"
    finally:
        early.kill()
    assert early.returncode == 0


def test_exec_of_what_is_not_there_is_127(node: Node) -> None:
    node.daemon().wait_ready()
    done = node.kmesh("exec", "--", "kmesh-no-such-command")
    assert (done.returncode, done.stderr) == (
        127,
        "error: kmesh-no-such-command: command not found\n",
    )
    assert node.ask("status")["managed"] == []


def test_what_a_killed_exec_left_is_removed_with_the_next(node: Node) -> None:
    node.daemon().wait_ready()
    command = [sys.executable, "-m", "runtime.cli.main", "exec", "--", "sleep", "60"]
    killed = subprocess.Popen(node.inside(command), env=node.environment)
    (name,) = node.until(lambda: node.ask("status")["managed"], "not enrolled")
    (sleeper,) = node.until(
        lambda: (Path(name) / "cgroup.procs").read_text().split(), "not started"
    )
    killed.kill()
    killed.wait()
    subprocess.run(["kill", sleeper], check=True)
    node.until(lambda: not (Path(name) / "cgroup.procs").read_text(), "sleeper goes on")
    node.answers(1)
    assert node.ask("status")["managed"] == []
    assert not Path(name).exists()


def test_exec_goes_through_signals(node: Node) -> None:
    node.daemon().wait_ready()
    command = [sys.executable, "-m", "runtime.cli.main", "exec", "--", "sleep", "60"]
    process = subprocess.Popen(node.inside(command), env=node.environment)
    node.until(lambda: node.ask("status")["managed"], "not enrolled")
    (name,) = node.ask("status")["managed"]
    node.until((Path(name) / "cgroup.procs").read_text, "not started")
    process.terminate()
    assert process.wait(timeout=30) == 143
    assert not Path(name).exists()
