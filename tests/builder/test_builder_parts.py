# SPDX-License-Identifier: Apache-2.0
"""What goes into an image: locked packages, the context, Dockerfiles, byte code."""

from __future__ import annotations

import importlib.util
import io
import os
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import jinja2
import pytest

from builder import labels
from builder.bases import DEBIAN, OPENEULER, Wish, choose
from builder.cache import file_sha256
from builder.checkout import Checkout, read_checkout
from builder.context import Part, code_archive, write_context
from builder.lock import closure, parse_lock
from builder.objects import ObjectSet
from builder.recipes import Recipe, recipe, recipes
from builder.templates import ArchiveView, BaseView, render
from builder.wheels import platforms_of
from runtime.errors import KmeshError

LOCK = """\
alpha==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via kmesh (pyproject.toml)
beta==2.0 ; python_version < '3.12' \\
    --hash=sha256:cc
    # via
    #   alpha
    #   gamma
gamma==3.0 \\
    --hash=sha256:dd
    # via kmesh (pyproject.toml)
"""
MADE = BaseView("sha256:0123", "", ())


def test_a_lock_file_tells_what_needs_what() -> None:
    pins = parse_lock(LOCK)
    assert {name: pin.version for name, pin in pins.items()} == {
        "alpha": "1.0",
        "beta": "2.0",
        "gamma": "3.0",
    }
    assert pins["beta"].via == {"alpha", "gamma"}
    assert pins["alpha"].text.count("--hash=") == 2


def test_a_closure_of_a_lock_leaves_out_what_is_there_already() -> None:
    pins = parse_lock(LOCK)
    assert [pin.name for pin in closure(pins, ["alpha"])] == ["alpha", "beta"]
    assert [pin.name for pin in closure(pins, ["alpha"], without=["beta"])] == ["alpha"]


def test_a_package_without_a_hash_is_refused() -> None:
    with pytest.raises(KmeshError, match="alpha is locked without a hash"):
        parse_lock("alpha==1.0\n    # via kmesh\n")


def test_a_package_that_is_not_locked_is_refused() -> None:
    with pytest.raises(KmeshError, match="not in the lock file: delta"):
        closure(parse_lock(LOCK), ["delta"])


def test_the_lock_files_of_this_checkout_are_whole(checkout: Path) -> None:
    runtime = parse_lock((checkout / "requirements" / "runtime.lock").read_text())
    more = parse_lock((checkout / "requirements" / "dev.lock").read_text())
    assert {"click", "grpcio", "kubernetes"} <= runtime.keys()
    names = {pin.name for pin in closure(more, ["docker", "jinja2", "spdx-tools"], without=runtime)}
    assert {"docker", "jinja2", "markupsafe", "spdx-tools", "rdflib"} <= names
    assert not names & runtime.keys()


def test_platforms_go_from_the_newest_that_every_base_runs() -> None:
    tags = platforms_of("x86_64")
    assert tags[0] == "manylinux_2_36_x86_64"
    assert {"manylinux2014_x86_64", "manylinux_2_17_x86_64", "any"} <= set(tags)


@pytest.mark.parametrize("image", recipes(), ids=lambda image: image.name)
def test_every_image_has_a_dockerfile(checkout: Path, image: Recipe) -> None:
    archives = [ArchiveView("python", "python.tar"), ArchiveView("kmesh", "kmesh.tar")]
    text = render(
        checkout / "images",
        image,
        base=MADE,
        archives=archives,
        labels={"title": 'a "quoted" one'},
        environment={"LANG": "C.UTF-8"},
    )
    lines = text.splitlines()
    assert lines[1] == "FROM sha256:0123 AS root"
    assert "RUN apt-get" not in text
    entrypoint, command = f'ENTRYPOINT ["{image.entrypoint}"]', 'CMD ["host"]'
    assert lines[-2:] == [entrypoint, command] if image.builder else lines[-1] == entrypoint
    assert text.index("COPY --from=python") < text.index("COPY --from=kmesh")
    assert r'LABEL title="a \"quoted\" one"' in text
    assert 'ENV LANG="C.UTF-8"' in text


