# SPDX-License-Identifier: Apache-2.0
"""Every check can fail: with a fault put into the program that it tries, it finds it broken."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.compile.clang import compile_object
from runtime.probe.behaviour import checks
from runtime.probe.verdict import Verdict
from tests.probe.behaviour.battery_support import RunOne

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("clang"), reason="compiles faulty programs: needs clang"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A capability, the line that is made wrong, and what the check must say."""

    capability: str
    file: str
    right: str
    wrong: str
    says: str
    turn: int = 1  # which occurrence


_UNUSED = '#pragma clang diagnostic ignored "-Wunused"\n'
_CHANGE_A_BYTE = """__u8 *data;
	if (bpf_msg_pull_data(msg, 0, 1, 0)) return SK_DROP;
	data = msg->data;
	if (data + 1 > (__u8 *)msg->data_end) return SK_DROP;
	data[0] ^= 0x80;
	return redirect(msg, plan);"""

FAULTS = {
    "rewrites to a wrong port": Fault(
        capability="connect.ipv4",
        file="connect.bpf.c",
        right="ctx->user_port = endpoint->port;",
        wrong="ctx->user_port = endpoint->port ^ 0x0100;",
        says="connect to 192.0.2.80: .* seen Connection refused",
    ),
    "does not rewrite": Fault(
        capability="connect.ipv4",
        file="connect.bpf.c",
        right="if (!endpoint)",
        wrong="if (1)",
        says="seen Network is unreachable",
    ),
    "refuses": Fault(
        capability="connect.ipv4",
        file="connect.bpf.c",
        right="return ALLOW;",
        wrong="return 0;",
        says="Operation not permitted",
    ),
    "rewrites to a wrong port, IPv6": Fault(
        capability="connect.ipv6",
        file="connect.bpf.c",
        right="ctx->user_port = endpoint->port;",
        wrong="ctx->user_port = endpoint->port ^ 0x0100;",
        turn=2,
        says="connect to 2001:db8::80: .* seen Connection refused",
    ),
    "enrolls nobody": Fault(
        capability="sockops",
        file="socket.h",
        right="if (bpf_sock_hash_update(ctx, &enrolled, &cookie, BPF_ANY))",
        wrong="if (0)",
        says="sockets enrolled: expected .*, seen set",
    ),
    "misses the end": Fault(
        capability="sockops",
        file="socket.h",
        right="bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);",
        wrong="",
        says="closing to be seen, seen nothing",
    ),
    "keeps another's value": Fault(
        capability="sk_storage",
        file="socket.h",
        right="plan->self = cookie;",
        wrong="plan->self = cookie + 1;",
        says="what a socket keeps",
    ),
    "changes a byte": Fault(
        capability="sockmap.egress",
        file="redirect.bpf.c",
        right="return redirect(msg, plan);",
        wrong=_CHANGE_A_BYTE,
        says="redirected to an upstream: .* first difference at byte 0",
    ),
    "loses a byte": Fault(
        capability="sockmap.egress",
        file="redirect.bpf.c",
        right="return redirect(msg, plan);",
        wrong="bpf_msg_pop_data(msg, 0, 1, 0); return redirect(msg, plan);",
        says="seen nothing within",
    ),
    "drops": Fault(
        capability="sockmap.egress",
        file="redirect.bpf.c",
        right="return redirect(msg, plan);",
        wrong="return SK_DROP;",
        says="Permission denied",
    ),
    "goes out instead of in": Fault(
        capability="sockmap.ingress",
        file="socket.h",
        right="plan->ways & WAY_INGRESS ? BPF_F_INGRESS : 0;",
        wrong="0;",
        says="from a sender into a receive queue .* seen nothing within",
    ),
    "keeps the answer upstream": Fault(
        capability="sockmap.ingress",
        file="redirect.bpf.c",
        right="return bpf_sk_redirect_hash(skb, &enrolled, home, BPF_F_INGRESS);",
        wrong="return SK_PASS;",
        says="from an upstream into the client's receive queue .* seen nothing within",
    ),
    "loses the answer, and its count": Fault(
        capability="sockmap.fionread.ingress",
        file="redirect.bpf.c",
        right="return bpf_sk_redirect_hash(skb, &enrolled, home, BPF_F_INGRESS);",
        wrong="return SK_DROP;",
        says="data at an enrolled socket, seen nothing",
    ),
    "wakes nobody": Fault(
        capability="sockmap.epoll",
        file="redirect.bpf.c",
        right="return bpf_sk_redirect_hash(skb, &enrolled, home, BPF_F_INGRESS);",
        wrong="return SK_DROP;",
        says="edge-triggered epoll after redirected data arrived: expected an event",
    ),
    "takes one write for a request": Fault(
        capability="sockmap.split",
        file="http.bpf.c",
        right="if (plan->held || !whole) {",
        wrong="if (0) {",
        says="at the gate|messages routed",
    ),
    "does not send files along": Fault(
        capability="sockmap.splice",
        file="redirect.bpf.c",
        right="return redirect(msg, plan);",
        wrong="return pass();",
        says="redirected data of sendfile .* seen nothing",
    ),
    "fails senders whose upstream is gone": Fault(
        capability="sockmap.close",
        file="socket.h",
        right="if (bpf_msg_redirect_hash(msg, &targets, &target, flags) != SK_PASS)\n\t\treturn pass();",
        wrong="if (bpf_msg_redirect_hash(msg, &targets, &target, flags) != SK_PASS)\n\t\treturn SK_DROP;",
        says="Permission denied",
    ),
    "does not look at the reader": Fault(
        capability="sockmap.flow_control.shortcut",
        file="flow.bpf.c",
        right="if (waiting(reader, plan) > reader_limit) {",
        wrong="if (0) {",
        says="a reader that sleeps: expected to be held back, seen all of 1048576 bytes accepted",
    ),
    "short-cuts what TCP still has": Fault(
        capability="sockmap.flow_control.shortcut",
        file="flow.bpf.c",
        right="if (BPF_CORE_READ(sender, snd_una) != BPF_CORE_READ(sender, write_seq))",
        wrong="if (0)",
        says="first of them over TCP: .* the first difference at byte 0",
    ),
    "does not look at the upstream": Fault(
        capability="sockmap.flow_control.btf",
        file="flow.bpf.c",
        right="if (queued + msg->size > room) {",
        wrong="if (0) {",
        says="what fitted, at the upstream's server .* seen nothing",
    ),
    "redirects a second": Fault(
        capability="sockmap.flow_control.bounded",
        file="bounded.bpf.c",
        right="BPF_NOEXIST",
        wrong="BPF_ANY",
        says="a second with one outstanding",
    ),
    "redirects what is large": Fault(
        capability="sockmap.flow_control.bounded",
        file="bounded.bpf.c",
        right="msg->size > SMALL ||",
        wrong="",
        says="one that is not small",
    ),
    "answers with the request's end left over": Fault(
        capability="sockmap.respond",
        file="answer.bpf.c",
        right="bpf_msg_pop_data(msg, SIZE, size, 0)",
        wrong="bpf_msg_pop_data(msg, SIZE, size - 1, 0)",
        says="the answer to (1|63) bytes",
    ),
    "answers, and lets the request pass": Fault(
        capability="sockmap.respond",
        file="answer.bpf.c",
        right="return bpf_msg_redirect_hash(msg, &enrolled, &plan->self, BPF_F_INGRESS);",
        wrong="return pass();",
        says="the answer to 1 bytes",
    ),
    "does not collect": Fault(
        capability="sockmap.cork",
        file="answer.bpf.c",
        right="if (msg->size < COLLECT) {",
        wrong="if (0) {",
        says="messages after collecting: expected 3, seen 9",
    ),
    "does not send by the socket in the map": Fault(
        capability="sockmap.replace",
        file="redirect.bpf.c",
        right="return redirect(msg, plan);",
        wrong="return pass();",
        says="bytes by the socket in the map",
    ),
    "lets an answer for the client go to the gate": Fault(
        capability="sockmap.home",
        file="home.bpf.c",
        right="*data != FOR_GATE",
        wrong="0",
        says="a segment of many",
    ),
    "does not know where segments belong": Fault(
        capability="sockmap.home",
        file="home.bpf.c",
        right="__u32 number = skb->cb[0];",
        wrong="__u32 number = 0;",
        says="a segment of many",
    ),
    "takes no note of a stream's end": Fault(
        capability="sockmap.home",
        file="home.bpf.c",
        right="if (!skb->len || stream->broken || bpf_skb_pull_data(skb, 1))",
        wrong="if (!skb->len) return 1;\n\tif (stream->broken || bpf_skb_pull_data(skb, 1))",
        says="upstream's end|its end|at the upstream",
    ),
    "routes a connection, not its requests": Fault(
        capability="http.exchange",
        file="http.bpf.c",
        right="upstream = letter ?",
        wrong="if (plan->target) return redirect(msg, plan);\n\tupstream = letter ?",
        says="a request at b",
    ),
}


