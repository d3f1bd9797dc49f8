# SPDX-License-Identifier: Apache-2.0
"""Whether objects can be compiled on this host, for when none that is shipped loads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from runtime.errors import KmeshError
from runtime.objects.locate import sources_dir
from runtime.probe.capability import Context, capability
from runtime.probe.verdict import Evidence, Level, Verdict


@capability(
    "compile.online",
    title="compiling on this host (clang and libbpf's headers)",
    consequence="should no shipped object load, Kmesh cannot make one that does; nothing is lost"
    " while they load",
    remedy="use the generic image (kmesh), which carries clang and the sources",
)
def clang(context: Context) -> Iterator[Evidence]:
    if not context.live:
        return
    compiler = shutil.which("clang")
    if compiler is None:
        yield Evidence(level=Level.FACT, verdict=Verdict.ABSENT, summary="there is no clang here")
        return
    try:
        sources = sources_dir()
    except KmeshError as error:
        yield Evidence(level=Level.FACT, verdict=Verdict.ABSENT, summary=str(error))
        return
    summary = f"{compiler} and the sources in {sources}"
    yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=summary)


@capability(
    "compile.bcc",
    title="the kernel's structures looked up in its headers, through bcc",
    consequence="this kernel has no BTF, and its structures cannot be looked up in headers either:"
    " programs that read them cannot be loaded",
    remedy="install the distribution's bcc for Python (Debian: python3-bpfcc) and the kernel's"
    " headers (Debian: linux-headers-$(uname -r)), or use a kernel with BTF",
)
def bcc(context: Context) -> Iterator[Evidence]:
    found = context.stand_in
    if found is None:  # there is BTF, or nothing reads any field
        return
    if found.path is None:
        yield Evidence(
            level=Level.FACT, verdict=Verdict.ABSENT, summary=found.why_not, remedy=found.remedy
        )
        return
    lost = f"; not in them: {', '.join(found.missing)}" if found.missing else ""
    summary = f"read from the headers in {found.where}, kept in {found.path}{lost}"
    yield Evidence(level=Level.FACT, verdict=Verdict.PRESENT, summary=summary)
