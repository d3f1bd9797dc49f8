# SPDX-License-Identifier: Apache-2.0
"""What goes wrong around a build: a full disk, an engine that goes away, an interrupt, a wrong word."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from builder import cache
from builder.cli import kmesh_build
from builder.engine import Engine, EngineError, RunOptions, RunResult
from builder.longrun import run_logged
from builder.private_engine import PrivateEngine
from builder.recipes import recipe
from builder.smoke import Check, _run, checks
from runtime.errors import KmeshError
from runtime.process import CommandError


def test_an_entry_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(place: Path) -> None:
        made.append(place)
        (place / "x").write_text("1")

    one = cache.entry(tmp_path, "roots", "key", make)
    two = cache.entry(tmp_path, "roots", "key", make)
    assert one == two
    assert (one / "x").read_text() == "1"
    assert len(made) == 1


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_entry_that_was_not_finished_is_not_there(tmp_path: Path, error: BaseException) -> None:
    def make(place: Path) -> None:
        (place / "half").touch()
        raise error

    with pytest.raises(type(error)):
        cache.entry(tmp_path, "roots", "key", make)
    assert list((tmp_path / "roots").iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_is_one_clear_line(tmp_path: Path, number: int) -> None:
    def make(_place: Path) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(KmeshError, match="no space left on the file system of") as error:
        cache.entry(tmp_path, "roots", "key", make)
    assert error.value.hint
    assert "KMESH_CACHE" in error.value.hint


def test_a_disk_that_is_too_small_is_told_before(tmp_path: Path) -> None:
    with pytest.raises(KmeshError, match=r"MB free on the file system of .* MB needed"):
        cache.require_space(tmp_path / "not" / "there", 1 << 60)


def test_what_killed_builds_left_is_removed(tmp_path: Path) -> None:
    gone = subprocess.run(["true"], check=True)
    child = subprocess.Popen(["true"])
    child.wait()
    assert gone.returncode == 0
    dead, alive = tmp_path / f".build-{child.pid}-x1", tmp_path / f".build-{os.getpid()}-x2"
    for place in (dead, alive):
        place.mkdir()
    with cache.scratch(tmp_path, need=1) as place:
        assert place.is_dir()
        assert not dead.exists()
        assert alive.exists()
    assert not place.exists()


def test_the_cache_is_where_it_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KMESH_CACHE", raising=False)
    assert cache.cache_dir() == tmp_path / "kmesh"
    monkeypatch.setenv("KMESH_CACHE", str(tmp_path / "mine"))
    assert cache.cache_dir() == tmp_path / "mine"


CHUNKED = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
SAID = '{"stream":"Step 1/2"}\r\n'
# How an engine's last answer looks: (what it still sends, what that is).
DEATHS = {
    "before it answers": "",
    "in the head": CHUNKED[:30],
    "after the head": CHUNKED,
    "in a chunk": f"{CHUNKED}{len(SAID) + 100:x}\r\n{SAID}",
    "in half a value": f"{CHUNKED}{len(SAID) - 5:x}\r\n{SAID[:-5]}\r\n",
    "between chunks": f"{CHUNKED}{len(SAID):x}\r\n{SAID}\r\n",
    "with an orderly end": f"{CHUNKED}{len(SAID):x}\r\n{SAID}\r\n0\r\n\r\n",
}


class Dying(socketserver.StreamRequestHandler):
    """Says who it is, creates and starts containers, and dies in its answer to anything else."""

    last = ""

    def handle(self) -> None:
        while line := self.rfile.readline().decode():
            head = self._head()
            self.rfile.read(int(head.get("content-length", 0)))
            answer = self._known(line)
            if answer is None:
                self.wfile.write(self.last.encode())
                return
            kind = f"Content-Type: application/json\r\nContent-Length: {len(answer)}"
            self.wfile.write(f"HTTP/1.1 200 OK\r\n{kind}\r\n\r\n{answer}".encode())

    def _head(self) -> dict[str, str]:
        found = {}
        while line := self.rfile.readline().decode().strip():
            name, _, value = line.partition(":")
            found[name.lower()] = value.strip()
        return found

    @staticmethod
    def _known(line: str) -> str | None:
        if "_ping" in line or "/version" in line:
            return json.dumps({"ApiVersion": "1.41", "Version": "20.10"})
        if "/containers/create" in line or "/containers/c1/json" in line:
            return json.dumps({"Id": "c1"})
        return "" if "/containers/c1/start" in line else None


@pytest.fixture
def dying_engine(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine that dies in its answer to the first real request."""

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    handler = type("Handler", (Dying,), {"last": DEATHS[request.param]})
    path = tmp_path / "d.sock"
    with Server(str(path), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        engine = Engine.connect(f"unix://{path}")
        yield engine
        engine.close()
        server.shutdown()


def _build(engine: Engine) -> None:
    engine.build(
        io.BytesIO(b"\0" * 10240), what="x", network=None, arguments={}, say=lambda _: None
    )


REQUESTS: dict[str, Callable[[Engine], object]] = {
    "looking for x": lambda engine: engine.find("x"),
    "building x": _build,
    "loading x": lambda engine: engine.load(io.BytesIO(b"\0" * 10240), what="x"),
    "saving x": lambda engine: engine.save("x", io.BytesIO()),
    "pulling x": lambda engine: engine.pull("x"),
    "running x": lambda engine: engine.run("i", [], options=RunOptions(), what="x"),
    "reading /x of i": lambda engine: engine.read_file("i", "/x"),
}


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize(
    "dying_engine", [death for death in DEATHS if "orderly" not in death], indirect=True
)
def test_an_engine_that_goes_away_is_one_clear_line(dying_engine: Engine, what: str) -> None:
    with pytest.raises(EngineError) as error:
        REQUESTS[what](dying_engine)
    assert "the Docker engine is gone" in str(error.value)
    assert "\n" not in str(error.value)
    assert "nothing was tagged" in str(error.value.hint)


@pytest.mark.parametrize("what", ["building x", "loading x"])
@pytest.mark.parametrize("dying_engine", ["with an orderly end"], indirect=True)
def test_an_answer_without_a_result_is_no_result(dying_engine: Engine, what: str) -> None:
    with pytest.raises(EngineError, match=f"{what}: the Docker engine is gone"):
        REQUESTS[what](dying_engine)


def test_no_engine_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no Docker engine at unix://"):
        Engine.connect(f"unix://{tmp_path}/none.sock")


def test_the_engine_of_another_cache_is_another(tmp_path: Path) -> None:
    one, two = PrivateEngine.of(tmp_path / "a"), PrivateEngine.of(tmp_path / ("b" * 200))
    assert one.url != two.url
    assert len(two.url) < 100  # a socket's path has 107 bytes
    assert not one.running()
    one.stop()  # nothing runs: nothing happens


def test_a_command_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="ended with status 3") as error:
        run_logged(["sh", "-c", "echo no such suite; exit 3"], log=tmp_path / "log")
    assert "no such suite" in str(error.value)


