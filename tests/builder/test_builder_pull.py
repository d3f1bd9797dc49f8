# SPDX-License-Identifier: Apache-2.0
"""A base that is pulled: from a registry on a loopback address, its packages from a repository beside it.

The root is the one that kernels are booted with, so that it is made once for both; libbpf is taken out of
it, and offered as a package.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.assemble import Assembler
from builder.bases import DEBIAN, Base, Kind, Wish, choose
from builder.cache import cache_dir
from builder.checkout import read_checkout
from builder.engine import Engine, EngineError
from builder.objects import ObjectSet, make_objects
from builder.pipeline import Pipeline
from builder.prepared import Bases
from builder.private_engine import PrivateEngine
from builder.progress import Progress
from builder.recipes import Recipe, recipe
from builder.request import ImageResult, Request
from builder.resolve import DNF, parse_dnf, specs
from ci.matrix import root as matrix
from tests.builder.registry import Registry
from tests.builder.rpms import make_repository, needs_rpm, small_trees

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("dockerd") is None, reason="no dockerd on this host (Debian: docker.io)"
    ),
]
WANTED = ("libbpf1", "libstdc++6", "python3")
STATUS = "var/lib/dpkg/status"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    private = PrivateEngine.of(cache_dir())
    if private.running():
        pytest.fail("the private engine runs already: kmesh-build engine stop")
    try:
        made = private.start()
        yield made
        made.close()
    finally:
        private.stop()


@dataclass(frozen=True)
class Served:
    """What a registry and a repository beside it serve.

    Attributes:
        reference: the base.
        files: of the package that the base lacks.
        control: its fields.
    """

    registry: Registry
    reference: str
    files: Path
    control: str

    @property
    def version(self) -> str:
        return self.control.partition("\nVersion: ")[2].partition("\n")[0]

    def image(self) -> Recipe:
        """The generic image without its toolchain, on this base."""
        base = Base(DEBIAN.name, DEBIAN.os_id, self.reference, "apt-get")
        packages = {"apt-get": WANTED}
        return replace(recipe("generic"), base=base, toolchain=False, packages=packages)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("registry")
    root = place / "root"
    root.mkdir()
    packed = matrix._cached(
        "distribution", repr((matrix._SUITE, matrix._PACKAGES)).encode(), matrix._distribution
    )
    with packed.open("rb") as stream:
        unpack = [
            "cpio",
            "--extract",
            "--make-directories",
            "--quiet",
            "--preserve-modification-time",
        ]
        subprocess.run(unpack, cwd=root, stdin=stream, check=True)
    files, control = take_out("libbpf1", root, place / "libbpf1")
    registry = Registry(place / "served")
    registry.add_package(files, control)
    source = f"deb [trusted=yes] http://{registry.host}/apt ./\n"
    (root / "etc/apt/sources.list").write_text(source)
    pack = ["tar", "--sort=name", "--mtime=@0", "--numeric-owner", "-cf", str(place / "root.tar")]
    subprocess.run([*pack, "-C", str(root), "."], check=True)
    shutil.rmtree(root)
    try:
        yield Served(registry, registry.add_image(place / "root.tar"), files, control)
    finally:
        registry.close()


def take_out(name: str, root: Path, target: Path) -> tuple[Path, str]:
    """Take an installed package out of a root: its files, and its fields."""
    info = next((root / "var/lib/dpkg/info").glob(f"{name}*.list"))
    for line in info.read_text().splitlines():
        path = root / line.strip("/")
        if path.is_symlink() or path.is_file():
            (target / line.strip("/")).parent.mkdir(parents=True, exist_ok=True)
            path.rename(target / line.strip("/"))
    for path in info.parent.glob(f"{info.stem}.*"):
        path.unlink()
    stanzas = (root / STATUS).read_text().split("\n\n")
    (stanza,) = [each for each in stanzas if each.startswith(f"Package: {name}\n")]
    stanzas.remove(stanza)
    (root / STATUS).write_text("\n\n".join(stanzas))
    fields = [line for line in stanza.splitlines() if not line.startswith("Status: ")]
    return target, "\n".join(fields)


@pytest.fixture(scope="module")
def objects(checkout: Path) -> ObjectSet:
    return make_objects(checkout / "bpf", checkout / "build" / "bpf", load=False, say=print)


@pytest.fixture
def request_of(checkout: Path, tmp_path: Path, served: Served) -> Request:
    place = tmp_path / "checkout"
    for name in ("images", "requirements", "runtime", "bpf"):
        shutil.copytree(checkout / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(checkout / name, place / name)
    return Request(
        checkout=replace(read_checkout(checkout), root=place),
        cache=cache_dir(),
        images=[served.image()],
        tag="pulled",
        hub="kmesh.test",
    )


def build(request: Request, engine: Engine, objects: ObjectSet) -> ImageResult:
    (result,) = Pipeline(request, engine, objects, (), Progress()).run()
    return result


def test_an_image_on_a_pulled_base(
    engine: Engine, served: Served, request_of: Request, objects: ObjectSet
) -> None:
    """By the digest that it is pinned to; and what apt installs there is what apt was asked about."""
    try:
        made = build(request_of, engine, objects)
        assert (made.base, made.reason) == (served.reference, "its registry answers")
        assert [layer.name for layer in made.layers] == ["base", "packages", "python", "kmesh"]
        place = request_of.output / "generic"
        assert f" libbpf1={served.version} " in (place / "Dockerfile").read_text()
        bill = json.loads((place / "sbom.spdx.json").read_text())
        versions = {each["name"]: each.get("versionInfo") for each in bill["packages"]}
        assert versions["libbpf1"] == served.version
        assert "apt" in versions
        statement = json.loads((place / "provenance.json").read_text())
        inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
        digests = {str(each.get("name")): each["digest"] for each in inputs}
        assert digests[served.reference] == {"sha256": served.reference.rpartition(":")[2]}
        assert any(name.startswith("libbpf1_") for name in digests)
        assert build(request_of, engine, objects).state == "unchanged"
        assert sum("/blobs/" in path for path in served.registry.asked) == 2, "pulled once"
        assert newer(served, request_of, engine, objects) != "unchanged"
    finally:
        engine.remove(request_of.reference(served.image()))
        engine.remove(served.reference)


def newer(served: Served, request: Request, engine: Engine, objects: ObjectSet) -> str:
    """An update of a package in the repository makes another image; returns what would be done."""
    version = f"{served.version}+u1"
    served.registry.add_package(served.files, served.control.replace(served.version, version))
    place = request.checkout.root / "context"
    place.mkdir()
    prepared = Assembler(request, engine, objects, Progress()).assemble(served.image(), place)
    assert f"libbpf1={version}" in prepared.dockerfile
    return (
        "built" if engine.find_labelled("net.kmesh.inputs", prepared.key) is None else "unchanged"
    )


def test_a_pull_that_fails_is_made_up_for_and_told(engine: Engine, served: Served) -> None:
    gone = f"{served.registry.host}/debian:12@sha256:{'0' * 64}"
    image = replace(served.image(), base=replace(served.image().base, reference=gone))
    bases = Bases(engine, cache_dir(), mirror=None, say=print)
    choice = choose(image.base, Wish(), reachable=True)
    assert choice.kind is Kind.IMAGE
    made = bases.prepare(image, choice, Wish())
    assert made.choice.kind is Kind.DEBIAN_ROOT
    assert f"pulling {gone} failed" in made.choice.reason
    wish = Wish(reference=gone)
    with pytest.raises(EngineError, match=f"pulling {gone}"):
        bases.prepare(image, choose(image.base, wish, reachable=True), wish)


@needs_rpm
def test_dnf_tells_what_it_would_install(tmp_path: Path) -> None:
    """What is run in a pulled base with dnf, run with the dnf of this host on a repository of ours."""
    uri = make_repository(tmp_path / "r", small_trees(tmp_path))
    (tmp_path / "repos").mkdir()
    (tmp_path / "repos" / "a.repo").write_text(f"[a]\nname=a\nbaseurl={uri}\ngpgcheck=0\n")
    script = 'mkdir -p /etc/yum.repos.d && mount --bind "$0" /etc/yum.repos.d && exec "$@"'
    python = ["/usr/bin/python3", "-I", "-c", DNF, "libbpf", "libstdc++"]
    argv = ["unshare", "--mount", "sh", "-c", script, str(tmp_path / "repos"), *python]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = parse_dnf(done.stdout)
    assert [(each.name, each.spec) for each in found] == [
        ("libbpf", "libbpf-1-1.oe2403.noarch"),
        ("libstdc++", "libstdc++-1-1.oe2403.noarch"),
    ]
    assert all(len(each.input.rpartition("sha256:")[2]) == 64 for each in found)
    assert specs(["libbpf", "python3"], found[:1]) == ("libbpf-1-1.oe2403.noarch", "python3")