def _faulty(probes: Path, checkout: Path, scratch: Path, fault: Fault) -> Path:
    """The objects, those with the fault in them compiled anew."""
    sources = shutil.copytree(checkout / "bpf" / "probe", scratch / "bpf" / "probe")
    text = (sources / fault.file).read_text()
    parts = text.split(fault.right)
    assert len(parts) > fault.turn, f"{fault.file} no longer has {fault.right!r}"
    head, tail = fault.right.join(parts[: fault.turn]), fault.right.join(parts[fault.turn :])
    (sources / fault.file).write_text(_UNUSED + head + fault.wrong + tail)
    objects = scratch / "objects"
    shutil.copytree(probes / "probe", objects / "probe")
    for source in sources.glob("*.bpf.c"):
        if fault.file in (source.name, "socket.h"):
            target = objects / "probe" / source.name.replace(".bpf.c", ".bpf.o")
            compile_object(source, target, include=[checkout / "bpf" / "include"])
    return objects


@pytest.mark.parametrize("name", FAULTS)
def test_fault_is_found(
    name: str, probes: Path, checkout: Path, tmp_path: Path, run_one: RunOne
) -> None:
    fault = FAULTS[name]
    finding = run_one(_faulty(probes, checkout, tmp_path, fault), fault.capability)
    said = finding.evidence[-1].summary
    assert finding.verdict is Verdict.BROKEN, finding.evidence
    assert re.search(fault.says, said), said
    assert finding.consequence
    assert finding.remedy


def test_remedy_that_does_not_mend(
    probes: Path, checkout: Path, tmp_path: Path, run_one: RunOne
) -> None:
    """Where FIONREAD needs the no-op verdict, one that does its work wrongly is found out."""
    fault = Fault(
        capability="sockmap.fionread",
        file="redirect.bpf.c",
        right="return SK_PASS;",
        wrong="return SK_DROP;",
        says="",
    )
    finding = run_one(_faulty(probes, checkout, tmp_path, fault), fault.capability)
    plain = finding.evidence[0]
    needed = plain.verdict is Verdict.BROKEN
    assert finding.verdict is (Verdict.BROKEN if needed else Verdict.PRESENT)


def test_every_check_has_a_fault() -> None:
    """Except what is wrong or right by the kernel alone: splice out of a socket, an end that overtakes."""
    tried = {fault.capability for fault in FAULTS.values()} | {"sockmap.fionread"}
    assert set(checks()) - tried == {"sockmap.splice.read", "sockmap.home.end"}
