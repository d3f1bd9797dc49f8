# SPDX-License-Identifier: Apache-2.0
"""Known bugs by version: each row at its edges, and how vendors write versions."""

from __future__ import annotations

import pytest
from packaging.version import Version

from runtime.probe.bugs import KNOWN, avoided, hits
from runtime.probe.kernelrelease import KernelRelease, parse_release

BUGS = {bug.name: bug for bug in KNOWN}
# First fixed releases, from FACTS of the project: an affected one before, a mended one after each.
FIXED = {
    "CVE-2026-68284": "5.10.265 5.15.216 6.1.183 6.6.148 6.12.101 6.18.42 7.1.6",
    "CVE-2024-56720": "5.10.231 5.15.174 6.1.120 6.6.64 6.12.2",
    "CVE-2025-38154": "5.15.186 6.1.142 6.6.94 6.12.34 6.15.3",
    "CVE-2024-56664": "5.10.236 5.15.180 6.1.125 6.6.67 6.12.6",
}


def named(release: str, *, version: str = "", overrides: frozenset[str] = frozenset()) -> set[str]:
    found = hits(parse_release(release, version=version), overrides=overrides)
    return {hit.bug.name for hit in found}


@pytest.mark.parametrize(
    ("name", "fixed"), [(name, item) for name, row in FIXED.items() for item in row.split()]
)
def test_first_fixed_in(name: str, fixed: str) -> None:
    major, minor, patch = (int(part) for part in fixed.split("."))
    assert name in named(f"{major}.{minor}.{patch - 1}")
    assert name in named(f"{major}.{minor}.0")
    assert name not in named(fixed)
    assert name not in named(f"{major}.{minor}.{patch + 1}")


@pytest.mark.parametrize(("name", "row"), FIXED.items())
def test_branches_that_never_got_the_fix(name: str, row: str) -> None:
    releases = row.split()
    first, last = Version(releases[0]), Version(releases[-1])
    assert name in named("5.4.300")  # older than the first that was mended
    assert name in named(f"{first.major}.{first.minor + 1}.999")  # ended before
    assert name not in named(f"{last.major}.{last.minor + 1}.0")  # has it from its start
    assert name not in named("7.2.0")


def test_every_memory_safety_bug_avoids_something() -> None:
    for name in FIXED:
        assert BUGS[name].avoids
        assert not BUGS[name].tested_by


@pytest.mark.parametrize(
    ("release", "affected"),
    [
        ("6.6.127", False),
        ("6.6.128", True),
        ("6.12.74", False),
        ("6.12.107", True),
        ("6.18.13", False),
        ("6.18.44", True),
        ("6.19.0", True),
        ("7.2.13", False),
    ],
)
def test_fionread(release: str, *, affected: bool) -> None:
    assert ("sockmap-fionread" in named(release)) is affected


@pytest.mark.parametrize(
    ("release", "affected"), [("5.10.200", True), ("6.1.100", True), ("6.12.1", False)]
)
def test_fionread_of_redirected_data(release: str, *, affected: bool) -> None:
    assert ("sockmap-fionread-ingress" in named(release)) is affected


def test_trying_beats_versions_where_trying_is_harmless() -> None:
    release = KernelRelease(Version("6.18.30"))
    tested = {hit.bug.name for hit in hits(release, tested=["sockmap.fionread", "sockmap.ingress"])}
    assert "sockmap-fionread" not in tested
    assert "CVE-2026-68284" in tested


def test_an_overruled_bug_is_told_and_avoids_nothing() -> None:
    release = parse_release("5.10.1")
    names = frozenset(FIXED)
    assert avoided(hits(release)) >= {"sockmap.ingress", "sockmap.cork"}
    found = hits(release, overrides=names)
    assert {hit.bug.name for hit in found if hit.overruled} == names
    assert avoided(found) == frozenset()


def test_remedy_names_the_fix_of_the_own_branch() -> None:
    (hit,) = [h for h in hits(parse_release("6.1.90")) if h.bug.name == "CVE-2024-56720"]
    assert "6.1.120" in hit.remedy
    assert "--ignore-bug CVE-2024-56720" in hit.remedy


def test_remedy_of_a_branch_without_a_fix_names_the_next_one() -> None:
    (hit,) = [h for h in hits(parse_release("5.10.90")) if h.bug.name == "CVE-2025-38154"]
    assert "5.15.186" in hit.remedy


@pytest.mark.parametrize(
    ("release", "version", "signature", "expected", "vendor", "backports"),
    [
        ("6.18.44-fc-v669", "#1 SMP", "", "6.18.44", "", False),
        (
            "6.1.0-18-cloud-amd64",
            "#1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 (2024-02-01)",
            "",
            "6.1.76",
            "Debian",
            False,
        ),
        ("6.1.0-18-amd64", "", "", "6.1.0", "", True),
        (
            "5.15.0-91-generic",
            "#101-Ubuntu SMP",
            "Ubuntu 5.15.0-91.101-generic 5.15.131",
            "5.15.131",
            "Ubuntu",
            False,
        ),
        ("5.15.0-91-generic", "#101-Ubuntu SMP", "", "5.15.0", "Ubuntu", True),
        ("6.6.0-28.0.0.34.oe2403.x86_64", "", "", "6.6.0", "openEuler", True),
        ("5.14.0-362.8.1.el9_3.x86_64", "", "", "5.14.0", "RHEL", True),
        ("6.1.61-85.141.amzn2023.x86_64", "", "", "6.1.61", "Amazon Linux", True),
        ("5.14.21-150500.55.44-default", "", "", "5.14.21", "SUSE", True),
        ("7.2-rc3", "", "", "7.2", "", False),
        ("nonsense", "", "", "", "", False),
        ("", "", "", "", "", False),
    ],
)
def test_releases_as_vendors_write_them(
    release: str, version: str, signature: str, expected: str, vendor: str, *, backports: bool
) -> None:
    parsed = parse_release(release, version=version, signature=signature)
    assert str(parsed.version or "") == expected
    assert (parsed.vendor, parsed.backports) == (vendor, backports)


def test_no_version_no_hits() -> None:
    assert named("nonsense") == set()


def test_debian_is_judged_by_its_own_version() -> None:
    assert "CVE-2024-56720" in named("6.1.0-18-amd64", version="Debian 6.1.76-1")
    assert "CVE-2024-56720" not in named("6.1.0-29-amd64", version="Debian 6.1.123-1")
