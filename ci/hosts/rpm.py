# SPDX-License-Identifier: Apache-2.0
"""A host's root as rpm distributions have it: packages made here, installed by dnf from a local repository.

What the packages hold is Debian's (the header) or made up (the os-release): it shows where things are
found, and what they are called.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from builder.cache import file_sha256
from runtime.process import run

RELEASE = "6.1.0-1.oe2403.x86_64"
OS = "openEuler24.03"
_HEADER = Path("/usr/include/linux/bpf.h")
_SPEC = f"""
Name: kernel-devel
Version: 6.1.0
Release: 1.oe2403
Summary: Headers, and whose they are
License: GPL-2.0-only
BuildArch: x86_64
%description
Headers.
%install
mkdir -p %{{buildroot}}/usr/src/kernels/{RELEASE}/include/uapi/linux %{{buildroot}}/lib/modules/{RELEASE}
cp %{{_sourcedir}}/bpf.h %{{buildroot}}/usr/src/kernels/{RELEASE}/include/uapi/linux/
ln -s /usr/src/kernels/{RELEASE} %{{buildroot}}/lib/modules/{RELEASE}/build
mkdir -p %{{buildroot}}/etc
printf 'ID=openEuler\\nVERSION_ID="24.03"\\n' > %{{buildroot}}/etc/os-release
%files
/usr/src/kernels
/lib/modules
/etc/os-release
"""
TOOLS = ("dnf", "rpmbuild", "createrepo_c")


def install(root: Path, *, scratch: Path) -> None:
    """Make the packages and their repository, and install them.

    Args:
        root: an empty directory.
        scratch: a directory for the repository.

    Raises:
        CommandError: a tool is missing, or failed.
    """
    repository, sources = scratch / "repository", scratch / "top/SOURCES"
    for place in (repository, sources):
        place.mkdir(parents=True)
    shutil.copy(_HEADER, sources)
    spec = scratch / "kernel-devel.spec"
    spec.write_text(_SPEC)
    defines = [f"--define=_topdir {scratch}/top", f"--define=_rpmdir {repository}"]
    run(["rpmbuild", "-bb", "--quiet", "--nodeps", *defines, str(spec)], timeout=300)
    run(["createrepo_c", "-q", str(repository)], timeout=300)
    run(
        [
            *("dnf", "-y", "-q", f"--installroot={root}", "--releasever=24.03", "--disablerepo=*"),
            *("--setopt=reposdir=/nowhere", f"--repofrompath=local,file://{repository}"),
            *("--enablerepo=local", "--nogpgcheck", "install", "kernel-devel"),
        ],
        timeout=300,
    )


def inputs() -> tuple[str, ...]:
    """What the root depends on."""
    return (_SPEC, file_sha256(_HEADER))
