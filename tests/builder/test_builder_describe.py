# SPDX-License-Identifier: Apache-2.0
"""What is told about an image: bill of materials, provenance, tables, verdicts about known kernels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from builder import kernels
from builder.bases import DEBIAN, OPENEULER, Wish, choose
from builder.checkout import Checkout
from builder.engine import RunResult
from builder.kernels import KernelVerdict
from builder.objects import ObjectFile
from builder.prepared import PreparedBase
from builder.provenance import BuildFacts, statement
from builder.recipes import recipe
from builder.report import COLUMNS, megabytes, rows, to_json
from builder.request import ImageResult, LayerSize
from builder.sbom import Contents, SystemPackage, parse_rpm, write_sbom
from builder.smoke import docker_run_line, judge_probe
from builder.templates import BaseView
from builder.wheels import PythonPackage
from runtime.objects.info import ObjectInfo

CHECKOUT = Checkout(Path(), "1.2.3", "c0ffee", 1_700_000_000)
IMAGE_ID = "sha256:" + "ab" * 32


@pytest.fixture
def contents(tmp_path: Path) -> Contents:
    path = tmp_path / "connect4.bpf.o"
    path.write_bytes(b"object")
    info = ObjectInfo(
        path=path,
        size=6,
        sha256="2958d416d08aa5a472d7b509036cb7eabd542eafec0d8a4e8d8a5bb6e7cb8d4e",
        arch="bpfel",
        license="GPL",
        has_btf=True,
        has_btf_ext=True,
        programs=(),
        maps=(),
        kfuncs=(),
        core_fields=(),
    )
    return Contents(
        system=[SystemPackage("libstdc++6", "12.2.0-14+deb12u1", "amd64", "deb", "debian")],
        python=[
            PythonPackage("typing_extensions", "4.1", "PSF-2.0"),
            PythonPackage("two", "1", "MIT AND BSD-3-Clause"),
            PythonPackage("none", "1", ""),
            PythonPackage("odd", "1", "see the file LICENSE, or ask"),
        ],
        objects=[ObjectFile("compat/connect4.bpf.o", path, info, loaded=True)],
    )


def bill(target: Path, contents: Contents) -> Path:
    write_sbom(target, name="kmesh", image_id=IMAGE_ID, checkout=CHECKOUT, contents=contents)
    return target


def test_a_bill_of_materials_is_valid_spdx(tmp_path: Path, contents: Contents) -> None:
    document = parse_file(str(bill(tmp_path / "a.spdx.json", contents)))
    assert validate_full_spdx_document(document) == []
    names = {package.name for package in document.packages}
    assert names == {
        "kmesh",
        "libstdc++6",
        "typing_extensions",
        "two",
        "none",
        "odd",
        "kmesh-bpf-objects",
    }
    assert document.files[0].name == "./usr/lib/kmesh/bpf/compat/connect4.bpf.o"


def test_packages_have_urls_that_scanners_know(tmp_path: Path, contents: Contents) -> None:
    data = json.loads(bill(tmp_path / "a.spdx.json", contents).read_text())
    urls = {
        reference["referenceLocator"]
        for package in data["packages"]
        for reference in package.get("externalRefs", [])
    }
    assert "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64" in urls
    assert "pkg:pypi/typing-extensions@4.1" in urls


def test_a_licence_that_is_no_expression_is_not_asserted(
    tmp_path: Path, contents: Contents
) -> None:
    data = json.loads(bill(tmp_path / "a.spdx.json", contents).read_text())
    licences = {package["name"]: package.get("licenseDeclared") for package in data["packages"]}
    assert licences["typing_extensions"] == "PSF-2.0"
    assert licences["two"] == "MIT AND BSD-3-Clause"
    assert licences["none"] == "NOASSERTION"
    assert licences["odd"] == "NOASSERTION"


def test_the_same_image_has_the_same_bill(tmp_path: Path, contents: Contents) -> None:
    one, two = bill(tmp_path / "a.spdx.json", contents), bill(tmp_path / "b.spdx.json", contents)
    assert one.read_bytes() == two.read_bytes()


def test_rpm_packages_are_read() -> None:
    (found,) = parse_rpm("libbpf\t1.2.2-1.oe2403\tx86_64\n", "openEuler")
    assert found.purl == "pkg:rpm/openeuler/libbpf@1.2.2-1.oe2403?arch=x86_64"


def facts() -> BuildFacts:
    choice = choose(DEBIAN, Wish(), reachable=False)
    base = PreparedBase(
        choice,
        BaseView("sha256:00", "", ()),
        (),
        "sha256:00",
        "none",
        command=("mmdebstrap", "--variant=essential"),
        inputs=("libc6_2.36_amd64.deb SHA256:11",),
    )
    return BuildFacts(
        "hub/kmesh:1",
        IMAGE_ID,
        "key",
        base,
        {"python": "22"},
        "FROM x\n",
        "clang 14",
        "Docker 20",
        (),
    )


def test_provenance_names_inputs_commands_and_tools() -> None:
    made = statement(CHECKOUT, facts())
    assert made["subject"] == [{"name": "hub/kmesh:1", "digest": {"sha256": "ab" * 32}}]
    definition = made["predicate"]["buildDefinition"]
    dependencies = {
        str(item.get("name", item.get("uri"))): item["digest"]
        for item in definition["resolvedDependencies"]
    }
    assert dependencies["libc6_2.36_amd64.deb"] == {"sha256": "11"}
    assert dependencies["python"] == {"sha256": "22"}
    assert {"gitCommit": "c0ffee"} in dependencies.values()
    assert definition["internalParameters"]["baseCommand"][0] == "mmdebstrap"
    tools = made["predicate"]["runDetails"]["builder"]["version"]
    assert tools["clang"] == "clang 14"
    assert tools["docker"] != "unknown"


def result() -> ImageResult:
    choice = choose(OPENEULER, Wish(), reachable=False)
    return ImageResult(
        image=recipe("enhanced"),
        reference="hub/kmesh-enhanced:1",
        id=IMAGE_ID,
        size=146_000_000,
        layers=(LayerSize("Debian base", 59_000_000), LayerSize("kmesh", 2_100_000)),
        base=choice.label,
        substitute=choice.substitute,
        reason=choice.reason,
        objects=4,
        seconds=12.34,
        state="built",
        kernels=(
            KernelVerdict("5.10.0-1", "none", "compat", ("no BTF",)),
            KernelVerdict("6.1.0-2", "compat", "enhanced", ()),
            KernelVerdict("6.12.1+deb13", "compat", "enhanced", ()),
        ),
    )


def test_the_table_says_what_a_user_must_not_miss() -> None:
    (row,) = rows([result()])
    cells = dict(zip(COLUMNS, row, strict=True))
    assert cells["Base"] == "Debian 12 (mmdebstrap), NOT openEuler 24.03"
    assert cells["Made of"] == "Debian base 59 MB + kmesh 2.1 MB"
    assert cells["Known kernels (judged by names)"] == (
        "none (kernel: compat): 5.10; compat (kernel: enhanced): 6.1, 6.12; none of openEuler is known"
    )
    assert cells["Digest"] == "ab" * 6


def test_json_has_all_of_it() -> None:
    data = to_json([result()], engine="Docker", seconds=1.25, probe={"mode": {}})
    data = json.loads(json.dumps(data))
    assert data["images"][0]["substitute"] is True
    assert data["images"][0]["kernels"][0]["reasons"] == ["no BTF"]
    assert data["images"][0]["kernels_judged_by"] == "names"
    assert data["probe"] == {"mode": {}}


def test_sizes_are_read_by_people() -> None:
    assert [megabytes(size) for size in (0, 2_140_000, 146_400_000)] == [
        "0.0 MB",
        "2.1 MB",
        "146 MB",
    ]


def test_known_kernels_are_judged_by_their_evidence(objects: Path) -> None:
    verdicts = kernels.judge_known(objects)
    releases = [".".join(verdict.release.split(".")[:2]) for verdict in verdicts]
    assert releases[:4] == ["5.10", "6.1", "6.12", "7.2"]
    assert {verdict.mode for verdict in verdicts} <= {"compat", "enhanced", "none"}
    assert verdicts[0].mode == "enhanced"


def test_each_image_is_told_what_it_runs_on() -> None:
    debian = (KernelVerdict("5.10.0-1", "compat", "compat", ("x",)),)
    both = (*debian, KernelVerdict("6.6.0-28.0.0.34.oe2403", "enhanced", "enhanced", ()))
    said = {
        name: kernels.summary(recipe(name), debian) for name in ("generic", "enhanced", "compile")
    }
    assert said == {
        "generic": "compat: 5.10",
        "enhanced": "compat: 5.10; none of openEuler is known",
        "compile": "runs on none: it compiles",
    }
    assert kernels.summary(recipe("enhanced"), both) == "compat: 5.10; enhanced: 6.6"
    assert kernels.kernels_of(recipe("compile"), both) == ()
    assert kernels.kernels_of(recipe("generic"), both) == both


def test_without_objects_no_known_kernel_is_promised_anything(tmp_path: Path) -> None:
    assert {verdict.mode for verdict in kernels.judge_known(tmp_path)} == {"none"}


@pytest.mark.parametrize(
    ("status", "stdout", "wrong"),
    [
        (0, '{"mode": {"mode": "compat"}}', None),
        (3, '{"mode": {"mode": "none"}}', None),
        (1, '{"mode": {"mode": "none"}}', "status 1"),
        (0, "{}", "no report"),
        (0, "Mode compat", "Expecting value"),
    ],
)
def test_a_prober_must_come_to_a_decision(status: int, stdout: str, wrong: str | None) -> None:
    outcome = RunResult(status, stdout, "")
    if wrong is None:
        judge_probe(outcome)
        return
    with pytest.raises(ValueError, match=wrong):
        judge_probe(outcome)


def test_the_command_by_hand_names_capabilities() -> None:
    line = docker_run_line("hub/kmesh:1")
    assert "--privileged" not in line
    assert "--cap-drop ALL --cap-add SYS_ADMIN --cap-add NET_ADMIN" in line
    assert "-v /etc/os-release:/host/etc/os-release:ro" in line
    assert line.endswith("hub/kmesh:1 probe")
