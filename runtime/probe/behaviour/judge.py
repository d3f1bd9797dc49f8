# SPDX-License-Identifier: Apache-2.0
"""From what a check did or raised to evidence: whose fault a failure is."""

from __future__ import annotations

import errno
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.bpf.lib import BpfError
from runtime.probe.behaviour.bench import Bench
from runtime.probe.behaviour.check import Check
from runtime.probe.behaviour.outcome import AbsentError, BrokenError, InconclusiveError
from runtime.probe.verdict import Evidence, Level, Verdict

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_UNKNOWN = (
    "unknown func",
    "invalid func",
    "unknown kernel helper",
    "program of this type cannot use helper",
    "is required, but kernel",
    "CO-RE relocat",
    "failed to find valid kernel BTF",
    "Error loading vmlinux BTF",
    "BTF is required",
)

# Of the machine, not of the kernel's ways.
_SHORTAGES = (errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.ENOSPC)


def missing_privileges() -> list[str]:
    """The capabilities that BPF in sockets and cgroups takes and this process lacks."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    lacks = {name for name, bit in _CAPABILITIES.items() if not held >> bit & 1}
    if "CAP_SYS_ADMIN" not in lacks:
        lacks -= {"CAP_PERFMON", "CAP_BPF"}  # it stands for both
    return sorted(lacks)


def refused(what: str) -> str:
    """A refusal for want of privilege, with what is wanting as far as that can be told."""
    lacks = missing_privileges()
    if lacks:
        return f"{what} (missing: {', '.join(lacks)})"
    return f"{what} (all capabilities are held: a user namespace, seccomp or a security module?)"


def _locked_down() -> bool:
    try:
        return "[confidentiality]" in Path("/sys/kernel/security/lockdown").read_text()
    except OSError:
        return False


def _verifier_line(log: str) -> str:
    """The line of a log that says why: what the verifier or libbpf complained of."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in lines:
        if any(sign in line for sign in _UNKNOWN):
            return line
    words = [line for line in lines if not line.startswith(("libbpf:", "processed", "--"))]
    return (words or lines or [""])[-1]


def _of_bpf_error(error: BpfError) -> Evidence:
    line, what = _verifier_line(error.log), str(error)
    if error.errno == errno.EPERM or (missing_privileges() and error.log):
        verdict, what = Verdict.DENIED, refused(what)
    elif "bpf_probe_read" in line and _locked_down():
        verdict, what = Verdict.DENIED, f"{what} (kernel lockdown: confidentiality)"
    elif any(sign in line for sign in _UNKNOWN) or error.errno in (errno.ENOTSUP, errno.ESRCH):
        verdict = Verdict.ABSENT
    elif error.errno == errno.EINVAL and not line.startswith(("R", ";")):
        verdict = Verdict.ABSENT  # a type that the kernel does not know gives EINVAL and no words
    else:
        verdict = Verdict.INCONCLUSIVE
    return _evidence(verdict, what, code=error.errno, log=line)


def _evidence(verdict: Verdict, what: str, *, code: int | None = None, log: str = "") -> Evidence:
    return Evidence(level=Level.BEHAVIOUR, verdict=verdict, summary=what, errno=code, log=log)


def _of_os_error(error: OSError) -> Evidence:
    what = f"a socket call that must succeed said: {error.strerror or error}"
    verdict = Verdict.INCONCLUSIVE if error.errno in _SHORTAGES else Verdict.BROKEN
    return _evidence(verdict, what, code=error.errno)


def judge(check: Check, bench: Bench) -> list[Evidence]:
    """Run a check.

    Returns:
        what it saw, the deciding piece last.
    """
    try:
        check.run(bench)
    except BrokenError as error:
        last = _evidence(Verdict.BROKEN, str(error))
    except AbsentError as error:
        last = _evidence(Verdict.ABSENT, str(error))
    except InconclusiveError as error:
        last = _evidence(Verdict.INCONCLUSIVE, str(error))
    except BpfError as error:
        last = _of_bpf_error(error)
    except OSError as error:
        last = _of_os_error(error)
    else:
        if bench.evidence and bench.evidence[-1].level is Level.BEHAVIOUR:
            return bench.evidence
        last = _evidence(Verdict.PRESENT, "it does what the path needs")
    finally:
        bench.close()
    return [*bench.evidence, last]


def to_json(evidence: list[Evidence]) -> list[dict[str, Any]]:
    return [asdict(piece) for piece in evidence]


def from_json(pieces: list[dict[str, Any]]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(**{**piece, "level": Level(piece["level"]), "verdict": Verdict(piece["verdict"])})
        for piece in pieces
    )
