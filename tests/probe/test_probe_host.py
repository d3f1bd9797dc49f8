# SPDX-License-Identifier: Apache-2.0
"""Facts, read from a host made of files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest

from runtime.probe import host
from runtime.probe.facts import Facts, offline_facts, running_facts


def write(root: Path, name: str, content: str | bytes) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


MOUNTS = "1 0 0:1 / {where} {options} shared:1 - {kind} none rw\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("cgroup2", "/sys/fs/cgroup", "rw")], ("v2", "/sys/fs/cgroup", True)),
        ([("cgroup2", "/sys/fs/cgroup", "ro,nosuid")], ("v2", "/sys/fs/cgroup", False)),
        (
            [("cgroup", "/sys/fs/cgroup/cpu", "rw"), ("cgroup2", "/sys/fs/cgroup/unified", "rw")],
            ("hybrid", "/sys/fs/cgroup/unified", True),
        ),
        ([("cgroup", "/sys/fs/cgroup/cpu", "rw")], ("v1", "", False)),
        ([], ("none", "", False)),
        ([("cgroup2", "/mnt/with\\040space", "rw")], ("v2", "/mnt/with space", True)),
    ],
)
def test_cgroup_layouts(
    tmp_path: Path, lines: list[tuple[str, str, str]], expected: tuple[str, str, bool]
) -> None:
    rows = [MOUNTS.format(kind=k, where=w, options=o) for k, w, o in lines]
    write(tmp_path, "proc/self/mountinfo", "".join(rows))
    assert host.cgroups(host.mounts(tmp_path)) == expected


def test_kconfig_places_and_forms(tmp_path: Path) -> None:
    text = 'CONFIG_BPF=y\n# CONFIG_X is not set\nCONFIG_NAME="a b"\nCONFIG_EMPTY=""\n\n'
    write(tmp_path, "boot/config-1.2", text)
    assert host.kconfig(tmp_path, "1.2") == (
        {"BPF": "y", "NAME": "a b", "EMPTY": ""},
        "/boot/config-1.2",
    )
    write(tmp_path, "proc/config.gz", gzip.compress(b"CONFIG_BPF=m\n"))
    assert host.kconfig(tmp_path, "1.2") == ({"BPF": "m"}, "/proc/config.gz")
    assert host.kconfig(tmp_path / "none", "1.2") == ({}, "")
    write(tmp_path, "proc/config.gz", gzip.compress(b"CONFIG_BPF=m\n")[:-9])
    assert host.kconfig(tmp_path, "1.2")[1] == "/boot/config-1.2"


def test_the_head_of_a_configuration_names_the_version(tmp_path: Path) -> None:
    head = "#\n# Automatically generated file; DO NOT EDIT.\n"
    head += "# Linux/x86 6.1.192 Kernel Configuration\n#\n"
    write(tmp_path, "config", head + "CONFIG_BPF=y\n")
    release = "6.1.0-56-cloud-amd64"
    facts = offline_facts(release=release, config=tmp_path / "config", btf=tmp_path)
    assert str(facts.upstream.version) == "6.1.192"
    assert not facts.upstream.backports
    other = offline_facts(release="6.6.0-9", config=tmp_path / "config", btf=tmp_path)
    assert str(other.upstream.version) == "6.6.0"


def test_options_are_yes_no_or_unknown() -> None:
    facts = Facts(release="1", kconfig={"A": "y"})
    assert (facts.option("A"), facts.option("B")) == ("y", "n")
    assert Facts(release="1").option("A") is None


@pytest.mark.parametrize(
    ("said", "command_line", "options", "expected"),
    [
        ("none [integrity] confidentiality\n", "", {}, "integrity"),
        ("[none] integrity confidentiality\n", "lockdown=integrity", {}, "none"),
        ("", "quiet lockdown=confidentiality", {}, "confidentiality"),
        ("", "", {"BPF": "y"}, "none"),
        ("", "", {"SECURITY_LOCKDOWN_LSM": "y", "LOCK_DOWN_KERNEL_FORCE_NONE": "y"}, "none"),
        (
            "",
            "",
            {"SECURITY_LOCKDOWN_LSM": "y", "LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY": "y"},
            "confidentiality",
        ),
        (
            "",
            "",
            {
                "SECURITY_LOCKDOWN_LSM": "y",
                "LOCK_DOWN_KERNEL_FORCE_NONE": "y",
                "LOCK_DOWN_IN_EFI_SECURE_BOOT": "y",
            },
            "unknown",
        ),
        ("", "", {}, "unknown"),
    ],
)
def test_lockdown(
    tmp_path: Path, said: str, command_line: str, options: dict[str, str], expected: str
) -> None:
    if said:
        write(tmp_path, "sys/kernel/security/lockdown", said)
    write(tmp_path, "proc/cmdline", command_line)
    assert host.lockdown(tmp_path, options) == expected


def test_build_id(tmp_path: Path) -> None:
    def note(name: bytes, kind: int, data: bytes) -> bytes:
        padded = [part + b"\0" * (-len(part) % 4) for part in (name, data)]
        return struct.pack("=III", len(name), len(data), kind) + b"".join(padded)

    notes = note(b"Xen\0", 6, b"abcde") + note(b"GNU\0", 3, bytes(range(20)))
    write(tmp_path, "sys/kernel/notes", notes)
    assert host.build_id(tmp_path) == bytes(range(20)).hex()
    write(tmp_path, "sys/kernel/notes", b"\xff" * 30)
    assert host.build_id(tmp_path) == ""
    assert host.build_id(tmp_path / "none") == ""


def test_capabilities_by_number() -> None:
    assert host.capabilities({"CapEff": f"{1 << 39 | 1 << 12:x}"}) == {"BPF", "NET_ADMIN"}
    assert host.capabilities({}) == frozenset()
    assert len(host.CAPABILITIES) == 41


def test_containers(tmp_path: Path) -> None:
    assert host.container(tmp_path, {}) == ""
    write(tmp_path, ".dockerenv", "")
    assert host.container(tmp_path, {}) == "docker"
    write(tmp_path, "run/.containerenv", "")
    assert host.container(tmp_path, {}) == "podman"
    assert host.container(tmp_path, {"KUBERNETES_SERVICE_HOST": "x"}) == "kubernetes"


def test_the_host_s_distribution_before_the_container_s(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", 'ID=debian\nPRETTY_NAME="Debian 12"\n')
    assert host.distribution(tmp_path)["ID"] == "debian"
    write(tmp_path, "host/etc/os-release", "ID=openEuler\n")
    assert host.distribution(tmp_path)["ID"] == "openEuler"
    assert host.distribution(tmp_path, inside=True)["ID"] == "openEuler"


@pytest.mark.parametrize("sign", ["docker", "podman", "kubernetes", "our image", ""])
def test_an_image_s_distribution_is_not_taken_for_the_host_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sign: str
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KMESH_IMAGE_DIGEST"):
        monkeypatch.delenv(name, raising=False)
    write(tmp_path, "etc/os-release", 'ID=debian\nPRETTY_NAME="Debian 12"\n')
    if sign in ("docker", "podman"):
        write(tmp_path, {"docker": ".dockerenv", "podman": "run/.containerenv"}[sign], "")
    elif sign:
        name = "KUBERNETES_SERVICE_HOST" if sign == "kubernetes" else "KMESH_IMAGE_DIGEST"
        monkeypatch.setenv(name, "x")
    facts = running_facts(tmp_path)
    assert facts.distribution == ("" if sign else "Debian 12")
    assert facts.distribution_id == ("" if sign else "debian")
    write(tmp_path, "host/etc/os-release", 'ID=suse\nPRETTY_NAME="SUSE 15"\n')
    assert running_facts(tmp_path).distribution == "SUSE 15"


def test_a_host_that_tells_nothing(tmp_path: Path) -> None:
    facts = running_facts(tmp_path)
    assert facts.release
    assert facts.cgroup == "none"
    assert facts.capabilities == frozenset()
    assert facts.btf_source == ""
    assert not facts.holds("BPF")


def test_a_user_namespace_makes_capabilities_count_for_nothing(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/status", "CapEff:\t000001ffffffffff\nSeccomp:\t2\n")
    write(tmp_path, "proc/self/uid_map", "         0          0 4294967295\n")
    facts = running_facts(tmp_path)
    assert facts.holds("BPF")
    assert facts.seccomp == 2
    write(tmp_path, "proc/self/uid_map", "         0       1000          1\n")
    assert not running_facts(tmp_path).holds("BPF")


def test_bpffs_in_its_usual_place_first(tmp_path: Path) -> None:
    rows = [
        MOUNTS.format(kind="bpf", where=where, options="rw")
        for where in ("/run/other", "/sys/fs/bpf")
    ]
    write(tmp_path, "proc/self/mountinfo", "".join(rows))
    assert running_facts(tmp_path).bpffs == "/sys/fs/bpf"
    write(tmp_path, "proc/self/mountinfo", rows[0])
    assert running_facts(tmp_path).bpffs == "/run/other"


def test_offline_facts_say_nothing_of_a_process(tmp_path: Path) -> None:
    write(tmp_path, "config", "CONFIG_BPF=y\n")
    facts = offline_facts(release="6.1.5", config=tmp_path / "config", btf=tmp_path / "btf")
    assert facts.capabilities is None
    assert not facts.holds("BPF")
    assert str(facts.upstream.version) == "6.1.5"
    assert facts.to_json()["capabilities"] is None