@pytest.mark.parametrize(
    ("installer", "command"), [("apt-get", "apt-get install"), ("dnf", "dnf install")]
)
def test_a_pulled_base_gets_its_packages(checkout: Path, installer: str, command: str) -> None:
    base = BaseView("debian@sha256:00", installer, ["python3", "libbpf1"])
    text = render(
        checkout / "images", recipe("enhanced"), base=base, archives=[], labels={}, environment={}
    )
    assert command in text
    assert "python3 libbpf1" in text


def test_a_name_that_a_template_invents_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "enhanced.Dockerfile.j2").write_text("FROM {{ base.reference }}\n{{ surprise }}\n")
    with pytest.raises(KmeshError, match="'surprise' is undefined") as error:
        render(tmp_path, recipe("enhanced"), base=MADE, archives=[], labels={}, environment={})
    assert isinstance(error.value.__cause__, jinja2.UndefinedError)


def test_a_template_that_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "enhanced.Dockerfile.j2").write_text("FROM x\n{% if %}\n")
    with pytest.raises(KmeshError, match=r"enhanced\.Dockerfile\.j2:2"):
        render(tmp_path, recipe("enhanced"), base=MADE, archives=[], labels={}, environment={})


def test_labels_say_where_an_image_comes_from() -> None:
    checkout = Checkout(Path(), "1.2.3", "c0ffee", 86400)
    choice = choose(OPENEULER, Wish(), reachable=False)
    made = labels.labels(recipe("enhanced"), checkout, choice, base="sha256:00")
    prefix = "org.opencontainers.image."
    assert made[f"{prefix}version"] == "1.2.3"
    assert made[f"{prefix}revision"] == "c0ffee"
    assert made[f"{prefix}created"] == "1970-01-02T00:00:00Z"
    assert made[f"{prefix}base.digest"] == "sha256:00"
    assert made[labels.SUBSTITUTE] == "openEuler 24.03"
    own = labels.labels(
        recipe("generic"), checkout, choose(DEBIAN, Wish(), reachable=False), base="x"
    )
    assert labels.SUBSTITUTE not in own


def tree(root: Path) -> Checkout:
    files = {
        "runtime/__init__.py": "",
        "runtime/cli.py": "x = 1\n",
        "runtime/__pycache__/cli.cpython-311.pyc": "old",
        "builder/cli.py": "",
        "bpf/compat/a.bpf.c": "int x;\n",
        "images/finish.py": "",
        "requirements/runtime.lock": LOCK,
        "pyproject.toml": '[project]\nversion = "1.2.3"\n',
        "LICENSE": "free",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Checkout(root, "1.2.3", "c0ffee", 0)


@pytest.mark.parametrize(
    ("image", "there", "absent"),
    [
        ("enhanced", "usr/bin/kmesh", "usr/share/kmesh/bpf/compat/a.bpf.c"),
        ("generic", "usr/share/kmesh/bpf/compat/a.bpf.c", "usr/bin/kmesh-build"),
        (
            "compile",
            "usr/bin/kmesh-build",
            "usr/lib/kmesh/python/runtime/__pycache__/cli.cpython-311.pyc",
        ),
    ],
)
def test_an_image_gets_what_its_recipe_says(
    tmp_path: Path, image: str, there: str, absent: str
) -> None:
    target = tmp_path / "kmesh.tar"
    code_archive(target, tree(tmp_path / "tree"), recipe(image), ObjectSet((), b"{}"))
    with tarfile.open(target) as tar:
        members = {member.name: member for member in tar}
    assert there in members
    assert absent not in members
    assert members["usr/bin/kmesh"].mode == 0o755
    assert "usr/lib/kmesh/bpf/manifest.json" in members


def test_a_context_is_the_same_wherever_it_is_put_together(tmp_path: Path) -> None:
    digests: list[str] = []
    for place in ("one", "two/deeper"):
        root = tmp_path / place
        part = Part("kmesh", tmp_path / f"{len(digests)}.tar")
        code_archive(part.archive, tree(root), recipe("compile"), ObjectSet((), b"{}"))
        os.utime(part.archive, (1, 1) if place == "one" else (2, 2))
        write_context(tmp_path / "context.tar", dockerfile="FROM x\n", finish=b"", parts=[part])
        digests.append(file_sha256(tmp_path / "context.tar"))
    assert digests[0] == digests[1]


def test_a_checkout_without_git_takes_its_date_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    found = read_checkout(tmp_path)
    assert (found.version, found.epoch, found.created) == (
        "1.2.3",
        1700000000,
        "2023-11-14T22:13:20Z",
    )
    assert found.revision == "unknown"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(KmeshError, match="SOURCE_DATE_EPOCH is not a number"):
        read_checkout(tmp_path)


def test_a_checkout_with_changes_is_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    tree(tmp_path)
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "a")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "a@b.test")
        monkeypatch.setenv(f"GIT_{who}_DATE", "1700000000 +0000")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    clean = read_checkout(tmp_path)
    assert len(clean.revision) == 40
    assert clean.epoch == 1700000000
    (tmp_path / "runtime" / "cli.py").write_text("x = 2\n")
    assert read_checkout(tmp_path).revision == f"{clean.revision}-dirty"