def test_an_interrupt_ends_a_command_and_its_children(tmp_path: Path) -> None:
    """The child that a command left running must go with it."""
    code = (
        "import signal, sys; from pathlib import Path; from builder.longrun import run_logged\n"
        "def stop(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "try: run_logged(['sh', '-c', 'sleep 300 & echo $! > \"$0\"; wait', sys.argv[1]], log=Path(sys.argv[2]))\n"
        "except KeyboardInterrupt: sys.exit(42)\n"
    )
    pid = tmp_path / "pid"
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(pid), str(tmp_path / "log")], cwd=Path(__file__).parents[2]
    )
    for _ in range(600):
        if pid.exists() and pid.read_text().strip():
            break
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 42
    for _ in range(600):
        if ended(pid.read_text().strip()):
            return
        time.sleep(0.05)
    pytest.fail("the command's child lives on")


def ended(pid: str) -> bool:
    """Whether a process is gone, or only waits for process 1, which may be busy, to take notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


class FakeEngine:
    def __init__(self, status: int, stdout: str = "", stderr: str = "") -> None:
        self.result = (status, stdout, stderr)

    def run(self, *_: object, **__: object) -> RunResult:
        return RunResult(*self.result)


def test_a_smoke_run_that_fails_tells_check_and_words() -> None:
    check = Check("clang", ["--version"])
    with pytest.raises(
        KmeshError, match=r"smoke run of kmesh: clang ended with status 127: not found"
    ):
        _run(FakeEngine(127, stderr="sh:\nnot found"), "id", recipe("generic"), check)  # type: ignore[arg-type]


def test_every_image_is_run_as_what_it_is() -> None:
    names = {
        image: {check.name for check in checks(recipe(image), "1")}
        for image in ("generic", "enhanced", "compile")
    }
    assert {"kmesh version", "kmesh probe", "clang", "bcc", "imports"} <= names["generic"]
    assert {"clang", "bcc"} & names["enhanced"] == set()
    assert "kmesh-build objects" in names["compile"]


def command(*arguments: str) -> Result:
    return CliRunner().invoke(kmesh_build, list(arguments))


def test_help_teaches_each_command() -> None:
    for name in ("images", "plan", "objects", "inspect", "engine"):
        assert command(name, "--help").exit_code == 0
        assert name in command("--help").output


def test_a_plan_is_data(checkout: Path) -> None:
    outcome = command("plan", "--bootstrap", "--tag", "7", "--hub", "hub.test", "--output", "json")
    assert outcome.exit_code == 0, outcome.output
    data = json.loads(outcome.output)
    assert [item["reference"] for item in data["images"]] == [
        "hub.test/kmesh:7",
        "hub.test/kmesh-enhanced:7",
        "hub.test/kmesh-build:7",
    ]


def test_what_can_be_built_can_be_planned() -> None:
    """Every option that decides what is built and on what."""
    images, plan = (
        kmesh_build.get_command(click.Context(kmesh_build), n) for n in ("images", "plan")
    )
    assert images
    assert plan
    only_images = {p.name for p in images.params} - {p.name for p in plan.params}
    assert only_images == {"rebuild", "no_load", "no_probe", "keep_engine"}
    outcome = command("plan", "--bootstrap", "--mirror", "http://mirror.test/debian")
    assert "bootstrap Debian 12 from http://mirror.test/debian" in outcome.output


def test_one_image_alone_can_be_planned() -> None:
    outcome = command("plan", "--bootstrap", "--image", "enhanced")
    assert "kmesh-enhanced" in outcome.output
    assert "kmesh-build:" not in outcome.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tag", "has space"), "tag"),
        (("--tag", ""), "tag"),
        (("--hub", "UPPER/case"), "hub"),
        (("--base-repo", "file:///x", "--base-enhanced", "y"), "one of"),
        (("--base-archive", "/nowhere/root.tar"), "does not exist"),
        (("--base-key", "/etc/passwd"), "for packages of a --base-repo"),
    ],
)
def test_a_wrong_word_is_told_before_anything_is_built(
    arguments: tuple[str, ...], said: str
) -> None:
    for name in ("images", "plan"):
        outcome = command(name, *arguments)
        assert outcome.exit_code == 2
        assert said in outcome.output


def test_an_object_is_looked_into(objects: Path) -> None:
    path = objects / "compat" / "connect4.bpf.o"
    table = command("inspect", str(path))
    assert "CGROUP_SOCK_ADDR" in table.output
    data = json.loads(command("inspect", str(path), "--output", "json").output)
    assert data["programs"][0]["type"] == "CGROUP_SOCK_ADDR"
    assert data["maps"]


def test_what_is_no_object_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.o").touch()
    outcome = command("inspect", str(tmp_path / "empty.o"))
    assert isinstance(outcome.exception, KmeshError)
    assert "empty.o" in str(outcome.exception)
