# SPDX-License-Identifier: Apache-2.0
"""Objects for exactly one kernel: the best evidence is taken, the result is checked, failures have a type."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from builder.cli import kmesh_build
from builder.host.evidence import Target, find_evidence, this_host
from builder.host.image import reference
from builder.host.make import Made, make_for
from builder.host.package import PackageFacts
from builder.host.reasons import HostError, Reason
from builder.kernels import DATA
from runtime.compile.evidence import Kind, header_places
from runtime.compile.numbers import (
    LIBBPF,
    numbers_of_btf,
    numbers_of_header,
    own_headers,
    shifted,
)
from runtime.objects.inspect import inspect_object

BTF = next(path for path in sorted(DATA.glob("*.btf")) if path.name.startswith("6.1."))
DEFINITIONS = (LIBBPF / "bpf_helper_defs.h").read_text()
pytestmark = pytest.mark.skipif(not shutil.which("clang"), reason="needs clang")


def uapi(**moved: int) -> str:
    """A kernel's bpf.h, some of whose helpers have other numbers than upstream's."""
    numbers = {**numbers_of_btf(BTF), **moved}
    ordered = sorted(numbers.items(), key=lambda item: item[1])
    lines = "".join(f"\tFN({name}, {number}, ##ctx)\t\t\t\\\n" for name, number in ordered)
    return f"#define ___BPF_FUNC_MAPPER(FN, ctx...)\t\t\t\\\n{lines}\t/* */\n"


def with_headers(root: Path, **moved: int) -> None:
    """What a kernel's devel package leaves in a root, as far as it matters."""
    header = root / "usr/src/kernels/6.1.0/include/uapi/linux/bpf.h"
    header.parent.mkdir(parents=True)
    header.write_text(uapi(**moved))


def target(**change: Any) -> Target:
    facts: dict[str, Any] = {"release": "6.1.0", "machine": "x86_64", "os": "x", "running": False}
    return Target(**{**facts, **change})


Make = Callable[..., Made]


@pytest.fixture
def make(tmp_path: Path, checkout: Path) -> Make:
    def one(wanted: Target, *, prebuilt: Path | None = None, root: Path = tmp_path) -> Made:
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        return make_for(
            wanted,
            sources=checkout / "bpf",
            prebuilt=prebuilt,
            out=tmp_path / "made",
            scratch=scratch,
            say=lambda _: None,
            root=root,
        )

    return one


# Helper numbers.


def test_both_forms_of_the_kernels_header_are_read() -> None:
    old = "#define __BPF_FUNC_MAPPER(FN)\t\\\n\tFN(unspec),\t\\\n\tFN(map_lookup_elem),\t\\\n\t/* */\n"
    assert numbers_of_header(old) == {"unspec": 0, "map_lookup_elem": 1}
    assert numbers_of_header(uapi()) == numbers_of_btf(BTF)
    assert numbers_of_header("int x;") == {}


def test_upstream_kernels_shift_nothing(tmp_path: Path) -> None:
    for known in DATA.glob("*.btf"):
        assert own_headers(numbers_of_btf(known), tmp_path / "headers") == {}
    assert not (tmp_path / "headers").exists()


def test_a_vendors_numbers_go_into_the_object(make: Make, tmp_path: Path) -> None:
    with_headers(tmp_path, get_netns_cookie=900)
    made = make(target())
    assert made.evidence.kind is Kind.HEADERS
    assert made.renumbered == {"get_netns_cookie": 900}
    used = {
        helper.id
        for item in made.objects
        for program in inspect_object(item.path).programs
        for helper in program.helpers
    }
    assert 900 in used
    assert 122 not in used  # upstream's get_netns_cookie
    assert shifted({"get_netns_cookie": 900}, DEFINITIONS) == {"get_netns_cookie": 900}


# Evidence.


