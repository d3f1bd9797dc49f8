# SPDX-License-Identifier: Apache-2.0
"""What stands in for the kernel's BTF where there is none: the fields that objects read, from headers.

bcc says where this kernel's headers put exactly those fields, and they are written as BTF, which
libbpf relocates the shipped objects against. That is kept under a key like that of the verdicts, for
compiling takes seconds. Bit fields and arrays are not had this way; nor is anything but fields, so
that helpers and kfuncs stay unchecked by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from runtime.bpf.btf_encode import Integer, Pointer, Structure, Type, encode
from runtime.probe import cache
from runtime.probe.facts import Facts
from runtime.version import package_version

# As runtime/control/rundir.py removes them.
_KEPT, _BLOB = "fields-cache.json", "fields-cache.json-{}.btf"
_LAST_INTEGER, _POINTER, _STRUCT, _UNION = 4, 5, 12, 13  # __builtin_classify_type()
_POINTER_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """BTF made of headers, or why there is none.

    Attributes:
        path: the BTF, None when there is none.
        where: the headers.
        missing: which of the fields wanted they do not have.
        why_not: why there is none.
        remedy: what would mend that.
    """

    path: Path | None = None
    where: str = ""
    missing: tuple[str, ...] = ()
    why_not: str = ""
    remedy: str = ""

    @property
    def identity(self) -> str:
        """Differs wherever what is known differs."""
        digest = hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path else ""
        return f"{digest} {self.where} {self.missing} {self.why_not}"


def stand_in(facts: Facts, wanted: Iterable[str], *, believe: bool = True) -> StandIn:
    """Make BTF of the running kernel's headers, or take that which was kept.

    Args:
        facts: of the running kernel.
        wanted: "struct.field.field", as CO-RE relocations name them.
        believe: take what was kept.
    """
    # Where there is BTF, which is nearly everywhere, this is not needed.
    from runtime.probe import bcc_adapter

    fields = sorted(set(wanted))
    found = bcc_adapter.headers(facts.release)
    why_not = bcc_adapter.unavailable(facts.release)
    if why_not is not None or found is None:
        reason, remedy = why_not or ("", "")
        return StandIn(why_not=reason, remedy=remedy)
    key = _key(facts, fields, str(found))
    if believe and (kept := _kept(key)) is not None:
        return kept
    try:
        values, missing = bcc_adapter.constants(questions(fields), found=found)
    except bcc_adapter.HeadersError as error:
        return StandIn(where=str(found), why_not=str(error), remedy=error.hint or "")
    found_there, odd = layout(values)
    unknown = {*missing, *odd}
    lost = tuple(name for name in fields if not unknown.isdisjoint(_prefixes(name)))
    return _keep(key, encode(found_there), where=str(found), missing=lost)


def _prefixes(field: str) -> list[str]:
    """The structure, and each field on the way: a, a.b, a.b.c."""
    parts = field.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def questions(fields: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """What to ask about structures, and about the fields on the way: size; or offset, size, class, sign."""
    paths = sorted({path for name in fields for path in _prefixes(name)})
    return {path: _question(*path.split(".", 1)) for path in paths}


def _question(root: str, field: str = "") -> tuple[str, ...]:
    if not field:
        return (f"sizeof(struct {root})",)
    value = f"((struct {root} *)0)->{field}"
    kind = f"__builtin_classify_type({value})"
    integer = f"__typeof__(__builtin_choose_expr({kind} <= {_LAST_INTEGER}, {value}, 0))"
    return (
        f"__builtin_offsetof(struct {root}, {field})",
        f"sizeof({value})",
        kind,
        f"(({integer})-1 < ({integer})1)",
    )


def layout(answers: Mapping[str, Sequence[int]]) -> tuple[list[Structure], list[str]]:
    """Structures made of the answers, and the fields that are of a kind that is not had this way."""
    odd: list[str] = []
    roots = [path for path in sorted(answers) if "." not in path]
    found = [_structure(answers, root, odd, name=root, size=answers[root][0]) for root in roots]
    return found, odd


def _structure(
    answers: Mapping[str, Sequence[int]],
    path: str,
    odd: list[str],
    *,
    size: int,
    name: str = "",
    base: int = 0,
    union: bool = False,
) -> Structure:
    members: list[tuple[str, int, Type]] = []
    for member in sorted(answers):
        parent, _, last = member.rpartition(".")
        if parent != path:
            continue
        offset, bytes_, kind, signed = answers[member]
        made: Type | None = None
        if kind in (_STRUCT, _UNION):
            made = _structure(answers, member, odd, size=bytes_, base=offset, union=kind == _UNION)
        elif kind == _POINTER and bytes_ == _POINTER_SIZE:
            made = Pointer()
        elif 0 < kind <= _LAST_INTEGER:
            made = Integer(bytes_, bool(signed))
        if made is None:
            odd.append(member)
        else:
            members.append((last, offset - base, made))
    return Structure(name, size, tuple(members), union)


def _key(facts: Facts, fields: Iterable[str], where: str) -> str:
    wanted = hashlib.sha256(" ".join(fields).encode()).hexdigest()
    return cache.cache_key(
        facts, btf=None, objects=wanted, version=package_version(), variant=[where]
    )


def _kept(key: str) -> StandIn | None:
    with suppress(OSError, ValueError, LookupError, TypeError):
        data = cache.read_json(_KEPT)
        name = _BLOB.format(data["sha256"])
        if data["key"] == key and data["sha256"] == hashlib.sha256(cache.read(name)).hexdigest():
            return StandIn(
                path=cache.directory() / name,
                where=str(data["where"]),
                missing=tuple(data["missing"]),
            )
    return None


def _keep(key: str, blob: bytes, *, where: str, missing: tuple[str, ...]) -> StandIn:
    # Under its own name: a daemon opens objects with it long after another run had another one.
    digest = hashlib.sha256(blob).hexdigest()
    name = _BLOB.format(digest)
    about = {"key": key, "sha256": digest, "where": where, "missing": missing}
    if not (cache.write(name, blob) and cache.write_json(_KEPT, about)):
        why_not = f"what the headers in {where} tell cannot be kept in {cache.directory()}"
        return StandIn(where=where, why_not=why_not, remedy="make that directory writable")
    return StandIn(path=cache.directory() / name, where=where, missing=missing)
