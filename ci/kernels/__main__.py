# SPDX-License-Identifier: Apache-2.0
"""Fetch the listed kernels and write the evidence that verdicts about them need.

    python -m ci.kernels [DIRECTORY]

The evidence is kept in the repository, so that images and tests judge these kernels offline.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from ci.kernels.debian import fetch, wanted
from ci.kernels.image import btf_of
from ci.kernels.subset import needed_for_verdicts, subset
from runtime.errors import KmeshError

_OPTIONS = re.compile(
    r"^# Linux/|^(# )?CONFIG_(BPF|CGROUP|DEBUG_INFO_BTF|HAVE_EBPF|INET|IPV6|JUMP_LABEL|KALLSYMS|KPROBE|"
    r"FTRACE|LSM|NET_|NETFILTER|NAMESPACES|SECURITY|SOCK_|STREAM_PARSER|TLS|IKHEADERS|IKCONFIG)"
)


def reduced_config(text: str) -> str:
    """The lines of a kernel configuration that decide what a mesh can do, and its version."""
    return "".join(line for line in text.splitlines(keepends=True) if _OPTIONS.match(line))


def main() -> int:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "builder/data/kernels")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        for kernel in fetch(wanted()):
            evidence = subset(btf_of(kernel.image), needed_for_verdicts)
            (directory / f"{kernel.release}.btf").write_bytes(evidence)
            config = reduced_config(kernel.config.read_text())
            (directory / f"{kernel.release}.config").write_text(config)
            print(f"{kernel.release}: {len(evidence)} bytes of BTF, {config.count('=')} options")
    except KmeshError as error:
        print(
            f"kernels: {error}" + (f"\n  hint: {error.hint}" if error.hint else ""), file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
