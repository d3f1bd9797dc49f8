# SPDX-License-Identifier: Apache-2.0
"""Why the kernel said no: a refusal of this process is not the lack of a feature.

EPERM from bpf(2) has several authors: a capability that is not held, a seccomp filter, lockdown, a
user namespace, the memlock limit before 5.11, a security module. Helpers that need CAP_PERFMON are
refused differently: the verifier says that it does not know them (bpf_base_func_proto). Without it
the verifier also forbids harmless comparisons of pointers (allow_ptr_leaks), so that no rejection
then tells what the kernel can.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import Version

from runtime.probe.facts import Facts

_MEMCG_ACCOUNTING = Version("5.11")
_GATED_HELPER = re.compile(
    r"(?:unknown func |cannot use helper |cannot use func )(?:bpf_)?"
    r"(probe_read_kernel\w*|probe_read\w*|probe_write_user|snprintf_btf|trace_vprintk|trace_printk)"
)


@dataclass(frozen=True, slots=True)
class Denial:
    """Who refused, and what would lift it."""

    reason: str
    remedy: str


def why_denied(facts: Facts, *, code: int, log: str = "") -> Denial | None:
    """Explain a refusal; None when the kernel's answer is not one.

    Args:
        facts: what this process holds.
        code: the errno, positive.
        log: the verifier's words.
    """
    if code == errno.EPERM:
        return _explain(facts)
    if code not in (errno.EINVAL, errno.EACCES) or not log:
        return None
    gated = _GATED_HELPER.search(log)
    if not facts.holds("PERFMON", "SYS_ADMIN"):
        what = f"helper {gated.group(1)}" if gated else "what the verifier then forbids"
        return _missing("PERFMON", f"{what} takes CAP_PERFMON, which is not held")
    if gated and facts.lockdown == "confidentiality":
        return Denial(
            f"lockdown=confidentiality forbids helper {gated.group(1)}",
            "boot with lockdown=integrity or none; secure boot may ask for confidentiality",
        )
    return None


def _explain(facts: Facts) -> Denial:
    """The first reason that applies; a security module is what is left."""
    return next(_reasons(facts))


def _reasons(facts: Facts) -> Iterator[Denial]:
    if facts.user_namespace:
        yield Denial(
            "this process is in a user namespace, where its capabilities count for nothing here",
            "run as real root: a rootless container cannot load BPF",
        )
    for name in ("BPF", "NET_ADMIN", "PERFMON"):
        if not facts.holds(name, "SYS_ADMIN"):
            yield _missing(name, f"neither CAP_{name} nor CAP_SYS_ADMIN is held")
    if facts.seccomp:
        yield Denial(
            "a seccomp filter is on, and every capability needed is held",
            "allow bpf(2) in the seccomp profile (Kubernetes: seccompProfile Unconfined or your own)",
        )
    if memlock_counts(facts) and facts.memlock >= 0 and not facts.holds("SYS_RESOURCE"):
        yield Denial(
            f"RLIMIT_MEMLOCK is {facts.memlock} bytes, and kernels before 5.11 charge maps to it",
            "raise it (`ulimit -l unlimited`, LimitMEMLOCK=infinity) or grant CAP_SYS_RESOURCE",
        )
    if not facts.holds("NET_ADMIN"):  # since 6.9 (bpf_token_capable) SYS_ADMIN stands in everywhere
        yield _missing(
            "NET_ADMIN",
            "CAP_NET_ADMIN is not held, and this kernel asks for it whatever else is held",
        )
    yield Denial(
        "every capability needed is held: a security module (SELinux, AppArmor, lockdown) refused",
        "look for the refusal in the kernel log (`dmesg | grep -i -e denied -e lockdown`)",
    )


def memlock_counts(facts: Facts) -> bool:
    """Whether the kernel is of an age that charges BPF memory to RLIMIT_MEMLOCK."""
    version = facts.upstream.version
    return version is not None and version < _MEMCG_ACCOUNTING


def _missing(name: str, reason: str) -> Denial:
    return Denial(reason, grant(name))


def grant(*names: str) -> str:
    """How to give a process capabilities."""
    flags = " ".join(f"--cap-add {name}" for name in names)
    listed = ", ".join(f'"{name}"' for name in names)
    new = [name for name in names if name in ("BPF", "PERFMON")]
    old = f" (an engine that does not know {' or '.join(new)}: SYS_ADMIN)" if new else ""
    return f"docker run {flags}; Kubernetes: securityContext.capabilities.add: [{listed}]{old}"
