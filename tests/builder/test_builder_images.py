# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline on a real private engine: three images, twice, run, interrupted, cleaned up after.

Roots and wheels come from the user's cache under their content keys, so that only the first run on a
machine bootstraps and fetches.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.archive import chain_id
from builder.cache import cache_dir
from builder.engine import Engine, RunOptions
from builder.private_engine import PrivateEngine
from builder.rootfs import openeuler, osrelease
from builder.rootfs.dnf import Repository
from builder.rootfs.openeuler import PACKAGES
from builder.sbom import SystemPackage
from builder.smoke import CAPABILITIES, MOUNTS, PROBE
from ci.hosts.roots import chosen, root_of
from ci.hosts.trial import try_all
from runtime.kernel.cleanup import cleanup
from tests.builder.rpms import make_repository, needs_rpm, small_trees

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        shutil.which("dockerd") is None, reason="no dockerd on this host (Debian: docker.io)"
    ),
]
HUB = "kmesh.test"
NAMES = {"generic": "kmesh", "enhanced": "kmesh-enhanced", "compile": "kmesh-build"}
TAG = f"test-{os.getpid()}"
GIT = {
    f"GIT_{who}_{what}": "kmesh" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}
DATES = {"GIT_AUTHOR_DATE": "1767225600 +0000", "GIT_COMMITTER_DATE": "1767225600 +0000"}


