# SPDX-License-Identifier: Apache-2.0
"""A tree of kernel headers small enough to write: a configuration, and what all share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

_KCONFIG = "#include <generated/autoconf.h>\ntypedef unsigned long long u64;\n"
_EMPTY = ("linux/tcp.h", "linux/skmsg.h", "linux/net.h", "linux/fs.h", "uapi/linux/bpf.h")
_POINTER, _STRUCT, _UNION = 5, 12, 13


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / "include" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "include" / name).write_text(text)
    return root


def build(root: Path, *, release: str, config: str = "") -> Path:
    """What configuring a kernel makes, as Debian has it in a directory of its own."""
    return write(
        root,
        {
            "generated/autoconf.h": config,
            "generated/utsrelease.h": f'#define UTS_RELEASE "{release}"\n',
            "linux/version.h": "#define LINUX_VERSION_CODE 66051\n",
        },
    )


def common(root: Path, *, sock: str) -> Path:
    """What all configurations share; `sock` is what net/sock.h says."""
    return write(
        root,
        {"linux/kconfig.h": _KCONFIG, "net/sock.h": sock, **dict.fromkeys(_EMPTY, "")},
    )


def declared(answers: Mapping[str, Sequence[int]]) -> str:
    """C that lays structures out as the answers say: what is between their fields is padding."""
    roots = sorted(path for path in answers if "." not in path)
    return "".join(
        f"struct {root} {_body(answers, root, base=0, size=answers[root][0])};\n" for root in roots
    )


def _body(answers: Mapping[str, Sequence[int]], path: str, *, base: int, size: int) -> str:
    # Each field in a struct of its own after its padding, all of them over one another.
    parts = [f"char whole[{size}];"]
    for member in _members(answers, path):
        offset, bytes_, kind, *_ = answers[member]
        name = member.rpartition(".")[2]
        pad = f"char before_{name}[{offset - base}]; " if offset > base else ""
        parts.append(
            f"struct {{ {pad}{_field(answers, member, kind, bytes_)} {name}; }} __attribute__((packed));"
        )
    return "{ union { " + " ".join(parts) + " }; }"


def _members(answers: Mapping[str, Sequence[int]], path: str) -> Iterable[str]:
    return sorted(member for member in answers if member.rpartition(".")[0] == path)


def _field(answers: Mapping[str, Sequence[int]], path: str, kind: int, size: int) -> str:
    if kind in (_STRUCT, _UNION):
        word = "struct" if kind == _STRUCT else "union"
        return f"{word} {_body(answers, path, base=answers[path][0], size=size)}"
    if kind == _POINTER:
        return "void *"
    return f"unsigned {({1: 'char', 2: 'short', 4: 'int', 8: 'long'})[size]}"