def test_better_evidence_comes_first(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    with tarfile.open(tmp_path / "sys/kernel/kheaders.tar.xz", "w:xz") as archive:
        text = uapi().encode()
        member = tarfile.TarInfo("./include/uapi/linux/bpf.h")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    source = tmp_path / "usr/src/linux-headers-6.1.0/include/uapi/linux"
    source.mkdir(parents=True)
    (source / "bpf.h").write_text(uapi())
    wanted = target(running=True, btf=BTF)
    kinds = [each.kind for each in find_evidence(wanted, root=tmp_path)]
    assert kinds == [Kind.BTF, Kind.KHEADERS, Kind.HEADERS, Kind.PACKAGED]
    other = [each.kind for each in find_evidence(target(), root=tmp_path)]
    assert other == [Kind.HEADERS, Kind.PACKAGED]  # kheaders are the running kernel's


def test_debians_shared_headers_are_found_through_the_makefile(tmp_path: Path) -> None:
    flavour = tmp_path / "usr/src/linux-headers-6.1.0-1-amd64"
    common = tmp_path / "usr/src/linux-headers-6.1.0-1-common"
    for place in (flavour, common):
        place.mkdir(parents=True)
    (flavour / "Makefile").write_text("include /usr/src/linux-headers-6.1.0-1-common/Makefile\n")
    modules = tmp_path / "lib/modules/6.1.0-1-amd64"
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/usr/src/linux-headers-6.1.0-1-amd64")
    found = list(header_places("6.1.0-1-amd64", root=tmp_path))
    assert flavour in found
    assert common in found


def test_another_kernel_gets_nothing_of_this_one() -> None:
    assert this_host(release="1.2.3").btf is None
    assert not this_host(release="1.2.3").running
    assert this_host().running


# What is made.


def test_prebuilt_objects_that_do_are_taken_as_they_are(make: Make, objects: Path) -> None:
    made = make(target(btf=BTF, release=BTF.stem), prebuilt=objects)
    assert made.evidence.kind is Kind.PREBUILT
    assert made.judgement.how == "names"
    assert "compat" in made.judgement.paths
    assert made.tried == ()


def test_of_a_kernel_of_which_nothing_is_known_headers_decide(
    make: Make, objects: Path, tmp_path: Path
) -> None:
    with_headers(tmp_path)
    made = make(target(), prebuilt=objects)
    assert made.evidence.kind is Kind.HEADERS
    assert made.judgement.how == "unverified"
    assert made.tried


def test_of_a_kernel_of_which_nothing_is_known_nothing_is_made(
    make: Make, objects: Path, tmp_path: Path
) -> None:
    (tmp_path / "usr/src/kernels/6.1.0/include/uapi/linux").mkdir(parents=True)
    (tmp_path / "usr/src/kernels/6.1.0/include/uapi/linux/bpf.h").write_text("/* no numbers */\n")
    for prebuilt in (objects, None):
        with pytest.raises(HostError) as raised:
            make(target(), prebuilt=prebuilt)
        assert raised.value.reason is Reason.NO_EVIDENCE
        assert "--btf FILE" in (raised.value.hint or "")
        assert "/lib/modules/6.1.0/build" in (raised.value.hint or "")


def test_a_running_kernel_that_may_not_be_asked_and_shows_nothing_gets_nothing(
    make: Make, objects: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builder.host.judge._is_denied", lambda *_: True)
    with pytest.raises(HostError) as raised:
        make(target(running=True), prebuilt=objects)
    assert raised.value.reason is Reason.NO_EVIDENCE
    assert "--btf FILE" not in (raised.value.hint or ""), "that is for other kernels"


@pytest.mark.root
def test_the_running_kernel_is_asked(make: Make, objects: Path) -> None:
    made = make(this_host(), prebuilt=objects, root=Path("/"))
    assert made.judgement.how in ("loaded", "names")
    assert "compat" in made.judgement.paths


def test_a_kernel_that_lacks_what_is_needed_is_refused_by_name(
    make: Make, objects: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    text = BTF.with_suffix(".config").read_text()
    config.write_text(text.replace("CONFIG_CGROUP_BPF=y", "# CONFIG_CGROUP_BPF is not set"))
    with pytest.raises(HostError) as raised:
        make(target(btf=BTF, config=config), prebuilt=objects)
    assert raised.value.reason is Reason.KERNEL_LACKS
    assert "CGROUP_BPF" in str(raised.value)
    assert raised.value.hint


def test_what_is_no_btf_is_bad_evidence(make: Make, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"\0" * 64)
    with pytest.raises(HostError) as raised:
        make(target(btf=junk))
    assert raised.value.reason is Reason.BAD_EVIDENCE


def test_without_a_compiler_it_says_what_to_install(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from runtime.compile.clang import compiler_version

    with_headers(tmp_path)
    compiler_version.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    try:
        with pytest.raises(HostError) as raised:
            make(target())
    finally:
        compiler_version.cache_clear()
    assert raised.value.reason is Reason.NO_COMPILER
    assert "clang" in (raised.value.hint or "")


def test_sources_that_do_not_compile_are_said_to_be_that(make: Make, tmp_path: Path) -> None:
    with_headers(tmp_path)
    sources = tmp_path / "sources/compat"
    sources.mkdir(parents=True)
    (sources / "bad.bpf.c").write_text("int x = ;\n")
    with pytest.raises(HostError) as raised:
        make_for(
            target(),
            sources=sources.parent,
            prebuilt=None,
            out=tmp_path / "made",
            scratch=tmp_path,
            say=lambda _: None,
            root=tmp_path,
        )
    assert raised.value.reason is Reason.DOES_NOT_COMPILE
    assert "bad.bpf.c" in str(raised.value)


# The command, and what it leaves.


def run(*arguments: str) -> Result:
    return CliRunner().invoke(kmesh_build, ["host", *arguments])


def test_everything_is_in_out_and_hangs_together(tmp_path: Path, objects: Path) -> None:
    out = tmp_path / "out"
    done = run(
        *("--out", str(out), "--target-kernel", BTF.stem, "--btf", str(BTF)),
        *("--no-image", "--deb", "--rpm", "--output", "json"),
    )
    assert done.exit_code == 0, done.output
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["kernel"]["release"] == BTF.stem
    assert manifest["verified"] == {
        "how": "names",
        "paths": ["enhanced", "compat"],
        "not": manifest["verified"]["not"],
    }
    assert manifest["compiler"]
    assert "-O2" in manifest["flags"]
    for item in manifest["objects"]:
        assert inspect_object(out / item["path"]).sha256 == item["sha256"]
    assert json.loads((out / "sbom.spdx.json").read_text())["spdxVersion"] == "SPDX-2.3"
    assert not (out / "failure.json").exists()
    assert len(manifest["packages"]) == 2


def test_a_failure_leaves_its_type_and_its_own_status(tmp_path: Path) -> None:
    out, junk = tmp_path / "out", tmp_path / "junk"
    junk.write_bytes(b"\0" * 64)
    done = run(
        "--out", str(out), "--target-kernel", "x", "--btf", str(junk), "--fresh", "--no-image"
    )
    assert done.exit_code == Reason.BAD_EVIDENCE.status
    assert json.loads((out / "failure.json").read_text())["reason"] == "bad-evidence"
    assert not (out / "manifest.json").exists()


def test_a_kernel_that_nobody_knows_is_refused_with_what_to_give(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("--out", str(out), "--target-kernel", "9.9.9", "--no-image")
    assert done.exit_code == Reason.NO_EVIDENCE.status
    assert "--btf FILE" in done.output
    told = json.loads((out / "failure.json").read_text())
    assert told["reason"] == "no-evidence"
    assert "9.9.9" in told["message"]
    assert [path.name for path in out.iterdir()] == ["failure.json"]


def test_a_failure_takes_the_result_of_an_earlier_run_away(tmp_path: Path) -> None:
    out, junk = tmp_path / "out", tmp_path / "junk"
    out.mkdir()
    junk.write_bytes(b"\0" * 64)
    (out / "manifest.json").write_text("{}")
    run("--out", str(out), "--target-kernel", "x", "--btf", str(junk), "--fresh")
    assert not (out / "manifest.json").exists()


def test_out_that_cannot_be_written_is_said_first(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = run("--out", str(file / "below"), "--no-image")
    assert done.exit_code == Reason.OUT_NOT_WRITABLE.status


@pytest.mark.skipif(
    Path("/usr/share/kmesh").exists(), reason="this is the compile image, which can make one"
)
def test_an_image_is_made_in_the_compile_image_alone(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--target-kernel", BTF.stem, "--btf", str(BTF))
    assert done.exit_code == Reason.NO_IMAGE.status
    assert "--no-image" in done.output


def test_the_images_name_has_os_and_kernel_in_a_tags_characters() -> None:
    wanted = target(release="6.12.117+deb13-cloud-amd64", os="debian13")
    assert (
        reference(wanted, hub="h/x/", tag="v1")
        == "h/x/kmesh:v1-debian13-6.12.117_deb13-cloud-amd64"
    )
    assert len(reference(target(release="r" * 300), hub="h", tag="t").partition(":")[2]) == 128


# Packages.


@pytest.fixture
def packages(tmp_path: Path, objects: Path) -> Path:
    out = tmp_path / "packages"
    arguments = ("--target-kernel", BTF.stem, "--btf", str(BTF), "--no-image", "--deb", "--rpm")
    assert run("--out", str(out), *arguments).exit_code == 0
    return out


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_dpkg_unpacks_the_deb_to_where_kmesh_looks(packages: Path, tmp_path: Path) -> None:
    [deb] = packages.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(deb), str(tmp_path / "root")], check=True)
    place = tmp_path / f"root/usr/lib/kmesh/kernels/{BTF.stem}"
    assert (place / "manifest.json").is_file()
    assert list(place.glob("compat/*.bpf.o"))


@pytest.mark.skipif(not shutil.which("rpm"), reason="needs rpm")
@pytest.mark.root
def test_rpm_checks_installs_and_verifies_the_rpm(packages: Path, tmp_path: Path) -> None:
    [package] = packages.glob("*.rpm")
    checked = subprocess.run(
        ["rpm", "-K", str(package)], capture_output=True, text=True, check=True
    )
    assert "digests OK" in checked.stdout
    root = tmp_path / "root"
    root.mkdir()
    base = ["rpm", "--root", str(root)]
    subprocess.run([*base, "-i", "--nodeps", str(package)], check=True, capture_output=True)
    place = root / f"usr/lib/kmesh/kernels/{BTF.stem}"
    assert list(place.glob("compat/*.bpf.o"))
    name = PackageFacts.of(release=BTF.stem, machine="x86_64", version="0").name
    subprocess.run([*base, "-V", name], check=True)
    (place / "manifest.json").write_text("{}")
    spoiled = subprocess.run([*base, "-V", name], check=False, capture_output=True, text=True)
    assert "manifest.json" in spoiled.stdout