@dataclass(frozen=True)
class Built:
    """Two builds of the same sources, at two places."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    places: tuple[Path, Path]
    engine: Engine

    def id(self, image: str) -> str:
        return image_ids(self.second)[image]


def image_ids(report: Mapping[str, Any]) -> dict[str, str]:
    return {item["image"]: item["id"] for item in report["images"]}


def copy_checkout(checkout: Path, place: Path) -> Path:
    """The sources as they are now, committed under a date of its own at another place."""
    parts = ["bpf", "builder", "runtime", "images", "requirements", "pyproject.toml", "LICENSE"]
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", *parts]
    names = subprocess.run(
        ["git", "-C", str(checkout), *listing], check=True, capture_output=True
    ).stdout.decode()
    for name in filter(None, names.split("\0")):
        if (checkout / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, place / name)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "test"]):
        subprocess.run(
            ["git", "-C", str(place), *command], check=True, env={**os.environ, **GIT, **DATES}
        )
    return place


def command(place: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    argv = [sys.executable, "-m", "builder.cli", "images", "--hub", HUB, "--bootstrap"]
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{place}/no-engine-here.sock",
        "KMESH_CHECKOUT": str(place),
        "PYTHONPATH": str(place),
    }
    return [*argv, *arguments], environment


def build(place: Path, *arguments: str) -> dict[str, Any]:
    argv, environment = command(place, *arguments, "--output", "json")
    done = subprocess.run(
        argv, env=environment, cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def leftovers(private: PrivateEngine) -> list[str]:
    """Everything of a private engine that is there only while it runs."""
    found = [str(path) for path in (private.run, private.data / "docker.pid") if path.exists()]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if str(private.data) in line or str(private.run) in line]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].rpartition("/")[2] in ("dockerd", "containerd", "containerd-shim-runc-v2"):
            found += [" ".join(words)] if any(str(private.run) in word for word in words) else []
    return found


@pytest.fixture(scope="module")
def built(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    private = PrivateEngine.of(cache_dir())
    if private.running():
        pytest.fail("the private engine runs already: kmesh-build engine stop")
    one = copy_checkout(checkout, tmp_path_factory.mktemp("one"))
    two = copy_checkout(checkout, tmp_path_factory.mktemp("two") / "deeper" / "down")
    try:
        first = build(one, "--tag", f"{TAG}-one")
        assert leftovers(private) == []
        second = build(two, "--tag", f"{TAG}-two", "--rebuild", "--no-probe", "--keep-engine")
        engine = Engine.connect(private.url, private=True)
        yield Built(first, second, (one, two), engine)
        for tag in ("one", "two", "euler", "again"):
            for name in NAMES.values():
                engine.remove(f"{HUB}/{name}:{TAG}-{tag}")
        engine.close()
    finally:
        private.stop()
    assert leftovers(private) == []


def test_images_of_one_commit_have_the_same_ids_wherever_they_are_built(built: Built) -> None:
    assert image_ids(built.first) == image_ids(built.second)
    assert set(image_ids(built.second)) == set(NAMES)
    assert {item["state"] for item in built.second["images"]} == {"built"}


def test_images_are_as_small_as_they_should_be(built: Built) -> None:
    sizes = {item["image"]: item["size"] for item in built.second["images"]}
    assert sizes["enhanced"] < 150e6
    assert sizes["generic"] < 600e6


def test_images_share_what_they_share(built: Built) -> None:
    facts = {name: built.engine.find(built.id(name)) for name in NAMES}
    layers = {name: found.layers for name, found in facts.items() if found}
    base, python, _ = layers["enhanced"]
    for name in ("generic", "compile"):
        assert layers[name][0] == base
        assert layers[name][2] == python
    assert layers["generic"][1] == layers["compile"][1]


def test_the_substituted_base_is_told_everywhere(built: Built) -> None:
    enhanced = next(item for item in built.second["images"] if item["image"] == "enhanced")
    assert enhanced["substitute"]
    found = built.engine.find(enhanced["id"])
    assert found
    assert found.labels["net.kmesh.base.substitute-for"] == "openEuler 24.03"
    assert found.labels["org.opencontainers.image.revision"]
    assert found.labels["org.opencontainers.image.created"] == "2026-01-01T00:00:00Z"


def test_each_image_has_a_bill_of_materials_and_a_provenance(built: Built) -> None:
    for image, name in NAMES.items():
        place = built.places[1] / "build" / "images" / image
        bill = json.loads((place / "sbom.spdx.json").read_text())
        names = {package["name"] for package in bill["packages"]}
        assert {name, "python3", "libbpf1", "kmesh", "grpcio", "kmesh-bpf-objects"} <= names
        assert ("clang-14" in names) == (image != "enhanced")
        assert any("compat/connect4.bpf.o" in item["fileName"] for item in bill["files"])
        statement = json.loads((place / "provenance.json").read_text())
        assert statement["subject"][0]["digest"]["sha256"] == built.id(image).removeprefix(
            "sha256:"
        )


def test_each_image_knows_the_id_of_its_files(built: Built) -> None:
    """The key of what a prober found out: another image on the same host is probed again."""
    code = "import os; print(os.environ['KMESH_IMAGE_DIGEST'])"
    options = RunOptions(entrypoint="/usr/bin/python3")
    said = {}
    for name in NAMES:
        found = built.engine.find(built.id(name))
        assert found
        done = built.engine.run(found.id, ["-c", code], options=options, what="python3")
        said[name] = done.stdout.strip()
        assert said[name] == chain_id(found.layers)
    assert len(set(said.values())) == len(NAMES)


def test_the_enhanced_image_has_no_compiler(built: Built) -> None:
    assert built.engine.read_file(built.id("enhanced"), "/usr/bin/clang-14") is None
    assert built.engine.read_file(built.id("generic"), "/usr/bin/clang-14") is not None


def test_the_generic_image_probes_this_host(built: Built) -> None:
    report = built.first["probe"]
    assert report["mode"]["mode"] in ("compat", "enhanced")
    assert not report["offline"]
    host = osrelease.parse(Path("/etc/os-release").read_text())
    assert report["kernel"]["distribution"] == host.name


def test_the_compile_image_makes_an_image_for_exactly_this_kernel_which_runs(
    built: Built, tmp_path: Path
) -> None:
    socket = str(PrivateEngine.of(cache_dir()).run / "docker.sock")
    mounts = {
        str(tmp_path): "/out",
        "/etc/os-release": "/host/etc/os-release:ro",
        socket: "/var/run/docker.sock",  # then it loads what it made
    }
    options = RunOptions(capabilities=CAPABILITIES, mounts={**MOUNTS, **mounts}, host_cgroups=True)
    done = built.engine.run(
        built.id("compile"),
        ["host", "--hub", HUB, "--tag", TAG, "--output", "json"],
        options=options,
        what="kmesh-build host",
    )
    assert done.status == 0, done.stderr
    made = json.loads(done.stdout)["image"]
    assert os.uname().release.replace("+", "_") in made["reference"]
    try:
        found = built.engine.find(made["reference"])
        assert found, done.stderr
        assert found.id == made["id"]
        assert made["loaded_by"].startswith("Docker")
        assert built.engine.read_file(found.id, "/usr/bin/clang-14") is None
        assert built.engine.read_file(found.id, "/usr/bin/kmesh-build") is None
        probed = built.engine.run(
            found.id, ["probe", "--output", "json"], options=PROBE, what="kmesh probe"
        )
        assert json.loads(probed.stdout)["mode"]["mode"] == built.first["probe"]["mode"]["mode"]
    finally:
        built.engine.remove(made["reference"])


@needs_rpm
def test_the_compile_image_makes_an_image_for_another_distribution_or_says_what_it_takes(
    built: Built, tmp_path: Path
) -> None:
    """The cheapest of `make hosts`: the root of rpm packages."""
    [host] = chosen(["rpm"])
    said: list[str] = []
    root = root_of(host, cache_dir(), say=said.append)
    wrong = list(try_all(built.engine, built.id("compile"), root, tmp_path, say=said.append))
    assert wrong == []
    assert len(said) == 5
    assert "hosts-openEuler24.03-6.1.0-1.oe2403.x86_64" in said[-1]


def test_the_compile_image_compiles_objects_that_this_kernel_loads(built: Built) -> None:
    options = RunOptions(capabilities=CAPABILITIES)
    arguments = ["objects", "/tmp/out", "--output", "json"]
    done = built.engine.run(built.id("compile"), arguments, options=options, what="objects")
    assert done.status == 0, done.stderr
    made = {item["object"]: item for item in json.loads(done.stdout)}
    assert made["compat/connect4.bpf.o"]["loaded"]
    shipped = json.loads((built.places[1] / "build" / "bpf" / "manifest.json").read_text())[
        "objects"
    ]
    assert {name: item["sha256"] for name, item in made.items()} == {
        item["path"]: item["sha256"] for item in shipped
    }


@pytest.mark.parametrize(
    ("dropped", "capability"),
    [("SYS_ADMIN", "capability.bpf"), ("DAC_OVERRIDE", "cgroup2")],
)
def test_a_dropped_capability_reads_denied(built: Built, dropped: str, capability: str) -> None:
    left = tuple(name for name in CAPABILITIES if name != dropped)
    options = RunOptions(capabilities=left, mounts=MOUNTS, host_cgroups=True)
    done = built.engine.run(
        built.id("generic"), ["probe", "--quick", "--output", "json"], options=options, what="probe"
    )
    report = json.loads(done.stdout)
    verdicts = {item["capability"]: item["verdict"] for item in report["findings"]}
    assert done.status == 3
    assert report["kernel"]["distribution"] == "", "nobody said which host this is"
    assert report["mode"]["mode"] == "none"
    assert verdicts[capability] == "denied"
    assert report["mode"]["kernel_mode"] != "none"


ROUTED = '''
import collections, http.server, json, subprocess, sys, threading, time, urllib.request

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.server.server_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

for address in ("127.0.0.2", "127.0.0.3"):
    server = http.server.ThreadingHTTPServer((address, 8081), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
daemon = subprocess.Popen(["kmesh", "run", "--source", "files:/services", "--pins", sys.argv[1]])
for _ in range(300):
    try:
        urllib.request.urlopen("http://127.0.0.1:15200/debug/ready", timeout=5)
        break
    except OSError:
        time.sleep(0.1)
client = """
import collections, json, urllib.request
get = lambda: urllib.request.urlopen("http://10.96.7.7/", timeout=5).read().decode()
print(json.dumps(collections.Counter(get() for _ in range(40))))
"""
status = subprocess.run(["kmesh", "exec", "--", "python3", "-c", client]).returncode
daemon.terminate()
sys.exit(status or daemon.wait())
'''
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  clusterIP: 10.96.7.7
  clusterIPs: [10.96.7.7]
  ports: [{name: http, port: 80, targetPort: 8081, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: echo-1
  namespace: default
  labels: {kubernetes.io/service-name: echo}
addressType: IPv4
ports: [{name: http, port: 8081, protocol: TCP}]
endpoints:
  - {addresses: [127.0.0.2], conditions: {ready: true}}
  - {addresses: [127.0.0.3], conditions: {ready: true}}
"""