def finished(checkout: Path, out: Path) -> dict[str, bytes]:
    packages = out / "usr/lib/kmesh/python"
    files = {
        "kubernetes/__init__.py": "from kubernetes.client import api\n",
        "kubernetes/client/__init__.py": "",
        "kubernetes/client/api.py": "names = {'b', 'a'} | frozenset({'x', 'y', 'z'})\n",
        "kubernetes/py.typed": "",
        "udpa/__init__.py": "",
        "udpa/type/v1/core_pb2.py": "name = 'core'\n",
        "pygments/__init__.py": "x = 1\n",
        "plain.py": "def f(kind):\n    return kind in {'one', 'two', 'three'}\n",
    }
    for name, text in files.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_text(text)
    subprocess.run([sys.executable, str(checkout / "images" / "finish.py"), str(out)], check=True)
    found = (path for path in sorted(out.rglob("*")) if path.is_file())
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


def test_byte_code_is_the_same_each_time_and_never_checked(checkout: Path, tmp_path: Path) -> None:
    one = finished(checkout, tmp_path / "one")
    two = finished(checkout, tmp_path / "two")
    assert one == two
    (code,) = (data for name, data in one.items() if "plain.cpython" in name)
    assert code[:4] == importlib.util.MAGIC_NUMBER
    assert struct.unpack("<I", code[4:8])[0] == 0b01  # PEP 552: a hash, and not checked


def test_packages_in_archives_are_found_and_import(checkout: Path, tmp_path: Path) -> None:
    made = finished(checkout, tmp_path)
    assert "usr/lib/kmesh/python/kubernetes/__init__.py" not in made
    (path,) = (data.decode() for name, data in made.items() if name.endswith("kmesh.pth"))
    assert path.splitlines()[0] == "/usr/lib/kmesh/python"
    search = [f"{tmp_path}{line}" for line in path.splitlines()]
    code = "import kubernetes.client.api as a, pygments; print(sorted(a.names), a.__file__); "
    code += (
        "from udpa.type.v1 import core_pb2; print(core_pb2.name)"  # directories without __init__
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(search)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "['a', 'b', 'x', 'y', 'z']" in done.stdout
    assert "kubernetes.zip" in done.stdout
    assert done.stdout.endswith("core\n")


def test_a_file_of_a_tar_is_read_through_links(tmp_path: Path) -> None:
    from builder.tarball import read_member

    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("./usr/lib/os-release")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"ID=x"))
        link = tarfile.TarInfo("./etc/os-release")
        link.type, link.linkname = tarfile.SYMTYPE, "../usr/lib/os-release"
        tar.addfile(link)
        loop = tarfile.TarInfo("./loop")
        loop.type, loop.linkname = tarfile.SYMTYPE, "loop"
        tar.addfile(loop)
    assert read_member(tmp_path / "x.tar", ["etc/os-release"]) == b"ID=x"
    assert read_member(tmp_path / "x.tar", ["loop", "gone"]) is None