@pytest.mark.parametrize("image", ["generic", "enhanced"])
def test_an_image_routes_real_connections_of_a_managed_process(
    built: Built, image: str, tmp_path: Path
) -> None:
    """In a container without a network: the service's address leads nowhere but through Kmesh."""
    (tmp_path / "services").mkdir()
    (tmp_path / "services" / "echo.yaml").write_text(SERVICES)
    pins = Path(f"/sys/fs/bpf/kmesh-test-{os.getpid()}-image")
    options = RunOptions(
        capabilities=CAPABILITIES,
        mounts={**MOUNTS, str(tmp_path / "services"): "/services:ro"},
        host_cgroups=True,
        entrypoint="/usr/bin/python3",
    )
    try:
        done = built.engine.run(
            built.id(image), ["-c", ROUTED, str(pins)], options=options, what="a managed process"
        )
    finally:
        left = cleanup(pins)
    assert done.status == 0, done.stderr
    assert left == []
    answered = json.loads(done.stdout.strip().splitlines()[-1])
    assert set(answered) == {"127.0.0.2", "127.0.0.3"}
    assert sum(answered.values()) == 40
    assert not pins.exists()


@pytest.fixture(scope="module")
def repository(built: Built, tmp_path_factory: pytest.TempPathFactory) -> str:
    """openEuler as far as the pipeline can tell: its packages hold the root that was bootstrapped."""
    place = tmp_path_factory.mktemp("openeuler")
    base = max((cache_dir() / "roots").glob("*/base.tar"), key=lambda path: path.stat().st_mtime)
    python = place / "python3"
    with tarfile.open(base) as tar:
        own = [
            m for m in tar if not m.name.startswith("var/lib/dpkg") and "os-release" not in m.name
        ]
        tar.extractall(python, own, filter="fully_trusted")
    return make_repository(place / "r", {**small_trees(place), "python3": python})


@needs_rpm
def test_an_openeuler_repository_becomes_the_base(built: Built, repository: str) -> None:
    arguments = ("--image", "enhanced", "--base-repo", repository, "--no-probe")
    report = build(built.places[0], "--tag", f"{TAG}-euler", *arguments)
    (image,) = report["images"]
    assert not image["substitute"]
    assert image["base"] == "openEuler (dnf)"
    assert image["layers"][0]["name"] == "openEuler 24.03"
    place = built.places[0] / "build" / "images" / "enhanced"
    bill = json.loads((place / "sbom.spdx.json").read_text())
    urls = {ref["referenceLocator"] for p in bill["packages"] for ref in p.get("externalRefs", [])}
    system = {url for url in urls if url.startswith(("pkg:rpm", "pkg:deb"))}
    own = (SystemPackage(n, "1-1.oe2403", "noarch", "rpm", "openeuler") for n in PACKAGES)
    assert system == {package.purl for package in own}
    statement = json.loads((place / "provenance.json").read_text())
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"repomd.xml", "libbpf-1-1.oe2403.noarch"} <= {each.get("name") for each in inputs}


@needs_rpm
def test_an_openeuler_archive_becomes_the_base(built: Built, repository: str) -> None:
    root = openeuler.from_repository(cache_dir(), Repository(repository), say=print)
    arguments = ("--image", "enhanced", "--base-archive", str(root.layer), "--no-probe")
    report = build(built.places[0], "--tag", f"{TAG}-euler", *arguments)
    (image,) = report["images"]
    assert not image["substitute"]
    assert image["base"] == "openEuler (root archive)"
    found = built.engine.find(image["id"])
    assert found
    assert "net.kmesh.base.substitute-for" not in found.labels


def test_a_base_that_is_another_distribution_stops_the_build(built: Built) -> None:
    """An image that the engine has under the name given, and that is Debian, for the one on openEuler."""
    name = f"{HUB}/kmesh:{TAG}-two"
    argv, environment = command(
        built.places[0], "--image", "enhanced", "--base-enhanced", name, "--tag", f"{TAG}-euler"
    )
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (
        f"error: base {name} is not what it says: openEuler was wanted, it is Debian" in done.stderr
    )


def _interrupt(place: Path, when: Callable[[str], bool], *arguments: str) -> tuple[int, str]:
    """Send SIGTERM to a build as soon as a line of its log says so; its status and its log."""
    argv, environment = command(place, *arguments)
    lines = []
    with subprocess.Popen(
        argv,
        env=environment,
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stderr
        for line in child.stderr:
            lines.append(line)
            if when(line):
                child.send_signal(signal.SIGTERM)
    return child.returncode, "".join(lines)


def test_an_interrupted_build_names_nothing_and_is_continued(built: Built) -> None:
    place, tag = built.places[0], f"{TAG}-again"
    some = ("--image", "enhanced", "--image", "compile")
    status, log = _interrupt(
        place, lambda line: "[compile] 3/7 build" in line, "--tag", tag, "--rebuild", *some
    )
    assert status == 130, log
    assert "interrupted: no name has changed" in log
    assert "Traceback" not in log
    assert all(built.engine.find(f"{HUB}/{name}:{tag}") is None for name in NAMES.values())
    # What was finished is not built again; and an interrupt after the naming says that it was too late.
    status, log = _interrupt(place, lambda line: "probing this host" in line, "--tag", tag)
    assert status == 130, log
    assert "interrupted: all images are built and have their names" in log
    assert log.count("unchanged (") == len(NAMES)
    named = {image: built.engine.find(f"{HUB}/{name}:{tag}") for image, name in NAMES.items()}
    assert {image: found and found.id for image, found in named.items()} == image_ids(built.first)
